"""relaywatch and every baseline on the same apps and the same split: whole families of programs held out in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from relaywatch.detection.columns import Flags, Floats
from relaywatch.evaluation.app_traffic import AppColumns, read_traffic
from relaywatch.evaluation.baselines.registry import baselines
from relaywatch.evaluation.bridges import (
    BridgeRow,
    ScoredApp,
    bridge_curve,
    bridge_rows,
    rule_row,
    scenario_rows,
    score_pairs,
    scored,
)
from relaywatch.evaluation.flow_level import FlowRow, Sought, flow_row, scored_flows
from relaywatch.evaluation.forest import ForestVotes, apps_statistics, forest_votes
from relaywatch.evaluation.holdout import evaluate_held_out
from relaywatch.evaluation.labels import LabelledApp
from relaywatch.evaluation.metrics import area_under_curve, recall_without_alarms
from relaywatch.evaluation.packets import read_packets
from relaywatch.evaluation.verdicts import scores_of
from relaywatch.model.estimates import Estimate, proportion
from relaywatch.model.finding import Finding, Verdict

OURS: Final = "relaywatch"
OURS_OF_TOTALS: Final = "relaywatch, totals only"
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RuleRow:
    """One rule on whole apps.

    hindsight: recall above the highest benign score there is; recall, of_open, of_hidden, false_alarms: on the held-out
    families, with the highest benign score of the training ones as threshold, over all relays, those that do not hide,
    and those that do (LabelledApp.hidden).
    """

    rule: str
    area: Estimate
    hindsight: float
    recall: Estimate
    of_open: Estimate
    of_hidden: Estimate
    false_alarms: int


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """All rules.

    held_out: findings of each app by tables fitted without its family; pairs, pairs_of_totals, pairs_of_scenarios:
    relaywatch's own; pairs_of_rules: the same pairs by every rule that tells any; pair_curves: true positive rates of
    these at CURVE_RATES; curves: scores of whole apps by rule, in the order of relays.
    """

    rules: list[RuleRow]
    pairs: list[BridgeRow]
    pairs_of_totals: list[BridgeRow]
    pairs_of_scenarios: list[BridgeRow]
    pairs_of_rules: list[BridgeRow]
    pair_curves: dict[str, Floats]
    flows: list[FlowRow]
    held_out: dict[str, Finding]
    curves: dict[str, Floats]
    relays: Flags


def evaluate_comparison(columns: Sequence[AppColumns], progress: Progress) -> ComparisonResult:
    """All rules on the same apps. Of relaywatch nothing is told that its own tables saw: they are fitted anew."""
    apps = [own.app for own in columns]
    held_out = evaluate_held_out(columns, progress)
    progress("scoring pairs")
    ours = [score_pairs(own, held_out.tables[own.app.family]) for own in columns]
    totals = [score_pairs(own.without_volumes, held_out.tables[own.app.family]) for own in columns]
    scores, relays = scores_of(held_out.findings, apps)
    verdicts = [held_out.findings[app.name].verdict if app.name in held_out.findings else None for app in apps]
    called = np.array([verdict is Verdict.RELAY for verdict in verdicts])
    simple, pairs = _simple_rules(apps, progress)
    known, votes = _forest(apps, progress)
    return ComparisonResult(
        rules=[
            rule_of_calls(OURS, apps, scores, called),
            *(rule_of_scores(name, apps, values) for name, values in simple.items()),
            *(_forest_rule(known, own) for own in votes),
        ],
        pairs=bridge_rows(ours),
        pairs_of_totals=bridge_rows(totals),
        pairs_of_scenarios=scenario_rows(ours),
        pairs_of_rules=[rule_row(OURS, ours), *(rule_row(name, listed) for name, listed in pairs.items())],
        pair_curves={name: bridge_curve(own) for name, own in ({OURS: ours, OURS_OF_TOTALS: totals} | pairs).items()},
        flows=[*_own_flows(ours), *(_forest_flows(known, own) for own in votes)],
        held_out=held_out.findings,
        curves={OURS: scores} | simple,
        relays=relays,
    )


def rule_of_calls(rule: str, apps: Sequence[LabelledApp], scores: Floats, called: Flags) -> RuleRow:
    """The row of a rule that says itself which apps it calls relays."""
    positive, hidden = np.array([app.relays for app in apps]), np.array([app.hidden for app in apps])

    def recall(of: Flags) -> Estimate:
        return proportion(int(called[of].sum()), int(of.sum()))

    return RuleRow(
        rule,
        area_under_curve(scores, positive, [app.family for app in apps]),
        recall_without_alarms(scores, positive),
        recall(positive),
        recall(positive & ~hidden),
        recall(positive & hidden),
        int(called[~positive].sum()),
    )


def rule_of_scores(rule: str, apps: Sequence[LabelledApp], scores: Floats) -> RuleRow:
    """The row of a rule that gives scores: each family's threshold is the highest benign score of all others."""
    positive, families = np.array([app.relays for app in apps]), np.array([app.family for app in apps])
    called = np.zeros(len(apps), np.bool_)
    for family in np.unique(families):
        training = ~positive & (families != family)
        called[families == family] = scores[families == family] > scores[training].max(initial=-np.inf)
    return rule_of_calls(rule, apps, scores, called)


