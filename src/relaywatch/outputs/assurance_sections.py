"""What the assurance report says, section by section, as texts and cells that page and PDF draw. Knows neither.

All text has been through `printable`; lists are bounded, and each says how many rows only the JSON has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from relaywatch.model.assurance import (
    ALL_DEVICES,
    Answer,
    AssuranceReport,
    BlindSpot,
    CoverageReport,
    DrillReport,
    DrillRow,
    ExceptionState,
    ExceptionStatus,
    Figure,
    PopulationAlarms,
    RowCoverage,
    Shares,
    SourceFeed,
)
from relaywatch.model.finding import Finding, Verdict
from relaywatch.outputs.assurance_definitions import DEFINITIONS, command, how
from relaywatch.outputs.assurance_text import (
    NOT_OBSERVED,
    PROMISED_RECALL,
    SITE_ALARMS,
    TOPOLOGIES,
    GroupCoverage,
    answer_word,
    answers,
    app_days,
    broken,
    broken_promise,
    course,
    drill_outcome,
    figure,
    gap_words,
    grouped,
    rate,
    recall_cost,
    seconds,
    share,
    thinned,
    topology_word,
    whole_fleet,
    window_length,
    window_name,
)
from relaywatch.outputs.ranking import gravest_first, verdict_counts
from relaywatch.outputs.text import VERDICT_TEXT, app_name, duration, percent, period, plural, printable, utc

LEDE: Final = "Which relays the telemetry could have shown, which it could not, and what was found."
MOST_ROWS: Final = 100
MOST_POINTS: Final = 60
GOOD, WARN, BAD, SOFT = "good", "warn", "bad", "soft"
_ANSWER_TONES: Final[dict[str, str]] = {Answer.YES: GOOD, Answer.IN_PART: WARN, Answer.NO: BAD}
_OUTCOME_TONES: Final = {
    "promise kept": GOOD,
    "promise in doubt": WARN,
    "promise broken": BAD,
    "no promise": SOFT,
    "not played": WARN,
}
_STATE_TONES: Final = {ExceptionState.IN_FORCE: GOOD, ExceptionState.EXPIRING: WARN, ExceptionState.EXPIRED: BAD}
_VERDICT_TONES: Final = {
    Verdict.RELAY: BAD,
    Verdict.SUSPECTED_RELAY: WARN,
    Verdict.SANCTIONED_RELAY: GOOD,
    Verdict.INSUFFICIENT_TELEMETRY: SOFT,
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: its text, a second line, what it means for the reader, and a bar or a trend beside the text."""

    text: str
    sub: str = ""
    tone: str = ""
    shares: Shares | None = None
    trend: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """One column. definition: key of DEFINITIONS, of its numbers; weight: width beside the others in a PDF."""

    title: str
    definition: str = ""
    weight: float = 1.0
    numeric: bool = False


@dataclass(frozen=True, slots=True)
class SectionTable:
    """One table. left_out: rows that only the JSON has.

    detail: of second rank, so that a page may fold it; prose: read rather than compared, so that a narrow page may
    stack its cells.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    left_out: int = 0
    detail: bool = False
    prose: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """One section. parts: keys of the commands behind its numbers; alerts: sentences that must not be missed."""

    anchor: str
    title: str
    parts: Sequence[str] = ()
    sentences: Sequence[str] = ()
    alerts: Sequence[str] = ()
    tables: Sequence[SectionTable] = field(default_factory=tuple)


def sections(report: AssuranceReport) -> list[Section]:
    """Return the report's sections in the order in which they are read."""
    return [
        _summary(report),
        _watched(report.coverage),
        _unwatched(report.coverage),
        _blind(report.coverage.blind_spots, report.coverage.window_s),
        _drills(report.drill, report.coverage),
        _exceptions(report.exceptions),
        _findings(report.findings),
        _method(report),
    ]


def heading(report: AssuranceReport) -> str:
    """Return the report's title."""
    return f"Relay assurance: {printable(report.site, limit=120)}" if report.site else "Relay assurance"


