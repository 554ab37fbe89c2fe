"""nfdump's JSON (-o json, -o ndjson): NetFlow as collected, one direction a record, or both where both are counted.

Format: nfdump's output_json.c. Times are the collector's local time without a zone: read as UTC, with a bound of
fourteen hours; run nfdump with TZ=UTC. `sampled` is a flag: nfdump has scaled the counts itself where it knew the rate.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

import polars as pl
import pyarrow as pa

from relaywatch.model.tables import Batch
from relaywatch.sources.columns import written_instants
from relaywatch.sources.flow_pairs import FlowPairs
from relaywatch.sources.json_records import first_records, frames
from relaywatch.sources.reading import Head, Reading

UNZONED_S: Final = 14 * 3600.0
_NUMBERS: Final = (
    "src_port",
    "dst_port",
    "proto",
    "in_packets",
    "in_bytes",
    "out_packets",
    "out_bytes",
    "sampled",
    "export_sysid",
    "src_xlt_port",
    "dst_xlt_port",
)
_TEXTS: Final = (
    "type",
    "first",
    "last",
    "src4_addr",
    "dst4_addr",
    "src6_addr",
    "dst6_addr",
    "src4_xlt_ip",
    "dst4_xlt_ip",
)
SCHEMA: Final = pa.schema([*((name, pa.string()) for name in _TEXTS), *((name, pa.int64()) for name in _NUMBERS)])


class NfdumpJson:
    """One nfdump output. The device is named by --device, or is the local address."""

    name: ClassVar[str] = "nfdump-json"

    @staticmethod
    def fits(head: Head) -> bool:
        """A record with first, last and addresses as nfdump names them."""
        return any(
            {"first", "last", "in_bytes"} <= record.keys() and ({"src4_addr", "src6_addr"} & record.keys())
            for record in first_records(head)
        )

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Flows as they are complete, then what was watched."""
        pairs = FlowPairs(path, reading, UNZONED_S)
        for frame in frames(stream, path, SCHEMA, reading):
            other = frame["type"].is_not_null() & (frame["type"] != "FLOW")
            reading.tally.left("a record that is no flow", int(other.sum()))
            pairs.thinned |= bool((frame["sampled"] > 0).any())
            yield from pairs.batches(_records(frame.filter(~other)))
        yield from pairs.rest()


def _records(frame: pl.DataFrame) -> pl.DataFrame:
    """The records one direction each; what comes back in the same record follows it."""
    first, last = (written_instants(pl.col(name), zoned=False) for name in ("first", "last"))
    out = frame.select(
        "position", first.alias("time"), last.alias("end"), pl.col("proto").alias("protocol"),
        pl.coalesce("src4_addr", "src6_addr").alias("src_ip"), "src_port",
        pl.coalesce("dst4_addr", "dst6_addr").alias("dst_ip"), "dst_port",
        pl.col("in_bytes").alias("bytes"), pl.col("in_packets").alias("packets"),
        pl.col("export_sysid").alias("exporter"), *_translated(frame),
    )  # fmt: skip
    back = frame.select("position", "out_bytes", "out_packets").filter(pl.col("out_packets") > 0)
    if back.is_empty():
        return out
    both = out.join(back, on="position", how="inner")
    reverse = both.select(
        "position", "time", "end", "protocol", pl.col("dst_ip").alias("src_ip"), pl.col("dst_port").alias("src_port"),
        pl.col("src_ip").alias("dst_ip"), pl.col("src_port").alias("dst_port"), pl.col("out_bytes").alias("bytes"),
        pl.col("out_packets").alias("packets"), "exporter",
        *(pl.col(f"{back}_xlt_{name}").alias(f"{end}_xlt_{name}") for end, back in (("src", "dst"), ("dst", "src"))
          for name in ("ip", "port") if f"{back}_xlt_{name}" in out.columns),
    )  # fmt: skip
    return pl.concat([out, reverse])


def _translated(frame: pl.DataFrame) -> list[pl.Expr]:
    """The ends on a translator's other side, where any record tells them."""
    if frame["src4_xlt_ip"].null_count() + frame["dst4_xlt_ip"].null_count() == 2 * frame.height:
        return []
    ends = ("src", "dst")
    return [
        *(pl.col(f"{end}4_xlt_ip").alias(f"{end}_xlt_ip") for end in ends),
        *(pl.col(f"{end}_xlt_port") for end in ends),
    ]
