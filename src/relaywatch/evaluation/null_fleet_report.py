"""What a hunt of the null fleet says: verdicts, the tail of the evidence against its bound, whose bouts are in it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from relaywatch.detection.settings import Settings
from relaywatch.evaluation.null_fleet import Fleet, plan_day
from relaywatch.evaluation.null_fleet_hunt import Finding, Hunted
from relaywatch.model.estimates import Estimate, rate
from relaywatch.model.finding import Verdict

LEVELS: Final = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
QUANTILES: Final = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
SHOWN: Final = 30
NO_FINDING: Final = Finding("", "", "", Counter(), Counter())
FEWEST_FLOWS: Final = 20
"""Flows from which an app-day counts as busy: with fewer, evidence can hardly arise."""


class Tail(NamedTuple):
    """App-days whose core log evidence is at least -ln(level): how many there are, and how many there may be."""

    level: float
    found: Estimate
    allowed: float


def tail(strongest: pl.Series) -> list[Tail]:
    """The tail of the evidence. strongest: natural log evidence of every app-day, before any cap."""
    counts = [(level, int((strongest >= -math.log(level)).sum())) for level in LEVELS]
    return [Tail(level, rate(count, 1.0), level * len(strongest)) for level, count in counts]


def strongest_of(days: pl.DataFrame) -> pl.Series:
    """The core log evidence of each app-day: the better of its two matchers, as a hunt has it."""
    return days.select(pl.max_horizontal("pairs", "links").alias("evidence"))["evidence"]


class Alarm(NamedTuple):
    """An app-day with evidence beyond the bar. programs: bouts by program; clients, targets: legs by program."""

    number: int
    verdict: str
    pairs: float
    links: float
    flows: int
    programs: Counter[str]
    clients: Counter[str]
    targets: Counter[str]
    topology: str
    statement: str


def alarms(hunted: Hunted, fleet: Fleet, programs: Sequence[str], least: float) -> list[Alarm]:
    """App-days whose core log evidence is at least `least`, or that have a finding; strongest first."""
    named = dict(zip(fleet.bouts.traces, programs, strict=True))
    days = hunted.days.with_columns(strongest_of(hunted.days))
    listed = []
    for row in days.filter((pl.col("evidence") >= least) | (pl.col("verdict") != "")).iter_rows(named=True):
        traces = fleet.bouts.frame["trace"].to_numpy()[plan_day(fleet, row["number"]).bout]
        finding = hunted.findings.get(row["number"], NO_FINDING)
        listed.append(
            Alarm(
                **{name: row[name] for name in ("number", "verdict", "pairs", "links", "flows")},
                programs=Counter(programs[trace] for trace in traces.tolist()),
                clients=Counter({named[trace]: count for trace, count in finding.clients.items()}),
                targets=Counter({named[trace]: count for trace, count in finding.targets.items()}),
                topology=finding.topology,
                statement=finding.statement,
            )
        )
    return sorted(listed, key=lambda alarm: -max(alarm.pairs, alarm.links))


def as_json(hunted: Hunted, fleet: Fleet, programs: Sequence[str]) -> dict[str, Any]:
    """Everything that `markdown` says, and every alarm in full."""
    strongest = strongest_of(hunted.days)
    return {
        "app_days": hunted.days.height,
        "seed": fleet.seed,
        "traces": dict(zip(fleet.bouts.traces, programs, strict=True)),
        "verdicts": dict(sorted(Counter(hunted.days["verdict"].to_list()).items())),
        "tail": [[each.level, *each.found, each.allowed] for each in tail(strongest)],
        "alarms": [each._asdict() for each in alarms(hunted, fleet, programs, -math.log(1e-3))],
    }


def markdown(hunted: Hunted, fleet: Fleet, programs: Sequence[str], apart: Sequence[str], settings: Settings) -> str:
    """The report as Markdown. programs: name of each trace; apart: beginnings of names that are also left out once."""
    bar = -math.log(settings.false_alarms_per_app_day)
    listed = alarms(hunted, fleet, programs, bar)
    return "\n\n".join(
        [
            _size(hunted.days, fleet),
            _volumes(hunted.days),
            _verdicts(hunted.days, settings),
            _tails(hunted.days),
            *_without(hunted.days, programs, apart, settings),
            _blame(listed),
            _listing(listed),
        ]
    )


def _size(days: pl.DataFrame, fleet: Fleet) -> str:
    flows = days["flows"].to_numpy()
    return (
        f"{days.height:,} app-days (seed {fleet.seed}) of {fleet.bouts.frame.height} bouts of "
        f"{len(fleet.bouts.traces)} benign traces; {flows.sum():,} flows (median {np.median(flows):.0f}, mean "
        f"{flows.mean():.1f} an app-day), {int(days['volumes'].sum()):,} volumes; "
        f"{(flows >= FEWEST_FLOWS).sum():,} app-days with {FEWEST_FLOWS} flows or more."
    )


def _volumes(days: pl.DataFrame) -> str:
    head = "| bytes an app-day, quantile | " + " | ".join(f"{q:g}" for q in QUANTILES) + " |"
    rows = [head, "|---|" + "---|" * len(QUANTILES)]
    for name, column in (("real uid-days", "wanted"), ("the fleet", "bytes")):
        values = np.quantile(days[column].to_numpy(), QUANTILES)
        rows.append(f"| {name} | " + " | ".join(f"{value:,.0f}" for value in values) + " |")
    return "\n".join(rows)


def _verdicts(days: pl.DataFrame, settings: Settings) -> str:
    rows = ["| verdict | app-days | per app-day | 95 % interval |", "|---|---|---|---|"]
    for verdict in Verdict:
        count = int((days["verdict"] == verdict.value).sum())
        a_day = rate(count, days.height)
        rows.append(f"| {verdict.value} | {count} | {a_day.value:.2g} | {a_day.low:.2g} to {a_day.high:.2g} |")
    return "\n".join([*rows, "", f"Configured: FalseAlarmsPerAppDay {settings.false_alarms_per_app_day:g}."])


def _tails(days: pl.DataFrame) -> str:
    rows = ["| a | app-days with log evidence of -ln a or more | 95 % interval | allowed |", "|---|---|---|---|"]
    for level, found, allowed in tail(strongest_of(days)):
        rows.append(f"| {level:g} | {found.value:.0f} | {found.low:.1f} to {found.high:.1f} | {allowed:g} |")
    return "\n".join(rows)


def _without(days: pl.DataFrame, programs: Sequence[str], apart: Sequence[str], settings: Settings) -> list[str]:
    """The same two tables without app-days that draw from programs whose names begin as one of `apart`."""
    numbers = [trace for trace, name in enumerate(programs) if name.startswith(tuple(apart))]
    if not numbers:
        return []
    left = days.filter(pl.col("traces").list.set_intersection(pl.lit(numbers)).list.len() == 0)
    head = (
        f"Without app-days that draw from {', '.join(programs[trace] for trace in numbers)}, {left.height:,} app-days:"
    )
    return [head, _verdicts(left, settings), _tails(left)] if left.height else [head]


def _blame(listed: Sequence[Alarm]) -> str:
    """Which programs' flows are the client legs and target legs of what was found."""
    pairs = Counter(
        (alarm.verdict, _most(alarm.clients), _most(alarm.targets), "pairs" if alarm.pairs > alarm.links else "links")
        for alarm in listed
        if alarm.verdict
    )
    rows = ["| verdict | client legs mostly of | target legs mostly of | by | app-days |", "|---|---|---|---|---|"]
    rows += [f"| {' | '.join(key)} | {count} |" for key, count in pairs.most_common()]
    return "\n".join(rows)


def _most(programs: Counter[str]) -> str:
    return programs.most_common(1)[0][0] if programs else ""


def _listing(listed: Sequence[Alarm]) -> str:
    rows = [
        "| app-day | verdict | pairs | links | flows | bouts by program | what was said |",
        "|---|---|---|---|---|---|---|",
    ]
    for alarm in listed[:SHOWN]:
        programs = ", ".join(f"{count} {name}" for name, count in alarm.programs.most_common())
        rows.append(
            f"| {alarm.number} | {alarm.verdict or 'none'} | {alarm.pairs:.1f} | {alarm.links:.1f} | {alarm.flows} "
            f"| {programs} | {alarm.statement} |"
        )
    return "\n".join([f"The {min(SHOWN, len(listed))} strongest of {len(listed)}:", "", *rows])
