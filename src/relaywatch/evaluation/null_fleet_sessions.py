"""Bouts of benign traffic, cut from labelled traces: what the null fleet's app-days are put together from.

A bout is what an app does between two silences: its flows and their volumes, with their own times to each other, bytes
and directions. A flow is never cut, except for a standing link (push, chat), which is silent most of the time: its part
of each bout is a piece, and the pieces of one app-day are one flow again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from relaywatch.model.errors import SourceError
from relaywatch.model.quarantine import Quarantine
from relaywatch.sources.lab import LabTrace
from relaywatch.sources.reading import Reading

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

QUIET_S: Final = 5
"""Silence of the whole app that ends a bout."""
STANDING_S: Final = 60
STANDING_SHARE: Final = 0.5
"""A flow that is silent for QUIET_S within itself stands if it lasts this long, and this share of its trace."""
SECOND: Final = 1_000_000
_FLOW_COLUMNS: Final = (
    "flow_id",
    "start_time",
    "end_time",
    "protocol_num",
    "direction_id",
    "direction_observability",
    "local_port",
    "remote_ip",
    "remote_port",
    "remote_hostname",
    "hostname_observability",
    "bytes_out",
    "bytes_in",
)
_VOLUME_COLUMNS: Final = ("flow_id", "start_time", "bytes_out", "bytes_in")


class Bouts(NamedTuple):
    """All bouts of some traces, trace after trace.

    frame: a row a bout: trace (number), amount (payload bytes, both ways), length_s, flows. pieces: a row a flow within
    a bout, bout after bout: flow (its number among all), standing, start and end in us after the bout's begin, address
    (number of the remote one), and the flow's other canonical columns. volumes: a row a second of a piece, piece after
    piece: second after the bout's begin, bytes_out, bytes_in. piece_bounds: pieces of bout k are rows piece_bounds[k]
    to piece_bounds[k + 1]; volume_bounds: volumes of a piece likewise. addresses: how many remote ones there are.
    """

    traces: tuple[str, ...]
    frame: pl.DataFrame
    pieces: pl.DataFrame
    volumes: pl.DataFrame
    piece_bounds: Ints
    volume_bounds: Ints
    addresses: int


class _Trace(NamedTuple):
    """One trace: flows (times in us since its begin) and volumes (seconds since its begin)."""

    flows: pl.DataFrame
    volumes: pl.DataFrame


def read_bouts(folders: Sequence[Path]) -> Bouts:
    """The bouts of benign traces, each a folder as the lab and the range write it.

    Raises SourceError where a trace holds no flow, or there are no traces.
    """
    if not folders:
        raise SourceError("", "no benign trace to draw from.", remedy="Name a lab with traces/ and truth/.")
    cuts = [_cut(_read(folder)) for folder in folders]
    flows_before = np.cumsum([0, *(cut.flow_count for cut in cuts)])
    bouts_before = np.cumsum([0, *(cut.frame.height for cut in cuts)])
    pieces_before = np.cumsum([0, *(cut.pieces.height for cut in cuts)])
    frame = pl.concat(cut.frame.with_columns(pl.lit(k).alias("trace")) for k, cut in enumerate(cuts))
    pieces = pl.concat(
        cut.pieces.with_columns(
            pl.col("flow") + int(flows_before[k]), pl.col("bout") + int(bouts_before[k]), pl.lit(k).alias("trace")
        )
        for k, cut in enumerate(cuts)
    )
    pieces = pieces.with_columns((pl.col("remote_ip").rank("dense") - 1).cast(pl.Int64).alias("address"))
    volumes = pl.concat(cut.volumes.with_columns(pl.col("piece") + int(pieces_before[k])) for k, cut in enumerate(cuts))
    return Bouts(
        tuple(folder.name for folder in folders),
        frame,
        pieces,
        volumes.drop("piece"),
        np.searchsorted(pieces["bout"].to_numpy(), np.arange(frame.height + 1)),
        np.searchsorted(volumes["piece"].to_numpy(), np.arange(pieces.height + 1)),
        pieces["address"].n_unique(),
    )


def _read(folder: Path) -> _Trace:
    """The trace through the product's own reader, from the begin of its first second."""
    batches: dict[str, list[pa.RecordBatch]] = {"flows": [], "volumes": []}
    for batch in LabTrace().read(folder, Reading(Quarantine())):
        if batch.table in batches:
            batches[batch.table].append(batch.rows)
    if not any(rows.num_rows for rows in batches["flows"]):
        raise SourceError(folder, "holds no flows.", remedy="Give a folder with flows.csv and bins.parquet.")
    flows = _frame(batches["flows"], _FLOW_COLUMNS)
    begin = flows["start_time"].min() // SECOND * SECOND  # type: ignore[operator]  # of integers, never empty
    end = pl.max_horizontal(pl.col("end_time").fill_null(pl.col("start_time")), "start_time")
    flows = flows.with_columns(pl.col("start_time") - begin, end - begin).sort("start_time", "flow_id")
    volumes = (
        _frame(batches["volumes"], _VOLUME_COLUMNS)
        .with_columns((pl.col("start_time") - begin) // SECOND)
        .filter(pl.col("bytes_out") + pl.col("bytes_in") > 0)
        .join(flows.select("flow_id"), on="flow_id", how="semi")
        .rename({"start_time": "second"})
    )
    return _Trace(flows, volumes)


def _frame(batches: Sequence[pa.RecordBatch], columns: Sequence[str]) -> pl.DataFrame:
    """The columns as a frame; times as us since epoch, repeated text as text."""
    if not batches:
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.Int64))
    frame = pl.from_arrow(pa.Table.from_batches(batches).select(list(columns)))
    assert isinstance(frame, pl.DataFrame)  # noqa: S101  from_arrow of a Table is a frame; for the type checker
    instants = [name for name, kind in frame.schema.items() if kind == pl.Datetime("us", "UTC")]
    texts = [name for name, kind in frame.schema.items() if kind == pl.Categorical]
    return frame.with_columns(pl.col(instants).cast(pl.Int64), pl.col(texts).cast(pl.String))


