"""A scenario's capture as a relay-lab trace: flows.csv, bins.parquet, context.json and a shortened capture.

Flows and seconds are what relaywatch's own capture reader makes of the packets; nothing else is known here.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa

from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import Direction, Observability
from relaywatch.sources.pcap import Pcap
from relaywatch.sources.reading import Reading

SNAP: Final = 96
NOTE: Final = (
    "foreground, screen, interaction, package and uid are SCRIPTED by the range; packets and listener sockets are real"
)
_PROTOCOLS: Final = {6: "tcp", 17: "udp"}
_DIRECTIONS: Final = {int(Direction.INBOUND): "in", int(Direction.OUTBOUND): "out"}
_NAMED: Final = {int(Observability.OBSERVED): "sni", int(Observability.INFERRED): "dns"}


def read(capture: Path, phone: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The capture's flows and volumes, of TCP and UDP, seen from the phone's address."""
    tables: dict[str, list[pa.RecordBatch]] = {"flows": [], "volumes": []}
    with capture.open("rb") as stream:
        # As a network's sensor: a flow between two private ends is then given from either side, the phone's among them.
        for part in Pcap().read(capture, stream, Reading(Quarantine())):
            if part.table in tables:
                tables[part.table].append(part.rows)
    flows, volumes = (
        pl.from_arrow(pa.Table.from_batches(parts)) if parts else pl.DataFrame() for parts in tables.values()
    )
    if not isinstance(flows, pl.DataFrame) or not isinstance(volumes, pl.DataFrame) or flows.is_empty():
        return pl.DataFrame(), pl.DataFrame()
    flows = flows.filter(
        pl.col("local_ip").cast(pl.String) == phone, pl.col("protocol_num").cast(pl.Int64).is_in(list(_PROTOCOLS))
    )
    return flows, volumes.filter(pl.col("flow_id").is_in(flows["flow_id"].to_list()))


def lab_flows(flows: pl.DataFrame) -> pl.DataFrame:
    """Canonical flows as the rows of flows.csv, numbered by their start."""
    seconds = pl.col("start_time").dt.timestamp("us") / 1e6, pl.col("end_time").dt.timestamp("us") / 1e6
    ordered = flows.sort("start_time", "flow_id").with_row_index("number")
    return ordered.select(
        pl.col("number").cast(pl.Int64).alias("flow_id"),
        seconds[0].alias("start"),
        seconds[1].alias("end"),
        pl.col("protocol_num").cast(pl.Int64).replace_strict(_PROTOCOLS, return_dtype=pl.String).alias("proto"),
        pl.col("local_ip").cast(pl.String),
        pl.col("local_port"),
        pl.col("remote_ip").cast(pl.String),
        pl.col("remote_port"),
        pl.col("direction_id")
        .cast(pl.Int64)
        .replace_strict(_DIRECTIONS, default="", return_dtype=pl.String)
        .alias("direction"),
        pl.col("remote_hostname").cast(pl.String).fill_null("").alias("hostname"),
        pl.col("hostname_observability")
        .cast(pl.Int64)
        .replace_strict(_NAMED, default="", return_dtype=pl.String)
        .alias("hostname_src"),
        pl.col("bytes_out").alias("tx_payload"),
        pl.col("bytes_in").alias("rx_payload"),
        pl.col("wire_bytes_out").alias("tx_ip"),
        pl.col("wire_bytes_in").alias("rx_ip"),
        pl.col("packets_out").alias("tx_pkts"),
        pl.col("packets_in").alias("rx_pkts"),
        (pl.col("direction_observability").cast(pl.Int64) == int(Observability.OBSERVED)).cast(pl.Int64)
        .alias("syn_seen"),
        pl.col("established").fill_null(value=False).cast(pl.Int64),
        pl.col("flow_id").alias("read_as"),
    )  # fmt: skip


def lab_bins(volumes: pl.DataFrame, numbered: pl.DataFrame) -> pl.DataFrame:
    """Canonical volumes as the rows of bins.parquet."""
    return (
        volumes.join(numbered.select("read_as", "flow_id"), left_on="flow_id", right_on="read_as")
        .select(
            pl.col("flow_id_right").alias("flow_id"),
            (pl.col("start_time").dt.timestamp("us") // 1_000_000).alias("sec"),
            pl.col("bytes_out").alias("tx_bytes"),
            pl.col("bytes_in").alias("rx_bytes"),
            pl.col("packets_out").alias("tx_pkts"),
            pl.col("packets_in").alias("rx_pkts"),
        )
        .sort("sec", "flow_id")
    )


def write(folder: Path, capture: Path, phone: str, context: dict[str, Any]) -> pl.DataFrame:
    """Write one trace; gives its rows of flows.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    flows, volumes = read(capture, phone)
    if flows.is_empty():
        return pl.DataFrame()
    numbered = lab_flows(flows)
    lab_bins(volumes, numbered).write_parquet(folder / "bins.parquet")
    numbered = numbered.drop("read_as")
    numbered.write_csv(folder / "flows.csv", quote_style="never")
    (folder / "context.json").write_text(json.dumps({"note": NOTE, **context}, indent=1) + "\n", encoding="utf-8")
    with pa.CompressedOutputStream(pa.OSFile(str(folder / "trace.pcap.zst"), "wb"), "zstd") as out:
        for part in shortened(capture):
            out.write(part)
    return numbered


def shortened(capture: Path) -> Iterator[bytes]:
    """The capture with at most SNAP bytes a packet."""
    with capture.open("rb") as stream:
        head = stream.read(24)
        yield head[:16] + struct.pack("<I", SNAP) + head[20:]
        while len(record := stream.read(16)) == 16:
            second, micro, kept, size = struct.unpack("<IIII", record)
            content = stream.read(kept)
            short = min(kept, SNAP)
            yield struct.pack("<IIII", second, micro, short, size) + content[:short]
