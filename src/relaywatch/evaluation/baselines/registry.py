"""Every baseline that needs no training, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relaywatch.evaluation.baselines.asof_join import COUNT_BY_BYTES, COUNT_BY_TIME, SHARE_BY_BYTES, SHARE_BY_TIME
from relaywatch.evaluation.baselines.beacon import BEACON
from relaywatch.evaluation.baselines.byte_balance import BYTE_BALANCE
from relaywatch.evaluation.baselines.fan_out import FAN_OUT
from relaywatch.evaluation.baselines.hub import HUB
from relaywatch.evaluation.baselines.long_connection import LONG_CONNECTION, LONG_CONNECTION_HOURS
from relaywatch.evaluation.baselines.stepping_stone import stepping_stones

if TYPE_CHECKING:
    import polars as pl

    from relaywatch.evaluation.baselines.baseline import Baseline


def baselines(packets: pl.DataFrame | None = None) -> tuple[Baseline, ...]:
    """Every baseline for one app; names and order do not depend on the app.

    packets: of that app (evaluation.packets.read_packets), for the one rule that is about packet times; without them it
    works on whole seconds. The random forest is trained, and stands apart (random_forest.py).
    """
    return (
        COUNT_BY_TIME,
        SHARE_BY_TIME,
        COUNT_BY_BYTES,
        SHARE_BY_BYTES,
        *stepping_stones(packets),
        HUB,
        BYTE_BALANCE,
        FAN_OUT,
        LONG_CONNECTION,
        LONG_CONNECTION_HOURS,
        BEACON,
    )
