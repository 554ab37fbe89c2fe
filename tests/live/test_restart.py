"""Whatever happens to the process, every record counts once, and the journal says what is true."""

import contextlib
import errno
import importlib
import json
import random
import threading
from dataclasses import replace
from itertools import pairwise

import pytest
from counting import Counting
from telemetry import canonical_line, piece

from relaywatch.live.checkpoints import Checkpoints, Stand
from relaywatch.live.engine import Pace
from relaywatch.live.inputs import Threaded
from relaywatch.live.taking import LiveError


class Crash(BaseException):
    """The process dies here."""


class Numbered(Threaded):
    """An input of records 1 to `last`, which goes on from its position."""

    def __init__(self, last, step=3):
        super().__init__()
        self.last, self.step = last, step

    def run(self, inbox, positions):
        at = next((position["next"] for _, position in positions.of("made")), 1)
        while at <= self.last and not self.stopping.is_set():
            count = min(self.step, self.last + 1 - at)
            if not inbox.put(piece(at, count)):
                return
            at += count


class Stopping(list):
    """Events; the first of them stops the watcher."""

    def __init__(self):
        super().__init__()
        self.stop = threading.Event()

    def extend(self, events):
        super().extend(events)
        self.stop.set()


def journalled(watcher):
    """The newest event of each finding."""
    records = map(json.loads, watcher.journal.read_text().splitlines())
    return {r["finding"]["device"]["uid"]: (r["event"], r["finding"]["bridges"]) for r in records}


def assert_told_once(watcher):
    """Revisions count on, and none says what the one before said."""
    last = {}
    for line in watcher.journal.read_text().splitlines():
        event = json.loads(line)
        before = last.get(event["finding"]["finding_id"])
        assert event["revision"] == (before["revision"] + 1 if before else 1)
        assert before is None or (before["event"], before["finding"]) != (event["event"], event["finding"])
        last[event["finding"]["finding_id"]] = event


POINTS = [
    ("relaywatch.live.spool", "write_all"),
    ("relaywatch.live.spool.Spool", "append"),
    ("relaywatch.live.spool.Spool", "commit"),
    ("relaywatch.live.spool.Spool", "forget"),
    ("relaywatch.live.durable.Lines", "append"),
    ("relaywatch.live.checkpoints", "sync_tree"),
    ("relaywatch.live.checkpoints", "sync_folder"),
    ("relaywatch.live.engine.Engine", "_take"),
    ("relaywatch.live.engine.Engine", "_judge"),
]


def crashing(monkeypatch, dice, where, after):
    """The named function fails at its n-th call, before it does anything, after it, or halfway through a write."""
    place, name = where
    module, _, owner_name = place.rpartition(".") if place.rpartition(".")[2][0].isupper() else (place, "", "")
    owner = importlib.import_module(module)
    owner = getattr(owner, owner_name) if owner_name else owner
    real, calls = getattr(owner, name), iter(range(1_000_000))
    halfway = dice.random() < 0.5

    def failing(*arguments, **named):
        if next(calls) != after:
            return real(*arguments, **named)
        if halfway:
            if name == "write_all" or place.endswith("Lines"):
                real(arguments[0], arguments[1][: dice.randrange(len(arguments[1]))])
            else:
                real(*arguments, **named)
        raise Crash

    monkeypatch.setattr(owner, name, failing)


@pytest.mark.parametrize("seed", range(20))
def test_a_crash_anywhere_loses_and_doubles_nothing(watcher, monkeypatch, seed):
    dice, finished = random.Random(seed), 0  # noqa: S311 - no secret
    watcher.pace = Pace(0.0, dice.choice([0.0, 0.002, 10.0]), 0.0, spool_bytes=40_000)
    monkeypatch.setattr("relaywatch.live.inbox.TAKEN_BYTES", 3000)
    for part in range(10):
        with monkeypatch.context() as patched:
            crashing(patched, dice, dice.choice(POINTS), dice.randrange(dice.choice([2, 12])))
            with contextlib.suppress(Crash):
                watcher.watch(Numbered(30 * (part + 1)))
                finished += 1
    watcher.watch(Numbered(300))
    assert finished < 10
    assert len(watcher.counts.records) == 300
    assert set(watcher.counts.records.values()) == {1}
    assert journalled(watcher) == {f"phone-{n}": ("closed", 100) for n in range(3)}
    assert_told_once(watcher)


def test_a_restart_tells_nothing_again(watcher):
    watcher.watch(Numbered(30))
    lines = watcher.journal.read_text()
    with watcher.engine():
        pass
    assert watcher.journal.read_text() == lines


