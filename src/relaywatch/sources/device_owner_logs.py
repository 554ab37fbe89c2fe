"""Network logs as device owners export them: TestDPC's text lines, and OwnDroid's JSON.

Formats: ConnectEvent.toString() and DnsEvent.toString() of AOSP android.app.admin, one a line, as TestDPC writes them
to network_logs_*.txt; OwnDroid's NetworkLogs.json, which names no package.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

import polars as pl
import pyarrow as pa

from relaywatch.model.tables import Batch
from relaywatch.sources.android_events import EventNames, connect_batches, lookup_batches, sound_times
from relaywatch.sources.json_records import first_records, frames
from relaywatch.sources.lines import Block, counted_blocks
from relaywatch.sources.reading import Head, Reading

PROBED_LINES: Final = 20
_CONNECT: Final = r"^ConnectEvent\(([^,\s]{1,300}), (\d{1,5}), (\d{1,15}), ([^,()\s]{1,255})\)$"
_DNS: Final = r"^DnsEvent\(([^,\s]{1,300}), (.{0,2000}), (\d{1,6}), (\d{1,15}), ([^,()\s]{1,255})\)$"
_EITHER: Final = re.compile(rb"(?:ConnectEvent|DnsEvent)\(")
SCHEMA: Final = pa.schema(
    {
        "type": pa.string(),
        "timestamp": pa.int64(),
        "host_name": pa.string(),
        "addresses": pa.list_(pa.string()),
        "address": pa.string(),
        "port": pa.int64(),
    }
)


class TestDpcLogs:
    """One file of TestDPC. The device is named by --device, or by the file's stem."""

    name: ClassVar[str] = "test-dpc"
    __test__ = False  # a reader, whatever its name begins with

    @staticmethod
    def fits(head: Head) -> bool:
        """One of the first lines is a ConnectEvent or a DnsEvent."""
        return any(_EITHER.match(line) for line in head.content.split(b"\n", PROBED_LINES)[:PROBED_LINES])

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Flows and look-ups in file order."""
        device, names = _device(path, reading), EventNames()
        for block in counted_blocks(stream, path, reading):
            yield from _events(_split(block, device, path, reading), path, reading, names)


class OwnDroidLogs:
    """One NetworkLogs.json: no app is named in it."""

    name: ClassVar[str] = "owndroid"

    @staticmethod
    def fits(head: Head) -> bool:
        """A record of type dns or connect with a timestamp and the fields of either."""
        return any(
            record.get("type") in ("dns", "connect")
            and "timestamp" in record
            and {"host_name", "address"} & record.keys()
            for record in first_records(head)
        )

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Flows and look-ups in file order."""
        device, names = _device(path, reading), EventNames()
        for frame in frames(stream, path, SCHEMA, reading):
            known = pl.col("type").is_in(["dns", "connect"]).fill_null(value=False)
            reading.tally.left("no event of a known kind", frame.filter(~known).height)
            told = frame.filter(known).select(
                "position",
                pl.lit(device).alias("device"),
                (pl.col("timestamp") * 1_000).alias("time"),
                pl.lit("").alias("package"),
                pl.when(pl.col("type") == "dns").then(pl.col("host_name").fill_null("")).alias("hostname"),
                "addresses",
                "address",
                "port",
            )
            yield from _events(told, path, reading, names)


def _device(path: Path, reading: Reading) -> str:
    return reading.device or path.name.partition(".")[0]


def _split(block: Block, device: str, path: Path, reading: Reading) -> pl.DataFrame:
    """The block's lines as events; lines that are none go to quarantine."""
    lines = pl.Series("line", block.content.decode("utf-8", "replace").split("\n")[:-1], dtype=pl.String)
    frame = pl.DataFrame({"line": lines.str.strip_chars()}).with_row_index("position", offset=block.first_line)
    frame = frame.filter(pl.col("line") != "").with_columns(pl.col("position").cast(pl.Int64))
    reading.tally.met(frame.height)
    connect, dns = (pl.col("line").str.extract_groups(pattern).struct for pattern in (_CONNECT, _DNS))
    told = frame.select(
        "position",
        pl.lit(device).alias("device"),
        (pl.coalesce(connect.field("3"), dns.field("4")).cast(pl.Int64, strict=False) * 1_000).alias("time"),
        pl.coalesce(connect.field("4"), dns.field("5")).alias("package"),
        dns.field("1").alias("hostname"),
        dns.field("2").str.split(" ").alias("addresses"),
        connect.field("1").alias("address"),
        connect.field("2").cast(pl.Int64, strict=False).alias("port"),
    )
    none = told["package"].is_null()
    for position in told.filter(none)["position"].to_list():
        reading.quarantine.add(str(path), f"line {position}", "no ConnectEvent or DnsEvent as Android prints it")
    return told.filter(~none)


def _events(told: pl.DataFrame, path: Path, reading: Reading, names: EventNames) -> list[Batch]:
    """Rows of the events; a hostname tells a look-up from a connect."""
    events = sound_times(told, path, reading)
    lookups = events.filter(pl.col("hostname").is_not_null())
    connects = events.filter(pl.col("hostname").is_null())
    keyed = connects.with_columns(pl.struct("device", "time", "package", "address", "port").hash().alias("key"))
    found = [*lookup_batches(lookups, path, names), *connect_batches(keyed, path, reading, names)]
    reading.tally.gave(found)
    return found
