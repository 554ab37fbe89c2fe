"""How well pairs of legs, and single flows, are told from all others: the level at which published work reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from relaywatch.detection.calibration import Tables
from relaywatch.detection.candidates import candidate_pairs
from relaywatch.detection.columns import Floats
from relaywatch.detection.settings import Settings
from relaywatch.evaluation.app_traffic import AppColumns
from relaywatch.evaluation.labels import LabelledApp
from relaywatch.evaluation.metrics import Estimate, proportion, threshold_at

FALSE_POSITIVE_RATES: Final = (1e-3, 1e-4, 1e-5)
UNLISTED: Final = -np.inf
RELAYED: Final = ("relay_in", "relay_tunnel", "relay_out")
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ScoredApp:
    """One app's pairs. true: score of each true pair; false: of every other pair that is listed; pairs: all there are.

    flows: best score of each flow over the pairs that it takes part in, by flow_id.
    """

    app: LabelledApp
    true: Floats
    false: Floats
    pairs: int
    flows: dict[int, float]


def scored(app: LabelledApp, flow_ids: Sequence[int], scores: dict[Pair, float]) -> ScoredApp:
    """An app's pairs by label. scores: of the pairs (client, target) that a rule lists."""
    number = len(flow_ids)
    best = dict.fromkeys(flow_ids, UNLISTED)
    for (client, target), score in scores.items():
        best[client], best[target] = max(best[client], score), max(best[target], score)
    return ScoredApp(
        app,
        np.array([scores.get(pair, UNLISTED) for pair in sorted(app.pairs)]),
        np.array([score for pair, score in scores.items() if pair not in app.pairs]),
        number * (number - 1),
        best,
    )


def score_pairs(columns: AppColumns, tables: Tables) -> ScoredApp:
    """An app's pairs by relaywatch's own scores."""
    found = candidate_pairs(columns.flows, columns.volumes, 0, Settings(), tables)
    ids = columns.flow_ids
    named = zip(ids[found.client].tolist(), ids[found.target].tolist(), strict=True)
    return scored(columns.app, ids.tolist(), dict(zip(named, found.score.tolist(), strict=True)))


@dataclass(frozen=True, slots=True)
class BridgeRow:
    """Share of the true pairs of a group found at each of FALSE_POSITIVE_RATES, over all pairs of all apps."""

    group: str
    pairs: int
    found: tuple[Estimate, ...]


def bridge_rows(apps: Iterable[ScoredApp]) -> list[BridgeRow]:
    """Rows by topology and by hiding; thresholds are of all pairs of all apps, ordinary ones too."""
    apps = list(apps)
    listed = np.concatenate([np.empty(0), *(app.false for app in apps)])
    negatives = sum(app.pairs - len(app.true) for app in apps)
    thresholds = [threshold_at(listed, negatives, rate) for rate in FALSE_POSITIVE_RATES]
    relays = [app for app in apps if app.app.relays]
    hidden = [app for app in relays if app.app.evasion or app.app.mixed]
    open_ = [app for app in relays if not (app.app.evasion or app.app.mixed)]
    groups = [("all", relays), ("not hidden", open_), ("evading or inside an app", hidden)]
    groups += [
        (f"not hidden, {topology}", [app for app in open_ if app.app.topology == topology])
        for topology in ("accepted", "back_connect", "tunnel")
    ]
    return [_bridge_row(name, members, thresholds) for name, members in groups if members]


def _bridge_row(name: str, members: Sequence[ScoredApp], thresholds: Sequence[float]) -> BridgeRow:
    scores = np.concatenate([app.true for app in members])
    hits = [int(((scores > least) & np.isfinite(scores)).sum()) for least in thresholds]
    return BridgeRow(name, len(scores), tuple(proportion(hit, len(scores)) for hit in hits))


@dataclass(frozen=True, slots=True)
class FlowRow:
    """Single flows at one threshold: relayed ones and links against all others."""

    rule: str
    precision: float
    recall: float
    f1: float
    false_positive_rate: float


def flow_row(rule: str, scores: Floats, relayed: np.ndarray[tuple[int], np.dtype[np.bool_]], least: float) -> FlowRow:
    """The row of a rule that calls flows relayed that score `least` or more."""
    called = scores >= least
    hits = int((called & relayed).sum())
    precision, recall = hits / max(int(called.sum()), 1), hits / max(int(relayed.sum()), 1)
    false = int((called & ~relayed).sum()) / max(int((~relayed).sum()), 1)
    return FlowRow(rule, precision, recall, 2 * precision * recall / max(precision + recall, 1e-12), false)
