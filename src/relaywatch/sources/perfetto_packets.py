"""Perfetto's network packets out of its TracePackets, in compiled code: wire format, sequences, interned contexts.

Fields (google/perfetto protos/perfetto/trace, checked against the descriptors of PyPI perfetto 0.16.0): TracePacket 88
network_packet, 92 network_packet_bundle, 8 timestamp, 58 timestamp_clock_id, 10 trusted_packet_sequence_id, 12
interned_data (in it 30 packet_context), 13 sequence_flags, 41 incremental_state_cleared, 42 previous_packet_dropped, 59
trace_packet_defaults, 87 first_packet_on_sequence; android/network_trace.proto. The writer is AOSP's
NetworkTraceHandler (packages/modules/Connectivity): one packet, or bundles of one poll by equal attributes, with lists
of times and lengths, or beyond aggregation_threshold with totals only.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np

from relaywatch.model.compilation import compiled
from relaywatch.sources.capture_columns import Integers, Octets, Record, Records
from relaywatch.sources.capture_flows import mix
from relaywatch.sources.perfetto_messages import BOOTTIME, LENGTH, VARINT
from relaywatch.sources.perfetto_wire import Number, field, varint

ROOM: Final = 262_144
"""Packets that one bundle may list, and rows of the output."""
NOTES: Final = 4_096
PACKET_BYTES: Final = 16 << 20
"""A longer TracePacket is skipped: the service cuts its buffers into far smaller ones."""
LARGEST_PACKET: Final = 1 << 20
"""Bytes of one packet, as the kernel passes it before segmentation; 512 KiB at the most."""
MOST_PACKETS: Final = 1 << 20
"""Packets of one aggregated bundle."""
LONGEST_NS: Final = 600_000_000_000
"""Between the first and the last packet of a bundle: polls are a minute apart at the most."""
PIECES: Final = 64
"""Rows over which a bundle's totals are spread, one a second or more."""
SEQUENCES: Final = 1 << 14
"""Writers of one trace: a thread of a producer each."""
CONTEXTS: Final = 1 << 17
"""Interned attributes held at a time; the configuration's intern_limit bounds those of a writer."""
PROBES: Final = 64

FULL: Final = 1
NEED_MORE: Final = 2
LOST: Final = 3
TOO_LONG: Final = 4

MET: Final = 0  # places in the counters: TracePackets met,
ROWS: Final = 1  # rows and notes waiting,
NOTED: Final = 2
OTHER: Final = 3  # packets of other data sources,
EMPTY: Final = 4  # bundles without a packet
SALT: Final = 5

_CLEARED: Final = 1
_LOOPBACK: Final = np.uint64(0x0000_6F6C)
"""The interface's name lo as bytes."""


class Note(IntEnum):
    """What a TracePacket has that is not read here: a kind of message, or a reason why it cannot be read."""

    CLOCKS = 1
    PACKAGES = 2
    STATS = 3
    LOSS = 4
    DEFLATED = 5
    ZSTANDARD = 6
    DAMAGED = 10
    NO_CONTEXT = 11
    NO_ROOM = 12
    NO_DIRECTION = 13
    BAD_NUMBER = 14
    UNEVEN = 15
    TOO_MANY = 16
    NO_TIME = 17


ROW: Final = np.dtype(
    [
        ("time", "i8"),  # ns on `clock`
        ("position", "i8"),  # number of the TracePacket
        ("length", "i8"),  # IP bytes of all its packets
        ("interface", "u8"),  # hash of its name
        ("packets", "u4"),
        ("clock", "u4"),
        ("uid", "u4"),
        ("local_port", "u2"),
        ("remote_port", "u2"),
        ("protocol", "u1"),
        ("flags", "u1"),
        ("direction", "u1"),  # 1 ingress, 2 egress
    ],
    align=True,
)
"""One packet, or a part of an aggregated bundle."""

NOTE: Final = np.dtype([("kind", "u1"), ("position", "i8"), ("begin", "i8"), ("end", "i8")], align=True)
"""begin, end: of the message within the buffer; of a LOSS, times in ns."""

SEQUENCE: Final = np.dtype(
    [("key", "i8"), ("last", "i8"), ("generation", "u4"), ("clock", "u4"), ("valid", "u1")], align=True
)
"""A writer's state. key: its id and one, 0: free; last: ns of its newest network packet, -1: none."""

