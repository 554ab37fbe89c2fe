"""One Perfetto trace read from its first byte to its last: packets, clocks, order, flows, rows, in bounded memory."""

from __future__ import annotations

import io
import secrets
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import pyarrow as pa

from relaywatch.model.errors import SourceError
from relaywatch.model.schemas import Observability, SignalKind
from relaywatch.model.tables import Batch
from relaywatch.sources.android_facts import LAST_UID, USER_UIDS, package_name
from relaywatch.sources.capture_columns import Integers, Octets, Records
from relaywatch.sources.capture_decode import TCP
from relaywatch.sources.capture_flows import Finished, FlowTable, Sight
from relaywatch.sources.capture_framing import Application
from relaywatch.sources.capture_names import HostNames
from relaywatch.sources.capture_rows import Rows
from relaywatch.sources.compression import FREE_BYTES, LARGEST_RATIO
from relaywatch.sources.context_rows import ContextRows
from relaywatch.sources.lines import shown
from relaywatch.sources.perfetto_clock import Clock
from relaywatch.sources.perfetto_messages import BOOTTIME, LONGEST, clocks, losses, packages
from relaywatch.sources.perfetto_order import Order, packets
from relaywatch.sources.perfetto_packets import (
    EMPTY,
    FULL,
    LOST,
    NOTED,
    OTHER,
    PACKET_BYTES,
    ROWS,
    TOO_LONG,
    Note,
    advance,
    new_store,
    on_loopback,
)
from relaywatch.sources.perfetto_wire import varint
from relaywatch.sources.reading import Reading

PIECE_BYTES: Final = 4 << 20
INFLATED_BYTES: Final = 16 << 20
"""Content of one compressed packet: the service compresses at most 512 KiB at a time."""
MOST_WAITING: Final = 1 << 20
"""Packets held until a clock snapshot says what time it was."""
MOST_LISTED: Final = 100_000
"""Packages, listeners and gaps of one trace, each."""
SKEW_S: Final = 2.0
"""A phone's clock against the true time, as long as it is set by a network."""
LOOPBACK: Final = "a packet on the loopback interface: it never leaves the phone"
OTHERS: Final = "a packet of another data source"
EXPLAINS: Final = "states the clock, the packages or the trace itself, or holds compressed packets"
NO_PACKETS: Final = "a bundle without a packet"
NO_CLOCK: Final = (
    "the packet cannot be dated: no clock snapshot of the trace says what time it was, or none that can be."
)
_SUFFIXES: Final = frozenset({".gz", ".zst", ".pb", ".perfetto-trace", ".pftrace", ".trace"})
_REASONS: Final = {
    Note.DAMAGED: "the packet is no sound protocol buffer message.",
    Note.NO_CONTEXT: "the packet refers to attributes that the trace lost; record with a larger buffer.",
    Note.NO_ROOM: "the trace has more writers than can be told apart.",
    Note.NO_DIRECTION: "the packet says neither that it was sent nor that it was received.",
    Note.BAD_NUMBER: "the packet has a number that no network packet can have.",
    Note.UNEVEN: "the bundle has more times than lengths, or the other way round.",
    Note.TOO_MANY: "the bundle lists more packets than a poll can hold.",
    Note.NO_TIME: "the packet has no time.",
}
_NOTHING: Final = np.zeros(0, np.uint8)


def read_trace(path: Path, stream: BinaryIO, reading: Reading, open_flows: int) -> Iterator[Batch]:
    """Give the canonical rows of a trace, as Perfetto.read; at most `open_flows` flows are open at a time."""
    trace, damage = _Trace(path, reading, open_flows), None
    try:
        yield from _stream(stream, trace)
    except SourceError as error:
        damage = error
    yield from trace.closing()
    if damage is not None:
        raise damage


