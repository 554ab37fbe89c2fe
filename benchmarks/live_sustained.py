"""A watcher under a steady stream: flows a second, memory, and how soon a finding comes after the flow that decides it.

    python benchmarks/live_sustained.py [--rate 150000] [--seconds 600] [--devices 20000] [--checkpoint 60]

A simulated fleet goes through a pipe into `relaywatch watch`, with spool, fsync and checkpoints, at the rate asked for
or as fast as it is taken. The flow that decides a finding is the first one with which a judgement of the app's flows so
far gives the finding. In the same run, a loop in Python that matches each flow with its app's last ones stands for what
is compared with. Memory is shown against the pairs that were active when it was measured.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict, deque
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from relaywatch.detection.calibration import MEASURED
from relaywatch.detection.settings import Settings
from relaywatch.engines.judging import judge_part
from relaywatch.engines.records import SIGNAL, VOLUME, Registry, flow_records
from relaywatch.engines.texts import Texts
from relaywatch.model.tables import Batch
from relaywatch.simulation.plan import Plan
from relaywatch.simulation.stream import Simulation

ROWS = 15_000
WINDOW_S, LIKE = 10.0, (0.8, 1.25)
Key = tuple[str, str]


class Memory(threading.Thread):
    """The peak of a process's resident memory, and of its part that is no file, by the second; in GiB.

    by_pairs: resident memory when so many hundred thousand pairs were first active, and how many these were; pairs: the
    most that were.
    """

    def __init__(self, pid: int, port: int) -> None:
        super().__init__(daemon=True)
        self.path, self.resident, self.anonymous = Path(f"/proc/{pid}/status"), 0.0, 0.0
        self.metrics = f"http://127.0.0.1:{port}/metrics"
        self.by_pairs: dict[int, tuple[int, float]] = {}
        self.pairs = 0

    def run(self) -> None:
        """Look once a second, until the process is gone."""
        while True:
            try:
                lines = dict(
                    line.split(":", 1) for line in self.path.read_text().splitlines() if line.startswith("Rss")
                )
            except (OSError, ValueError):
                return
            sizes = {name: int(value.split()[0]) / 2**20 for name, value in lines.items()}
            if not sizes:
                return
            self.resident = max(self.resident, sum(sizes.values()))
            self.anonymous = max(self.anonymous, sizes.get("RssAnon", 0.0))
            pairs = self.active_pairs()
            self.by_pairs.setdefault(pairs // 100_000, (pairs, sum(sizes.values())))
            self.pairs = max(self.pairs, pairs)
            time.sleep(1.0)

    def active_pairs(self) -> int:
        """What the watcher says of itself; 0 before it listens, and when it is gone."""
        try:
            with urllib.request.urlopen(self.metrics, timeout=1.0) as answer:  # noqa: S310 - its own address
                told = answer.read().decode().splitlines()
        except OSError:
            return 0
        lines = dict(line.rsplit(" ", 1) for line in told if line and line[0] != "#")
        return int(float(lines.get("relaywatch_judgement_active_pairs", "0")))


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def feed(process: subprocess.Popen[bytes], plan: Plan, rate: int, relays: set[Key]) -> dict[Key, list]:
    """Send the fleet's flows; of each relaying app its rows and when they were sent."""
    sent, begun, rows, writer = defaultdict(list), time.time(), 0, None
    for batch in Simulation(plan).batches(ROWS):
        if batch.table != "flows":
            continue
        if writer is None:
            writer = pa.ipc.new_stream(process.stdin, batch.rows.schema)
        writer.write_batch(batch.rows)
        process.stdin.flush()
        now = time.time()
        keep(sent, batch.rows, now, relays)
        rows += batch.rows.num_rows
        if rate:
            time.sleep(max(0.0, begun + rows / rate - time.time()))
        if rows % 3_000_000 < ROWS:
            print(f"{rows:,} flows in {time.time() - begun:.0f} s", file=sys.stderr, flush=True)
    writer.close()
    process.stdin.close()
    sent["", ""] = [rows, time.time() - begun]
    return sent


def warm() -> None:
    """Let a watcher take a small fleet to its end, so that no kernel has to be compiled while it is measured."""
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "-m", "relaywatch", "watch", "-", "--state", state, "--json", "--until-end"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        feed(process, Plan(devices=20, flows=50_000, seed=3, relays=0.02, signals=0.0, inventory=False), 0, set())
        process.wait()


def keep(sent: dict[Key, list], rows: pa.RecordBatch, now: float, relays: set[Key]) -> None:
    """Note the rows of relaying apps."""
    packages = pa.array(sorted({package for _, package in relays}), pa.string())
    devices = pa.array(sorted({device for device, _ in relays}), pa.string())
    hit = pc.and_(
        pc.is_in(rows["device_uid"].cast(pa.string()), devices),
        pc.is_in(rows["android_package"].cast(pa.string()), packages),
    )
    own = rows.filter(hit)
    for place, key in enumerate(zip(own["device_uid"].to_pylist(), own["android_package"].to_pylist(), strict=True)):
        if key in relays:
            sent[key].append((now, own.slice(place, 1)))


