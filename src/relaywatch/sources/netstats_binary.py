"""Android's own netstats files: bytes of each uid by bucket, in the background and in front, for weeks.

Format: AOSP NetworkStatsCollection version 16 with NetworkIdentitySet versions 1 to 8 and NetworkStatsHistory versions
1 to 3 (packages/modules/Connectivity), big-endian: "ANET", then sets of network identities, each with the histories of
its keys (uid, set, tag). On the phone: /data/misc/apexdata/com.android.tethering/netstats/uid.<start ms>-<end ms>,
before Android 13 /data/system/netstats/; uid_tag.* holds tagged parts of the same bytes, xt.* and dev.* interfaces.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

import polars as pl

from relaywatch.model.errors import SourceError
from relaywatch.model.tables import Batch
from relaywatch.sources.netstats_csv import bucket_volumes, sound_buckets
from relaywatch.sources.netstats_text import OTHER, TAGGED
from relaywatch.sources.reading import Head, Reading

MAGIC: Final = b"ANET"
VERSION: Final = 16
MOST_BYTES: Final = 32 << 20
"""Content of one file: a phone begins a new one every few days, of a few MB at the most."""
FILE_NAME: Final = re.compile(r"(?:uid|uid_tag|xt|dev)\.\d{1,20}-\d{0,20}", re.ASCII)
"""As FileRotator names its files; the one in use has no end."""
BUCKETS_AT_ONCE: Final = 50_000
MOST_BUCKETS: Final = 100_000
"""Buckets of one history: 20 years of two hours, where Android keeps some months."""
NEWEST_IDENTITY: Final = 8
NETWORK_ID: Final = 3
"""Version of network identities from which a network's name follows the subscriber's."""
_FIXED: Final = ((2, 1), (4, 1), (5, 1), (6, 4), (7, 4), (8, 8))
"""Version since which, and bytes: roaming, metered, default network, made by an OEM, subscription, transports."""
_ALL: Final = -1
_COLUMNS: Final = ("uid", "set", "tag", "start", "length", "rx_bytes", "rx_pkts", "tx_bytes", "tx_pkts")
_ON_THE_PHONE: Final = frozenset({"", "netstats", "com.android.tethering", "apexdata", "misc", "system", "data"})
_NEXT: Final = "What comes after it cannot be told apart."


class NetstatsBinary:
    """One file of buckets. The device is named by --device, the dump around it, or the folder that it was pulled to."""

    name: ClassVar[str] = "netstats-binary"

    @staticmethod
    def fits(head: Head) -> bool:
        """The magic word, and a version below 256."""
        return head.content.startswith(MAGIC + b"\x00\x00\x00")

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Volumes in file order; a bucket is a record. Damage of the structure costs what comes after it."""
        content, damage = _content(stream)
        if len(content) > MOST_BYTES:
            raise SourceError(path, f"larger than {MOST_BYTES} bytes, which no phone writes.")
        buckets = _Buckets(content, path, reading)
        try:
            for _ in buckets.histories():
                if buckets.held >= BUCKETS_AT_ONCE:
                    yield from buckets.taken()
        except (struct.error, IndexError):
            damage = damage or SourceError(path, "the file ends too early.", remedy="Copy the file again.")
        except _DamageError as error:
            damage = SourceError(path, f"{error}. {_NEXT}", position=f"byte {buckets.at}")
        yield from buckets.taken()
        if damage is not None:
            raise damage


class _DamageError(Exception):
    """The structure cannot be followed any further."""


def _content(stream: BinaryIO) -> tuple[bytes, SourceError | None]:
    """The content up to a byte more than is read, and the damage that ended it, if any."""
    parts, size = [], 0
    try:
        while size <= MOST_BYTES and (part := stream.read(MOST_BYTES + 1 - size)):
            parts.append(part)
            size += len(part)
    except SourceError as damage:
        return b"".join(parts), damage
    return b"".join(parts), None


