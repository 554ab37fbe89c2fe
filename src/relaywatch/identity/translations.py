"""Who was behind an outside address and port at a time, by what a translator (NAT) logged."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

Ints = npt.NDArray[np.int64]

NOBODY: Final = -1
SLACK_US: Final = 3_000_000
"""How far a sensor's clock and a translator's may be apart: the bounds that both state, with the time until a flow is
logged. A translation that held at the very time is preferred."""


def behind(outside: npt.NDArray[Any], time: Ints, book: pl.DataFrame) -> Ints:
    """For each flow's outside end and start (us since epoch) the row of the translation that held, or NOBODY.

    outside: any code of protocol, address and port; book: `outside`, `begin` and `end` (us; null: still open).
    """
    asked = pl.DataFrame({"row": np.arange(len(time)), "outside": outside, "time": time})
    held = book.select(
        pl.int_range(pl.len()).alias("place"), "outside", "begin", pl.col("end").fill_null(np.iinfo(np.int64).max // 2)
    ).sort("begin")
    exact, near = (_latest(asked, held, slack) for slack in (0, SLACK_US))
    found: Ints = np.where(exact != NOBODY, exact, near)
    return found


def _latest(asked: pl.DataFrame, held: pl.DataFrame, slack: int) -> Ints:
    """The latest that had begun, if it had not ended."""
    latest = (
        asked.with_columns((pl.col("time") + slack).alias("until"))
        .sort("until")
        .join_asof(held, left_on="until", right_on="begin", by="outside", check_sortedness=False)
        .sort("row")
    )
    lasted = (latest["end"] + slack >= latest["time"]).fill_null(value=False)
    return latest["place"].zip_with(lasted, pl.Series([NOBODY], dtype=latest["place"].dtype)).to_numpy()
