"""The local engine: a hunt over files and folders on this machine, device by device, in bounded memory."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from relaywatch.detection.calibration import MEASURED, Tables
from relaywatch.detection.columns import Floats
from relaywatch.detection.discovery import relay_bar
from relaywatch.detection.settings import Settings
from relaywatch.engines import shards
from relaywatch.engines.arrangement import Arranged, arrange
from relaywatch.engines.cases import Case, cases_of
from relaywatch.engines.findings import Directory, Draft, draft_of, inventory_index
from relaywatch.engines.identities import renamed
from relaywatch.engines.installs import installs_of
from relaywatch.engines.intake import Intake
from relaywatch.engines.records import NO_UID, AppKey, Records, Registry
from relaywatch.engines.survey import summary_of
from relaywatch.engines.unlaid import rests_on_nobody, stronger, whole_devices
from relaywatch.engines.view import Unwatched, View, Watcher, read_view
from relaywatch.enrichment.loading import Enrichment
from relaywatch.governance.exceptions import Exceptions, apply
from relaywatch.model.errors import SourceError
from relaywatch.model.finding import Finding
from relaywatch.outputs.summary import HuntSummary, NotJudged
from relaywatch.sources.discovery import discover

LISTED_NOT_JUDGED: Final = 1_000
Inventory = Mapping[tuple[str, str], Mapping[str, Any]]
"""Inventory rows by (device, package or "")."""


@dataclass(frozen=True, slots=True)
class Hunt:
    """What to hunt with. device: the device's name for formats that give none; now: decides on exceptions' warnings.

    enrichment: what is known beside the telemetry; explains findings, and never makes one; tables: what is measured of
    relays, other ones where relays are held out.
    """

    settings: Settings
    exceptions: Exceptions
    now: datetime
    device: str = ""
    watcher: Watcher = field(default_factory=Unwatched)
    enrichment: Enrichment = field(default_factory=Enrichment)
    tables: Tables = MEASURED


@dataclass(frozen=True, slots=True)
class HuntResult:
    """Findings, gravest and most certain first, and what was read."""

    findings: list[Finding]
    summary: HuntSummary


def hunt(paths: Sequence[Path], plan: Hunt) -> HuntResult:
    """Read everything under the paths and judge every app.

    Raises SourceError where a path is missing, of no known format, or holds nothing that can be read. Damaged records
    are in the result's summary. Work files go to a temporary folder that is removed at the end, also on interruption.
    """
    started = time.monotonic()
    discovery = discover(paths)
    if not discovery.units:
        raise SourceError(
            paths[0] if paths else "", "holds no telemetry in a known format.", remedy="See docs/quick-start.md."
        )
    with tempfile.TemporaryDirectory(prefix="relaywatch-") as folder:
        view = read_view(discovery.units, Path(folder), plan.device, plan.watcher, plan.settings.allowed_destinations)
        judged = judge(view.intake, plan)
        findings = findings_of(judged, view, plan)
    summary = replace(
        summary_of(view, discovery, started),
        not_judged=sorted(judged.not_judged)[:LISTED_NOT_JUDGED],
        not_judged_in_all=len(judged.not_judged),
        duplicate_flows=judged.duplicates,
        unused_volumes=judged.unmatched,
    )
    return HuntResult(findings, summary)


@dataclass(slots=True)
class Judged:
    """What judging all shards gave: cases, apps judged and apps that could not be, records left out."""

    cases: list[Case] = field(default_factory=list)
    not_judged: list[NotJudged] = field(default_factory=list)
    duplicates: int = 0
    unmatched: int = 0
    apps: Counter[int] = field(default_factory=Counter)
    """Apps judged, by day since epoch."""

    def evidence(self, day: int) -> Floats:
        """Natural log evidence of each case of the day that has an episode."""
        told = (case.episode.log_evidence for case in self.cases if case.episode is not None and case.day == day)
        return np.array(list(told), np.float64)

    def bars(self, settings: Settings) -> dict[int, float]:
        """Natural log evidence that a relay verdict asks for, by day: rates are of apps a day."""
        return {day: relay_bar(self.evidence(day), judged, settings) for day, judged in self.apps.items()}


def judge(intake: Intake, plan: Hunt) -> Judged:
    """Judge every app, shard by shard; only cases are kept."""
    plan.watcher.judging(shards.SHARDS)
    ranks = intake.registry.source_ranks()
    result = Judged()
    for shard in range(shards.SHARDS):
        flows = intake.flows.read(shard)
        volumes = intake.volumes.read(shard)
        result.not_judged.extend(_counted_only(flows, volumes, intake.registry))
        if len(flows):
            arranged, signals = arrange(flows, volumes, ranks), intake.signals.read(shard)
            cases = list(cases_of(arranged, signals, ranks, plan.settings, plan.tables))
            result.cases.extend(stronger(cases, _of_whole_devices(flows, volumes, signals, intake, plan)))
            result.not_judged.extend(_not_judged(arranged, intake.registry))
            result.duplicates += arranged.duplicates
            result.apps.update(_days_judged(arranged))
            result.unmatched += arranged.unmatched
        plan.watcher.judged()
    return result


def _days_judged(arranged: Arranged) -> Counter[int]:
    """Apps judged, by day."""
    app_days = np.unique(np.stack([arranged.days, arranged.apps.astype(np.int64)]), axis=1)
    return Counter(app_days[0].tolist())


def _of_whole_devices(flows: Records, volumes: Records, signals: Records, intake: Intake, plan: Hunt) -> list[Case]:
    """Cases whose client side is accepted sessions of nobody, found among all connections of their device."""
    whole, ranks = whole_devices(flows, intake.registry), intake.registry.source_ranks()
    if not len(whole):
        return []
    arranged = arrange(whole, volumes[np.isin(volumes["device"], whole["device"])], ranks)
    cases = cases_of(arranged, signals, ranks, plan.settings, plan.tables)
    return [case for case in cases if rests_on_nobody(case, flows, intake.registry)]


def _counted_only(flows: Records, volumes: Records, registry: Registry) -> list[NotJudged]:
    """Apps of which nothing but bytes of the whole uid is known."""
    counted = np.setdiff1d(volumes["app"][volumes["flow_id"] < 0], flows["app"])
    if not len(counted):
        return []
    keys = registry.app_keys(counted).values()
    return [
        NotJudged(key.device, _named(key), "only its byte counters are seen, none of its connections") for key in keys
    ]


def _not_judged(arranged: Arranged, registry: Registry) -> list[NotJudged]:
    """Apps of which no flow carries bytes in both directions."""
    known = (arranged.flows.bytes_out >= 0) & (arranged.flows.bytes_in >= 0)
    with_bytes = arranged.apps[np.add.reduceat(known, arranged.flows.offsets[:-1]) > 0]
    silent = registry.app_keys(np.setdiff1d(arranged.apps, with_bytes)).values()
    return [NotJudged(key.device, _named(key), "no flow has byte counts") for key in silent]


def _named(key: AppKey) -> str:
    if key.package:
        return key.package
    return "unknown app" if key.uid == NO_UID else f"uid {key.uid}"


def findings_of(judged: Judged, view: View, plan: Hunt) -> list[Finding]:
    """The findings of what was judged, gravest and most certain first."""
    cases, intake = judged.cases, view.intake
    bars = judged.bars(plan.settings)
    directory = directory_of(cases, view, inventory_of(view), bars, plan.enrichment)
    drafts = [draft for case in cases if (draft := draft_of(case, directory, plan.settings)) is not None]
    decided = [apply(finding, plan.exceptions, plan.now) for finding in _completed(drafts, intake)]
    return sorted(decided, key=_gravity)


def inventory_of(view: View) -> Inventory:
    """What inventories say of each app and device of the view."""
    return inventory_index(renamed(view.intake.inventory().iter_rows(named=True), view.identity))


def directory_of(
    cases: Sequence[Case], view: View, inventory: Inventory, bars: Mapping[int, float], enrichment: Enrichment
) -> Directory:
    """What the numbers in the cases' records stand for. inventory, bars: as in Directory."""
    intake = view.intake
    keys = [case.flows[name] for case in cases for name in ("remote", "name")]
    keys += [case.signals["detail"] for case in cases]
    return Directory(
        apps=intake.registry.app_keys(np.array([case.app for case in cases], np.uint32)),
        sources=intake.registry.source_names(),
        texts=intake.names.texts(np.concatenate(keys)) if keys else {},
        formats=view.formats,
        inventory=inventory_index(renamed(intake.inventory().iter_rows(named=True), view.identity)),
        twins=view.join.twins_of,
        bars=bars,
        enrichment=enrichment,
    )


def _completed(drafts: Sequence[Draft], intake: Intake) -> Iterator[Finding]:
    """The findings of the drafts, with what other installs of their apps contact."""
    wanted: dict[str, set[str]] = {}
    for draft in drafts:
        package, parties = draft.compared
        if parties:
            wanted.setdefault(package, set()).update(parties)
    parts = (intake.flows.read(shard) for shard in range(shards.SHARDS))
    installs = installs_of(parts, intake.registry, intake.names, wanted)
    for draft in drafts:
        package, parties = draft.compared
        finding = draft.finding(installs.beside(package, draft.key.device, parties))
        if finding is not None:
            yield finding


def _gravity(finding: Finding) -> tuple[int, float, str, str, str]:
    order = list(type(finding.verdict)).index(finding.verdict)
    return order, -finding.score, finding.device.uid, finding.app.package or "", finding.finding_id
