"""Every number of the assurance report as one tidy row: section, name, value, unit, interval, how obtained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from relaywatch.model.assurance import Answer, AssuranceReport, CoverageReport, DrillReport, Figure, Shares
from relaywatch.outputs.assurance_definitions import DEFINITIONS, how
from relaywatch.outputs.assurance_sections import fate
from relaywatch.outputs.assurance_text import answer_word, drill_outcome, gap_words, topology_word, window_name
from relaywatch.outputs.ranking import gravest_first, verdict_counts
from relaywatch.outputs.text import VERDICT_TEXT, app_name, instant, printable


class Measure(NamedTuple):
    """One number, or one state in words, and how it was obtained; low and high bound its 95 % interval."""

    section: str
    name: str
    value: float | str | None
    unit: str
    low: float | None
    high: float | None
    how: str


def measures(report: AssuranceReport) -> Iterator[Measure]:
    """Yield every number of the report, in its order; unbounded, unlike tables for people."""
    texts = {key: how(report, key) for key in DEFINITIONS}
    for section, name, value, unit, key in _rows(report):
        if isinstance(value, Figure):
            low, high = (None, None) if value.value is None else (value.low, value.high)
            yield Measure(section, name, value.value, unit, low, high, texts[key])
        else:
            yield Measure(section, name, value, unit, None, None, texts[key])


_Row = tuple[str, str, float | str | Figure | None, str, str]


def _rows(report: AssuranceReport) -> Iterator[_Row]:
    """Section, name, value, unit and definition of each."""
    yield from _coverage(report.coverage)
    yield from _populations(report.coverage)
    yield from _sources(report.coverage)
    yield from _blind(report.coverage)
    if report.drill is not None:
        yield from _drill(report.drill)
    for entry in report.exceptions:
        name = f"{printable(entry.id)}, {printable(entry.owner)}"
        yield "exceptions", f"{name}: state", answer_word(entry.state), "", "exceptions"
        yield "exceptions", f"{name}: expires", instant(entry.expires), "", "exceptions"
        yield "exceptions", f"{name}: findings covered", entry.covers, "findings", "exceptions"
    yield from _findings(report)


def _coverage(coverage: CoverageReport) -> Iterator[_Row]:
    yield "watched", "devices", coverage.devices, "devices", "devices"
    yield "watched", "silent devices", coverage.silent_devices, "devices", "silent"
    yield "watched", "app windows", coverage.app_windows, "app windows", "app_windows"
    yield "watched", "window", coverage.window_s, "s", "app_windows"


def _populations(coverage: CoverageReport) -> Iterator[_Row]:
    for row in coverage.populations:
        where = f"{printable(row.group)}, {window_name(row.start, coverage.window_s)}"
        yield "watched", f"{where}: devices", row.devices, "devices", "devices"
        yield "watched", f"{where}: app windows", row.app_windows, "app windows", "app_windows"
        yield "watched", f"{where}: watched", row.watched, "share", "watched"
        for topology, shares in row.provable.items():
            kind = "any kind" if topology == "every" else topology_word(topology)
            yield from _answers(f"{where}: provable, {kind}", shares, "provable")
        yield from _answers(f"{where}: disprovable", row.disprovable, "disprovable")
        for gap in row.gaps:
            words = gap_words(gap.name, coverage.gaps)
            yield "not watched", f"{where}: {words}", gap.share, "share", "gap"


def _answers(name: str, shares: Shares, key: str) -> Iterator[_Row]:
    for answer in Answer:
        yield "watched", f"{name}: {answer_word(answer)}", float(getattr(shares, answer.value)), "share", key


def _sources(coverage: CoverageReport) -> Iterator[_Row]:
    for feed in coverage.feeds:
        name = printable(feed.format)
        yield "watched", f"{name}: units", feed.units, "files", "units"
        yield "watched", f"{name}: records", feed.records, "records", "records"
        yield "watched", f"{name}: put aside", feed.quarantined, "records", "records"
        yield "watched", f"{name}: gaps", feed.gaps, "gaps", "blanks"
        yield "watched", f"{name}: clock error", feed.clock_error_s, "s", "clock"
    for row in coverage.rows:
        name = f"{printable(row.data_component)} {printable(row.component_name)}, {printable(row.table)}"
        yield "watched", f"{name}, {printable(row.row)}: fed", row.fed, "share", "fed"


def _blind(coverage: CoverageReport) -> Iterator[_Row]:
    for spot in coverage.blind_spots:
        name = printable(spot.name)
        yield "blind spots", f"{name}: in part or whole", spot.share, "share", "blind"
        yield "blind spots", f"{name}: in whole", spot.lacking, "share", "blind"
        for point in spot.trend:
            window = window_name(point.start, coverage.window_s)
            yield "blind spots", f"{name}, {window}", point.share, "share", "blind"
        if spot.cost is not None:
            yield "blind spots", f"{name}: recall it costs", spot.cost, "share", "cost"


def _drill(drill: DrillReport) -> Iterator[_Row]:
    for kind, rows in (("played", drill.rows), ("evading", drill.evaded)):
        for row in rows:
            where = f"{topology_word(row.topology)}, {printable(row.population)}"
            name = f"{kind}: {where}, provable {answer_word(row.provable)}"
            yield "drills", f"{name}: relays played", row.played, "relays", "played"
            yield "drills", f"{name}: recall", row.relay, "share", "recall"
            yield "drills", f"{name}: relay or suspected", row.flagged, "share", "flagged"
            yield "drills", f"{name}: time to verdict", row.seconds, "s", "time"
            yield "drills", f"{name}: sessions to verdict", row.sessions, "sessions", "time"
            if row.decoys is not None:
                yield "drills", f"{name}: decoys called relay", row.decoys, "share", "decoys"
            if kind == "played":
                yield "drills", f"{name}: outcome", drill_outcome(row), "", "recall"
    yield "drills", "decoys called relay", drill.decoys, "share", "decoys"
    yield "drills", "site: relay or suspected verdicts", drill.site_alarms, "per app-day", "alarms"
    yield "drills", "site: relay verdicts", drill.site_relays, "per app-day", "alarms"
    yield "drills", "site: app-days", drill.app_days, "app-days", "alarms"
    for own in drill.alarms:
        where = f"site, {printable(own.population)}"
        yield "drills", f"{where}: relay or suspected verdicts", own.alarms, "per app-day", "alarms"
        yield "drills", f"{where}: relay verdicts", own.relays, "per app-day", "alarms"
        yield "drills", f"{where}: app-days", own.app_days, "app-days", "alarms"
    for field, cost in drill.costs.items():
        yield "drills", f"{printable(field)}: recall it costs", cost, "share", "cost"


def _findings(report: AssuranceReport) -> Iterator[_Row]:
    for verdict, count in verdict_counts(report.findings).items():
        yield "findings", VERDICT_TEXT[verdict], count, "findings", "findings"
    for finding in gravest_first(report.findings):
        name = f"{app_name(finding)} on {printable(finding.device.uid)}, {printable(finding.finding_id)}"
        yield "findings", f"{name}: verdict", VERDICT_TEXT[finding.verdict], "", "findings"
        yield "findings", f"{name}: probability", finding.probability, "share", "findings"
        yield "findings", f"{name}: fate", fate(finding), "", "findings"
