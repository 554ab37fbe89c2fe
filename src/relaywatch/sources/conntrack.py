"""Translations as Linux logs them: `conntrack -E -o timestamp`, the events of a router's connection tracking.

Format: conntrack-tools' text of an event: its time, [NEW], [UPDATE] or [DESTROY], protocol, then the ends as the first
packet had them and as a reply has them. Where the two do not mirror each other, an address or port was changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

import numpy as np
import polars as pl

from relaywatch.model.tables import Batch
from relaywatch.sources.columns import microseconds
from relaywatch.sources.lines import Block, counted_blocks
from relaywatch.sources.reading import Head, Reading
from relaywatch.sources.translations import TranslationLog

SKEW_BOUND_S: Final = 1.0
"""A router's clock under NTP."""
PROBED_LINES: Final = 20
_EVENT: Final = r"^\s*\[\d{1,12}(?:\.\d{1,9})?\]\s+\[(?:NEW|UPDATE|DESTROY)\]\s+(?:ipv[46]\s+\d+\s+)?\w+\s+\d{1,3}\s"
_HEAD: Final = re.compile(_EVENT.encode(), re.MULTILINE)
_ENDS: Final = r"src=([0-9a-fA-F.:]+) dst=([0-9a-fA-F.:]+) sport=(\d{1,5}) dport=(\d{1,5})"
_LINE: Final = (
    r"^\s*\[(\d{1,12}(?:\.\d{1,9})?)\]\s+\[(NEW|UPDATE|DESTROY)\]\s+(?:ipv[46]\s+\d+\s+)?\w+\s+(\d{1,3})\s[^=]*?"
    + _ENDS
    + r"\s.*?"
    + _ENDS
    + r"(?:\s|$)"
)
_PORTLESS: Final = _EVENT + r"[^=]*src=\S+ dst=\S+ .*src=\S+ dst=\S+"
_GROUPS: Final = (
    *("time", "event", "protocol", "src", "dst", "sport", "dport"),
    *("reply_src", "reply_dst", "reply_sport", "reply_dport"),
)


class Conntrack:
    """One log of events."""

    name: ClassVar[str] = "conntrack"

    @staticmethod
    def fits(head: Head) -> bool:
        """One of the first lines is an event with its time."""
        return any(_HEAD.match(line) for line in head.content.split(b"\n", PROBED_LINES)[:PROBED_LINES])

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Translations as they end, then those that are open."""
        log = TranslationLog(path, reading, SKEW_BOUND_S)
        for block in counted_blocks(stream, path, reading):
            yield from log.batches(_events(block, path, reading))
        yield from log.rest()


def _events(block: Block, path: Path, reading: Reading) -> pl.DataFrame:
    """The block's begins and ends of translations."""
    written = pl.Series("line", block.content.decode("utf-8", "replace").split("\n")[:-1])
    numbers = np.arange(block.first_line, block.first_line + len(written))
    frame = pl.DataFrame({"position": numbers, "line": written}).filter(pl.col("line").str.strip_chars() != "")
    reading.tally.met(frame.height)
    parts = frame["line"].str.extract_groups(_LINE).struct.unnest()
    events = pl.concat([frame, parts.rename(dict(zip(parts.columns, _GROUPS, strict=True)))], how="horizontal")
    events = events.with_columns(
        pl.col("protocol").cast(pl.UInt8, strict=False),
        microseconds(pl.col("time").cast(pl.Float64, strict=False)).alias("time"),
        *(pl.col(name).cast(pl.UInt16, strict=False) for name in ("sport", "dport", "reply_sport", "reply_dport")),
    )
    taken = _without(events, path, reading)
    source = (pl.col("src") != pl.col("reply_dst")) | (pl.col("sport") != pl.col("reply_dport"))
    ends = {
        "inside_ip": ("src", "reply_src"), "inside_port": ("sport", "reply_sport"),
        "outside_ip": ("reply_dst", "dst"), "outside_port": ("reply_dport", "dport"),
    }  # fmt: skip
    return taken.select(
        "position",
        "time",
        (pl.col("event") == "NEW").alias("opens"),
        "protocol",
        *(pl.when(source).then(one).otherwise(other).alias(name) for name, (one, other) in ends.items()),
    )


def _without(events: pl.DataFrame, path: Path, reading: Reading) -> pl.DataFrame:
    """The begins and ends of translations; what is none is left or, where it is no event, put aside."""
    unread = events["event"].is_null()
    portless = unread & events["line"].str.contains(_PORTLESS) & ~events["line"].str.contains("sport=", literal=True)
    reading.tally.left("a connection of a protocol without ports", int(portless.sum()))
    for position in events.filter(unread & ~portless)["position"].to_list():
        reading.quarantine.add(
            str(path), f"line {position}", "no event as conntrack -E -o timestamp writes it; log with -o timestamp"
        )
    events = events.filter(~unread)
    plain = (
        (events["src"] == events["reply_dst"])
        & (events["sport"] == events["reply_dport"])
        & (events["dst"] == events["reply_src"])
        & (events["dport"] == events["reply_sport"])
    ).fill_null(value=False)
    reading.tally.left("a connection that is not translated", int(plain.sum()))
    more = ~plain & (events["event"] == "UPDATE")
    reading.tally.left("more of a translation", int(more.sum()))
    return events.filter(~plain & ~more)
