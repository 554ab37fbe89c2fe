"""One evaluation of everything on labelled apps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from relaywatch.detection.columns import Flags, Floats
from relaywatch.evaluation.ablation import AblationRow, evaluate_ablation
from relaywatch.evaluation.app_traffic import read_columns
from relaywatch.evaluation.bridges import BridgeRow
from relaywatch.evaluation.comparison import RuleRow, evaluate_comparison
from relaywatch.evaluation.flow_level import FlowRow
from relaywatch.evaluation.labels import LabelledApp, read_labels
from relaywatch.evaluation.reliability import ReliabilityResult, evaluate_reliability
from relaywatch.evaluation.verdicts import AppResult, evaluate_apps, evaluate_views, found_in
from relaywatch.model.errors import SourceError


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All sections. curves: scores of whole apps by rule, in the order of relays."""

    labs: list[str]
    held_out: AppResult
    shipped: AppResult
    views: dict[str, tuple[Counter[str], Counter[str]]]
    rules: list[RuleRow]
    pairs: list[BridgeRow]
    totals: list[BridgeRow]
    pairs_of_scenarios: list[BridgeRow]
    pairs_of_rules: list[BridgeRow]
    flows: list[FlowRow]
    ablation: list[AblationRow]
    reliability: ReliabilityResult
    curves: dict[str, Floats]
    relays: Flags


def evaluate(labs: Sequence[Path], progress: Callable[[str], None]) -> Evaluation:
    """Evaluate on all labelled apps of the labs. Raises SourceError where one cannot be read."""
    apps = read_labels(labs)
    if not all(len({app.family for app in apps if app.relays is relays}) > 1 for relays in (True, False)):
        remedy = "Give labs with two families of relays and two of ordinary programs at the least."
        raise SourceError(labs[0], "has too few labelled programs to hold any out.", remedy=remedy)
    seconds = {app.name: observed_seconds(app) for app in apps}
    progress("hunting with the tables that ship")
    findings = found_in([app.folder for app in apps])
    columns = sorted(read_columns(apps), key=lambda own: own.app.name)
    compared = evaluate_comparison(columns, progress)
    judged = [own.app for own in columns]
    progress("hunting through poorer telemetry")
    views = evaluate_views(apps)
    progress("hunting merged programs")
    return Evaluation(
        labs=[lab.name for lab in labs],
        held_out=evaluate_apps(judged, compared.held_out, seconds),
        shipped=evaluate_apps(judged, findings, seconds),
        views=views,
        rules=compared.rules,
        pairs=compared.pairs,
        totals=compared.pairs_of_totals,
        pairs_of_scenarios=compared.pairs_of_scenarios,
        pairs_of_rules=compared.pairs_of_rules,
        flows=compared.flows,
        ablation=evaluate_ablation(columns, findings),
        reliability=evaluate_reliability(apps, findings),
        curves=compared.curves,
        relays=compared.relays,
    )


def observed_seconds(app: LabelledApp) -> float:
    """Time from the begin of a trace to its end, s."""
    context = json.loads((app.folder / "context.json").read_text(encoding="utf-8"))
    return float(context["trace_end"]) - float(context["trace_start"])
