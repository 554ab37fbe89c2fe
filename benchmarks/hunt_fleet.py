"""Times whole hunts of a synthetic fleet against a bare scan of the same columns, in one run.

    python benchmarks/hunt_fleet.py [--flows 10000000] [--more 30000000] [--devices 2000]

Every figure is of a whole process: CPU seconds and the peak of its resident memory, as the operating system counts
them. `--more` hunts a second fleet of that many flows and compares the memory. The scan reads every column that the
hunt reads, with Polars (sums of numbers, lengths of text) and with the hunt's own Parquet reader.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from processes import Cost, run

HERE = Path(__file__).parent
LABELS = {"polars": "bare scan, Polars", "arrow": "bare scan, Arrow", "reader": "our reader alone"}


def measure(folder: Path, flows: int, devices: int) -> dict[str, Cost]:
    """Costs of the three scans and the hunt over a fleet of `flows`."""
    path = folder / "flows.parquet"
    generator = str(HERE / "synthetic_fleet.py")
    run([sys.executable, generator, str(folder), "--flows", str(flows), "--devices", str(devices)])
    costs = {name: run([sys.executable, str(HERE / "bare_scan.py"), name, str(path)]) for name in LABELS}
    costs["hunt"] = run([sys.executable, "-m", "relaywatch", "hunt", "--json", str(path)])
    path.unlink()
    return costs


def report(flows: int, devices: int, costs: dict[str, Cost]) -> None:
    """Print one fleet's figures."""
    found = [json.loads(line) for line in costs["hunt"].output.splitlines()]
    listed = run([sys.executable, str(HERE / "synthetic_fleet.py"), "-", "--devices", str(devices), "--relays"]).output
    truth = {tuple(line.split()) for line in listed.splitlines()}
    named = {(f["device"]["uid"], f["app"]["package"]) for f in found if f["verdict"] == "relay"}
    base = costs["polars"].cpu_s
    print(f"\n{flows:,} flows, {devices:,} devices")
    print("| process | CPU s | wall s | peak GiB | CPU over bare scan | flows per CPU s |")
    print("|---|---|---|---|---|---|")
    for name, cost in costs.items():
        label = {"polars": "bare scan, Polars", "arrow": "bare scan, Arrow", "reader": "our reader alone"}.get(
            name, "hunt"
        )
        print(
            f"| {label} | {cost.cpu_s:.1f} | {cost.wall_s:.1f} | {cost.peak_gib:.2f} | {cost.cpu_s / base:.1f} "
            f"| {flows / cost.cpu_s:,.0f} |"
        )
    print(f"relays found: {len(named & truth)} of {len(truth)}; others called relay: {len(named - truth)}")


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flows", type=int, default=10_000_000)
    parser.add_argument("--more", type=int, default=0)
    parser.add_argument("--devices", type=int, default=2_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), 100_000, 20)
        costs = measure(Path(folder), options.flows, options.devices)
        report(options.flows, options.devices, costs)
        if options.more:
            more = measure(Path(folder), options.more, options.devices)
            report(options.more, options.devices, more)
            growth = more["hunt"].peak_gib / costs["hunt"].peak_gib
            print(f"peak memory of the larger hunt: {growth:.2f} times the smaller's")


if __name__ == "__main__":
    main()