def made(report: AssuranceReport) -> str:
    """Say when and by what the report was made."""
    return f"Made {utc(report.made):%Y-%m-%d %H:%M} UTC by {printable(report.coverage.producer, limit=80)}"


def _table(
    title: str, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], *, detail: bool = False
) -> SectionTable:
    return SectionTable(title, columns, rows[:MOST_ROWS], max(len(rows) - MOST_ROWS, 0), detail)


def _answer_cell(shares: Shares) -> Cell:
    return Cell(answers(shares), shares=shares)


# Summary


def _summary(report: AssuranceReport) -> Section:
    fleet = whole_fleet(report.coverage)
    sentences = [*_coverage_sentences(report, fleet), _verdict_sentence(report.findings)]
    sentences += [_drill_sentence(report.drill), _exception_sentence(report.exceptions)]
    if fleet is not None and fleet.remedies:
        sentences.append(f"What would help first: {printable(fleet.remedies[0])}.")
    rows = [
        [Cell(name or DEFINITIONS[key].name), Cell(value), Cell(how(report, key), tone=SOFT)]
        for key, name, value in _key_figures(report, fleet)
    ]
    columns = [Column("Figure", weight=2.2), Column("Value", weight=2.2), Column("How it was obtained", weight=6)]
    alerts = [] if report.drill is None else [broken_promise(row) for row in report.drill.rows if broken(row)]
    table = SectionTable("Key figures", columns, rows, prose=True)
    return Section("summary", "Summary", (), sentences, alerts[:MOST_ROWS], (table,))


def _coverage_sentences(report: AssuranceReport, fleet: GroupCoverage | None) -> Iterator[str]:
    coverage = report.coverage
    if fleet is None or coverage.first is None or coverage.last is None:
        yield f"Of {plural(coverage.devices, 'device')} no flow was seen, so nothing can be said of any app."
        return
    where = f" of {printable(report.site, limit=120)}" if report.site else ""
    yield (
        f"Looked at: {plural(coverage.devices, 'device')}{where}, {period(coverage.first, coverage.last)} "
        f"({duration(coverage.last - coverage.first)}); connections were watched {share(fleet.watched)} of the time."
    )
    every = fleet.provable["every"]
    yield (
        f"In the time that was watched, a relay of any kind that does not hide would have been shown in "
        f"{share(every.yes)} of app windows, in {share(every.in_part)} perhaps, in {share(every.no)} not."
    )
    yield f"Only in {share(fleet.disprovable.yes)} of app windows is finding nothing a proof that there was nothing."
    if fleet.disprovable.yes < 1.0:
        yield NOT_OBSERVED
    if coverage.silent_devices:
        yield f"Never seen, though in the inventory: {plural(coverage.silent_devices, 'device')}."


def _verdict_sentence(findings: Sequence[Finding]) -> str:
    counts = verdict_counts(findings)
    named = [
        plural(counts[Verdict.RELAY], "relay"),
        f"{counts[Verdict.SUSPECTED_RELAY]:,} suspected",
        f"{counts[Verdict.SANCTIONED_RELAY]:,} permitted by a documented exception",
    ]
    unjudged = counts[Verdict.INSUFFICIENT_TELEMETRY]
    more = f"; {unjudged:,} more could not be judged" if unjudged else ""
    return f"The hunt found {', '.join(named[:2])} and {named[2]}{more}." if findings else "The hunt found no relay."


def _drill_sentence(drill: DrillReport | None) -> str:
    if drill is None:
        return "No drill was run, so nobody has checked that relays said to be provable are found."
    outcomes = [drill_outcome(row) for row in drill.rows]
    kept, failed = outcomes.count("promise kept"), outcomes.count("promise broken")
    if not kept + failed:
        return "A drill was run, but not where coverage promises a proof."
    return (
        f"Drills checked {plural(kept + failed, 'promise')}, by kind of relay and group: {kept:,} kept, "
        f"{failed:,} broken (at least {share(PROMISED_RECALL)} of played relays must be found)."
    )


