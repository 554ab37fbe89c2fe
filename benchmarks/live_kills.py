"""Kills a watcher with SIGKILL again and again while telemetry grows, then compares it with the telemetry itself.

    python benchmarks/live_kills.py [--kills 1000] [--kernel counting|real] [--telemetry FILE]

A log grows by pieces cut anywhere, is renamed away and begun again, and Parquet files come beside it. After the last
kill the watcher runs to the end. With the counting kernel every record must have been counted exactly once; with the
real one the findings must be those of a hunt over the same files. FILE: text of a followed format, to grow instead.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "live"))
from counting import Counting
from telemetry import canonical_line, flows

from relaywatch.cli.watching import new_judgement
from relaywatch.detection.settings import load
from relaywatch.engines.kernel import WITHOUT_END
from relaywatch.engines.local import Hunt, hunt
from relaywatch.governance.exceptions import Exceptions
from relaywatch.live.engine import Ears, Engine, Pace
from relaywatch.live.files import Files, Looking
from relaywatch.live.judgement import Judgement

MEAN_LIFE_S = {"counting": 0.35, "real": 1.2}
"""By kernel: the real one takes a second until it has loaded what it needs, and is to come to checkpoints, too."""
ROTATIONS = 10
PARQUETS = 20
LINES = 100_000


def judgement(kernel: str, folder: Path) -> Judgement:
    """A fresh judgement, by name."""
    return Counting(folder) if kernel == "counting" else new_judgement(plan(), folder, WITHOUT_END)


def plan() -> Hunt:
    """What both the watcher and the hunt go by."""
    return Hunt(load(None, ()), Exceptions(()), datetime.now(UTC))


def watch(state: Path, folder: Path, kernel: str, until_end: bool) -> None:  # noqa: FBT001 - called by multiprocessing
    """Watch in this process, at a pace at which everything happens often."""
    ears = Ears(lambda _: None, lambda _: None, ())
    looking = Looking(poll_s=0.02, settle_s=0.2, until_end=until_end)
    with Engine(
        state, lambda work: judgement(kernel, work), Pace(0.05, 0.1, 0.002, spool_bytes=8 << 20), ears
    ) as engine:
        engine.run([Files([folder], looking, lambda _: None)], threading.Event(), until_end=until_end)


def grow(content: bytes, folder: Path, seconds: float, dice: random.Random, *, parquets: bool) -> None:
    """Write the content within about so many seconds; head lines begin each log anew."""
    head = b"".join(line + b"\n" for line in content[:4096].split(b"\n") if line.startswith(b"#"))
    log, begun, at = folder / "grow.log", time.monotonic(), 0
    cuts = [content.index(b"\n", len(content) * part // ROTATIONS - 1) + 1 for part in range(1, ROTATIONS)]
    held = [len(content) * part // PARQUETS for part in range(PARQUETS)] if parquets else []
    file, part = log.open("ab", buffering=0), 0
    while at < len(content):
        due = min(int(len(content) * (time.monotonic() - begun) / seconds) + 1, len(content))
        end = min([due, *(cut for cut in cuts if cut > at)])
        file.write(content[at:end])
        at = end
        if at in cuts:
            file.close()
            part += 1
            log.rename(folder / f"grow.log.{part}")
            file = log.open("ab", buffering=0)
            file.write(head)
        while held and at >= held[0]:
            number = PARQUETS - len(held)
            rows = flows(1 + 500 * number, 500, source="parquet").rows
            pq.write_table(pa.Table.from_batches([rows]), folder / f".{number}")
            (folder / f".{number}").rename(folder / f"{number}.parquet")
            held.pop(0)
        time.sleep(dice.uniform(0.001, 0.03))
    file.close()


def kill_again_and_again(state: Path, folder: Path, kernel: str, kills: int, dice: random.Random) -> Counter[str]:
    """Start and kill a watcher so many times; what the kills met."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["relaywatch.cli.watching", "relaywatch.live.files", "relaywatch.engines.local"])
    met: Counter[str] = Counter()
    for number in range(1, kills + 1):
        child = context.Process(target=watch, args=(state, folder, kernel, False))
        child.start()
        wait_until_begun(state, child)
        time.sleep(dice.expovariate(1 / MEAN_LIFE_S[kernel]))
        if child.pid is None or not child.is_alive():
            raise SystemExit(f"the watcher ended by itself before kill {number}: exit {child.exitcode}")
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        met["kills"] += 1
        met["within a checkpoint"] += any((state / "checkpoints").glob(".new-*"))
        met["journal line torn"] += torn(state / "findings.ndjson")
        if number % 50 == 0:
            print(f"{number} kills, {dict(met)}", flush=True)
    return met


