"""The join: several sources' records of a device become one view, with the app from one and the bytes from another.

Records are parted by device already, so that each shard is joined by itself. Within a device the format that tells most
of its connections is the base; each other format's records are matched into it by endpoints and time, under the skew
between their clocks that the matches themselves show. What matches becomes one flow with both sides' fields; what does
not stays, and is counted with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from relaywatch.detection.columns import Flags, Ints
from relaywatch.engines.attribution import Attributed, attribute
from relaywatch.engines.records import (
    APP_MATCHED,
    FIRST_SEEN,
    NO_UID,
    NOT_KNOWN,
    SEEN_BYTES,
    SEEN_DIRECTION,
    SEEN_NAME,
    Records,
    Registry,
)
from relaywatch.identity.matching import Matches, Side, differences, match
from relaywatch.identity.skew import LARGEST_S, Skew, estimate
from relaywatch.model.schemas import Direction

US: Final = 1e-6
UNKNOWN_CLOCKS_S: Final = 3.0
"""Tolerance where no skew could be estimated: the bounds that sources state of a phone's clock (2 s) and a sensor's."""
TIGHTEST_S: Final = 0.25
SPREADS: Final = 3.0
"""Tolerance in spreads of the matched differences, at least TIGHTEST_S, at most UNKNOWN_CLOCKS_S."""
FEWEST_AGREEING: Final = 3
AGREEING: Final = 0.9
"""Connections that a package and a uid share, and the share of all of either's, from which they are one app."""
MOST_REPEATS: Final = 16
"""Sections of a bug report, and pauses within a connection, that tell of one socket."""
TWIN: Final = np.dtype([("source", "u4"), ("position", "i8"), ("other_source", "u4"), ("other_position", "i8")])
"""A merged flow's record, and the record of the other source that it was merged with."""
_ENDPOINTS: Final = (
    ("protocol", "remote", "remote_port", "local_port"),
    ("protocol", "remote", "remote_port"),
    ("protocol", "local_port", "remote_port"),
)
"""What must be equal, most telling first: the whole 5-tuple; without the local port, which connect events lack; without
the remote address, which packet traces lack."""
_OF_APP: Final = ("protocol", "remote_port", "app")
"""What a connect event, without local port, and a packet trace's flow, without address, have in common."""
_BYTES: Final = ("bytes_out", "bytes_in")


@dataclass(frozen=True, slots=True)
class PairOfSources:
    """What two formats on one device had in common.

    one: matched into `other`, the base. records: of `one`. contested: matched, though another record of `one` could
    have been it as well; unmatched: of `one`, by reason; skew: clock of one less that of the other, None: not shown.
    """

    device: str
    one: str
    other: str
    records: int
    matched: int
    contested: int
    unmatched: Mapping[str, int]
    skew: Skew | None


@dataclass(slots=True)
class JoinAccount:
    """What the join did: pairs of sources, how flows without an app were laid to one, and twins (sorted TWIN rows)."""

    pairs: list[PairOfSources] = field(default_factory=list)
    attributed: Counter[str] = field(default_factory=Counter)
    merged: int = 0
    twins: npt.NDArray[np.void] = field(default_factory=lambda: np.empty(0, TWIN))
    learned: dict[str, Counter[tuple[str, int]]] = field(default_factory=dict)

    def learn(self, device: str, pairs: npt.NDArray[np.uint32], registry: Registry) -> None:
        """Take app codes that two sources give one connection: the one's package runs under the other's uid."""
        if not len(pairs):
            return
        keys = registry.app_keys(np.unique(pairs))
        met, counts = np.unique(np.sort(pairs, axis=1), axis=0, return_counts=True)
        for (one, other), count in zip(met.tolist(), counts.tolist(), strict=True):
            packages = {keys[code].package for code in (one, other)} - {""}
            uids = {keys[code].uid for code in (one, other)} - {NO_UID}
            if len(packages) == len(uids) == 1:
                self.learned.setdefault(device, Counter())[packages.pop(), uids.pop()] += count

    def apps(self) -> dict[str, list[tuple[str, int]]]:
        """Packages and their uids by device, as far as connections agree on them."""
        found = {}
        for device, pairs in self.learned.items():
            by_package, by_uid = Counter[str](), Counter[int]()
            for (package, uid), count in pairs.items():
                by_package[package] += count
                by_uid[uid] += count
            agreed = [
                pair
                for pair, count in sorted(pairs.items())
                if count >= FEWEST_AGREEING and count >= AGREEING * max(by_package[pair[0]], by_uid[pair[1]])
            ]
            if agreed:
                found[device] = agreed
        return found

    def seal(self, twins: Sequence[npt.NDArray[np.void]]) -> None:
        """Take all twins, ordered for look-up."""
        held = np.concatenate([np.empty(0, TWIN), *twins])
        self.twins = held[np.lexsort((held["other_position"], held["other_source"], held["position"], held["source"]))]
        self.pairs.sort(key=lambda pair: (pair.device, pair.other, pair.one))

    def twins_of(
        self, sources: npt.NDArray[np.uint32], positions: npt.NDArray[np.int64]
    ) -> list[list[tuple[int, int]]]:
        """(source, position) of the records that were merged into each of some, which are given by the same."""
        found: list[list[tuple[int, int]]] = [[] for _ in range(len(sources))]
        for source in np.unique(sources) if len(self.twins) else ():
            first, last = np.searchsorted(self.twins["source"], [source, source + 1])
            part, rows = self.twins[first:last], np.flatnonzero(sources == source)
            begins = np.searchsorted(part["position"], positions[rows])
            ends = np.searchsorted(part["position"], positions[rows], side="right")
            for k in np.flatnonzero(begins < ends).tolist():
                found[rows[k]] = part[["other_source", "other_position"]][begins[k] : ends[k]].tolist()
        return found


