"""The engine: takes from the inputs, spools, feeds the judgement, journals what it says, keeps checkpoints.

One thread, and a second one that writes checkpoints. A piece is acknowledged once it is on disk. After a crash the
newest whole checkpoint is loaded and the spool after it taken again in silence; then the judgement is asked once, and
the journal set right.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from relaywatch.engines.kernel import Change
from relaywatch.live.checkpoints import Checkpoints, Stand
from relaywatch.live.durable import Lines, held_alone, sync_folder
from relaywatch.live.figures import Figures, Rate
from relaywatch.live.inbox import Inbox
from relaywatch.live.inputs import Input, Tell
from relaywatch.live.journal import Event, Journal
from relaywatch.live.judgement import Judgement, State
from relaywatch.live.positions import Positions
from relaywatch.live.spool import SEGMENT_BYTES, Spool
from relaywatch.live.taking import LiveError, Taken
from relaywatch.model.errors import RelaywatchError
from relaywatch.model.tables import Batch

QUARANTINE: Final = "quarantine.ndjson"
WORK: Final = "work"
"""What the judgement keeps in files; its checkpoints refer to them."""
LATE: Final = "late"
"""Rows that came too late to be judged live: telemetry for a hunt."""
_WAIT_S: Final = 0.25
"""Longest wait in one go, so that a signal is heeded soon."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often things are done, in s. spool_bytes: that may come between a checkpoint and the one after the next."""

    judge_every_s: float = 0.5
    checkpoint_every_s: float = 60.0
    commit_every_s: float = 0.01
    spool_bytes: int = 4 << 30


@dataclass(frozen=True, slots=True)
class Ears:
    """Who hears of what: events of findings as they are journalled, messages, figures at each judging."""

    events: Callable[[Sequence[Event]], None]
    tell: Tell
    figures: Sequence[Callable[[Figures], None]]


