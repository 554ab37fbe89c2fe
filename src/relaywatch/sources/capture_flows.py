"""Packets as flows: a bounded table of open flows, and the finished flows and seconds that leave it.

A flow is one TCP connection, one UDP association between silences of IDLE_US, or what two addresses exchange in
another IP protocol between such silences. A TCP connection that was accepted and not closed may be silent for
LONG_IDLE_US, because phones keep push and tunnel connections open through long silences. A SYN with another initial
sequence number, or after FIN or RST, begins a new connection on the same addresses and ports.

Which end is the device: the end whose address is local (RFC 1918, RFC 6598, RFC 4193, link-local). With both ends
local, a capture of one device (Sight.DEVICE, Sight.PCAPDROID) takes the address that it knows as the device's; a
capture of a network (Sight.NETWORK) gives the flow twice, mirrored, once as each end sees it. With neither local,
the initiator is the device.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from relaywatch.model.compilation import compiled
from relaywatch.sources.capture_columns import EVENT, FLOW, VOLUME, EventKind, Integers, Label, Octets, Record, Records
from relaywatch.sources.capture_decode import TCP, UDP
from relaywatch.sources.capture_sequence import Gaps, distance, new_payload, no_gaps

IDLE_US: Final = 120_000_000
LONG_IDLE_US: Final = 7_200_000_000
_BUCKETS: Final = 1 << 20
_ROOM: Final = 32_768
_SPARE: Final = 16
"""Rows that one packet can finish at most."""
_ENDED_PER_PACKET: Final = 4
_KNOWN: Final = 1_024

FIN: Final = 1
SYN: Final = 2
RST: Final = 4
ACK: Final = 16

NAMED_BYTES: Final = 16_384
"""Payload at a connection's begin that may still belong to what names the host."""
NAMED_PIECES: Final = 8

_OLDEST: Final = 0  # places in the counters: heads of the two queues,
_NEWEST: Final = 2  # their tails,
_FREE: Final = 4  # flows on the free list,
_NEXT_ID: Final = 5
_DONE: Final = 6  # rows waiting in each output
_SECONDS: Final = 7
_EVENTS: Final = 8
_OPEN: Final = 9
_SEED: Final = 10

KNOWN: Final = np.dtype([("high", "u8"), ("low", "u8"), ("flows", "i8")], align=True)
"""Addresses taken for the device's, with the flows that they had."""


class Sight(IntEnum):
    """What a capture shows."""

    NETWORK = 0
    DEVICE = 1
    PCAPDROID = 2
    SOCKETS = 3
    """Packets by their socket: who sent them and their record are told; no address, no sequence number, no content."""


@dataclass(slots=True)
class Finished:
    """Rows that left the table, and what naming must look at; valid until the next are asked for."""

    flows: Records
    volumes: Records
    events: Records


class Store(NamedTuple):
    """The table's arrays, as the kernels share them.

    table, gaps: one entry a slot; free: slots not in use; buckets: first slot of each hash bucket, -1 where none.
    counters: see the places above; done, seconds, events: outputs; known: addresses taken for the device's.
    """

    table: Records
    gaps: NDArray[np.uint32]
    free: NDArray[np.int32]
    buckets: NDArray[np.int32]
    counters: Integers
    done: Records
    seconds: Records
    events: Records
    known: Records


class FlowTable:
    """Open flows, at most `limit`; the longest silent leaves where another one needs its place."""

    def __init__(self, limit: int) -> None:
        counters = np.zeros(16, np.int64)
        counters[_OLDEST : _NEWEST + 2] = -1
        counters[_FREE] = limit
        # A secret seed, so that a capture cannot be made whose flows all share a bucket.
        counters[_SEED] = secrets.randbits(62)
        # Zeroed pages cost no memory before a flow touches them.
        self._store = Store(
            np.zeros(limit, FLOW),
            no_gaps(limit),
            np.arange(limit - 1, -1, -1, dtype=np.int32),
            np.full(_BUCKETS, -1, np.int32),
            counters,
            np.zeros(_ROOM, FLOW),
            np.zeros(_ROOM, VOLUME),
            np.zeros(_ROOM, EVENT),
            np.zeros(_KNOWN, KNOWN),
        )

    def feed(self, octets: Octets, packets: Records, first: int, sight: Sight) -> Iterator[Finished]:
        """Take packets in, in order; `first` is the number of packets[0] in the file."""
        at = 0
        while at < len(packets):
            at = advance(octets, packets, at, first, int(sight), self._store)
            yield self._taken()

    def end(self) -> Iterator[Finished]:
        """Let every open flow go."""
        while self._store.counters[_OPEN]:
            drain(self._store)
            yield self._taken()

    def _taken(self) -> Finished:
        store = self._store
        flows, seconds, events = store.counters[[_DONE, _SECONDS, _EVENTS]]
        store.counters[[_DONE, _SECONDS, _EVENTS]] = 0
        return Finished(store.done[:flows], store.seconds[:seconds], store.events[:events])