CONTEXT: Final = np.dtype(
    [
        ("key", "u8"),
        ("sequence", "i4"),
        ("generation", "u4"),
        ("interface", "u8"),
        ("length", "u8"),
        ("uid", "u8"),
        ("protocol", "u8"),
        ("flags", "u8"),
        ("local_port", "u8"),
        ("remote_port", "u8"),
        ("direction", "u8"),
        ("used", "u1"),
    ],
    align=True,
)
"""A NetworkPacketEvent, as it was written; key: its iid."""

FRAME: Final = np.dtype(
    [
        ("time", "u8"),
        ("timed", "u1"),
        ("clock", "u8"),
        ("sequence", "u8"),
        ("flags", "u8"),
        ("dropped", "u8"),
        ("first", "u8"),
        ("cleared", "u8"),
        ("packet", "i8", 2),
        ("bundle", "i8", 2),
        ("interned", "i8", 2),
        ("defaults", "i8", 2),
        ("clocks", "i8", 2),
        ("packages", "i8", 2),
        ("stats", "i8", 2),
        ("deflated", "i8", 2),
        ("zstandard", "i8", 2),
    ],
    align=True,
)
"""A TracePacket's fields; messages as begin and end within the buffer, 0 and 0: absent."""


class Store(NamedTuple):
    """The decoder's arrays. frame: one FRAME; event, held: one CONTEXT each; counters: see the places above."""

    counters: Integers
    rows: Records
    notes: Records
    sequences: Records
    contexts: Records
    frame: Records
    event: Records


def new_store(salt: int) -> Store:
    """Nothing met yet. salt: secret, so that no trace can be made whose keys all share a place."""
    counters = np.zeros(8, np.int64)
    counters[SALT] = salt
    return Store(
        counters,
        np.zeros(ROOM, ROW),
        np.zeros(NOTES, NOTE),
        np.zeros(SEQUENCES, SEQUENCE),
        np.zeros(CONTEXTS, CONTEXT),
        np.zeros(1, FRAME),
        np.zeros(1, CONTEXT),
    )


@compiled
def advance(octets: Octets, at: Number, end: Number, store: Store) -> tuple[Number, Number]:
    """Take the whole TracePackets from `at` on; returns where it stopped, and why."""
    counters = store.counters
    while True:
        if at >= end:
            return at, NEED_MORE
        if counters[NOTED] > NOTES - 4:
            return at, FULL
        if octets[at] != 10:  # field 1, a message
            return at, LOST
        length, begin = varint(octets, at + 1, end)
        if begin < 0:
            return at, LOST if end - at > 10 else NEED_MORE
        if length > np.uint64(PACKET_BYTES):
            return at, TOO_LONG
        after = begin + np.int64(length)
        if after > end:
            return at, NEED_MORE
        frame: Record = store.frame[0]
        if not parse(octets, begin, after, frame):
            counters[MET] += 1
            note(Note.DAMAGED, 0, 0, store)
        else:
            wanted = listed(octets, frame)
            if counters[ROWS] + max(min(wanted, ROOM), PIECES) > ROOM and counters[ROWS]:
                return at, FULL
            counters[MET] += 1
            take(octets, frame, wanted, store)
            if frame.deflated[1] or frame.zstandard[1]:
                return after, FULL
        at = after


@compiled
def note(kind: Number, begin: Number, end: Number, store: Store) -> None:
    """Leave something for the caller."""
    row: Record = store.notes[store.counters[NOTED]]
    store.counters[NOTED] += 1
    row.kind, row.begin, row.end, row.position = kind, begin, end, store.counters[MET]


@compiled
def parse(octets: Octets, at: Number, end: Number, frame: Record) -> bool:
    """Read a TracePacket's own fields; False where it is damaged."""
    clear(frame)
    while at < end:
        number, wire, value, begin, after = field(octets, at, end)
        if number < 0:
            return False
        at = after
        if wire == VARINT:
            if number == 8:
                frame.time, frame.timed = value, 1
            elif number == 10:
                frame.sequence = value
            elif number == 13:
                frame.flags = value
            elif number == 41:
                frame.cleared = value
            elif number == 42:
                frame.dropped = value
            elif number == 58:
                frame.clock = value
            elif number == 87:
                frame.first = value
        elif wire == LENGTH:
            place(number, begin, after, frame)
    return True


@compiled
def place(number: Number, begin: Number, end: Number, frame: Record) -> None:
    """Remember where a message of the packet is."""
    if number == 88:
        frame.packet[0], frame.packet[1] = begin, end
    elif number == 92:
        frame.bundle[0], frame.bundle[1] = begin, end
    elif number == 12:
        frame.interned[0], frame.interned[1] = begin, end
    elif number == 59:
        frame.defaults[0], frame.defaults[1] = begin, end
    elif number == 6:
        frame.clocks[0], frame.clocks[1] = begin, end
    elif number == 47:
        frame.packages[0], frame.packages[1] = begin, end
    elif number == 35:
        frame.stats[0], frame.stats[1] = begin, end
    elif number == 50:
        frame.deflated[0], frame.deflated[1] = begin, end
    elif number == 133:
        frame.zstandard[0], frame.zstandard[1] = begin, end


