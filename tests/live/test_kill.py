"""SIGKILL to a real process: what it had taken is counted once by the next."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from telemetry import canonical_line

HERE = Path(__file__).parent


def wait_until(reached, process):
    until = time.monotonic() + 60
    while not reached():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.005)


def journal_size(watcher):
    return watcher.journal.stat().st_size if watcher.journal.exists() else 0


def test_kill_9_loses_nothing_and_doubles_nothing(watcher, tmp_path):
    log = tmp_path / "a.ndjson"
    script = [sys.executable, str(HERE / "watching.py"), str(watcher.state), str(log)]
    written = 0
    for life in range(3):
        with subprocess.Popen(script, stderr=subprocess.PIPE, text=True) as process, log.open("a") as file:
            for _ in range(4):
                before = journal_size(watcher)
                file.write("".join(canonical_line(n) for n in range(written + 1, written + 200))[: -1 - life])
                file.flush()
                wait_until(lambda size=before: journal_size(watcher) > size, process)
                file.write(canonical_line(written + 199)[-1 - life :])
                written += 199
            file.flush()
            os.kill(process.pid, signal.SIGKILL)
    watcher.watch(watcher.files(log))
    assert watcher.counts.records.total() == len(watcher.counts.records) == written
