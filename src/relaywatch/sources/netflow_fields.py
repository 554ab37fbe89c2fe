"""Records of one NetFlow or IPFIX template, many at once, as the columns that flow_pairs takes.

Numbers of fields: IANA's IPFIX registry, whose first hundred are NetFlow v9's (RFC 3954). Reverse counters: RFC 5103.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

REVERSE: Final = 29_305
"""Enterprise number of what the other direction counted."""
VARIABLE: Final = 65_535
MOST_COUNTED: Final = 1 << 42
"""No flow has more bytes or packets; scaled by the highest rate they still fit."""
HIGHEST_RATE: Final = 1 << 20
_LAST_MS: Final = 1 << 42
_NO_ADDRESS: Final = ".".join("0000")
"""What dual-stack templates fill the IPv4 field with in records of IPv6."""
_NTP_EPOCH_S: Final = 2_208_988_800
_SAMPLING: Final = (34, 50, 305, 306)
_BEGINS: Final = (1, 4, 10)
_ENDS: Final = (2, 5, 11)
"""natEvent (RFC 8158): a translation, session or binding of IPv4 was made, or taken down."""
_WANTED: Final = frozenset(
    {
        1,
        2,
        4,
        7,
        8,
        11,
        12,
        21,
        22,
        27,
        28,
        85,
        86,
        158,
        159,
        160,
        *range(225, 229),
        230,
        322,
        323,
        *range(150, 158),
        *_SAMPLING,
    }
)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a template: its number, its length in bytes (VARIABLE: each record says), its enterprise."""

    number: int
    length: int
    enterprise: int = 0


@dataclass(slots=True, eq=False)
class Template:
    """The fields of a record. scopes: how many of them, of options, say what the options are of."""

    fields: Sequence[Field]
    options: bool = False
    at: dict[tuple[int, int], tuple[int, int]] = field(init=False)
    length: int = field(init=False)

    def __post_init__(self) -> None:
        self.at, self.length = {}, 0
        for one in self.fields:
            if one.length == VARIABLE:
                continue
            if one.number in _WANTED and one.enterprise in (0, REVERSE):
                self.at[one.enterprise, one.number] = (self.length, one.length)
            self.length += one.length

    @property
    def variable(self) -> bool:
        """Whether records tell the length of a field."""
        return any(one.length == VARIABLE for one in self.fields)

    @property
    def addressed(self) -> bool:
        """Whether a record names both ends."""
        return bool({(0, 8), (0, 27)} & self.at.keys() and {(0, 12), (0, 28)} & self.at.keys())

    @property
    def translating(self) -> bool:
        """Whether a record is an event of a translation that names the source's both sides."""
        return {(0, number) for number in (4, 7, 8, 225, 227, 230)} <= self.at.keys()


def without_variable(template: Template, content: bytes) -> tuple[bytes, int]:
    """The records of a set without their variable fields, which hold nothing that is used, and how many they are.

    A last record that is cut off, as padding looks like, is not counted.
    """
    kept, at, count, least = [], 0, 0, sum(1 if f.length == VARIABLE else f.length for f in template.fields)
    while at + max(least, 1) <= len(content):
        parts = []
        for one in template.fields:
            if one.length != VARIABLE:
                parts.append(content[at : at + one.length])
                at += one.length
                continue
            size = content[at] if at < len(content) else 0
            at += 1
            if size == 255:
                size, at = int.from_bytes(content[at : at + 2]), at + 2
            at += size
        if at > len(content):
            break
        kept.append(b"".join(parts))
        count += 1
    return b"".join(kept), count