def _exception_sentence(exceptions: Sequence[ExceptionStatus]) -> str:
    if not exceptions:
        return "No app is permitted to relay: there is no documented exception."
    counts = {state: sum(entry.state is state for entry in exceptions) for state in ExceptionState}
    return (
        f"Documented exceptions: {counts[ExceptionState.IN_FORCE]:,} in force, "
        f"{counts[ExceptionState.EXPIRING]:,} ending soon, {counts[ExceptionState.EXPIRED]:,} expired."
    )


def _key_figures(report: AssuranceReport, fleet: GroupCoverage | None) -> Iterator[tuple[str, str, str]]:
    """Definition, name where it is not the definition's own, and value of each figure of the summary."""
    coverage, drill = report.coverage, report.drill
    yield "devices", "", f"{coverage.devices:,}"
    yield "silent", "", f"{coverage.silent_devices:,}"
    yield "app_windows", "", f"{coverage.app_windows:,} of {window_length(coverage)}"
    if fleet is not None:
        yield "watched", "", share(fleet.watched)
        yield "provable", "Provable, any kind", answers(fleet.provable["every"])
        yield "disprovable", "", answers(fleet.disprovable)
    if drill is not None:
        for row in _together(drill.rows)[:MOST_ROWS]:
            name = f"Recall, {topology_word(row.topology)}, provable {answer_word(row.provable)}"
            yield "recall", name, f"{figure(row.relay)}, {plural(row.played, 'relay')} played"
        yield "decoys", "Decoys called relay", figure(drill.decoys)
        yield "alarms", "", f"{rate(drill.site_alarms)} per app-day, of {app_days(drill.app_days)}"
    yield "exceptions", "", f"{len(report.exceptions):,}"
    counts = verdict_counts(report.findings)
    named = (f"{VERDICT_TEXT[verdict]} {count:,}" for verdict, count in counts.items() if count)
    yield "findings", "", ", ".join(named) or "none"


def _together(rows: Sequence[DrillRow]) -> Sequence[DrillRow]:
    """The rows of all devices, of which those of groups are parts."""
    return [row for row in rows if row.population == ALL_DEVICES] or rows


# What is watched


def _watched(coverage: CoverageReport) -> Section:
    groups = grouped(coverage.populations)
    fed = [row for row in coverage.rows if row.analytic]
    own = [row for row in coverage.rows if not row.analytic]
    tables = [
        _table("By group of devices", _GROUP_COLUMNS, [_group_row(group) for group in groups]),
        _table("By kind of relay", _KIND_COLUMNS, [_kind_row(group) for group in groups]),
        _table("Sources", _FEED_COLUMNS, [_feed_row(feed) for feed in coverage.feeds]),
        _table("Log-source rows of AN1702, and what fed them", _ROW_COLUMNS, [_fed_row(row) for row in fed]),
        _table("relaywatch's own extensions, which AN1702 does not ask for", _ROW_COLUMNS, [_fed_row(r) for r in own]),
    ]
    if len(coverage.populations) > len(groups):
        tables.append(_table("By window", _WINDOW_COLUMNS, list(_window_rows(coverage)), detail=True))
    sentences = [
        f"Windows are {window_length(coverage)} long, in UTC. Provable: would a relay have been shown? Disprovable: "
        "does no finding mean no relay?"
    ]
    return Section("watched", "What is watched", ("coverage",), sentences, (), [t for t in tables if t.rows])


_GROUP_COLUMNS: Final = (
    Column("Group", weight=2.4),
    Column("Devices", "devices", 1.1, numeric=True),
    Column("App windows", "app_windows", 1.2, numeric=True),
    Column("Watched", "watched", 1.2, numeric=True),
    Column("A relay of any kind provable", "provable", 3),
    Column("Disprovable", "disprovable", 3),
)


def _group_row(group: GroupCoverage) -> list[Cell]:
    return [
        Cell(printable(group.group), sub=plural(group.windows, "window")),
        Cell(f"{group.devices:,}"),
        Cell(f"{group.app_windows:,}"),
        Cell(share(group.watched)),
        _answer_cell(group.provable["every"]),
        _answer_cell(group.disprovable),
    ]


