"""relaywatch and every baseline on the same apps and the same split: whole families of programs held out in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from relaywatch.detection.calibration import Tables
from relaywatch.detection.columns import Flags, Floats
from relaywatch.evaluation.app_traffic import AppColumns, read_traffic
from relaywatch.evaluation.baselines.flow_statistics import FlowStatistics, flow_statistics
from relaywatch.evaluation.baselines.random_forest import FlowForest, Sample, Target
from relaywatch.evaluation.baselines.registry import baselines
from relaywatch.evaluation.bridges import (
    RELAYED,
    UNLISTED,
    BridgeRow,
    FlowRow,
    ScoredApp,
    bridge_rows,
    flow_row,
    score_pairs,
    scored,
)
from relaywatch.evaluation.fitting import LabelledLegs, fit
from relaywatch.evaluation.labels import LabelledApp
from relaywatch.evaluation.metrics import Estimate, area_under_curve, recall_without_alarms
from relaywatch.evaluation.packets import read_packets
from relaywatch.evaluation.verdicts import found_in, scores_of
from relaywatch.model.finding import Finding, Verdict

OURS: Final = "relaywatch"
FLOW_THRESHOLD: Final = 0.5
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RuleRow:
    """One rule on whole apps.

    hindsight: recall above the highest benign score there is; recall, false_alarms: on the held-out families, with the
    highest benign score of the training ones as threshold; at_pairs: TPR of pairs at the first false positive rate.
    """

    rule: str
    area: Estimate
    hindsight: float
    recall: float
    false_alarms: int
    at_pairs: Estimate | None


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """held_out: findings of each app by tables fitted without its family; pairs, pairs_of_totals: relaywatch's own.

    curves: scores of whole apps by rule, in the order of relays.
    """

    rules: list[RuleRow]
    pairs: list[BridgeRow]
    pairs_of_totals: list[BridgeRow]
    flows: list[FlowRow]
    held_out: dict[str, Finding]
    curves: dict[str, Floats]
    relays: Flags


def families_of(apps: Sequence[LabelledApp]) -> list[str]:
    """What is held out together, by name."""
    return sorted({app.family for app in apps})


def evaluate_comparison(columns: Sequence[AppColumns], progress: Progress) -> ComparisonResult:
    """All rules on the same apps. Of relaywatch nothing is told that its own tables saw: they are fitted anew."""
    apps = [own.app for own in columns]
    tables = {family: tables_without(columns, family) for family in families_of(apps)}
    held_out: dict[str, Finding] = {}
    for family in families_of(apps):
        progress(f"hunting {family} with tables of all others")
        held_out |= found_in([app.folder for app in apps if app.family == family], tables[family])
    progress("scoring pairs")
    ours = [score_pairs(own, tables[own.app.family]) for own in columns]
    totals = [score_pairs(own.without_volumes, tables[own.app.family]) for own in columns]
    scores, _ = scores_of(held_out, apps)
    pair_rows = bridge_rows(ours)
    relays = [held_out[a.name].verdict is Verdict.RELAY if a.name in held_out else False for a in apps]
    curves = {OURS: scores}
    rules = [_by_verdict(apps, scores, np.array(relays), pair_rows[0].found[0])]
    rules += _baseline_rows(apps, curves, progress)
    forest_rows, forest_flows = _forest(apps, progress)
    return ComparisonResult(
        rules + forest_rows,
        pair_rows,
        bridge_rows(totals),
        [_own_flows(ours), *forest_flows],
        held_out,
        curves,
        np.array([app.relays for app in apps]),
    )


def tables_without(columns: Sequence[AppColumns], family: str) -> Tables:
    """Tables fitted on every relay that is not of the family."""
    return fit(
        LabelledLegs(own.app.program, own.flows, own.volumes, own.client_legs)
        for own in columns
        if own.app.relays and own.app.family != family
    )


def _by_verdict(apps: Sequence[LabelledApp], scores: Floats, relay: Flags, at_pairs: Estimate) -> RuleRow:
    """Relaywatch's row: its threshold is the verdict, not a score of the training families."""
    positive = np.array([app.relays for app in apps])
    return RuleRow(
        OURS,
        area_under_curve(scores, positive, [app.family for app in apps]),
        recall_without_alarms(scores, positive),
        float(relay[positive].mean()),
        int(relay[~positive].sum()),
        at_pairs,
    )


