"""Coverage: from what was watched to the report of what could be seen, by population, window and log-source row."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl

from relaywatch import __version__
from relaywatch.assurance.answers import MISSING, OK, TOPOLOGIES, answered, device_states
from relaywatch.assurance.blind_spots import blind_spots
from relaywatch.assurance.gaps import ASKED, GAPS, REMEDIES, remedies_for
from relaywatch.assurance.rows import row_coverage
from relaywatch.assurance.watching import Span, Watching, watch
from relaywatch.detection.settings import Settings
from relaywatch.engines.survey import summary_of
from relaywatch.engines.view import Unwatched, View, Watcher, read_view
from relaywatch.model.assurance import (
    ALL_DEVICES,
    NO_GROUP,
    Answer,
    CoverageReport,
    GapShare,
    PopulationCoverage,
    Provable,
    Shares,
    SourceFeed,
    WindowCoverage,
)
from relaywatch.model.errors import SourceError
from relaywatch.outputs.summary import HuntSummary, UnitRead
from relaywatch.sources.discovery import discover

DAY_S: Final = 86_400.0
SHOWN_REMEDIES: Final = 5
_ANSWERS: Final = tuple(Answer)
_RANK: Final = ("observed", "inferred", "partly", "absent")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Coverage:
    """The report, and the answers behind it: a row an app and window (answers.answered)."""

    report: CoverageReport
    answers: pl.DataFrame
    span: Span | None
    formats: Sequence[str]
    clock_errors: Mapping[str, float]
    inbound_formats: frozenset[str]
    summary: HuntSummary

    @property
    def needed_span(self) -> Span:
        """The windows. Raises ValueError where there is no flow at all."""
        if self.span is None:
            raise ValueError("no flow, no windows")
        return self.span

    @property
    def app_days(self) -> float:
        """Days for which apps with connections were watched, summed over the apps."""
        if self.answers.is_empty():
            return 0.0
        own = self.answers.filter(pl.col("flows_app") > 0)
        return float(own["watched_s"].to_numpy().sum()) / DAY_S

    def app_days_by_population(self) -> dict[str, float]:
        """The same by group of devices."""
        if self.answers.is_empty():
            return {}
        own = self.answers.filter(pl.col("flows_app") > 0).with_columns(pl.col("group").fill_null(NO_GROUP))
        return dict(own.group_by("group").agg(pl.col("watched_s").sum() / DAY_S).iter_rows())

    def windows(self) -> Iterator[WindowCoverage]:
        """Every app's every window, by device, app and time."""
        if self.span is None:
            return
        ordered = self.answers.sort("name", "package", "uid", "window", nulls_last=True)
        for row in ordered.iter_rows(named=True):
            yield self._window(row, self.span)

    def _window(self, row: Mapping[str, Any], span: Span) -> WindowCoverage:
        formats = [name for k, name in enumerate(self.formats) if row["format"] >> k & 1]
        missing, partial = held_back(row)
        wanting = missing or partial
        begin, end = span.within(row["window"])
        return WindowCoverage(
            device=row["name"],
            group=row["group"],
            package=row["package"],
            uid=row["uid"],
            start=_moment(begin),
            end=_moment(end),
            watched=round(row["watched"], 6),
            flows=row["flows_app"] or 0,
            clock_error_s=max((self.clock_errors[name] for name in formats if name in self.clock_errors), default=None),
            formats=formats,
            provable=Provable(**{name: _ANSWERS[row[name]] for name in TOPOLOGIES}),
            disprovable=_ANSWERS[row["disprovable"]],
            missing=missing,
            partial=partial,
            remedies=list(remedies_for(wanting)),
        )


