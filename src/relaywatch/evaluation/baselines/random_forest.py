"""Huang et al.'s classifier: a random forest over the statistics of each flow's first packets.

Source: as flow_statistics.py; RandomForestClassifier(n_estimators=10), scikit-learn's defaults. One model for flows to
the gateway (here: the client legs), one for flows that are relayed (the target legs). It judges flows; an app's score
is the greatest or the mean of its flows' scores, and whoever compares should take the better of the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.ensemble import RandomForestClassifier

from relaywatch.evaluation.baselines.flow_statistics import FEATURES, FlowStatistics

TREES: Final = 10
SOURCE: Final = "Huang et al., arXiv 2404.10610: random forest of 10 trees over packet statistics"


class Target(Enum):
    """What a model recognises, by the roles of the label."""

    TUNNEL = frozenset({"relay_in", "relay_tunnel"})
    RELAYED = frozenset({"relay_out"})


class Sample(NamedTuple):
    """One labelled app for training. roles: flow_id to role (LabelledApp.roles); flows without one are of no relay."""

    statistics: FlowStatistics
    roles: Mapping[int, str]


class AppScores(NamedTuple):
    """An app's score in both ways, 0 to 1; 0 where none of its flows has a vector."""

    greatest: float
    mean: float


@dataclass(frozen=True, slots=True)
class FlowForest:
    """One trained model."""

    target: Target
    model: RandomForestClassifier | None

    @classmethod
    def fit(cls, target: Target, samples: Sequence[Sample], seed: int = 0) -> FlowForest:
        """Train on all flows of the samples; without flows of both kinds the model calls every flow 0."""
        vectors = np.concatenate([np.empty((0, FEATURES)), *(sample.statistics.vectors for sample in samples)])
        positive = np.concatenate([np.empty(0, np.bool_), *(_positive(target, sample) for sample in samples)])
        if positive.all() or not positive.any():
            return cls(target, None)
        return cls(target, RandomForestClassifier(n_estimators=TREES, random_state=seed).fit(vectors, positive))

    def flow_scores(self, statistics: FlowStatistics) -> pl.DataFrame:
        """flow_id i64, score f64: share of trees' votes, of the flows that have a vector."""
        return pl.DataFrame({"flow_id": statistics.flow_id, "score": self._votes(statistics.vectors)})

    def app_scores(self, statistics: FlowStatistics) -> AppScores:
        """Greatest and mean score of the app's flows."""
        votes = self._votes(statistics.vectors)
        return AppScores(float(votes.max()), float(votes.mean())) if len(votes) else AppScores(0.0, 0.0)

    def _votes(self, vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if self.model is None or not len(vectors):
            return np.zeros(len(vectors))
        votes: npt.NDArray[np.float64] = self.model.predict_proba(vectors)[:, 1]
        return votes


def _positive(target: Target, sample: Sample) -> npt.NDArray[np.bool_]:
    wanted = target.value
    return np.array([sample.roles.get(int(flow)) in wanted for flow in sample.statistics.flow_id], np.bool_)
