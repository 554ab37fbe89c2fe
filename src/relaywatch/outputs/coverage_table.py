"""Coverage for people at a terminal and for machines: what could have been seen, and what it would take to see more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from pydantic import BaseModel
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relaywatch.model.assurance import (
    BlindSpot,
    CoverageReport,
    PopulationCoverage,
    RowCoverage,
    Shares,
    SourceFeed,
    WindowCoverage,
)
from relaywatch.outputs.assurance_text import (
    NOT_OBSERVED,
    TOPOLOGIES,
    course,
    gap_words,
    recall_cost,
    share,
    share_number,
    spark,
    whole_fleet,
    window_length,
    window_name,
)
from relaywatch.outputs.native import plain_object
from relaywatch.outputs.text import duration, period, plural, printable, utc

MOST_ROWS: Final = 40
SHOWN_GAPS: Final = 3
_LISTS: Final = ("populations", "rows", "blind_spots", "feeds", "gaps")
_ANSWERS_TITLE: Final = "Provable, by topology, and disprovable: percent yes/in part/no"
_STYLES: Final = {"yes": "green", "in_part": "yellow", "no": "red"}


def render_coverage(report: CoverageReport, console: Console) -> None:
    """Print what was watched, what could be proved and disproved there, why not, and what would show it."""
    console.print(_headline(report))
    if report.populations:
        console.print(_population_table(report))
        if any(population.disprovable.no > 0.0 for population in report.populations):
            console.print(Text(NOT_OBSERVED, "bold"))
        if any(population.gaps for population in report.populations):
            console.print(_why_not_table(report))
    rows = [row for row in report.rows if row.analytic]
    if rows:
        console.print(_row_table("Log-source rows of AN1702, and what fed them", rows))
    extensions = [row for row in report.rows if not row.analytic]
    if extensions:
        console.print(_row_table("relaywatch's own extensions", extensions))
    if report.feeds:
        console.print(_feed_table(report.feeds))
    if report.blind_spots:
        console.print(_blind_spot_table(report.blind_spots))


def coverage_records(report: CoverageReport, windows: Iterable[WindowCoverage]) -> Iterator[dict[str, Any]]:
    """The same for machines: the sums, then one object a population, row, blind spot, feed, gap and app window.

    Each has its `kind` first; times are RFC 3339 in UTC.
    """
    sums = {name: value for name, value in plain_object(report).items() if name not in _LISTS}
    yield {"kind": "coverage", **sums}
    parts: tuple[tuple[str, Iterable[BaseModel]], ...] = (
        ("population", report.populations),
        ("row", report.rows),
        ("blind_spot", report.blind_spots),
        ("feed", report.feeds),
        ("gap", report.gaps),
        ("window", windows),
    )
    for kind, records in parts:
        for record in records:
            yield {"kind": kind, **plain_object(record)}


def _headline(report: CoverageReport) -> Text:
    line = Text(
        f"{plural(report.devices, 'device')}, {plural(report.app_windows, 'app window')} of {window_length(report)}: ",
        "bold",
    )
    fleet = whole_fleet(report)
    if fleet is None or report.first is None or report.last is None:
        return line.append("no flow was seen, so nothing can be said of any app", "bold red")
    line.append(f"a relay provable in {share(fleet.provable['every'].yes)}, ")
    line.append(f"its absence in {share(fleet.disprovable.yes)}")
    line.append(f"\n{period(report.first, report.last)}, {duration(report.last - report.first)}", "dim")
    if report.silent_devices:
        line.append(f"\n{plural(report.silent_devices, 'device')} without any flow seen", "bold yellow")
    return line


def _population_table(report: CoverageReport) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title=_ANSWERS_TITLE, title_justify="left")
    table.add_column("population, window", overflow="fold", min_width=11)
    topologies = (name.replace("-", "-\n") for name in TOPOLOGIES.values())
    for name in ("devices", "app\nwindows", "watched", *topologies, "dis-\nprovable"):
        table.add_column(name, justify="right", no_wrap=True)
    group = ""
    for row in report.populations[:MOST_ROWS]:
        if row.group != group:
            group = row.group
            table.add_row(Text(printable(group), "bold"))
        table.add_row(
            f" {window_name(row.start, report.window_s)}",
            f"{row.devices:,}",
            f"{row.app_windows:,}",
            share(row.watched),
            *(_three(row.provable[name]) for name in TOPOLOGIES),
            _three(row.disprovable),
        )
    return _with_rest(table, len(report.populations))


def _three(shares: Shares) -> Text:
    parts = (
        Text(share_number(value).replace(" ", ""), style if value > 0.0 else "dim")
        for value, style in ((getattr(shares, name), style) for name, style in _STYLES.items())
    )
    return Text("/", "dim").join(parts)


def _why_not_table(report: CoverageReport) -> Table:
    """What keeps answers from being a yes and what would change that, once for all windows that lack the same."""
    alike: dict[tuple[str, ...], list[PopulationCoverage]] = {}
    for population in report.populations:
        names = (gap.name for gap in population.gaps[:SHOWN_GAPS])
        if population.gaps:
            alike.setdefault((population.group, *sorted(names), *population.remedies), []).append(population)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, ratio in (
        ("population, window", 3),
        ("why not, by share of app windows", 7),
        ("what would make it a yes", 6),
    ):
        table.add_column(name, overflow="fold", ratio=ratio)
    for populations in list(alike.values())[:MOST_ROWS]:
        first = populations[0]
        more = f" and {plural(len(populations) - 1, 'more window')}" if len(populations) > 1 else ""
        table.add_row(
            Text(f"{printable(first.group)}, {window_name(first.start, report.window_s)}{more}"),
            Text(_reasons(populations, report)),
            Text("\n".join(f"{place}. {printable(source)}" for place, source in enumerate(first.remedies, 1)) or "–"),
        )
    return _with_rest(table, len(alike))


def _reasons(populations: Sequence[PopulationCoverage], report: CoverageReport) -> str:
    """The top gaps of populations that lack the same, each with its share, or the least and most of its shares."""
    lines = []
    for gap in populations[0].gaps[:SHOWN_GAPS]:
        shares = sorted(other.share for each in populations for other in each.gaps if other.name == gap.name)
        low, high = share_number(shares[0]), share_number(shares[-1])
        lines.append(f"{low if low == high else f'{low} to {high}'} % {gap_words(gap.name, report.gaps)}")
    rest = max(len(population.gaps) for population in populations) - SHOWN_GAPS
    return "\n".join([*lines, f"and {plural(rest, 'lesser gap')}"] if rest > 0 else lines)


def _row_table(title: str, rows: Sequence[RowCoverage]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    table.add_column("row", overflow="fold", ratio=5)
    table.add_column("device\nwindows", justify="right", no_wrap=True)
    for name in ("fed by", "observed", "inferred", "absent"):
        table.add_column(name, overflow="fold", ratio=2)
    for row in rows[:MOST_ROWS]:
        name = f"{printable(row.data_component)} {printable(row.component_name)}, {printable(row.table)}"
        purpose = "" if row.analytic else f"\n{printable(row.row)}"
        table.add_row(
            Text.assemble(name, (purpose, "dim")),
            Text(share(row.fed), "" if row.fed >= 1.0 else "yellow" if row.fed > 0.0 else "red"),
            *(Text(", ".join(map(printable, names)) or "–") for names in (row.formats, row.observed, row.inferred)),
            Text(", ".join(map(printable, row.absent)) or "–", "yellow" if row.absent else ""),
        )
    return _with_rest(table, len(rows))


def _feed_table(feeds: Sequence[SourceFeed]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title="Sources", title_justify="left")
    table.add_column("format", overflow="fold", min_width=10)
    for name in ("records", "put\naside", "devices"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("span, from\n(UTC)", overflow="fold", min_width=10)
    for name in ("clock\nerror", "gaps"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("sampled", no_wrap=True)
    for feed in feeds[:MOST_ROWS]:
        table.add_row(
            Text.assemble(printable(feed.format), (f"\n{plural(feed.units, 'unit')}", "dim")),
            f"{feed.records:,}",
            Text(f"{feed.quarantined:,}", "yellow" if feed.quarantined else ""),
            f"{feed.devices:,}",
            _span(feed),
            "not stated" if feed.clock_error_s is None else f"{feed.clock_error_s:g} s",
            Text(f"{feed.gaps:,}", "yellow" if feed.gaps else ""),
            Text("yes", "yellow") if feed.sampled else "no",
        )
    return _with_rest(table, len(feeds))


def _span(feed: SourceFeed) -> str:
    if feed.first is None or feed.last is None:
        return "–"
    return f"{duration(feed.last - feed.first)}\n{utc(feed.first):%Y-%m-%d %H:%M}"


def _blind_spot_table(spots: Sequence[BlindSpot]) -> Table:
    """The register, the largest share first. Costs stand where drills have measured them."""
    costed = any(spot.cost is not None for spot in spots)
    trended = any(len(spot.trend) > 1 for spot in spots)
    title = "Blind spots, by share of device windows"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    table.add_column("not shown", no_wrap=True)
    table.add_column("in part\nor whole", justify="right", no_wrap=True)
    table.add_column("in whole", justify="right", no_wrap=True)
    if trended:
        table.add_column("over time", no_wrap=True)
    if costed:
        table.add_column("recall it costs")
    table.add_column("remedy", overflow="fold")
    for spot in sorted(spots, key=lambda spot: -spot.share)[:MOST_ROWS]:
        cells: list[Text | str] = [Text(printable(spot.name)), share(spot.share), share(spot.lacking)]
        if trended:
            cells.append(Text(f"{spark(spot.trend)}\n{course(spot.trend)}"))
        if costed:
            cells.append(recall_cost(spot.cost))
        table.add_row(*cells, Text(printable(spot.remedy) if spot.share > 0.0 else "–"))
    return _with_rest(table, len(spots))


def _with_rest(table: Table, count: int) -> Table:
    if count > MOST_ROWS:
        table.add_row(Text(f"{count - MOST_ROWS:,} more (--json lists all)", "dim"))
    return table
