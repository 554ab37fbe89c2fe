"""Captured bytes as packets: link layer, IPv4 and IPv6, TCP and UDP, and PCAPdroid's trailer.

Lengths are those of the IP header, so that a capture cut by a small snaplen counts as the full one would.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from relaywatch.model.compilation import compiled
from relaywatch.sources.capture_columns import Fault, Octets, Record, Records
from relaywatch.sources.capture_framing import half, word

TCP: Final = 6
UDP: Final = 17
FRAGMENTS: Final = 4_096
TRAILER_BYTES: Final = 32
_TRAILER_MAGIC: Final = 0x01072021
_MAPPED: Final = 0xFFFF_0000_0000
"""::ffff:0:0/96, where IPv4 addresses are kept."""

FRAGMENT: Final = np.dtype(
    [("src_low", "u8"), ("dst_low", "u8"), ("key", "i8"), ("src_port", "u2"), ("dst_port", "u2")], align=True
)
"""Ports of the first fragment of a datagram, for those that follow it."""

LINKS: Final = frozenset({0, 1, 12, 14, 101, 108, 113, 228, 229, 276})
"""Link types that can be read: NULL, Ethernet, RAW (three numbers), LOOP, Linux SLL, IPv4, IPv6, Linux SLL2."""


@compiled
def decode(octets: Octets, packets: Records, fragments: Records) -> int:
    """Fill in what the captured bytes say, packet by packet; returns how many carry PCAPdroid's mark."""
    marked = 0
    for i in range(len(packets)):
        packet = packets[i]
        if packet.label_at == -1:
            marked += 1
        packet.label_at = 0
        packet.group = 0
        packet.packets = 1
        if packet.fault:
            continue
        if packet.link == 1 and take_trailer(octets, packet):
            marked += 1
        at = network_layer(octets, packet)
        if at < 0:
            packet.fault = -at
            continue
        packet.fault = network(octets, at, packet, fragments)
    return marked


@compiled
def take_trailer(octets: Octets, packet: Record) -> bool:
    """Cut PCAPdroid's trailer off: zero Ethernet addresses, and its magic 32 bytes before the end."""
    if packet.end - packet.data < 14 + 20 + TRAILER_BYTES or packet.end > len(octets):
        return False
    for i in range(packet.data, packet.data + 12):
        if octets[i]:
            return False
    at = packet.end - TRAILER_BYTES
    if word(octets, at, 1) != _TRAILER_MAGIC:
        return False
    packet.uid = np.int32(np.uint32(word(octets, at + 4, 1)))
    packet.label_at = at + 8 - packet.data
    packet.end = at
    packet.original -= TRAILER_BYTES
    return True


@compiled
def network_layer(octets: Octets, packet: Record) -> int:
    """Where the IP header begins; else the negative Fault."""
    at, end, link = packet.data, packet.end, packet.link
    if link in (12, 14, 101, 228, 229):
        return at
    if link in (0, 108):
        if at + 4 > end:
            return -Fault.CUT_LINK
        family = max(octets[at], octets[at + 3])
        # 2 is AF_INET everywhere; AF_INET6 is 10, 24, 28 or 30 by system. Byte order is the writer's.
        return at + 4 if family in (2, 10, 24, 28, 30) else -Fault.NOT_IP
    if link == 1:
        at, kind_at = at + 14, at + 12
    elif link == 113:
        at, kind_at = at + 16, at + 14
    elif link == 276:
        at, kind_at = at + 20, at
    else:
        return -Fault.UNKNOWN_LINK
    if at > end:
        return -Fault.CUT_LINK
    if link == 1:
        packet.group = octets[packet.data] & 1
    else:
        packet.group = (octets[packet.data + (1 if link == 113 else 10)]) in (1, 2)
    kind = half(octets, kind_at, 1)
    for _ in range(4):
        if kind not in (0x8100, 0x88A8, 0x9100):
            break
        if at + 4 > end:
            return -Fault.CUT_LINK
        kind = half(octets, at + 2, 1)
        at += 4
    return at if kind in (0x0800, 0x86DD) else -Fault.NOT_IP


@compiled
def network(octets: Octets, at: int, packet: Record, fragments: Records) -> int:
    """IP header at `at`; returns a Fault."""
    if at >= packet.end:
        return Fault.CUT_IP
    version = octets[at] >> 4
    if version == 4:
        return network_4(octets, at, packet, fragments)
    if version == 6:
        return network_6(octets, at, packet, fragments)
    return Fault.BAD_IP


