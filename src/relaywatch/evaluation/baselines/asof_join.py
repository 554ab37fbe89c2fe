"""SQL's answer: each accepted connection with the next one that the app dials.

Source: DuckDB documentation, guide "AsOf Join"; the query that one would write first for "an inbound session, then an
outbound one", in ten lines. In clean one-to-one traffic it suffices.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import duckdb
import polars as pl

from relaywatch.evaluation.baselines.baseline import Baseline, Traffic, best_first, no_pairs

LAG_S: Final = 0.5
"""Longest time from an accepted connection to the dialled one."""
BYTES_WITHIN: Final = 0.1
"""Most by which bytes of the two legs may differ, as a share of the larger, in each direction."""
NAME_LOOKUP_PORT: Final = 53
"""A name lookup precedes most connections; as the next outbound flow it would hide the one that is meant."""

_QUERY: Final = """
    WITH joined AS (
        SELECT accepted.flow_id AS client, dialled.flow_id AS target, accepted.start - dialled.start AS score,
               accepted.bytes_out AS client_out, accepted.bytes_in AS client_in,
               dialled.bytes_out AS target_out, dialled.bytes_in AS target_in
        FROM accepted ASOF JOIN dialled ON dialled.start >= accepted.start
        WHERE dialled.start - accepted.start < $lag
    )
    SELECT client, target, score FROM joined
    WHERE $within::DOUBLE IS NULL
       OR abs(client_in - target_out) <= $within::DOUBLE * greatest(client_in, target_out)
      AND abs(client_out - target_in) <= $within::DOUBLE * greatest(client_out, target_in)
"""


def next_dialled(traffic: Traffic) -> pl.DataFrame:
    """Accepted connections and the next dialled one within LAG_S; score: minus the lag in seconds."""
    return _joined(traffic, None)


def next_dialled_with_bytes(traffic: Traffic) -> pl.DataFrame:
    """As next_dialled, where each direction's bytes agree within BYTES_WITHIN; bytes not known agree with nothing."""
    return _joined(traffic, BYTES_WITHIN)


def _joined(traffic: Traffic, within: float | None) -> pl.DataFrame:
    # Where several dialled connections start at one instant, SQL may take any of them: take the lowest flow_id.
    columns = ("flow_id", "start", "bytes_out", "bytes_in")
    accepted = traffic.flows.filter(pl.col("inbound")).select(columns)
    dialled = (
        traffic.flows.filter(~pl.col("inbound"), pl.col("remote_port") != NAME_LOOKUP_PORT)
        .select(columns)
        .sort("start", "flow_id")
        .unique("start", keep="first", maintain_order=True)
    )
    if accepted.is_empty() or dialled.is_empty():
        return no_pairs()
    with duckdb.connect() as database:
        database.register("accepted", accepted.to_arrow())
        database.register("dialled", dialled.to_arrow())
        found = database.execute(_QUERY, {"lag": LAG_S, "within": within}).fetchnumpy()
    return best_first(pl.DataFrame(dict(found)))


def _count(pairs_of: Callable[[Traffic], pl.DataFrame], traffic: Traffic) -> float:
    return float(pairs_of(traffic).height)


def _share(pairs_of: Callable[[Traffic], pl.DataFrame], traffic: Traffic) -> float:
    """Share of accepted connections that are joined; one is added to them, so that one of one is no certainty."""
    return pairs_of(traffic).height / (int(traffic.flows["inbound"].sum()) + 1)


_SOURCE: Final = 'DuckDB documentation, guide "AsOf Join"; accepted connection to next dialled one within 0.5 s'

COUNT_BY_TIME: Final = Baseline("ASOF join, time: count", _SOURCE, partial(_count, next_dialled), next_dialled)
SHARE_BY_TIME: Final = Baseline("ASOF join, time: share of accepted", _SOURCE, partial(_share, next_dialled))
COUNT_BY_BYTES: Final = Baseline(
    "ASOF join, time and bytes: count",
    f"{_SOURCE}, bytes within 10 %",
    partial(_count, next_dialled_with_bytes),
    next_dialled_with_bytes,
)
SHARE_BY_BYTES: Final = Baseline(
    "ASOF join, time and bytes: share of accepted",
    f"{_SOURCE}, bytes within 10 %",
    partial(_share, next_dialled_with_bytes),
)
