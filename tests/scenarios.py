"""Synthetic telemetry as canonical batches: relays of each topology and apps that are none, drawn from a seed.

Nothing here is taken from a trace. Each app has its own source, as a capture of that app would have. `found` hunts over
batches as a hunt over files would, without files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from relaywatch.detection.settings import Settings
from relaywatch.engines import local
from relaywatch.engines.local import Hunt, HuntResult, hunt
from relaywatch.enrichment.loading import Enrichment
from relaywatch.governance.exceptions import Exceptions
from relaywatch.model.finding import Finding
from relaywatch.model.schemas import Direction, SignalKind
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.discovery import Discovery
from relaywatch.sources.reading import Reading

BEGIN_US = 1_772_528_400_000_000
"""2026-03-03 09:00:00 UTC; scenario times are seconds from here."""
NOW = datetime(2026, 3, 4, tzinfo=UTC)
LISTENER_PORT = 8899
DIGEST = "5a" * 32
GATEWAY = "203.0.113.7"
LOCAL_IP = "10.9.0.2"
OUT, IN = Direction.OUTBOUND, Direction.INBOUND

Parts = Sequence[tuple[float, int, int]]
"""What a flow carries when: (s, bytes out, bytes in)."""


@dataclass
class Recorder:
    """Writes one app's traffic down. source: the file that it is said to come from; see_volumes: by the second."""

    package: str | None = "com.example.app"
    uid: int | None = 10_150
    device: str = "phone-1"
    source: str = ""
    see_volumes: bool = True
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {n: [] for n in ("flows", "volumes", "rest")})

    def flow(
        self,
        start: float,
        end: float,
        parts: Parts,
        remote: str,
        *,
        port: int = 443,
        hostname: str | None = None,
        direction: Direction = OUT,
        local_port: int | None = None,
    ) -> None:
        """One TCP flow; its bytes are the sum of its parts."""
        number = len(self.rows["flows"]) + 1
        self.rows["flows"].append(
            {
                "flow_id": number,
                "start_time": _us(start),
                "end_time": _us(end),
                "direction_id": int(direction),
                "local_ip": LOCAL_IP,
                "local_port": local_port or 20_000 + number,
                "remote_ip": remote,
                "remote_port": port,
                "remote_hostname": hostname,
                "hostname_observability": 1 if hostname else 0,
                "bytes_out": sum(part[1] for part in parts),
                "bytes_in": sum(part[2] for part in parts),
                "position": number,
            }
        )
        seconds: dict[int, list[int]] = {}
        for when, out, in_ in parts:
            held = seconds.setdefault(int(when // 1), [0, 0])
            held[0], held[1] = held[0] + out, held[1] + in_
        for second in sorted(seconds):
            self.rows["volumes"].append(
                {
                    "flow_id": number,
                    "start_time": _us(second),
                    "bytes_out": seconds[second][0],
                    "bytes_in": seconds[second][1],
                    "position": len(self.rows["volumes"]) + 1,
                }
            )

    def signal(self, kind: SignalKind, start: float, end: float | None = None, **further: Any) -> None:
        """One signal of the app."""
        number = len(self.rows["rest"]) + 1
        times = {"start_time": _us(start), "end_time": None if end is None else _us(end)}
        self.rows["rest"].append({"kind": int(kind), **times, "position": number, **further})

    def batches(self, *, inventory: bool = True) -> list[Batch]:
        """What a source would give: inventory and signals, flows, volumes."""
        source = self.source or f"{self.device}/{self.package}.capture"
        told = {"device_uid": self.device, "source": source, "clock": "device", "clock_skew_bound_s": 0.001}
        if self.package is not None:
            told["android_package"] = self.package
        if self.uid is not None:
            told["android_uid"] = self.uid
        found = []
        if inventory:
            person = {"user_name": "A. Holder", "signing_digest": DIGEST, "app_label": "Example", "position": 1}
            found.append(batch("inventory", told | person, length=1))
        if self.rows["rest"]:
            found.append(_table("signals", self.rows["rest"], told | {"observability": 1}))
        seen = {"protocol_num": 6, "direction_observability": 1, "bytes_observability": 1}
        found.append(_table("flows", self.rows["flows"], told | seen))
        if self.see_volumes and self.rows["volumes"]:
            found.append(_table("volumes", self.rows["volumes"], told | {"duration_us": 1_000_000}))
        return found


def _us(seconds: float) -> int:
    return BEGIN_US + round(seconds * 1e6)


def _table(name: str, rows: list[dict[str, Any]], told: dict[str, Any]) -> Batch:
    names = {key for row in rows for key in row}
    return batch(name, told | {key: [row.get(key) for row in rows] for key in names}, length=len(rows))


def site(number: int) -> dict[str, Any]:
    """A destination of its own: address prefix and registrable domain that no other number has."""
    return {"remote": f"198.{18 + number // 256 % 2}.{number % 256}.10", "hostname": f"www.site{number}.example"}


def spread_over(rng: np.random.Generator, start: float, end: float, out: int, in_: int) -> Parts:
    """A request at the start, and an answer spread over the rest in a few uneven pieces."""
    count = max(1, min(12, int(end - start)))
    shares = rng.dirichlet(np.full(count, 3.0)) if count > 1 else np.ones(1)
    edges = np.diff(np.round(np.concatenate([[0.0], np.cumsum(shares)]) * in_)).astype(int)
    step = (end - start) / (count + 1)
    return [(start, out, 0), *((start + (k + 0.5) * step, 0, int(edges[k])) for k in range(count))]


def swapped(parts: Parts, factor: float, added_up: int, delay: float, rng: np.random.Generator) -> Parts:
    """What the client side carries when the target side carries `parts`: requests before, answers after, framed."""
    found = []
    for when, out, in_ in parts:
        if out:
            found.append((max(0.0, when - 0.2), 0, round(out * factor) + added_up))
        if in_:
            found.append((when + rng.uniform(0.0, delay), round(in_ * factor), 0))
    return found


def exchange(rng: np.random.Generator) -> tuple[int, int]:
    """Bytes of a request and of its answer, as the web has them: most small, some large."""
    return int(rng.lognormal(6.6, 0.5)), int(rng.lognormal(9.8, 1.1)) + 400


def listener_relay(rng: np.random.Generator, app: Recorder, sessions: int = 14) -> Recorder:
    """Clients connect to a port of the phone, and each session is passed on."""
    app.signal(SignalKind.LISTENER, -30.0, None, local_port=LISTENER_PORT)
    at = 5.0
    for k in range(sessions):
        at += 4.0 + rng.exponential(25.0)
        lag, life = 0.05 + rng.exponential(0.15), 1.5 + rng.exponential(4.0)
        parts = spread_over(rng, at + lag, at + lag + life, *exchange(rng))
        app.flow(at + lag, at + lag + life, parts, **site(k))
        client = swapped(parts, 1.0, 12, 0.05, rng)
        address = f"192.0.2.{k % 5 + 1}"
        app.flow(at, at + lag + life + 0.05, client, address, port=0, direction=IN, local_port=LISTENER_PORT)
    return app


def back_connect_relay(
    rng: np.random.Generator, app: Recorder, sessions: int = 14, waited: tuple[float, float] = (0.0, 0.0)
) -> Recorder:
    """The phone dials its gateway once for each session; waited: s that a link is open before it is used."""
    at = 5.0 + waited[1]
    for k in range(sessions):
        at += 4.0 + rng.exponential(25.0)
        lag, life = 0.1 + rng.exponential(0.2), 1.5 + rng.exponential(4.0)
        parts = spread_over(rng, at + lag, at + lag + life, *exchange(rng))
        app.flow(at + lag, at + lag + life, parts, **site(k))
        client = swapped(parts, 1.01, 40, 0.05, rng)
        app.flow(at - rng.uniform(*waited), at + lag + life + 0.05, client, GATEWAY, port=7_000)
    return app


def pooled_relay(rng: np.random.Generator, app: Recorder, sessions: int = 18) -> Recorder:
    """Back-connect with links opened a minute or more before they are used; a link ends with the session it served."""
    return back_connect_relay(rng, app, sessions, waited=(60.0, 240.0))


def tunnel_relay(
    rng: np.random.Generator, app: Recorder, sessions: int = 60, delay: float = 0.4, framing: float = 1.03
) -> Recorder:
    """One link to the gateway carries all sessions, several at a time."""
    link: list[tuple[float, int, int]] = []
    at = 20.0
    for k in range(sessions):
        at += rng.exponential(9.0)
        life = 2.0 + rng.exponential(6.0)
        request, answer = exchange(rng)
        parts = spread_over(rng, at, at + life, request, answer + 4_000)
        app.flow(at, at + life, parts, **site(k % 25))
        link += swapped(parts, framing, 30, delay, rng)
    link += [(float(beat), 25, 25) for beat in range(0, int(at) + 30, 30)]
    app.flow(0.0, at + 40.0, link, GATEWAY, port=443)
    return app


def own_traffic(rng: np.random.Generator, app: Recorder, flows: int = 40, until: float = 500.0) -> Recorder:
    """What an ordinary app does: bursts of flows to a few services, mostly downloads, unrelated to anything else."""
    for start in np.sort(rng.uniform(0.0, until, flows)).tolist():
        life = 0.5 + rng.exponential(3.0)
        place = site(100 + int(rng.integers(6)))
        app.flow(start, start + life, spread_over(rng, start, start + life, *exchange(rng)), **place)
    return app


def backup_beside_downloads(rng: np.random.Generator, app: Recorder) -> Recorder:
    """A backup goes up at an even rate while the app downloads things of its own."""
    app.flow(0.0, 600.0, [(float(s), 25_000, 300) for s in range(600)], GATEWAY, hostname="backup.example")
    return own_traffic(rng, app, 80, 580.0)


def cloud_copy(rng: np.random.Generator, app: Recorder, objects: int = 50) -> Recorder:
    """The app copies objects from one service to another: bytes are conserved, but two parties are all there is."""
    link, at = [], 5.0
    for k in range(objects):
        at += 2.0 + rng.exponential(6.0)
        life = 1.5 + rng.exponential(2.0)
        parts = spread_over(rng, at, at + life, 700, int(rng.lognormal(11.0, 0.8)))
        app.flow(at, at + life, parts, f"198.18.{k % 8}.20", hostname=f"bucket{k % 8}.store.example")
        link += [(when + 0.3, in_, 0) for when, _, in_ in parts if in_]
    app.flow(0.0, at + 20.0, link, GATEWAY, hostname="upload.drive.example")
    return app


def independent_in_and_out(rng: np.random.Generator, app: Recorder, sessions: int = 60) -> Recorder:
    """An app that serves files on the local network and fetches things of its own: nothing is passed on."""
    for start in np.sort(rng.uniform(0.0, 700.0, sessions)).tolist():
        life = 0.5 + rng.exponential(2.0)
        parts = [(when, in_, out) for when, out, in_ in spread_over(rng, start, start + life, *exchange(rng))]
        app.flow(start, start + life, parts, "192.0.2.9", port=0, direction=IN, local_port=LISTENER_PORT)
    return own_traffic(rng, app, sessions, 700.0)


RELAYS: dict[str, Callable[[np.random.Generator, Recorder], Recorder]] = {
    "listener": listener_relay,
    "back_connect": back_connect_relay,
    "pooled": pooled_relay,
    "tunnel": tunnel_relay,
}
BENIGN: dict[str, Callable[[np.random.Generator, Recorder], Recorder]] = {
    "own_traffic": own_traffic,
    "backup": backup_beside_downloads,
    "cloud_copy": cloud_copy,
    "in_and_out": independent_in_and_out,
}


@dataclass(frozen=True)
class Given:
    """A unit of discovery whose batches are at hand."""

    batches: Sequence[Batch]
    reader_name: str = "given"
    path: Path = Path("given")
    size_bytes: int = 0

    def read(self, reading: Reading) -> Iterator[Batch]:
        yield from self.batches


def hunted_views(views: Mapping[str, Iterable[Batch]], settings: Settings | None = None) -> HuntResult:
    """A hunt over several sources, each the batches of one format, read in the order given."""
    plan = Hunt(settings or Settings(), Exceptions(()), NOW)
    units = tuple(Given(list(batches), name, Path(name)) for name, batches in views.items())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "discover", lambda _: Discovery(units, ()))
        return hunt([], plan)


def hunted(
    batches: Iterable[Batch],
    settings: Settings | None = None,
    exceptions: Exceptions | None = None,
    enrichment: Enrichment | None = None,
) -> HuntResult:
    """A hunt over the batches, in their order."""
    plan = Hunt(settings or Settings(), exceptions or Exceptions(()), NOW, enrichment=enrichment or Enrichment())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "discover", lambda _: Discovery((Given(list(batches)),), ()))
        return hunt([], plan)


def found(batches: Iterable[Batch], **settings: Any) -> list[Finding]:
    """The findings of a hunt over the batches with these settings."""
    return hunted(batches, Settings(**settings)).findings


def without(batches: Iterable[Batch], table: str, *columns: str) -> list[Batch]:
    """The batches as a source would give them that does not see these columns (or, without columns, the table)."""
    kept = []
    for part in batches:
        if part.table != table:
            kept.append(part)
        elif columns:
            rows = part.rows
            for name in columns:
                place = rows.schema.get_field_index(name)
                kind = rows.schema.field(place)
                blank = (
                    pa.repeat(pa.scalar(0, kind.type), len(rows))
                    if not kind.nullable
                    else pa.nulls(len(rows), kind.type)
                )
                rows = rows.set_column(place, kind, blank)
            kept.append(Batch(part.table, rows))
    return kept