@compiled
def advance(octets: Octets, packets: Records, at: int, first: int, sight: int, store: Store) -> int:
    """Packets from `at` into the table until all are in or an output is full; returns the next packet's index."""
    counters = store.counters
    while at < len(packets):
        packet = packets[at]
        if packet.fault:
            at += 1
            continue
        if max(counters[_DONE], counters[_SECONDS], counters[_EVENTS]) > _ROOM - _SPARE:
            return at
        expire(packet.time, store)
        position = packet.data if sight == Sight.SOCKETS else first + at
        bucket = bucket_of(packet, counters[_SEED])
        slot = find(packet, bucket, store)
        if slot >= 0 and begins_anew(packet, sight, store.table[slot]):
            finish(slot, store)
            slot = -1
        if slot < 0:
            if counters[_FREE] == 0:
                finish(longest_silent(counters), store)
            slot = begin(packet, at, position, bucket, sight, store)
        count(octets, packet, at, position, sight, slot, store)
        at += 1
    return at


@compiled
def longest_silent(counters: Integers) -> int:
    """Find the slot to give up: of the short queue if it has any."""
    return int(counters[_OLDEST] if counters[_OLDEST] >= 0 else counters[_OLDEST + 1])


@compiled
def mix(value: np.uint64) -> np.uint64:
    """SplitMix64's finalizer (Steele, Lea and Flood, 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@compiled
def bucket_of(packet: Record, seed: int) -> int:
    """Hash bucket of a packet's flow; equal for both directions."""
    salt = np.uint64(seed)
    source = mix(mix(packet.src_high ^ salt) ^ packet.src_low) + np.uint64(packet.src_port)
    target = mix(mix(packet.dst_high ^ salt) ^ packet.dst_low) + np.uint64(packet.dst_port)
    both = mix(mix(source) + mix(target) + np.uint64(packet.protocol))
    return np.int64(both & np.uint64(_BUCKETS - 1))


@compiled
def from_local(packet: Record, flow: Record) -> bool:
    """Whether the device of `flow` sent the packet."""
    return bool(
        packet.src_low == flow.local_low
        and packet.src_port == flow.local_port
        and packet.src_high == flow.local_high
        and packet.dst_low == flow.remote_low
        and packet.dst_port == flow.remote_port
        and packet.dst_high == flow.remote_high
    )


@compiled
def to_local(packet: Record, flow: Record) -> bool:
    """Whether the other side of `flow` sent the packet."""
    return bool(
        packet.dst_low == flow.local_low
        and packet.dst_port == flow.local_port
        and packet.dst_high == flow.local_high
        and packet.src_low == flow.remote_low
        and packet.src_port == flow.remote_port
        and packet.src_high == flow.remote_high
    )


@compiled
def find(packet: Record, bucket: int, store: Store) -> int:
    """Slot of the packet's flow, or -1."""
    slot = np.int64(store.buckets[bucket])
    while slot >= 0:
        flow = store.table[slot]
        if flow.protocol == packet.protocol and (from_local(packet, flow) or to_local(packet, flow)):
            return slot
        slot = np.int64(flow.chain)
    return slot


