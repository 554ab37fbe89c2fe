"""All benchmarks of engines and readers in one run: prints one page, with machine and versions.

    python benchmarks/everything.py [--quick] [--folder FOLDER]

Takes hours; `--quick` takes some minutes and shows that everything runs, with sizes that say little. Each part prints
what it measures beside what it is compared with, from the same run.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
SHOWN = ("polars", "pyarrow", "numba", "numpy", "duckdb", "pyspark")
PARTS = {
    "Hunts of a fleet": (
        ["hunt_fleet.py", "--more", "1000000", "30000000", "100000000"],
        ["hunt_fleet.py", "--flows", "200000", "--more", "400000", "--devices", "40"],
    ),
    "A lake": (["lake_import.py"], ["lake_import.py", "--flows", "200000"]),
    "A watcher under a steady stream": (
        ["live_sustained.py"],
        ["live_sustained.py", "--seconds", "10", "--rate", "20000", "--devices", "200"],
    ),
    "A watcher that is killed": (
        ["live_kills.py", "--kills", "1000", "--kernel", "real"],
        ["live_kills.py", "--kills", "5", "--kernel", "real"],
    ),
    "The live engine alone": (["live_rate.py"], ["live_rate.py", "--flows", "0.2"]),
    "Spark on two cores": (["fleet_spark.py", "--flows", "30000000"], ["fleet_spark.py", "--flows", "200000"]),
    "A simulated fleet": (["simulate_speed.py"], ["simulate_speed.py"]),
    "Formats by the line": (["bench_readers.py", "--records", "100000"], ["bench_readers.py", "--records", "5000"]),
    "Zeek": (["bench_zeek.py", "5000000"], ["bench_zeek.py", "50000"]),
    "Packet captures": (["bench_capture.py", "3000000"], ["bench_capture.py", "30000"]),
}


def main() -> None:
    """Run every part and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", type=Path, help="for work files; by default the system's")
    asked = parser.parse_args()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in SHOWN)
    print(f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}; {versions}")
    environment = dict(os.environ, **({"TMPDIR": str(asked.folder)} if asked.folder else {}))
    failed = []
    for title, (whole, quick) in PARTS.items():
        command = quick if asked.quick else whole
        print(f"\n## {title}\n\n    python benchmarks/{' '.join(command)}\n", flush=True)
        begun = time.monotonic()
        done = subprocess.run([sys.executable, str(HERE / command[0]), *command[1:]], env=environment, check=False)
        print(f"\n({time.monotonic() - begun:.0f} s, load {os.getloadavg()[0]:.1f})", flush=True)
        if done.returncode:
            failed.append(title)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
