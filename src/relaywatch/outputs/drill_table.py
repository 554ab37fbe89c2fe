"""A drill for people at a terminal and for machines: relays that were played, found or missed, and what that says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relaywatch.model.assurance import DrillReport, DrillRow, Figure
from relaywatch.outputs.assurance_text import (
    PROMISED_RECALL,
    SITE_ALARMS,
    answer_word,
    app_days,
    broken,
    broken_promise,
    drill_outcome,
    figure,
    interval,
    rate,
    recall_cost,
    seconds,
    share,
    topology_word,
)
from relaywatch.outputs.native import plain_object
from relaywatch.outputs.text import plural, printable

MOST_ROWS: Final = 60
_STYLES: Final = {
    "promise kept": "green",
    "promise in doubt": "yellow",
    "promise broken": "bold red",
    "no promise": "dim",
    "not played": "yellow",
}
_LISTS: Final = ("rows", "evaded", "costs", "alarms")


def render_drill(report: DrillReport, console: Console) -> None:
    """Print recall beside what coverage promised, then decoys, the site's own alarms, evasions and costs of gaps."""
    console.print(_headline(report))
    if report.rows:
        console.print(_played_table(report.rows))
    console.print(_promise(report.rows))
    console.print(_alarms(report))
    if report.evaded:
        console.print(_evaded_table(report.evaded))
    if report.costs:
        console.print(_cost_table(report.costs))


def drill_records(report: DrillReport) -> Iterator[dict[str, Any]]:
    """The same for machines: the sums, then one object a row, an evaded row and a cost, each with its `kind` first."""
    whole = plain_object(report)
    yield {"kind": "drill", **{name: value for name, value in whole.items() if name not in _LISTS}}
    for row in report.rows:
        yield {"kind": "drill_row", "outcome": drill_outcome(row), **plain_object(row)}
    for row in report.evaded:
        yield {"kind": "evaded", **plain_object(row)}
    for own in report.alarms:
        yield {"kind": "alarms", **plain_object(own)}
    for field, cost in report.costs.items():
        yield {"kind": "cost", "field": field, **plain_object(cost)}


def _headline(report: DrillReport) -> Text:
    line = Text(f"{plural(report.episodes, 'relay')} played into the site's own telemetry", "bold")
    plan = ", ".join(f"{printable(name)} {printable(value)}" for name, value in report.plan.items())
    return line.append(f"\nseed {report.seed}{'; ' if plan else ''}{plan}", "not bold dim")


def _played_table(rows: Sequence[DrillRow]) -> Table:
    table = _row_table("Relays played, beside what coverage had said of where", "population")
    table.add_column("", no_wrap=True)
    for row in rows[:MOST_ROWS]:
        outcome = drill_outcome(row)
        table.add_row(*_cells(row), Text(outcome.replace(" ", "\n"), _STYLES[outcome]))
    return _with_rest(table, len(rows))


def _evaded_table(rows: Sequence[DrillRow]) -> Table:
    table = _row_table("The same with evasion: coverage promises nothing of relays that hide", "evasion")
    for row in rows[:MOST_ROWS]:
        table.add_row(*_cells(row))
    return _with_rest(table, len(rows))


def _row_table(title: str, second: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title=title, title_justify="left")
    table.add_column(f"relays,\n{second}", overflow="fold", min_width=12)
    table.add_column("\nprovable", no_wrap=True)
    for name in ("\nplayed", "recall,\n95 %", "or sus-\npected", "until\nverdict"):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _cells(row: DrillRow) -> tuple[Text | str, ...]:
    return (
        Text(f"{topology_word(row.topology)}\n{printable(row.population)}"),
        Text(answer_word(row.provable)),
        f"{row.played:,}",
        _figure(row.relay),
        _figure(row.flagged),
        seconds(row.seconds) + ("" if row.sessions is None else f"\n{plural(round(row.sessions), 'session')}"),
    )


def _figure(value: Figure) -> str:
    return "–" if value.value is None else f"{share(value.value)}\n{interval(value)}"


def _with_rest(table: Table, count: int) -> Table:
    if count > MOST_ROWS:
        table.add_row(Text(f"{count - MOST_ROWS:,} more (--json lists all)", "dim"))
    return table


def _promise(rows: Sequence[DrillRow]) -> Text:
    """A line for every broken promise, or how many are in doubt, or that none was broken, or that none was made."""
    failed = [row for row in rows if broken(row)]
    if failed:
        lines = [broken_promise(row) for row in failed[:MOST_ROWS]]
        more = len(failed) - len(lines)
        return Text("\n".join(lines + ([f"{more:,} more promises broken"] if more else [])), "bold red")
    outcomes = [drill_outcome(row) for row in rows]
    kept, doubted = outcomes.count("promise kept"), outcomes.count("promise in doubt")
    if doubted:
        below = f"of {plural(doubted, 'promise')} recall is below {share(PROMISED_RECALL)}, within what chance allows"
        return Text(f"Promises kept: {kept:,}; {below}. More --episodes tell.", "yellow")
    if not kept:
        return Text("No relay was played where coverage promises a proof, so no promise was checked.", "yellow")
    return Text(f"Promises checked: {kept:,}, all kept: recall of at least {share(PROMISED_RECALL)}.", "green")


def _alarms(report: DrillReport) -> Text:
    text = Text("Decoys", "bold").append(
        f" (the same traffic, nothing passed on): {figure(report.decoys)} called relay\n", "not bold"
    )
    text.append("The site's own telemetry", "bold")
    text.append(
        f", {app_days(report.app_days)}: {rate(report.site_relays)} relays and {rate(report.site_alarms)} "
        "relays or suspected per app-day\n"
    )
    for own in report.alarms[:MOST_ROWS]:
        text.append(
            f"  {printable(own.population)}, {app_days(own.app_days)}: {rate(own.relays)} and {rate(own.alarms)}\n"
        )
    return text.append(SITE_ALARMS, "dim")


def _cost_table(costs: Mapping[str, Figure]) -> Table:
    title = "What gaps cost: recall gained where the field is given back"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    table.add_column("field", overflow="fold")
    table.add_column("recall (95 %)", justify="right", no_wrap=True)
    shown = sorted(costs.items(), key=lambda entry: -(entry[1].value or 0.0))
    for name, cost in shown[:MOST_ROWS]:
        table.add_row(Text(printable(name.replace("_", " "))), recall_cost(cost))
    return table
