"""The one-line hub rule: one remote party that receives what all others send.

Source: relaywatch's own first attempt; the score is the best over remote parties of the correlation, second by second,
of what the app sends to one with what it receives from all others, times how well the two sums agree.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from relaywatch.evaluation.baselines.baseline import Baseline, Traffic

ROUNDING: Final = 1e-7
"""Share of a sum of squares that rounding may leave of the spread of a constant."""


def hub(traffic: Traffic) -> float:
    """Best over remote parties of correlation times min(a, b) / max(a, b); 0 where nothing varies or is known.

    a: bytes to the party; b: bytes from all others. Computed from sums over the seconds in which anything moved, so
    that time and memory follow the rows of `volumes`, not parties times seconds.
    """
    named = (
        traffic.volumes.join(traffic.flows.select("flow_id", "remote"), on="flow_id")
        .group_by("remote", "second")
        .agg(pl.col("bytes_out").fill_null(0.0).sum(), pl.col("bytes_in").fill_null(0.0).sum())
    )
    if named.is_empty():
        return 0.0
    seconds = int(named["second"].max() - named["second"].min()) + 1  # type: ignore[operator,arg-type]
    whole = named.group_by("second").agg(pl.col("bytes_in").sum().alias("all_in"))
    all_in = float(whole["all_in"].sum())
    all_in_squared = float((whole["all_in"] ** 2).sum())
    sent, received, total = pl.col("bytes_out"), pl.col("bytes_in"), pl.col("all_in")
    parties = (
        named.join(whole, on="second")
        .group_by("remote")
        .agg(
            sent.sum().alias("a"),
            (sent**2).sum().alias("aa"),
            (all_in - received.sum()).alias("b"),
            (all_in_squared - 2 * (total * received).sum() + (received**2).sum()).alias("bb"),
            (sent * (total - received)).sum().alias("ab"),
        )
    )
    a, b = pl.col("a"), pl.col("b")
    aa, bb = pl.col("aa"), pl.col("bb")
    spread = ((aa - a**2 / seconds) * (bb - b**2 / seconds)).clip(lower_bound=0.0).sqrt()
    varies = spread > ROUNDING * (aa * bb).sqrt()
    agreement = pl.min_horizontal(a, b) / pl.max_horizontal(a, b, pl.lit(1.0))
    correlation = pl.when(varies).then((pl.col("ab") - a * b / seconds) / spread).otherwise(0.0)
    return float(parties.select(correlation * agreement).to_series().max())  # type: ignore[arg-type]


HUB: Final = Baseline("one-line hub rule", "correlation of bytes to one remote with bytes from all others", hub)
