"""What a user is promised of a stream: whatever its cut, order and restarts, it finds what a hunt of files finds."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scenarios import BEGIN_US, Recorder, back_connect_relay, hunted, listener_relay, own_traffic, tunnel_relay

from relaywatch.detection.settings import Settings
from relaywatch.engines import kernel, state
from relaywatch.engines.kernel import WITHOUT_END, Change, Kernel, Patience, Status
from relaywatch.engines.local import Hunt
from relaywatch.engines.stretches import MOST_FLOWS
from relaywatch.governance.exceptions import Exceptions
from relaywatch.model.errors import RelaywatchError
from relaywatch.model.finding import Finding
from relaywatch.model.schemas import SignalKind
from relaywatch.model.tables import Batch
from relaywatch.outputs.native import finding_object
from relaywatch.simulation.plan import Fault, Faults, Plan
from relaywatch.simulation.stream import Simulation

DAY_S = 86_400.0
REMOTE = "198.51.100.7"


def plan() -> Hunt:
    return Hunt(Settings(), Exceptions(()), datetime(2026, 3, 1, tzinfo=UTC))


def dice_of(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - chance, not secrets


class Stream:
    """A kernel that is fed, asked, and now and then ended and begun again from its state."""

    def __init__(self, folder: Path, patience: Patience) -> None:
        self.folder, self.patience = folder, patience
        self.restarts = 0
        self.events: list[Change] = []
        self.kernel = self._fresh()

    def _fresh(self) -> Kernel:
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        return Kernel(plan(), work, self.patience)

    def restart_from_snapshot(self) -> None:
        kept = state.snapshot(self.kernel)
        self._end()
        shutil.rmtree(self.folder / "work")
        self.kernel = self._fresh()
        state.restore(self.kernel, kept)

    def restart_from_checkpoint(self) -> None:
        place = self.folder / f"checkpoint-{self.restarts}"
        place.mkdir()
        state.taken(self.kernel).write(place)
        self.restart_from(place)

    def restart_from(self, place: Path) -> None:
        self._end()
        self.kernel = self._fresh()
        state.load(self.kernel, place)

    def _end(self) -> None:
        self.restarts += 1
        self.kernel.open.flows.close()
        self.kernel.open.volumes.close()

    def ask(self) -> None:
        self.events += self.kernel.changes()

    def end(self) -> dict[str, Finding]:
        """What stands at the end, by id."""
        self.events += self.kernel.drain()
        standing = {}
        for change in self.events:
            standing[change.finding.finding_id] = change.finding
            if change.status is Status.WITHDRAWN:
                del standing[change.finding.finding_id]
        return standing


def run(
    batches: Iterable[tuple[Batch, str]], dice: random.Random, patience: Patience
) -> tuple[Stream, dict[str, Finding]]:
    """Feed everything, asking and restarting at random."""
    with TemporaryDirectory() as folder:
        stream = Stream(Path(folder), patience)
        for batch, form in batches:
            stream.kernel.feed(batch, form)
            if dice.random() < 0.3:
                stream.ask()
            if dice.random() < 0.1:
                stream.restart_from_snapshot() if dice.random() < 0.5 else stream.restart_from_checkpoint()
        return stream, stream.end()


def cut(batches: Sequence[Batch], dice: random.Random) -> list[Batch]:
    """The rows in pieces of random length."""
    pieces = []
    for batch in batches:
        rows = batch.rows.num_rows
        places = sorted({0, rows, *(dice.randrange(rows) for _ in range(dice.randint(0, 6)))})
        pieces += [Batch(batch.table, batch.rows.slice(a, b - a)) for a, b in pairwise(places)]
    return pieces


def objects(findings: Iterable[Finding]) -> dict[str, dict[str, object]]:
    return {finding.finding_id: finding_object(finding) for finding in findings}


def fleet() -> list[Batch]:
    """Relays of three topologies, and others, on several phones and over midnight, with their context."""
    rng = np.random.default_rng(5)
    apps = [
        listener_relay(rng, Recorder(device="phone-1")),
        back_connect_relay(rng, Recorder(device="phone-2")),
        tunnel_relay(rng, Recorder(device="phone-3")),
        own_traffic(rng, Recorder(device="phone-1", package="com.other", uid=10_777)),
        own_traffic(rng, Recorder(device="phone-4")),
    ]
    for app in apps:
        app.signal(SignalKind.CAPTURE, 0.0, 500.0, detail="FOREGROUND_UI USER_INTERACTION LISTENER")
        app.signal(SignalKind.FOREGROUND_UI, 10.0, 20.0)
    return [batch for app in apps for batch in app.batches()]


class TestSameAsAHunt:
    @hypothesis_settings(max_examples=25, deadline=None)
    @given(st.integers(0, 2**32))
    def test_any_cut_any_order_any_restarts(self, seed):
        batches = fleet()
        dice = dice_of(seed)
        pieces = cut(batches, dice)
        dice.shuffle(pieces)
        stream, standing = run([(piece, "given") for piece in pieces], dice, WITHOUT_END)
        assert objects(standing.values()) == objects(hunted(batches).findings)
        assert stream.kernel.gauges()["active_pairs"] == 0

    @pytest.mark.parametrize("seed", range(3))
    def test_a_faulty_fleet_in_the_order_of_arrival(self, seed, monkeypatch):
        if seed == 0:
            monkeypatch.setattr(kernel, "CLOSED_AT_ONCE", 100)  # the days of many devices, by and by
            monkeypatch.setattr(kernel, "CONCLUDED_AT_ONCE", 1)
        faults = Faults(
            skew=Fault(0.3, 300), late=Fault(0.2, 120), duplicates=Fault(0.02, 600), gaps=Fault(0.1, 14_400)
        )
        wanted = Plan(
            devices=12, flows=30_000, days=2, seed=seed, relays=0.02, volumes=0.3, signals=0.5, hot=True, faults=faults
        )
        fleet = list(Simulation(wanted).batches(3_000))
        whole = hunted(fleet)
        # An hour is the order that a simulated fleet keeps between tables.
        stream, standing = run([(batch, "given") for batch in fleet], dice_of(seed), Patience(7_200.0))
        assert objects(standing.values()) == objects(whole.findings)
        assert whole.findings
        assert stream.kernel.gauges()["late_records"] == 0

    def test_the_same_rows_twice_change_nothing(self):
        batches = fleet()
        _, once = run([(batch, "given") for batch in batches], dice_of(1), WITHOUT_END)
        stream, twice = run([(batch, "given") for batch in [*batches, *batches]], dice_of(2), WITHOUT_END)
        assert objects(once.values()) == objects(twice.values())
        assert stream.kernel.counts.duplicates > 0


class TestAsItGoesOn:
    def test_what_comes_while_a_checkpoint_is_written_is_not_in_it(self, tmp_path):
        batches = fleet()
        stream = Stream(tmp_path, WITHOUT_END)
        for batch in batches:
            stream.kernel.feed(batch)
        stream.ask()
        held, before = state.taken(stream.kernel), state.snapshot(stream.kernel)
        for batch in batches:
            stream.kernel.feed(batch)
        stream.kernel.drain()
        place = tmp_path / "checkpoint"
        place.mkdir()
        held.write(place)
        stream.restart_from(place)
        assert state.snapshot(stream.kernel) == before

    def test_a_restart_takes_nothing_back(self, tmp_path):
        stream = Stream(tmp_path, WITHOUT_END)
        for batch in fleet():
            stream.kernel.feed(batch)
        stream.ask()
        assert stream.events
        stream.restart_from_checkpoint()
        stream.kernel.open.column("mirrored")[:] = 0  # none of them would be worth a look by what it holds
        assert stream.kernel.changes() == []

    def test_a_state_is_written_as_it_was_when_it_was_taken(self, tmp_path):
        stream, batches = Stream(tmp_path, WITHOUT_END), fleet()
        place = tmp_path / "checkpoint"
        place.mkdir()
        for batch in batches[: len(batches) // 2]:
            stream.kernel.feed(batch, "given")
        stream.ask()
        held = state.taken(stream.kernel)
        for batch in batches:
            stream.kernel.feed(batch, "given")
        stream.ask()
        stream.kernel.drain()
        held.write(place)
        stream.restart_from(place)
        for batch in batches[len(batches) // 2 :]:
            stream.kernel.feed(batch, "given")
        assert objects(stream.end().values()) == objects(hunted(batches).findings)

    def test_a_finding_opens_before_its_day_is_over_and_closes_after_it(self, tmp_path):
        stream = Stream(tmp_path, Patience(60.0, 3_600.0))
        for batch in listener_relay(np.random.default_rng(0), Recorder()).batches():
            stream.kernel.feed(batch)
        stream.ask()
        assert [change.status for change in stream.events] == [Status.OPENED]
        later = Recorder()
        later.flow(2 * DAY_S, 2 * DAY_S + 1, [(2 * DAY_S, 100, 2_000)], REMOTE)
        for batch in later.batches():
            stream.kernel.feed(batch)
        stream.ask()
        assert [change.status for change in stream.events] == [Status.OPENED, Status.CLOSED]
        assert stream.kernel.gauges()["active_pairs"] == 1

    def test_a_day_is_concluded_by_and_by_as_a_hunt_tells_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr(kernel, "CONCLUDED_AT_ONCE", 1)
        stream, batches = Stream(tmp_path, Patience(60.0, 3_600.0)), fleet()
        later, straggler = Recorder(device="phone-9"), Recorder(device="phone-8")
        later.flow(2 * DAY_S, 2 * DAY_S + 1, [(2 * DAY_S, 100, 2_000)], REMOTE)
        straggler.flow(10.0, 11.0, [(10.0, 100, 2_000)], REMOTE)
        for batch in batches:
            stream.kernel.feed(batch, "given")
        stream.ask()
        for k in range(1, 5):
            phone = replace(later, device=f"phone-{k}")
            for batch in (*phone.batches(), *later.batches()):
                stream.kernel.feed(batch, "given")
        closed = []
        while stream.kernel.open.met.keys() - {max(stream.kernel.open.met)}:
            before = len(stream.events)
            stream.ask()
            closed.append(sum(change.status is Status.CLOSED for change in stream.events[before:]))
            for batch in straggler.batches():
                stream.kernel.feed(batch, "given")
        assert max(closed) == 1 < sum(closed)
        told = {change.finding.finding_id: change.finding for change in stream.events}
        assert objects(told.values()) == objects(hunted(batches).findings)
        assert stream.kernel.gauges()["late_records"] > 0

    def test_what_comes_after_its_day_was_closed_is_counted_and_handed_back(self, tmp_path):
        stream = Stream(tmp_path, Patience(60.0, 3_600.0))
        later = Recorder()
        later.flow(2 * DAY_S, 2 * DAY_S + 1, [(2 * DAY_S, 100, 2_000)], REMOTE)
        early = Recorder()
        early.flow(10.0, 11.0, [(10.0, 100, 2_000)], REMOTE)
        for recorder in (early, later):
            for batch in recorder.batches():
                stream.kernel.feed(batch)
            stream.ask()
        for batch in early.batches():
            stream.kernel.feed(batch)
        late = stream.kernel.take_late()
        assert [(batch.table, batch.rows.num_rows) for batch in late if batch.table == "flows"] == [("flows", 1)]
        assert stream.kernel.take_late() == []
        assert stream.kernel.gauges()["late_records"] >= 1

    def test_one_clock_that_runs_ahead_makes_no_other_phone_late(self, tmp_path):
        stream = Stream(tmp_path, Patience(60.0, 3_600.0))
        ahead = Recorder(device="ahead")
        ahead.flow(400 * DAY_S, 400 * DAY_S + 1, [(400 * DAY_S, 100, 2_000)], REMOTE)
        phones = [Recorder(device=f"phone-{k}") for k in range(3)]
        for k, phone in enumerate(phones):
            phone.flow(10.0 * k, 10.0 * k + 1, [(10.0 * k, 100, 2_000)], REMOTE)
        for recorder in (ahead, *phones):
            for batch in recorder.batches():
                stream.kernel.feed(batch)
            stream.ask()
        assert stream.kernel.gauges()["late_records"] == 0

    def test_a_record_from_the_future_is_handed_back_and_makes_none_of_its_phone_late(self, tmp_path):
        stream = Stream(tmp_path, Patience(60.0, 3_600.0, lambda: BEGIN_US / 1e6 + 600.0))
        wrong = Recorder(source="wrong")
        for days in (0.9, 3, 4_000):
            wrong.flow(days * DAY_S, days * DAY_S + 1, [(days * DAY_S, 100, 2_000)], REMOTE)
        relay = listener_relay(np.random.default_rng(0), Recorder())
        for batch in (*wrong.batches(), *relay.batches()):
            stream.kernel.feed(batch)
            stream.ask()
        assert {batch.table: batch.rows.num_rows for batch in stream.kernel.take_late()} == {"flows": 2, "volumes": 2}
        assert stream.kernel.gauges()["open_findings"] == 1

    def test_a_full_stretch_is_let_go_before_its_day_is_over(self, tmp_path):
        stream = Stream(tmp_path, Patience(1.0, None))
        app = Recorder(see_volumes=False)
        for k in range(3 * MOST_FLOWS):
            app.flow(10.0 * k, 10.0 * k + 1, [(10.0 * k, 100, 2_000)], REMOTE)
        for batch in app.batches():
            stream.kernel.feed(batch)
        stream.ask()
        assert 0 < stream.kernel.gauges()["state_bytes"] <= (MOST_FLOWS + 1) * 88


class TestState:
    def test_state_of_a_later_version_is_refused_by_name(self, tmp_path, monkeypatch):
        stream = Stream(tmp_path, WITHOUT_END)
        monkeypatch.setattr(state, "VERSION", state.VERSION + 1)
        kept = state.snapshot(stream.kernel)
        monkeypatch.undo()
        with pytest.raises(RelaywatchError, match=f"version {state.VERSION + 1}"):
            state.restore(Kernel(plan(), tmp_path / "work"), kept)

    def test_state_of_an_earlier_version_without_a_newer_column_goes_on(self, tmp_path):
        batches = fleet()
        stream = Stream(tmp_path, WITHOUT_END)
        for batch in batches[: len(batches) // 2]:
            stream.kernel.feed(batch, "given")
        place = tmp_path / "checkpoint"
        place.mkdir()
        state.taken(stream.kernel).write(place)
        path = place / "slots.arrow"
        with pa.ipc.open_file(path.read_bytes()) as reader:
            older = reader.read_all().drop_columns(["looked_volumes"])
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, older.schema) as out:
            out.write_table(older)
        again = Kernel(plan(), tmp_path / "work", WITHOUT_END)
        state.load(again, place)
        for batch in batches[len(batches) // 2 :]:
            again.feed(batch, "given")
        assert objects(change.finding for change in again.drain()) == objects(hunted(batches).findings)

    def test_what_is_no_state_is_refused(self, tmp_path):
        with pytest.raises(RelaywatchError, match="no Arrow stream"):
            state.restore(Kernel(plan(), tmp_path), b"nothing")


class TestDays:
    def test_names_of_a_day_that_goes_on_outlast_many_others(self, tmp_path):
        stream = Stream(tmp_path, WITHOUT_END)
        for day in range(14):
            app = Recorder(device=f"phone-{day}", package=f"com.example.app{day}")
            listener_relay(np.random.default_rng(day), app)
            for rows in app.rows.values():
                for row in rows:
                    for name in ("start_time", "end_time"):
                        if row.get(name) is not None:
                            row[name] += day * int(DAY_S * 1e6)
            for batch in app.batches():
                stream.kernel.feed(batch)
        standing = stream.end()
        assert len(standing) == 14
        assert all(destination.addresses for found in standing.values() for destination in found.destinations)

    def test_phones_that_are_gone_keep_no_day_open(self, tmp_path):
        stream = Stream(tmp_path, Patience(60.0, 3_600.0))
        for day in range(30):
            for number in range(5 if day == 0 else 2):
                phone = Recorder(device=f"phone-{number}", see_volumes=False)
                phone.flow(day * DAY_S + 10.0, day * DAY_S + 11.0, [(day * DAY_S + 10.0, 100, 2_000)], REMOTE)
                for batch in phone.batches():
                    stream.kernel.feed(batch)
            stream.ask()
        assert stream.kernel.gauges()["active_pairs"] <= 6
        assert len(stream.kernel.open.met) <= 3

    def test_files_of_blocks_that_are_missing_are_told(self, tmp_path):
        stream = Stream(tmp_path, WITHOUT_END)
        for batch in own_traffic(np.random.default_rng(1), Recorder()).batches():
            stream.kernel.feed(batch)
        place = tmp_path / "checkpoint"
        place.mkdir()
        state.taken(stream.kernel).write(place)
        (tmp_path / "work" / "flows.blocks").unlink()
        with pytest.raises(RelaywatchError, match="blocks are missing"):
            state.load(Kernel(plan(), tmp_path / "work", WITHOUT_END), place)