_KIND_COLUMNS: Final = (
    Column("Group", weight=2),
    Column("Accepted: clients connect to the device", "provable", 3),
    Column("Back-connect: the device dials out for each session", "provable", 3),
    Column("Tunnel: sessions share long-lived connections", "provable", 3),
)


def _kind_row(group: GroupCoverage) -> list[Cell]:
    return [Cell(printable(group.group)), *(_answer_cell(group.provable[name]) for name in TOPOLOGIES)]


_FEED_COLUMNS: Final = (
    Column("Format", weight=2),
    Column("Units", "units", 1, numeric=True),
    Column("Records", "records", 1.7, numeric=True),
    Column("Put aside", "records", 1.2, numeric=True),
    Column("Devices", "devices", 1.2, numeric=True),
    Column("From (UTC), for", "span", 2),
    Column("Clock error", "clock", 1.3, numeric=True),
    Column("Gaps", "blanks", 1, numeric=True),
    Column("Sampled", weight=1.2),
)


def _feed_row(feed: SourceFeed) -> list[Cell]:
    timed = Cell("–")
    if feed.first is not None and feed.last is not None:
        timed = Cell(f"{utc(feed.first):%Y-%m-%d %H:%M}", sub=duration(feed.last - feed.first))
    return [
        Cell(printable(feed.format)),
        Cell(f"{feed.units:,}"),
        Cell(f"{feed.records:,}"),
        Cell(f"{feed.quarantined:,}", tone=WARN if feed.quarantined else ""),
        Cell(f"{feed.devices:,}"),
        timed,
        Cell("not stated" if feed.clock_error_s is None else f"{feed.clock_error_s:g} s"),
        Cell(f"{feed.gaps:,}", tone=WARN if feed.gaps else ""),
        Cell("yes", tone=WARN) if feed.sampled else Cell("no"),
    ]


_ROW_COLUMNS: Final = (
    Column("Row", weight=4),
    Column("Fed", "fed", 0.9, numeric=True),
    Column("By", weight=1.5),
    Column("Observed", weight=1.6),
    Column("Inferred", weight=1.5),
    Column("Absent", weight=1.6),
)


def _fed_row(row: RowCoverage) -> list[Cell]:
    name = f"{printable(row.data_component)} {printable(row.component_name)} ({printable(row.table)})"
    lists = (row.formats, row.observed, row.inferred, row.absent)
    cells = [Cell(", ".join(map(printable, names)) or "–") for names in lists]
    tone = GOOD if row.fed >= 1.0 else WARN if row.fed > 0.0 else BAD
    return [Cell(name, sub=printable(row.row)), Cell(share(row.fed), tone=tone), *cells]


_WINDOW_COLUMNS: Final = (
    Column("Group", weight=2),
    Column("Window", weight=1.6),
    Column("Devices", "devices", 1.1, numeric=True),
    Column("App windows", "app_windows", 1.2, numeric=True),
    Column("Watched", "watched", 1.2, numeric=True),
    Column("Provable", "provable", 3),
    Column("Disprovable", "disprovable", 3),
)


def _window_rows(coverage: CoverageReport) -> Iterator[list[Cell]]:
    for row in coverage.populations:
        yield [
            Cell(printable(row.group)),
            Cell(window_name(row.start, coverage.window_s)),
            Cell(f"{row.devices:,}"),
            Cell(f"{row.app_windows:,}"),
            Cell(share(row.watched)),
            Cell(answers(row.provable["every"])),
            Cell(answers(row.disprovable)),
        ]


# What is not watched


def _unwatched(coverage: CoverageReport) -> Section:
    groups = [group for group in grouped(coverage.populations) if group.gaps]
    if not groups:
        nothing = "No gap holds back any answer." if coverage.populations else "Nothing was watched."
        return Section("unwatched", "What is not, and what it would take", ("coverage",), [nothing])
    sentences = [
        "Each gap keeps the answers of some app windows from being yes. The share is of the group's app windows; one "
        "window can have several gaps.",
        NOT_OBSERVED,
    ]
    gaps = [cells for group in groups for cells in _gap_rows(group, coverage)]
    sources = [
        [Cell(printable(group.group)), Cell(f"{place}."), Cell(printable(source))]
        for group in groups
        for place, source in enumerate(group.remedies, start=1)
    ]
    source_columns = (Column("Group", weight=2), Column("Order", weight=0.8), Column("Source", weight=7))
    tables = [
        _table("Gaps", _GAP_COLUMNS, gaps),
        _table("Sources that would turn most answers into yes, the cheapest first", source_columns, sources),
    ]
    return Section("unwatched", "What is not, and what it would take", ("coverage",), sentences, (), tables)