def wait_until_begun(state: Path, child: multiprocessing.process.BaseProcess) -> None:
    """Until the watcher holds its state folder; it recovers from then on."""
    lock = state / "lock"
    while child.is_alive() and not (lock.exists() and lock.read_text().strip() == str(child.pid)):
        time.sleep(0.002)


def torn(path: Path) -> bool:
    """Whether the file's last line has no end."""
    return path.exists() and not (path.read_bytes()[-1:] or b"\n").endswith(b"\n")


def events(state: Path) -> list[dict[str, object]]:
    """The journal."""
    return [json.loads(line) for line in (state / "findings.ndjson").read_text().splitlines()]


def compare_counts(state: Path, lines: int, parquets: int) -> list[str]:
    """What is wrong with the counting kernel's last state."""
    newest = sorted((state / "checkpoints").iterdir())[-1]
    counts = json.loads((newest / "kernel" / "counts.json").read_text())
    wrong = [f"{source}, {position}: {n} times" for source, position, n in counts["records"] if n != 1]
    if len(counts["records"]) != lines + parquets * 500:
        wrong.append(f"{len(counts['records'])} records of {lines + parquets * 500}")
    last = {event["finding"]["device"]["uid"]: event["finding"]["bridges"] for event in events(state)}
    return wrong + [
        f"finding of {d}: {last.get(d)}, counted {n}" for d, n in counts["rows"].items() if last.get(d) != n
    ]


def compare_findings(state: Path, folder: Path) -> list[str]:
    """Where the journal's findings are not those of a hunt."""

    def told(finding: dict[str, object]) -> tuple[object, ...]:
        return finding["finding_id"], finding["verdict"], finding["bridges"], finding["bytes_in"], finding["bytes_out"]

    result = hunt([folder], plan())
    wanted = {told(finding.model_dump(mode="json")) for finding in result.findings}
    newest = {event["finding"]["finding_id"]: event for event in events(state)}
    found = {told(event["finding"]) for event in newest.values() if event["event"] != "withdrawn"}
    return [f"only the hunt: {one}" for one in wanted - found] + [f"only the watcher: {one}" for one in found - wanted]


def repeated(state: Path) -> int:
    """Events of the journal that say again what the last one of their finding said."""
    last: dict[object, object] = {}
    again = 0
    for event in events(state):
        key, said = event["finding"]["finding_id"], (event["event"], event["finding"])
        again += last.get(key) == said
        last[key] = said
    return again


def main() -> None:
    """Kill, compare, tell; exit status 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--kernel", choices=("counting", "real"), default="counting")
    parser.add_argument("--telemetry", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    dice = random.Random(asked.seed)  # noqa: S311 - no secret
    content = (
        asked.telemetry.read_bytes()
        if asked.telemetry
        else b"".join(canonical_line(number).encode() for number in range(1, LINES + 1))
    )
    with tempfile.TemporaryDirectory() as made:
        state, folder = Path(made) / "state", Path(made) / "in"
        folder.mkdir()
        seconds = asked.kills * (MEAN_LIFE_S[asked.kernel] + 0.15)
        writer = threading.Thread(
            target=grow, args=(content, folder, seconds, random.Random(asked.seed)),  # noqa: S311
            kwargs={"parquets": asked.telemetry is None},
        )  # fmt: skip
        begun = time.monotonic()
        writer.start()
        kill_again = kill_again_and_again(state, folder, asked.kernel, asked.kills, dice)
        writer.join()
        watch(state, folder, asked.kernel, until_end=True)
        if asked.kernel == "counting":
            parquets = 0 if asked.telemetry else PARQUETS
            records = sum(bool(line) and not line.startswith(b"#") for line in content.split(b"\n"))
            wrong = compare_counts(state, records, parquets)
        else:
            wrong = compare_findings(state, folder)
        again = repeated(state)
        print(f"{dict(kill_again)} in {time.monotonic() - begun:.0f} s; {len(events(state))} events, {again} repeated")
        print("\n".join(wrong[:20]) or "nothing lost, nothing twice")
    raise SystemExit(bool(wrong or again))


if __name__ == "__main__":
    main()
