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

import numpy as np
import polars as pl
from numpy.typing import NDArray

from relaywatch.model.schemas import Observability
from relaywatch.model.tables import Batch
from relaywatch.sources.device_views import capture_batch, device_views, flow_batch, sound_ends, widen
from relaywatch.sources.reading import Reading
from relaywatch.sources.translations import inside_of, translation_batch

PAUSE_US: Final = 2_000_000
"""Records further apart are two connections: exporters split a flow at once, and ports come back after minutes."""
HELD_US: Final = 300_000_000
"""How long records wait for more of their connection: the usual longest timeouts of exporters."""
MOST_HELD: Final = 1_000_000
DEVICES_KEPT: Final = 100_000
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

TRANSLATED: Final = {
    "src_xlt_ip": pl.String,
    "src_xlt_port": pl.UInt16,
    "dst_xlt_ip": pl.String,
    "dst_xlt_port": pl.UInt16,
}
"""The ends on a translator's other side, where a record tells them."""


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
        """Connections that are complete. frame: COLUMNS, missing ones null; damaged records go to quarantine.

        Where the frame has TRANSLATED too, ends are as inside the translator, and the translations come along.
        """
        shown: list[Batch] = []
        if TRANSLATED.keys() <= set(frame.columns):
            known = {name: kind for name, kind in {**COLUMNS, **TRANSLATED}.items() if name in frame.columns}
            cast = frame.with_columns(pl.col(name).cast(kind, strict=False) for name, kind in known.items())
            frame, translations = inside_of(cast)
            if translations.height:
                shown = [translation_batch(translations, self._path, self._skew_bound_s)]
        missing = [pl.lit(None, kind).alias(name) for name, kind in COLUMNS.items() if name not in frame.columns]
        frame = frame.with_columns(*missing)
        frame = frame.select(pl.col(name).cast(kind, strict=False) for name, kind in COLUMNS.items())
        frame = self._sound(self._with_ends(frame))
        waiting = pl.concat([self._held, frame])
        if waiting.is_empty():
            return shown
        self._sampled = max(self._sampled, int(waiting["sampling"].fill_null(1).to_numpy().max()))
        pieces = _connections(waiting)
        end, connection = pieces["end"].to_numpy(), pieces["connection"].to_numpy()
        last = np.maximum.reduceat(end, np.flatnonzero(np.diff(connection, prepend=0)))
        open_ = pl.Series((last >= end.max() - HELD_US)[connection - 1])
        if open_.sum() > MOST_HELD:
            open_ = pl.repeat(value=False, n=len(open_), eager=True)
        self._held = pieces.filter(open_).select(list(COLUMNS))
        return shown + self._given(pieces.filter(~open_))

    @property
    def devices(self) -> list[str]:
        """The devices that the records have shown."""
        return sorted(self._spans)

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
        if not late.any():
            return frame.with_columns(ends.alias("end"))
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
    """The records by connection and time, with its number and whether src is the lower end of its key."""
    if records.is_empty():
        return records.with_columns(from_low=pl.lit(value=True), connection=pl.lit(0, pl.Int64))
    ends = pl.concat([records["src_ip"], records["dst_ip"]])
    distinct = ends.unique().sort()
    codes = ends.cast(pl.Enum(distinct)).to_physical().cast(pl.Int64).to_numpy()
    src, dst = codes[: records.height], codes[records.height :]
    src_port, dst_port = (records[name].fill_null(0).cast(pl.Int64).to_numpy() for name in ("src_port", "dst_port"))
    low = (src < dst) | ((src == dst) & (src_port <= dst_port))
    pair = np.where(low, src, dst) * len(distinct) + np.where(low, dst, src)
    ports = np.where(low, src_port << 16 | dst_port, dst_port << 16 | src_port)
    ordered = records.with_columns(
        pl.Series("from_low", low),
        pl.Series("pair", pair),
        pl.Series("ports", records["protocol"].cast(pl.Int64).to_numpy() << 32 | ports),
    ).sort("pair", "ports", "time", "position")
    return ordered.with_columns(pl.Series("connection", _numbered(ordered))).drop("pair", "ports")


