"""Watchers over folders of a test's own, with the counting judgement."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from counting import Counting

from relaywatch.live.engine import Ears, Engine, Pace
from relaywatch.live.files import Files, Looking


@dataclass
class Watcher:
    """Runs the engine in this process, again and again over one state folder."""

    state: Path
    events: list = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    counts: Counting = field(default_factory=Counting)
    pace: Pace = field(default_factory=lambda: Pace(0.05, 0.05, 0.0))

    def engine(self) -> Engine:
        def fresh(folder: Path) -> Counting:
            self.counts = Counting(folder)
            return self.counts

        return Engine(self.state, fresh, self.pace, Ears(self.events.extend, self.messages.append, ()))

    def files(self, *paths: Path, until_end: bool = True, settle_s: float = 0.05) -> Files:
        return Files(paths, Looking(poll_s=0.01, settle_s=settle_s, until_end=until_end), self.messages.append)

    def watch(self, *inputs) -> Engine:
        """Until the inputs end; the engine as it was left."""
        with self.engine() as engine:
            engine.run(inputs, threading.Event(), until_end=True)
        return engine

    @property
    def journal(self) -> Path:
        return self.state / "findings.ndjson"


@pytest.fixture
def watcher(tmp_path) -> Watcher:
    return Watcher(tmp_path / "state")


@pytest.fixture(autouse=True)
def no_syncing(monkeypatch):
    """Nothing here takes the power away: what a process wrote is there when it is gone, synced or not."""
    monkeypatch.setattr("os.fsync", lambda _: None)
    monkeypatch.setattr("os.fdatasync", lambda _: None)