@compiled
def network_4(octets: Octets, at: int, packet: Record, fragments: Records) -> int:
    """RFC 791. A total length of zero is segmentation offload's: the length on the wire stands in."""
    if at + 20 > packet.end:
        return Fault.CUT_IP
    header = (octets[at] & 15) * 4
    total = half(octets, at + 2, 1)
    if total == 0:
        total = packet.original - (at - packet.data)
    if header < 20 or total < header:
        return Fault.BAD_IP
    packet.wire_bytes = total
    packet.protocol = octets[at + 9]
    packet.src_high = packet.dst_high = np.uint64(0)
    packet.src_low = np.uint64(word(octets, at + 12, 1)) | np.uint64(_MAPPED)
    packet.dst_low = np.uint64(word(octets, at + 16, 1)) | np.uint64(_MAPPED)
    slice_of = half(octets, at + 6, 1)
    more, behind = slice_of & 0x2000, slice_of & 0x1FFF
    return transport(octets, at + header, total - header, packet, fragments, more, behind, half(octets, at + 4, 1))


@compiled
def network_6(octets: Octets, at: int, packet: Record, fragments: Records) -> int:
    """RFC 8200, with its extension headers."""
    if at + 40 > packet.end:
        return Fault.CUT_IP
    length = half(octets, at + 4, 1)
    if length == 0:
        length = max(packet.original - (at - packet.data) - 40, 0)
    packet.wire_bytes = 40 + length
    packet.src_high = np.uint64(word(octets, at + 8, 1)) << np.uint64(32) | np.uint64(word(octets, at + 12, 1))
    packet.src_low = np.uint64(word(octets, at + 16, 1)) << np.uint64(32) | np.uint64(word(octets, at + 20, 1))
    packet.dst_high = np.uint64(word(octets, at + 24, 1)) << np.uint64(32) | np.uint64(word(octets, at + 28, 1))
    packet.dst_low = np.uint64(word(octets, at + 32, 1)) << np.uint64(32) | np.uint64(word(octets, at + 36, 1))
    following = octets[at + 6]
    at, rest = at + 40, length
    more = behind = identity = 0
    for _ in range(8):
        if following not in (0, 43, 44, 51, 60):
            break
        if at + 8 > packet.end:
            return Fault.CUT_IP
        size = 8 if following == 44 else (octets[at + 1] + 2) * 4 if following == 51 else (octets[at + 1] + 1) * 8
        if following == 44:
            more, behind, identity = octets[at + 3] & 1, half(octets, at + 2, 1) >> 3, word(octets, at + 4, 1)
        following = octets[at]
        at, rest = at + size, rest - size
        if rest < 0:
            return Fault.BAD_IP
        if behind:
            break
    packet.protocol = following
    return transport(octets, at, rest, packet, fragments, more, behind, identity)


@compiled
def transport(
    octets: Octets, at: int, length: int, packet: Record, fragments: Records, more: int, behind: int, identity: int
) -> int:
    """Transport header of `length` IP payload bytes at `at`; returns a Fault. Other protocols have no ports."""
    packet.src_port = packet.dst_port = 0
    packet.flags = 0
    packet.payload = min(at, packet.end)
    packet.payload_bytes = length
    if packet.protocol not in (TCP, UDP):
        return Fault.NONE
    if behind:
        recall_ports(packet, fragments, identity)
        return Fault.NONE
    header = 8
    if packet.protocol == TCP:
        if at + 14 > packet.end:
            return Fault.CUT_TRANSPORT
        header = (octets[at + 12] >> 4) * 4
        packet.flags = octets[at + 13]
        packet.sequence = np.uint32(word(octets, at + 4, 1))
        packet.acknowledged = np.uint32(word(octets, at + 8, 1))
        if header < 20:
            return Fault.BAD_TRANSPORT
    elif at + 4 > packet.end:
        return Fault.CUT_TRANSPORT
    if header > length:
        return Fault.BAD_TRANSPORT
    packet.src_port = half(octets, at, 1)
    packet.dst_port = half(octets, at + 2, 1)
    packet.payload = min(at + header, packet.end)
    packet.payload_bytes = length - header
    if more:
        keep_ports(packet, fragments, identity)
    return Fault.NONE


@compiled
def fragment_key(packet: Record, identity: int) -> int:
    """Identify a fragmented datagram, together with its addresses."""
    return (identity << 8) | np.int64(packet.protocol) | (np.int64(1) << 48)


@compiled
def keep_ports(packet: Record, fragments: Records, identity: int) -> None:
    """Remember a first fragment's ports; a newer datagram overwrites an older one in the same place."""
    entry = fragments[identity % len(fragments)]
    entry.src_low = packet.src_low
    entry.dst_low = packet.dst_low
    entry.key = fragment_key(packet, identity)
    entry.src_port = packet.src_port
    entry.dst_port = packet.dst_port


@compiled
def recall_ports(packet: Record, fragments: Records, identity: int) -> None:
    """Ports of a later fragment; zero where the first was not seen. Its TCP flags and sequence are unknown."""
    entry = fragments[identity % len(fragments)]
    if (
        entry.key == fragment_key(packet, identity)
        and entry.src_low == packet.src_low
        and entry.dst_low == packet.dst_low
    ):
        packet.src_port = entry.src_port
        packet.dst_port = entry.dst_port
