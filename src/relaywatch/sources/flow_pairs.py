"""One-directional flow records put together: both directions, and the pieces that a long connection was cut into.

Exporters write one record a direction, and cut long flows at an active timeout. Records of one 5-tuple (either way
round) that follow each other within PAUSE_US are one connection. Who opened it is inferred: who sent first, else who
uses the port that looks like a client's. A direction of which there is no record is not known, not zero. Where several
exporters saw a direction, the fullest account counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import polars as pl

from relaywatch.model.schemas import Observability
from relaywatch.model.tables import Batch
from relaywatch.sources.device_views import capture_batch, device_views, flow_batch, sound_ends, widen
from relaywatch.sources.reading import Reading

PAUSE_US: Final = 2_000_000
"""Records further apart are two connections: exporters split a flow at once, and ports come back after minutes."""
HELD_US: Final = 300_000_000
"""How long records wait for more of their connection: the usual longest timeouts of exporters."""
MOST_HELD: Final = 1_000_000
DEVICES_KEPT: Final = 100_000
_KEY: Final = ("protocol", "low_ip", "low_port", "high_ip", "high_port")
COLUMNS: Final = {
    "position": pl.Int64,
    "time": pl.Int64,
    "end": pl.Int64,
    "protocol": pl.UInt8,
    "src_ip": pl.String,
    "src_port": pl.UInt16,
    "dst_ip": pl.String,
    "dst_port": pl.UInt16,
    "bytes": pl.Int64,
    "packets": pl.Int64,
    "exporter": pl.String,
    "sampling": pl.Int64,
}
"""A record: times in us since epoch, IP bytes and packets from src to dst; sampling: 1 of so many packets."""


class FlowPairs:
    """Takes records frame by frame and gives connections as devices see them.

    thinned: to be set where the source says that packets were sampled, and not at which rate.
    """

    def __init__(self, path: Path, reading: Reading, skew_bound_s: float, *, place: str = "line") -> None:
        self._path, self._reading, self._skew_bound_s, self._place = path, reading, skew_bound_s, place
        self._held = pl.DataFrame(schema=COLUMNS)
        self._spans: dict[str, tuple[int, int]] = {}
        self._sampled = 1
        self.thinned = False

    def batches(self, frame: pl.DataFrame) -> list[Batch]:
        """Connections that are complete. frame: COLUMNS, missing ones null; damaged records go to quarantine."""
        missing = [pl.lit(None, kind).alias(name) for name, kind in COLUMNS.items() if name not in frame.columns]
        frame = frame.with_columns(*missing)
        frame = frame.select(pl.col(name).cast(kind, strict=False) for name, kind in COLUMNS.items())
        frame = self._sound(self._with_ends(frame))
        waiting = pl.concat([self._held, frame])
        if waiting.is_empty():
            return []
        self._sampled = max(self._sampled, int(waiting["sampling"].fill_null(1).to_numpy().max()))
        pieces = _connections(waiting)
        last = pl.col("end").max().over("connection")
        open_ = pieces.filter(last >= int(waiting["end"].to_numpy().max()) - HELD_US)
        if open_.height > MOST_HELD:
            open_ = open_.clear()
        done = pieces.join(open_.select("connection").unique(), on="connection", how="anti", maintain_order="left")
        self._held = open_.select(list(COLUMNS))
        return self._given(done)

    def rest(self) -> Iterator[Batch]:
        """What waited, and what was watched."""
        yield from self._given(_connections(self._held))
        if self._spans:
            rate = f"sampled 1:{self._sampled}" if self._sampled > 1 else ""
            detail = rate or ("sampled, at a rate that is not stated" if self.thinned else "")
            yield capture_batch(self._spans, self._path, self._skew_bound_s, detail)

    def _with_ends(self, frame: pl.DataFrame) -> pl.DataFrame:
        """As sound_ends(); a record that counts both directions, and so has two rows, is put aside once."""
        again = pl.Series(frame["position"].is_first_distinct().not_())
        first = sound_ends(frame.filter(~again), self._path, self._reading, place=self._place)
        if not again.any():
            return first
        back = frame.filter(again).join(first.select("position"), on="position", how="semi")
        return pl.concat([first, sound_ends(back, self._path, self._reading, place=self._place)])

    def _sound(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The records with an end not before their begin, and counts that are none or not negative."""
        ends = frame["end"].fill_null(frame["time"])
        late = ends < frame["time"]
        for name in ("bytes", "packets"):
            late = late | (frame[name] < 0).fill_null(value=False)
        wrong = frame.filter(late)["position"].unique(maintain_order=True)
        for position in wrong.to_list():
            self._reading.quarantine.add(
                str(self._path), f"{self._place} {position}", "it ends before it begins, or counts below zero"
            )
        return frame.with_columns(ends.alias("end")).filter(~pl.col("position").is_in(wrong.implode()))

    def _given(self, pieces: pl.DataFrame) -> list[Batch]:
        if pieces.is_empty():
            return []
        whole = _whole(pieces)
        more = pieces["position"].n_unique() - whole["position"].n_unique()
        self._reading.tally.left("more of a connection, or its other direction", more)
        views = device_views(whole, self._reading.device)
        widen(self._spans, views)
        found = [flow_batch(views, self._path, self._skew_bound_s, direction=Observability.INFERRED)]
        self._reading.tally.gave(found)
        if len(self._spans) > DEVICES_KEPT:
            found.append(capture_batch(self._spans, self._path, self._skew_bound_s))
            self._spans.clear()
        return found