class _Buckets:
    """The buckets of one file, history by history; at: the byte that is read next."""

    def __init__(self, content: bytes, path: Path, reading: Reading) -> None:
        self.at = len(MAGIC)
        self._content = content
        self._path = path
        self._reading = reading
        self._device = reading.device or _folder_of(path)
        self._columns: dict[str, list[int]] = {name: [] for name in _COLUMNS}
        self._given = 0

    @property
    def held(self) -> int:
        """Buckets that wait to be taken."""
        return len(self._columns["uid"])

    def histories(self) -> Iterator[None]:
        """Read on by one history at a time. Raises struct.error or IndexError at the end of a file that is cut."""
        version = self._int()
        if version != VERSION:
            raise _DamageError(f"a collection of version {version}, not {VERSION}")
        for _ in range(self._count()):
            self._identities()
            for _ in range(self._count()):
                self._history(self._int(), self._int(), self._int())
                yield

    def taken(self) -> Iterator[Batch]:
        """The held buckets as volumes: what is no whole uid's is left, what cannot be is put aside."""
        if not self.held:
            return
        reading = self._reading
        frame = pl.DataFrame(self._columns, schema=dict.fromkeys(_COLUMNS, pl.Int64))
        frame = frame.with_columns(pl.int_range(pl.len()).add(self._given + 1).alias("position"))
        self._given += frame.height
        self._columns = {name: [] for name in _COLUMNS}
        reading.tally.met(frame.height)
        whole = (pl.col("uid") == _ALL) | (pl.col("set") == _ALL)
        tagged = ~whole & (pl.col("tag") != 0)
        for reason, part in ((OTHER, whole), (TAGGED, tagged)):
            reading.tally.left(reason, int(frame.select(part.sum()).item()))
        kept = sound_buckets(frame.filter(~whole & ~tagged), 1_000, self._path, "bucket", reading.quarantine)
        if kept.height:
            found = [bucket_volumes(kept.with_columns(pl.lit(self._device).alias("device")), 1_000, "", self._path)]
            reading.tally.gave(found)
            yield from found

    def _int(self) -> int:
        (value,) = struct.unpack_from(">i", self._content, self.at)
        self.at += 4
        return int(value)

    def _count(self, most: int = MOST_BYTES) -> int:
        """How many follow: each is at least a byte."""
        count = self._int()
        if not 0 <= count <= min(len(self._content) - self.at, most):
            raise _DamageError(f"a count of {count}, which cannot be")
        return count

    def _identities(self) -> None:
        """Passes over a set of network identities: which networks the bytes went over, that no volume says."""
        begin, version = self.at, self._int()
        if not 1 <= version <= NEWEST_IDENTITY:
            raise _DamageError(f"network identities of version {version}, later than are known")
        fixed = sum(size for since, size in _FIXED if version >= since)
        sound = True
        for _ in range(self._count()):
            self.at += 8 if version > 1 else 12
            for _ in range(1 if version < NETWORK_ID else 2):
                sound &= self._text()
            self.at += fixed
        if not sound:
            self._aside(begin, "network identities whose text is no UTF-8; their buckets are read")

    def _text(self) -> bool:
        """Passes over an optional text; whether it is one (Java's modified UTF-8)."""
        self.at += 1
        if not self._content[self.at - 1]:
            return True
        (size,) = struct.unpack_from(">H", self._content, self.at)
        self.at += 2 + size
        try:
            self._content[self.at - size : self.at].replace(b"\xc0\x80", b"\x00").decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return False
        return True

    def _history(self, uid: int, kind: int, tag: int) -> None:
        """The buckets of one key."""
        begin, version = self.at, self._int()
        if not 1 <= version <= 3:
            raise _DamageError(f"a history of version {version}, later than are known")
        (length,) = struct.unpack_from(">q", self._content, self.at)
        self.at += 8
        numbers = self._longs if version == 1 else self._var_longs
        starts = numbers()
        if version >= 3:
            numbers()  # how long the radio was active
        received = numbers()
        received_packets = numbers() if version > 1 else [0] * len(starts)
        sent = numbers()
        sent_packets = numbers() if version > 1 else [0] * len(starts)
        if version > 1:
            numbers()  # operations, as apps count them
        counts = (received, received_packets, sent, sent_packets)
        if any(len(column) != len(starts) for column in counts):
            self._aside(begin, "a history whose columns are of unequal length")
            return
        who = ([value] * len(starts) for value in (uid, kind, tag))
        for name, column in zip(_COLUMNS, (*who, starts, [length] * len(starts), *counts), strict=True):
            self._columns[name] += column

    def _longs(self) -> list[int]:
        """An array of numbers of eight bytes."""
        count = self._count(MOST_BUCKETS)
        self.at += 8 * count
        return list(struct.unpack_from(f">{count}q", self._content, self.at - 8 * count))

    def _var_longs(self) -> list[int]:
        """An array of numbers of seven bits a byte, the lowest first; negative ones are -1."""
        values = []
        content, at = self._content, self.at + 4
        for _ in range(self._count(MOST_BUCKETS)):
            value = content[at] & 0x7F
            shift = 7
            while content[at] & 0x80:
                at += 1
                value |= (content[at] & 0x7F) << shift
                shift += 7
                if shift > 70:
                    self.at = at
                    raise _DamageError("a number of more than 64 bits")
            at += 1
            values.append(value if value < 1 << 63 else -1)
        self.at = at
        return values

    def _aside(self, at: int, reason: str) -> None:
        """A part of the file that counts as one damaged record."""
        self._reading.tally.met(1)
        self._reading.quarantine.add(str(self._path), f"byte {at}", reason)


def _folder_of(path: Path) -> str:
    """The folder that the file was pulled to, above the folders of the phone's own path; else the file's stem."""
    folders = (parent.name for parent in path.parents)
    return next((name for name in folders if name not in _ON_THE_PHONE), path.name.partition(".")[0])
