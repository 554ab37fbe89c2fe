"""What a hunt of the null fleet says: verdicts, the tail of the evidence against its bound, whose bouts are in it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
from scipy.stats import chi2

from relaywatch.detection.settings import Settings
from relaywatch.evaluation.null_fleet import Fleet, plan_day
from relaywatch.evaluation.null_fleet_hunt import Finding, Hunted
from relaywatch.model.finding import Verdict

RATES: Final = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
QUANTILES: Final = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
SURE: Final = 0.95
SHOWN: Final = 30
NO_FINDING: Final = Finding("", "", "", Counter(), Counter())
FEWEST_FLOWS: Final = 20
"""Flows from which an app-day counts as busy: with fewer, evidence can hardly arise."""


class Interval(NamedTuple):
    """A count's mean lies between these."""

    low: float
    high: float


def poisson_interval(count: int) -> Interval:
    """Exact interval of the mean of a Poisson count, for SURE. Source: Garwood, Biometrika 28 (1936)."""
    outside = (1.0 - SURE) / 2.0
    low = float(chi2.ppf(outside, 2 * count)) / 2.0 if count else 0.0
    return Interval(low, float(chi2.ppf(1.0 - outside, 2 * count + 2)) / 2.0)


class Tail(NamedTuple):
    """App-days whose core log evidence is at least -ln(rate), beside how many there may be."""

    rate: float
    found: int
    allowed: float
    interval: Interval


def tail(strongest: pl.Series) -> list[Tail]:
    """The tail of the evidence. strongest: natural log evidence of every app-day, before any cap."""
    counts = [(rate, int((strongest >= -math.log(rate)).sum())) for rate in RATES]
    return [Tail(rate, count, rate * len(strongest), poisson_interval(count)) for rate, count in counts]


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
        "tail": [each._asdict() | {"interval": list(each.interval)} for each in tail(strongest)],
        "alarms": [each._asdict() for each in alarms(hunted, fleet, programs, -math.log(1e-3))],
    }


def markdown(hunted: Hunted, fleet: Fleet, programs: Sequence[str], settings: Settings) -> str:
    """The report as Markdown."""
    bar = -math.log(settings.false_alarms_per_app_day)
    listed = alarms(hunted, fleet, programs, bar)
    return "\n\n".join(
        [
            _size(hunted.days, fleet),
            _volumes(hunted.days),
            _verdicts(hunted.days, settings),
            _tails(hunted.days),
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
        low, high = poisson_interval(count)
        shown = f"{low / days.height:.2g} to {high / days.height:.2g}"
        rows.append(f"| {verdict.value} | {count} | {count / days.height:.2g} | {shown} |")
    return "\n".join([*rows, "", f"Configured: FalseAlarmsPerAppDay {settings.false_alarms_per_app_day:g}."])


def _tails(days: pl.DataFrame) -> str:
    rows = ["| a | app-days with log evidence of -ln a or more | 95 % interval | allowed |", "|---|---|---|---|"]
    for rate, count, allowed, (low, high) in tail(strongest_of(days)):
        rows.append(f"| {rate:g} | {count} | {low:.1f} to {high:.1f} | {allowed:g} |")
    return "\n".join(rows)


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
