"""Rows of small context formats (verdicts, inventories, leases), taken one by one and given as batches."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any, Final

from relaywatch.model.schemas import IdentifierKind
from relaywatch.model.tables import Batch, TableName, batch

ROWS_AT_ONCE: Final = 50_000
"""Rows held before they are given on."""


class ContextRows:
    """Collects rows of any table with one source's provenance."""

    __slots__ = ("_clock", "_rows", "_skew_bound_s", "_source")

    def __init__(self, path: Path, clock: str, skew_bound_s: float) -> None:
        self._source = str(path)
        self._clock = clock
        self._skew_bound_s = skew_bound_s
        self._rows: dict[TableName, list[dict[str, Any]]] = defaultdict(list)

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._rows.values())

    def add(self, table: TableName, position: int, device: str, **values: Any) -> None:  # noqa: ANN401 - any column
        """One row; columns not given are null."""
        self._rows[table].append({"position": position, "device_uid": device, **values})

    def name(
        self,
        position: int,
        device: str,
        kind: IdentifierKind,
        identifier: str | None,
        **values: Any,  # noqa: ANN401 - any column
    ) -> None:
        """An inventory row that gives the device another name; none where the name is not known."""
        if identifier is not None:
            self.add("inventory", position, device, identifier_kind=str(kind), identifier=identifier, **values)

    def batches(self) -> list[Batch]:
        """All rows since the last call, inventory first."""
        found = []
        for table, rows in sorted(self._rows.items(), key=lambda entry: (entry[0] != "inventory", entry[0])):
            names = dict.fromkeys(name for row in rows for name in row)
            columns: dict[str, Any] = {
                "source": self._source,
                "clock": self._clock,
                "clock_skew_bound_s": self._skew_bound_s,
            }
            if "clock_skew_bound_s" in names:
                rows = [{"clock_skew_bound_s": self._skew_bound_s, **row} for row in rows]
            columns |= {name: [row.get(name) for row in rows] for name in names}
            found.append(batch(table, columns, length=len(rows)))
        self._rows.clear()
        return found
