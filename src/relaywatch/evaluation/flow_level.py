"""How well single flows are told apart, with thresholds of other families: what classifiers of flows report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from relaywatch.detection.columns import Flags, Floats
from relaywatch.evaluation.labels import LabelledApp
from relaywatch.model.estimates import Estimate, proportion

NOT_SCORED = -np.inf
"""Score of a flow that a rule says nothing of; no threshold is as low."""


class Sought(Enum):
    """Flows to be told from all others, by the roles of the label."""

    CLIENT_LEGS = frozenset({"relay_in", "relay_tunnel"})
    TARGET_LEGS = frozenset({"relay_out"})
    BOTH = frozenset({"relay_in", "relay_tunnel", "relay_out"})


@dataclass(frozen=True, slots=True)
class ScoredFlows:
    """One app's flows: what a rule scores them, higher for more suspect, and whether they are what is sought."""

    app: LabelledApp
    score: Floats
    sought: Flags


@dataclass(frozen=True, slots=True)
class FlowRow:
    """Single flows of all apps, each judged by a threshold that its own family had no part in."""

    rule: str
    sought: str
    flows: int
    precision: Estimate
    recall: Estimate
    f1: float
    false_positive_rate: Estimate


def scored_flows(app: LabelledApp, sought: Sought, scores: Mapping[int, float]) -> ScoredFlows:
    """Every flow of the app's label. scores: by flow_id; flows that are missing are not called, whatever they are."""
    listed = [scores.get(flow, NOT_SCORED) for flow in app.roles]
    return ScoredFlows(app, np.array(listed), np.array([role in sought.value for role in app.roles.values()], np.bool_))


def flow_row(rule: str, sought: Sought, apps: Sequence[ScoredFlows]) -> FlowRow:
    """A rule's row: in each family, flows are called that reach the threshold of best F1 on all other families."""
    called, truth = [], []
    for family in sorted({own.app.family for own in apps}):
        others = [own for own in apps if own.app.family != family]
        least = best_threshold(_joined([own.score for own in others]), _joined([own.sought for own in others]) > 0)
        called += [own.score >= least for own in apps if own.app.family == family]
        truth += [own.sought for own in apps if own.app.family == family]
    judged, sought_flows = _joined(called) > 0, _joined(truth) > 0
    hits, calls, wanted = (int(flags.sum()) for flags in (judged & sought_flows, judged, sought_flows))
    return FlowRow(
        rule,
        sought.name.lower().replace("_", " "),
        len(judged),
        proportion(hits, calls),
        proportion(hits, wanted),
        2.0 * hits / max(calls + wanted, 1),
        proportion(calls - hits, len(judged) - wanted),
    )


def best_threshold(score: Floats, sought: Flags) -> float:
    """The score from which on calling flows gives the best F1, the highest of several; infinity where none does."""
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    hits = np.cumsum(sought[order])
    f1 = 2.0 * hits / (np.arange(1, len(ranked) + 1) + max(int(sought.sum()), 1))
    # Flows with one score are called together, so only the last of each may be a threshold.
    last = np.append(ranked[1:] < ranked[:-1], True)[: len(ranked)] & np.isfinite(ranked)
    if not last.any() or f1[last].max() == 0.0:
        return np.inf
    return float(ranked[last][f1[last].argmax()])


def _joined(parts: Sequence[Floats | Flags]) -> Floats:
    return np.concatenate([np.empty(0), *parts])
