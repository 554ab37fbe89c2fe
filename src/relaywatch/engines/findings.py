"""From a case to the finding: names, files, provenance and advice are added to what detection measured."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import pairwise
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from relaywatch import __version__
from relaywatch.attack.provenance import attack_provenance
from relaywatch.attack.requirements import log_sources_for
from relaywatch.detection.calibration import PRIOR_LOG_ODDS
from relaywatch.detection.columns import Floats, Ints
from relaywatch.detection.context import (
    Fact,
    Surroundings,
    context_facts,
    context_items,
    indicator_fact,
    indicator_items,
    lookup_fact,
    lookup_items,
    lookups_near,
    setup_items,
)
from relaywatch.detection.episode import ADDED_BYTES, Bridges, Episode, evidence_beyond_one
from relaywatch.detection.items import Item
from relaywatch.detection.settings import Settings, describe
from relaywatch.detection.spread import (
    OtherInstalls,
    is_private,
    lateral_fact,
    novelty_fact,
    novelty_items,
    organisations_fact,
    party,
    reached_from_outside,
    spread_item,
    spread_of,
)
from relaywatch.detection.verdict import (
    Judgement,
    Provable,
    bridging_item,
    conserved,
    judge,
    role_item,
    totals_item,
)
from relaywatch.engines.arrangement import US
from relaywatch.engines.balance import balance_bins
from relaywatch.engines.cases import Case
from relaywatch.engines.contacts import NAMED_SHARE, contacts_of
from relaywatch.engines.installs import Packaged
from relaywatch.engines.records import (
    APP_INFERRED,
    APP_MATCHED,
    NO_UID,
    SEEN_BYTES,
    SEEN_DIRECTION,
    AppKey,
    Records,
)
from relaywatch.engines.surroundings import surroundings_of
from relaywatch.engines.unseen import not_observable
from relaywatch.enrichment.loading import Enrichment
from relaywatch.governance.response import first_response
from relaywatch.model.finding import (
    App,
    AutonomousSystem,
    BalancePoint,
    Bridge,
    ContextFact,
    Destination,
    Device,
    Endpoint,
    Evidence,
    Finding,
    Leg,
    SourceRecord,
    SourceSummary,
    Spread,
    Topology,
    User,
    Verdict,
)
from relaywatch.model.schemas import Direction, SignalKind

SHOWN_BRIDGES: Final = 100
"""Bridges carried in a finding, the strongest; the counts are of all."""
SHOWN_REMOTES: Final = 10_000
"""Gateways, and destinations, carried in a finding: as many as one line of it can hold."""
SHOWN_RECORDS: Final = 20
UNSEEN: Final = "address not seen"
"""Name of the party that stands for every destination whose name and address no source shows."""
SHOWN_NAMES: Final = 20
USER_ID_UIDS: Final = 100_000
_PROTOCOLS: Final = {6: "tcp", 17: "udp"}
_DIRECTIONS: Final = (Direction.INBOUND, Direction.OUTBOUND)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_Key = TypeVar("_Key", bound=Hashable)
Codes = npt.NDArray[np.uint32]
Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Directory:
    """What numbers in records stand for, and what is known beside the telemetry.

    apps, sources: by code; texts: by names key; formats: by source; inventory: rows by (device, package or ""); bars:
    natural log evidence that a relay verdict asks for, by day since epoch; twins: of records by source code and
    position, the source code and position of those that were merged into each.
    """

    apps: Mapping[int, AppKey]
    sources: Sequence[str]
    texts: Mapping[int, str]
    formats: Mapping[str, str]
    inventory: Mapping[tuple[str, str], Mapping[str, Any]]
    bars: Mapping[int, float]
    enrichment: Enrichment = field(default_factory=Enrichment)
    twins: Callable[[Codes, Ints], Sequence[Sequence[tuple[int, int]]]] = lambda sources, _positions: (
        [()] * len(sources)
    )


def moment(microseconds: int) -> datetime:
    """A time in us since epoch, as a datetime in UTC."""
    return _EPOCH + timedelta(microseconds=int(microseconds))


def draft_of(case: Case, directory: Directory, settings: Settings) -> Draft | None:
    """The draft of a case; None where the evidence is not worth a report, other installs of the app left aside."""
    draft = Draft(case, directory, settings)
    return draft if len(draft.bridges.target) and draft.judged(draft.items()).verdict is not None else None


class Draft:
    """One case on its way to a finding. What other installs of the app contact is asked for after all are drafted."""

    def __init__(self, case: Case, directory: Directory, settings: Settings) -> None:
        self.case, self.directory, self.settings = case, directory, settings
        self.key, self.bar = directory.apps[case.app], directory.bars[case.day]
        self.start = (case.flows["start"] - case.origin) * US
        self.end = np.where(case.flows["end"] < case.flows["start"], self.start, (case.flows["end"] - case.origin) * US)
        self.bridges, self.legs, self.topology = _parts(case, self.start)
        self.targets = case.flows[self.bridges.target]
        self.clients = case.flows[self.legs]
        self.around: Surroundings = surroundings_of(case, directory.texts)
        inventory = directory.inventory.get((self.key.device, self.key.package), {})
        self.person = {**directory.inventory.get((self.key.device, ""), {}), **inventory}
        uid = None if self.key.uid == NO_UID else self.key.uid
        self.app = App(
            package=self.key.package or None,
            uid=uid,
            user_id=None if uid is None else uid // USER_ID_UIDS,
            signing_digest=inventory.get("signing_digest"),
            label=inventory.get("app_label"),
        )
        self.port = self._listener_port()
        self.names = self._texts(self.targets["name"])
        self.addresses = self._addresses(self.targets)
        clients = self._addresses(case.flows[self.bridges.client])
        # A client whose address no source shows may stand in the phone's own network.
        public = all(clients) and not any(map(is_private, clients))
        self.from_outside = self.topology is Topology.ACCEPTED and public
        self.lateral = reached_from_outside(self.addresses, clients)
        self.spread = spread_of(
            self.names,
            self.addresses,
            self.start[self.bridges.target],
            self.end[self.bridges.target],
            self.bridges.slices,
        )
        self.contacts = contacts_of(
            case, self.bridges.target, self.app.package, directory.texts, directory.enrichment.indicators
        )
        self.organisations = self._organisations()
        self.facts = self._facts()

    @cached_property
    def compared(self) -> tuple[Packaged, frozenset[str]]:
        """Day and package, and the bridged public parties, about which other installs are asked; none if not known."""
        public = {
            who
            for who, address in zip(self.spread.parties, self.addresses, strict=True)
            if who and not is_private(address)
        }
        return (self.case.day, self.key.package), frozenset(public if self.key.package else ())

    def judged(self, items: Sequence[Item]) -> Judgement:
        """The judgement of the items; what explains raises its probability, and not its verdict."""
        episode = self.case.episode
        if episode is None:
            score = PRIOR_LOG_ODDS + sum(item.log_ratio for item in items)
            return Judgement(Verdict.INSUFFICIENT_TELEMETRY, 1.0 / (1.0 + math.exp(-score)), score)
        sessions = self.counted_sessions(episode)
        convicting = [item for item in items if not item.explains or item.log_ratio <= 0.0]
        verdict = judge(convicting, sessions, self.provable, self.settings, self.bar).verdict
        return replace(judge(items, sessions, self.provable, self.settings, self.bar), verdict=verdict)

    def finding(self, installs: OtherInstalls) -> Finding | None:
        """The finding, with what other installs contact; None where that leaves nothing worth a report."""
        items = [*self.items(), *novelty_items(installs)]
        judged = self.judged(items)
        if judged.verdict is None:
            return None
        allowed = self.settings.allows_app(self.app.package, self.app.signing_digest)
        sanctioned = allowed and self.case.episode is not None
        verdict = Verdict.SANCTIONED_RELAY if sanctioned else judged.verdict
        return self._finding(items, judged, verdict, installs)

    @property
    def provable(self) -> Provable:
        """What the telemetry could show of this app."""
        both = np.concatenate([self.clients, self.targets])
        known = bool((both["bytes_out"] >= 0).all() and (both["bytes_in"] >= 0).all())
        return Provable(
            app=self.app.package is not None or self.app.uid is not None,
            bytes=known,
            direction=bool(np.isin(both["direction"], _DIRECTIONS).all()),
            names=self.from_outside or self._named,
        )

    @property
    def _named(self) -> bool:
        return sum(name is not None for name in self.names) >= NAMED_SHARE * len(self.names)

    def counted_sessions(self, episode: Episode) -> int:
        """Sessions that count towards RelaySessionThreshold: of pairs, those conserved within ByteSymmetryTolerance."""
        if episode.manner is not None:
            return episode.sessions
        received = self.targets["bytes_in"].astype(np.float64)
        return conserved(self.bridges.downstream, received, self.settings.byte_symmetry_tolerance, ADDED_BYTES)

    @cached_property
    def _beyond_one(self) -> tuple[float, float] | None:
        """Evidence without the party that gives most of it, and in all; None where no episode gives any."""
        if self.case.episode is None:
            return None
        units = self.case.episode.units
        flows = self.case.flows[units.rows]
        ends = zip(units.rows.tolist(), self._texts(flows["name"]), self._addresses(flows), strict=True)
        # A unit without a flow has row NONE, below 0, and no party.
        return evidence_beyond_one(units, [party(name, address) if row >= 0 else "" for row, name, address in ends])

    def items(self) -> list[Item]:
        """All evidence, bridging first."""
        episode, settings = self.case.episode, self.settings
        if episode is None and self.case.totals is not None:
            core = [totals_item(self.case.totals)]
        elif episode is not None:
            core = [bridging_item(episode, self.counted_sessions(episode))]
        allowed = settings.allows_app(self.app.package, self.app.signing_digest)
        return [
            *core,
            spread_item(
                self.spread,
                settings.concurrent_destination_threshold,
                self._beyond_one,
                from_outside=self.from_outside,
            ),
            *([role_item(self.app.package)] if self.app.package is not None and not allowed else []),
            *setup_items(self.around, self.port),
            *lookup_items(self.facts["public-IP look-up"]),
            *indicator_items(self.facts["proxyware indicator"]),
            *context_items(list(self.facts.values()), settings),
        ]

    def _finding(self, items: Sequence[Item], judged: Judgement, verdict: Verdict, installs: OtherInstalls) -> Finding:
        """The finding with everything that explains it."""
        evidence = [self._evidence(item) for item in items]
        satisfied = {row for item in evidence for row in item.log_sources}
        device = Device(uid=self.key.device, group=self.person.get("device_group"))
        user = User(name=self.person.get("user_name"))
        gateways, destinations = self._gateways(), self._destinations()
        sources = self._sources()
        first, last = self._span()
        shown = np.sort(np.argsort(-self.bridges.log_ratio, kind="stable")[:SHOWN_BRIDGES])
        client_legs, target_legs, bridge_list = self._shown(shown)
        return Finding(
            finding_id=self._identity(),
            verdict=verdict,
            probability=judged.probability,
            score=judged.score,
            topology=self.topology,
            device=device,
            app=self.app,
            user=user,
            first_seen=first,
            last_seen=last,
            bridges=len(self.bridges.target),
            bytes_in=_known_sum(self.targets["bytes_in"]),
            bytes_out=_known_sum(self.targets["bytes_out"]),
            client_bytes_in=_known_sum(self.clients["bytes_in"]),
            client_bytes_out=_known_sum(self.clients["bytes_out"]),
            listener_port=self.port,
            gateways=gateways,
            destinations=destinations,
            spread=self._spread(installs),
            context=[_context_fact(fact) for fact in (*self.facts.values(), novelty_fact(installs))],
            indicators=self.contacts.indicators,
            evidence=evidence,
            evidence_bar=self.bar,
            not_observable=not_observable(self._missing(installs), self.around.observable),
            client_legs=client_legs,
            target_legs=target_legs,
            bridge_list=bridge_list,
            balance=self._balance(),
            settings=describe(self.settings),
            attack=attack_provenance(satisfied),
            response=first_response(
                verdict=verdict,
                topology=self.topology,
                device=device,
                app=self.app,
                user=user,
                listener_port=self.port,
                gateways=gateways,
                destinations=destinations,
                sources=sources,
            ),
            sources=sources,
            producer=f"relaywatch {__version__}",
        )

    def _facts(self) -> dict[str, Fact]:
        """Facts of context by name, those of other installs left aside."""
        seen, matches = self.contacts.names_seen, len(self.contacts.indicators)
        near = lookups_near((self.contacts.lookups["start"] - self.case.origin) * US, self._connects())
        lateral = len({who for who, row in zip(self.spread.parties, self.lateral.tolist(), strict=True) if row})
        facts = [
            *([lateral_fact(lateral)] if lateral else []),
            *self._app_facts(),
            *self._stretch_facts(),
            *context_facts(self.around, self.start[self.bridges.target], self.settings),
            organisations_fact(self.organisations),
            lookup_fact(near if seen or near else None),
            indicator_fact(matches if seen or matches else None),
        ]
        return {fact.name: fact for fact in facts}

    def _app_facts(self) -> Iterator[Fact]:
        """How legs came to their app, where a record of their own does not name it."""
        seen = np.concatenate([self.clients, self.targets])["seen"]
        matched, inferred = (int(((seen & bit) > 0).sum()) for bit in (APP_MATCHED, APP_INFERRED))
        ways = {"another source's record of the connection": matched, "inference, as no other app fits": inferred}
        told = ", ".join(f"{count} by {way}" for way, count in ways.items() if count)
        if told:
            yield Fact("app identity", float(matched + inferred), "legs", f"the app of {len(seen)} legs: {told}")

    def _stretch_facts(self) -> Iterator[Fact]:
        """How much of the day relays, where it was judged in several stretches."""
        count = len(self.case.spans)
        if count:
            part = f"{count} of the day's {self.case.stretches} stretches relay; bridges are the strongest one's"
            yield Fact("stretches of the day", float(count), "stretches", part)

    def _connects(self) -> Floats:
        """When the relay came up, s: its first bridge, and each link that was dialled to a gateway."""
        links = self.start[self.legs] if self.topology is not Topology.ACCEPTED else np.empty(0)
        return np.append(links, self.start[self.bridges.target][:1])

    def _system(self, address: str) -> AutonomousSystem | None:
        systems = self.directory.enrichment.systems
        return None if systems is None or is_private(address) else systems.of(address)

    def _organisations(self) -> int | None:
        """Distinct organisations of the bridged addresses, by name or else by number; None where none is known."""
        systems = self._systems(set(self.addresses))
        return len({(system.organisation or str(system.number)).casefold() for system in systems}) or None

    def _spread(self, installs: OtherInstalls) -> Spread:
        lateral = self.facts.get("reach into private networks")
        return Spread(
            destinations=self.spread.distinct,
            prefixes=self.spread.prefixes,
            peak_concurrent=self.spread.peak,
            organisations=self.organisations,
            only_here=installs.share,
            lateral=int(lateral.value or 0) if lateral is not None else 0,
        )

    def _texts(self, keys: Keys) -> list[str | None]:
        return [self.directory.texts.get(key) for key in keys.tolist()]

    def _addresses(self, flows: Records) -> list[str]:
        """The flows' remotes, empty where no source shows them."""
        return [text or "" for text in self._texts(flows["remote"])]

    def _listener_port(self) -> int | None:
        if self.topology is not Topology.ACCEPTED:
            return None
        ports, counts = np.unique(self.clients["local_port"], return_counts=True)
        return int(ports[counts.argmax()])

    def _span(self) -> tuple[datetime, datetime]:
        """From the first bridge's begin to the last one's end; from the first stretch that relays to the last."""
        flows = np.concatenate([self.targets, self.case.flows[self.bridges.client]])
        first = int(self.targets["start"].min())
        last = max(int(flows["end"].max()), int(flows["start"].max()), first)
        begins, ends = [first, *(a for a, _ in self.case.spans)], [last, *(b for _, b in self.case.spans)]
        return moment(min(begins)), moment(max(ends))

    def _identity(self) -> str:
        """The same for one app and day, whatever more becomes known of it."""
        parts = (self.key.device, self.key.package, str(self.key.uid), str(self.case.day))
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]

    def _missing(self, installs: OtherInstalls) -> Iterator[str]:
        flows = np.concatenate([self.clients, self.targets])
        if not self.provable.app:
            yield "app"
        if not (flows["seen"] & SEEN_BYTES).all() or not self.provable.bytes:
            yield "bytes"
        if (flows["end"] < 0).any():
            yield "end"
        if not len(self.case.volumes.flow):
            yield "volumes"
        if not (flows["seen"] & SEEN_DIRECTION).all():
            yield "direction"
        if not self._named:
            yield "hostname"
        if self.organisations is None:
            yield "organisation"
        if installs.share is None:
            yield "other_installs"
        if not self.contacts.names_seen:
            yield "own_contacts"
        if self.app.signing_digest is None:
            yield "signing_digest"
        if self.person.get("user_name") is None:
            yield "user"

    def _evidence(self, item: Item) -> Evidence:
        rows = self._rows_behind(item)
        return Evidence(
            kind=item.kind,
            name=item.name,
            statement=item.statement,
            value=item.value,
            unit=item.unit,
            log_likelihood_ratio=item.log_ratio,
            null=item.null,
            settings=list(item.settings),
            log_sources=log_sources_for(item.name) if item.log_ratio >= 0.0 else [],
            records=self._records(rows[:SHOWN_RECORDS]),
            record_count=len(rows),
        )

    def _rows_behind(self, item: Item) -> Records:
        """The records that an item rests on."""
        if item.name == "public-IP look-up":
            return self.contacts.lookups
        if item.kind == "indicator":
            return self.contacts.indicated
        if item.kind in {"context", "setup"}:
            own = self.case.signals[self.case.signals["app"] == self.case.app]
            rows: Records = own[np.isin(own["kind"], [*item.signals, SignalKind.CAPTURE])]
            return rows
        return self.targets if item.kind in {"spread", "novelty"} else np.concatenate([self.clients, self.targets])

    def _records(self, rows: Records) -> list[SourceRecord]:
        """The rows' records, each followed by those of other sources that were merged into it."""
        names, found = self.directory.sources, list[tuple[str, int]]()
        twins = self.directory.twins(rows["source"], rows["position"])
        for source, position, merged in zip(rows["source"].tolist(), rows["position"].tolist(), twins, strict=True):
            found += [(names[source], position), *sorted((names[code], place) for code, place in merged)]
        return [SourceRecord(source=source, position=position) for source, position in found]

    def _sources(self) -> list[SourceSummary]:
        codes = set(np.concatenate([self.case.flows["source"], self.case.signals["source"]]).tolist())
        legs = np.concatenate([self.clients, self.targets])
        codes.update(code for twins in self.directory.twins(legs["source"], legs["position"]) for code, _ in twins)
        names = sorted(self.directory.sources[code] for code in codes)
        return [SourceSummary(source=name, format=self.directory.formats.get(name, "")) for name in names]

    def _gateways(self) -> list[Endpoint]:
        """Remotes of the client legs, the busiest first; accepted clients by address, gateways by address and port."""
        accepted = self.topology is Topology.ACCEPTED
        ports = np.zeros(len(self.clients), np.int64) if accepted else self.clients["remote_port"]
        places, order, bounds = _grouped(zip(self.clients["remote"].tolist(), ports.tolist(), strict=True))
        flows = self.clients[order]
        names, addresses = self._texts(flows["name"]), self._addresses(flows)
        received, sent = _sums(flows["bytes_in"], bounds), _sums(flows["bytes_out"], bounds)
        found = [
            Endpoint(
                address=addresses[first],
                port=None if accepted else port,
                hostname=next(filter(None, names[first:last]), None),
                sessions=last - first,
                bytes_in=received[k],
                bytes_out=sent[k],
                autonomous_system=self._system(addresses[first]),
            )
            for k, ((_, port), (first, last)) in enumerate(zip(places, pairwise(bounds.tolist()), strict=True))
        ]
        return sorted(found, key=lambda e: (-e.bytes_out - e.bytes_in, e.address, e.port or 0))[:SHOWN_REMOTES]

    def _destinations(self) -> list[Destination]:
        """Parties that the client reached, the busiest first; where there are too many, private ones are kept."""
        parties, order, bounds = _grouped(self.spread.parties)
        flows = self.targets[order]
        received, sent = _sums(flows["bytes_in"], bounds), _sums(flows["bytes_out"], bounds)
        lateral = np.logical_or.reduceat(self.lateral[order], bounds[:-1]).tolist()
        ports, rows = flows["remote_port"].tolist(), order.tolist()
        found = []
        for k, (name, (first, last)) in enumerate(zip(parties, pairwise(bounds.tolist()), strict=True)):
            hostnames = sorted({host for row in rows[first:last] if (host := self.names[row])})
            addresses = sorted({self.addresses[row] for row in rows[first:last]} - {""})
            found.append(
                Destination(
                    name=name or UNSEEN,
                    hostnames=hostnames[:SHOWN_NAMES],
                    hostname_count=len(hostnames),
                    addresses=addresses[:SHOWN_NAMES],
                    address_count=len(addresses),
                    ports=sorted(set(ports[first:last]))[:SHOWN_NAMES],
                    bridges=last - first,
                    bytes_in=received[k],
                    bytes_out=sent[k],
                    private=bool(addresses) and all(map(is_private, addresses)),
                    lateral=lateral[k],
                    autonomous_systems=self._systems(addresses)[:SHOWN_NAMES],
                )
            )
        kept = sorted(found, key=lambda d: (not (d.private or d.lateral), -d.bytes_in - d.bytes_out, d.name))
        return sorted(kept[:SHOWN_REMOTES], key=lambda d: (-d.bytes_in - d.bytes_out, d.name))

    def _systems(self, addresses: Iterable[str]) -> list[AutonomousSystem]:
        """The autonomous systems of the addresses, each once, by number."""
        if self.directory.enrichment.systems is None:
            return []
        found = {system for address in addresses if (system := self._system(address)) is not None}
        return sorted(found, key=lambda system: (system.number or 0, system.organisation or ""))

    def _shown(self, shown: Ints) -> tuple[list[Leg], list[Leg], list[Bridge]]:
        bridges = self.bridges
        clients, client_place = np.unique(bridges.client[shown], return_inverse=True)
        columns = (bridges.lag, bridges.upstream, bridges.downstream, bridges.log_ratio)
        measures = zip(client_place.tolist(), *(column[shown].tolist() for column in columns), strict=True)
        rows = [
            Bridge(
                client=place,
                target=k,
                lag_s=_finite(lag) or 0.0,
                upstream_ratio=_finite(upstream),
                downstream_ratio=_finite(downstream),
                log_likelihood_ratio=log_ratio,
            )
            for k, (place, lag, upstream, downstream, log_ratio) in enumerate(measures)
        ]
        return self._legs(self.case.flows[clients]), self._legs(self.targets[shown]), rows

    def _legs(self, flows: Records) -> list[Leg]:
        numbers = ("remote_port", "protocol", "start", "end", "bytes_in", "bytes_out", "source", "position")
        columns = [self._addresses(flows), self._texts(flows["name"]), *(flows[name].tolist() for name in numbers)]
        return [
            Leg(
                address=address,
                port=port or None,
                hostname=hostname,
                protocol=_PROTOCOLS.get(protocol) or str(protocol),
                start=moment(start),
                end=moment(end) if end >= start else None,
                bytes_in=max(received, 0),
                bytes_out=max(sent, 0),
                record=SourceRecord(source=self.directory.sources[source], position=position),
            )
            for address, hostname, port, protocol, start, end, received, sent, source, position in zip(
                *columns, strict=True
            )
        ]

    def _balance(self) -> list[BalancePoint]:
        flow_bytes = tuple(self.case.flows[name].astype(np.float64) for name in ("bytes_out", "bytes_in"))
        times, rows = balance_bins(
            self.start, self.end, (flow_bytes[0], flow_bytes[1]), self.case.volumes, self.legs, self.bridges.target
        )
        return [
            BalancePoint(
                time=moment(self.case.origin + round(time * 1e6)),
                client_in=column[0],
                target_out=column[1],
                target_in=column[2],
                client_out=column[3],
            )
            for time, column in zip(times.tolist(), rows.T.tolist(), strict=True)
        ]