@dataclass(frozen=True, slots=True)
class JoinedShard:
    """One shard after the join; moved: volumes' new (source, flow_id), as rows of the volumes and FLOW rows."""

    flows: Records
    volumes: Records
    twins: npt.NDArray[np.void]


def join_shard(
    flows: Records,
    volumes: Records,
    signals: Records,
    formats: Sequence[str],
    registry: Registry,
    texts: Mapping[int, str],
    account: JoinAccount,
) -> JoinedShard:
    """Join the devices of one shard that more than one format tells of; others pass as they are.

    formats: reader name by source code; texts: details of name look-ups by key.
    """
    codes = {name: code for code, name in enumerate(sorted(set(formats)))}
    names = [label for name in codes for label in (name, f"{name} (socket tables)")]
    ranks = registry.source_ranks()
    of_source = np.array([codes[name] for name in formats], np.int64)
    several = _devices_to_join(flows, signals, of_source)
    kept, twins, moved = [flows[~np.isin(flows["device"], several)]], [], []
    anonymous = registry.anonymous(flows["app"]) if len(several) else np.zeros(len(flows), bool)
    for device in several.tolist():
        rows = np.flatnonzero(flows["device"] == device)
        rows = rows[_in_order(flows[rows], ranks)]
        own, hidden = flows[rows].copy(), anonymous[rows]
        told = np.unique(volumes["source"][volumes["device"] == device])
        with_volumes = frozenset((of_source[told] * 2).tolist())
        joined = _Device(own, hidden, _kinds(own, of_source), with_volumes)
        joined.join(names, registry.device_name(device), account)
        heard = signals[signals["device"] == device]
        done: Attributed = attribute(joined.flows, joined.hidden, joined.kept, heard, texts, registry, joined.ahead)
        account.attributed.update(done.reasons)
        account.merged += len(joined.twins)
        account.learn(registry.device_name(device), joined.one_app, registry)
        kept.append(joined.flows[joined.kept])
        twins.append(joined.twins)
        moved.append(joined.moved)
    return JoinedShard(
        np.concatenate(kept), _moved_volumes(volumes, moved), np.concatenate([np.empty(0, TWIN), *twins])
    )


def _devices_to_join(flows: Records, signals: Records, of_source: Ints) -> Ints:
    """Devices with flows of several kinds, or with flows and signals of different ones."""
    kinds = (_kinds(flows, of_source), of_source[signals["source"]] * 2)
    parts = zip((flows, signals), kinds, strict=True)
    seen = [np.unique(part["device"].astype(np.int64) << 32 | kind) for part, kind in parts]
    with_flows = np.unique(flows["device"]).astype(np.int64)
    devices, counts = np.unique(np.unique(np.concatenate(seen)) >> 32, return_counts=True)
    return np.asarray(np.intersect1d(devices[counts > 1], with_flows), np.int64)


def _kinds(flows: Records, of_source: Ints) -> Ints:
    """What is matched as one: a format's dated connections, and apart from them its sockets first seen open."""
    return np.asarray(of_source[flows["source"]] * 2 + ((flows["seen"] & FIRST_SEEN) > 0), np.int64)