def _simple_rules(
    apps: Sequence[LabelledApp], progress: Progress
) -> tuple[dict[str, Floats], dict[str, list[ScoredApp]]]:
    """Rules that need no training: scores of apps, and of pairs where a rule tells any, by rule."""
    scores: dict[str, list[float]] = {}
    pairs: dict[str, list[ScoredApp]] = {}
    for app in apps:
        progress(f"baselines on {app.name}")
        traffic = read_traffic(app)
        for rule in baselines(read_packets(app.folder, traffic.flows)):
            scores.setdefault(rule.name, []).append(rule.app_score(traffic))
            if rule.pair_scores is not None:
                rows = rule.pair_scores(traffic).iter_rows(named=True)
                listed = {(row["client"], row["target"]): row["score"] for row in rows}
                pairs.setdefault(rule.name, []).append(scored(app, traffic.flows["flow_id"].to_list(), listed))
    return {name: np.array(values) for name, values in scores.items()}, pairs


def _forest(apps: Sequence[LabelledApp], progress: Progress) -> tuple[list[LabelledApp], list[ForestVotes]]:
    """The apps that have packets, and the forest's votes on them."""
    statistics = apps_statistics(apps, progress)
    known = [app for app in apps if app.name in statistics]
    progress("training the random forest")
    return known, forest_votes(known, statistics) if known else []


def _forest_rule(apps: Sequence[LabelledApp], votes: ForestVotes) -> RuleRow:
    """The better, by AUC, of the greatest and the mean vote of an app's flows: the source judges flows, not apps."""
    rows = [
        rule_of_scores(f"{_forest_name(votes)}, {kind} vote", apps, values)
        for kind, values in (("greatest", votes.greatest), ("mean", votes.mean))
    ]
    return max(rows, key=lambda row: row.area.value)


def _forest_flows(apps: Sequence[LabelledApp], votes: ForestVotes) -> FlowRow:
    flows = [scored_flows(app, votes.sought, votes.flows[app.name]) for app in apps]
    return flow_row(f"random forest, trained on {votes.split}", votes.sought, flows)


def _forest_name(votes: ForestVotes) -> str:
    return f"random forest of {votes.sought.name.lower().replace('_', ' ')}, trained on {votes.split}"


def _own_flows(apps: Sequence[ScoredApp]) -> list[FlowRow]:
    """Relaywatch on single flows: each scores as its best pair."""
    scores = {
        Sought.CLIENT_LEGS: [app.clients for app in apps],
        Sought.TARGET_LEGS: [app.targets for app in apps],
        Sought.BOTH: [app.flows for app in apps],
    }
    return [
        flow_row(
            OURS, sought, [scored_flows(own.app, sought, listed) for own, listed in zip(apps, of_apps, strict=True)]
        )
        for sought, of_apps in scores.items()
    ]