def _numbered(ordered: pl.DataFrame) -> NDArray[np.int64]:
    """The connection of each record: a new one where the key changes, or all before it ended PAUSE_US earlier."""
    pair, ports, time, end = (ordered[name].to_numpy() for name in ("pair", "ports", "time", "end"))
    new_key = np.ones(len(pair), np.bool_)
    new_key[1:] = (pair[1:] != pair[:-1]) | (ports[1:] != ports[:-1])
    key = np.cumsum(new_key)
    until, step = end.copy(), 1
    while step < len(key) and bool((same := key[step:] == key[:-step]).any()):
        until[step:] = np.where(same, np.maximum(until[step:], until[:-step]), until[step:])
        step *= 2
    fresh = new_key.copy()
    fresh[1:] |= time[1:] > until[:-1] + PAUSE_US
    return np.cumsum(fresh)


def _whole(pieces: pl.DataFrame) -> pl.DataFrame:
    """One row a connection, as device_views takes it: src is who opened it. pieces: by connection."""
    sides = _by_side(pieces)
    ported = pieces.with_columns(pl.col("src_port", "dst_port").fill_null(0))
    ends = ported.filter(pieces["connection"].is_first_distinct()).select(
        "connection",
        "protocol",
        *(
            pl.when(pl.col("from_low") == lower).then(f"src_{name}").otherwise(f"dst_{name}").alias(f"{side}_{name}")
            for side, lower in (("low", True), ("high", False))
            for name in ("ip", "port")
        ),
    )
    low, high = (sides.filter(pl.col("from_low") == side).drop("from_low") for side in (True, False))
    both = ends.join(low, on="connection", how="left").join(high, on="connection", how="left", suffix="_back")
    low_first = (
        pl.when(pl.col("time").is_null() | pl.col("time_back").is_null() | (pl.col("time") == pl.col("time_back")))
        .then(pl.col("low_port") >= pl.col("high_port"))
        .otherwise(pl.col("time") < pl.col("time_back"))
    )

    def told(low_column: str, high_column: str, name: str) -> pl.Expr:
        return pl.when("low_first").then(low_column).otherwise(high_column).alias(name)

    return (
        both.with_columns(low_first.alias("low_first"))
        .select(
            pl.min_horizontal("position", "position_back").alias("position"),
            pl.min_horizontal("time", "time_back").alias("time"),
            pl.max_horizontal("end", "end_back").alias("end"),
            "protocol",
            *(told(f"low_{name}", f"high_{name}", f"src_{name}") for name in ("ip", "port")),
            *(told(f"high_{name}", f"low_{name}", f"dst_{name}") for name in ("ip", "port")),
            *(told(name, f"{name}_back", f"src_{name}") for name in ("bytes", "packets")),
            *(told(f"{name}_back", name, f"dst_{name}") for name in ("bytes", "packets")),
        )
        .sort("position")
    )


def _by_side(pieces: pl.DataFrame) -> pl.DataFrame:
    """What each side of a connection sent, by the exporter that saw most of it."""
    scale = pl.col("sampling").fill_null(1).clip(1)
    told = (
        (pl.col("bytes") * scale).sum().alias("bytes"),
        (pl.col("packets") * scale).sum().alias("packets"),
        pl.col("time").min(),
        pl.col("end").max(),
        pl.col("position").min(),
    )
    if pieces["exporter"].n_unique() <= 1:
        return pieces.group_by("connection", "from_low").agg(told)
    several = pieces.group_by("connection", "from_low", "exporter").agg(told)
    ranked = several.sort("bytes", "exporter", descending=True, nulls_last=True)
    return ranked.unique(["connection", "from_low"], keep="first", maintain_order=True).drop("exporter")
