"""Socket tables of a phone: netstat, ss and /proc/net, one table or many polled ones, as flows and listeners.

A table says who owns a socket and that it was open then. An established connection whose local port the same uid
listens on was accepted; who opened the others is inferred too. In a polled log, each table comes after a line with the
time; a socket in successive tables is one connection, from when it was first seen until it was last seen.

Polled tables repeat themselves for hours: each distinct line of a piece of the file is read once (socket_rows), and
what the lines say together is worked out in columns (socket_sightings).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from relaywatch.model.schemas import Direction, Observability, SignalKind
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.android_section import DumpContext, Section
from relaywatch.sources.columns import LAST_SECOND, text
from relaywatch.sources.reading import Reading
from relaywatch.sources.section_lines import line_columns
from relaywatch.sources.socket_rows import OPEN, PROTOCOLS, Place, is_kernels, parse_row, place
from relaywatch.sources.socket_sightings import BEYOND, MOST_SOCKETS, NO_COUNT, Numbers, Sightings

__all__ = ["parse_row", "parse_sockets"]

_RECORD: Final = r"^[ \t\r\f\v]*(?:tcp6?|udp6?|udplite|raw6?|icmp6?|ESTAB|LISTEN|UNCONN|SYN-|TIME-WAIT|[0-9]+: )"
_MAYBE_TIME: Final = r"^[#>=* -]*\d{4}"
_TIME: Final = re.compile(
    r"(?:[#>=* -]*)(\d{9,10}(?:\.\d+)?|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?: ?Z| ?[+-]\d\d:?\d\d)?)\s*"
)
_BELOW: Final = r"^(?:[ \t]|$)"
"""A line that goes on with the socket above it, as ss -i writes them; the kernel indents its records too."""
_COUNTS: Final = "bytes_(?:acked|received):[0-9]"
_SENT: Final = "bytes_acked:([0-9]{1,15})"
_RECEIVED: Final = "bytes_received:([0-9]{1,15})"
_NO_ROW: Final = "no socket as netstat, ss or the kernel writes it"
_NO_TIME: Final = "a socket table without a time before it"
_DAMAGED: Final = 0
"""In place of a Place: the line is a record that cannot be read."""
_HELD: Final = (Place.CONNECTION, Place.BOUND)
_UNKNOWN: Final = -1
"""In place of a time."""
Mask = npt.NDArray[np.bool_]


def parse_sockets(section: Section, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    """Flows of connected sockets, LISTENER and RAW_SOCKET signals, and a CAPTURE over the time of polled tables."""
    tables = _Tables(section, context, reading)
    for column in line_columns(section.lines):
        tables.take(column)
    yield from _batches(tables, section, context, reading)


@dataclass(slots=True)
class _Piece:
    """Some lines, as one array each. time: of the table, us; place, socket, listens: of records."""

    stamp: Mask
    record: Mask
    below: Mask
    time: Numbers
    place: npt.NDArray[np.int8]
    socket: Numbers
    listens: Mask
    kernels: Mask

    def of(self, taken: Place) -> Mask:
        """Sound records of this place, sockets beyond the first MOST_SOCKETS left out."""
        held = self.socket != BEYOND if taken in _HELD else True
        of: Mask = self.sound() & (self.place == taken) & held
        return of

    def sound(self) -> Mask:
        """Records that can be read, and placed in time."""
        sound: Mask = self.record & (self.place != _DAMAGED) & (self.time != _UNKNOWN)
        return sound


class _Tables:
    """Everything that the tables of one section show; its lines come in pieces, however they are cut."""

    def __init__(self, section: Section, context: DumpContext, reading: Reading) -> None:
        self.sightings = Sightings()
        self.times: list[int] = []
        self._section = section
        self._context = context
        self._reading = reading
        self._next_line = section.first_line
        self._time = _UNKNOWN if context.taken is None else context.taken
        self._above = -1
        """Number of the sighting of a connection that lines below go on with; -1: none."""

    def take(self, lines: pl.Series) -> None:
        """The next lines."""
        piece = self._piece(lines)
        self._leave_continuations(piece)
        self._account(piece)
        above = self._see(piece)
        self._add_bytes(lines, piece, above)
        self._next_line += len(lines)
        self._time, self._above = int(piece.time[-1]), int(above[-1])

    def _piece(self, lines: pl.Series) -> _Piece:
        """What each line is by itself."""
        stamp, instants = self._stamps(lines)
        record = lines.str.contains(_RECORD).to_numpy() & ~stamp
        codes = np.zeros((4, len(lines)), np.int64)
        if record.any():
            # Each distinct line is read once: a poll repeats most of the one before.
            encoded = text(lines.filter(pl.Series(record)))
            read = np.array([self._read(line) for line in encoded.dictionary.to_pylist()], np.int64)
            codes[:, record] = read[encoded.indices.to_numpy()].T
        places, sockets, listens, kernels = codes
        return _Piece(
            stamp=stamp,
            record=record,
            below=lines.str.contains(_BELOW).to_numpy(),
            time=np.array([self._time, *instants], np.int64)[np.cumsum(stamp)],
            place=places.astype(np.int8),
            socket=sockets,
            listens=listens.astype(np.bool_),
            kernels=kernels.astype(np.bool_),
        )

    def _stamps(self, lines: pl.Series) -> tuple[Mask, list[int]]:
        """Which lines say the time of the table after them, and the times."""
        stamp, instants = np.zeros(len(lines), np.bool_), []
        likely = lines.str.contains(_MAYBE_TIME).arg_true()
        for at, line in zip(likely.to_list(), lines.gather(likely).to_list(), strict=True):
            found = _TIME.fullmatch(line)
            if found is not None:
                stamp[at] = True
                instant = _instant(found[1], self._context)
                instants.append(_UNKNOWN if instant is None else instant)
        self.times += [instant for instant in instants if instant != _UNKNOWN]
        return stamp, instants

    def _read(self, line: str) -> tuple[int, int, bool, bool]:
        """A record's place, socket, whether it listens, and whether it is indented as the kernel's."""
        row = parse_row(line, self._section.name)
        kernels = line[:1] in " \t" and (row is not None or is_kernels(line))
        if row is None:
            return _DAMAGED, BEYOND, False, kernels
        taken = place(row)
        if taken == Place.CONNECTION:
            return taken, self.sightings.connection(row), False, kernels
        number = self.sightings.bound_socket(row) if taken == Place.BOUND else BEYOND
        return taken, number, row.state == "LISTEN", kernels

    def _leave_continuations(self, piece: _Piece) -> None:
        """Indented lines below a connection go on with it, whatever word they begin with."""
        unclear = piece.record & piece.below & ~piece.kernels
        if not unclear.any():
            return
        within, shows = self._above >= 0, piece.of(Place.CONNECTION)
        for at in np.flatnonzero(piece.record | piece.stamp).tolist():
            if within and unclear[at]:
                piece.record[at] = False
            else:
                within = bool(shows[at])

    def _account(self, piece: _Piece) -> None:
        """Count the records; those that cannot be read or placed go to quarantine."""
        tally, damaged = self._reading.tally, piece.place == _DAMAGED
        tally.met(int(piece.record.sum()))
        for at in np.flatnonzero(piece.record & ~piece.sound()).tolist():
            reason = _NO_ROW if damaged[at] else _NO_TIME
            self._reading.quarantine.add(self._section.source, f"line {self._next_line + at}", reason)
        tally.left("a closed socket without an owner", int(piece.of(Place.CLOSED).sum()))
        tally.left("a socket between programs of the phone", int(piece.of(Place.OF_THE_PHONE).sum()))
        beyond = piece.sound() & np.isin(piece.place, _HELD) & (piece.socket == BEYOND)
        tally.left(f"a socket beyond the first {MOST_SOCKETS}", int(beyond.sum()))

    def _see(self, piece: _Piece) -> Numbers:
        """Note the sightings; for each line the number of the connection's sighting that it shows or goes on with."""
        shows, bound = piece.of(Place.CONNECTION), piece.of(Place.BOUND)
        positions = np.arange(len(shows)) + self._next_line
        numbers = np.where(shows, self.sightings.count - 1 + np.cumsum(shows), -1)
        last = np.maximum.accumulate(np.where(piece.stamp | piece.record, np.arange(len(shows)), -1))
        self.sightings.see_connections(piece.socket[shows], piece.time[shows], positions[shows])
        self.sightings.see_bound(piece.socket[bound], piece.time[bound], positions[bound], piece.listens[bound])
        return np.where(last >= 0, numbers[last], self._above)

    def _add_bytes(self, lines: pl.Series, piece: _Piece, above: Numbers) -> None:
        """Byte counts that ss gives with a connection, in its line or those below."""
        goes_on = piece.below & ~piece.stamp & ~piece.record
        wanted = lines.str.contains(_COUNTS).to_numpy() & (above >= 0) & (piece.record | goes_on)
        if wanted.any():
            shown = lines.filter(pl.Series(wanted)).to_frame("line").select(
                pl.col("line").str.extract(pattern).cast(pl.Int64).fill_null(NO_COUNT).alias(name)
                for name, pattern in (("sent", _SENT), ("received", _RECEIVED))
            )  # fmt: skip
            self.sightings.count_bytes(above[wanted], shown["sent"].to_numpy(), shown["received"].to_numpy())


