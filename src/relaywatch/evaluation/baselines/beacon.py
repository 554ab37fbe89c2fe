"""RITA's beacon score: flows to one party that come regularly, in like sizes, all the time.

Source: RITA v5 (github.com/activecm/rita), analysis/beacons.go, with the weights and limits of config/config.go. The
score is the mean of four: regularity of the starts, likeness of the bytes sent, evenness over 24 parts of the time, and
persistence. RITA takes the flows that a host dials, by host name where there is one, else by address, of the last 24
hours. Its byte counts are those of IP packets, which are estimated here from payload bytes and packets.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from relaywatch.evaluation.baselines.baseline import Baseline, Traffic
from relaywatch.evaluation.baselines.long_connection import DESTINATION

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FEWEST_STARTS: Final = 4
"""unique_connection_threshold: distinct seconds in which a flow starts."""
STROBE: Final = 86_400
"""From as many flows on, RITA calls it a strobe and gives no beacon score."""
DAY_S: Final = 86_400
PARTS: Final = 24
FEWEST_PARTS: Final = 6
"""duration_min_hours_seen."""
STEADY_PARTS: Final = 12
"""duration_consistency_ideal_hours_seen."""
LEAST_SPREAD: Final = 10.0
"""Quartiles closer than this, seconds or bytes, count as not skewed."""
MODE_SENSITIVITY: Final = 0.05
OUTLIER_PARTS: Final = 1
FEWEST_BIMODAL_PARTS: Final = 11
HEADER_BYTES: Final = {"tcp": 40, "udp": 28}
"""IPv4 and transport header of one packet, without options."""


def beacon(traffic: Traffic) -> float:
    """Best beacon score over destinations, 0 to 1; 0 where none has FEWEST_STARTS."""
    header = pl.col("protocol").replace_strict(HEADER_BYTES, default=20, return_dtype=pl.Int64)
    dialled = traffic.flows.filter(~pl.col("inbound")).select(
        DESTINATION.alias("destination"),
        pl.col("start").floor().cast(pl.Int64).alias("second"),
        (pl.col("bytes_out").fill_null(0.0) + header * pl.col("packets_out").fill_null(0)).alias("bytes"),
    )
    if dialled.is_empty():
        return 0.0
    last = int(dialled["second"].max())  # type: ignore[arg-type]
    dialled = dialled.filter(pl.col("second") >= last - DAY_S)
    first = int(dialled["second"].min())  # type: ignore[arg-type]
    lists = dialled.group_by("destination").agg("second", "bytes").filter(pl.col("second").list.len() < STROBE)
    scores = [
        beacon_score(np.sort(np.asarray(seconds, np.int64)), np.sort(np.asarray(sizes, np.float64)), first, last)
        for seconds, sizes in lists.select("second", "bytes").iter_rows()
    ]
    return max(scores, default=0.0)


def beacon_score(seconds: Ints, sizes: Floats, first: int, last: int) -> float:
    """RITA's score of one destination; 0 where it has fewer than FEWEST_STARTS distinct starts.

    seconds: sorted starts, epoch seconds; sizes: sorted bytes sent, one a flow; first, last: the data set's time range.
    """
    if len(np.unique(seconds)) < FEWEST_STARTS:
        return 0.0
    gaps = np.sort(np.diff(seconds)).astype(np.float64)
    parts = histogram(seconds, first, last)
    scores = (
        spread_score(gaps[gaps > 0], 1.0),
        spread_score(sizes, 0.0),
        persistence(parts, (int(seconds[-1]) - int(seconds[0])) / (last - first)),
        max(evenness(parts), two_levels(parts)),
    )
    return rounded(sum(scores) / len(scores))


def spread_score(values: Floats, level: float) -> float:
    """Mean of 1 - |Bowley's skewness| and 1 - MAD / median, of sorted values; `level` where the median is below 1."""
    middle = float(np.median(values))
    deviation = float(np.median(np.abs(values - middle)))
    likeness = max((middle - deviation) / middle, 0.0) if middle >= 1.0 else level
    return rounded((1.0 - abs(bowley(values)) + likeness) / 2.0)


def bowley(values: Floats) -> float:
    """Bowley's skewness by medians of the lower and upper half, the middle value in neither; 0 where hardly spread."""
    half = len(values) // 2
    low, middle, high = (float(np.median(part)) for part in (values[:half], values, values[-half:]))
    if high - low < LEAST_SPREAD or middle in (low, high):
        return 0.0
    return (low + high - 2.0 * middle) / (high - low)


def histogram(seconds: Ints, first: int, last: int) -> Ints:
    """Flows that start in each of PARTS equal parts of the data set's time, the last part closed."""
    return np.histogram(seconds, bins=PARTS, range=(first, last))[0].astype(np.int64)


def evenness(parts: Ints) -> float:
    """1 - standard deviation / mean, not below 0."""
    return rounded(max(1.0 - float(parts.std() / parts.mean()), 0.0))


def two_levels(parts: Ints) -> float:
    """Share of the parts with flows that stand on the two most frequent levels; 0 with few such parts."""
    seen = parts[parts > 0]
    if len(seen) < FEWEST_BIMODAL_PARTS:
        return 0.0
    step = math.ceil(int(parts.max()) * MODE_SENSITIVITY)
    levels = Counter((seen // step).tolist())
    top = sum(count for _, count in levels.most_common(2))
    return min(rounded(top / max(len(seen) - OUTLIER_PARTS, 1)), 1.0)


def persistence(parts: Ints, coverage: float) -> float:
    """The greater of coverage of the time and the longest run of parts with flows, around the end, of STEADY_PARTS."""
    if int((parts > 0).sum()) < FEWEST_PARTS:
        return 0.0
    run = longest = 0
    for count in (*parts.tolist(), *parts.tolist()):
        run = run + 1 if count else 0
        longest = max(longest, run)
    steady = min(longest, PARTS) / STEADY_PARTS
    return min(math.ceil(max(coverage, steady) * 1000.0) / 1000.0, 1.0)


def rounded(value: float) -> float:
    """To three decimals, halves up, as RITA rounds."""
    return math.floor(value * 1000.0 + 0.5) / 1000.0


BEACON: Final = Baseline("RITA beacon", "RITA v5, analysis/beacons.go", beacon)
