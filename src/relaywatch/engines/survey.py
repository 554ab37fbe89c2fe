"""What sources hold and how they fit together, without judging any app."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from relaywatch.detection.settings import Settings
from relaywatch.engines.view import Unwatched, View, Watcher, read_view
from relaywatch.outputs.summary import HuntSummary
from relaywatch.sources.discovery import Discovery, discover


def survey(paths: Sequence[Path], device: str = "", watcher: Watcher | None = None) -> HuntSummary:
    """Read and join everything under the paths; each unit of the summary says what its rows show.

    device: its name for formats that give none. Nothing to read is an answer too. Raises SourceError where a path is
    missing, or a file given by itself is of no known format.
    """
    started = time.monotonic()
    found = discover(paths)
    with tempfile.TemporaryDirectory(prefix="relaywatch-") as folder:
        watched = Unwatched() if watcher is None else watcher
        allowed = Settings().allowed_destinations
        view = read_view(found.units, Path(folder), device, watched, allowed, profiled=True)
    return summary_of(view, found, started)


def summary_of(view: View, found: Discovery, started: float) -> HuntSummary:
    """What was read and joined. started: monotonic clock, s, at which it began."""
    return HuntSummary(
        rows=dict(view.intake.rows),
        units=view.reads,
        devices=view.devices,
        apps=view.apps,
        quarantine=view.quarantine,
        joins=view.summary,
        unrecognised=[f"{entry.path}: {entry.reason}" for entry in found.unrecognised],
        seconds=time.monotonic() - started,
    )
