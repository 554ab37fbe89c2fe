"""What tests of simulated fleets share: a fleet's rows as one frame a table."""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from relaywatch.model.schemas import TABLES
from relaywatch.simulation.plan import Fault, Faults, Plan
from relaywatch.simulation.stream import simulate

NAMED = ("skew", "late", "duplicates", "gaps")


def tables(plan: Plan, rows: int = 65_536) -> dict[str, pa.Table]:
    """All rows of each table, in the order in which they came."""
    parts: dict[str, list[pa.RecordBatch]] = {name: [] for name in TABLES}
    for batch in simulate(plan, rows):
        parts[batch.table].append(batch.rows)
    return {name: pa.Table.from_batches(found, TABLES[name]) for name, found in parts.items()}


def frames(plan: Plan) -> dict[str, pl.DataFrame]:
    """The same as frames; text as text, times as us since epoch."""
    found = {name: pl.from_arrow(table) for name, table in tables(plan).items()}
    return {name: plain(frame) for name, frame in found.items()}


def plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Text as text, times as us since epoch."""
    instants = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)]
    return frame.with_columns(pl.col(instants).cast(pl.Int64), pl.col(pl.Categorical).cast(pl.String))


def faults(**rates: float) -> Faults:
    """Faults with these rates and the usual bounds."""
    usual = Faults().by_name()
    return Faults(**{name: Fault(rates.get(name, 0.0), usual[name].bound_s) for name in NAMED})