_GAP_COLUMNS: Final = (
    Column("Group", weight=1.6),
    Column("Gap", weight=3.4),
    Column("App windows held back", "gap", 1.2, numeric=True),
    Column("What that costs", weight=2.8),
    Column("What would show it", weight=3),
)


def _gap_rows(group: GroupCoverage, coverage: CoverageReport) -> Iterator[list[Cell]]:
    known = {gap.name: gap for gap in coverage.gaps}
    for held in group.gaps:
        gap = known.get(held.name)
        yield [
            Cell(printable(group.group)),
            Cell(gap_words(held.name, coverage.gaps)),
            Cell(share(held.share)),
            Cell(printable(gap.cost) if gap else "–"),
            Cell(printable(gap.remedy) if gap else "–"),
        ]


# Blind spots


def _blind(spots: Sequence[BlindSpot], window_s: float) -> Section:
    ordered = sorted(spots, key=lambda spot: -spot.share)
    columns = (
        Column("Not shown", weight=2.6),
        Column("In part or whole", "blind", 1.2, numeric=True),
        Column("In whole", "blind", 1.1, numeric=True),
        Column("Trend", "blind", 2),
        Column("Recall it costs", "cost", 1.9),
        Column("What would show it", weight=3),
    )
    length = duration(timedelta(seconds=window_s))
    sentences = [f"Fields that part of the fleet does not show, by share of device windows of {length}, largest first."]
    if ordered and not any(spot.cost for spot in ordered):
        sentences.append("What they cost is not known: no drill measured it.")
    if not ordered:
        sentences = ["No device was watched, so there is no register."]
    table = _table("Blind-spot register", columns, [_blind_row(spot) for spot in ordered])
    return Section("blind", "Blind spots and their trend", ("coverage", "drill"), sentences, (), [table] * bool(spots))


def _blind_row(spot: BlindSpot) -> list[Cell]:
    first, last = (spot.trend[0].share, spot.trend[-1].share) if spot.trend else (0.0, 0.0)
    tone = BAD if last - first >= 0.005 else GOOD if first - last >= 0.005 else ""
    shown = printable(spot.remedy) if spot.share > 0.0 else "–"
    return [
        Cell(printable(spot.name), sub=printable(spot.statement)),
        Cell(share(spot.share), tone=GOOD if spot.share == 0.0 else ""),
        Cell(share(spot.lacking)),
        Cell(
            course(spot.trend) or "one window",
            tone=tone,
            trend=thinned([point.share for point in spot.trend], MOST_POINTS) if len(spot.trend) > 1 else (),
        ),
        Cell(recall_cost(spot.cost)),
        Cell(shown),
    ]


# Drills


