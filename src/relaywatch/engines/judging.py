"""Judging records, however many: what the hunt of a shard, a live stream and a cluster's worker have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from relaywatch.detection.calibration import Tables
from relaywatch.detection.columns import Floats, Ints
from relaywatch.detection.discovery import relay_bar
from relaywatch.detection.settings import Settings
from relaywatch.engines.arrangement import Arranged, arrange
from relaywatch.engines.cases import Case, stretch_cases
from relaywatch.engines.records import NO_UID, AppKey, Codes, Records, Registry
from relaywatch.engines.stretches import evidence_of_day
from relaywatch.engines.unlaid import rests_on_nobody, whole_devices
from relaywatch.outputs.summary import NotJudged

AppDay = tuple[int, int]
"""App code and day since epoch."""


@dataclass(slots=True)
class Told:
    """What the stretches of one app's day tell, in their order. evidence, spans: of each that has an episode."""

    stretches: int = 0
    evidence: list[float] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    strongest: Case | None = None
    totals: Case | None = None

    def add(self, case: Case) -> None:
        """Take the case of one more stretch in."""
        if case.episode is None:
            self.totals = self.totals or case
            return
        if not self.evidence or case.episode.log_evidence > max(self.evidence):
            self.strongest = case
        self.evidence.append(case.episode.log_evidence)
        self.spans.append(case.span)

    def and_then(self, other: Told) -> Told:
        """These stretches and those that follow them."""
        both = Told(self.stretches + other.stretches, [*self.evidence, *other.evidence], [*self.spans, *other.spans])
        later = max(other.evidence, default=-np.inf) > max(self.evidence, default=-np.inf)
        both.strongest, both.totals = other.strongest if later else self.strongest, self.totals or other.totals
        return both

    def case(self) -> Case | None:
        """The case of the day; None where no stretch has any."""
        best = self.strongest
        if best is None or best.episode is None:
            return self.totals
        if self.stretches == 1:
            return best
        episode = replace(best.episode, log_evidence=evidence_of_day(np.array(self.evidence), self.stretches))
        return replace(best, episode=episode, stretches=self.stretches, spans=tuple(self.spans))


@dataclass(slots=True)
class Part:
    """What judging some records gave.

    told: of every app's day; whole: cases of whole devices; silent: apps of which no flow carries bytes both ways.
    """

    told: dict[AppDay, Told]
    whole: list[Case]
    silent: Ints
    duplicates: int
    unmatched: int

    def cases(self) -> list[Case]:
        """The case of each app's day that has one; of a whole device's and its app's own, the stronger."""
        return stronger([case for told in self.told.values() if (case := told.case()) is not None], self.whole)


def together(parts: Sequence[Part]) -> Part:
    """Parts of different devices as one."""
    return Part(
        told={key: told for part in parts for key, told in part.told.items()},
        whole=[case for part in parts for case in part.whole],
        silent=np.sort(np.concatenate([part.silent for part in parts])),
        duplicates=sum(part.duplicates for part in parts),
        unmatched=sum(part.unmatched for part in parts),
    )


@dataclass(slots=True)
class Judged:
    """What judging everything gave: cases, apps judged and apps that could not be, records left out."""

    cases: list[Case] = field(default_factory=list)
    not_judged: list[NotJudged] = field(default_factory=list)
    duplicates: int = 0
    unmatched: int = 0
    apps: Counter[int] = field(default_factory=Counter)
    """Apps judged, by day since epoch."""

    def evidence(self, day: int) -> Floats:
        """Natural log evidence of each case of the day that has an episode."""
        return evidence_of(self.cases, day)

    def bars(self, settings: Settings) -> dict[int, float]:
        """Natural log evidence that a relay verdict asks for, by day: rates are of apps a day."""
        return {day: relay_bar(self.evidence(day), judged, settings) for day, judged in self.apps.items()}


def evidence_of(cases: Iterable[Case], day: int) -> Floats:
    """Natural log evidence of each case of the day that has an episode."""
    told = (case.episode.log_evidence for case in cases if case.episode is not None and case.day == day)
    return np.array(list(told), np.float64)


def judge_part(
    flows: Records, volumes: Records, signals: Records, registry: Codes, settings: Settings, tables: Tables
) -> Part:
    """Judge every app's day in these records, which must be all that there are of each of its stretches."""
    ranks = registry.source_ranks()
    arranged = arrange(flows, volumes, ranks)
    told = _told(arranged, signals, ranks, settings, tables)
    whole = _of_whole_devices(flows, volumes, signals, registry, settings, tables)
    return Part(told, whole, _silent(arranged), arranged.duplicates, arranged.unmatched)


def _told(arranged: Arranged, signals: Records, ranks: Ints, settings: Settings, tables: Tables) -> dict[AppDay, Told]:
    keys = list(zip(arranged.apps.tolist(), arranged.days.tolist(), strict=True))
    told: dict[AppDay, Told] = {key: Told(count) for key, count in Counter(keys).items()}
    for number, case in stretch_cases(arranged, signals, ranks, settings, tables):
        told[keys[number]].add(case)
    return told


def _of_whole_devices(
    flows: Records, volumes: Records, signals: Records, registry: Codes, settings: Settings, tables: Tables
) -> list[Case]:
    """Cases whose client side is accepted sessions of nobody, found among all connections of their device."""
    whole, ranks = whole_devices(flows, registry), registry.source_ranks()
    if not len(whole):
        return []
    arranged = arrange(whole, volumes[np.isin(volumes["device"], whole["device"])], ranks)
    told = _told(arranged, signals, ranks, settings, tables).values()
    cases = (case for own in told if (case := own.case()) is not None)
    return [case for case in cases if rests_on_nobody(case, flows, registry)]


def stronger(cases: Sequence[Case], further: Sequence[Case]) -> list[Case]:
    """The cases with the further ones, of each app and day the one with most evidence."""
    best = {(case.app, case.day): case for case in cases}
    for case in further:
        before = best.get((case.app, case.day))
        if before is None or before.log_evidence < case.log_evidence:
            best[case.app, case.day] = case
    return list(best.values())


def _silent(arranged: Arranged) -> Ints:
    """Apps of which no flow carries bytes in both directions."""
    known = (arranged.flows.bytes_out >= 0) & (arranged.flows.bytes_in >= 0)
    with_bytes = arranged.apps[np.logical_or.reduceat(known, arranged.flows.offsets[:-1])]
    return np.setdiff1d(arranged.apps, with_bytes).astype(np.int64)


def not_judged(apps: Ints, registry: Registry, reason: str) -> list[NotJudged]:
    """The apps with the reason why they could not be judged."""
    keys = registry.app_keys(apps.astype(np.uint32)).values()
    return [NotJudged(key.device, app_name(key), reason) for key in keys]


def app_name(key: AppKey) -> str:
    """What an app is called where it is told of: its package, or else its uid."""
    if key.package:
        return key.package
    return "unknown app" if key.uid == NO_UID else f"uid {key.uid}"
