"""Every number behind one verdict, at the terminal: evidence, sum, bridges, settings, gaps, provenance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relaywatch.model.finding import Evidence, Finding, Leg
from relaywatch.outputs.ranking import prior_log_odds, strongest_bridges
from relaywatch.outputs.text import (
    VERDICT_TEXT,
    amount,
    app_name,
    defang,
    endpoint,
    factor,
    indicator,
    lateral_movement,
    odds,
    percent,
    plural,
    printable,
    sentence,
    signed,
    size,
    systems,
    utc,
    where,
    why_suspected,
)

SHOWN_BRIDGES: Final = 20
SHOWN_DESTINATIONS: Final = 20


def explain(finding: Finding, console: Console) -> None:
    """Print everything that the finding holds about how its verdict came to be."""
    title = f"{VERDICT_TEXT[finding.verdict]}, {percent(finding.probability)}"
    console.print(Text.assemble((f"{title}: ", "bold"), f"{app_name(finding)} on {printable(finding.device.uid)}"))
    console.print(Text(sentence(finding)))
    if lateral := lateral_movement(finding):
        console.print(Text(f"severity: {lateral}", "bold red"))
    if why := why_suspected(finding):
        console.print(Text(f"why suspected: {why}"))
    console.print(Text(f"finding {printable(finding.finding_id)} by {printable(finding.producer)}", "dim"))
    sections = (
        ("Evidence, strongest first", _evidence(finding)),
        ("The sum", _sum(finding)),
        ("Bridges", _bridges(finding)),
        ("Destinations", _destinations(finding)),
        ("Proxyware indicators, which explain and do not convict", _indicators(finding)),
        ("Context", _context(finding)),
        ("Settings", _settings(finding)),
        ("Not observable", _not_observable(finding)),
        ("ATT&CK", _attack(finding)),
        ("Sources", _sources(finding)),
    )
    for name, table in sections:
        if table.row_count:
            console.print(Text(f"\n{name}", "bold"))
            console.print(table)


def _table(*columns: str, numeric: frozenset[str] = frozenset()) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in columns:
        table.add_column(name, justify="right" if name in numeric else "left", no_wrap=name in numeric, overflow="fold")
    return table


def _evidence(finding: Finding) -> Table:
    table = _table("log LR", "factor", "evidence", numeric=frozenset({"log LR", "factor"}))
    origins = {use.name: f"{use.name} = {use.value} ({use.origin})" for use in finding.settings}
    for item in sorted(finding.evidence, key=lambda item: -abs(item.log_likelihood_ratio)):
        lines = Text("\n").join(_evidence_lines(item, origins))
        table.add_row(signed(item.log_likelihood_ratio), factor(item.log_likelihood_ratio), lines)
    return table


def _evidence_lines(item: Evidence, origins: dict[str, str]) -> Iterator[Text]:
    yield Text(printable(item.statement), "bold")
    value = amount(item.value, item.unit)
    yield Text(f"{printable(item.kind)}, {printable(item.name)}{f': {value}' if value else ''}")
    if item.null:
        yield Text(f"judged against: {printable(item.null)}", "dim")
    if item.settings:
        yield Text(f"settings: {printable('; '.join(origins.get(name, name) for name in item.settings))}", "dim")
    if item.log_sources:
        yield Text(f"log sources: {printable(', '.join(item.log_sources))}", "dim")
    if item.records:
        more = item.record_count - len(item.records)
        rest = f" and {more:,} more" if more > 0 else ""
        yield Text(f"records: {', '.join(dict.fromkeys(map(where, item.records)))}{rest}", "dim")


def _sum(finding: Finding) -> Table:
    table = _table("step", "log odds", "odds", numeric=frozenset({"log odds", "odds"}))
    running = prior_log_odds(finding)
    table.add_row("prior: before any evidence", signed(running), f"{odds(running):.3g}")
    for item in finding.evidence:
        running += item.log_likelihood_ratio
        name = f"{signed(item.log_likelihood_ratio)}  {printable(item.kind)}, {printable(item.name)}"
        table.add_row(Text(name), signed(running), f"{odds(running):.3g}")
    table.add_section()
    table.add_row("score", signed(finding.score), f"{odds(finding.score):.3g}")
    plain = 1 / (1 + odds(-finding.score))
    calibrated = "" if abs(plain - finding.probability) < 0.001 else f", calibrated from {percent(plain)}"
    table.add_row(f"probability {percent(finding.probability)}{calibrated}", "", "")
    return table


def _bridges(finding: Finding) -> Table:
    numeric = frozenset({"lag s", "up", "down", "log LR"})
    table = _table("client leg", "target leg", "lag s", "up", "down", "log LR", numeric=numeric)
    shown = strongest_bridges(finding, SHOWN_BRIDGES)
    told: set[tuple[str, int]] = set()
    for bridge in shown:
        legs = (finding.client_legs[bridge.client], finding.target_legs[bridge.target])
        cells = [_leg(leg, repeated=(leg.record.source, leg.record.position) in told) for leg in legs]
        told.update((leg.record.source, leg.record.position) for leg in legs)
        ratios = (_ratio(bridge.upstream_ratio), _ratio(bridge.downstream_ratio))
        table.add_row(*cells, f"{bridge.lag_s:.3f}", *ratios, signed(bridge.log_likelihood_ratio))
    if finding.bridges > len(shown):
        held = len(strongest_bridges(finding, len(finding.bridge_list))) - len(shown)
        listed = f"; {held:,} of them in explain --json" if held else ""
        table.add_row(Text(f"{plural(finding.bridges - len(shown), 'weaker bridge')} not shown{listed}", "dim"))
    return table


def _leg(leg: Leg, *, repeated: bool) -> Text:
    """A leg with its times, bytes and record; of one told before (a tunnel's link) the remote only."""
    name = f"{defang(leg.hostname)} " if leg.hostname else ""
    remote = f"{name}{endpoint(leg.address, leg.port)} {printable(leg.protocol)}"
    if repeated:
        return Text.assemble(remote, ("\nas above", "dim"))
    end = f" to {utc(leg.end):%H:%M:%S.%f}"[:-3] if leg.end else " on"
    clock = f"{utc(leg.start):%m-%d %H:%M:%S.%f}"[:-3] + end
    return Text.assemble(
        remote, (f"\n{clock}\n{size(leg.bytes_in)} in, {size(leg.bytes_out)} out\n{where(leg.record)}", "dim")
    )


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _destinations(finding: Finding) -> Table:
    """The destinations with the most sessions, those of lateral movement first."""
    numeric = frozenset({"sessions", "out", "in"})
    table = _table("destination", "autonomous systems", "sessions", "out", "in", numeric=numeric)
    rows = sorted(finding.destinations, key=lambda row: (not row.lateral, -row.bridges, row.name))
    for row in rows[:SHOWN_DESTINATIONS]:
        name = defang(row.name) + (" (private, reached from outside)" if row.lateral else "")
        owners = systems(row.autonomous_systems, 3) or "not known"
        table.add_row(Text(name), Text(owners), f"{row.bridges:,}", size(row.bytes_out), size(row.bytes_in))
    more = finding.spread.destinations - min(len(rows), SHOWN_DESTINATIONS)
    if more > 0:
        table.add_row(Text(f"{plural(more, 'further destination')} not shown", "dim"))
    return table


def _indicators(finding: Finding) -> Table:
    table = _table("match")
    for match in finding.indicators:
        table.add_row(Text(indicator(match)))
    return table


def _context(finding: Finding) -> Table:
    table = _table("fact", "value", "known how")
    for fact in finding.context:
        known = printable(fact.observability.replace("_", " "))
        table.add_row(Text(printable(fact.statement)), Text(amount(fact.value, fact.unit) or "–"), Text(known))
    return table


def _settings(finding: Finding) -> Table:
    table = _table("setting", "value", "default", "set by", "of")
    for use in finding.settings:
        cells = (use.name, use.value, use.default, use.origin, "AN1702" if use.attack else "relaywatch")
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def _not_observable(finding: Finding) -> Table:
    table = _table("field", "why", "cost", "would show it")
    for gap in finding.not_observable:
        table.add_row(*(Text(printable(cell)) for cell in (gap.field, gap.reason, gap.cost, gap.remedy)))
    return table


def _attack(finding: Finding) -> Table:
    table = _table("object", "value")
    attack = finding.attack
    rows = [
        ("release", f"{attack.domain} {attack.release}"),
        ("technique", f"{attack.technique_id} {attack.technique_name}, {', '.join(attack.tactics)}"),
        ("strategy", attack.strategy_id),
        ("analytic", f"{attack.analytic_id} {attack.analytic_version}, modified {attack.analytic_modified}"),
        ("analytic object", attack.analytic_stix_id),
        ("SHA-256", attack.analytic_digest),
    ]
    for row in attack.log_sources:
        state = "satisfied" if row.satisfied else "not satisfied"
        rows.append((row.data_component, f"{state}: {row.data_component_name}, {row.name}: {row.channel}"))
    for name, value in rows:
        table.add_row(Text(printable(name)), Text(printable(value)))
    return table


def _sources(finding: Finding) -> Table:
    table = _table("source", "format")
    for source in finding.sources:
        table.add_row(Text(printable(source.source)), Text(printable(source.format)))
    return table