def test_after_a_stop_it_goes_on_where_it_was(watcher, tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_text("".join(canonical_line(n) for n in range(1, 31)))
    watcher.events = Stopping()
    with watcher.engine() as engine:
        engine.run([watcher.files(path, until_end=False)], watcher.events.stop)
    with path.open("a") as file:
        file.write(canonical_line(31))
    watcher.watch(watcher.files(path))
    assert watcher.counts.records.total() == 31


class Once(Threaded):
    """An input of one piece, which writes down what becomes of it."""

    def __init__(self, said):
        super().__init__()
        self.said = said

    def run(self, inbox, positions):
        inbox.put(replace(piece(1, 3), done=self.said.append))


def test_a_piece_is_acknowledged_once_it_is_on_disk_and_not_before(watcher, monkeypatch):
    said = []
    monkeypatch.setattr("os.fdatasync", lambda _: said.append("on disk"))
    watcher.watch(Once(said))
    assert said[:2] == ["on disk", True]


def test_a_full_disk_is_told_and_nothing_is_acknowledged(watcher, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    said = []
    with monkeypatch.context() as patched, pytest.raises(LiveError, match="spool cannot be written: No space left"):
        patched.setattr("relaywatch.live.spool.write_all", full)
        watcher.watch(Once(said))
    assert said == [False]
    watcher.watch(Once(said))
    assert said == [False, True]
    assert watcher.counts.records.total() == 3


def test_two_watchers_do_not_share_a_folder(watcher):
    with watcher.engine(), pytest.raises(LiveError, match=r"another watcher .process [0-9]+. uses this state folder"):
        watcher.engine().__enter__()


def test_what_was_judged_and_not_yet_told_is_told_after_a_crash(watcher, monkeypatch):
    def crash(*_):
        raise Crash

    with monkeypatch.context() as patched, pytest.raises(Crash):
        patched.setattr("relaywatch.live.durable.Lines.append", crash)
        watcher.watch(Numbered(30))
    assert not watcher.journal.read_text()
    with watcher.engine():
        pass
    assert journalled(watcher) == {f"phone-{n}": ("opened", 10) for n in range(3)}


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(watcher, monkeypatch):
    monkeypatch.setattr("relaywatch.live.inbox.TAKEN_BYTES", 1)
    watcher.pace = Pace(0.05, 60.0, 0.0, spool_bytes=100_000)
    watcher.watch(Numbered(30))
    watcher.watch(Numbered(60))
    newest = sorted((watcher.state / "checkpoints").iterdir())[-1]
    (newest / "kernel" / "counts.json").write_text("{}")
    watcher.watch(Numbered(60))
    assert set(watcher.counts.records.values()) == {1}
    assert len(watcher.counts.records) == 60


def test_no_sound_checkpoint_is_told(watcher):
    watcher.watch(Numbered(30))
    for place in (watcher.state / "checkpoints").iterdir():
        (place / "state.json").write_text("{}")
    with pytest.raises(LiveError, match="no checkpoint is whole"):
        watcher.watch(Numbered(30))


def test_two_checkpoints_are_kept_and_the_spool_is_bounded(watcher):
    watcher.pace = Pace(0.0, 0.0, 0.0, spool_bytes=8)
    watcher.watch(Numbered(200, step=1))
    assert len(list((watcher.state / "checkpoints").iterdir())) == 2


def test_checkpoints_come_by_even_pieces_of_the_spool(watcher, monkeypatch):
    entries = []

    def write(self, held, stand):
        entries.append(stand.entry)
        return whole_write(self, held, stand)

    whole_write = Checkpoints.write
    monkeypatch.setattr(Checkpoints, "write", write)
    monkeypatch.setattr("relaywatch.live.inbox.TAKEN_BYTES", 1)
    watcher.pace = Pace(0.0, 3_600.0, 0.0, spool_bytes=100_000)
    watcher.watch(Numbered(200, step=1))
    between = [later - earlier for earlier, later in pairwise([0, *entries[:-1]])]
    assert len(between) > 3
    assert max(between) - min(between) <= 1 < min(between)


def test_a_checkpoint_keeps_all_it_is_given(tmp_path):
    stand = Stand(7, {"file:1-2": {"offset": 3}}, 99, {"flows": 5}, 2)
    Checkpoints(tmp_path / "c").write(Counting().taken(), stand)
    ((found, _),) = Checkpoints(tmp_path / "c").newest_sound()
    assert found == stand