@compiled
def begins_anew(packet: Record, sight: int, flow: Record) -> bool:
    """Whether the packet belongs to a later flow on the same addresses and ports."""
    silence = packet.time - flow.end
    if silence > (LONG_IDLE_US if flow.queue else IDLE_US):
        return True
    if packet.protocol != TCP or packet.flags & (SYN | ACK | RST) != SYN:
        return False
    if flow.closed or not flow.isn_known:
        return True
    if sight == Sight.SOCKETS:
        return bool(flow.accepted or flow.bytes_out or flow.bytes_in)
    sent = from_local(packet, flow)
    if sent == bool(flow.from_local):
        return bool(packet.sequence != flow.isn)
    # The other side's SYN: both opened at once as long as neither answered; else the port was used again.
    return bool(flow.accepted or flow.bytes_out or flow.bytes_in)


@compiled
def expire(now: int, store: Store) -> None:
    """Let a few flows go that were silent too long; the cost is bounded per packet."""
    for queue in range(2):
        allowed = LONG_IDLE_US if queue else IDLE_US
        for _ in range(_ENDED_PER_PACKET):
            slot = store.counters[_OLDEST + queue]
            if slot < 0 or now - store.table[slot].end <= allowed:
                break
            finish(slot, store)


@compiled
def finish(slot: int, store: Store) -> None:
    """Move a flow from the table to the output."""
    table, buckets, counters = store.table, store.buckets, store.counters
    flow = table[slot]
    close_second(flow, counters, store.seconds)
    store.done[counters[_DONE]] = flow
    counters[_DONE] += 1
    unlink(slot, table, counters)
    before = np.int64(buckets[flow.bucket])
    if before == slot:
        buckets[flow.bucket] = flow.chain
    else:
        while table[before].chain != slot:
            before = np.int64(table[before].chain)
        table[before].chain = flow.chain
    store.free[counters[_FREE]] = slot
    counters[_FREE] += 1
    counters[_OPEN] -= 1


@compiled
def drain(store: Store) -> None:
    """Finish open flows, the longest silent first, until none is left or the output is full."""
    while store.counters[_OPEN] and store.counters[_DONE] < _ROOM - _SPARE:
        finish(longest_silent(store.counters), store)


@compiled
def close_second(flow: Record, counters: Integers, seconds: Records) -> None:
    """Put the interval being filled out, where it holds packets."""
    if flow.second_packets_out + flow.second_packets_in == 0:
        return
    row = seconds[counters[_SECONDS]]
    counters[_SECONDS] += 1
    row.flow_id = flow.flow_id
    row.local_high, row.local_low = flow.local_high, flow.local_low
    row.remote_high, row.remote_low = flow.remote_high, flow.remote_low
    row.second, row.position = flow.second, flow.second_position
    row.bytes_out, row.bytes_in = flow.second_out, flow.second_in
    row.packets_out, row.packets_in = flow.second_packets_out, flow.second_packets_in
    row.uid, row.mirrored = flow.uid, flow.mirrored
    flow.second_out = flow.second_in = 0
    flow.second_packets_out = flow.second_packets_in = 0


@compiled
def unlink(slot: int, table: Records, counters: Integers) -> None:
    """Take a flow out of its queue."""
    flow = table[slot]
    if flow.older >= 0:
        table[flow.older].newer = flow.newer
    else:
        counters[_OLDEST + flow.queue] = flow.newer
    if flow.newer >= 0:
        table[flow.newer].older = flow.older
    else:
        counters[_NEWEST + flow.queue] = flow.older


@compiled
def append(slot: int, queue: int, table: Records, counters: Integers) -> None:
    """Put a flow at the end of a queue: it was active last."""
    flow = table[slot]
    flow.queue = queue
    flow.older = counters[_NEWEST + queue]
    flow.newer = -1
    if flow.older >= 0:
        table[flow.older].newer = slot
    else:
        counters[_OLDEST + queue] = slot
    counters[_NEWEST + queue] = slot


@compiled
def is_local(high: np.uint64, low: np.uint64) -> bool:
    """RFC 1918, RFC 6598 (100.64/10), RFC 3927, RFC 4193 (fc00::/7), fe80::/10."""
    if high == 0 and low >> np.uint64(32) == 0xFFFF:
        address = np.int64(low & np.uint64(0xFFFFFFFF))
        return bool(
            address >> 24 == 10
            or address >> 20 == 0xAC1
            or address >> 16 == 0xC0A8
            or address >> 22 == 0x191
            or address >> 16 == 0xA9FE
        )
    return bool(high >> np.uint64(57) == 0x7E or high >> np.uint64(54) == 0x3FA)


