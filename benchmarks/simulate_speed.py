"""Flows a second that one core simulates, beside bare costs of the same columns in the same run.

    python benchmarks/simulate_speed.py [--devices 2000] [--flows 10000000] [--volumes 0]

Baselines: NumPy making columns of the same types and length out of its own generator, one number a value (what any
generator must at least do); Arrow copying the columns; and, of a Parquet file of the fleet, a Polars scan of all
columns. Times are CPU seconds of the whole process, threads among them, so a figure is one of one core.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from relaywatch.model.schemas import FLOWS
from relaywatch.simulation.plan import Plan
from relaywatch.simulation.stream import Simulation
from relaywatch.simulation.writing import Form, write_fleet

WARM = Plan(devices=10, flows=3_000, volumes=1.0, signals=1.0)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall seconds of some work."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def bare_columns(rows: int, chunk: int = 65_536) -> None:
    """Columns of the flows' types, of random numbers, batch by batch."""
    rng = np.random.default_rng(1)
    widths = [field.type.bit_width if not pa.types.is_dictionary(field.type) else 32 for field in FLOWS]
    for first in range(0, rows, chunk):
        count = min(chunk, rows - first)
        for width in widths:
            rng.bytes(max(1, count * width // 8))


def copied(batches: list[pa.RecordBatch]) -> None:
    """Every value of the batches copied once."""
    for batch in batches:
        everything = pa.array(np.arange(batch.num_rows, dtype=np.int32))
        for column in batch.columns:
            column.take(everything)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2_000)
    parser.add_argument("--flows", type=int, default=10_000_000)
    parser.add_argument("--volumes", type=float, default=0.0)
    options = parser.parse_args()
    for _ in Simulation(WARM).batches():
        pass  # compiles the kernels
    plan = Plan(devices=options.devices, flows=options.flows, volumes=options.volumes)
    made: list[Simulation] = []

    def simulated() -> None:
        made.append(Simulation(plan))
        for _ in made[0].batches():
            pass

    results = {"simulate: canonical batches, none kept": timed(simulated)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    results["NumPy: random columns of the same widths"] = timed(lambda: bare_columns(options.flows))
    part = Plan(devices=options.devices, flows=min(options.flows, 1_000_000))
    batches = [batch.rows for batch in Simulation(part).batches() if batch.table == "flows"]
    cpu, wall = timed(lambda: copied(batches))
    results["Arrow: the same columns copied once"] = (cpu * plan.flows / part.flows, wall * plan.flows / part.flows)
    with tempfile.TemporaryDirectory() as place:
        results["simulate and write Parquet (zstd)"] = timed(
            lambda: write_fleet(Simulation(plan), Form.PARQUET, Path(place), lambda _: None)
        )
        file = Path(place) / "telemetry" / "flows.parquet"
        results["Polars: scan of that file, all columns"] = timed(lambda: pl.scan_parquet(file).collect().height)
    print(f"{plan.flows} flows of {plan.devices} devices; {made[0].account.counted()}; peak {peak:.0f} MiB")
    for name, (cpu, wall) in results.items():
        print(f"{name:45} CPU {cpu:7.2f} s  wall {wall:7.2f} s  {plan.flows / cpu / 1e6:6.2f} M flows/s per core")


if __name__ == "__main__":
    main()
