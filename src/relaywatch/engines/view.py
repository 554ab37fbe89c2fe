"""All sources read and joined into one view: what a hunt judges, and what `sources` tells of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from relaywatch.engines import shards
from relaywatch.engines.identities import IdentityAccount, complete_apps, unify
from relaywatch.engines.intake import Intake
from relaywatch.engines.joining import JoinAccount, PairOfSources, join_shard
from relaywatch.engines.profile import Profile
from relaywatch.model.destination_list import DestinationList
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import SignalKind
from relaywatch.outputs.summary import JoinedSources, JoinSummary, UnitRead
from relaywatch.sources.discovery import Unit
from relaywatch.sources.reading import Reading, Tally

SHOWN_PAIRS = 1_000


class Watcher(Protocol):
    """Told how a hunt goes on."""

    def reading(self, total_bytes: int) -> None:
        """Reading begins; so many stored bytes are to be read."""

    def read(self, stored_bytes: int) -> None:
        """So many more stored bytes are read."""

    def judging(self, shards: int) -> None:
        """Judging begins; so many parts are to be judged."""

    def judged(self) -> None:
        """One more part is judged."""


class Unwatched:
    """A watcher for hunts that nobody looks at."""

    def reading(self, total_bytes: int) -> None:
        """Nothing."""

    def read(self, stored_bytes: int) -> None:
        """Nothing."""

    def judging(self, shards: int) -> None:
        """Nothing."""

    def judged(self) -> None:
        """Nothing."""


@dataclass(slots=True)
class View:
    """What was read. formats: reader name by source name; identity, join: how it became one view."""

    intake: Intake
    quarantine: Quarantine
    reads: list[UnitRead] = field(default_factory=list)
    formats: dict[str, str] = field(default_factory=dict)
    identity: IdentityAccount = field(default_factory=IdentityAccount)
    join: JoinAccount = field(default_factory=JoinAccount)
    devices: int = 0
    apps: int = 0

    @property
    def summary(self) -> JoinSummary:
        """The join as outputs show it."""
        names: dict[str, list[str]] = defaultdict(list)
        for other, name in sorted(self.identity.devices.canonical.items()):
            names[self.identity.of(name)].append(other)
        for phone, sensor, like in self.identity.likenesses:
            names[phone].append(f"{sensor} ({like.matches} connections at one offset)")
        links = self.identity.devices.possible
        return JoinSummary(
            pairs=[_shown(pair) for pair in self.join.pairs[:SHOWN_PAIRS]],
            merged=self.join.merged,
            devices=dict(names),
            possible=[(link.one, link.other, link.weight, ", ".join(link.through)) for link in links[:SHOWN_PAIRS]],
            translated=self.identity.translated,
            by_address=self.identity.by_address,
            contested_addresses=self.identity.contested,
            attributed=dict(sorted(self.join.attributed.items())),
        )


def read_view(
    units: Sequence[Unit],
    folder: Path,
    device: str,
    watcher: Watcher,
    allowed: DestinationList,
    *,
    profiled: bool = False,
) -> View:
    """Read the units and join them. folder: for work files; allowed: destinations that are left out.

    profiled: whether to gather what each unit's rows show.
    """
    view = View(Intake(folder, allowed), Quarantine())
    watcher.reading(sum(unit.size_bytes for unit in units))
    for unit in units:
        view.reads.append(_read(unit, view, device, watcher, profiled=profiled))
    joined(view)
    return view


def joined(view: View) -> None:
    """Nothing more is read: join what the sources of the view say."""
    view.intake.seal()
    view.identity = unify(view.intake.identities, view.intake.tables, view.intake.registry, view.intake.names)
    if len(set(view.formats.values())) > 1 or view.intake.sockets_met:
        _join(view)
    view.devices, view.apps = _counts(view)


def _counts(view: View) -> tuple[int, int]:
    """Devices and identified apps of the view; by its records where some have moved."""
    registry, tables = view.intake.registry, view.intake.tables
    if not tables.rewritten:
        return len(registry.devices), registry.identified_apps
    apps, devices = set(), set()
    for table in (tables.flows, tables.volumes, tables.signals):
        for shard in range(shards.SHARDS):
            records = table.read(shard)
            apps |= set(np.unique(records["app"]).tolist())
            devices |= set(np.unique(records["device"]).tolist())
    codes = np.array(sorted(apps), np.uint32)
    return len(devices), int((~registry.anonymous(codes)).sum())


def _read(unit: Unit, view: View, device: str, watcher: Watcher, *, profiled: bool) -> UnitRead:
    """Read one unit into the intake; what became of its records."""
    before, rows = view.quarantine.total, 0
    tally, profile = Tally(), Profile()
    for batch in unit.read(Reading(view.quarantine, device, watcher.read, tally)):
        view.intake.add(batch)
        rows += batch.rows.num_rows
        if profiled:
            profile.add(batch)
    for name in view.intake.registry.source_names()[len(view.formats) :]:
        view.formats[name] = unit.reader_name
    return UnitRead(
        path=str(unit.path),
        format=unit.reader_name,
        records=rows,
        quarantined=view.quarantine.total - before,
        met=tally.records,
        with_rows=tally.with_rows,
        unused=dict(sorted(tally.unused.items())),
        shows=profile.view() if profiled else None,
    )


def _join(view: View) -> None:
    """Join shard by shard; devices of one format pass as they are."""
    intake, registry = view.intake, view.intake.registry
    formats = [view.formats[name] for name in registry.source_names()]
    tables, old_flows, old_volumes = intake.tables, intake.tables.flows, intake.tables.volumes
    flows, volumes = (
        old_flows.emptied("flows-joined", tables.folder),
        old_volumes.emptied("volumes-joined", tables.folder),
    )
    twins = []
    texts = intake.names.texts(_lookup_details(view))
    for shard in range(shards.SHARDS):
        records = old_flows.read(shard)
        if len(records):
            signals = intake.signals.read(shard)
            done = join_shard(records, old_volumes.read(shard), signals, formats, registry, texts, view.join)
            flows.add(done.flows)
            volumes.add(done.volumes)
            twins.append(done.twins)
        else:
            volumes.add(old_volumes.read(shard))
    for table in (flows, volumes):
        table.seal()
    for table in (old_flows, old_volumes):
        table.discard()
    tables.flows, tables.volumes, tables.rewritten = flows, volumes, True
    view.join.seal(twins)
    if view.join.learned:
        complete_apps(intake.identities, tables, registry, view.identity, view.join.apps())


def _lookup_details(view: View) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Keys of what name look-ups say."""
    found = [np.empty(0, np.uint64)]
    for shard in range(shards.SHARDS):
        signals = view.intake.signals.read(shard)
        found.append(np.unique(signals["detail"][signals["kind"] == SignalKind.NAME_LOOKUP]))
    return np.unique(np.concatenate(found))


def _shown(pair: PairOfSources) -> JoinedSources:
    skew = pair.skew
    return JoinedSources(
        device=pair.device,
        one=pair.one,
        other=pair.other,
        records=pair.records,
        matched=pair.matched,
        contested=pair.contested,
        unmatched=pair.unmatched,
        skew_s=None if skew is None else skew.offset,
        spread_s=None if skew is None else skew.spread,
    )