@compiled
def clear(frame: Record) -> None:
    """Nothing read yet."""
    frame.time = frame.clock = frame.sequence = frame.flags = frame.dropped = frame.first = frame.cleared = 0
    frame.timed = 0
    for i in range(2):
        frame.packet[i] = frame.bundle[i] = frame.interned[i] = frame.defaults[i] = 0
        frame.clocks[i] = frame.packages[i] = frame.stats[i] = frame.deflated[i] = frame.zstandard[i] = 0


@compiled
def listed(octets: Octets, frame: Record) -> Number:
    """How many packet times the packet's bundle lists; -1: damaged."""
    at, end, count = frame.bundle[0], frame.bundle[1], 0
    while at < end:
        number, wire, _, begin, after = field(octets, at, end)
        if number < 0:
            return -1
        if number == 3 and wire == LENGTH:
            count = 0
            for i in range(begin, after):
                count += octets[i] < 0x80
        at = after
    return count


@compiled
def take(octets: Octets, frame: Record, wanted: Number, store: Store) -> None:
    """One packet's part in what is read: its writer's state, then its network packets."""
    if frame.deflated[1]:
        note(Note.DEFLATED, frame.deflated[0], frame.deflated[1], store)
        return
    if frame.zstandard[1]:
        note(Note.ZSTANDARD, frame.zstandard[0], frame.zstandard[1], store)
        return
    network = frame.packet[1] or frame.bundle[1]
    slot = sequence_of(frame.sequence, store)
    if slot >= 0 and not state(octets, frame, slot, store):
        note(Note.DAMAGED, 0, 0, store)
    elif network and slot < 0:
        note(Note.NO_ROOM, 0, 0, store)
    elif network:
        packets_of(octets, frame, wanted, slot, store)
    elif frame.clocks[1]:
        note(Note.CLOCKS, frame.clocks[0], frame.clocks[1], store)
    elif frame.packages[1]:
        note(Note.PACKAGES, frame.packages[0], frame.packages[1], store)
    elif frame.stats[1]:
        note(Note.STATS, frame.stats[0], frame.stats[1], store)
    else:
        store.counters[OTHER] += 1


@compiled
def sequence_of(identifier: np.uint64, store: Store) -> Number:
    """The place of a writer's state; -1 where there is no room for one more."""
    if identifier >= np.uint64(1 << 62):
        return -1
    key = np.int64(identifier) + 1
    at = np.int64(mix(identifier ^ np.uint64(store.counters[SALT])) % np.uint64(SEQUENCES))
    for _ in range(PROBES):
        entry: Record = store.sequences[at]
        if entry.key == key:
            return at
        if entry.key == 0:
            entry.key, entry.last, entry.clock = key, -1, BOOTTIME
            return at
        at = (at + 1) % SEQUENCES
    return -1


@compiled
def state(octets: Octets, frame: Record, slot: Number, store: Store) -> bool:
    """Bring a writer's state up to a packet: losses, resets, defaults, contexts. False where one is damaged."""
    own: Record = store.sequences[slot]
    if frame.dropped and not frame.first:
        own.valid = 0
        if own.last >= 0 and frame.timed and frame.time < np.uint64(1 << 62):
            note(Note.LOSS, own.last, np.int64(frame.time), store)
    if frame.flags & np.uint64(_CLEARED) or frame.cleared:
        own.generation += np.uint32(1)
        own.valid = 1
        own.clock = BOOTTIME
    at, end = frame.defaults[0], frame.defaults[1]
    while at < end:
        number, wire, value, _, after = field(octets, at, end)
        if number < 0:
            return False
        if number == 58 and wire == VARINT:
            own.clock = np.uint32(min(value, np.uint64(0xFFFF_FFFF)))
        at = after
    at, end = frame.interned[0], frame.interned[1]
    while at < end:
        number, wire, _, begin, after = field(octets, at, end)
        if number < 0:
            return False
        if number == 30 and wire == LENGTH and not intern(octets, begin, after, slot, store):
            return False
        at = after
    return True