class Engine:
    """A watcher over one state folder. Use as a context; the folder is locked meanwhile.

    new_judgement: makes a fresh one over the folder in which it, or one before it, puts what outgrows memory.
    """

    def __init__(self, folder: Path, new_judgement: Callable[[Path], Judgement], pace: Pace, ears: Ears) -> None:
        self._folder, self._new_judgement, self._pace, self._ears = folder, new_judgement, pace, ears
        self._held = ExitStack()
        self.inbox = Inbox()
        self.rows: Counter[str] = Counter()
        self.aside = 0
        self._entry = self._held_entry = self._held_bytes = self._events = 0
        self._newest_us = 0
        self._rate = Rate()
        self._judging_s = self._checkpoint_s = 0.0
        self._checkpoint_at = self._stood_at = time.monotonic()
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._being_written: Future[tuple[int, float]] | None = None

    def __enter__(self) -> Engine:
        with ExitStack() as stack:
            stack.enter_context(held_alone(self._folder))
            stack.callback(self._writer.shutdown)
            self._recover(stack)
            self._held = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for piece in self.inbox.close():
            piece.done(False)  # noqa: FBT003 - a callback's one argument
        self._held.close()

    def run(self, inputs: Sequence[Input], stop: threading.Event, *, until_end: bool = False) -> None:
        """Watch until `stop` is set or, with until_end, all inputs have ended; then everything closes.

        Raises what an input or the judgement failed of; what was acknowledged is on disk all the same.
        """
        started: list[Input] = []
        try:
            for source in inputs:
                source.start(self.inbox, self._positions)
                started.append(source)
            self._loop(inputs, stop, until_end=until_end)
        finally:
            for piece in self.inbox.close():
                piece.done(False)  # noqa: FBT003
            for source in started:
                source.stop()
        if until_end and not stop.is_set():
            self._hear(self._journal.write(self._judgement.drain()))
        else:
            self._judge()
        self._checkpoint()
        self._checkpoint_written()
        self._show()

    def _loop(self, inputs: Sequence[Input], stop: threading.Event, *, until_end: bool) -> None:
        judge_at = time.monotonic() + self._pace.judge_every_s
        while not stop.is_set():
            over = until_end and all(source.ended for source in inputs)
            pieces = self.inbox.take(
                min(_WAIT_S, max(judge_at - time.monotonic(), 0.0)), linger_s=self._pace.commit_every_s
            )
            if pieces:
                self._keep(pieces)
            elif over:
                return
            if time.monotonic() >= judge_at:
                self._judge()
                judge_at = time.monotonic() + self._pace.judge_every_s
                if self._being_written is not None and self._being_written.done():
                    self._checkpoint_written()
                if self._checkpoint_due():
                    self._checkpoint()
                self._show()

    def _recover(self, stack: ExitStack) -> None:
        stand, self._judgement = self._loaded()
        self._positions = Positions(stand.positions)
        self.rows.update(stand.rows)
        self.aside, self._entry, self._held_entry = stand.aside, stand.entry, stand.entry
        self._quarantine = Lines(self._folder / QUARANTINE)
        stack.callback(self._quarantine.close)
        self._told_aside = _last_entry(self._quarantine.path)
        self._journal = Journal(self._folder, known_size=stand.journal)
        stack.callback(self._journal.close)
        self._spool = Spool(self._folder / "spool", segment_bytes=min(SEGMENT_BYTES, self._pace.spool_bytes // 4))
        stack.callback(self._spool.close)
        for number, taken in self._spool.recover(stand.entry):
            # What was late before need not be now: the clocks of this run decide.
            for path in (self._folder / LATE).glob(f"{number:012d}-*"):
                path.unlink()
            self._take(number, taken)
        self._hear(self._journal.resume(self._judgement.changes(all_over=True)))

    def _loaded(self) -> tuple[Stand, Judgement]:
        self._checkpoints = Checkpoints(self._folder / "checkpoints")
        work = self._folder / WORK
        for stand, state in self._checkpoints.newest_sound():
            judgement = self._new_judgement(work)
            judgement.load(state)
            return stand, judgement
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(mode=0o700)
        return Stand(), self._new_judgement(work)

    def _keep(self, pieces: Sequence[Taken]) -> None:
        """Spool the pieces, acknowledge them, feed them."""
        try:
            numbers = [self._spool.append(piece) for piece in pieces]
            self._spool.commit()
        except OSError as fault:
            for piece in pieces:
                piece.done(False)  # noqa: FBT003
            raise LiveError(
                f"{self._folder}: the spool cannot be written: {fault.strerror}. Nothing acknowledged is lost; "
                "make room and start again."
            ) from fault
        for piece in pieces:
            piece.done(True)  # noqa: FBT003
        for number, piece in zip(numbers, pieces, strict=True):
            self._take(number, piece)
        self._rate.add(sum(batch.rows.num_rows for piece in pieces for batch in piece.batches))

    def _take(self, number: int, taken: Taken) -> None:
        for batch in taken.batches:
            try:
                self._judgement.feed(batch, taken.form)
            except RelaywatchError as fault:
                self._ears.tell(f"rows of entry {number} are not judged and kept in {self._folder / LATE}: {fault}")
                self._put_by(f"{number:012d}-refused-{batch.table}", batch)
            self.rows[batch.table] += batch.rows.num_rows
            self._newest_us = max(self._newest_us, _newest_us(batch))
        for place, late in enumerate(self._judgement.take_late()):
            self._put_by(f"{number:012d}-{place}-{late.table}", late)
        self._positions.move(taken.positions)
        self.aside += taken.aside_total
        if taken.aside_total and number > self._told_aside:
            self._put_aside(number, taken)
        self._entry = number

    def _put_aside(self, number: int, taken: Taken) -> None:
        shown = [{"source": e.source, "position": e.position, "reason": e.reason} for e in taken.aside]
        record = {"entry": number, "records": taken.aside_total, "shown": shown}
        self._quarantine.append(json.dumps(record, separators=(",", ":")) + "\n")

    def _put_by(self, name: str, late: Batch) -> None:
        """Keep rows that came too late, in a file named after their entry: the same one if it is taken again."""
        folder = self._folder / LATE
        folder.mkdir(exist_ok=True, mode=0o700)
        with pa.BufferOutputStream() as sink, pa.ipc.new_stream(sink, late.rows.schema) as out:
            out.write_batch(late.rows)
            out.close()
            content = sink.getvalue()
        with (folder / f".{name}").open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        (folder / f".{name}").rename(folder / f"{name}.arrows")
        sync_folder(folder)

    def _judge(self) -> None:
        begun = time.monotonic()
        changes: list[Change] = self._judgement.changes()
        self._hear(self._journal.write(changes))
        self._judging_s = time.monotonic() - begun

    def _hear(self, events: Sequence[Event]) -> None:
        self._events += len(events)
        if events:
            self._ears.events(events)

    def _checkpoint_due(self) -> bool:
        if self._entry == self._held_entry:
            return False
        late = time.monotonic() - self._checkpoint_at >= self._pace.checkpoint_every_s
        # The spool holds what came since the checkpoint before the last.
        large = self._spool.appended_bytes - self._held_bytes > self._pace.spool_bytes // 2
        return large or (late and self._being_written is None)

    def _checkpoint(self) -> None:
        """Take a checkpoint, to be written while the watching goes on, after the one before it."""
        self._checkpoint_written()
        self._checkpoint_at = time.monotonic()
        stand = Stand(self._entry, self._positions.all(), self._journal.size_bytes, dict(self.rows), self.aside)
        self._being_written = self._writer.submit(self._write_checkpoint, self._judgement.taken(), stand)
        self._held_entry, self._held_bytes = self._entry, self._spool.appended_bytes

    def _write_checkpoint(self, held: State, stand: Stand) -> tuple[int, float]:
        """The entry up to which the spool is needed no longer, and when the checkpoint stood."""
        return self._checkpoints.write(held, stand), time.monotonic()

    def _checkpoint_written(self) -> None:
        """Wait for the checkpoint that is being written, if one is. Raises LiveError where it could not be."""
        if self._being_written is None:
            return
        try:
            needless, self._stood_at = self._being_written.result()
        except OSError as fault:
            raise LiveError(
                f"{self._folder}: the checkpoint cannot be written: {fault.strerror or fault}. Nothing acknowledged is "
                "lost; make room and start again."
            ) from fault
        self._being_written = None
        self._spool.forget(needless)
        self._checkpoint_s = self._stood_at - self._checkpoint_at

    @property
    def findings_open(self) -> int:
        """Findings that are open."""
        return self._journal.open

    @property
    def findings_told(self) -> int:
        """Events written by this process."""
        return self._events

    def _show(self) -> None:
        figures = self._figures()
        for shown in self._ears.figures:
            shown(figures)

    def _figures(self) -> Figures:
        pieces, size = self.inbox.depth
        now = time.monotonic()
        values = {
            "aside_total": self.aside,
            "rows_per_second": self._rate.now(),
            "lag_seconds": time.time() - self._newest_us / 1e6 if self._newest_us else 0.0,
            "queue_pieces": pieces,
            "queue_bytes": size,
            "spool_bytes": self._spool.size_bytes,
            "spool_entry": self._entry,
            "checkpoint_age_seconds": now - self._stood_at,
            "checkpoint_duration_seconds": self._checkpoint_s,
            "judging_duration_seconds": self._judging_s,
            "findings_open": self._journal.open,
            "findings_events_total": self._events,
        }
        return Figures(now, values, dict(self.rows), dict(self._judgement.gauges()))


def _newest_us(batch: Batch) -> int:
    """The newest start in a batch, us since epoch; 0 where it has none."""
    if batch.table == "inventory":
        return 0
    newest = pc.max(batch.rows.column("start_time").cast(pa.int64())).as_py()
    return int(newest or 0)


def _last_entry(path: Path) -> int:
    """The number of the entry that the quarantine's last line is of; 0 where there is none."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        step = 1 << 16
        while True:
            file.seek(max(size - step, 0))
            lines = file.read().splitlines()
            if not lines:
                return 0
            if len(lines) > 1 or step >= size:
                return int(json.loads(lines[-1])["entry"])
            step *= 16
