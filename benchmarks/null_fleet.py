"""Measures false alarms on a synthetic fleet that relays nothing, against the configured rate.

    python benchmarks/null_fleet.py --lab LAB [--lab RANGE] --netstats FILE [--app-days 2000] [--seed 1]
    python benchmarks/null_fleet.py --lab LAB [--lab RANGE] --netstats FILE --seed 1 --only 770 --out FOLDER

A LAB has traces/ and truth/, as the relay lab and runs of the range have; FILE holds Android's network statistics by
uid and two hours (docs/null-fleet.md). Prints Markdown. With --only nothing is hunted: one app-day is written as
canonical Parquet, to be hunted by itself. The same labs in the same order, file and seed give the same fleet.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from relaywatch.detection.settings import Settings
from relaywatch.evaluation.labels import read_labels
from relaywatch.evaluation.null_fleet import Fleet, device_of, package_of, write
from relaywatch.evaluation.null_fleet_days import read_days
from relaywatch.evaluation.null_fleet_hunt import Hunted, combined, hunt_days
from relaywatch.evaluation.null_fleet_report import as_json, markdown
from relaywatch.evaluation.null_fleet_sessions import read_bouts
from relaywatch.model.errors import RelaywatchError

CHUNK = 200
"""App-days hunted at a time: so few that FalseDiscoveryRate asks for no more than FalseAlarmsPerAppDay does."""
_fleet: list[Fleet] = []


def fleet_of(labs: list[Path], netstats: Path, seed: int) -> tuple[Fleet, list[str]]:
    """The fleet, and the names of its programs by trace. Labels say which traces are benign, and nothing else."""
    benign = [app for app in read_labels(labs) if not app.relays]
    names = [f"{app.scenario} ({app.name})" for app in benign]
    return Fleet(read_bouts([app.folder for app in benign]), read_days(netstats), seed), names


def begin(labs: list[Path], netstats: Path, seed: int) -> None:
    """Prepare a worker."""
    _fleet.append(fleet_of(labs, netstats, seed)[0])


def peak_gib() -> float:
    """Peak of resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def work(first: int, last: int) -> tuple[Hunted, float]:
    """One chunk, and the worker's peak memory in GiB."""
    return hunt_days(_fleet[0], range(first, last), Settings()), peak_gib()


def measure(given: argparse.Namespace) -> tuple[Hunted, float]:
    """Hunt the whole fleet by chunks; beside it the peaks of memory in GiB of all processes, added up."""
    firsts = range(0, given.app_days, CHUNK)
    lasts = [min(first + CHUNK, given.app_days) for first in firsts]
    parts, peak, started = [], 0.0, time.monotonic()
    with ProcessPoolExecutor(
        given.workers, multiprocessing.get_context("spawn"), begin, (given.lab, given.netstats, given.seed)
    ) as pool:
        for number, (hunted, used) in enumerate(pool.map(work, firsts, lasts), 1):
            parts.append(hunted)
            peak = max(peak, used)
            if number % 10 == 0:
                print(f"{number} of {len(lasts)} chunks, {time.monotonic() - started:.0f} s", file=sys.stderr)
    return combined(parts), peak * given.workers + peak_gib()


def main() -> int:
    """Generate, hunt, print; 2 where the input cannot be read."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lab", type=Path, action="append", required=True, help="traces to draw from; may be repeated")
    parser.add_argument("--netstats", type=Path, required=True, help="network statistics by uid and two hours, CSV")
    parser.add_argument("--app-days", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--apart", action="append", default=[], help="count once without these scenarios; a beginning")
    parser.add_argument("--json", type=Path, help="write the alarms and the tail to this file too")
    parser.add_argument("--only", type=int, help="write this one app-day to --out, hunt nothing")
    parser.add_argument("--out", type=Path, help="folder for --only")
    given = parser.parse_args()
    if given.app_days < 1 or given.workers < 1 or given.seed < 0 or (given.only is None) != (given.out is None):
        parser.error("--app-days and --workers from 1, --seed from 0; --only and --out go together.")
    try:
        fleet, programs = fleet_of(given.lab, given.netstats, given.seed)
        if given.only is not None:
            write(fleet, [given.only], given.out)
            print(f"{device_of(given.only)} {package_of(given.only)}: {given.out}")
            return 0
        started = time.monotonic()
        hunted, peak = measure(given)
    except RelaywatchError as error:
        print(error, file=sys.stderr)
        return 2
    print(markdown(hunted, fleet, programs, given.apart, Settings()))
    spent = time.monotonic() - started
    print(f"\n{spent:.0f} s, {given.workers} workers; the peaks of all processes together: {peak:.2f} GiB.")
    if given.json is not None:
        given.json.write_text(json.dumps(as_json(hunted, fleet, programs), indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
