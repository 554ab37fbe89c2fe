"""Runs a command to its end and accounts for it: CPU seconds, wall seconds, peak memory of the whole process."""

from __future__ import annotations

import os
import tempfile
import time
from typing import NamedTuple


class Cost(NamedTuple):
    """One finished process."""

    cpu_s: float
    wall_s: float
    peak_gib: float
    output: str


def run(arguments: list[str]) -> Cost:
    """Run a command to its end and account for it.

    The peak of a new process begins at its parent's, so this one must stay small and imports nothing large.
    """
    with tempfile.TemporaryFile() as output:
        started = time.monotonic()
        pid = os.posix_spawn(
            arguments[0], arguments, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, output.fileno(), 1)]
        )
        _, _, usage = os.wait4(pid, 0)
        wall = time.monotonic() - started
        output.seek(0)
        text = output.read().decode()
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 2**20, text)
