"""The range's commands: run scenarios, list them, install what they need."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from rich.console import Console
from rich.table import Table

from relay_range.programs import PROGRAMS
from relay_range.scenarios import GROUPS, MAIN, SCENARIOS, Scenario
from relay_range.spaces import RangeError, obstacle
from relay_range.stage import Job, Result, run

MOST_SECONDS = 600.0
MOST_PARALLEL = 8
EVERY_GROUP = "all"


def chosen(names: str, excluded: str = "", group: str = "") -> list[Scenario]:
    """Scenarios by comma-separated names, each a whole name or its beginning, and by group.

    Without a group: of any where names are given, else of the main group, so that a hold-out runs when asked for.
    """
    wanted, unwanted = _parts(names), _parts(excluded)
    group = group or (EVERY_GROUP if wanted else MAIN)
    known = [scenario.name for scenario in SCENARIOS]
    if strange := [name for name in wanted + unwanted if not any(one.startswith(name) for one in known)]:
        raise RangeError(f"no scenario is named {', '.join(strange)}: `list` shows all")
    return [
        scenario
        for scenario in SCENARIOS
        if group in (EVERY_GROUP, scenario.group)
        and (not wanted or scenario.name.startswith(tuple(wanted)))
        and not (unwanted and scenario.name.startswith(tuple(unwanted)))
    ]


def _parts(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def install(scenarios: Sequence[Scenario], console: Console) -> None:
    """Install what the scenarios' programs need and is missing; what cannot be installed is said."""
    needs = {need for scenario in scenarios for need in PROGRAMS[scenario.program].needs if not need.met()}
    for need in sorted(needs, key=lambda need: (need.registry, need.package)):
        console.print(f"installing {need.registry} {need.package}")
        try:
            need.install()
        except (OSError, subprocess.CalledProcessError) as error:
            console.print(f"[red]{need.package} cannot be installed: {error}[/red]")


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for every name of the range, and its key; made anew for each run."""
    paths = folder / "range.crt", folder / "range.key"
    names = "subjectAltName=DNS:*.example,DNS:*.test,DNS:*.gw.test"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=range.example", "-addext", names, "-out", str(paths[0]), "-keyout", str(paths[1])],
        check=True, capture_output=True,
    )  # fmt: skip
    return paths


def run_all(arguments: argparse.Namespace, console: Console) -> int:
    """Run the chosen scenarios, some at a time. Exit status: 0, or 1 where one failed."""
    scenarios = chosen(arguments.only, arguments.without, arguments.group)
    if arguments.install:
        install(scenarios, console)
    if why := obstacle():
        raise RangeError(why)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    out = Path(arguments.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="relay-range-") as folder:
        pair = certificate(Path(folder))
        jobs = [Job(scenario, out, arguments.seconds, arguments.seed, *pair, stopping) for scenario in scenarios]
        results = perform(jobs, arguments.parallel, console)
    console.print(table(results))
    lacking = sum(result.note.startswith("not run") for result in results)
    failed = sum(result.note.startswith("failed") for result in results)
    console.print(
        f"{len(results) - lacking - failed} run, {lacking} not run, {failed} failed. Traces: {out / 'traces'}"
    )
    return 1 if failed or stopping.is_set() else 0


def perform(jobs: Sequence[Job], parallel: int, console: Console) -> list[Result]:
    """The jobs' results in their order, saying each when it ends."""
    results: dict[Future[Result], Result] = {}
    with ThreadPoolExecutor(parallel) as pool:
        futures = [pool.submit(_unless_stopped, job) for job in jobs]
        waiting = set(futures)
        while waiting:
            ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ended:
                result = results[future] = future.result()
                console.print(f"{len(results)}/{len(jobs)} {result.job.scenario.name} {result.note or 'done'}")
    return [results[future] for future in futures]


def _unless_stopped(job: Job) -> Result:
    return Result(job, note="not run, stopped") if job.stopping.is_set() else run(job)


def table(results: Sequence[Result]) -> Table:
    """One line a scenario."""
    shown = Table("trace", "scenario", "label", "tool", "flows", "kB out", "kB in", "pairs", "note")
    for result in results:
        row, scenario = result.row, result.job.scenario
        counts = [str(row.get(name, "")) for name in ("flows", "tx_kB", "rx_kB", "pairs")]
        shown.add_row(
            result.job.trace, scenario.name, scenario.label, PROGRAMS[scenario.program].tool, *counts, result.note
        )
    return shown


def listing() -> Table:
    """The declared scenarios, and what is missing for each."""
    shown = Table("scenario", "group", "label", "topology", "tool", "workload", "missing")
    for scenario in SCENARIOS:
        program = PROGRAMS[scenario.program]
        missing = ", ".join(f"{need.registry}: {need.package}" for need in program.needs if not need.met())
        told = scenario.name, scenario.group, scenario.label, scenario.topology, program.tool, scenario.workload
        shown.add_row(*told, missing)
    return shown


def _seconds(text: str) -> float:
    value = float(text)
    if not 5 <= value <= MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"between 5 and {MOST_SECONDS:.0f}")
    return value


def _parallel(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MOST_PARALLEL:
        raise argparse.ArgumentTypeError(f"between 1 and {MOST_PARALLEL}")
    return value


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main_parser = argparse.ArgumentParser(prog="range/run", description=__doc__)
    commands = main_parser.add_subparsers(dest="command")
    commands.add_parser("list", help="show the scenarios and what is missing for each")
    default = commands.add_parser("run", help="run scenarios; needs root")
    default.add_argument("--out", required=True, metavar="FOLDER", help="where traces/, truth/ and logs/ go")
    default.add_argument("--only", default="", metavar="NAME,...", help="scenarios whose names begin so; default: all")
    default.add_argument("--without", default="", metavar="NAME,...", help="not the scenarios whose names begin so")
    default.add_argument("--group", default="", choices=(*GROUPS, EVERY_GROUP), help="default: main")
    default.add_argument("--seconds", type=_seconds, default=75.0, help="time per scenario; some stretch it (75)")
    default.add_argument("--parallel", type=_parallel, default=2, help="scenarios at a time (2)")
    default.add_argument("--seed", type=int, default=0, help="another seed gives other workloads and trace names (0)")
    default.add_argument("--install", action="store_true", help="install missing programs first (apt, pip, npm)")
    return main_parser


def main(arguments: Sequence[str]) -> int:
    """Run one command; exit status 2 where it cannot be run as asked."""
    terminal = sys.stdout.isatty()
    console = Console(highlight=False, width=None if terminal else 180)
    told = parser().parse_args(arguments)
    if told.command == "list":
        console.print(listing())
        return 0
    if told.command is None:
        parser().print_help()
        return 2
    try:
        return run_all(told, console)
    except RangeError as error:
        console.print(f"[red]{error}[/red]")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