def _in_order(flows: Records, ranks: Ints) -> Ints:
    """An order that does not depend on how the records came."""
    ties = ("position", "local_port", "remote_port", "remote", "protocol", "start")
    return np.lexsort([ranks[flows["source"]], *(flows[name] for name in ties)])


class _Device:
    """One device's flows while they are joined: `kept` are those that stand for themselves."""

    def __init__(self, flows: Records, hidden: Flags, kind: Ints, with_volumes: frozenset[int]) -> None:
        self.flows, self.hidden, self.kind = flows, hidden, kind
        self.kept: Flags = np.ones(len(flows), bool)
        self._with_volumes = with_volumes
        self._twins: list[npt.NDArray[np.void]] = []
        self._moved: list[pl.DataFrame] = []
        self._clocks: list[Skew] = []
        self._both: list[npt.NDArray[np.uint32]] = []

    @property
    def one_app(self) -> npt.NDArray[np.uint32]:
        """App codes, two a row, that different sources give one connection."""
        return np.concatenate([np.empty((0, 2), np.uint32), *self._both])

    @property
    def ahead(self) -> float:
        """How far, s, the clock of what was matched into the base is ahead of the base's, by most matches."""
        return max(self._clocks, key=lambda known: known.support).offset if self._clocks else 0.0

    @property
    def twins(self) -> npt.NDArray[np.void]:
        """Records that were merged, with those they were merged into."""
        return np.concatenate([np.empty(0, TWIN), *self._twins])

    @property
    def moved(self) -> pl.DataFrame:
        """Volumes' keys that changed with their flow: source, flow_id, new_source, new_flow_id."""
        schema = {"source": pl.UInt32, "flow_id": pl.Int64, "new_source": pl.UInt32, "new_flow_id": pl.Int64}
        return pl.concat([pl.DataFrame(schema=schema), *self._moved])

    def join(self, names: Sequence[str], device: str, account: JoinAccount) -> None:
        """Match each format into the ones before it, the most telling first."""
        order = self._ranked()
        for place, one in enumerate(order[1:], 1):
            left = np.flatnonzero(self.kept & (self.kind == one))
            right = np.flatnonzero(self.kept & np.isin(self.kind, order[:place]))
            skew = self._skew(left, right)
            if skew is not None:
                self._clocks.append(skew)
            elif self._clocks and not self._dated(left):
                skew = max(self._clocks, key=lambda known: known.support)
            matched, contested = self._matched(left, right, skew)
            base = "+".join(sorted({names[kind] for kind in order[:place]}))
            account.pairs.append(
                PairOfSources(
                    device, names[one], base, len(left), matched, contested, self._unmatched(left, right, skew), skew
                )
            )

    def _ranked(self) -> list[int]:
        """The formats, from the one that tells most of its connections; those with begins before snapshots."""

        def worth(kind: int) -> tuple[Any, ...]:
            own = self.flows[self.kind == kind]
            known = np.mean((own["bytes_out"] >= 0) & (own["bytes_in"] >= 0))
            ports, late = np.mean(own["local_port"] > 0), np.mean((own["seen"] & FIRST_SEEN) > 0)
            return (-round(float(known), 1), kind not in self._with_volumes, late > 0.5, -round(float(ports), 1), kind)

        return sorted(set(self.kind.tolist()), key=worth)

    def _dated(self, rows: Ints) -> bool:
        return bool(len(rows)) and not (self.flows["seen"][rows] & FIRST_SEEN).all()

    def _side(self, rows: Ints, keys: Ints, ahead: float) -> Side:
        """Times in s from the device's first flow; ahead: s that the clock is ahead of the other side's."""
        flows, origin = self.flows[rows], int(self.flows["start"].min())
        start = (flows["start"] - origin) * US - ahead
        end = np.where(flows["end"] >= flows["start"], (flows["end"] - origin) * US - ahead, np.inf)
        return Side(keys, start, end, (flows["seen"] & FIRST_SEEN) > 0)

    def _pairs(self, left: Ints, right: Ints, fields: Sequence[str]) -> tuple[Ints, Ints, Ints, Ints]:
        """Rows of both sides that can be told by these fields, and their keys."""
        left, right = (rows[self._tells(rows, fields)] for rows in (left, right))
        both = np.concatenate([left, right])
        columns = pl.DataFrame({name: self.flows[name][both] for name in fields})
        keys = columns.select(pl.struct(pl.all()).rank("dense")).to_series().to_numpy().astype(np.int64)
        return left, right, keys[: len(left)], keys[len(left) :]

    def _tells(self, rows: Ints, fields: Sequence[str]) -> Flags:
        known: Flags = np.ones(len(rows), bool)
        for name in ("local_port", "remote"):
            known &= (self.flows[name][rows] != 0) if name in fields else True
        return known

    def _skew(self, left: Ints, right: Ints) -> Skew | None:
        """The clocks' offset by the first endpoints that show one."""
        left, right = (rows[(self.flows["seen"][rows] & FIRST_SEEN) == 0] for rows in (left, right))
        for fields in _ENDPOINTS:
            a, b, key_a, key_b = self._pairs(left, right, fields)
            if len(a) and len(b):
                found = estimate(differences(self._side(a, key_a, 0.0), self._side(b, key_b, 0.0), largest=LARGEST_S))
                if found is not None:
                    return found
        return None

    def _matched(self, left: Ints, right: Ints, skew: Skew | None) -> tuple[int, int]:
        """Merge what is the same connection; how many were, and how many of them might have been another."""
        matched = contested = 0
        ahead, tolerance = _tolerance(skew)
        for fields in _ENDPOINTS:
            a = left[self.kept[left]]
            b = right[~np.isin(right, self._taken(left))]
            if "local_port" not in fields:  # a local port that both know, and that differs, is another connection
                a = a[self.flows["local_port"][a] == 0]
            a, b, key_a, key_b = self._pairs(a, b, fields)
            if len(a) and len(b):
                found = match(self._side(a, key_a, ahead), self._side(b, key_b, 0.0), tolerance)
                self._merge(a[found.left], b[found.right])
                matched, contested = matched + len(found.left), contested + self._contested(found, a)
        matched += self._alone(left, right, ahead)
        return matched + self._seen_again(left, right, ahead, tolerance), contested

    def _alone(self, left: Ints, right: Ints, ahead: float) -> int:
        """Merge an app's connects, which know no local port, into its flows without address, where only one fits.

        Both are stamped by the phone when it dials, so that they agree as well as clocks can.
        """
        a = left[self.kept[left] & (self.flows["local_port"][left] == 0) & self._dialled(left)]
        b = right[(self.flows["remote"][right] == 0) & self._dialled(right)]
        b = b[~np.isin(b, self._taken(left))]
        a, b, key_a, key_b = self._pairs(a, b, _OF_APP)
        if not len(a) or not len(b):
            return 0
        found = match(self._side(a, key_a, ahead), self._side(b, key_b, 0.0), TIGHTEST_S)
        only = (found.rivals == 0) & (found.others == 0)
        self._merge(a[found.left[only]], b[found.right[only]])
        return int(only.sum())

    def _dialled(self, rows: Ints) -> Flags:
        """Whether each is a dialled connection of a known app, dated by its begin."""
        flows = self.flows[rows]
        dated = (flows["seen"] & FIRST_SEEN) == 0
        return np.asarray((flows["direction"] == Direction.OUTBOUND) & dated & ~self.hidden[rows], np.bool_)

    def _seen_again(self, left: Ints, right: Ints, ahead: float, tolerance: float) -> int:
        """Merge sockets that were seen open while a connection of the same 5-tuple was: a state may be told twice."""
        again = 0
        for _ in range(MOST_REPEATS):
            rest = left[self.kept[left] & ((self.flows["seen"][left] & FIRST_SEEN) > 0)]
            a, b, key_a, key_b = self._pairs(rest, right, _ENDPOINTS[0])
            found = match(self._side(a, key_a, ahead), self._side(b, key_b, 0.0), tolerance)
            if not len(found.left):
                break
            self._merge(a[found.left], b[found.right])
            again += len(found.left)
        return again

    def _taken(self, left: Ints) -> Ints:
        """Rows of the base that a record of this format was merged into already."""
        return np.asarray(self._into[left][self._into[left] >= 0], np.int64)

    @property
    def _into(self) -> Ints:
        if not hasattr(self, "_merged_into"):
            self._merged_into = np.full(len(self.flows), -1, np.int64)
        return self._merged_into

    def _contested(self, found: Matches, left: Ints) -> int:
        """Matches with a rival, where the format tells of several apps on the device."""
        apps = self.flows["app"][left[found.left]]
        return int((found.rivals > 0).sum()) if len(np.unique(apps)) > 1 else 0

    def _unmatched(self, left: Ints, right: Ints, skew: Skew | None) -> dict[str, int]:
        """Why records stayed alone."""
        alone = left[self.kept[left]]
        if not len(alone):
            return {}
        ahead, tolerance = _tolerance(skew)
        start = (self.flows["start"][alone] * US) - ahead
        begins = self.flows["start"][right] * US
        first, last = (begins.min(), begins.max()) if len(right) else (np.inf, -np.inf)
        outside = (start < first - tolerance) | (start > last + tolerance)
        same = np.isin(self.flows["remote"][alone], self.flows["remote"][right])
        reasons = {
            "outside the time that the other source covers": int(outside.sum()),
            "the other source never saw this endpoint": int((~outside & ~same).sum()),
            "the other source saw the endpoint at other times only": int((~outside & same).sum()),
        }
        return {reason: count for reason, count in reasons.items() if count}

    def _merge(self, left: Ints, right: Ints) -> None:
        """Give the right rows what only the left ones know, and let the left ones go."""
        flows = self.flows
        shown = self.hidden[right] & ~self.hidden[left]
        flows["app"][right[shown]] = flows["app"][left[shown]]
        flows["seen"][right[shown]] |= np.uint8(APP_MATCHED)
        self.hidden[right[shown]] = False
        told = ~self.hidden[right] & ~self.hidden[left] & (flows["app"][right] != flows["app"][left])
        self._both.append(np.stack([flows["app"][left[told]], flows["app"][right[told]]], axis=1))
        for name in ("name", "local_port", "remote"):
            self._fill(name, left, right, flows[name][right] == 0)
        without = (flows["bytes_out"][right] < 0) & (flows["bytes_in"][right] < 0)
        for name in _BYTES:
            self._fill(name, left, right, without)
        self._fill("end", left, right, flows["end"][right] < 0)
        seen_left, seen_right = flows["seen"][left], flows["seen"][right]
        better = ((seen_left & SEEN_DIRECTION) > 0) & ((seen_right & SEEN_DIRECTION) == 0)
        better |= (flows["direction"][right] == Direction.UNKNOWN) & (flows["direction"][left] != Direction.UNKNOWN)
        self._fill("direction", left, right, better)
        gained = np.where(better, seen_left & SEEN_DIRECTION, 0) | np.where(without, seen_left & SEEN_BYTES, 0)
        flows["seen"][right] |= (gained | (seen_left & SEEN_NAME)).astype(np.uint8)
        self._remember(left, right)

    def _fill(self, name: str, left: Ints, right: Ints, where: Flags) -> None:
        self.flows[name][right[where]] = self.flows[name][left[where]]

    def _remember(self, left: Ints, right: Ints) -> None:
        """Which records became one, and which volumes change hands."""
        self.kept[left] = False
        self._into[left] = right
        twins = np.empty(len(left), TWIN)
        twins["source"], twins["position"] = self.flows["source"][right], self.flows["position"][right]
        twins["other_source"], twins["other_position"] = self.flows["source"][left], self.flows["position"][left]
        self._twins.append(twins)
        bare = ~np.isin(self.kind[right], list(self._with_volumes))
        a, b = left[bare], right[bare]
        self._moved.append(
            pl.DataFrame(
                {
                    "source": self.flows["source"][a],
                    "flow_id": self.flows["flow_id"][a],
                    "new_source": self.flows["source"][b],
                    "new_flow_id": self.flows["flow_id"][b],
                }
            )
        )


def _tolerance(skew: Skew | None) -> tuple[float, float]:
    """Offset to take off, and how far apart, s, two records of one connection may be after that."""
    if skew is None:
        return 0.0, UNKNOWN_CLOCKS_S
    return skew.offset, min(max(SPREADS * skew.spread, TIGHTEST_S), UNKNOWN_CLOCKS_S)


def _moved_volumes(volumes: Records, moved: Sequence[pl.DataFrame]) -> Records:
    """The volumes, those of merged flows under the flow that stands for both."""
    changes = pl.concat(moved) if moved else pl.DataFrame()
    if changes.is_empty() or not len(volumes):
        return volumes
    keys = pl.DataFrame({"source": volumes["source"], "flow_id": volumes["flow_id"]})
    found = keys.join(
        changes.unique(["source", "flow_id"], keep="first"), on=["source", "flow_id"], how="left", maintain_order="left"
    )
    hit = found["new_source"].is_not_null().to_numpy()
    result = volumes.copy()
    result["source"][hit] = found["new_source"].fill_null(0).to_numpy()[hit]
    result["flow_id"][hit] = found["new_flow_id"].fill_null(NOT_KNOWN).to_numpy()[hit]
    return result
