"""What a baseline is: a name, where it comes from, and scores of an app and of its pairs of flows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import polars as pl

PAIR_SCHEMA: Final = {"client": pl.Int64, "target": pl.Int64, "score": pl.Float64}
"""Scored pairs: flow_id of the client leg, flow_id of the target leg, higher for more suspect. One row a pair."""


class Traffic(Protocol):
    """One app's traffic: all that a baseline may look at. Rows in any order."""

    @property
    def flows(self) -> pl.DataFrame:
        """One row a flow.

        flow_id i64, start and end f64 epoch s, protocol "tcp" or "udp", inbound bool, local_port i64, remote str,
        remote_port i64, hostname str or null, bytes_out and bytes_in f64 payload (null: not known), packets_out and
        packets_in i64.
        """
        ...

    @property
    def volumes(self) -> pl.DataFrame:
        """One row a flow and second in which something moved: flow_id i64, second i64 epoch s, bytes_out, bytes_in."""
        ...


@dataclass(frozen=True, slots=True)
class Baseline:
    """A rule that needs no training.

    name: as tables show it; source: publication or code that it follows.
    app_score: higher for apps more suspect of relaying; a rule that finds nothing gives its least value, never NaN.
    pair_scores: the rule's pairs as PAIR_SCHEMA, best first; pairs that are not listed score minus infinity. None where
    the rule tells nothing of pairs.
    """

    name: str
    source: str
    app_score: Callable[[Traffic], float]
    pair_scores: Callable[[Traffic], pl.DataFrame] | None = None


def best_first(pairs: pl.DataFrame) -> pl.DataFrame:
    """Give pairs as PAIR_SCHEMA: the best score of each, best first, ties by flow ids."""
    return (
        pairs.cast(PAIR_SCHEMA)  # type: ignore[arg-type]
        .group_by("client", "target")
        .agg(pl.col("score").max())
        .sort(["score", "client", "target"], descending=[True, False, False])
    )


def no_pairs() -> pl.DataFrame:
    """An empty table of pairs."""
    return pl.DataFrame(schema=PAIR_SCHEMA)
