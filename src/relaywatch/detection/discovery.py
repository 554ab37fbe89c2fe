"""How much evidence a relay verdict asks for, given how many apps were judged beside it.

A rate per app lets a fleet of millions raise many alarms for each relay that it has. Evidence whose expectation under
chance is at most one allows the false discovery rate to be held whatever the apps have in common: the e-BH procedure
(Wang and Ramdas, False discovery rate control with e-values, Journal of the Royal Statistical Society B, 2022).
"""

from __future__ import annotations

import math

import numpy as np

from relaywatch.detection.columns import Floats
from relaywatch.detection.settings import Settings


def relay_bar(log_evidence: Floats, judged: int, settings: Settings) -> float:
    """Natural log evidence that a relay verdict asks for: FalseAlarmsPerAppDay's or FalseDiscoveryRate's, if higher.

    log_evidence: of each app that has any; judged: apps judged, with evidence or without. Of evidence in falling order
    the k-th counts where it is at least judged / (rate k); the last that counts sets the bar.
    """
    alone = -math.log(settings.false_alarms_per_app_day)
    ranked = np.sort(log_evidence)[::-1]
    asked = math.log(max(judged, 1) / settings.false_discovery_rate) - np.log(np.arange(1, len(ranked) + 1))
    counting = np.flatnonzero(ranked >= asked)
    among_others = asked[counting[-1]] if len(counting) else math.log(max(judged, 1) / settings.false_discovery_rate)
    return max(alone, float(among_others))