def _drills(drill: DrillReport | None, coverage: CoverageReport) -> Section:
    title = "Drills passed and failed"
    if drill is None:
        return Section("drills", title, ("drill",), [_drill_sentence(None)])
    plan = ", ".join(f"{printable(name)} {printable(value)}" for name, value in drill.plan.items())
    sentences = [
        f"Played into a copy of the site's own telemetry: {plural(drill.episodes, 'relay')}, "
        f"with seed {drill.seed}{f' ({plan})' if plan else ''}.",
        _drill_sentence(drill),
        f"Of decoys, the same traffic with nothing passed on, {figure(drill.decoys)} were called relay.",
        f"The site's own {app_days(drill.app_days)} gave {rate(drill.site_relays)} relay verdicts and "
        f"{rate(drill.site_alarms)} relay or suspected verdicts per app-day. {SITE_ALARMS}",
    ]
    tables = [_table("Relays played", _DRILL_COLUMNS, [_drill_row(row) for row in drill.rows])]
    if drill.evaded:
        evaded = [_drill_row(row)[:-1] for row in drill.evaded]
        name = "The same with evasion, of which coverage promises nothing"
        tables.append(_table(name, _EVASION_COLUMNS, evaded))
    if drill.alarms:
        tables.append(_table("The site's own alarms", _ALARM_COLUMNS, [_alarm_row(own) for own in drill.alarms]))
    if drill.costs:
        costs = [_cost_row(name, cost, coverage) for name, cost in drill.costs.items()]
        tables.append(_table("What gaps cost", _COST_COLUMNS, costs))
    alerts = [broken_promise(row) for row in drill.rows if broken(row)][:MOST_ROWS]
    return Section("drills", title, ("drill",), sentences, alerts, [table for table in tables if table.rows])


_DRILL_COLUMNS: Final = (
    Column("Kind of relay", weight=1.7),
    Column("Played into", weight=2),
    Column("Provable", "provable", 1.3),
    Column("Played", "played", 1.1, numeric=True),
    Column("Recall", "recall", 1.7, numeric=True),
    Column("Or suspected", "flagged", 1.7, numeric=True),
    Column("Decoys called relay", "decoys", 1.7, numeric=True),
    Column("Until the verdict", "time", 1.7),
    Column("Outcome", "recall", 1.5),
)


_ALARM_COLUMNS: Final = (
    Column("Devices", weight=2),
    Column("App-days", "alarms", 1.2, numeric=True),
    Column("Relays per app-day", "alarms", 2, numeric=True),
    Column("Or suspected, per app-day", "alarms", 2, numeric=True),
)


def _alarm_row(own: PopulationAlarms) -> list[Cell]:
    days = app_days(own.app_days).removesuffix(" app-days")
    return [Cell(printable(own.population)), Cell(days), Cell(rate(own.relays)), Cell(rate(own.alarms))]


_EVASION_COLUMNS: Final = (_DRILL_COLUMNS[0], Column("Evasion", weight=2), *_DRILL_COLUMNS[2:-1])
_COST_COLUMNS: Final = (
    Column("Gap", weight=3),
    Column("Recall it costs", "cost", 2),
    Column("Trials", "trials", numeric=True),
)


def _cost_row(name: str, cost: Figure, coverage: CoverageReport) -> list[Cell]:
    named = gap_words(name, coverage.gaps)
    return [Cell(named), Cell(recall_cost(cost)), Cell(f"{cost.trials:,.0f}")]


def _drill_row(row: DrillRow) -> list[Cell]:
    outcome = drill_outcome(row)
    sessions = "" if row.sessions is None else plural(round(row.sessions), "session")
    return [
        Cell(topology_word(row.topology)),
        Cell(printable(row.population)),
        Cell(answer_word(row.provable), tone=_ANSWER_TONES.get(row.provable, "")),
        Cell(f"{row.played:,}"),
        Cell(figure(row.relay)),
        Cell(figure(row.flagged)),
        Cell("–" if row.decoys is None else figure(row.decoys)),
        Cell(seconds(row.seconds), sub=sessions),
        Cell(outcome, tone=_OUTCOME_TONES[outcome]),
    ]


# Exceptions


def _exceptions(exceptions: Sequence[ExceptionStatus]) -> Section:
    order = (ExceptionState.EXPIRED, ExceptionState.EXPIRING, ExceptionState.IN_FORCE)
    ordered = sorted(exceptions, key=lambda entry: (order.index(entry.state), utc(entry.expires), entry.id))
    columns = (
        Column("Exception", weight=1.6),
        Column("State", "exceptions", 1.2),
        Column("Expires", "exceptions", 1.5),
        Column("Owner", weight=1.8),
        Column("Reason", weight=4),
        Column("Findings covered", "exceptions", 1.2, numeric=True),
    )
    rows = [
        [
            Cell(printable(entry.id)),
            Cell(answer_word(entry.state), tone=_STATE_TONES[entry.state]),
            Cell(f"{utc(entry.expires):%Y-%m-%d}"),
            Cell(printable(entry.owner)),
            Cell(printable(entry.reason)),
            Cell(f"{entry.covers:,}"),
        ]
        for entry in ordered
    ]
    tables = [_table("Documented exceptions", columns, rows)] if rows else []
    sentences = [_exception_sentence(exceptions)]
    if any(entry.state is ExceptionState.EXPIRED for entry in exceptions):
        sentences.append("An expired exception covers no episode that ended after its end; its owner is to be asked.")
    return Section("exceptions", "Exceptions in force and expiring", ("exceptions",), sentences, (), tables)