def _connections(records: pl.DataFrame) -> pl.DataFrame:
    """The records with the connection that each belongs to, and whether src is the lower end of its key."""
    port = pl.col("src_port").fill_null(0), pl.col("dst_port").fill_null(0)
    low = (pl.col("src_ip") < pl.col("dst_ip")) | ((pl.col("src_ip") == pl.col("dst_ip")) & (port[0] <= port[1]))
    keyed = records.with_columns(
        low.alias("from_low"),
        pl.when(low).then("src_ip").otherwise("dst_ip").alias("low_ip"),
        pl.when(low).then(port[0]).otherwise(port[1]).alias("low_port"),
        pl.when(low).then("dst_ip").otherwise("src_ip").alias("high_ip"),
        pl.when(low).then(port[1]).otherwise(port[0]).alias("high_port"),
    ).sort(*_KEY, "time", "position")
    until = pl.col("end").cum_max().shift(1).over(_KEY)
    fresh = until.is_null() | (pl.col("time") > until + PAUSE_US)
    return keyed.with_columns(fresh.alias("fresh")).with_columns(pl.col("fresh").cum_sum().alias("connection"))


def _whole(pieces: pl.DataFrame) -> pl.DataFrame:
    """One row a connection, as device_views takes it: src is who opened it."""
    scale = pl.col("sampling").fill_null(1).clip(1)
    by_side = pieces.group_by("connection", "from_low", "exporter").agg(
        (pl.col("bytes") * scale).sum().alias("bytes"),
        (pl.col("packets") * scale).sum().alias("packets"),
        pl.col("time").min(),
        pl.col("end").max(),
        pl.col("position").min(),
    )
    ranked = by_side.sort("bytes", "exporter", descending=True, nulls_last=True)
    fullest = ranked.unique(["connection", "from_low"], keep="first", maintain_order=True)
    ends = pieces.group_by("connection").agg(pl.col(name).first() for name in _KEY)
    low, high = (fullest.filter(pl.col("from_low") == side).drop("from_low", "exporter") for side in (True, False))
    both = ends.join(low, on="connection", how="left").join(high, on="connection", how="left", suffix="_back")
    low_first = (
        pl.when(pl.col("time").is_null() | pl.col("time_back").is_null() | (pl.col("time") == pl.col("time_back")))
        .then(pl.col("low_port") >= pl.col("high_port"))
        .otherwise(pl.col("time") < pl.col("time_back"))
    )
    opened = {True: ("low", "", "high", "_back"), False: ("high", "_back", "low", "")}
    rows = []
    for first, (source, own, other, back) in opened.items():
        rows.append(
            both.filter(low_first == first).select(
                pl.min_horizontal("position", "position_back").alias("position"),
                pl.min_horizontal("time", "time_back").alias("time"),
                pl.max_horizontal("end", "end_back").alias("end"),
                "protocol",
                pl.col(f"{source}_ip").alias("src_ip"),
                pl.col(f"{source}_port").alias("src_port"),
                pl.col(f"{other}_ip").alias("dst_ip"),
                pl.col(f"{other}_port").alias("dst_port"),
                pl.col(f"bytes{own}").alias("src_bytes"),
                pl.col(f"packets{own}").alias("src_packets"),
                pl.col(f"bytes{back}").alias("dst_bytes"),
                pl.col(f"packets{back}").alias("dst_packets"),
            )
        )
    return pl.concat(rows).sort("position")
