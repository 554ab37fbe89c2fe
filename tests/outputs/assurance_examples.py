"""Example coverage, drills and assurance reports: two groups over several days, as a site would have them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from findings_examples import HOSTILE, example, examples, hostile

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
    Gap,
    GapShare,
    PopulationCoverage,
    Provable,
    RowCoverage,
    Shares,
    SourceFeed,
    TrendPoint,
    WindowCoverage,
)
from relaywatch.model.finding import ExceptionUse, Topology, Verdict

FIRST = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
GAPS = [
    Gap(
        name="app",
        statement="the source sees packets or flows, not the app that made them",
        cost="the relay can be laid to the device only, so it is at most suspected",
        remedy="PCAPdroid or Android network logs of the same time",
    ),
    Gap(
        name="volumes",
        statement="the source gives totals per flow, not bytes per interval",
        cost="a tunnel that carries many sessions cannot be told from chance",
        remedy="a packet capture on the phone",
    ),
    Gap(
        name="pauses",
        statement="the sources that show connections watched the device for part of the window only",
        cost="what it did in between is open",
        remedy="run the same sources without pause",
    ),
    Gap(
        name="inbound",
        statement="the device's sources have shown no accepted session anywhere",
        cost="a relay that listens cannot be told from one that is not there",
        remedy="a sensor on the device's segment",
    ),
    Gap(
        name="interfaces",
        statement="nothing shows that all of the phone's traffic passed the sensors",
        cost="a relay over another interface would not be seen",
        remedy="dumpsys netstats of the same time",
    ),
]
REMEDIES = [
    "the same sources without pause",
    "Android network logs by policy (usage logs or intrusion logs)",
    "PCAPdroid capture on the phone",
]


def shares(yes: float, in_part: float = 0.0) -> Shares:
    return Shares(yes=yes, in_part=in_part, no=max(0.0, round(1.0 - yes - in_part, 9)))


def population(group: str, day: int, *, devices: int = 20, yes: float = 0.6, absent: float = 0.3) -> PopulationCoverage:
    least = shares(yes, 0.2) if yes <= 0.8 else shares(yes)
    return PopulationCoverage(
        group=group,
        start=FIRST + day * DAY,
        end=FIRST + (day + 1) * DAY,
        devices=devices,
        app_windows=devices * 30,
        watched=0.93,
        provable={"accepted": shares(0.9, 0.1), "back_connect": shares(0.85), "tunnel": least, "every": least},
        disprovable=shares(absent),
        gaps=[
            GapShare(name=name, share=share)
            for name, share in (("interfaces", 0.7), ("volumes", 0.4), ("app", 0.2), ("pauses", 0.003))
        ],
        remedies=REMEDIES,
    )


def spot(name: str, trend: list[float], *, cost: Figure | None = None) -> BlindSpot:
    return BlindSpot(
        name=name,
        statement=f"the source does not show {name}",
        share=sum(trend) / len(trend),
        lacking=trend[-1] / 2,
        trend=[TrendPoint(start=FIRST + day * DAY, share=share) for day, share in enumerate(trend)],
        remedy="dumpsys usagestats of the same day",
        cost=cost,
    )


def row(component: str, name: str, fed: float, *, table: str = "flows", analytic: bool = True) -> RowCoverage:
    return RowCoverage(
        data_component=component,
        component_name=name,
        row=f"what {name} of {table} is asked for",
        table=table,
        analytic=analytic,
        fed=fed,
        formats=["zeek", "pcapdroid-csv"] if fed else [],
        observed=["app", "bytes"] if fed else [],
        inferred=["hostname"] if fed else [],
        absent=[] if fed >= 1.0 else ["listener"],
        remedies=[] if fed >= 1.0 else ["bug report socket tables"],
    )


def coverage_report(days: int = 7) -> CoverageReport:
    """Two groups: a tablet fleet that is watched well, and phones that are not; 48 devices, 3 of them silent."""
    groups = [(ALL_DEVICES, 48, 0.58, 0.28), ("tablets", 28, 1.0, 1.0), ("phones Zürich", 20, 0.0, 0.0)]
    return CoverageReport(
        window_s=86_400.0,
        first=FIRST + timedelta(hours=6),
        last=FIRST + days * DAY - timedelta(minutes=20),
        devices=48,
        silent_devices=3,
        app_windows=48 * 30 * days,
        populations=[
            population(name, day, devices=devices, yes=yes, absent=absent)
            for name, devices, yes, absent in groups
            for day in range(days)
        ],
        rows=[
            row("DC0021", "OS API Execution", 0.0, table="signals"),
            row("DC0114", "Application Permission", 1.0, table="inventory"),
            row("DC0078", "Network Traffic Flow", 0.42),
            row("DC0085", "Network Traffic Content", 0.42),
            row("DC0085", "Network Traffic Content", 0.1, table="volumes"),
            row("DC0123", "Application State", 0.3, table="signals", analytic=False),
        ],
        blind_spots=[
            spot("app identity", [0.6, 0.5, 0.4, 0.35, 0.3, 0.2, 0.2], cost=figure(0.31, 0.22, 0.4)),
            spot("inbound sessions", [0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.8]),
            spot("names", [0.05] * 7),
            spot("bytes", [0.0] * 7, cost=figure(-0.01, -0.05, 0.03)),
        ],
        feeds=[
            SourceFeed(
                format="zeek",
                units=14,
                records=1_204_331,
                quarantined=2,
                devices=48,
                first=FIRST,
                last=FIRST + 7 * DAY,
                gaps=1,
                clock_error_s=0.001,
                sampled=False,
                fields={"bytes": "observed", "app": "absent"},
            ),
            SourceFeed(
                format="netflow",
                units=1,
                records=9_001,
                quarantined=0,
                devices=20,
                first=None,
                last=None,
                gaps=0,
                clock_error_s=None,
                sampled=True,
                fields={},
            ),
        ],
        gaps=GAPS,
        producer="relaywatch 0.1.0",
    )


def empty_coverage() -> CoverageReport:
    """Nothing but a name in an inventory."""
    return CoverageReport(
        window_s=86_400.0,
        first=None,
        last=None,
        devices=1,
        silent_devices=1,
        app_windows=0,
        populations=[],
        rows=[],
        blind_spots=[],
        feeds=[],
        gaps=[],
        producer="relaywatch 0.1.0",
    )


def window(package: str | None = "com.example.earnapp") -> WindowCoverage:
    return WindowCoverage(
        device="a54-0117",
        group="tablets",
        package=package,
        uid=None if package is None else 10_231,
        start=FIRST,
        end=FIRST + DAY,
        watched=0.98,
        flows=211,
        clock_error_s=0.001,
        formats=["zeek"],
        provable=Provable(accepted=Answer.YES, back_connect=Answer.IN_PART, tunnel=Answer.NO),
        disprovable=Answer.NO,
        missing=["volumes"],
        partial=["interfaces"],
        remedies=["PCAPdroid capture on the phone"],
    )


def figure(value: float | None, low: float = 0.0, high: float = 1.0, trials: float = 120) -> Figure:
    return Figure(value=value, low=low, high=high, trials=trials)


def drill_row(topology: str, where: str, provable: str, recall: float | None) -> DrillRow:
    known = recall is not None
    return DrillRow(
        topology=topology,
        population=where,
        provable=provable,
        played=120 if known else 0,
        relay=figure(recall, max(recall - 0.05, 0.0), min(recall + 0.02, 1.0)) if recall is not None else figure(None),
        flagged=figure(min(recall + 0.01, 1.0), recall, 1.0) if recall is not None else figure(None),
        seconds=312.4 if known else None,
        sessions=14.0 if known else None,
    )


def drill_report(*, tunnel: float = 0.81) -> DrillReport:
    """Five rows by topology, population and answer; the tunnel into tablets, provable, at the given recall."""
    return DrillReport(
        seed=7,
        episodes=480,
        plan={"sessions": "40", "clients": "3"},
        rows=[
            drill_row("accepted", "tablets", "yes", 0.99),
            drill_row("back_connect", "tablets", "yes", 0.97),
            drill_row("tunnel", "tablets", "yes", tunnel),
            drill_row("tunnel", "phones Zürich", "no", 0.0),
            drill_row("accepted", "phones Zürich", "in_part", None),
        ],
        evaded=[drill_row("tunnel", "padding", "yes", 0.55)],
        decoys=figure(0.0, 0.0, 0.021, 174),
        site_alarms=figure(0.0041, 0.0012, 0.0093, 9_800.0),
        site_relays=figure(0.0011, 0.0001, 0.0042, 9_800.0),
        app_days=9_800.0,
        costs={"app": figure(0.31, 0.22, 0.4), "volumes": figure(-0.02, -0.06, 0.01)},
        producer="relaywatch 0.1.0",
    )


def exceptions() -> list[ExceptionStatus]:
    made = FIRST + 10 * DAY
    named = (
        ("EX-12", "network team", ExceptionState.IN_FORCE, 190, 1),
        ("EX-3", "field service", ExceptionState.EXPIRING, 9, 0),
        ("EX-1", "Jürgen Łukasz", ExceptionState.EXPIRED, -30, 1),
    )
    return [
        ExceptionStatus(
            id=name,
            owner=owner,
            reason="Field file transfer through the office's gateway",
            expires=made + days * DAY,
            state=state,
            covers=covers,
        )
        for name, owner, state, days, covers in named
    ]


def assurance_report() -> AssuranceReport:
    """A site with a broken promise, every verdict, and an exception in every state."""
    lapsed = ExceptionUse(id="EX-1", owner="Jürgen Łukasz", reason="test", expires=FIRST - 20 * DAY, active=False)
    insufficient = example(Topology.TUNNEL, verdict=Verdict.INSUFFICIENT_TELEMETRY)
    insufficient = insufficient.model_copy(update={"finding_id": "0ddba11" * 4})
    again = example(Topology.BACK_CONNECT).model_copy(update={"exception": lapsed, "finding_id": "feedc0de" * 4})
    return AssuranceReport(
        coverage=coverage_report(),
        drill=drill_report(),
        findings=[*examples(), again, insufficient],
        exceptions=exceptions(),
        site="Übungsplatz Nord",
        made=FIRST + 10 * DAY,
        commands={
            "coverage": "relaywatch coverage telemetry/ --window 1d",
            "drill": "relaywatch drill telemetry/ --seed 7",
            "findings": "relaywatch hunt telemetry/ --exceptions exceptions.toml",
            "exceptions": "relaywatch exceptions exceptions.toml",
        },
    )


def bare_report() -> AssuranceReport:
    """No telemetry, no drill, no finding, no exception, no command."""
    return AssuranceReport(
        coverage=empty_coverage(), drill=None, findings=[], exceptions=[], site="", made=FIRST, commands={}
    )


RIGHT_TO_LEFT = "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u202e"
LONG = "unbroken" * 400


def hostile_report() -> AssuranceReport:
    """Every text that comes from telemetry or a site's files tries to break out of what shows it."""
    family = "\U0001f469\u200d\U0001f680"
    names = (HOSTILE, "=1+1", "+1", "-1", "@SUM(A1)", RIGHT_TO_LEFT, LONG, "\t=1", "]]>&lt;b>", family)
    coverage = coverage_report(days=1)
    plain = coverage.populations[0]
    populations = [plain.model_copy(update={"group": name, "remedies": list(names)}) for name in names]
    feeds = [coverage.feeds[0].model_copy(update={"format": name}) for name in names]
    rows = [coverage.rows[0].model_copy(update={"formats": list(names), "component_name": name}) for name in names]
    drill = drill_report()
    return assurance_report().model_copy(
        update={
            "coverage": coverage.model_copy(update={"populations": populations, "feeds": feeds, "rows": rows}),
            "drill": drill.model_copy(
                update={
                    "rows": [drill_row(name, name, "yes", 0.5) for name in names],
                    "plan": dict.fromkeys(names, HOSTILE),
                    "costs": dict.fromkeys(names, figure(0.1)),
                }
            ),
            "findings": [
                hostile().model_copy(update={"app": hostile().app.model_copy(update={"label": name})}) for name in names
            ],
            "exceptions": [
                entry.model_copy(update={"id": name, "owner": name, "reason": name})
                for entry in exceptions()
                for name in names
            ],
            "site": HOSTILE,
            "commands": dict.fromkeys(("coverage", "drill", "findings", "exceptions"), HOSTILE),
        }
    )
