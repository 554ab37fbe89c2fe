"""netstats buckets as CSV: what each uid sent and received in two hours, in the background and in front.

Columns: device, uid, set (0 background, 1 foreground), net_type, roaming, metered, bucket_start_s, bucket_s, rx_bytes,
rx_pkts, tx_bytes, tx_pkts; a derived form of AOSP's NetworkStatsCollection, one row a bucket. Whole-uid volumes: no
connection is known. uid -5 is tethering, a benign relay, and stays a uid of its own; -4 is apps that were removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

import polars as pl

from relaywatch.model.errors import SourceError
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.columns import LAST_SECOND, column, text
from relaywatch.sources.lines import Block, counted_blocks, delimited, typed
from relaywatch.sources.reading import Head, Reading

SKEW_BOUND_S: Final = 2.0
LONGEST_S: Final = 40 * 86_400
COLUMNS: Final = ("device", "uid", "set", "bucket_start_s", "bucket_s", "rx_bytes", "rx_pkts", "tx_bytes", "tx_pkts")
_KINDS: Final[dict[str, type[pl.DataType]]] = {"uid": pl.Int32, **dict.fromkeys(COLUMNS[2:], pl.Int64)}
_SETS: Final = {0: "background", 1: "foreground"}
PACKET_BYTES: Final = 40
"""Headers of a TCP packet over IPv4: netstats counts IP bytes."""


class NetstatsCsv:
    """One CSV of buckets of one or more devices."""

    name: ClassVar[str] = "netstats-csv"

    @staticmethod
    def fits(head: Head) -> bool:
        """A header line with these columns."""
        return set(COLUMNS) <= set(_header(head.content.partition(b"\n")[0]))

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Volumes in file order."""
        header: list[str] | None = None
        for block in counted_blocks(stream, path, reading):
            if header is None:
                first, _, rest = block.content.partition(b"\n")
                header = _header(first)
                if len(set(header)) != len(header):
                    raise SourceError(path, "the header repeats columns.", position="line 1")
                block = Block(block.first_line + 1, rest)
            before = reading.quarantine.total
            frame = delimited(block, header, ",", path, reading.quarantine, used=COLUMNS)
            reading.tally.met(frame.height + reading.quarantine.total - before)
            kept = _sound(typed(frame, _KINDS, path, reading.quarantine, required=COLUMNS), path, reading)
            if kept.height:
                found = [_volumes(kept, reading.device, path)]
                reading.tally.gave(found)
                yield from found


def _header(line: bytes) -> list[str]:
    return line.decode("utf-8", "replace").strip().split(",")


def _sound(frame: pl.DataFrame, path: Path, reading: Reading) -> pl.DataFrame:
    """The buckets with a time, a length and counts that can be; the others go to quarantine."""
    counts = pl.all_horizontal(pl.col(name) >= 0 for name in COLUMNS[5:])
    begin = pl.col("bucket_start_s").is_between(0, LAST_SECOND)
    good = frame.select(
        ok=counts & begin & pl.col("bucket_s").is_between(1, LONGEST_S) & pl.col("set").is_in(list(_SETS))
    )["ok"]
    for position in frame.filter(~good)["position"].to_list():
        reading.quarantine.add(
            str(path), f"line {position}", "a bucket with a time, length, set or count that cannot be"
        )
    return frame.filter(good)


def _volumes(frame: pl.DataFrame, device: str, path: Path) -> Batch:
    derived = frame.select(
        (pl.col("bucket_start_s") * 1_000_000).alias("start"),
        (pl.col("bucket_s") * 1_000_000).alias("length"),
        (pl.col("tx_bytes") - pl.col("tx_pkts") * PACKET_BYTES).clip(0).alias("out"),
        (pl.col("rx_bytes") - pl.col("rx_pkts") * PACKET_BYTES).clip(0).alias("in"),
        pl.col("set").replace_strict(_SETS, return_dtype=pl.String).alias("set"),
    )
    columns = {
        "device_uid": device or text(frame["device"]),
        "android_uid": column(frame["uid"]),
        "start_time": column(derived["start"]),
        "duration_us": column(derived["length"]),
        "bytes_out": column(derived["out"]),
        "bytes_in": column(derived["in"]),
        "packets_out": column(frame["tx_pkts"]),
        "packets_in": column(frame["rx_pkts"]),
        "android_set": text(derived["set"]),
        "source": str(path),
        "position": column(frame["position"]),
        "clock": "device",
        "clock_skew_bound_s": SKEW_BOUND_S,
    }
    return batch("volumes", columns, length=frame.height)