def _rule_row(rule: str, apps: Sequence[LabelledApp], scores: Floats, at_pairs: Estimate | None) -> RuleRow:
    positive, families = np.array([app.relays for app in apps]), np.array([app.family for app in apps])
    called = np.zeros(len(apps), np.bool_)
    for family in np.unique(families):
        training = ~positive & (families != family)
        called[families == family] = scores[families == family] > scores[training].max()
    return RuleRow(
        rule,
        area_under_curve(scores, positive, families.tolist()),
        recall_without_alarms(scores, positive),
        float(called[positive].mean()),
        int(called[~positive].sum()),
        at_pairs,
    )


def _baseline_rows(apps: Sequence[LabelledApp], curves: dict[str, Floats], progress: Progress) -> list[RuleRow]:
    """A row of each rule that needs no training; their scores go into `curves`."""
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
    curves |= {name: np.array(values) for name, values in scores.items()}
    curves |= {name: np.array(values) for name, values in scores.items()}
    return [
        _rule_row(name, apps, np.array(values), bridge_rows(pairs[name])[0].found[0] if name in pairs else None)
        for name, values in scores.items()
    ]


def _forest(apps: Sequence[LabelledApp], progress: Progress) -> tuple[list[RuleRow], list[FlowRow]]:
    """The forest of Huang et al.: trained on all other families and, where there are several labs, on other labs."""
    statistics: dict[str, FlowStatistics] = {}
    for app in apps:
        progress(f"packet statistics of {app.name}")
        flows = read_traffic(app).flows
        packets = read_packets(app.folder, flows)
        if packets is not None:
            statistics[app.name] = flow_statistics(flows, packets)
    known = [app for app in apps if app.name in statistics]
    if len({app.relays for app in known}) < 2:
        return [], []
    rules, flows_rows = [], []
    splits: dict[str, Callable[[LabelledApp], str]] = {"other families": lambda app: app.family}
    if len({app.lab for app in known}) > 1:
        splits["another lab"] = lambda app: app.lab
    for target in Target:
        for split, key in splits.items():
            name = f"random forest, {target.name.lower()} flows, trained on {split}"
            greatest, votes, truth = _voted(known, statistics, target, key)
            if greatest is not None:
                rules.append(_rule_row(name, known, greatest, None))
                flows_rows.append(flow_row(name, votes, truth, FLOW_THRESHOLD))
    return rules, flows_rows


def _voted(
    apps: Sequence[LabelledApp],
    statistics: Mapping[str, FlowStatistics],
    target: Target,
    key: Callable[[LabelledApp], str],
) -> tuple[Floats | None, Floats, Flags]:
    """Greatest vote of each app, and votes and labels of every flow, each by a model that saw nothing of its split."""
    greatest, votes, truth = np.zeros(len(apps)), [np.empty(0)], [np.empty(0, np.bool_)]
    for held in sorted({key(app) for app in apps}):
        samples = [Sample(statistics[app.name], app.roles) for app in apps if key(app) != held]
        model = FlowForest.fit(target, samples)
        for place, app in enumerate(apps):
            if key(app) == held:
                rows = model.flow_scores(statistics[app.name])
                greatest[place] = model.app_scores(statistics[app.name]).greatest
                votes.append(rows["score"].to_numpy())
                truth.append(
                    np.array([app.roles.get(flow) in target.value for flow in rows["flow_id"].to_list()], np.bool_)
                )
    return greatest, np.concatenate(votes), np.concatenate(truth)


def _own_flows(apps: Sequence[ScoredApp]) -> FlowRow:
    """Relaywatch on single flows: those of a pair that it believes more than not."""
    scores = np.array([score for app in apps for score in app.flows.values()])
    relayed = np.array([app.app.roles.get(flow) in RELAYED for app in apps for flow in app.flows])
    return flow_row(OURS, np.where(scores == UNLISTED, -np.inf, scores), relayed, float(np.log(FLOW_THRESHOLD)))
