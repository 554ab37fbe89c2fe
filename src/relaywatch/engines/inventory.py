"""Inventory rows as they come, and as findings ask for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl
import pyarrow as pa

from relaywatch.model.schemas import INVENTORY

ByPlace = Mapping[tuple[str, str], Mapping[str, Any]]
"""What is known by (device, package or "")."""
_PROVENANCE = ("source", "position", "clock", "clock_skew_bound_s")
MERGED_AT = 1_000_000
"""Rows held before repeated ones are left out."""


class InventoryRows:
    """Inventory rows, repeated ones once."""

    def __init__(self) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._rows = 0
        self._index: ByPlace | None = None

    def add(self, rows: pa.RecordBatch) -> None:
        """Take rows in."""
        self._batches.append(rows)
        self._rows += rows.num_rows
        self._index = None
        if self._rows > MERGED_AT:
            told = [name for name in INVENTORY.names if name not in _PROVENANCE]
            # The index takes what the first source says, so the others that say the same can go.
            kept = self.frame().sort("source", "position").unique(told, keep="first", maintain_order=True)
            self._batches = kept.to_arrow().cast(INVENTORY).to_batches()
            self._rows = -sum(batch.num_rows for batch in self._batches)  # the next merge is due after as many again

    def table(self) -> pa.Table:
        """All rows in the canonical schema."""
        return self.frame().to_arrow().cast(INVENTORY)

    def frame(self) -> pl.DataFrame:
        """All rows, text as text."""
        frame = pl.from_arrow(pa.Table.from_batches(self._batches, INVENTORY))
        assert isinstance(frame, pl.DataFrame)  # noqa: S101  from_arrow of a Table is a frame; for the type checker
        text = [name for name, kind in frame.schema.items() if kind == pl.Categorical]
        return frame.with_columns(pl.col(text).cast(pl.String)).unique(maintain_order=True)

    def index(self) -> ByPlace:
        """What the rows say of each place; made anew only after rows came."""
        if self._index is None:
            self._index = inventory_index(self.frame().iter_rows(named=True))
        return self._index


def inventory_index(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Inventory rows by (device, package or ""); known values of repeated rows are put together.

    Where they disagree, the source that comes first by name wins, and in it the earlier record.
    """
    index: dict[tuple[str, str], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["source"], row["position"])):
        known = {name: value for name, value in row.items() if value is not None}
        place = index.setdefault((row["device_uid"], row["android_package"] or ""), {})
        for name, value in known.items():
            place.setdefault(name, value)
    return index
