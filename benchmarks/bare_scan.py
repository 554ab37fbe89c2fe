"""Reads every column of a canonical flows file once, and does nothing with it: what a hunt is compared with.

python benchmarks/bare_scan.py polars|arrow|reader FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
from synthetic_fleet import SCHEMA

from relaywatch.model.quarantine import Quarantine
from relaywatch.sources.discovery import discover
from relaywatch.sources.reading import Reading


def scan_polars(path: Path) -> None:
    """Read every column once and reduce it."""
    text = [name for name in SCHEMA.names if str(SCHEMA.field(name).type).startswith("dictionary")]
    sums = [pl.col(text).cast(pl.String).str.len_bytes().sum(), pl.all().exclude(text).to_physical().sum()]
    print(pl.scan_parquet(path).select(sums).collect(engine="streaming").height)


def scan_arrow(path: Path) -> None:
    """Read every batch as the hunt's own reader gives it."""
    reading = Reading(Quarantine())
    print(sum(batch.rows.num_rows for unit in discover([path]).units for batch in unit.read(reading)))


def scan_bare_arrow(path: Path) -> None:
    """Read every batch with the library that the hunt's reader uses, text as dictionaries."""
    text = [name for name in SCHEMA.names if str(SCHEMA.field(name).type).startswith("dictionary")]
    with pq.ParquetFile(path, read_dictionary=text, pre_buffer=False) as file:
        print(sum(batch.num_rows for batch in file.iter_batches(65_536)))


SCANS = {"polars": scan_polars, "arrow": scan_bare_arrow, "reader": scan_arrow}

if __name__ == "__main__":
    SCANS[sys.argv[1]](Path(sys.argv[2]))
