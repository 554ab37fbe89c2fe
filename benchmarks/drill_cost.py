"""Times a drill of a fleet against the hunt of the same data, in one run.

    python benchmarks/drill_cost.py [--devices 1000] [--flows 2000000] [--episodes 20] [--repeat 3]

A synthetic fleet of one day, 20 apps a device. Every figure is of a whole process, as the operating system counts it;
of repeated runs the median. Bar: a drill costs at most 1.5 times the hunt's CPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median

from processes import Cost, run

HERE = Path(__file__).parent
MOST = 1.5


def measure(options: argparse.Namespace) -> dict[str, list[Cost]]:
    """Costs of hunt and drill, one after the other, as often as asked."""
    costs: dict[str, list[Cost]] = {"hunt": [], "coverage": [], "drill": []}
    with tempfile.TemporaryDirectory() as folder:
        generator = str(HERE / "synthetic_fleet.py")
        run([sys.executable, generator, folder, "--flows", str(options.flows), "--devices", str(options.devices)])
        further = {"hunt": [], "coverage": [], "drill": ["--episodes", str(options.episodes)]}
        for _ in range(options.repeat):
            for name, words in further.items():
                costs[name].append(run([sys.executable, "-m", "relaywatch", name, "--json", folder, *words]))
    return costs


def main() -> None:
    """Run the comparison; status 1 where the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=1_000)
    parser.add_argument("--flows", type=int, default=2_000_000)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    costs = measure(options)
    base = median(cost.cpu_s for cost in costs["hunt"])
    print(f"{options.flows:,} flows, {options.devices:,} devices, {options.episodes} relays of each topology")
    print("| process | CPU s | wall s | peak GiB | CPU over hunt |")
    print("|---|---|---|---|---|")
    for name, own in costs.items():
        cpu, wall, peak = (median(getattr(cost, field) for cost in own) for field in ("cpu_s", "wall_s", "peak_gib"))
        print(f"| {name} | {cpu:.1f} | {wall:.1f} | {peak:.2f} | {cpu / base:.2f} |")
    rows = [json.loads(line) for line in costs["drill"][-1].output.splitlines()]
    for row in (row for row in rows if row["kind"] == "drill_row"):
        print(f"{row['topology']}, provable {row['provable']}: {row['relay']['value']:.2f} of {row['played']} found")
    ratio = median(cost.cpu_s for cost in costs["drill"]) / base
    print(f"drill over hunt: {ratio:.2f} (bar {MOST})")
    sys.exit(1 if ratio > MOST else 0)


if __name__ == "__main__":
    main()
