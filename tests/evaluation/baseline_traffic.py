"""Hand-made traffic of one app."""

from typing import NamedTuple

import polars as pl

FLOW = {
    "flow_id": pl.Int64,
    "start": pl.Float64,
    "end": pl.Float64,
    "protocol": pl.String,
    "inbound": pl.Boolean,
    "local_port": pl.Int64,
    "remote": pl.String,
    "remote_port": pl.Int64,
    "hostname": pl.String,
    "bytes_out": pl.Float64,
    "bytes_in": pl.Float64,
    "packets_out": pl.Int64,
    "packets_in": pl.Int64,
    "established": pl.Boolean,
}
VOLUME = {
    "flow_id": pl.Int64,
    "second": pl.Int64,
    "bytes_out": pl.Float64,
    "bytes_in": pl.Float64,
    "packets_out": pl.Int64,
    "packets_in": pl.Int64,
}
PACKET = {"flow_id": pl.Int64, "time": pl.Float64, "sent": pl.Boolean, "payload": pl.Int64}


class Traffic(NamedTuple):
    """One app's traffic, as a baseline looks at it."""

    flows: pl.DataFrame
    volumes: pl.DataFrame


def flow(flow_id, start, *, inbound=False, **other):
    """One flow: 443 at a party of its own, one second long, unless said otherwise."""
    return {
        "flow_id": flow_id,
        "start": start,
        "end": start + 1.0,
        "protocol": "tcp",
        "inbound": inbound,
        "local_port": 1080 if inbound else 40_000 + flow_id,
        "remote": f"192.0.2.{flow_id % 250}",
        "remote_port": 50_000 + flow_id if inbound else 443,
        "hostname": None,
        "bytes_out": 1000.0,
        "bytes_in": 1000.0,
        "packets_out": 10,
        "packets_in": 10,
        "established": True,
    } | other


def traffic(flows, volumes=()):
    """An app's traffic. volumes: (flow_id, second, bytes_out, bytes_in)."""
    rows = [dict(zip(VOLUME, (*volume, 1, 1), strict=True)) for volume in volumes]
    return Traffic(pl.DataFrame(list(flows), FLOW), pl.DataFrame(rows, VOLUME))


def packets(rows):
    """(flow_id, time, sent, payload)."""
    return pl.DataFrame(list(rows), PACKET, orient="row").sort("flow_id", "time")
