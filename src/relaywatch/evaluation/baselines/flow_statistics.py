"""Statistics of a flow's first packets, as a vector for a classifier.

Source: R. Huang et al., "Shining Light into the Tunnel: Understanding and Classifying Network Traffic of Residential
Proxies", arXiv 2404.10610, and its code (github.com/ChaseSecurity/bandwidth_sharing, traffic_classifier_scripts/
feature_engineering/train_and_test.py, get_feature_flow). 186 features: at 2, 4, 8, 16, 32 and 64 packets the upstream
ratio, and for upstream, downstream and all packets the mean, greatest, least and standard deviation of times between
packets and of sizes, bytes per second and packets per second. Upstream is what the flow's first packet's sender sends.

Departures: sizes are payload plus constant headers, since not every trace keeps the frame's length; packets at one
instant count as a microsecond apart where the original divides by zero and drops the flow; flows need no recorded
handshake. Flows with fewer than two packets in either direction have no vector, as in the original.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

COUNTS: Final = (2, 4, 8, 16, 32, 64)
FRAME_BYTES: Final = {"tcp": 54, "udp": 42}
"""Ethernet, IPv4 and transport header without options."""
LEAST_S: Final = 1e-6
FEATURES: Final = len(COUNTS) * (1 + 3 * 4 + 3 + 3 + 3 * 4)
_SUBSETS: Final = ("up", "down", "all")


class FlowStatistics(NamedTuple):
    """flow_id: flows with a vector, ascending; vectors: shape (flows, FEATURES), seconds and bytes."""

    flow_id: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float64]


def flow_statistics(flows: pl.DataFrame, packets: pl.DataFrame) -> FlowStatistics:
    """Vectors of one app's flows (Traffic.flows, evaluation.packets); order of rows does not matter."""
    header = pl.col("protocol").replace_strict(FRAME_BYTES, default=34, return_dtype=pl.Int64)
    joined = (
        packets.join(flows.select("flow_id", "protocol", header=header), on="flow_id")
        .sort("flow_id", "time", "sent", "payload")
        .with_columns(
            up=pl.col("sent") == pl.col("sent").first().over("flow_id"), size=pl.col("payload") + pl.col("header")
        )
    )
    both = (pl.col("up").sum() >= COUNTS[0]) & ((~pl.col("up")).sum() >= COUNTS[0])
    joined = joined.filter(both.over("flow_id"))
    ratios = _upstream_ratios(joined)
    table = ratios
    for name, subset in zip(_SUBSETS, (joined.filter("up"), joined.filter(~pl.col("up")), joined), strict=True):
        table = table.join(_first_packets(subset, name), on="flow_id", how="left", maintain_order="left")
    vectors = table.select(_names()).to_numpy().astype(np.float64, copy=False)
    return FlowStatistics(table["flow_id"].to_numpy(), vectors)


def _names() -> list[str]:
    """The vector's columns in the original's order."""
    shape = ("mean", "max", "min", "std")
    gaps = [f"gap_{subset}_{stat}_{n}" for subset in _SUBSETS for n in COUNTS for stat in shape]
    rates = [f"{rate}_{subset}_{n}" for rate in ("bytes", "packets") for subset in _SUBSETS for n in COUNTS]
    sizes = [f"size_{subset}_{stat}_{n}" for subset in _SUBSETS for n in COUNTS for stat in shape]
    return [*(f"ratio_{n}" for n in COUNTS), *gaps, *rates, *sizes]


def _upstream_ratios(packets: pl.DataFrame) -> pl.DataFrame:
    """Share of upstream payload when the n-th upstream packet goes; the last known where there are fewer.

    For TCP as its sequence and acknowledgement numbers say: before this packet, and the handshake counts one each.
    """
    tcp = pl.col("protocol") == "tcp"
    up = pl.when("up").then("payload").otherwise(0).cum_sum().over("flow_id")
    down = pl.when("up").then(0).otherwise("payload").cum_sum().over("flow_id")
    before = pl.when(tcp).then(up - pl.col("payload") + 1).otherwise(up).cast(pl.Float64)
    after = pl.when(tcp).then(down + 1).otherwise(down)
    # A datagram exchange without payload has no ratio: neither side sent more.
    ratio = pl.when(before + after > 0).then(before / (before + after)).otherwise(0.5)
    upstream = packets.select("flow_id", "up", ratio=ratio).filter("up")
    return upstream.group_by("flow_id", maintain_order=True).agg(
        pl.col("ratio").get(_largest_count(pl.len(), n) - 1).alias(f"ratio_{n}") for n in COUNTS
    )


def _largest_count(length: pl.Expr, n: int) -> pl.Expr:
    """The largest of COUNTS that is neither above n nor above the length."""
    return pl.max_horizontal(pl.when(length >= m).then(m).otherwise(0) for m in COUNTS if m <= n)


def _first_packets(packets: pl.DataFrame, subset: str) -> pl.DataFrame:
    """Times between packets, rates and sizes of the first n packets of each flow; of all where there are fewer."""
    flow, time, size = pl.col("flow_id"), pl.col("time"), pl.col("size")
    numbered = packets.select(
        flow, time, size, place=pl.int_range(pl.len()).over("flow_id"), gap=time.diff().over("flow_id")
    ).filter(pl.col("place") <= COUNTS[-1])
    aggregates: list[pl.Expr] = []
    for n in COUNTS:
        gap, first_size = pl.col("gap").slice(1, n - 1), size.head(n)
        for name, values in (("gap", gap), ("size", first_size)):
            aggregates += [
                values.mean().alias(f"{name}_{subset}_mean_{n}"),
                values.max().alias(f"{name}_{subset}_max_{n}"),
                values.min().alias(f"{name}_{subset}_min_{n}"),
                values.std(ddof=0).alias(f"{name}_{subset}_std_{n}"),
            ]
        # The original gives a rate only where a further packet follows; 0 where none of the counts is reached.
        reached = _largest_count(pl.len() - 1, n)
        lasting = (time.get(pl.max_horizontal(reached - 1, 0)) - time.first()).clip(lower_bound=LEAST_S)
        aggregates.append((size.head(reached).sum() / lasting).alias(f"bytes_{subset}_{n}"))
        aggregates.append((reached / lasting).alias(f"packets_{subset}_{n}"))
    return numbered.group_by("flow_id").agg(aggregates)
