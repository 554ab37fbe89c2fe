"""One evaluation of everything on labelled apps."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from relaywatch.detection.columns import Flags, Floats
from relaywatch.evaluation.ablation import AblationRow, evaluate_ablation
from relaywatch.evaluation.app_traffic import read_columns, read_traffic
from relaywatch.evaluation.bridges import CURVE_RATES, BridgeRow
from relaywatch.evaluation.comparison import RuleRow, evaluate_comparison
from relaywatch.evaluation.flow_level import FlowRow
from relaywatch.evaluation.labels import LabelledApp, read_labels
from relaywatch.evaluation.reliability import ReliabilityResult, evaluate_reliability
from relaywatch.evaluation.verdicts import AppResult, evaluate_apps, found_in
from relaywatch.evaluation.views import ViewRow, evaluate_views
from relaywatch.model.errors import SourceError


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All sections.

    apps, relays: names of the judged apps and whether they relay; without_flows: names of the others; curves: scores of
    the judged apps by rule; pair_curves: true positive rates of pairs by rule, at the false positive rates pair_rates.
    """

    labs: list[str]
    apps: list[str]
    without_flows: list[str]
    relays: Flags
    held_out: AppResult
    shipped: AppResult
    views: list[ViewRow]
    rules: list[RuleRow]
    pairs: list[BridgeRow]
    totals: list[BridgeRow]
    pairs_of_scenarios: list[BridgeRow]
    pairs_of_rules: list[BridgeRow]
    flows: list[FlowRow]
    ablation: list[AblationRow]
    reliability: ReliabilityResult
    curves: dict[str, Floats]
    pair_rates: Floats
    pair_curves: dict[str, Floats]


def evaluate(labs: Sequence[Path], progress: Callable[[str], None]) -> Evaluation:
    """Evaluate on all labelled apps of the labs.

    Raises SourceError where a trace cannot be read, and where there are not relays and benign apps of two families
    each: one of either is held out in turn.
    """
    labelled = read_labels(labs)
    seconds = {app.name: observed_seconds(app) for app in labelled}
    for app in labelled:
        progress(f"reading {app.name}")
        read_traffic(app)
    columns = sorted(read_columns(labelled), key=lambda own: own.app.name)
    apps = [own.app for own in columns]
    _require_families(apps, labs)
    progress("hunting with the tables that ship")
    findings = found_in([app.folder for app in apps])
    compared = evaluate_comparison(columns, progress)
    progress("hunting through poorer telemetry")
    views = evaluate_views(apps)
    progress("hunting merged programs")
    return Evaluation(
        labs=[lab.name for lab in labs],
        apps=[app.name for app in apps],
        without_flows=sorted({app.name for app in labelled} - {app.name for app in apps}),
        relays=compared.relays,
        held_out=evaluate_apps(apps, compared.held_out, seconds),
        shipped=evaluate_apps(apps, findings, seconds),
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
        pair_rates=CURVE_RATES,
        pair_curves=compared.pair_curves,
    )


def _require_families(apps: Sequence[LabelledApp], labs: Sequence[Path]) -> None:
    for kind, relays in (("relays", True), ("benign apps", False)):
        families = {app.family for app in apps if app.relays is relays}
        if len(families) < 2:
            raise SourceError(
                ", ".join(str(lab) for lab in labs),
                f"{kind} of {len(families)} families; one is held out in turn, so two at least are needed.",
                remedy="Give more labs.",
            )


def observed_seconds(app: LabelledApp) -> float:
    """Time from the begin of a trace to its end, s. Raises SourceError where its context does not say."""
    path = app.folder / "context.json"
    try:
        context = json.loads(path.read_text(encoding="utf-8"))
        return float(context["trace_end"]) - float(context["trace_start"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(path, f"does not say trace_start and trace_end ({error!r}).") from error