@compiled
def known_flows(high: np.uint64, low: np.uint64, known: Records) -> int:
    """Flows in which the address was taken for the device's."""
    entry = known[np.int64(mix(high ^ mix(low)) % np.uint64(len(known)))]
    return entry.flows if entry.high == high and entry.low == low else 0


@compiled
def remember(high: np.uint64, low: np.uint64, known: Records) -> None:
    """Count a flow for the address; one seen more often keeps a place that two contend for."""
    entry = known[np.int64(mix(high ^ mix(low)) % np.uint64(len(known)))]
    if entry.flows > 0 and (entry.high != high or entry.low != low):
        entry.flows -= 1
        return
    entry.high, entry.low = high, low
    entry.flows += 1


@compiled
def device_end(packet: Record, source_began: int, sight: int, known: Records) -> tuple[bool, bool]:
    """Whether the packet's source is the device, and whether the flow is to be mirrored."""
    if sight in (Sight.PCAPDROID, Sight.SOCKETS) and packet.heading:
        return packet.heading == 2, False
    source, target = is_local(packet.src_high, packet.src_low), is_local(packet.dst_high, packet.dst_low)
    if source != target:
        return source, False
    if packet.group:
        return True, False
    if sight == Sight.NETWORK:
        return bool(source_began), source
    times = known_flows(packet.src_high, packet.src_low, known) - known_flows(packet.dst_high, packet.dst_low, known)
    if times:
        return times > 0, False
    return bool(source_began or sight == Sight.PCAPDROID), False


@compiled
def begin(packet: Record, at: int, position: int, bucket: int, sight: int, store: Store) -> int:
    """Open a flow for the packet; returns its slot."""
    table, counters, known = store.table, store.counters, store.known
    counters[_FREE] -= 1
    slot = np.int64(store.free[counters[_FREE]])
    counters[_OPEN] += 1
    flow = table[slot]
    clear(flow)
    store.gaps[slot] = 0
    syn = packet.protocol == TCP and packet.flags & (SYN | RST) == SYN
    # A SYN-ACK is the answer to a SYN that was missed: its receiver began.
    source_began = not (syn and packet.flags & ACK)
    from_source, mirrored = device_end(packet, source_began, sight, known)
    if sight != Sight.NETWORK:
        if from_source:
            remember(packet.src_high, packet.src_low, known)
        else:
            remember(packet.dst_high, packet.dst_low, known)
    place_ends(packet, flow, from_source)
    flow.from_local = from_source == source_began
    flow.observed = syn
    flow.mirrored = mirrored
    flow.flow_id = counters[_NEXT_ID]
    counters[_NEXT_ID] += 2 if mirrored else 1
    flow.start = flow.end = packet.time
    flow.position = position
    flow.second = packet.time // 1_000_000
    flow.bucket = bucket
    flow.chain = store.buckets[bucket]
    store.buckets[bucket] = slot
    append(slot, 0, table, counters)
    event(EventKind.FLOW_STARTED, at, 0, from_source, flow, store)
    return slot


@compiled
def clear(flow: Record) -> None:
    """Nothing counted yet."""
    flow.bytes_out = flow.bytes_in = flow.wire_out = flow.wire_in = flow.packets_out = flow.packets_in = 0
    flow.second_out = flow.second_in = flow.second_position = 0
    flow.second_packets_out = flow.second_packets_in = 0
    flow.uid = -1
    flow.isn = flow.edge_out = flow.edge_in = flow.loose_out = flow.loose_in = flow.first = flow.watch = 0
    flow.accepted = flow.isn_known = flow.edge_known = flow.closed = flow.label = flow.asked = flow.settled = 0


@compiled
def place_ends(packet: Record, flow: Record, from_source: int) -> None:
    """Set the packet's ends as the flow's local and remote."""
    flow.protocol = packet.protocol
    if from_source:
        flow.local_high, flow.local_low, flow.local_port = packet.src_high, packet.src_low, packet.src_port
        flow.remote_high, flow.remote_low, flow.remote_port = packet.dst_high, packet.dst_low, packet.dst_port
    else:
        flow.local_high, flow.local_low, flow.local_port = packet.dst_high, packet.dst_low, packet.dst_port
        flow.remote_high, flow.remote_low, flow.remote_port = packet.src_high, packet.src_low, packet.src_port