@compiled
def intern(octets: Octets, at: Number, end: Number, slot: Number, store: Store) -> bool:
    """Remember a context under its id; without room it is forgotten, and packets that ask for it say so."""
    iid, begin, stop = np.uint64(0), end, end
    while at < end:
        number, wire, value, inner, after = field(octets, at, end)
        if number < 0:
            return False
        if number == 1 and wire == VARINT:
            iid = value
        elif number == 2 and wire == LENGTH:
            begin, stop = inner, after
        at = after
    event: Record = store.event[0]
    if not context(octets, begin, stop, event):
        return False
    found = context_place(iid, slot, store)
    if found >= 0:
        own: Record = store.sequences[slot]
        entry: Record = store.contexts[found]
        copy(event, entry)
        entry.key, entry.sequence, entry.used = iid, slot, 1
        entry.generation = own.generation
    return True


@compiled
def context_place(iid: np.uint64, slot: Number, store: Store) -> Number:
    """The place of a writer's context: its own, else a free or outdated one; -1 where there is none."""
    at = np.int64(mix(mix(iid ^ np.uint64(store.counters[SALT])) + np.uint64(slot)) % np.uint64(CONTEXTS))
    spare = np.int64(-1)
    for _ in range(PROBES):
        entry: Record = store.contexts[at]
        if entry.used and entry.key == iid and entry.sequence == slot:
            return at
        if not entry.used:
            return at if spare < 0 else spare
        holder: Record = store.sequences[entry.sequence]
        if spare < 0 and entry.generation != holder.generation:
            spare = at
        at = (at + 1) % CONTEXTS
    return spare


@compiled
def copy(source: Record, target: Record) -> None:
    """One event's attributes into another."""
    target.interface, target.length, target.uid = source.interface, source.length, source.uid
    target.protocol, target.flags, target.direction = source.protocol, source.flags, source.direction
    target.local_port, target.remote_port = source.local_port, source.remote_port


@compiled
def context(octets: Octets, at: Number, end: Number, event: Record) -> bool:
    """Read a NetworkPacketEvent; False where it is damaged."""
    event.interface = event.length = event.uid = event.protocol = event.flags = 0
    event.local_port = event.remote_port = event.direction = 0
    while at < end:
        number, wire, value, begin, after = field(octets, at, end)
        if number < 0:
            return False
        if number == 2 and wire == LENGTH:
            name = np.uint64(0)
            for i in range(begin, after):
                name = (mix(name) if i - begin >= 8 else name << np.uint64(8)) ^ np.uint64(
                    octets[begin + after - 1 - i]
                )
            event.interface = name
        elif wire == VARINT:
            attribute(number, value, event)
        at = after
    return True


@compiled
def attribute(number: Number, value: np.uint64, event: Record) -> None:
    """Set one of an event's numbers."""
    if number == 1:
        event.direction = value
    elif number == 3:
        event.length = value
    elif number == 4:
        event.uid = value
    elif number == 6:
        event.protocol = value
    elif number == 7:
        event.flags = value
    elif number == 8:
        event.local_port = value
    elif number == 9:
        event.remote_port = value


@compiled
def packets_of(octets: Octets, frame: Record, wanted: Number, slot: Number, store: Store) -> None:
    """Rows of a packet's network packet or bundle, or a note why there are none."""
    event: Record = store.event[0]
    own: Record = store.sequences[slot]
    if not frame.timed or frame.time >= np.uint64(1 << 62):
        note(Note.NO_TIME, 0, 0, store)
        return
    clock = np.int64(frame.clock if frame.clock else np.uint64(own.clock))
    if frame.packet[1]:
        kind = fault(event) if context(octets, frame.packet[0], frame.packet[1], event) else np.int64(Note.DAMAGED)
        if kind == 0 and event.length > np.uint64(LARGEST_PACKET):
            kind = Note.BAD_NUMBER
        if kind:
            note(kind, 0, 0, store)
            return
        row_of(event, np.int64(frame.time), np.int64(event.length), 1, clock, store)
        own.last = max(own.last, np.int64(frame.time))
        return
    kind = bundle(octets, frame, wanted, slot, clock, store)
    if kind:
        note(kind, 0, 0, store)
    else:
        own.last = max(own.last, np.int64(frame.time))


@compiled
def fault(event: Record) -> Number:
    """Why an event's numbers cannot be; 0 where they can."""
    if event.direction != np.uint64(1) and event.direction != np.uint64(2):
        return Note.NO_DIRECTION
    ports = max(event.local_port, event.remote_port)
    if ports > np.uint64(0xFFFF) or event.protocol > np.uint64(0xFF) or event.uid > np.uint64(0x7FFF_FFFF):
        return Note.BAD_NUMBER
    return 0


