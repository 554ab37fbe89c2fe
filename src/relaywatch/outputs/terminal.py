"""Findings for people at a terminal: a headline, one compact panel a finding, and what was read.

Text enters rich as `Text`, never as markup, and through `printable`; so names cannot colour, link or move anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.box import ROUNDED, SIMPLE_HEAD
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from relaywatch.model.finding import Destination, Evidence, Finding, Topology, Verdict
from relaywatch.outputs.ranking import gravest_first, verdict_counts
from relaywatch.outputs.summary import HuntSummary
from relaywatch.outputs.text import (
    TOPOLOGY_TEXT,
    VERDICT_TEXT,
    app_name,
    context_line,
    defang,
    duration,
    endpoint,
    factor,
    first_step,
    fleet,
    indicator,
    lateral_movement,
    percent,
    period,
    plural,
    printable,
    short_id,
    signed,
    size,
    systems,
    unrelatedness,
    why_suspected,
)

STYLE: Final = {
    Verdict.RELAY: "bold red",
    Verdict.SUSPECTED_RELAY: "bold yellow",
    Verdict.SANCTIONED_RELAY: "bold green",
    Verdict.INSUFFICIENT_TELEMETRY: "bold",
}
WIDEST: Final = 110
_SHOWN: Final = {"destinations": 5, "gateways": 3, "evidence": 3, "indicators": 3, "rows": 20}


def render(findings: Sequence[Finding], summary: HuntSummary, console: Console) -> None:
    """Print the headline, a panel per finding, gravest first, and what was read or could not be."""
    console.print(headline(findings, summary))
    for finding in gravest_first(findings):
        console.print(panel(finding, width=min(console.width, WIDEST)))
    for part in _reading(summary):
        console.print(part)


def headline(findings: Sequence[Finding], summary: HuntSummary) -> Text:
    """Return the counts of every verdict, and among what."""
    counts = verdict_counts(findings)
    words = {
        Verdict.RELAY: plural(counts[Verdict.RELAY], "relay"),
        Verdict.SUSPECTED_RELAY: f"{counts[Verdict.SUSPECTED_RELAY]} suspected",
        Verdict.SANCTIONED_RELAY: f"{counts[Verdict.SANCTIONED_RELAY]} sanctioned",
        Verdict.INSUFFICIENT_TELEMETRY: f"{counts[Verdict.INSUFFICIENT_TELEMETRY]} insufficient",
    }
    line = Text(", ").join(Text(word, STYLE[verdict] if counts[verdict] else "") for verdict, word in words.items())
    return line.append(f"  {fleet(summary.devices, summary.apps)}", "dim")


def panel(finding: Finding, *, width: int) -> Panel:
    """Return one finding as a panel of `width` columns."""
    style = STYLE[finding.verdict]
    title = Text.assemble((VERDICT_TEXT[finding.verdict].upper(), style), f"  {percent(finding.probability)}")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold", ratio=1)
    for name, value in _facts(finding):
        if value:
            grid.add_row(name, Text(value, "bold red" if name == "severity" else ""))
    for number, part in enumerate((_strongest(finding), _unseen(finding), _first(finding))):
        if part:
            grid.add_row(("evidence", "not seen", "first")[number], part)
    return Panel(
        grid, title=title, title_align="left", box=ROUNDED, border_style=style.removeprefix("bold "), width=width
    )


def _facts(finding: Finding) -> list[tuple[str, str]]:
    accepted = finding.topology is Topology.ACCEPTED
    device = printable(finding.device.uid)
    group = f" (group {printable(finding.device.group)})" if finding.device.group else ""
    port = f" on port {finding.listener_port}" if finding.listener_port else ""
    return [
        ("id", f"{short_id(finding)}  (relaywatch explain {short_id(finding)})"),
        ("severity", lateral_movement(finding)),
        ("why suspected", why_suspected(finding)),
        ("app", app_name(finding)),
        ("device", device + group),
        ("user", printable(finding.user.name or "")),
        ("topology", TOPOLOGY_TEXT[finding.topology] + port),
        (
            "seen",
            f"{period(finding.first_seen, finding.last_seen)}, {duration(finding.last_seen - finding.first_seen)}",
        ),
        ("bridges", f"{finding.bridges:,}"),
        (
            "bytes",
            f"destinations {size(finding.bytes_out)} out, {size(finding.bytes_in)} in; "
            f"{'clients' if accepted else 'gateways'} {size(finding.client_bytes_in)} in, "
            f"{size(finding.client_bytes_out)} out",
        ),
        ("clients" if accepted else "gateways", _gateways(finding)),
        ("reached", _reached(finding)),
        ("indicators", "\n".join(map(indicator, finding.indicators[: _SHOWN["indicators"]]))),
        ("context", context_line(finding)),
        ("exception", _exception(finding)),
    ]


def _gateways(finding: Finding) -> str:
    most = _SHOWN["gateways"]
    parts = [
        endpoint(remote.address, remote.port) + (f" {defang(remote.hostname)}" if remote.hostname else "")
        for remote in finding.gateways[:most]
    ]
    return ", ".join(parts) + _more(len(finding.gateways) - most)


def _reached(finding: Finding) -> str:
    most = _SHOWN["destinations"]
    rows = sorted(finding.destinations, key=lambda row: (not row.lateral, -row.bridges, row.name))
    return f"{unrelatedness(finding)}: {', '.join(map(_destination, rows[:most]))}{_more(len(rows) - most)}"


def _destination(row: Destination) -> str:
    owner = f" ({systems(row.autonomous_systems, 1)})" if row.autonomous_systems else ""
    return defang(row.name) + owner + (" (inside a private network)" if row.lateral else "")


def _more(count: int) -> str:
    return f" and {count:,} more" if count > 0 else ""


def _exception(finding: Finding) -> str:
    use = finding.exception
    if use is None:
        return ""
    state = "until" if use.active else "EXPIRED"
    warning = f" {use.warning}" if use.warning else ""
    return printable(f"{use.id} of {use.owner}, {state} {use.expires:%Y-%m-%d}: {use.reason}{warning}")


def _strongest(finding: Finding) -> Text:
    items = sorted(finding.evidence, key=lambda item: -abs(item.log_likelihood_ratio))[: _SHOWN["evidence"]]
    lines = [_item(item) for item in items]
    return Text("\n").join(lines)


def _item(item: Evidence) -> Text:
    multiplies = (f"{factor(item.log_likelihood_ratio)} ", "bold")
    return Text.assemble(multiplies, printable(item.statement), (f" ({signed(item.log_likelihood_ratio)})", "dim"))


def _unseen(finding: Finding) -> Text:
    lines = [
        Text(f"{printable(gap.field)}: {printable(gap.cost).rstrip('.')}. Would show it: {printable(gap.remedy)}")
        for gap in finding.not_observable[:5]
    ]
    return Text("\n").join(lines)


def _first(finding: Finding) -> Text:
    return Text(first_step(finding), "bold")


def _reading(summary: HuntSummary) -> list[Table | Text | Group]:
    parts: list[Table | Text | Group] = []
    if summary.units:
        parts.append(_sources(summary))
    rows = ", ".join(f"{count:,} {printable(name)}" for name, count in summary.rows.items())
    aside = plural(summary.quarantine.total, "damaged record")
    parts.append(Text(f"Read {rows or 'nothing'} in {summary.seconds:.1f} s; {aside} put aside."))
    parts += [Text(line) for line in _left_out(summary)]
    parts += _listed(
        "Put aside",
        [f"{r.source}, {r.position}: {r.reason}" for r in summary.quarantine.records],
        summary.quarantine.total,
    )
    unknown = list(summary.unrecognised)
    parts += _listed("In no known format", unknown, len(unknown))
    unjudged = [f"{app} on {device}: {reason}" for device, app, reason in summary.not_judged]
    in_all = max(len(unjudged), summary.not_judged_in_all)
    parts += _listed("Could not be judged, which is not the same as clean", unjudged, in_all)
    return parts


def _left_out(summary: HuntSummary) -> Iterator[str]:
    """What was put together or not used, where anything was."""
    if summary.joins.merged:
        yield f"Joined: {summary.joins.merged:,} records are connections of another source (relaywatch sources tells)."
    if summary.duplicate_flows:
        yield f"{plural(summary.duplicate_flows, 'record')} of flows that another record shows too, counted once."
    if summary.unused_volumes:
        yield f"{plural(summary.unused_volumes, 'volume')} without its flow, or longer than tunnels can be judged by."


def _sources(summary: HuntSummary) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("source", overflow="fold")
    table.add_column("format", overflow="fold")
    table.add_column("records", justify="right", no_wrap=True)
    table.add_column("put aside", justify="right", no_wrap=True)
    for unit in summary.units[: _SHOWN["rows"]]:
        aside = Text(f"{unit.quarantined:,}", "yellow" if unit.quarantined else "")
        table.add_row(Text(printable(unit.path)), Text(printable(unit.format)), f"{unit.records:,}", aside)
    if len(summary.units) > _SHOWN["rows"]:
        rest = summary.units[_SHOWN["rows"] :]
        records, put_aside = sum(unit.records for unit in rest), sum(unit.quarantined for unit in rest)
        table.add_row(f"{len(rest):,} more", "", f"{records:,}", f"{put_aside:,}")
    return table


def _listed(title: str, lines: Sequence[str], total: int) -> list[Text]:
    if not lines:
        return []
    most = _SHOWN["rows"] // 2
    shown = [Text(f"{title}:", "bold"), *(Text(f"  {printable(line)}") for line in lines[:most])]
    return shown + ([Text(f"  {total - most:,} more", "dim")] if total > most else [])
