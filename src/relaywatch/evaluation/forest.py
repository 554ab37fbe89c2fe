"""The random forest of Huang et al. over labelled apps: votes on each flow by models that its split had no part in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from relaywatch.detection.columns import Floats
from relaywatch.evaluation.app_traffic import read_traffic
from relaywatch.evaluation.baselines.flow_statistics import FlowStatistics, flow_statistics
from relaywatch.evaluation.baselines.random_forest import FlowForest, Sample, Target
from relaywatch.evaluation.flow_level import Sought
from relaywatch.evaluation.labels import LabelledApp
from relaywatch.evaluation.packets import read_packets

TARGETS = {Sought.CLIENT_LEGS: Target.TUNNEL, Sought.TARGET_LEGS: Target.RELAYED}


@dataclass(frozen=True, slots=True)
class ForestVotes:
    """Votes of the models for one kind of flows under one split.

    flows: by app, each flow's vote by flow_id; flows without a vector have none. greatest, mean: of each app's flows.
    """

    split: str
    sought: Sought
    flows: dict[str, dict[int, float]]
    greatest: Floats
    mean: Floats


def apps_statistics(apps: Sequence[LabelledApp], progress: Callable[[str], None]) -> dict[str, FlowStatistics]:
    """Packet statistics of each app that has packets, by name."""
    statistics = {}
    for app in apps:
        progress(f"packet statistics of {app.name}")
        flows = read_traffic(app).flows
        packets = read_packets(app.folder, flows)
        if packets is not None:
            statistics[app.name] = flow_statistics(flows, packets)
    return statistics


def forest_votes(apps: Sequence[LabelledApp], statistics: Mapping[str, FlowStatistics]) -> list[ForestVotes]:
    """Votes on all apps, which have statistics: trained on other families and, of several labs, on other labs."""
    splits: dict[str, Callable[[LabelledApp], str]] = {"other families": lambda app: app.family}
    if len({app.lab for app in apps}) > 1:
        splits["another lab"] = lambda app: app.lab
    return [_votes(apps, statistics, sought, split, key) for sought in TARGETS for split, key in splits.items()]


def _votes(
    apps: Sequence[LabelledApp],
    statistics: Mapping[str, FlowStatistics],
    sought: Sought,
    split: str,
    key: Callable[[LabelledApp], str],
) -> ForestVotes:
    flows: dict[str, dict[int, float]] = {}
    for held in sorted({key(app) for app in apps}):
        samples = [Sample(statistics[app.name], app.roles) for app in apps if key(app) != held]
        model = FlowForest.fit(TARGETS[sought], samples)
        for app in apps:
            if key(app) == held:
                rows = model.flow_scores(statistics[app.name])
                flows[app.name] = dict(zip(rows["flow_id"].to_list(), rows["score"].to_list(), strict=True))
    votes = [list(flows[app.name].values()) or [0.0] for app in apps]
    return ForestVotes(
        split, sought, flows, np.array([max(own) for own in votes]), np.array([np.mean(v) for v in votes])
    )
