"""Capture files as packets: classic pcap (libpcap's savefile) and pcapng, from a stream that cannot seek.

Sources: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng; PCAPdroid's comment option and custom block as its
exporter writes them. Knows nothing of what the packets hold.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import numpy as np

from relaywatch.model.compilation import compiled
from relaywatch.model.errors import SourceError
from relaywatch.model.quarantine import Quarantine
from relaywatch.sources.capture_columns import PACKET, Fault, Integers, Octets, Record, Records
from relaywatch.sources.capture_magic import CLASSIC, ORDERS, SECTION

BUFFER_BYTES: Final = 1 << 24
PIECE_BYTES: Final = 1 << 18
LARGEST_BLOCK: Final = BUFFER_BYTES
LARGEST_CAPTURED: Final = 262_144
"""libpcap's MAXIMUM_SNAPLEN: a longer record means that the framing is lost."""
BATCH_PACKETS: Final = 65_536
INTERFACES: Final = 4_096
APPLICATIONS: Final = 65_536

NEED_MORE: Final = 0
FULL: Final = 1
LOST: Final = 2
METADATA: Final = 3

_SECTION_TYPE: Final = 0x0A0D0D0A
_PCAPDROID_PEN: Final = 62_652
_LATEST_US: Final = 253_402_300_799_000_000


class Application(NamedTuple):
    """One entry of PCAPdroid's uid map."""

    uid: int
    package: str
    label: str
    position: int


@dataclass(slots=True)
class Batch:
    """Packets found in the buffer; valid until the next batch is asked for.

    octets: the buffer that packets point into; first: number of the first packet in the file, from 1.
    """

    octets: Octets
    packets: Records
    first: int


