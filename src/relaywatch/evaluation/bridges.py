"""How well pairs of legs are told from all others: the level at which published work on stepping stones reports."""

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
from relaywatch.evaluation.metrics import threshold_at
from relaywatch.model.estimates import Estimate, proportion

FALSE_POSITIVE_RATES: Final = (1e-3, 1e-4, 1e-5)
CURVE_RATES: Final = np.logspace(-6.0, 0.0, 61)
"""False positive rates at which curves are told."""
UNLISTED: Final = -np.inf
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ScoredApp:
    """One app's pairs. true: score of each true pair; false: of every other pair that is listed; pairs: all there are.

    clients, targets: best score of each flow over the pairs that it is in as that leg, by flow_id.
    """

    app: LabelledApp
    true: Floats
    false: Floats
    pairs: int
    clients: dict[int, float]
    targets: dict[int, float]

    @property
    def flows(self) -> dict[int, float]:
        """Best score of each flow as either leg."""
        legs = self.clients.keys() | self.targets.keys()
        return {flow: max(self.clients.get(flow, UNLISTED), self.targets.get(flow, UNLISTED)) for flow in legs}


def scored(app: LabelledApp, flow_ids: Sequence[int], scores: dict[Pair, float]) -> ScoredApp:
    """An app's pairs by label. scores: of the pairs (client, target) that a rule lists."""
    number = len(flow_ids)
    clients: dict[int, float] = {}
    targets: dict[int, float] = {}
    for (client, target), score in scores.items():
        clients[client] = max(clients.get(client, UNLISTED), score)
        targets[target] = max(targets.get(target, UNLISTED), score)
    return ScoredApp(
        app,
        np.array([scores.get(pair, UNLISTED) for pair in sorted(app.pairs)]),
        np.array([score for pair, score in scores.items() if pair not in app.pairs]),
        number * (number - 1),
        clients,
        targets,
    )


def score_pairs(columns: AppColumns, tables: Tables) -> ScoredApp:
    """An app's pairs by relaywatch's own scores."""
    found = candidate_pairs(columns.flows, columns.volumes, 0, Settings(), tables)
    ids = columns.flow_ids
    named = zip(ids[found.client].tolist(), ids[found.target].tolist(), strict=True)
    return scored(columns.app, ids.tolist(), dict(zip(named, found.score.tolist(), strict=True)))


@dataclass(frozen=True, slots=True)
class BridgeRow:
    """Share of the true pairs of a group found at each of FALSE_POSITIVE_RATES, over all pairs of all apps.

    median: of each trace's share at the first of the rates, so that no trace with many pairs decides.
    """

    group: str
    pairs: int
    found: tuple[Estimate, ...]
    median: float


def bridge_rows(apps: Sequence[ScoredApp]) -> list[BridgeRow]:
    """Rows by topology and by hiding; thresholds are of all pairs of all apps, ordinary ones too."""
    relays = [app for app in apps if app.app.relays]
    hidden = [app for app in relays if app.app.hidden]
    open_ = [app for app in relays if not app.app.hidden]
    groups = [("all", relays), ("not hidden", open_), ("hidden", hidden)]
    groups += [
        (f"{name}, {topology}", [app for app in members if app.app.topology == topology])
        for name, members in (("not hidden", open_), ("hidden", hidden))
        for topology in ("accepted", "back_connect", "tunnel")
    ]
    thresholds = _thresholds(apps)
    return [_bridge_row(name, members, thresholds) for name, members in groups if any(len(m.true) for m in members)]


def scenario_rows(apps: Sequence[ScoredApp]) -> list[BridgeRow]:
    """Rows by scenario, with the thresholds of bridge_rows."""
    members: dict[str, list[ScoredApp]] = {}
    for app in apps:
        if app.app.relays:
            members.setdefault(app.app.scenario, []).append(app)
    thresholds = _thresholds(apps)
    return [_bridge_row(scenario, own, thresholds) for scenario, own in sorted(members.items())]


def rule_row(rule: str, apps: Sequence[ScoredApp]) -> BridgeRow:
    """One rule on all apps."""
    return _bridge_row(rule, [app for app in apps if app.app.relays], _thresholds(apps))


def bridge_curve(apps: Sequence[ScoredApp]) -> Floats:
    """Share of all true pairs found at each of CURVE_RATES; pairs that are not listed are found at none."""
    scores = np.concatenate([np.empty(0), *(app.true for app in apps)])
    ranked = np.sort(scores[np.isfinite(scores)])
    found = len(ranked) - np.searchsorted(ranked, _thresholds(apps, CURVE_RATES), "right")
    return np.asarray(found / max(len(scores), 1))


def _thresholds(apps: Sequence[ScoredApp], rates: Iterable[float] = FALSE_POSITIVE_RATES) -> list[float]:
    listed = np.concatenate([np.empty(0), *(app.false for app in apps)])
    negatives = sum(app.pairs - len(app.true) for app in apps)
    return [threshold_at(listed, negatives, rate) for rate in rates]


def _bridge_row(name: str, members: Sequence[ScoredApp], thresholds: Sequence[float]) -> BridgeRow:
    scores = np.concatenate([np.empty(0), *(app.true for app in members)])
    hits = [int(((scores > least) & np.isfinite(scores)).sum()) for least in thresholds]
    shares = [float(((app.true > thresholds[0]) & np.isfinite(app.true)).mean()) for app in members if len(app.true)]
    found = tuple(proportion(hit, len(scores)) for hit in hits)
    return BridgeRow(name, len(scores), found, float(np.median(shares)) if shares else float("nan"))
