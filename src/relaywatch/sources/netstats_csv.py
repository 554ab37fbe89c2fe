"""netstats buckets as CSV: what each uid sent and received in two hours, in the background and in front.

Columns: device, uid, set (0 background, 1 foreground, 1001 and 1002 into and out of a VPN), net_type, roaming, metered,
bucket_start_s, bucket_s, rx_bytes, rx_pkts, tx_bytes, tx_pkts; a derived form of AOSP's NetworkStatsCollection, one row
a bucket. Whole-uid volumes: no connection is known. uid -5 is tethering, a benign relay, and stays a uid of its own; -4
is apps that were removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

import polars as pl

from relaywatch.model.errors import SourceError
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.columns import LAST_SECOND, column, text
from relaywatch.sources.lines import Block, counted_blocks, delimited, typed
from relaywatch.sources.netstats_text import LAST_UID, PACKET_BYTES
from relaywatch.sources.reading import Head, Reading

SKEW_BOUND_S: Final = 2.0
LONGEST_S: Final = 40 * 86_400
COLUMNS: Final = ("device", "uid", "set", "bucket_start_s", "bucket_s", "rx_bytes", "rx_pkts", "tx_bytes", "tx_pkts")
_KINDS: Final[dict[str, type[pl.DataType]]] = {"uid": pl.Int32, **dict.fromkeys(COLUMNS[2:], pl.Int64)}
_SETS: Final = {0: "background", 1: "foreground", 1001: "vpn_in", 1002: "vpn_out"}
_COUNTS: Final = COLUMNS[5:]
MOST_COUNTED: Final = 10**17
"""Bytes or packets of one bucket: more is damage."""


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
            buckets = typed(frame, _KINDS, path, reading.quarantine, required=COLUMNS)
            buckets = buckets.rename({"bucket_start_s": "start", "bucket_s": "length"})
            kept = sound_buckets(buckets, 1, path, "line", reading.quarantine)
            if kept.height:
                found = [bucket_volumes(kept, 1, reading.device, path)]
                reading.tally.gave(found)
                yield from found


def _header(line: bytes) -> list[str]:
    return line.decode("utf-8", "replace").strip().split(",")


def sound_buckets(frame: pl.DataFrame, per_second: int, path: Path, place: str, quarantine: Quarantine) -> pl.DataFrame:
    """The buckets with a uid, a time, a length and counts that can be; the others go to quarantine.

    Columns: uid, set (numbers of AOSP's NetworkStats), start and length (`per_second` of them a second, since epoch),
    rx_bytes, rx_pkts, tx_bytes, tx_pkts, and position, which is named by `place`.
    """
    counts = pl.all_horizontal(pl.col(name).is_between(0, MOST_COUNTED) for name in _COUNTS)
    begin = pl.col("start").is_between(0, LAST_SECOND * per_second)
    length = pl.col("length").is_between(1, LONGEST_S * per_second)
    uid = pl.col("uid").is_between(-LAST_UID, LAST_UID)
    good = frame.select(ok=counts & begin & length & uid & pl.col("set").is_in(list(_SETS)))["ok"]
    for position in frame.filter(~good)["position"].to_list():
        quarantine.add(
            str(path), f"{place} {position}", "a bucket with a uid, time, length, set or count that cannot be"
        )
    return frame.filter(good)


def bucket_volumes(frame: pl.DataFrame, per_second: int, device: str, path: Path) -> Batch:
    """Whole-uid volumes of sound buckets; device: empty where the column of that name says it."""
    unit = 1_000_000 // per_second
    derived = frame.select(
        (pl.col("start") * unit).alias("start"),
        (pl.col("length") * unit).alias("length"),
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