@dataclass(slots=True)
class Frames:
    """Packets of one capture, in batches of bounded size.

    applications: PCAPdroid's uid map so far, by uid; pcapdroid: PCAPdroid wrote the file, as far as framing shows.
    read: packet records met, damaged ones included; aside: what went to quarantine besides packets.
    """

    path: Path
    stream: BinaryIO
    quarantine: Quarantine
    applications: dict[int, Application] = field(default_factory=dict)
    pcapdroid: bool = False
    read: int = 0
    aside: int = 0
    damage: SourceError | None = None
    _octets: Octets = field(default_factory=lambda: np.zeros(BUFFER_BYTES, np.uint8))
    _base: int = 0
    _at: int = 0
    _filled: int = 0
    _ended: bool = False

    def __iter__(self) -> Iterator[Batch]:
        """Batches until the end, or until the framing is lost. Raises SourceError where the file is no capture."""
        self._fill()
        magic = self._octets[:4].tobytes()
        walk = self._sections() if magic == SECTION else self._classic(magic)
        yield from walk

    def _fill(self) -> None:
        """Move what is left to the front, then read until the buffer is full or the stream ends."""
        left = self._filled - self._at
        self._octets[:left] = self._octets[self._at : self._filled].copy()
        self._base += self._at
        self._at, self._filled = 0, left
        while self._filled < BUFFER_BYTES and not self._ended:
            try:
                data = self.stream.read(min(BUFFER_BYTES - self._filled, PIECE_BYTES))
            except SourceError as damage:
                self.damage, data = damage, b""
            self._ended = not data
            self._octets[self._filled : self._filled + len(data)] = np.frombuffer(data, np.uint8)
            self._filled += len(data)

    def _classic(self, magic: bytes) -> Iterator[Batch]:
        header = self._octets[: min(24, self._filled)].tobytes()
        if magic not in CLASSIC:
            raise SourceError(self.path, "not a pcap or pcapng capture.", position="byte 0")
        if len(header) < 24:
            raise SourceError(self.path, "ends within the capture's file header.", position=f"byte {len(header)}")
        big, fraction = CLASSIC[magic]
        snaplen, link = struct.unpack(">II" if big else "<II", header[16:24])
        self._at = 24
        limit = min(LARGEST_CAPTURED, 2 * snaplen) if snaplen else LARGEST_CAPTURED
        packets = np.zeros(BATCH_PACKETS, PACKET)
        while True:
            self._at, count, status = walk_classic(
                self._octets, self._at, self._filled, big, fraction, link & 0xFFFF, limit, packets
            )
            yield from self._batch(packets, count)
            if status == LOST:
                length = int.from_bytes(
                    self._octets[self._at + 8 : self._at + 12].tobytes(), "big" if big else "little"
                )
                self._lose(f"record of {length} captured bytes, more than a capture can hold ({limit})")
                return
            if status == NEED_MORE and not self._more():
                return

    def _batch(self, packets: Records, count: int) -> Iterator[Batch]:
        if count:
            self.read += count
            yield Batch(self._octets, packets[:count], self.read - count + 1)

    def _more(self) -> bool:
        """Read on; at the end put what is left of the last record aside."""
        if not self._ended:
            self._fill()
            return True
        left = self._filled - self._at
        if left:
            self._lose(f"the capture ends within a record ({left} bytes of it are there)")
        return False

    def _lose(self, reason: str) -> None:
        self.put_aside(f"byte {self._base + self._at}", f"{reason}; nothing after it was read.")

    def put_aside(self, position: str, reason: str) -> None:
        """Put what is no packet to quarantine, and count it."""
        self.aside += 1
        self.quarantine.add(str(self.path), position, reason)

    def _sections(self) -> Iterator[Batch]:
        packets = np.zeros(BATCH_PACKETS, PACKET)
        interfaces = np.zeros((INTERFACES, 4), np.int64)
        section = np.zeros(3, np.int64)  # big-endian, interfaces, last time
        section[2] = -1
        while True:
            self._at, count, status = walk_blocks(self._octets, self._at, self._filled, section, interfaces, packets)
            yield from self._batch(packets, count)
            if status == LOST:
                self._lose("a block's length or byte order is not possible")
                return
            if status == METADATA:
                self._metadata(section, interfaces)
            if status == NEED_MORE and not self._more():
                return

    def _metadata(self, section: Integers, interfaces: Integers) -> None:
        """Take in the whole section, interface or custom block at hand."""
        head = self._octets[self._at : self._at + 12].tobytes()
        if head[:4] == SECTION:
            section[:] = ORDERS[head[8:12]], 0, -1
        mark = ">" if section[0] else "<"
        kind, length = struct.unpack(mark + "II", head[:8])
        content = self._octets[self._at + 8 : self._at + length - 4].tobytes()
        if kind == _SECTION_TYPE:
            self.pcapdroid |= any(
                value.startswith(b"PCAPdroid") for code, value in _options(content[16:], mark) if code == 4
            )
        elif kind == 1:
            self._interface(content, mark, section, interfaces)
        else:
            self._custom(content, mark)
        self._at += length

    def _interface(self, content: bytes, mark: str, section: Integers, interfaces: Integers) -> None:
        number = int(section[1])
        if len(content) < 8 or number >= INTERFACES:
            self.put_aside(f"byte {self._base + self._at}", "an interface description that cannot be used.")
            return
        link, _, snaplen = struct.unpack(mark + "HHI", content[:8])
        options = dict(_options(content[8:], mark))
        resolution = (options.get(9) or b"\x06")[0]
        units = 1 << min(resolution & 0x7F, 62) if resolution & 0x80 else 10 ** min(resolution, 18)
        offset = int.from_bytes(options.get(14, b"")[:8], "big" if section[0] else "little", signed=True)
        interfaces[number] = link, units, max(-_LATEST_US // 1_000_000, min(offset, _LATEST_US // 1_000_000)), snaplen
        section[1] += 1

    def _custom(self, content: bytes, mark: str) -> None:
        """PCAPdroid's uid map. Its widths of version and type are not published: the lengths inside decide."""
        if len(content) < 4 or struct.unpack(mark + "I", content[:4])[0] != _PCAPDROID_PEN:
            return
        self.pcapdroid = True
        for width in (2, 4, 8):
            body = content[4 + width :]
            if len(body) >= 6 and 0 <= len(body) - 6 - body[4] - body[5] < 4:
                uid = int(struct.unpack(mark + "i", body[:4])[0])
                names = body[6 : 6 + body[4] + body[5]]
                package, label = (part.decode("utf-8", "replace") for part in (names[: body[4]], names[body[4] :]))
                if len(self.applications) < APPLICATIONS:
                    self.applications.setdefault(uid, Application(uid, package, label, self.read + 1))
                return
        self.put_aside(f"byte {self._base + self._at}", "a PCAPdroid block whose lengths do not fit.")


def _options(content: bytes, mark: str) -> Iterator[tuple[int, bytes]]:
    """Split off the options of a pcapng block, up to the first that does not fit."""
    at = 0
    while at + 4 <= len(content):
        code, length = struct.unpack(mark + "HH", content[at : at + 4])
        if code == 0 or at + 4 + length > len(content):
            return
        yield code, content[at + 4 : at + 4 + length]
        at += 4 + (length + 3) // 4 * 4


@compiled
def word(octets: Octets, at: int, big: int) -> int:
    """Read the unsigned 32-bit number at `at`."""
    a, b, c, d = np.int64(octets[at]), np.int64(octets[at + 1]), np.int64(octets[at + 2]), np.int64(octets[at + 3])
    return (a << 24 | b << 16 | c << 8 | d) if big else (d << 24 | c << 16 | b << 8 | a)


@compiled
def half(octets: Octets, at: int, big: int) -> int:
    """Read the unsigned 16-bit number at `at`."""
    a, b = np.int64(octets[at]), np.int64(octets[at + 1])
    return (a << 8 | b) if big else (b << 8 | a)


@compiled
def walk_classic(
    octets: Octets, at: int, filled: int, big: int, fraction: int, link: int, limit: int, packets: Records
) -> tuple[int, int, int]:
    """Frame records from `at`: where the next begins, how many were put into `packets`, and why it stopped."""
    count = 0
    while count < len(packets):
        if at + 16 > filled:
            return at, count, NEED_MORE
        captured = word(octets, at + 8, big)
        if captured > limit:
            return at, count, LOST
        if at + 16 + captured > filled:
            return at, count, NEED_MORE
        packet = packets[count]
        packet.time = word(octets, at, big) * 1_000_000 + word(octets, at + 4, big) // fraction
        packet.data = at + 16
        packet.end = at + 16 + captured
        packet.original = word(octets, at + 12, big)
        packet.link = link
        packet.uid = -1
        packet.label_at = 0
        packet.heading = 0
        packet.fault = 0
        count += 1
        at += 16 + captured
    return at, count, FULL


@compiled
def walk_blocks(
    octets: Octets, at: int, filled: int, section: Integers, interfaces: Integers, packets: Records
) -> tuple[int, int, int]:
    """Blocks from `at`, as walk_classic; stops at a whole block that describes rather than holds packets."""
    count = 0
    while count < len(packets):
        if at + 12 > filled:
            return at, count, NEED_MORE
        big = section[0]
        kind = word(octets, at, big)
        if kind == _SECTION_TYPE:
            order = word(octets, at + 8, 1)
            if order not in (0x1A2B3C4D, 0x4D3C2B1A):
                return at, count, LOST
            big = 1 if order == 0x1A2B3C4D else 0
        length = word(octets, at + 4, big)
        if length < (28 if kind == _SECTION_TYPE else 12) or length % 4 or length > LARGEST_BLOCK:
            return at, count, LOST
        if at + length > filled:
            return at, count, NEED_MORE
        if word(octets, at + length - 4, big) != length:
            return at, count, LOST
        if kind in (_SECTION_TYPE, 1, 0x00000BAD, 0x40000BAD):
            return at, count, METADATA
        if kind in (2, 3, 6):
            read_block(octets, at, length, kind, section, interfaces, packets[count])
            count += 1
        at += length
    return at, count, FULL


@compiled
def read_block(
    octets: Octets, at: int, length: int, kind: int, section: Integers, interfaces: Integers, packet: Record
) -> None:
    """One packet block (2 obsolete, 3 simple, 6 enhanced) into `packet`."""
    big = section[0]
    packet.uid = -1
    packet.label_at = 0
    packet.heading = 0
    packet.fault = 0
    packet.time = 0
    packet.data = packet.end = at + (12 if kind == 3 else 28)
    packet.original = 0
    if length < (16 if kind == 3 else 32):
        packet.fault = Fault.BAD_BLOCK
        return
    interface = 0 if kind == 3 else (half(octets, at + 8, big) if kind == 2 else word(octets, at + 8, big))
    if interface >= section[1]:
        packet.fault = Fault.NO_INTERFACE
        return
    packet.link = interfaces[interface, 0]
    if kind == 3:
        packet.original = word(octets, at + 8, big)
        snaplen = interfaces[0, 3]
        captured = min(packet.original, length - 16)
        packet.end = packet.data + (min(captured, snaplen) if snaplen else captured)
    else:
        captured = word(octets, at + 20, big)
        packet.original = word(octets, at + 24, big)
        if captured > length - 32:
            packet.fault = Fault.BAD_BLOCK
            return
        packet.end = packet.data + captured
        ticks = np.uint64(word(octets, at + 12, big)) << np.uint64(32) | np.uint64(word(octets, at + 16, big))
        section[2] = microseconds(ticks, interfaces[interface, 1], interfaces[interface, 2])
        read_options(octets, packet.data + (captured + 3) // 4 * 4, at + length - 4, big, packet)
    packet.time = section[2]
    if packet.time < 0:
        packet.fault = Fault.NO_TIME


@compiled
def microseconds(ticks: np.uint64, units: int, offset: int) -> int:
    """Turn a pcapng timestamp into us since epoch; -1 outside 1970 to 9999."""
    seconds = np.int64(ticks // np.uint64(units))
    rest = np.int64(ticks % np.uint64(units))
    if seconds > 253_402_300_799 or seconds + offset < 0 or seconds + offset > 253_402_300_799:
        return -1
    # Beyond 2**43 units the product would not fit 64 bits; there a float is exact to the microsecond.
    part = rest * 1_000_000 // units if units < 8_796_093_022_208 else np.int64(rest / units * 1e6)
    return (seconds + offset) * 1_000_000 + part


@compiled
def read_options(octets: Octets, at: int, end: int, big: int, packet: Record) -> None:
    """Take in an enhanced packet's direction flags and PCAPdroid's comment u-<uid>."""
    while at + 4 <= end:
        code = half(octets, at, big)
        length = half(octets, at + 2, big)
        at += 4
        if code == 0 or at + length > end:
            return
        if code == 2 and length == 4:
            packet.heading = word(octets, at, big) & 3
        if code == 1 and 3 <= length <= 13 and octets[at] == 117 and octets[at + 1] == 45:
            packet.uid = decimal(octets, at + 2, at + length)
            packet.label_at = -1
        at += (length + 3) // 4 * 4


@compiled
def decimal(octets: Octets, at: int, end: int) -> int:
    """Read a uid in decimal digits; -1 where it is none."""
    value = 0
    for i in range(at, end):
        if octets[i] < 48 or octets[i] > 57:
            return -1
        value = value * 10 + np.int64(octets[i]) - 48
    return value if value <= 0x7FFFFFFF else -1
