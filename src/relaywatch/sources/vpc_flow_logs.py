"""AWS VPC flow logs: one direction a record, as text (with its header, or in the documented order) or JSON.

Format: AWS's documentation of flow log records, versions 2 to 5. Without a header the first fourteen fields are those
of version 2, which the later versions' documented order keeps. Phones are seen only behind a VPN or a gateway there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

import polars as pl
import pyarrow as pa

from relaywatch.model.tables import Batch
from relaywatch.sources.flow_pairs import FlowPairs
from relaywatch.sources.json_records import first_records, frames
from relaywatch.sources.lines import Block, blocks, delimited
from relaywatch.sources.reading import Head, Reading

SKEW_BOUND_S: Final = 60.0
"""Times are whole seconds within an interval of up to ten minutes; AWS states no closer bound."""
DEFAULT: Final = (
    "version", "account-id", "interface-id", "srcaddr", "dstaddr", "srcport", "dstport", "protocol", "packets",
    "bytes", "start", "end", "action", "log-status",
)  # fmt: skip
LATER: Final = (
    "vpc-id", "subnet-id", "instance-id", "tcp-flags", "type", "pkt-srcaddr", "pkt-dstaddr", "region", "az-id",
    "sublocation-type", "sublocation-id", "pkt-src-aws-service", "pkt-dst-aws-service", "flow-direction",
    "traffic-path",
)  # fmt: skip
USED: Final = (
    "interface-id", "srcaddr", "dstaddr", "srcport", "dstport", "protocol", "packets", "bytes", "start", "end",
    "log-status",
)  # fmt: skip
_NUMBERS: Final = ("srcport", "dstport", "protocol", "packets", "bytes", "start", "end")
_STATUS: Final = frozenset({"OK", "NODATA", "SKIPDATA"})


class VpcFlowLogs:
    """Flow log records as text."""

    name: ClassVar[str] = "vpc-flow-logs"

    @staticmethod
    def fits(head: Head) -> bool:
        """A header with srcaddr and dstaddr, or a record of as many fields as are documented, with a status."""
        line = head.content.partition(b"\n")[0].decode("utf-8", "replace").strip()
        fields = line.split(" ")
        if {"srcaddr", "dstaddr", "start", "end"} <= set(fields):
            return True
        known = len(fields) in {len(DEFAULT), len(DEFAULT) + len(LATER)}
        return known and fields[0] in {"2", "3", "4", "5"} and fields[13] in _STATUS

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Flows as they are complete, then what was watched."""
        pairs, header = FlowPairs(path, reading, SKEW_BOUND_S), None
        for block in blocks(stream, path, reading.quarantine):
            first = block.content.partition(b"\n")[0].decode("utf-8", "replace").strip().split(" ")
            if header is None:
                named = "srcaddr" in first
                header = tuple(first) if named else (DEFAULT + LATER)[: len(first)]
                block = _without_first(block) if named else block
            before = reading.quarantine.total
            frame = delimited(
                block, header, " ", path, reading.quarantine, used=[name for name in USED if name in header]
            )
            reading.tally.met(frame.height + reading.quarantine.total - before)
            yield from pairs.batches(_records(_spelled(frame), reading))
        yield from pairs.rest()


class VpcFlowLogsJson:
    """Flow log records as JSON, names with underscores or hyphens."""

    name: ClassVar[str] = "vpc-flow-logs-json"

    @staticmethod
    def fits(head: Head) -> bool:
        """A record with srcaddr, dstaddr, start and end."""
        return any({"srcaddr", "dstaddr", "start", "end"} <= record.keys() for record in first_records(head))

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Flows as they are complete, then what was watched."""
        pairs = FlowPairs(path, reading, SKEW_BOUND_S)
        names = dict.fromkeys([*USED, *(name.replace("-", "_") for name in USED)])
        schema = pa.schema([(name, pa.string()) for name in names])
        for frame in frames(stream, path, schema, reading):
            either = [pl.coalesce(*dict.fromkeys((name, name.replace("-", "_")))).alias(name) for name in USED]
            yield from pairs.batches(_records(_spelled(frame.select("position", *either)), reading))
        yield from pairs.rest()


def _without_first(block: Block) -> Block:
    return Block(block.first_line + 1, block.content.partition(b"\n")[2])


def _spelled(frame: pl.DataFrame) -> pl.DataFrame:
    """The used columns, "-" as null, numbers as numbers; those not logged are null."""
    texts: Sequence[str] = [name for name in USED if name in frame.columns]
    missing = [pl.lit(None, pl.String).alias(name) for name in USED if name not in frame.columns]
    plain = frame.with_columns(pl.when(~pl.col(name).is_in(["-", ""])).then(pl.col(name)).alias(name) for name in texts)
    whole = plain.with_columns(*missing)
    return whole.with_columns(
        pl.col(name).cast(pl.Float64, strict=False).cast(pl.Int64, strict=False) for name in _NUMBERS
    )


def _records(frame: pl.DataFrame, reading: Reading) -> pl.DataFrame:
    """The records as flow_pairs takes them; intervals without data are left."""
    status = pl.col("log-status")
    for name, reason in (("NODATA", "an interval without traffic"), ("SKIPDATA", "an interval that AWS skipped")):
        reading.tally.left(reason, frame.filter(status == name).height)
    told = frame.filter(~status.is_in(["NODATA", "SKIPDATA"]) | status.is_null())
    return told.select(
        "position",
        (pl.col("start") * 1_000_000).alias("time"),
        (pl.col("end") * 1_000_000).alias("end"),
        "protocol",
        pl.col("srcaddr").alias("src_ip"),
        pl.col("srcport").alias("src_port"),
        pl.col("dstaddr").alias("dst_ip"),
        pl.col("dstport").alias("dst_port"),
        "bytes",
        "packets",
        pl.col("interface-id").alias("exporter"),
    )