def _instant(text: str, context: DumpContext) -> int | None:
    """A poll's time, us since epoch; a local time is in the device's zone."""
    try:
        if text.replace(".", "").isdigit():
            seconds = float(text)
        else:
            moment = datetime.fromisoformat(text.replace(",", ".").replace(" Z", "Z"))
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=context.zone)).timestamp()
    except (ValueError, OverflowError):
        return None
    return round(seconds * 1_000_000) if 0 <= seconds <= LAST_SECOND else None


def _batches(tables: _Tables, section: Section, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    sightings = tables.sightings
    connected, bound = sightings.connected(), sightings.listeners()
    reading.tally.left("seen again in a later table", sightings.total - connected.height - bound.height)
    batches = []
    if connected.height:
        batches.append(_flows(sightings, connected, bound, section, context))
    if bound.height:
        batches.append(_signals(sightings, bound, section, context))
    reading.tally.gave(batches)
    yield from batches
    if len(tables.times) > 1:
        columns = _common(section, context) | {
            "kind": int(SignalKind.CAPTURE),
            "start_time": [min(tables.times)],
            "end_time": [max(tables.times)],
            "observability": int(Observability.OBSERVED),
            "detail": "LISTENER RAW_SOCKET",
            "position": section.first_line,
        }
        yield batch("signals", columns, length=1)


def _flows(
    sightings: Sightings, connected: pl.DataFrame, bound: pl.DataFrame, section: Section, context: DumpContext
) -> Batch:
    keys = list(sightings.bound)
    listening = {keys[number][1:] for number in bound.filter("listens")["number"].to_list()}
    rows = list(sightings.connections)
    known = {
        "android_package": pa.array([context.package(row.uid) if row.uid >= 0 else None for row in rows], pa.string()),
        "android_uid": pa.array([row.uid if row.uid >= 0 else None for row in rows], pa.int64()),
        "protocol_num": pa.array([row.protocol for row in rows]),
        "direction_id": pa.array([_direction((row.local_port, row.uid) in listening) for row in rows]),
        "local_ip": pa.array([row.local_ip for row in rows], pa.string()),
        "local_port": pa.array([row.local_port for row in rows]),
        "remote_ip": pa.array([row.remote_ip for row in rows], pa.string()),
        "remote_port": pa.array([row.remote_port for row in rows]),
        "established": pa.array([row.state in OPEN if row.protocol == PROTOCOLS["tcp"] else None for row in rows]),
    }
    numbers = connected["number"].to_arrow()
    whole = (pl.col("bytes_out") + pl.col("bytes_in")).is_not_null()
    seen = connected.with_columns(
        end_time=pl.when(pl.col("last") > pl.col("first")).then("last"),
        bytes_out=pl.when(whole).then("bytes_out"),
        bytes_in=pl.when(whole).then("bytes_in"),
        bytes_observability=whole.cast(pl.Int64),
    )
    columns = _common(section, context) | {name: values.take(numbers) for name, values in known.items()}
    columns |= {
        "flow_id": seen["position"].to_arrow(),
        "start_time": seen["first"].to_arrow(),
        "end_time": seen["end_time"].to_arrow(),
        "start_observability": int(Observability.INFERRED),
        "direction_observability": int(Observability.INFERRED),
        "bytes_out": seen["bytes_out"].to_arrow(),
        "bytes_in": seen["bytes_in"].to_arrow(),
        "bytes_observability": seen["bytes_observability"].to_arrow(),
        "position": seen["position"].to_arrow(),
    }
    return batch("flows", columns, length=connected.height)


def _direction(accepted: bool) -> int:  # noqa: FBT001 - one question, one answer
    return int(Direction.INBOUND if accepted else Direction.OUTBOUND)


def _signals(sightings: Sightings, bound: pl.DataFrame, section: Section, context: DumpContext) -> Batch:
    known, raw = list(sightings.bound), PROTOCOLS["raw"]
    keys = [known[number] for number in bound["number"].to_list()]
    names = {6: "tcp", 17: "udp", raw: "raw"}
    columns = _common(section, context) | {
        "android_package": [context.package(uid) if uid >= 0 else None for _, _, uid in keys],
        "android_uid": [uid if uid >= 0 else None for _, _, uid in keys],
        "kind": [int(SignalKind.RAW_SOCKET if key[0] == raw else SignalKind.LISTENER) for key in keys],
        "start_time": bound["first"].to_arrow(),
        "end_time": bound["last"].to_arrow(),
        "observability": int(Observability.OBSERVED),
        "local_port": [None if key[0] == raw else key[1] for key in keys],
        "detail": [names.get(key[0], str(key[0])) for key in keys],
        "position": bound["position"].to_arrow(),
    }
    return batch("signals", columns, length=len(keys))


def _common(section: Section, context: DumpContext) -> dict[str, Any]:
    return {
        "device_uid": context.device,
        "source": section.source,
        "clock": "device",
        "clock_skew_bound_s": context.skew_bound_s,
    }
