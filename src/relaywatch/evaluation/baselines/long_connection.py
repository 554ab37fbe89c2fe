"""RITA's long-connection score: connections to one party that last for hours.

Source: RITA v5 (github.com/activecm/rita), analysis/analysis.go (calculateBucketedScore) and the defaults in
config/config.go: total duration per destination, scored 0.2 to 0.8 from 1 to 12 hours. RITA takes the flows that a host
dials (FilterExternalToInternal), by host name where there is one, else by address.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from relaywatch.evaluation.baselines.baseline import Baseline, Traffic

HOURS: Final = (1.0, 4.0, 8.0, 12.0)
SCORES: Final = (0.2, 0.4, 0.6, 0.8)
DESTINATION: Final = pl.coalesce("hostname", "remote")


def longest_hours(traffic: Traffic) -> float:
    """Best over destinations of the summed duration of the flows dialled to it, in hours."""
    lasting = (
        traffic.flows.filter(~pl.col("inbound")).group_by(DESTINATION).agg((pl.col("end") - pl.col("start")).sum())
    )
    return float(lasting["end"].max() or 0.0) / 3600.0  # type: ignore[arg-type]


def bucketed(hours: float) -> float:
    """RITA's score of a duration: 0 below an hour, then linear between HOURS and SCORES, and level from 12 hours."""
    return float(np.interp(hours, HOURS, SCORES)) if hours >= HOURS[0] else 0.0


def long_connection(traffic: Traffic) -> float:
    """RITA's score of the longest-lasting destination."""
    return bucketed(longest_hours(traffic))


LONG_CONNECTION: Final = Baseline("RITA long connection", "RITA v5, calculateBucketedScore", long_connection)
LONG_CONNECTION_HOURS: Final = Baseline(
    "RITA long connection, hours unbucketed",
    "RITA v5, total duration; its order without the one-hour bar",
    longest_hours,
)
