"""Cases: the groups of a shard that are worth a finding, cut out with all that explains them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from relaywatch.detection.bridging import score_bridging
from relaywatch.detection.calibration import FEWEST_BRIDGES, Tables
from relaywatch.detection.columns import Ints, VolumeColumns
from relaywatch.detection.episode import Episode, Found, episode_of
from relaywatch.detection.settings import Settings
from relaywatch.detection.totals import FedLink, fed_link, score_totals
from relaywatch.detection.tunnelling import score_tunnelling, volumes_of
from relaywatch.engines.arrangement import Arranged, flow_columns
from relaywatch.engines.records import Records
from relaywatch.engines.stretches import DAY_US

LEAST_EVIDENCE = 1.0
"""Natural log evidence from which a group is looked at closely; far below what any verdict asks for."""

SIGNAL_REACH_US = 3_600_000_000
"""Signals that ended longer than this before the day are left out: nothing of it is told by them."""
_SAME_SIGNAL = ("app", "kind", "start", "end", "position", "local_port", "detail", "observability")


@dataclass(frozen=True, slots=True)
class Case:
    """One app that relays on one day, or may: of its strongest stretch the flows, volumes and signals, and the episode.

    day: since epoch; flows: FLOW records of the app, rows as in the episode; volumes: in s from origin (us since
    epoch), flow rows as in flows; signals: SIGNAL records of the app's device. Either episode or totals is given.
    stretches: of the day; spans: first and last us since epoch of each of them that relays; evidence: of the episode.
    """

    app: int
    day: int
    origin: int
    flows: Records
    volumes: VolumeColumns
    signals: Records
    episode: Episode | None
    totals: FedLink | None
    stretches: int = 1
    spans: tuple[tuple[int, int], ...] = ()
    evidence: Found | None = None

    @property
    def span(self) -> tuple[int, int]:
        """First and last us since epoch of the flows."""
        return int(self.flows["start"].min()), int(max(self.flows["start"].max(), self.flows["end"].max()))

    @property
    def log_evidence(self) -> float:
        """Natural log evidence; minus infinity where only totals are known."""
        return -np.inf if self.episode is None else self.episode.log_evidence


def stretch_cases(
    arranged: Arranged, signals: Records, source_ranks: Ints, settings: Settings, tables: Tables
) -> Iterator[tuple[int, Case]]:
    """The group and the case of each stretch of a shard that is worth one.

    signals: SIGNAL records of the shard; source_ranks: as `arrange`.
    """
    signals = _settled(signals, source_ranks)
    uplink = float(settings.uplink_bytes_threshold)
    pairs = score_bridging(arranged.flows, settings.time_window_s, FEWEST_BRIDGES, uplink, tables)
    volumes = score_tunnelling(arranged.flows, arranged.volumes, FEWEST_BRIDGES, uplink, tables)
    strongest = np.maximum(pairs, volumes)
    totals = score_totals(arranged.flows, uplink) & (np.diff(arranged.volumes.offsets) == 0)
    for number in np.flatnonzero((strongest >= LEAST_EVIDENCE) | totals).tolist():
        if strongest[number] >= LEAST_EVIDENCE:
            evidence = Found(float(pairs[number]), float(volumes[number]))
            episode = episode_of(arranged.flows, arranged.volumes, number, evidence, settings, tables)
            yield number, _case(arranged, signals, number, evidence, episode, None)
        else:
            yield number, _case(arranged, signals, number, None, None, fed_link(arranged.flows, number, uplink))


def with_signals(case: Case, signals: Records, source_ranks: Ints) -> Case:
    """The case with what these signals tell of its device and day."""
    return replace(case, signals=_around(_settled(signals, source_ranks), int(case.flows["device"][0]), case.day))


def _settled(signals: Records, source_ranks: Ints) -> Records:
    """The signals in an order that does not depend on how they came, without those that were read before."""
    ties = (*(signals[name] for name in _SAME_SIGNAL), source_ranks[signals["source"]])
    order = np.lexsort(ties[::-1])
    again = np.ones(max(len(order) - 1, 0), bool)
    for values in ties:
        again &= np.diff(values[order].astype(np.int64)) == 0
    return signals[np.delete(order, 1 + np.flatnonzero(again))]


def _case(
    arranged: Arranged,
    signals: Records,
    number: int,
    evidence: Found | None,
    episode: Episode | None,
    totals: FedLink | None,
) -> Case:
    a, b = arranged.flows.offsets[number], arranged.flows.offsets[number + 1]
    flows = arranged.records[a:b].copy()
    volumes = volumes_of(arranged.flows, arranged.volumes, number)
    return Case(
        app=int(arranged.apps[number]),
        day=int(arranged.days[number]),
        origin=int(arranged.origins[number]),
        flows=flows,
        volumes=volumes._replace(
            time=volumes.time.copy(), bytes_out=volumes.bytes_out.copy(), bytes_in=volumes.bytes_in.copy()
        ),
        signals=_around(signals, int(flows["device"][0]), int(arranged.days[number])),
        episode=episode,
        totals=totals,
        evidence=evidence,
    )


def case_again(kept: Case, settings: Settings, tables: Tables) -> Case:
    """The case of which all but the episode, or the totals, was kept."""
    count = np.array([0, len(kept.flows)], np.int64)
    flows = flow_columns(kept.flows, count, np.full(len(kept.flows), kept.origin))
    if kept.evidence is None:
        return replace(kept, totals=fed_link(flows, 0, float(settings.uplink_bytes_threshold)))
    volumes = kept.volumes._replace(offsets=np.array([0, len(kept.volumes.flow)], np.int64))
    return replace(kept, episode=episode_of(flows, volumes, 0, kept.evidence, settings, tables))


def _around(signals: Records, device: int, day: int) -> Records:
    """The device's signals that tell of the day; an unknown end leaves a signal open."""
    begin, end = day * DAY_US - SIGNAL_REACH_US, (day + 1) * DAY_US
    lasting = (signals["end"] < signals["start"]) | (signals["end"] >= begin)
    found: Records = signals[(signals["device"] == device) & (signals["start"] < end) & lasting]
    return found