def held_back(row: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Names of a window's gaps that are open for all of its flows, and for some of them or some of the time."""
    states = {name: row[f"gap_{name}"] for name in ASKED}
    return (
        [name for name, state in states.items() if state == MISSING],
        [name for name, state in states.items() if OK < state < MISSING],
    )


def coverage(
    paths: Sequence[Path],
    settings: Settings,
    *,
    window_s: float = DAY_S,
    device: str = "",
    watcher: Watcher | None = None,
) -> Coverage:
    """What the telemetry under the paths could have shown. device: its name for formats that give none.

    Raises SourceError where a path is missing or of no known format, RelaywatchError where windows are too short.
    """
    found, started = discover(paths), time.monotonic()
    if not found.units:
        first = paths[0] if paths else ""
        raise SourceError(first, "holds no telemetry in a known format.", remedy="See docs/sources.md.")
    with tempfile.TemporaryDirectory(prefix="relaywatch-") as folder:
        watched = Unwatched() if watcher is None else watcher
        allowed = settings.allowed_destinations
        view = read_view(found.units, Path(folder), device, watched, allowed, profiled=True)
        return coverage_of(view, settings, window_s, summary_of(view, found, started))


def coverage_of(view: View, settings: Settings, window_s: float, summary: HuntSummary) -> Coverage:
    """The coverage of a view whose units were profiled. summary: what was read."""
    watching = watch(view, window_s)
    states = device_states(watching, settings)
    answers = answered(states, watching, settings)
    feeds = source_feeds(view.reads, _devices_shown(watching))
    errors = {feed.format: feed.clock_error_s for feed in feeds if feed.clock_error_s is not None}
    report = _report(watching, states, answers, feeds, window_s)
    return Coverage(report, answers, watching.span, watching.formats, errors, watching.inbound_formats, summary)


def _report(
    watching: Watching, states: pl.DataFrame, answers: pl.DataFrame, feeds: Sequence[SourceFeed], window_s: float
) -> CoverageReport:
    devices = states["name"].n_unique() if states.width else watching.inventory.height
    seen = states.filter(pl.col("flows") > 0)["name"].n_unique() if states.width else 0
    return CoverageReport(
        window_s=window_s,
        first=None if watching.span is None else _moment(watching.span.first_us),
        last=None if watching.span is None else _moment(watching.span.last_us),
        devices=devices,
        silent_devices=devices - seen,
        app_windows=answers.height,
        populations=list(_populations(answers, watching.span)),
        rows=row_coverage(states, feeds),
        blind_spots=blind_spots(states, watching.span),
        feeds=list(feeds),
        gaps=list(GAPS.values()),
        producer=f"relaywatch {__version__}",
    )


def _populations(answers: pl.DataFrame, span: Span | None) -> Iterator[PopulationCoverage]:
    """Each group of devices in each window; where there is more than one group, all devices first."""
    if span is None:
        return
    grouped = answers.with_columns(pl.col("group").fill_null(NO_GROUP))
    several = grouped["group"].n_unique() > 1
    named = [(ALL_DEVICES, grouped)]
    if several:
        named += [(str(group), part) for (group,), part in sorted(grouped.group_by("group"), key=lambda g: str(g[0]))]
    for group, part in named:
        for (window,), rows in sorted(part.group_by("window"), key=lambda entry: int(str(entry[0][0]))):
            yield _population(group, int(str(window)), rows, span)


def _population(group: str, window: int, rows: pl.DataFrame, span: Span) -> PopulationCoverage:
    shares = [GapShare(name=name, share=float((rows[f"gap_{name}"] > OK).to_numpy().mean())) for name in ASKED]
    per_device = rows.unique("name", maintain_order=True)
    begin, end = span.within(window)
    return PopulationCoverage(
        group=group,
        start=_moment(begin),
        end=_moment(end),
        devices=per_device.height,
        app_windows=rows.height,
        watched=float(per_device["watched"].to_numpy().mean()),
        provable={name: _shares(rows, name) for name in (*TOPOLOGIES, "every")},
        disprovable=_shares(rows, "disprovable"),
        gaps=sorted((gap for gap in shares if gap.share > 0.0), key=lambda gap: -gap.share),
        remedies=_remedies(rows),
    )


def _shares(rows: pl.DataFrame, column: str) -> Shares:
    counts = Counter(rows[column].to_list())
    return Shares(**{answer.value: counts[k] / rows.height for k, answer in enumerate(_ANSWERS)})


def _remedies(rows: pl.DataFrame) -> list[str]:
    """The sources that turn most app windows into a yes, those of most windows first, of as many the cheapest."""
    columns = [f"gap_{name}" for name in ASKED]
    wanted: Counter[str] = Counter()
    for *states, count in rows.group_by(columns).len().iter_rows():
        held = [name for name, state in zip(ASKED, states, strict=True) if state > OK]
        wanted.update(dict.fromkeys(remedies_for(held), int(count)))
    rank = [remedy.source for remedy in REMEDIES]
    ordered = sorted(wanted, key=lambda source: (-wanted[source], rank.index(source)))
    return ordered[:SHOWN_REMEDIES]


def _devices_shown(watching: Watching) -> dict[str, int]:
    """How many devices each format shows connections of."""
    if watching.span is None:
        return {}
    bits = watching.devices.group_by("name").agg(pl.col("format").bitwise_or())["format"]
    return {name: int(((bits // (1 << k)) % 2).sum()) for k, name in enumerate(watching.formats)}


def source_feeds(reads: Sequence[UnitRead], devices: Mapping[str, int]) -> list[SourceFeed]:
    """The units by format: what they fed, by the best of each format's files. devices: that each format shows."""
    feeds = []
    for form in sorted({unit.format for unit in reads}):
        units = [unit for unit in reads if unit.format == form]
        views = [unit.shows for unit in units if unit.shows is not None]
        fields: dict[str, str] = {}
        for view in views:
            for name, seen in view.fields.items():
                fields[name] = min(fields.get(name, "absent"), seen, key=_RANK.index)
        errors = [view.clock_error_s for view in views if view.clock_error_s is not None]
        feeds.append(
            SourceFeed(
                format=form,
                units=len(units),
                records=sum(unit.met for unit in units),
                quarantined=sum(unit.quarantined for unit in units),
                devices=devices.get(form, 0),
                first=min((view.first for view in views if view.first is not None), default=None),
                last=max((view.last for view in views if view.last is not None), default=None),
                gaps=sum(view.gaps for view in views),
                clock_error_s=max(errors, default=None),
                sampled=any(view.sampled for view in views),
                packages=any(view.packages for view in views),
                digests=any(view.digests for view in views),
                fields=fields,
            )
        )
    return feeds


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