def _parts(case: Case, start: Floats) -> tuple[Bridges, Ints, Topology]:
    """Bridges, client legs and topology; of mirrored totals every target leg counts as fed by the link."""
    if case.episode is not None:
        return case.episode.bridges, case.episode.legs, case.episode.topology
    if case.totals is None:
        raise ValueError("a case has an episode or totals")
    targets, legs = case.totals.targets, case.totals.legs
    count = len(targets)
    unknown, inbound = np.full(count, np.nan), case.flows["direction"][legs[0]] == 1
    client = np.full(count, legs[0], np.int64)
    bridges = Bridges(
        client, targets, start[targets] - start[client], unknown, unknown, np.zeros(count), np.ones(count, np.int64)
    )
    return bridges, legs, Topology.ACCEPTED if inbound else Topology.TUNNEL


def _context_fact(fact: Fact) -> ContextFact:
    seen = "not_observable" if fact.value is None else "observed"
    return ContextFact(name=fact.name, value=fact.value, unit=fact.unit, statement=fact.statement, observability=seen)


def _known_sum(values: Ints) -> int:
    return int(values[values > 0].sum())


def _sums(values: Ints, bounds: Ints) -> list[int]:
    """Sum of the known values between each two bounds."""
    sums: list[int] = np.add.reduceat(np.maximum(values, 0), bounds[:-1]).tolist()
    return sums


def _grouped(keys: Iterable[_Key]) -> tuple[list[_Key], Ints, Ints]:
    """Distinct keys as they first come, the rows ordered by key, and the bounds of each key among these."""
    codes: dict[_Key, int] = {}
    code = np.array([codes.setdefault(key, len(codes)) for key in keys], np.int64)
    order = np.argsort(code, kind="stable")
    return list(codes), order, np.searchsorted(code[order], np.arange(len(codes) + 1))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