@compiled
def row_of(event: Record, time: Number, length: Number, packets: Number, clock: Number, store: Store) -> None:
    """One row."""
    row: Record = store.rows[store.counters[ROWS]]
    store.counters[ROWS] += 1
    row.time, row.position, row.length = time, store.counters[MET], length
    row.interface, row.uid, row.clock = event.interface, event.uid, min(clock, 0xFFFF_FFFF)
    row.local_port, row.remote_port, row.protocol = event.local_port, event.remote_port, event.protocol
    row.flags, row.direction, row.packets = event.flags & np.uint64(0xFF), event.direction, packets


@compiled
def bundle(octets: Octets, frame: Record, wanted: Number, slot: Number, clock: Number, store: Store) -> Number:
    """Rows of a bundle; returns why it has none, 0 where it has, or where it is empty."""
    if wanted < 0:
        return Note.DAMAGED
    if wanted > ROOM - PIECES:
        return Note.TOO_MANY
    event: Record = store.event[0]
    event.direction = 0
    times_at, times_end, sizes_at, sizes_end = 0, 0, 0, 0
    total, totals, length, duration = False, np.uint64(0), np.uint64(0), np.uint64(0)
    at, end = frame.bundle[0], frame.bundle[1]
    while at < end:
        number, wire, value, begin, after = field(octets, at, end)
        at = after
        if number == 1 and wire == VARINT:
            found = context_place(value, slot, store)
            own: Record = store.sequences[slot]
            held: Record = store.contexts[max(found, 0)]
            if found < 0 or not own.valid or not held.used or held.key != value or held.sequence != slot:
                return Note.NO_CONTEXT
            if held.generation != own.generation:
                return Note.NO_CONTEXT
            copy(held, event)
        elif number == 2 and wire == LENGTH:
            if not context(octets, begin, after, event):
                return Note.DAMAGED
        elif number == 3 and wire == LENGTH:
            times_at, times_end = begin, after
        elif number == 4 and wire == LENGTH:
            sizes_at, sizes_end = begin, after
        elif number == 5 and wire == VARINT:
            totals = value
        elif number == 6 and wire == VARINT:
            duration = value
        elif number == 7 and wire == VARINT:
            total, length = True, value
    kind = fault(event)
    if kind:
        return kind
    time = np.int64(frame.time)
    if total:
        return spread(event, time, totals, length, duration, clock, store)
    return each(octets, event, time, times_at, times_end, sizes_at, sizes_end, clock, store)


@compiled
def each(
    octets: Octets,
    event: Record,
    time: Number,
    times_at: Number,
    times_end: Number,
    sizes_at: Number,
    sizes_end: Number,
    clock: Number,
    store: Store,
) -> Number:
    """A row for each packet that a bundle lists."""
    before = store.counters[ROWS]
    while times_at < times_end and sizes_at < sizes_end:
        offset, times_at = varint(octets, times_at, times_end)
        size, sizes_at = varint(octets, sizes_at, sizes_end)
        if times_at < 0 or sizes_at < 0 or offset > np.uint64(LONGEST_NS) or size > np.uint64(LARGEST_PACKET):
            store.counters[ROWS] = before
            return Note.DAMAGED if times_at < 0 or sizes_at < 0 else Note.BAD_NUMBER
        row_of(event, time + np.int64(offset), np.int64(size), 1, clock, store)
    if times_at < times_end or sizes_at < sizes_end:
        store.counters[ROWS] = before
        return Note.UNEVEN
    if store.counters[ROWS] == before:
        store.counters[EMPTY] += 1
    return 0


@compiled
def spread(
    event: Record, time: Number, totals: np.uint64, length: np.uint64, duration: np.uint64, clock: Number, store: Store
) -> Number:
    """Rows of a bundle that has totals only: its bytes evenly over its time, at least a second apart."""
    if totals > np.uint64(MOST_PACKETS) or duration > np.uint64(LONGEST_NS):
        return Note.BAD_NUMBER
    packets: Number = max(np.int64(totals), 1)
    if length > np.uint64(packets * LARGEST_PACKET):
        return Note.BAD_NUMBER
    pieces: Number = min(packets, np.int64(duration // np.uint64(1_000_000_000)) + 1, PIECES)
    size = np.int64(length)
    for i in range(pieces):
        begin, end = i * packets // pieces, (i + 1) * packets // pieces
        part = size * (i + 1) // pieces - size * i // pieces
        when = time + (np.int64(duration) * i // max(pieces - 1, 1))
        row_of(event, when, part, end - begin, clock, store)
    return 0


def on_loopback(rows: Records) -> Records:
    """Whether each row is of the interface lo, whose packets never leave the phone."""
    found: Records = rows["interface"] == _LOOPBACK
    return found
