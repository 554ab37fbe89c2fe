"""Writes a simulated fleet: its tables as files or as a stream, and who relays in it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Final

import polars as pl
import pyarrow as pa

from relaywatch.model.errors import RelaywatchError
from relaywatch.model.schemas import TABLES
from relaywatch.model.tables import Batch
from relaywatch.outputs.telemetry.plain_tables import write_parquet
from relaywatch.simulation.stream import Simulation

TABLES_FOLDER: Final = "telemetry"
TRUTH: Final = ("truth.json", "truth.parquet")
NOTE: Final = "synthetic: made by relaywatch simulate; no device, person, app or address in it is real"
_INSTANT: Final = "%Y-%m-%dT%H:%M:%S%.6fZ"


class Form(StrEnum):
    """How tables are written."""

    PARQUET = "parquet"
    NDJSON = "ndjson"
    ARROW = "arrow"


def write_fleet(simulation: Simulation, form: Form, folder: Path, told: Callable[[Batch], None]) -> list[Path]:
    """Write a fleet's tables into `folder`/telemetry and its truth beside them; the paths written.

    The files appear when all are whole. told: called with each batch before it is written. Raises RelaywatchError
    where the folder holds a fleet already, OSError where it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (TABLES_FOLDER, *TRUTH):
        if (folder / name).exists():
            raise RelaywatchError(f"{folder / name}: is there already. Give another folder, or take it away first.")
    with tempfile.TemporaryDirectory(prefix=".simulating-", dir=folder) as place:
        made = Path(place) / TABLES_FOLDER
        made.mkdir()
        written = _WRITERS[form](_heard(simulation.batches(), told), made)
        whole = made.rename(folder / TABLES_FOLDER)
    return [*(whole / path.name for path in written), *write_truth(simulation, folder)]


def write_stream(simulation: Simulation, form: Form, stream: BinaryIO, told: Callable[[Batch], None]) -> None:
    """Write a fleet to a stream: NDJSON of all tables, or flows alone as an Arrow IPC stream.

    Raises RelaywatchError for a form that is no stream.
    """
    if form is Form.PARQUET:
        raise RelaywatchError("--to parquet: cannot go to standard output. Give a folder, or --to arrow or ndjson.")
    batches = _heard(simulation.batches(), told)
    if form is Form.NDJSON:
        for batch in batches:
            _ndjson(batch, stream)
        return
    with pa.ipc.new_stream(stream, TABLES["flows"]) as writer:
        for batch in batches:
            if batch.table == "flows":
                writer.write_batch(batch.rows)


def write_truth(simulation: Simulation, folder: Path) -> list[Path]:
    """Write truth.json (the plan, and each relay) and truth.parquet (each episode of a relay)."""
    truth = simulation.truth()
    who = ("device_uid", "android_package", "android_uid", "topology", "program")
    spans = [pl.col("begin").min(), pl.col("end").max(), pl.col("sessions", "flows").sum()]
    relays = truth.group_by(who, maintain_order=True).agg(pl.len().alias("episodes"), *spans).sort(who)
    document = {
        "note": NOTE,
        "synthetic": True,
        "plan": simulation.plan.described(),
        "written": simulation.account.counted(),
        "relays": relays.with_columns(pl.col("begin", "end").dt.strftime(_INSTANT)).to_dicts(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in TRUTH]
    paths[0].write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    truth.write_parquet(paths[1])
    return paths


def _heard(batches: Iterable[Batch], told: Callable[[Batch], None]) -> Iterator[Batch]:
    for batch in batches:
        told(batch)
        yield batch


def _ndjson(batch: Batch, stream: BinaryIO) -> None:
    """A line a row; polars writes it, times as RFC 3339 in UTC."""
    frame = pl.from_arrow(batch.rows)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101  from_arrow of a batch is a frame; for the type checker
    instants = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)]
    frame = frame.with_columns(pl.col(instants).dt.strftime(_INSTANT))
    # Written from here, as a reader that goes away is then told as such.
    stream.write(frame.select(pl.lit(batch.table).alias("table"), pl.all()).write_ndjson().encode())


def _ndjson_file(batches: Iterable[Batch], folder: Path) -> list[Path]:
    path = folder / "records.ndjson"
    with path.open("wb") as stream:
        for batch in batches:
            _ndjson(batch, stream)
    return [path]


def _arrow_files(batches: Iterable[Batch], folder: Path) -> list[Path]:
    """`<table>.arrows` for each table that has rows: Arrow IPC streams."""
    writers: dict[str, Any] = {}
    with ExitStack() as stack:
        for batch in batches:
            if batch.table not in writers:
                path = folder / f"{batch.table}.arrows"
                writers[batch.table] = stack.enter_context(pa.ipc.new_stream(str(path), TABLES[batch.table]))
            writers[batch.table].write_batch(batch.rows)
    return [folder / f"{table}.arrows" for table in writers]


_WRITERS: Final[dict[Form, Callable[[Iterable[Batch], Path], list[Path]]]] = {
    Form.PARQUET: write_parquet,
    Form.NDJSON: _ndjson_file,
    Form.ARROW: _arrow_files,
}