@compiled
def event(kind: int, at: int, offset: int, sent: int, flow: Record, store: Store) -> None:
    """Ask naming to look at a packet."""
    row = store.events[store.counters[_EVENTS]]
    store.counters[_EVENTS] += 1
    row.flow_id, row.packet, row.offset = flow.flow_id, at, offset
    row.kind, row.mirrored, row.from_src = kind, flow.mirrored, sent


@compiled
def count(octets: Octets, packet: Record, at: int, position: int, sight: int, slot: int, store: Store) -> None:
    """Add the packet to its flow."""
    flow = store.table[slot]
    sent = from_local(packet, flow)
    fresh = packet.payload_bytes
    if sight == Sight.SOCKETS:
        turn(packet, sent, flow)
    elif packet.protocol == TCP and packet.flags:
        fresh = follow(octets, packet, at, sent, flow, store.gaps[slot, 0 if sent else 1], store)
    elif packet.protocol == UDP and packet.payload_bytes:
        datagram(octets, packet, at, sent, flow, store)
    if flow.uid < 0:
        flow.uid = packet.uid
    flow.start = min(flow.start, packet.time)
    flow.end = max(flow.end, packet.time)
    add_second(packet, position, sent, fresh, flow, store)
    if sent:
        flow.bytes_out += fresh
        flow.wire_out += packet.wire_bytes
        flow.packets_out += packet.packets
    else:
        flow.bytes_in += fresh
        flow.wire_in += packet.wire_bytes
        flow.packets_in += packet.packets
    # Half closed (one FIN) may last as long as open.
    lasting = packet.protocol == TCP and flow.closed < 3 and (flow.accepted or (flow.bytes_out and flow.bytes_in))
    unlink(slot, store.table, store.counters)
    append(slot, 1 if lasting else 0, store.table, store.counters)


@compiled
def add_second(packet: Record, position: int, sent: int, fresh: int, flow: Record, store: Store) -> None:
    """Add to the flow's interval. A packet stamped just before the interval counts within it."""
    second = packet.time // 1_000_000
    if second != flow.second and second != flow.second - 1:
        close_second(flow, store.counters, store.seconds)
        flow.second = second
    if flow.second_packets_out + flow.second_packets_in == 0:
        flow.second_position = position
        flow.second = second
    if sent:
        flow.second_out += fresh
        flow.second_packets_out += packet.packets
    else:
        flow.second_in += fresh
        flow.second_packets_in += packet.packets


@compiled
def follow(octets: Octets, packet: Record, at: int, sent: int, flow: Record, gaps: Gaps, store: Store) -> int:
    """TCP's part of a packet: opening, closing, new payload bytes (returned), and what names the host."""
    sequence, length = np.int64(packet.sequence), packet.payload_bytes
    if packet.flags & SYN:
        handshake(packet, sent, flow)
        sequence = (sequence + 1) & 0xFFFFFFFF
    bit = 1 if sent else 2
    if packet.flags & RST:
        # A reset's payload is a message of the stack, and its number may be any.
        flow.closed |= 4
        return 0
    if not flow.edge_known & bit:
        flow.edge_known |= bit
        if sent:
            flow.edge_out = sequence
        else:
            flow.edge_in = sequence
    edge, loose = (flow.edge_out, flow.loose_out) if sent else (flow.edge_in, flow.loose_in)
    fresh, edge_after, loose_after = new_payload(np.int64(edge), gaps, np.int64(loose), sequence, length)
    if sent:
        flow.edge_out, flow.loose_out = edge_after, loose_after
    else:
        flow.edge_in, flow.loose_in = edge_after, loose_after
    if packet.flags & FIN:
        flow.closed |= bit
    if fresh and packet.src_port == 53 and packet.end - packet.payload > 14:
        event(EventKind.DNS_MESSAGE, at, 0, sent, flow, store)
    if fresh and sent == bool(flow.from_local):
        opening(octets, packet, at, sequence, sent, flow, store)
    return fresh


