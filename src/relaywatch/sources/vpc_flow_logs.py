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

from relaywatch.model.schemas import Observability, SignalKind
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.columns import LAST_SECOND, column, text
from relaywatch.sources.device_views import sensed
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
MOST_GAPS: Final = 100_000
"""Rows of gaps; intervals beyond it are left."""
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
        skipped = _Skipped(path, reading)
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
            spelled = _spelled(frame)
            skipped.take(spelled)
            yield from pairs.batches(_records(spelled, reading))
        yield from pairs.rest()
        yield from skipped.batches(pairs.devices)


class VpcFlowLogsJson:
    """Flow log records as JSON, names with underscores or hyphens."""

    name: ClassVar[str] = "vpc-flow-logs-json"

    @staticmethod
    def fits(head: Head) -> bool:
        """A record with srcaddr, dstaddr, start and end."""
        return any({"srcaddr", "dstaddr", "start", "end"} <= record.keys() for record in first_records(head))

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Flows as they are complete, then what was watched."""
        pairs, skipped = FlowPairs(path, reading, SKEW_BOUND_S), _Skipped(path, reading)
        names = dict.fromkeys([*USED, *(name.replace("-", "_") for name in USED)])
        schema = pa.schema([(name, pa.string()) for name in names])
        for frame in frames(stream, path, schema, reading):
            either = [pl.coalesce(*dict.fromkeys((name, name.replace("-", "_")))).alias(name) for name in USED]
            spelled = _spelled(frame.select("position", *either))
            skipped.take(spelled)
            yield from pairs.batches(_records(spelled, reading))
        yield from pairs.rest()
        yield from skipped.batches(pairs.devices)


class _Skipped:
    """Intervals of which AWS says that it did not log all: a gap of every device that the log shows."""

    def __init__(self, path: Path, reading: Reading) -> None:
        self._path, self._reading = path, reading
        self._gaps = pl.DataFrame(schema={"position": pl.Int64, "start": pl.Int64, "end": pl.Int64})

    def take(self, frame: pl.DataFrame) -> None:
        """Remember the intervals among the records; those whose times are none are left."""
        found = frame.filter(pl.col("log-status") == "SKIPDATA").select("position", "start", "end")
        timed = pl.col("start").is_between(0, LAST_SECOND) & pl.col("end").is_between(pl.col("start"), LAST_SECOND)
        gaps = found.filter(timed).head(max(MOST_GAPS - self._gaps.height, 0))
        self._reading.tally.left("an interval that AWS skipped", found.height - gaps.height)
        self._gaps = pl.concat([self._gaps, gaps])

    def batches(self, devices: Sequence[str]) -> Iterator[Batch]:
        """A LOGGING_GAP of each device in each interval."""
        shown = self._gaps.head(MOST_GAPS // len(devices) if devices else 0)
        self._reading.tally.left("an interval that AWS skipped", self._gaps.height - shown.height)
        if shown.is_empty():
            return
        rows = shown.join(pl.DataFrame({"device": devices}, {"device": pl.String}), how="cross")
        columns = {
            "device_uid": text(rows["device"]),
            "kind": int(SignalKind.LOGGING_GAP),
            "start_time": column(rows["start"] * 1_000_000),
            "end_time": column(rows["end"] * 1_000_000),
            "observability": int(Observability.OBSERVED),
            "detail": "SKIPDATA",
            "position": column(rows["position"]),
            **sensed(self._path, SKEW_BOUND_S),
        }
        found = [batch("signals", columns, length=rows.height)]
        self._reading.tally.gave(found)
        yield from found


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
    """The records as flow_pairs takes them; intervals without traffic are left."""
    status = pl.col("log-status")
    reading.tally.left("an interval without traffic", frame.filter(status == "NODATA").height)
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