@dataclass(slots=True)
class Waiting:
    """Records of one template that wait to be decoded together, with their messages' header fields."""

    parts: list[bytes] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    heads: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    """Per part: number of the first record, export time (ms), uptime (ms; -1 none), domain, sampling (0 not known)."""

    def columns(self, template: Template) -> pl.DataFrame:
        """One row a direction of a record."""
        cells = _Cells(template, b"".join(self.parts))
        counts = np.array(self.counts)
        first, export_ms, uptime, domain, sampling = (
            np.repeat(column, counts) for column in np.array(self.heads, np.int64).T
        )
        begun = np.repeat(np.cumsum(counts) - counts, counts)
        begin, end = cells.times(export_ms, uptime)
        rate = cells.sampling()
        frame = pl.DataFrame(
            {
                "position": first + np.arange(len(first)) - begun,
                "time": begin,
                "end": end,
                "protocol": cells.number(4),
                "src_ip": cells.address(8, 27),
                "src_port": cells.number(7),
                "dst_ip": cells.address(12, 28),
                "dst_port": cells.number(11),
                "bytes": cells.either(1, 85),
                "packets": cells.either(2, 86),
                "exporter": pl.Series(domain).cast(pl.String),
                "sampling": pl.Series(sampling if rate is None else np.where(rate > 0, rate, sampling)),
                **cells.translated(),
            }
        ).with_columns(pl.when(pl.col("sampling").is_between(2, HIGHEST_RATE)).then("sampling"))
        back = (cells.either(1, 85, REVERSE), cells.either(2, 86, REVERSE))
        return frame if back[1] is None else _both_ways(frame, *back)

    def events(self, template: Template) -> pl.DataFrame:
        """One row an event of a translation: translations.EVENTS, and whether it is a begin or an end (`told`)."""
        cells = _Cells(template, b"".join(self.parts))
        counts = np.array(self.counts)
        first, export_ms, *_ = (np.repeat(column, counts) for column in np.array(self.heads, np.int64).T)
        begun = np.repeat(np.cumsum(counts) - counts, counts)
        event, outside = cells.ints(230), cells.translated()
        event = np.zeros(len(first), np.int64) if event is None else event
        return pl.DataFrame(
            {
                "position": first + np.arange(len(first)) - begun,
                "time": cells.event_time(export_ms),
                "opens": np.isin(event, _BEGINS),
                "told": np.isin(event, (*_BEGINS, *_ENDS)),
                "protocol": cells.number(4),
                "inside_ip": cells.address(8, 27),
                "inside_port": cells.number(7),
                "outside_ip": outside.get("src_xlt_ip"),
                "outside_port": outside.get("src_xlt_port"),
            }
        )


def _both_ways(frame: pl.DataFrame, octets: pl.Series | None, packets: pl.Series | None) -> pl.DataFrame:
    whats = ("ip", "port", "xlt_ip", "xlt_port") if "src_xlt_ip" in frame.columns else ("ip", "port")
    swapped = {f"{a}_{what}": f"{b}_{what}" for a, b in (("src", "dst"), ("dst", "src")) for what in whats}
    back = frame.with_columns(
        *(pl.col(old).alias(new) for new, old in swapped.items()),
        pl.Series("bytes", octets, pl.Int64) if octets is not None else pl.lit(None, pl.Int64).alias("bytes"),
        pl.Series("packets", packets, pl.Int64),
    )
    return pl.concat([frame, back.filter(pl.col("packets") > 0)], how="vertical_relaxed")