@compiled
def turn(packet: Record, sent: int, flow: Record) -> None:
    """What TCP flags alone say of a connection's opening and end."""
    if packet.protocol != TCP:
        return
    if packet.flags & SYN:
        flow.isn_known = 1
        if packet.flags & ACK and sent != bool(flow.from_local):
            flow.accepted = 1
    if packet.flags & RST:
        flow.closed |= 4
    elif packet.flags & FIN:
        flow.closed |= 1 if sent else 2


@compiled
def handshake(packet: Record, sent: int, flow: Record) -> None:
    """SYN and SYN-ACK: who began, with which number, and whether it was accepted."""
    if not packet.flags & ACK:
        if sent == bool(flow.from_local):
            flow.isn, flow.isn_known = packet.sequence, 1
            flow.first = (np.int64(packet.sequence) + 1) & 0xFFFFFFFF
        return
    if sent != bool(flow.from_local):
        flow.accepted = 1
        if not flow.isn_known:
            flow.isn, flow.isn_known = (np.int64(packet.acknowledged) - 1) & 0xFFFFFFFF, 1
            flow.first = packet.acknowledged


@compiled
def opening(octets: Octets, packet: Record, at: int, sequence: int, sent: int, flow: Record, store: Store) -> None:
    """Label a connection by the initiator's first payload, and hand out what may name the host."""
    if flow.asked == 255:
        return
    if not flow.isn_known and flow.asked == 0:
        flow.first = sequence
    offset = distance(sequence, np.int64(flow.first))
    if offset < 0 or offset >= (flow.watch if flow.settled else 4096) or flow.asked >= NAMED_PIECES:
        if flow.settled or flow.asked >= NAMED_PIECES:
            flow.asked = 255
        return
    if offset == 0 and not flow.settled:
        flow.settled = 1
        flow.label, flow.watch = stream_label(octets, packet)
        if flow.watch == 0:
            flow.asked = 255
            return
    flow.asked += 1
    # Only what the device itself asked for names the other side.
    if flow.from_local:
        event(EventKind.FIRST_PAYLOAD, at, offset, sent, flow, store)


@compiled
def stream_label(octets: Octets, packet: Record) -> tuple[int, int]:
    """Protocol of a connection by its first bytes, and how many bytes from the first may name the host."""
    at = packet.payload
    if packet.src_port == 53 or packet.dst_port == 53:
        return Label.DNS, 0
    if packet.end - at < 5:
        return Label.NONE, 0
    a, b, c, d = octets[at], octets[at + 1], octets[at + 2], octets[at + 3]
    if a == 22 and b == 3 and c <= 4:
        return Label.TLS, min(5 + (np.int64(d) << 8 | octets[at + 4]), NAMED_BYTES)
    e = octets[at + 4]
    get = a == 71 and b == 69 and c == 84 and d == 32
    put = a == 80 and b == 85 and c == 84 and d == 32
    post = a == 80 and b == 79 and c == 83 and d == 84 and e == 32
    head = a == 72 and b == 69 and c == 65 and d == 68 and e == 32
    options = a == 79 and b == 80 and c == 84 and d == 73 and e == 79
    connect = a == 67 and b == 79 and c == 78 and d == 78 and e == 69
    patch = a == 80 and b == 65 and c == 84 and d == 67 and e == 72
    delete = a == 68 and b == 69 and c == 76 and d == 69 and e == 84
    if get or put or post or head or options or connect or patch or delete:
        return Label.HTTP, 4096
    return Label.NONE, 0


@compiled
def datagram(octets: Octets, packet: Record, at: int, sent: int, flow: Record, store: Store) -> None:
    """Label a UDP flow; hand DNS answers to naming."""
    begin_at = packet.payload
    if packet.src_port == 53 or packet.dst_port == 53:
        flow.label = Label.DNS
        if packet.src_port == 53 and packet.end - begin_at > 12:
            event(EventKind.DNS_MESSAGE, at, 0, sent, flow, store)
        return
    if flow.label or packet.end - begin_at < 5 or octets[begin_at] & 0xC0 != 0xC0:
        return
    version = 0
    for i in range(1, 5):
        version = version << 8 | np.int64(octets[begin_at + i])
    # RFC 9000 (1), RFC 9369 (0x6b3343cf), the drafts, and Google's Q0xx.
    if version in (1, 0x6B3343CF) or version >> 8 == 0xFF0000 or version >> 16 == 0x5130:
        flow.label = Label.QUIC
