"""What the tests of readers share: read paths or bytes to rows by table, with the quarantine."""

from __future__ import annotations

import io
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from relaywatch.model.errors import SourceError
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import TABLES
from relaywatch.sources.discovery import discover
from relaywatch.sources.reading import FileReader, Reading

Rows = dict[str, list[dict[str, Any]]]


def _collect(batches, rows: Rows) -> None:
    for part in batches:
        assert part.rows.schema.equals(TABLES[part.table])
        part.rows.validate(full=True)
        rows[part.table].extend(part.rows.to_pylist())


def read_paths(*paths: Path, device: str = "") -> tuple[Rows, Quarantine]:
    rows: Rows = defaultdict(list)
    quarantine = Quarantine()
    for unit in discover(paths).units:
        _collect(unit.read(Reading(quarantine, device)), rows)
    return rows, quarantine


def read_bytes(
    reader: FileReader, content: bytes, *, name: str = "phone.log", device: str = ""
) -> tuple[Rows, Quarantine]:
    """Rows of the content; a SourceError counts as one damaged record, any other exception fails the test."""
    rows: Rows = defaultdict(list)
    quarantine = Quarantine()
    try:
        _collect(reader.read(Path("/nowhere") / name, io.BytesIO(content), Reading(quarantine, device)), rows)
    except SourceError as error:
        quarantine.add(error.path, error.position, error.reason)
    return rows, quarantine


def shared(*parts: str) -> Path:
    """A folder of extra samples; skips the test where it is absent."""
    root = Path(os.environ.get("RELAYWATCH_SHARED", Path(__file__).parents[2].parent / "shared"))
    path = root.joinpath(*parts)
    if not path.exists():
        pytest.skip("extra samples are not here")
    return path