class _Cut(NamedTuple):
    """One trace's bouts; numbers of bouts, pieces and flows count within the trace."""

    frame: pl.DataFrame
    pieces: pl.DataFrame
    volumes: pl.DataFrame
    flow_count: int


def _cut(trace: _Trace) -> _Cut:
    flows = _with_standing(trace)
    marks = _numbered(_marks(flows, trace.volumes))
    origin = marks.group_by("bout").agg((pl.col("begin").min() // SECOND).alias("origin"))
    pieces = _pieces(flows, trace.volumes, marks).join(origin, on="bout").sort("bout", "start", "flow_id")
    shift = pl.col("origin") * SECOND
    pieces = pieces.with_row_index("piece").with_columns(
        pl.col("start") - shift, pl.col("end") - shift, pl.col("piece").cast(pl.Int64)
    )
    volumes = (
        _bout_of_volumes(flows, trace.volumes, marks)
        .join(pieces.select("piece", "bout", "flow_id", "origin"), on=["bout", "flow_id"])
        .select("piece", pl.col("second") - pl.col("origin"), "bytes_out", "bytes_in")
        .sort("piece", "second")
    )
    ends = marks.group_by("bout").agg(pl.col("until").max())
    frame = (
        pieces.group_by("bout")
        .agg((pl.col("bytes_out") + pl.col("bytes_in")).sum().alias("amount"), pl.len().cast(pl.Int64).alias("flows"))
        .join(ends, on="bout")
        .join(origin, on="bout")
        .sort("bout")
        .select("amount", "flows", (pl.col("until") // SECOND + 1 - pl.col("origin")).alias("length_s"))
    )
    return _Cut(frame, pieces.drop("piece", "flow_id", "origin"), volumes, flows.height)


def _with_standing(trace: _Trace) -> pl.DataFrame:
    """The flows with `flow` (number), `active` (us, end of what they carry) and `standing`."""
    carried = (
        trace.volumes.sort("flow_id", "second")
        .group_by("flow_id")
        .agg(pl.col("second").max().alias("last"), pl.col("second").diff().max().alias("gap"))
    )
    flows = trace.flows.join(carried, on="flow_id", how="left", maintain_order="left").with_row_index("flow")
    last = (pl.col("last") + 1) * SECOND
    flows = flows.with_columns(
        pl.max_horizontal("start_time", last).alias("active"), pl.col("flow").cast(pl.Int64), pl.col("gap").fill_null(0)
    )
    least = max(STANDING_S * SECOND, STANDING_SHARE * float(flows["active"].max() - flows["start_time"].min()))  # type: ignore[operator,arg-type]
    stands = (pl.col("active") - pl.col("start_time") >= least) & (pl.col("gap") > QUIET_S)
    return flows.with_columns(stands.alias("standing")).drop("last", "gap")


def _marks(flows: pl.DataFrame, volumes: pl.DataFrame) -> pl.DataFrame:
    """Times at which the app is active: flow_id, begin, until (us). Whole flows, but standing ones by second."""
    whole = flows.filter(~pl.col("standing")).select("flow_id", begin="start_time", until="active")
    standing = flows.filter("standing")
    opened = standing.select("flow_id", begin="start_time", until="start_time")
    seconds = volumes.join(standing.select("flow_id", "start_time"), on="flow_id").select(
        "flow_id",
        begin=pl.max_horizontal(pl.col("second") * SECOND, "start_time"),
        until=(pl.col("second") + 1) * SECOND,
    )
    return pl.concat([whole, opened, seconds]).sort("begin", "until", "flow_id")


def _numbered(marks: pl.DataFrame) -> pl.DataFrame:
    """The marks with the number of their bout: a new one where nothing before lasted until QUIET_S before."""
    before = pl.col("until").cum_max().shift(1)
    fresh = (pl.col("begin") > before + QUIET_S * SECOND).fill_null(value=False)
    return marks.with_columns(fresh.cum_sum().cast(pl.Int64).alias("bout"))


def _bout_of_volumes(flows: pl.DataFrame, volumes: pl.DataFrame, marks: pl.DataFrame) -> pl.DataFrame:
    """The volumes with their bout: that of their flow, or of their second where it stands."""
    volumes = volumes.join(flows.select("flow_id", "standing", "start_time"), on="flow_id")
    at = pl.max_horizontal(pl.col("second") * SECOND, "start_time").alias("begin")
    whole = marks.group_by("flow_id").agg(pl.col("bout").first())
    return pl.concat(
        [
            volumes.filter(~pl.col("standing")).join(whole, on="flow_id").drop("start_time", "standing"),
            volumes.filter("standing")
            .with_columns(at)
            .join(marks.unique(["flow_id", "begin"]), on=["flow_id", "begin"])
            .drop("start_time", "standing", "begin", "until"),
        ]
    )


def _pieces(flows: pl.DataFrame, volumes: pl.DataFrame, marks: pl.DataFrame) -> pl.DataFrame:
    """The flows by bout: whole with their own bytes and end; a standing one's piece with the volumes of its bout."""
    kept = flows.rename({"start_time": "start", "end_time": "end"}).drop("active")
    whole = kept.filter(~pl.col("standing")).join(marks.group_by("flow_id").agg(pl.col("bout").first()), on="flow_id")
    part = (
        _bout_of_volumes(flows, volumes, marks)
        .group_by("flow_id", "bout")
        .agg(pl.col("bytes_out").sum(), pl.col("bytes_in").sum())
    )
    spans = marks.group_by("flow_id", "bout").agg(start=pl.col("begin").min(), end=pl.col("until").max())
    standing = (
        kept.filter("standing")
        .drop("start", "end", "bytes_out", "bytes_in")
        .join(spans, on="flow_id")
        .join(part, on=["flow_id", "bout"], how="left")
        .with_columns(pl.col("bytes_out", "bytes_in").fill_null(0))
    )
    return pl.concat([whole, standing.select(whole.columns)]).with_columns(pl.col("bytes_out", "bytes_in").fill_null(0))
