"""A relay serves many destinations: distinct remote parties in five minutes.

Source: MAppGraph (Pham et al. 2021), which describes an app by the destinations of its five-minute windows. Counted by
address, since an accepted party's port says nothing.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from relaywatch.evaluation.baselines.baseline import Baseline, Traffic

WINDOW_S: Final = 300.0


def fan_out(traffic: Traffic) -> float:
    """Most distinct remote parties of flows that start in one window; windows count from the app's first flow."""
    window = ((pl.col("start") - pl.col("start").min()) // WINDOW_S).alias("window")
    parties = traffic.flows.select("remote", window).group_by("window").agg(pl.col("remote").n_unique())
    return float(parties["remote"].max() or 0)  # type: ignore[arg-type]


FAN_OUT: Final = Baseline("fan-out in five minutes", "MAppGraph's windows (Pham et al. 2021)", fan_out)
