"""Small sites for coverage and drills: a few phones with ordinary apps, written as canonical tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from scenarios import IN, LISTENER_PORT, Recorder, own_traffic, spread_over

from relaywatch.assurance.coverage import Coverage, coverage
from relaywatch.detection.settings import Settings
from relaywatch.model.assurance import WindowCoverage
from relaywatch.model.schemas import SignalKind
from relaywatch.model.tables import Batch, batch
from relaywatch.outputs.telemetry import ExportFormat, export

UNTIL_S = 700.0


def phone(number: int, apps: int = 2, *, watched: bool = True) -> list[Recorder]:
    """One phone with ordinary apps; the first also serves a file on the LAN, so that accepted sessions are seen."""
    rng = np.random.default_rng(100 + number)
    found = []
    for k in range(apps):
        app = Recorder(package=f"com.example.app{k}", uid=10_100 + k, device=f"phone-{number}")
        own_traffic(rng, app, 30, UNTIL_S)
        if k == 0:
            served = [(when, in_, out) for when, out, in_ in spread_over(rng, 20.0, 22.0, 300, 9_000)]
            app.flow(20.0, 22.0, served, "192.0.2.9", port=0, direction=IN, local_port=LISTENER_PORT)
        if watched:
            app.signal(SignalKind.CAPTURE, -5.0, UNTIL_S + 30.0, detail="LISTENER FOREGROUND_UI USER_INTERACTION")
        found.append(app)
    return found


def batches_of(apps: Iterable[Recorder]) -> list[Batch]:
    """What the apps' sources give."""
    return [part for app in apps for part in app.batches()]


def written(batches: Sequence[Batch], folder: Path) -> Path:
    """A folder with the batches as canonical Parquet."""
    export(iter(batches), ExportFormat.PARQUET, folder)
    return folder


def covered(batches: Sequence[Batch], folder: Path, window_s: float = 86_400.0, **settings: object) -> Coverage:
    """The coverage of the batches."""
    return coverage([written(batches, folder)], Settings(**settings), window_s=window_s)


def windows(batches: Sequence[Batch], folder: Path, **settings: object) -> list[WindowCoverage]:
    """Every app's every window."""
    return list(covered(batches, folder, **settings).windows())


def signal(kind: SignalKind, start_us: int, end_us: int | None, *, device: str = "phone-1", detail: str = "") -> Batch:
    """One signal of a whole device."""
    columns = {"kind": int(kind), "start_time": start_us, "end_time": end_us, "observability": 1, "detail": detail}
    told = {"device_uid": device, "source": "log", "position": 1, "clock": "device"}
    return batch("signals", columns | told, length=1)


def counter(app: Recorder, start_us: int, sent: int, received: int) -> Batch:
    """Bytes of a whole uid for a day, by the phone's own count."""
    columns = {"start_time": start_us, "duration_us": 86_400_000_000, "bytes_out": sent, "bytes_in": received}
    who = {"device_uid": app.device, "android_package": app.package, "android_uid": app.uid}
    return batch("volumes", {**columns, **who, "source": "netstats", "position": 1, "clock": "device"}, length=1)
