"""What a hunt says of labelled apps, by verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from relaywatch.detection.calibration import MEASURED, PRIOR_LOG_ODDS, Tables
from relaywatch.detection.columns import Flags, Floats
from relaywatch.detection.settings import Settings
from relaywatch.engines.local import Hunt, hunt
from relaywatch.evaluation.labels import LabelledApp
from relaywatch.evaluation.metrics import area_under_curve, recall_without_alarms
from relaywatch.governance.exceptions import Exceptions
from relaywatch.model.estimates import Estimate, proportion, rate
from relaywatch.model.finding import Finding, Verdict

DAY_S: Final = 86_400.0
ALARMS: Final = (Verdict.RELAY, Verdict.SUSPECTED_RELAY)
NOTHING: Final = "none"
Findings = Mapping[str, Finding]
"""The gravest finding of each app, by trace name."""


def found_in(paths: Sequence[Path], tables: Tables = MEASURED) -> dict[str, Finding]:
    """The gravest finding of each device in the paths, under default settings and without exceptions."""
    result = hunt(paths, Hunt(Settings(), Exceptions(()), datetime.now(UTC), tables=tables))
    return {finding.device.uid: finding for finding in reversed(result.findings)}


def verdict_of(findings: Findings, app: LabelledApp) -> str:
    """The verdict on an app, or NOTHING."""
    return findings[app.name].verdict.value if app.name in findings else NOTHING


def scores_of(findings: Findings, apps: Sequence[LabelledApp]) -> tuple[Floats, Flags]:
    """Score of each app's finding, of apps without one the lowest rank, and which apps relay."""
    scored = [findings[app.name].score if app.name in findings else -np.inf for app in apps]
    scores = np.array(scored)
    scores[np.isinf(scores)] = min([*scores[np.isfinite(scores)], PRIOR_LOG_ODDS]) - 1.0
    return scores, np.array([app.relays for app in apps])


@dataclass(frozen=True, slots=True)
class Row:
    """One group of relays: how many were called what, and how many with the right topology."""

    group: str
    apps: int
    verdicts: Counter[str]
    topology_right: int


@dataclass(frozen=True, slots=True)
class AppResult:
    """Figures of whole apps. app_days: observed time of the benign apps, in days; flagged: relay or suspected relay."""

    relays: int
    benign: int
    app_days: float
    recall_relay: Estimate
    recall_flagged: Estimate
    false_relay: Estimate
    false_flagged: Estimate
    false_relay_per_app_day: Estimate
    false_flagged_per_app_day: Estimate
    area: Estimate
    recall_without_alarms: float
    rows: list[Row]
    missed: list[str]
    false: list[str]


def evaluate_apps(apps: Sequence[LabelledApp], findings: Findings, seconds: Mapping[str, float]) -> AppResult:
    """Figures of whole apps. seconds: observed time of each app, by name."""
    relays, benign = [a for a in apps if a.relays], [a for a in apps if not a.relays]
    named = Counter((a.relays, verdict_of(findings, a)) for a in apps)
    relay, suspected = Verdict.RELAY.value, Verdict.SUSPECTED_RELAY.value
    days = sum(seconds[a.name] for a in benign) / DAY_S
    flagged = {kind: named[kind, relay] + named[kind, suspected] for kind in (True, False)}
    scores, positive = scores_of(findings, apps)
    return AppResult(
        relays=len(relays),
        benign=len(benign),
        app_days=days,
        recall_relay=proportion(named[True, relay], len(relays)),
        recall_flagged=proportion(flagged[True], len(relays)),
        false_relay=proportion(named[False, relay], len(benign)),
        false_flagged=proportion(flagged[False], len(benign)),
        false_relay_per_app_day=rate(named[False, relay], days),
        false_flagged_per_app_day=rate(flagged[False], days),
        area=area_under_curve(scores, positive, [a.family for a in apps]),
        recall_without_alarms=recall_without_alarms(scores, positive),
        rows=[_row(group, members, findings) for group, members in _groups(relays)],
        missed=[f"{a.scenario} ({a.name})" for a in relays if verdict_of(findings, a) not in ALARMS],
        false=[
            f"{verdict_of(findings, a)}: {a.scenario} ({a.name})" for a in benign if verdict_of(findings, a) in ALARMS
        ],
    )


def _groups(relays: Sequence[LabelledApp]) -> list[tuple[str, list[LabelledApp]]]:
    """Relays by lab, topology, way of hiding, and program; each kind of group covers all of them."""
    kinds: list[tuple[str, Callable[[LabelledApp], str]]] = [
        ("lab", lambda app: app.lab),
        ("topology", lambda app: app.topology),
        ("hidden", lambda app: "yes" if app.hidden else "no"),
        ("inside an app with traffic of its own", lambda app: "yes" if app.mixed else "no"),
        ("evasion", _evasion),
        ("program", lambda app: app.program),
    ]
    return [
        (f"{kind}: {value}", [app for app in relays if key(app) == value])
        for kind, key in kinds
        for value in sorted({key(app) for app in relays})
    ]


def _evasion(app: LabelledApp) -> str:
    """What hides the relay by its label, else by its scenario's name."""
    return app.evasion or (app.scenario if app.hidden and not app.mixed else "none")


def _row(group: str, members: Sequence[LabelledApp], findings: Findings) -> Row:
    right = sum(1 for app in members if app.name in findings and findings[app.name].topology == app.topology)
    return Row(group, len(members), Counter(verdict_of(findings, app) for app in members), right)
