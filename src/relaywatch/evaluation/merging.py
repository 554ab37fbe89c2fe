"""Two labelled programs laid over each other as one app: relays in apps with traffic of their own, and chance."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl

from relaywatch.evaluation.labels import LabelledApp

MOST_PAIRS: Final = 300
"""Merged apps of each kind, drawn with a fixed seed."""


class Merged(NamedTuple):
    """One merged app: its folder's name is its device. first: the relay, or a benign program; second: a benign one."""

    name: str
    first: LabelledApp
    second: LabelledApp


def pairs_of(apps: Sequence[LabelledApp], most: int = MOST_PAIRS) -> list[Merged]:
    """Relays with benign programs, and benign programs with each other, of one lab each; at most `most` of a kind."""
    drawn = random.Random(0)  # noqa: S311  a sample, no secret
    merged = []
    for relays in (True, False):
        of_kind = [
            (first, second)
            for lab in sorted({app.lab for app in apps})
            for first, second in _combined([app for app in apps if app.lab == lab], relays=relays)
        ]
        chosen = of_kind if len(of_kind) <= most else drawn.sample(of_kind, most)
        merged += [Merged(f"{first.name}-{second.name}", first, second) for first, second in chosen]
    return merged


def _combined(apps: Sequence[LabelledApp], *, relays: bool) -> list[tuple[LabelledApp, LabelledApp]]:
    benign = [app for app in apps if not app.relays]
    if not relays:
        return list(itertools.combinations(benign, 2))
    return list(itertools.product([app for app in apps if app.relays and not app.mixed], benign))


def write_merged(merged: Merged, folder: Path) -> None:
    """Write a trace folder that lays the second trace over the first from its begin; the context is the second's.

    Nothing ran together, so the two did not compete for one radio; two periodic programs may be in step here as they
    would rarely be elsewhere.
    """
    target = folder / merged.name
    target.mkdir()
    flows, volumes, offset = [], [], 0
    start = _start(merged.second.folder)
    for trace in (merged.first.folder, merged.second.folder):
        shift = math.floor(start - _start(trace))
        table = pl.read_csv(trace / "flows.csv", infer_schema_length=None)
        texts = (pl.col(name).cast(pl.String) for name in ("hostname", "hostname_src"))
        moved = (pl.col(name) + shift for name in ("start", "end"))
        flows.append(table.with_columns(pl.col("flow_id") + offset, *moved, *texts))
        if (trace / "bins.parquet").is_file():
            of_flow, second = pl.col("flow_id").cast(pl.Int64) + offset, pl.col("sec").cast(pl.Int64) + shift
            volumes.append(pl.read_parquet(trace / "bins.parquet").with_columns(of_flow, second))
        offset += int(table["flow_id"].to_numpy().max(initial=0)) + 1
    pl.concat(flows, how="vertical_relaxed").sort("start").write_csv(target / "flows.csv")
    if volumes:
        pl.concat(volumes, how="vertical_relaxed").write_parquet(target / "bins.parquet")
    (target / "context.json").write_bytes((merged.second.folder / "context.json").read_bytes())


def _start(trace: Path) -> float:
    return float(json.loads((trace / "context.json").read_text(encoding="utf-8"))["trace_start"])
