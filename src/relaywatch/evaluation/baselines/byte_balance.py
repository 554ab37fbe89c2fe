"""A relay sends as much as it receives: the app's bytes in both directions, set against each other."""

from __future__ import annotations

import math
from typing import Final

from relaywatch.evaluation.baselines.baseline import Baseline, Traffic


def balance(traffic: Traffic) -> float:
    """(1 - |out - in| / (out + in)) ln(1 + out + in), over payload bytes of all flows; 0 where nothing was sent."""
    sent, received = (float(traffic.flows[side].fill_null(0.0).sum()) for side in ("bytes_out", "bytes_in"))
    total = sent + received
    return (1.0 - abs(sent - received) / total) * math.log1p(total) if total > 0 else 0.0


BYTE_BALANCE: Final = Baseline(
    "byte balance of the app", "flow conservation over the whole app, weighed by the logarithm of its volume", balance
)