def _stream(stream: BinaryIO, trace: _Trace) -> Iterator[Batch]:
    """Rows of what the stream holds; a place where no packet begins ends the reading."""
    held, base, skip = _NOTHING, 0, 0
    while data := stream.read(PIECE_BYTES):
        trace.stored += len(data)
        held = np.concatenate([held, np.frombuffer(data, np.uint8)[skip:]])
        base, skip = base + min(skip, len(data)), max(skip - len(data), 0)
        at, status = 0, FULL
        while status in (FULL, TOO_LONG):
            at, status = yield from trace.taken(held, at)
            if status == TOO_LONG:
                trace.aside(f"byte {base + at}", f"a packet of more than {PACKET_BYTES} bytes is not read.")
                length, begin = varint(held, at + 1, len(held))
                after = begin + min(int(length), 1 << 62)
                at, skip = min(after, len(held)), max(after - len(held), 0)
        if status == LOST:
            trace.aside(f"byte {base + at}", "no packet begins here; nothing after it was read.")
            return
        held, base = held[at:], base + at
    if len(held) or skip:
        trace.aside(f"byte {base}", "the trace ends within a packet.")


class _Trace:
    """What is known of the trace being read."""

    def __init__(self, path: Path, reading: Reading, open_flows: int) -> None:
        self.path, self.reading = path, reading
        self.stored = 0
        self._device = reading.device or _stem(path)
        self._store, self._clock, self._order = new_store(secrets.randbits(62)), Clock(), Order()
        self._table = FlowTable(open_flows)
        names = HostNames(one_device=True)
        self._rows = Rows(path, self._device, names, "device", SKEW_S, addressed=False, payload=Observability.INFERRED)
        self._told = ContextRows(path, "device", SKEW_S)
        self._packages: dict[int, list[str]] = {}
        self._listed = self._lost_chunks = self._inflated = 0
        self._listeners: dict[tuple[int, int], tuple[int, int, int]] = {}
        self._gaps: list[tuple[int, int, int]] = []
        self._span: tuple[int, int] | None = None
        self._waiting: list[Records] = []

    def taken(self, octets: Octets, at: int, *, inner: bool = False) -> Generator[Batch, None, tuple[int, int]]:
        """Decode from `at` until more is needed or something must be done first; returns the place, and why there."""
        at, status = advance(octets, at, len(octets), self._store)
        counters = self._store.counters
        notes, rows = self._store.notes[: counters[NOTED]].copy(), self._store.rows[: counters[ROWS]].copy()
        for reason, place in ((OTHERS, OTHER), (NO_PACKETS, EMPTY)):
            self.reading.tally.met(int(counters[place]))
            self.reading.tally.left(reason, int(counters[place]))
        counters[[NOTED, ROWS, OTHER, EMPTY]] = 0
        compressed = np.isin(notes["kind"], (Note.DEFLATED, Note.ZSTANDARD))
        for note in notes[~compressed]:
            self._noted(octets, note)
        yield from self._flows(self._order.take(self._dated(rows)))
        for note in notes[compressed]:
            yield from self._compressed(octets, note, inner=inner)
        return int(at), int(status)

    def aside(self, position: str, reason: str) -> None:
        """Put a record to quarantine, and count it."""
        self.reading.tally.met(1)
        self.reading.quarantine.add(str(self.path), position, reason)

    def _explains(self) -> None:
        self.reading.tally.met(1)
        self.reading.tally.left(EXPLAINS, 1)

    def _noted(self, octets: Octets, note: np.void) -> None:
        """A clock snapshot, the packages, the trace's own statistics, a loss or a fault."""
        kind, position = Note(int(note["kind"])), int(note["position"])
        if kind in _REASONS:
            self.aside(f"packet {position}", _REASONS[kind])
        elif kind == Note.LOSS:
            if len(self._gaps) < MOST_LISTED:
                self._gaps.append((int(note["begin"]), int(note["end"]), position))
        elif note["end"] - note["begin"] > LONGEST:
            self.aside(f"packet {position}", f"a message of more than {LONGEST} bytes is not read.")
        else:
            self._message(kind, octets[note["begin"] : note["end"]].tobytes(), position)

    def _message(self, kind: Note, content: bytes, position: int) -> None:
        try:
            if kind == Note.CLOCKS:
                self._clock.set(clocks(content))
                self._rows.skew_s = SKEW_S + self._clock.moved_s
            elif kind == Note.STATS:
                self._lost_chunks += losses(content)
            else:
                self._take_packages(packages(content), position)
        except ValueError as error:
            self.aside(f"packet {position}", f"no sound message ({shown(error)}).")
            return
        self._explains()

    def _take_packages(self, listed: list[tuple[str, int]], position: int) -> None:
        """Packages by app id; each a row of the inventory, as the list has it."""
        for named, uid in listed:
            name = package_name(named)
            if name is None or not 0 <= uid <= LAST_UID or self._listed >= MOST_LISTED:
                self.aside(
                    f"packet {position}", f"package {shown(named)}, uid {shown(uid)}: no valid value, or too many."
                )
                continue
            known = self._packages.setdefault(uid % USER_UIDS, [])
            if name not in known:
                self._listed += 1
                known.append(name)
                whose = {"android_package": name, "android_uid": uid, "user_id": uid // USER_UIDS}
                self._told.add("inventory", position, self._device, **whose)

    def _compressed(self, octets: Octets, note: np.void, *, inner: bool) -> Iterator[Batch]:
        """The packets within a compressed one."""
        position, content = int(note["position"]), octets[note["begin"] : note["end"]].tobytes()
        if inner:
            self.aside(f"packet {position}", "a compressed packet within a compressed packet.")
            return
        try:
            data = np.frombuffer(bytearray(_inflated(content, Note(int(note["kind"])))), np.uint8)
        except (ValueError, OSError, zlib.error, pa.ArrowException) as error:
            self.aside(f"packet {position}", f"its compressed content is damaged ({shown(error)}).")
            return
        self._explains()
        self._inflated += len(data)
        if self._inflated > FREE_BYTES and self._inflated > LARGEST_RATIO * self.stored:
            reason = f"expands to more than {LARGEST_RATIO} times its stored size, as a decompression bomb does."
            raise SourceError(self.path, reason, position=f"packet {position}")
        at, status = 0, FULL
        while status == FULL:
            at, status = yield from self.taken(data, at, inner=True)
        if at < len(data):
            self.aside(f"packet {position}", "its compressed content does not end with a packet.")

    def _dated(self, rows: Records) -> Records:
        """The rows with their times as ns since epoch. Without a clock they wait; what cannot be dated is put aside."""
        if not self._clock.known:
            if sum(map(len, self._waiting)) + len(rows) > MOST_WAITING:
                self._put_aside(rows)
            else:
                self._waiting.append(rows)
            return rows[:0]
        rows, self._waiting = np.concatenate([*self._waiting, rows]), []
        time = self._clock.of(rows["time"], rows["clock"])
        # A bundle with one packet that cannot be dated is put aside as a whole: it is one record.
        bad = time < 0
        good = ~np.isin(rows["position"], rows["position"][bad]) if bad.any() else ~bad
        self._put_aside(rows[~good])
        rows["time"] = time
        return self._counted(rows[good])

    def _put_aside(self, rows: Records) -> None:
        for position in np.unique(rows["position"]).tolist():
            self.aside(f"packet {position}", NO_CLOCK)

    def _counted(self, rows: Records) -> Records:
        """The rows but for the loopback interface's."""
        own = on_loopback(rows)
        kept, left = rows[~own], _distinct(rows["position"][own])
        with_rows = _distinct(kept["position"])
        self.reading.tally.met(left + with_rows)
        self.reading.tally.left(LOOPBACK, left)
        self.reading.tally.with_rows += with_rows
        if len(kept):
            first, last = int(kept["time"].min()) // 1_000, int(kept["time"].max()) // 1_000
            self._span = (first, last) if self._span is None else (min(first, self._span[0]), max(last, self._span[1]))
        return kept

    def _flows(self, rows: Records) -> Iterator[Batch]:
        """Rows in order into the table; gives what leaves it."""
        found = packets(rows)
        for finished in self._table.feed(np.zeros(0, np.uint8), found, 0, Sight.SOCKETS):
            yield from self._batches(finished)

    def _batches(self, finished: Finished) -> Iterator[Batch]:
        for uid in np.unique(np.concatenate([finished.flows["uid"], finished.volumes["uid"]])).tolist():
            names = self._packages.get(uid % USER_UIDS, [])
            if uid not in self._rows.applications and len(names) == 1:
                self._rows.applications[uid] = Application(uid, names[0], "", 0)
        self._listen(finished.flows)
        if len(finished.volumes):
            yield self._rows.volumes(finished.volumes)
        if len(finished.flows):
            yield self._rows.flows(finished.flows)

    def _listen(self, flows: Records) -> None:
        """Remember the ports on which sessions were accepted: a SYN and ACK that the phone sent."""
        proof = (
            (flows["protocol"] == TCP)
            & (flows["from_local"] == 0)
            & (flows["accepted"] > 0)
            & (flows["local_port"] > 0)
        )
        for flow in flows[proof]:
            key = int(flow["uid"]), int(flow["local_port"])
            start, position = int(flow["start"]), int(flow["position"])
            first, last, where = self._listeners.get(key, (start, start, position))
            if key in self._listeners or len(self._listeners) < MOST_LISTED:
                where = position if start < first else where
                self._listeners[key] = (min(first, start), max(last, start), where)

    def closing(self) -> Iterator[Batch]:
        """Give what can be said only at the end."""
        for part in self._waiting:
            self._put_aside(part)
        yield from self._flows(self._order.end())
        for finished in self._table.end():
            yield from self._batches(finished)
        if self._span is not None:
            self._say(SignalKind.CAPTURE, *self._span, 1, detail="")
            if self._lost_chunks:
                detail = f"{self._lost_chunks} chunks of the trace were discarded somewhere in this time"
                self._say(SignalKind.LOGGING_GAP, *self._span, 1, detail=detail, observability=Observability.INFERRED)
            for begin, end, position in self._gaps:
                times = self._clock.of(np.array([begin, end]), np.full(2, BOOTTIME)) // 1_000
                if times.min() >= 0:
                    self._say(
                        SignalKind.LOGGING_GAP,
                        int(times.min()),
                        int(times.max()),
                        position,
                        detail="packets were lost here",
                    )
        for (uid, port), (first, last, position) in sorted(self._listeners.items()):
            detail = "accepted a session"
            self._say(SignalKind.LISTENER, first, last, position, detail=detail, uid=uid, port=port)
        yield from self._told.batches()

    def _say(
        self,
        kind: SignalKind,
        start: int,
        end: int,
        position: int,
        *,
        detail: str,
        observability: Observability = Observability.OBSERVED,
        uid: int | None = None,
        port: int | None = None,
    ) -> None:
        app = self._rows.applications.get(-1 if uid is None else uid)
        columns = {"kind": int(kind), "start_time": start, "end_time": end, "observability": int(observability)}
        whose = {"android_package": app.package if app else None, "android_uid": uid, "local_port": port}
        skew = {"clock_skew_bound_s": self._rows.skew_s, "detail": detail}
        self._told.add("signals", position, self._device, **columns, **whose, **skew)


def _distinct(ordered: Integers) -> int:
    """How many different numbers there are; equal ones stand together."""
    return int(np.count_nonzero(ordered[1:] != ordered[:-1])) + min(len(ordered), 1)


def _inflated(content: bytes, kind: Note) -> bytes:
    """Decompressed, up to INFLATED_BYTES. Raises ValueError, or the library's error, where it is damaged or longer."""
    if kind == Note.DEFLATED:
        data = zlib.decompressobj().decompress(content, INFLATED_BYTES + 1)
    else:
        with pa.CompressedInputStream(pa.PythonFile(io.BytesIO(content), mode="r"), "zstd") as stream:
            data = stream.read(INFLATED_BYTES + 1)
    if len(data) > INFLATED_BYTES:
        raise ValueError(f"more than {INFLATED_BYTES} bytes")
    return bytes(data)


def _stem(path: Path) -> str:
    """The file's name without the suffixes of traces and compression."""
    name = path.name
    while (suffix := Path(name).suffix).lower() in _SUFFIXES:
        name = name[: -len(suffix)]
    return name or path.name
