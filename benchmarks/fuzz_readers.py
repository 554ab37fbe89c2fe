"""Reads a million mutated inputs with every reader and checks what is promised of hostile telemetry.

    python benchmarks/fuzz_readers.py [--inputs 1000000] [--seconds 120] [--only NAME] [--seed 0] [--json]

Seeds are the FUZZ_SEEDS of tests/sources/test_*.py. Of a format by the line, one mutated line is one input, and a file
holds thousands of them; of a dump, one mutated line among sound ones is, or one mutated file; of any other, one mutated
file is. Checked of each file: only a SourceError leaves, each record
gave rows, was left for a reason or is in quarantine, all rows fit their schema, and reading ends within a bound of time
and memory. The first file that breaks a promise is kept beside this message, and the status is 1. Each seed ends after
`--seconds`, whatever was reached: the table says how many inputs that was.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

TESTS = Path(__file__).parent.parent / "tests"
sys.path[:0] = [str(TESTS / "sources"), str(TESTS)]

from mutations import assert_accounted, mutate, read_path  # noqa: E402  the tests' own folder

LINES_A_FILE = 5_000
COPIES = 2_000
WITH_LINES = 0.5
"""Share of a dump's variants that are sound but for many mutated lines among the others; the rest is changed whole."""
LONGEST_S = 60.0
MOST_GIB = 2.0


@dataclass
class Outcome:
    """What one seed's run came to. inputs: mutated records, or files; worst_s: of one file."""

    name: str
    inputs: int = 0
    files: int = 0
    rows: int = 0
    quarantined: int = 0
    worst_s: float = 0.0
    failure: str = ""


def seeds(only: str) -> Iterator[tuple[str, str, bytes]]:
    """(test module, file name, content) of every seed; `only`: a part of the module's or the file's name."""
    for path in sorted((TESTS / "sources").glob("test_*.py")):
        if "FUZZ_SEEDS" not in path.read_text(encoding="utf-8"):
            continue
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            continue
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, content in module.FUZZ_SEEDS:
            if only in f"{path.stem} {name}":
                yield path.stem.removeprefix("test_"), name, content


def is_text(content: bytes) -> bool:
    """Whether the seed is text of several lines."""
    return b"\x00" not in content and content.count(b"\n") > 1


def by_line(name: str, content: bytes) -> bool:
    """Whether the seed is records by the line: text with several lines, and no dump, whose lines hang together."""
    return is_text(content) and Path(name).suffix in {".json", ".ndjson", ".log", ".csv", ".jsonl"}


def variants(name: str, content: bytes, rng: random.Random) -> tuple[bytes, int]:
    """One hostile file, and how many inputs it holds."""
    if not by_line(name, content):
        return (
            among_sound_lines(content, rng)
            if is_text(content) and rng.random() < WITH_LINES
            else (mutate(content, rng), 1)
        )
    lines = content.split(b"\n")[:-1]
    plain = lines[0].startswith(b"#") or name.endswith(".csv")
    head = [line for at, line in enumerate(lines) if line.startswith(b"#") or (at == 0 and plain)]
    records = lines[len(head) :] or lines
    mutated = (mutate(records[rng.randrange(len(records))], rng) for _ in range(LINES_A_FILE))
    return b"\n".join([*head, *mutated]) + b"\n", LINES_A_FILE


def among_sound_lines(content: bytes, rng: random.Random) -> tuple[bytes, int]:
    """A dump, whose lines hang together, with mutated copies behind its lines, and how many these are."""
    lines = content.split(b"\n")
    behind: list[list[bytes]] = [[] for _ in lines]
    for _ in range(COPIES):
        place = rng.randrange(len(lines))
        behind[place].append(mutate(lines[place], rng))
    return b"\n".join(line for sound, copies in zip(lines, behind, strict=True) for line in (sound, *copies)), COPIES


def run(module: str, name: str, content: bytes, options: argparse.Namespace) -> Outcome:
    """Mutate and read until there were enough inputs, or the time is up."""
    outcome = Outcome(f"{module} {name}")
    rng = random.Random(f"{options.seed} {outcome.name}")  # noqa: S311  mutations, no secret
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "in"
        place.mkdir()
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
        _read(place, Outcome("the seed as it is, which compiles what the reader needs"))
        until = time.monotonic() + options.seconds
        while outcome.inputs < options.inputs and time.monotonic() < until and not outcome.failure:
            data, inputs = variants(name, content, rng)
            (place / name).write_bytes(data)
            _read(place, outcome)
            outcome.inputs, outcome.files = outcome.inputs + inputs, outcome.files + 1
        if outcome.failure:
            kept = Path(tempfile.mkdtemp(prefix="relaywatch-fuzz-")) / Path(name).name
            kept.write_bytes(data)
            outcome.failure += f"; kept as {kept}"
    return outcome


def _read(place: Path, outcome: Outcome) -> None:
    begun = time.monotonic()
    try:
        rows, quarantine, tally, _ = read_path(place)
        for part in rows:
            part.rows.validate(full=True)
        assert_accounted(quarantine, tally)
        outcome.rows += sum(part.rows.num_rows for part in rows)
        outcome.quarantined += quarantine.total
    except Exception as broken:
        outcome.failure = f"{type(broken).__name__}: {str(broken)[:200]}"
    taken = time.monotonic() - begun
    outcome.worst_s = max(outcome.worst_s, taken)
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    if not outcome.failure and (taken > LONGEST_S or gib > MOST_GIB):
        outcome.failure = f"one file took {taken:.1f} s, the process {gib:.2f} GiB"


def report(outcomes: list[Outcome], console: Console) -> None:
    """Print a line a seed."""
    table = Table("seed", title="Mutated inputs")
    for name in ("inputs", "files", "rows", "put aside", "worst s"):
        table.add_column(name, justify="right")
    table.add_column("broken promise")
    for outcome in outcomes:
        counts = (outcome.inputs, outcome.files, outcome.rows, outcome.quarantined)
        table.add_row(outcome.name, *(f"{count:,}" for count in counts), f"{outcome.worst_s:.2f}", outcome.failure)
    console.print(table)


def main() -> None:
    """Run every seed, and end with 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    outcomes: list[Outcome] = []
    console = Console(stderr=True)
    try:
        for seed in seeds(options.only):
            console.print(f"{seed[0]} {seed[1]}")
            outcomes.append(run(*seed, options))
    except KeyboardInterrupt:
        console.print("interrupted; what was done is below")
    if options.json:
        for outcome in outcomes:
            print(json.dumps(asdict(outcome)))
    else:
        report(outcomes, Console(width=150))
    sys.exit(1 if any(outcome.failure for outcome in outcomes) else 0)


if __name__ == "__main__":
    main()
