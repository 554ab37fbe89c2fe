"""What each kind of evidence adds: the figures without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from relaywatch.detection.bridging import score_bridging
from relaywatch.detection.calibration import FEWEST_BRIDGES, MEASURED
from relaywatch.detection.columns import Flags, Floats
from relaywatch.detection.settings import Settings
from relaywatch.detection.tunnelling import score_tunnelling
from relaywatch.evaluation.app_traffic import AppColumns
from relaywatch.evaluation.metrics import recall_without_alarms
from relaywatch.evaluation.verdicts import Findings, scores_of


@dataclass(frozen=True, slots=True)
class AblationRow:
    """Relays and benign apps at or beyond the bar, and recall above every benign app, without one kind of evidence."""

    left_out: str
    relays: int
    benign: int
    hindsight: float


def evaluate_ablation(columns: Sequence[AppColumns], findings: Findings) -> list[AblationRow]:
    """Core evidence with one matcher at a time at the bar; then the sum of a finding without one kind at even odds."""
    settings = Settings()
    uplink, bar = float(settings.uplink_bytes_threshold), -np.log(settings.false_alarms_per_app_day)
    positive = np.array([own.app.relays for own in columns])
    pairs, links = np.zeros(len(columns)), np.zeros(len(columns))
    for k, own in enumerate(columns):
        pairs[k] = score_bridging(own.flows, settings.time_window_s, FEWEST_BRIDGES, uplink, MEASURED)[0]
        links[k] = score_tunnelling(own.flows, own.volumes, FEWEST_BRIDGES, uplink, MEASURED)[0]
    rows = [
        _row("nothing (core evidence alone)", np.maximum(pairs, links), positive, bar),
        _row("accounts of links (pairs alone)", pairs, positive, bar),
        _row("pairs (accounts of links alone)", links, positive, bar),
    ]
    apps = [own.app for own in columns]
    kinds = sorted({item.kind for finding in findings.values() for item in finding.evidence})
    scores, _ = scores_of(findings, apps)
    rows.append(_row("nothing (sum of all evidence)", scores, positive, 0.0))
    for kind in kinds:
        added = np.array([_added(findings, app.name, kind) for app in apps])
        if kind not in ("bridging", "tunnelling"):
            rows += [_row(kind, scores - added, positive, 0.0)]
    return rows


def _added(findings: Findings, name: str, kind: str) -> float:
    items = findings[name].evidence if name in findings else []
    return sum(item.log_likelihood_ratio for item in items if item.kind == kind)


def _row(left_out: str, scores: Floats, positive: Flags, bar: float) -> AblationRow:
    beyond = scores >= bar
    return AblationRow(
        left_out, int(beyond[positive].sum()), int(beyond[~positive].sum()), recall_without_alarms(scores, positive)
    )