class _Cells:
    """The records of one template as a matrix of bytes."""

    __slots__ = ("_at", "_rows")

    def __init__(self, template: Template, content: bytes) -> None:
        self._at = template.at
        self._rows = np.frombuffer(content, np.uint8).reshape(-1, template.length)

    def ints(self, number: int, enterprise: int = 0) -> Ints | None:
        """An unsigned number of up to eight bytes; beyond 63 bits it comes out negative."""
        offset, length = self._at.get((enterprise, number), (0, 0))
        if not 0 < length <= 8:
            return None
        value = np.zeros(len(self._rows), np.int64)
        for octet in range(offset, offset + length):
            value = (value << 8) | self._rows[:, octet]
        return value

    def number(self, number: int, enterprise: int = 0) -> pl.Series | None:
        found = self.ints(number, enterprise)
        return None if found is None else pl.Series(found)

    def either(self, delta: int, total: int, enterprise: int = 0) -> pl.Series | None:
        """A count; one that cannot be comes out negative."""
        found = self.ints(delta, enterprise)
        found = self.ints(total, enterprise) if found is None else found
        return None if found is None else pl.Series(np.where(found <= MOST_COUNTED, found, -1))

    def address(self, v4: int, v6: int) -> pl.Series | None:
        """The address, of whichever family the record has."""
        found = self._text(v4, 4)
        if found is None:
            return self._text(v6, 16)
        six = self._text(v6, 16)
        if six is not None:
            found = pl.select(pl.when(found != _NO_ADDRESS).then(found).otherwise(six)).to_series()
        return found

    def translated(self) -> dict[str, pl.Series | None]:
        """The ends on a translator's other side; nothing where the template has none."""
        found = {"src_xlt_ip": self._text(225, 4), "dst_xlt_ip": self._text(226, 4)}
        if not any(one is not None for one in found.values()):
            return {}
        return found | {"src_xlt_port": self.number(227), "dst_xlt_port": self.number(228)}

    def _text(self, number: int, size: int) -> pl.Series | None:
        offset, length = self._at.get((0, number), (0, 0))
        if length != size:
            return None
        raw = np.ascontiguousarray(self._rows[:, offset : offset + size]).view(f"V{size}").ravel()
        distinct, which = np.unique(raw if size != 4 else raw.view(np.uint32), return_inverse=True)
        family = socket.AF_INET if size == 4 else socket.AF_INET6
        names = pl.Series([socket.inet_ntop(family, one.tobytes()) for one in distinct], dtype=pl.String)
        return names.gather(pl.Series(which.astype(np.uint32)))

    def sampling(self) -> Ints | None:
        """One of so many packets was counted."""
        for number in (34, 50):
            if (found := self.ints(number)) is not None:
                return found
        counted, space = self.ints(305), self.ints(306)
        if counted is None:
            return None
        return counted if space is None else (counted + space) // np.maximum(counted, 1)

    def times(self, export_ms: Ints, uptime: Ints) -> tuple[pl.Series | None, pl.Series | None]:
        """First and last packet, us since epoch."""
        began, ended = (self._time(which, export_ms, uptime) for which in (0, 1))
        return began, began if ended is None else ended

    def event_time(self, export_ms: Ints) -> Ints:
        """When an event was, us since epoch: as it says, else when it was exported."""
        for number, scale in ((323, 1000), (322, 1_000_000)):
            if (found := self.ints(number)) is not None:
                return np.where((found >= 0) & (found < _LAST_MS), found * scale, -1)
        return export_ms * 1000

    def _time(self, which: int, export_ms: Ints, uptime: Ints) -> pl.Series | None:
        for number, scale in ((152, 1000), (150, 1_000_000)):
            if (found := self.ints(number + which)) is not None:
                return pl.Series(np.where((found >= 0) & (found < _LAST_MS), found * scale, -1)).replace(-1, None)
        for number in (154, 156):
            if (found := self.ints(number + which)) is not None:
                seconds, fraction = (found >> 32) & 0xFFFFFFFF, found & 0xFFFFFFFF
                return pl.Series((seconds - _NTP_EPOCH_S) * 1_000_000 + (fraction * 1_000_000 >> 32))
        if (found := self.ints(158 + which)) is not None:
            return pl.Series(export_ms * 1000 - (found & 0xFFFFFFFF))  # microseconds before the export
        since = self.ints(22 - which)
        if since is None:
            return None
        if (boot := self.ints(160)) is not None:
            return pl.Series(np.where((boot >= 0) & (boot < _LAST_MS), (boot + since) * 1000, -1)).replace(-1, None)
        # the uptime is of 32 bits: it starts again after 49 days
        age = ((uptime - since + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
        return pl.Series(np.where(uptime >= 0, (export_ms - age) * 1000, -1)).replace(-1, None)
