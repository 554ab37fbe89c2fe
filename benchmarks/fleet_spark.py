"""Times hunts of a synthetic fleet on Spark against Spark's own scan and against the local hunt, in one run.

    python benchmarks/fleet_spark.py [--flows 10000000] [--devices 2000] [--cores 2] [--folder FOLDER]

All read the same flows: Spark's bare scan takes the columns that a judgement needs and finds the largest of each; the
hunts go from the unsorted file and from a lake of it to findings in hand. Each is one call in a process that has called
it before with a thousandth of the flows, so that neither the start of Java nor the compiling of kernels counts; CPU is
of the process and of all that it has started, as /proc tells. The findings of all three hunts must be the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from processes import run

HERE = Path(__file__).parent
NOW = datetime(2026, 2, 1, tzinfo=UTC)
STEPS = ("scan", "spark", "lake", "local")


def cpu_s() -> float:
    """CPU seconds of this process and all below it, those that ended included."""
    ticks, parents = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            ticks[int(entry.name)], parents[int(entry.name)] = sum(map(int, fields[11:15])), int(fields[1])
    below = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return sum(ticks[pid] for pid in below) / os.sysconf("SC_CLK_TCK")


def step(name: str, cores: int) -> Callable[[Path], list[str]]:
    """What is timed: a function of a fleet's folder that gives the findings' lines."""
    from relaywatch.detection.settings import Settings
    from relaywatch.engines.local import Hunt, hunt
    from relaywatch.governance.exceptions import Exceptions
    from relaywatch.outputs.native import json_line

    plan = Hunt(Settings(), Exceptions(()), NOW)
    if name == "local":
        return lambda folder: list(map(json_line, hunt([folder / "flows.parquet"], plan).findings))
    from pyspark.sql import functions as sql

    from relaywatch.fleet import hunting
    from relaywatch.fleet.lakes import hunt_lake
    from relaywatch.fleet.session import fleet_at, session

    spark = session(f"local[{cores}]", {"spark.driver.memory": "4g"})

    def scan(folder: Path) -> list[str]:
        flows = spark.read.parquet(str(folder / "flows.parquet")).drop("clock", "hostname_observability")
        flows.select(*(sql.max(column) for column in flows.columns)).collect()
        return []

    def from_file(folder: Path) -> list[str]:
        fleet = fleet_at(spark, [str(folder / "flows.parquet")])
        return list(map(json_line, hunting.hunt(spark, fleet, plan).findings))

    def from_lake(folder: Path) -> list[str]:
        return list(map(json_line, hunt_lake(spark, folder / "lake", plan).findings))

    return {"scan": scan, "spark": from_file, "lake": from_lake}[name]


def timed(name: str, small: Path, large: Path, cores: int) -> None:
    """Run a step; print seconds and the findings' number and hash."""
    call = step(name, cores)
    call(small)
    cpu, wall = cpu_s(), time.monotonic()
    lines = call(large)
    print(json.dumps({"cpu": cpu_s() - cpu, "wall": time.monotonic() - wall, "findings": sorted(lines)}))


def made(folder: Path, flows: int, devices: int) -> Path:
    """A fleet of flows as one file, and a lake of it."""
    size = ["--flows", str(flows), "--devices", str(devices)]
    run([sys.executable, str(HERE / "synthetic_fleet.py"), str(folder), *size])
    run(
        [
            sys.executable,
            "-m",
            "relaywatch",
            "lake",
            "import",
            str(folder / "flows.parquet"),
            "--lake",
            str(folder / "lake"),
        ]
    )
    return folder


def main() -> None:
    """Run the comparison, or one step of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flows", type=int, default=10_000_000)
    parser.add_argument("--devices", type=int, default=2_000)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to work, in place of the system's folder for such files")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        name, small, large = options.step
        timed(name, Path(small), Path(large), options.cores)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as work:
        small = made(Path(work) / "small", max(10_000, options.flows // 1_000), 20)
        large = made(Path(work) / "large", options.flows, options.devices)
        results = {}
        for name in STEPS:
            command = [sys.executable, __file__, "--cores", str(options.cores), "--step", name, str(small), str(large)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results[name] = json.loads(said.splitlines()[-1])
    told(results, options.flows)


def told(results: dict[str, dict[str, object]], flows: int) -> None:
    """Print the table, and whether the findings agree."""
    local, scan = results["local"], results["scan"]
    print(
        f"{flows:,} flows; load {os.getloadavg()[0]:.1f}\n\n| step | wall s | CPU s | of the local rate | scans (CPU) |"
    )
    print("|---|---|---|---|---|")
    for name, found in results.items():
        rate, scans = local["wall"] / found["wall"], found["cpu"] / scan["cpu"]
        print(f"| {name} | {found['wall']:.1f} | {found['cpu']:.1f} | {rate:.2f} | {scans:.2f} |")
    same = results["spark"]["findings"] == results["lake"]["findings"] == local["findings"]
    print(f"\n{len(local['findings'])} findings; the same from all: {same}")


if __name__ == "__main__":
    main()
