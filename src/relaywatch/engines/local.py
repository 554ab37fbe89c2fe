"""The local engine: a hunt over files and folders on this machine, device by device, in bounded memory."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from relaywatch.detection.calibration import MEASURED, Tables
from relaywatch.detection.columns import Ints
from relaywatch.detection.settings import Settings
from relaywatch.engines import shards
from relaywatch.engines.cases import Case
from relaywatch.engines.contacted import installs_of
from relaywatch.engines.cores import give_memory_back, on_all_cores
from relaywatch.engines.findings import Directory, Draft, draft_of
from relaywatch.engines.identities import renamed
from relaywatch.engines.installs import Installs, Packaged
from relaywatch.engines.intake import Intake
from relaywatch.engines.inventory import ByPlace, inventory_index
from relaywatch.engines.judging import Judged, Part, judge_part, not_judged, together
from relaywatch.engines.survey import summary_of
from relaywatch.engines.view import Unwatched, View, Watcher, read_view
from relaywatch.enrichment.loading import Enrichment
from relaywatch.governance.exceptions import Exceptions, apply
from relaywatch.model.errors import SourceError
from relaywatch.model.finding import Finding
from relaywatch.outputs.kept import KeptFindings
from relaywatch.outputs.summary import HuntSummary
from relaywatch.sources.discovery import discover

DRAFTED_AT_ONCE: Final = 256
"""Cases whose drafts are in memory together; where there are more, each is drafted twice."""
ROWS_AT_ONCE: Final = 100_000
"""Rows of whole devices, or those of one that has more, judged in one go on each core."""
GIVEN_BACK_AFTER: Final = 32
"""Shards after which freed memory is given back."""
LISTED_NOT_JUDGED: Final = 1_000
AskInstalls = Callable[[Mapping[Packaged, set[str]]], Installs]
"""What installs contact of the wanted parties, by day and package."""
NO_BYTES: Final = "no flow has byte counts"
ONLY_COUNTED: Final = "only its byte counters are seen, none of its connections"


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

    findings: KeptFindings
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


def judge(intake: Intake, plan: Hunt) -> Judged:
    """Judge every app, shard by shard, on all cores; only cases are kept."""
    plan.watcher.judging(shards.SHARDS)
    result = Judged()
    judged = on_all_cores(lambda shard: _judge_shard(shard, intake, plan), range(shards.SHARDS))
    for number, (part, counted) in enumerate(judged, 1):
        result.not_judged += not_judged(counted, intake.registry, ONLY_COUNTED)
        result.not_judged += not_judged(part.silent, intake.registry, NO_BYTES)
        result.cases += part.cases()
        result.apps.update(day for _, day in part.told)
        result.duplicates += part.duplicates
        result.unmatched += part.unmatched
        plan.watcher.judged()
        if number % GIVEN_BACK_AFTER == 0:
            give_memory_back()
    return result


def _judge_shard(shard: int, intake: Intake, plan: Hunt) -> tuple[Part, Ints]:
    """One shard's part, and the apps of which nothing but bytes of the whole uid is known."""
    flows, volumes, signals = (table.read(shard) for table in (intake.flows, intake.volumes, intake.signals))
    counted = np.setdiff1d(volumes["app"][volumes["flow_id"] < 0], flows["app"]).astype(np.int64)
    pieces = -(-(len(flows) + len(volumes)) // ROWS_AT_ONCE)
    if pieces <= 1 or (devices := len(np.unique(flows["device"]))) <= 1:
        return judge_part(flows, volumes, signals, intake.registry, plan.settings, plan.tables), counted
    pieces = min(pieces, devices)
    parts = []
    for piece in range(pieces):
        own, intervals, context = (
            records[records["device"] // shards.SHARDS % pieces == piece] for records in (flows, volumes, signals)
        )
        parts.append(judge_part(own, intervals, context, intake.registry, plan.settings, plan.tables))
    return together(parts), counted


def findings_of(judged: Judged, view: View, plan: Hunt, ask: AskInstalls | None = None) -> KeptFindings:
    """The findings of what was judged, gravest and most certain first.

    ask: for what installs contact, where the view does not hold the flows of all of them.
    """
    parts = [judged.cases[at : at + DRAFTED_AT_ONCE] for at in range(0, len(judged.cases), DRAFTED_AT_ONCE)]
    bars, inventory = judged.bars(plan.settings), inventory_of(view)

    @lru_cache(1)
    def drafts(part: int) -> list[Draft]:
        directory = directory_of(parts[part], view, inventory, bars, plan.enrichment)
        return [draft for case in parts[part] if (draft := draft_of(case, directory, plan.settings)) is not None]

    numbers = range(len(parts))
    installs = (ask or _installs_in(view.intake))(_compared(draft for part in numbers for draft in drafts(part)))
    # Backwards, as the last part is still at hand.
    found = _completed((draft for part in reversed(numbers) for draft in drafts(part)), installs)
    return KeptFindings((apply(finding, plan.exceptions, plan.now) for finding in found), _gravity)


def inventory_of(view: View) -> ByPlace:
    """What inventories say of each app and device of the view."""
    return inventory_index(renamed(view.intake.inventory.frame().iter_rows(named=True), view.identity))


def directory_of(
    cases: Sequence[Case], view: View, inventory: ByPlace, bars: Mapping[int, float], enrichment: Enrichment
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
        inventory=inventory,
        twins=view.join.twins_of,
        bars=bars,
        enrichment=enrichment,
    )


def _compared(drafts: Iterable[Draft]) -> dict[Packaged, set[str]]:
    """Of which parties it is asked what other installs of the drafts' apps contact."""
    wanted: dict[Packaged, set[str]] = {}
    for draft in drafts:
        package, parties = draft.compared
        if parties:
            wanted.setdefault(package, set()).update(parties)
    return wanted


def _completed(drafts: Iterable[Draft], installs: Installs) -> Iterator[Finding]:
    """The findings of the drafts, with what other installs of their apps contact."""
    for draft in drafts:
        package, parties = draft.compared
        finding = draft.finding(installs.beside(package, draft.key.device, parties))
        if finding is not None:
            yield finding


def _installs_in(intake: Intake) -> AskInstalls:
    return lambda wanted: installs_of(intake.flows, intake.registry, intake.names, wanted)


def _gravity(finding: Finding) -> tuple[int, float, str, str, str]:
    order = list(type(finding.verdict)).index(finding.verdict)
    return order, -finding.score, finding.device.uid, finding.app.package or "", finding.finding_id