def decided_at(rows: list[tuple[float, pa.RecordBatch]]) -> float | None:
    """When the flow was sent with which the app first has a case that would be told; None where it never has."""
    registry, texts = Registry(), Texts()
    records = np.concatenate([flow_records(Batch("flows", row), registry, texts) for _, row in rows])
    low, high = 0, len(rows) + 1
    while low < high:  # as a rule, more flows keep a case
        middle = (low + high) // 2
        part = judge_part(records[:middle], np.empty(0, VOLUME), np.empty(0, SIGNAL), registry, Settings(), MEASURED)
        if any(case.episode is not None and case.log_evidence > TELLING for case in part.cases()):
            high = middle
        else:
            low = middle + 1
    return rows[low - 1][0] if 0 < low <= len(rows) else None


TELLING = 9.0
"""Natural log evidence from which a case is told of, the spread of its destinations and its context left aside: below
it the prior keeps it silent."""


def python_loop(batches: list[pa.RecordBatch]) -> float:
    """Flows a CPU second of a loop that compares each flow with the last 16 of its app, row by row in plain Python."""
    last: dict[Key, deque] = defaultdict(lambda: deque(maxlen=16))
    begun, found, rows = time.process_time(), 0, 0
    for batch in batches:
        for row in batch.to_pylist():
            held = last[row["device_uid"], row["android_package"]]
            found += sum(
                abs((row["start_time"] - before["start_time"]).total_seconds()) < WINDOW_S
                and LIKE[0] < (row["bytes_out"] + 40) / (before["bytes_in"] + 40) < LIKE[1]
                and LIKE[0] < (row["bytes_in"] + 40) / (before["bytes_out"] + 40) < LIKE[1]
                for before in held
            )
            held.append(row)
            rows += 1
    return rows / (time.process_time() - begun)


def main() -> None:
    """Run and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=int, default=150_000, help="flows a second; 0: as fast as they are taken")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--devices", type=int, default=20_000)
    parser.add_argument("--checkpoint", type=float, default=60.0)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    flows = (asked.rate or 150_000) * asked.seconds
    plan = Plan(devices=asked.devices, flows=flows, seed=3, relays=0.0005, signals=0.0, inventory=False)
    relays = set(Simulation(plan).truth().select("device_uid", "android_package").cast(pl.String).iter_rows())
    warm()
    some = [b.rows for b, _ in zip(Simulation(plan).batches(ROWS), range(10), strict=False) if b.table == "flows"]
    with tempfile.TemporaryDirectory(dir=asked.folder) as state:
        port = free_port()
        command = [sys.executable, "-m", "relaywatch", "watch", "-", "--state", state, "--json"]
        command += ["--checkpoint-every", str(asked.checkpoint), "--http", f"127.0.0.1:{port}"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        memory = Memory(process.pid, port)
        memory.start()
        sent = feed(process, plan, asked.rate, relays)
        rows, seconds = sent.pop(("", ""))
        time.sleep(3.0)
        ticks = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        process.send_signal(signal.SIGTERM)
        process.wait()
        opened: dict[Key, float] = {}
        with (Path(state) / "findings.ndjson").open(encoding="utf-8") as lines:
            for line in lines:
                event = json.loads(line)
                who = event["finding"]["device"]["uid"], event["finding"]["app"]["package"]
                opened.setdefault(who, datetime.fromisoformat(event["time"]).timestamp())
    cpu = (int(ticks[11]) + int(ticks[12])) / 100.0
    waits = [opened[who] - at for who, own in sent.items() if who in opened and (at := decided_at(own)) is not None]
    plain = python_loop(some)
    told, others = (sum((who in relays) is own for who in opened) for own in (True, False))
    print(f"flows {rows:,} in {seconds:.0f} s: {rows / seconds:,.0f} a second, {rows / cpu:,.0f} a CPU second")
    print(f"peak resident {memory.resident:.2f} GiB, of it {memory.anonymous:.2f} GiB no file; {memory.pairs:,} pairs")
    for pairs, size in memory.by_pairs.values():
        if pairs:
            print(f"  with {pairs:,} pairs active: {size:.2f} GiB resident")
    print(f"relaying apps {len(relays)}, told of {told}; others told of {others}")
    if waits:
        median, worst = np.quantile(waits, [0.5, 0.99])
        print(f"from the deciding flow to the finding: median {median:.2f} s, p99 {worst:.2f} s, of {len(waits)}")
    print(f"plain Python loop that compares, and judges nothing: {plain:,.0f} flows a CPU second")


if __name__ == "__main__":
    main()
