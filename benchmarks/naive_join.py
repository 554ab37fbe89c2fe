"""The naive window join that a rule would write: each accepted flow with what its app dialled in the next ten seconds.

python benchmarks/naive_join.py polars|duckdb FILE

Counts pairs, and judges nothing: what engines pay for the join alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb
import polars as pl

WINDOW_US = 10_000_000


def by_polars(path: Path) -> int:
    """By buckets of the window's length and a filter."""
    keys = ["device_uid", "android_package"]
    flows = pl.scan_parquet(path).select(
        pl.col(keys).cast(pl.String), pl.col("start_time").cast(pl.Int64).alias("start"), "direction_id"
    )
    bucket = (pl.col("start") // WINDOW_US).alias("bucket")
    clients = flows.filter(pl.col("direction_id") == 1).with_columns(bucket)
    near = pl.concat([clients, clients.with_columns(pl.col("bucket") + 1)])
    targets = flows.filter(pl.col("direction_id") == 2).with_columns(bucket)
    pairs = near.join(targets, on=[*keys, "bucket"])
    lag = pl.col("start_right") - pl.col("start")
    return int(pairs.filter(lag.is_between(0, WINDOW_US)).select(pl.len()).collect(engine="streaming").item())


def by_duckdb(path: Path) -> int:
    """The same in SQL."""
    query = f"""
        WITH flows AS (
            SELECT device_uid, android_package, epoch_us(start_time) AS start, direction_id FROM read_parquet(?)
        ), near AS (
            SELECT *, start // {WINDOW_US} + step AS bucket FROM flows, (VALUES (0), (1)) AS steps(step)
            WHERE direction_id = 1
        )
        SELECT count(*) FROM near JOIN flows AS target
        ON near.device_uid = target.device_uid AND near.android_package = target.android_package
        AND near.bucket = target.start // {WINDOW_US} AND target.direction_id = 2
        WHERE target.start - near.start BETWEEN 0 AND {WINDOW_US}
    """  # noqa: S608 - a constant of this file
    row = duckdb.execute(query, [str(path)]).fetchone()
    return int(row[0]) if row else 0


if __name__ == "__main__":
    print({"polars": by_polars, "duckdb": by_duckdb}[sys.argv[1]](Path(sys.argv[2])))
