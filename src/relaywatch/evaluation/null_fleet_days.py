"""How much real apps send and receive on real days, and when: uid-days of Android's network statistics.

Source: netstats buckets (two hours, by uid and foreground or background) of AOSP's test data, consented volunteers'
phones; columns device, uid, set, bucket_start_s, rx_bytes, tx_bytes and others that are not used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from relaywatch.model.errors import SourceError

DAY_S: Final = 86_400
BUCKET_S: Final = 7_200
FIRST_APP_UID: Final = 10_000
"""Android's first uid of an installed app; below are the system's own."""


class Days(NamedTuple):
    """uid-days with traffic. Day k has parts bounds[k] to bounds[k + 1].

    slot: number of the two hours within the UTC day; foreground: whether the app was before the user's eyes; amount:
    bytes, both ways.
    """

    bounds: npt.NDArray[np.int64]
    slot: npt.NDArray[np.int64]
    foreground: npt.NDArray[np.bool_]
    amount: npt.NDArray[np.float64]

    def totals(self) -> npt.NDArray[np.float64]:
        """Bytes of each day."""
        return np.add.reduceat(self.amount, self.bounds[:-1])


def read_days(path: Path) -> Days:
    """The app days of a CSV file of buckets, also compressed, in an order that does not depend on the file's.

    Raises SourceError where it cannot be read, lacks a column, or holds no bucket of an app.
    """
    bytes_both = (pl.col("rx_bytes") + pl.col("tx_bytes")).alias("amount")
    day = ["device", "uid", "day"]
    buckets = (
        pl.scan_csv(path)
        .filter(pl.col("uid") >= FIRST_APP_UID, pl.col("set").is_in([0, 1]), bytes_both > 0)
        .select(
            pl.col("device", "uid", "set"),
            (pl.col("bucket_start_s") // DAY_S).cast(pl.Int32).alias("day"),
            (pl.col("bucket_start_s") % DAY_S // BUCKET_S).alias("slot"),
            bytes_both,
        )
        .group_by(*day, "slot", "set")
        .agg(pl.col("amount").sum().cast(pl.Float64))
    )
    try:
        parts = buckets.collect(engine="streaming").sort(*day, "slot", "set")
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SourceError(path, f"cannot be read as buckets of network statistics ({error}).") from error
    if parts.is_empty():
        raise SourceError(path, "holds no bucket of an app.", remedy="Give uid buckets with uids from 10000.")
    fresh = pl.any_horizontal(pl.col(name) != pl.col(name).shift() for name in day).fill_null(value=False)
    number = parts.select(fresh.cum_sum().alias("number"))["number"].to_numpy()
    return Days(
        np.searchsorted(number, np.arange(int(number[-1]) + 2)).astype(np.int64),
        parts["slot"].to_numpy(),
        (parts["set"] == 1).to_numpy(),
        parts["amount"].to_numpy(),
    )
