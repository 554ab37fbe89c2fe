"""What tests of fleets share: canonical tables as files, changed where a test asks for it, and hunts of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from relaywatch.detection.settings import Settings
from relaywatch.engines.local import Hunt, HuntResult, hunt
from relaywatch.governance.exceptions import Exceptions
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import TABLES
from relaywatch.model.tables import Batch
from relaywatch.simulation.plan import Fault, Faults, Plan
from relaywatch.simulation.stream import simulate
from relaywatch.sources.discovery import discover
from relaywatch.sources.reading import Reading

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PLAN = Hunt(Settings(), Exceptions(()), NOW)
FAULTY = Plan(
    devices=12,
    flows=24_000,
    days=2,
    seed=5,
    relays=0.02,
    volumes=0.3,
    signals=0.5,
    hot=True,
    shuffled=True,
    faults=Faults(
        skew=Fault(0.2, 300.0), late=Fault(0.2, 900.0), duplicates=Fault(0.05, 600.0), gaps=Fault(0.1, 3_600.0)
    ),
)
Tables = Mapping[str, pa.Table]


def simulated(plan: Plan = FAULTY) -> Tables:
    return _tables(simulate(plan, 65_536))


def read(folder: Path) -> Tables:
    """Telemetry of any format as canonical tables."""
    return _tables(part for unit in discover([folder]).units for part in unit.read(Reading(Quarantine())))


def _tables(batches: Iterable[Batch]) -> Tables:
    parts: dict[str, list[pa.RecordBatch]] = {name: [] for name in TABLES}
    for part in batches:
        parts[part.table].append(part.rows)
    return {name: pa.Table.from_batches(rows, TABLES[name]) for name, rows in parts.items() if rows}


def written(tables: Tables, folder: Path) -> Path:
    """A file for each table."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        pq.write_table(table.unify_dictionaries(), folder / f"{name}.parquet")
    return folder


def changed(tables: Tables, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Tables:
    """The tables with other flows."""
    frame = pl.DataFrame(tables["flows"])
    text = [name for name, kind in frame.schema.items() if kind == pl.Categorical]
    flows = change(frame.with_columns(pl.col(text).cast(pl.String)))
    return {**tables, "flows": flows.to_arrow().cast(TABLES["flows"])}


def local(folder: Path, plan: Hunt = PLAN) -> HuntResult:
    return hunt([folder], plan)
