"""Figures of a running watcher: for its status line, and for Prometheus."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

RATE_OVER_S: Final = 10.0
_NAME: Final = re.compile(r"[^a-zA-Z0-9_]")
_HELP: Final = {
    "rows_total": "Rows taken in, by table",
    "aside_total": "Damaged records put aside",
    "rows_per_second": "Rows taken in a second, over the last ten",
    "lag_seconds": "Time now less the newest time in the telemetry",
    "queue_pieces": "Pieces of input that wait for the engine",
    "queue_bytes": "Bytes of input that wait for the engine",
    "spool_bytes": "Bytes of the spool's segments",
    "spool_entry": "Number of the last entry in the spool",
    "checkpoint_age_seconds": "Time since the last checkpoint",
    "checkpoint_duration_seconds": "How long the last checkpoint took",
    "judging_duration_seconds": "How long the last judgement took",
    "findings_open": "Findings that are open",
    "findings_events_total": "Events that were written to the journal by this process",
}
COUNTED: Final = frozenset({"rows_total", "aside_total", "findings_events_total"})


@dataclass(frozen=True, slots=True)
class Figures:
    """One look at the watcher. values: by name, without the prefix; rows: by table; at: monotonic time of the look."""

    at: float = 0.0
    values: Mapping[str, float] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    judgement: Mapping[str, float] = field(default_factory=dict)

    def prometheus(self) -> str:
        """The figures in Prometheus' text format, version 0.0.4."""
        lines = []
        if self.rows:
            lines += _headed("rows_total")
            lines += [f'relaywatch_rows_total{{table="{table}"}} {count}' for table, count in sorted(self.rows.items())]
        for name, value in self.values.items():
            lines += [*_headed(name), f"relaywatch_{name} {value:.17g}"]
        for name, value in sorted(self.judgement.items()):
            told = f"relaywatch_judgement_{_NAME.sub('_', name)}"
            lines += [f"# TYPE {told} gauge", f"{told} {value:.17g}"]
        return "\n".join(lines) + "\n"


def _headed(name: str) -> list[str]:
    kind = "counter" if name in COUNTED else "gauge"
    return [f"# HELP relaywatch_{name} {_HELP[name]}", f"# TYPE relaywatch_{name} {kind}"]


class Latest:
    """The newest figures, for whoever asks from another thread."""

    def __init__(self) -> None:
        self._figures = Figures(time.monotonic())

    def hear(self, figures: Figures) -> None:
        """These are newer."""
        self._figures = figures

    def figures(self) -> Figures:
        """The newest ones."""
        return self._figures


class Rate:
    """Rows a second over the last RATE_OVER_S."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._rows = 0

    def add(self, rows: int) -> None:
        """So many came now."""
        self._seen.append((time.monotonic(), rows))
        self._rows += rows

    def now(self) -> float:
        """Rows a second."""
        begin = time.monotonic() - RATE_OVER_S
        while self._seen and self._seen[0][0] < begin:
            self._rows -= self._seen.popleft()[1]
        return self._rows / RATE_OVER_S
