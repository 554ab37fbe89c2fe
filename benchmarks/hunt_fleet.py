"""Times whole hunts of a synthetic fleet, from unsorted files and from a lake, against a bare scan, in one run.

    python benchmarks/hunt_fleet.py [--flows 10000000] [--more 1000000 30000000 100000000] [--devices 2000]

Every figure is of a whole process: CPU seconds and the peak of its resident memory, as the operating system counts
them. The scan reads every column that the hunt reads, with Polars (sums of numbers, lengths of text) and with the
hunt's own Parquet reader. The naive joins pair accepted flows with dialled ones within ten seconds and judge nothing.
`--more` hunts fleets of these sizes, too, whose devices grow with the flows, and prints how CPU grows with flows (slope
of the logarithms) and the peak of memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from processes import Cost, run

HERE = Path(__file__).parent
LABELS = {
    "polars": "bare scan, Polars",
    "arrow": "bare scan, Arrow",
    "reader": "our reader alone",
    "join polars": "naive join, Polars",
    "join duckdb": "naive join, DuckDB",
    "hunt": "hunt of the unsorted file",
    "import": "lake import",
    "lake hunt": "hunt of the lake",
}


def measure(folder: Path, flows: int, devices: int, *, everything: bool) -> dict[str, Cost]:
    """Costs over a fleet of `flows`: the hunts and the bare scan, and with `everything` what else they stand beside."""
    path, lake = folder / "flows.parquet", folder / f"lake-{flows}"
    run(
        [
            sys.executable,
            str(HERE / "synthetic_fleet.py"),
            str(folder),
            "--flows",
            str(flows),
            "--devices",
            str(devices),
        ]
    )
    scan, join, ours = (
        [sys.executable, str(HERE / "bare_scan.py")],
        [sys.executable, str(HERE / "naive_join.py")],
        [sys.executable, "-m", "relaywatch"],
    )
    commands = {"polars": [*scan, "polars", str(path)]}
    if everything:
        commands |= {name: [*scan, name, str(path)] for name in ("arrow", "reader")}
        commands |= {f"join {name}": [*join, name, str(path)] for name in ("polars", "duckdb")}
    commands |= {
        "hunt": [*ours, "hunt", "--json", str(path)],
        "import": [*ours, "lake", "import", str(path), "--lake", str(lake)],
        "lake hunt": [*ours, "lake", "hunt", "--json", "--lake", str(lake)],
    }
    costs = {name: run(command) for name, command in commands.items()}
    path.unlink()
    return costs


def report(flows: int, devices: int, costs: dict[str, Cost]) -> None:
    """Print one fleet's figures."""
    listed = run([sys.executable, str(HERE / "synthetic_fleet.py"), "-", "--devices", str(devices), "--relays"]).output
    truth = {tuple(line.split()) for line in listed.splitlines()}
    base = costs["polars"].cpu_s
    print(f"\n{flows:,} flows, {devices:,} devices")
    print("| process | CPU s | wall s | peak GiB | CPU over bare scan | flows per wall s |")
    print("|---|---|---|---|---|---|")
    for name, cost in costs.items():
        print(
            f"| {LABELS[name]} | {cost.cpu_s:.1f} | {cost.wall_s:.1f} | {cost.peak_gib:.2f} | {cost.cpu_s / base:.1f} "
            f"| {flows / cost.wall_s:,.0f} |"
        )
    of_files, of_lake = (sorted(costs[name].output.splitlines()) for name in ("hunt", "lake hunt"))
    found = [json.loads(line) for line in of_files]
    named = {(f["device"]["uid"], f["app"]["package"]) for f in found if f["verdict"] == "relay"}
    print(f"relays found: {len(named & truth)} of {len(truth)}; others called relay: {len(named - truth)}")
    print(f"findings of the lake are those of the file: {of_files == of_lake}", flush=True)


def growth(sizes: dict[int, dict[str, Cost]]) -> None:
    """Print how CPU grows with flows."""
    flows = np.log(sorted(sizes))
    for name in ("polars", "hunt", "lake hunt"):
        costs = [sizes[size][name] for size in sorted(sizes)]
        slope = np.polyfit(flows, np.log([cost.cpu_s for cost in costs]), 1)[0]
        last = np.diff(np.log([cost.cpu_s for cost in costs[-2:]]))[0] / np.diff(flows[-2:])[0]
        peaks = ", ".join(f"{cost.peak_gib:.2f}" for cost in costs)
        print(f"{LABELS[name]}: slope {slope:.2f}, of the two largest {last:.2f}; peak GiB {peaks}")


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flows", type=int, default=10_000_000)
    parser.add_argument("--more", type=int, nargs="*", default=[])
    parser.add_argument("--devices", type=int, default=2_000)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    sizes = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measure(Path(folder), 100_000, 20, everything=False)
        for flows in sorted({options.flows, *options.more}):
            devices = max(20, options.devices * flows // options.flows)
            sizes[flows] = measure(Path(folder), flows, devices, everything=flows == options.flows)
            report(flows, devices, sizes[flows])
        if len(sizes) > 1:
            growth(sizes)


if __name__ == "__main__":
    main()
