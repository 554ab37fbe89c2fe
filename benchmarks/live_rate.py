"""How fast flows go through the live engine: from a pipe and by HTTP as Arrow, from files as lines, and on replay.

    python benchmarks/live_rate.py [--flows MILLIONS]

The judgement takes rows and does nothing, so that this is the cost of taking in, spooling (with fsync) and replaying.
Clients run in the same process. CPU seconds are of all threads together.
"""

from __future__ import annotations

import argparse
import http.client
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pyarrow as pa
from reader_cases import flows

from relaywatch.engines.kernel import Change
from relaywatch.live.addresses import Address
from relaywatch.live.engine import Ears, Engine, Pace
from relaywatch.live.figures import Latest
from relaywatch.live.files import Files, Looking
from relaywatch.live.http_ingest import HttpInput
from relaywatch.live.standard_input import StandardInput
from relaywatch.model.tables import Batch
from relaywatch.outputs.telemetry import ExportFormat, export

CLIENTS = 4
EARS = Ears(lambda _: None, print, ())


class Idle:
    """A judgement that does nothing."""

    def __init__(self, folder: Path) -> None:
        """folder: stays empty."""

    def feed(self, batch: Batch, form: str = "") -> None:
        """Take rows."""

    def changes(self, *, all_over: bool = False) -> list[Change]:
        """Nothing."""
        return []

    drain = changes

    def taken(self) -> Self:
        """Nothing to keep."""
        return self

    def write(self, folder: Path) -> None:
        """Nothing to keep."""

    load = write

    def gauges(self) -> Mapping[str, float]:
        """None."""
        return {}


@contextmanager
def timed(name: str, rows: int) -> Iterator[None]:
    """Print rows a second, and rows a CPU second."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{name:24} {rows / wall / 1e6:6.2f} M flows/s, {rows / cpu / 1e6:6.2f} M a CPU s", flush=True)


def stream(batches: list[Batch]) -> bytes:
    """The batches as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].rows.schema) as writer:
        for batch in batches:
            writer.write_batch(batch.rows)
    return sink.getvalue().to_pybytes()


def pipe(state: Path, content: bytes) -> None:
    """Send the content through a pipe."""
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(content)

    threading.Thread(target=write).start()
    with Engine(state, Idle, Pace(), EARS) as engine:
        engine.run([StandardInput("", reading)], threading.Event(), until_end=True)
    os.close(reading)


def post(port: int, bodies: list[bytes]) -> None:
    """Send the bodies one after another, again where the queue is full."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for body in bodies:
        while True:
            connection.request("POST", "/v1/ingest", body)
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                break
            time.sleep(0.02)
    connection.close()


def served(state: Path, bodies: list[bytes], around: Callable[[], contextmanager]) -> None:
    """Send the bodies by HTTP."""
    source, stop = HttpInput(Address("127.0.0.1", 0), "", Latest().figures), threading.Event()
    ready = threading.Event()
    begin = source.start
    source.start = lambda *arguments: (begin(*arguments), ready.set())  # type: ignore[method-assign]
    with Engine(state, Idle, Pace(), EARS) as engine:
        running = threading.Thread(target=engine.run, args=([source], stop))
        running.start()
        ready.wait()
        clients = [threading.Thread(target=post, args=(source.port, bodies[k::CLIENTS])) for k in range(CLIENTS)]
        with around():
            for client in clients:
                client.start()
            for client in clients:
                client.join()
        stop.set()
        running.join()


def main() -> None:
    """Time everything once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flows", type=float, default=4.0)
    rows = int(parser.parse_args().flows * 1e6)
    batches = list(flows(rows))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        content = stream(batches)
        with timed("pipe, Arrow", rows):
            pipe(folder / "a", content)
        shutil.rmtree(folder / "a" / "checkpoints")
        with timed("replay", rows), Engine(folder / "a", Idle, Pace(), EARS):
            pass
        bodies = [stream([batch]) for batch in batches]
        served(folder / "b", bodies, lambda: timed("HTTP, Arrow", rows))
        few = batches[: len(batches) // 4]
        for form in (ExportFormat.NDJSON, ExportFormat.ZEEK):
            paths = export(iter(few), form, folder / form)
            state = folder / f"state-{form}"
            with (
                timed(f"files, {form}", sum(b.rows.num_rows for b in few)),
                Engine(state, Idle, Pace(), EARS) as engine,
            ):
                engine.run([Files(paths, Looking(until_end=True), print)], threading.Event(), until_end=True)


if __name__ == "__main__":
    main()