# Findings


def _findings(findings: Sequence[Finding]) -> Section:
    columns = (
        Column("App", weight=2.6),
        Column("Device", weight=2),
        Column("Verdict", "findings", 1.5),
        Column("Probability", "findings", 1.4, numeric=True),
        Column("Seen (UTC), for", "findings", 1.9),
        Column("Fate", weight=2.8),
    )
    rows = [_finding_row(finding) for finding in gravest_first(findings)]
    sentences = [_verdict_sentence(findings)]
    if findings:
        sentences.append("A sanctioned relay is a relay: the exception changes what is done about it, not what it is.")
    else:
        sentences.append("What that is worth, the share of app windows that are disprovable says.")
    tables = [_table("Findings, gravest first", columns, rows)] if rows else []
    return Section("findings", "Findings and their fate", ("findings",), sentences, (), tables)


def _finding_row(finding: Finding) -> list[Cell]:
    group = f"group {printable(finding.device.group)}" if finding.device.group else ""
    span = duration(finding.last_seen - finding.first_seen)
    return [
        Cell(app_name(finding), sub=f"id {printable(finding.finding_id[:8])}"),
        Cell(printable(finding.device.uid), sub=group),
        Cell(VERDICT_TEXT[finding.verdict], tone=_VERDICT_TONES[finding.verdict]),
        Cell(percent(finding.probability)),
        Cell(f"{utc(finding.first_seen):%Y-%m-%d %H:%M}", sub=span),
        Cell(fate(finding)),
    ]


def fate(finding: Finding) -> str:
    """Say what becomes of a finding: permitted by which exception, or open."""
    use = finding.exception
    if use is None:
        return "could not be judged" if finding.verdict is Verdict.INSUFFICIENT_TELEMETRY else "open"
    until = f"{utc(use.expires):%Y-%m-%d}"
    owner = printable(use.owner, limit=80)
    if finding.verdict is Verdict.SANCTIONED_RELAY:
        warning = f" {printable(use.warning)}" if use.warning else ""
        return f"permitted by {printable(use.id)} of {owner} until {until}.{warning}"
    return f"open: {printable(use.id)} of {owner} expired {until}"


# Method


def _method(report: AssuranceReport) -> Section:
    rows = [
        [Cell(f"{entry.number}"), Cell(entry.name), Cell(entry.meaning), Cell(command(report, entry.part))]
        for entry in DEFINITIONS.values()
    ]
    columns = (
        Column("No.", weight=0.6),
        Column("Number", weight=1.8),
        Column("Definition", weight=5),
        Column("Command", weight=3.6),
    )
    table = SectionTable("Definitions, by the number in a column's heading", columns, rows, prose=True)
    sentences = [
        "Every column of numbers has a number in brackets in its heading: its definition below, with the command that "
        "gives it. The same telemetry and settings give the same numbers.",
        "Shares are rounded to whole percent, and never to none or to all.",
    ]
    return Section("method", "How each number was obtained", (), sentences, (), (table,))


def left_out_note(table: SectionTable) -> str:
    """Say how many rows only the JSON has; empty where all are shown."""
    return f"{table.left_out:,} more in the JSON." if table.left_out else ""


def commands_note(section: Section, report: AssuranceReport) -> list[tuple[str, str]]:
    """Return each part behind a section's numbers with its command, those alone whose command is recorded."""
    return [(part, command(report, part)) for part in section.parts if report.commands.get(part)]
