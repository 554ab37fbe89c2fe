"""NetFlow v5, v9 and IPFIX as exported: messages one after the other in a file (RFC 5655's layout for IPFIX).

Formats: Cisco's NetFlow v5 datagram, RFC 3954 (v9), RFC 7011 (IPFIX), RFC 5103 (both directions in one record). Records
are decoded template by template, many at once. Of IPFIX times, those that count from the exporter's start need its
systemInitTimeMilliseconds. A record is numbered by its order in the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

import polars as pl

from relaywatch.model.errors import SourceError
from relaywatch.model.tables import Batch
from relaywatch.sources.flow_pairs import FlowPairs
from relaywatch.sources.netflow_fields import VARIABLE, Field, Template, Waiting, without_variable
from relaywatch.sources.reading import Head, Reading
from relaywatch.sources.translations import TranslationLog

SKEW_BOUND_S: Final = 1.0
"""An exporter's clock under NTP; uptime counts milliseconds."""
BLOCK_BYTES: Final = 1 << 20
TOGETHER: Final = 100_000
"""Records that are decoded together."""
MOST_TEMPLATES: Final = 4_096
MOST_FIELDS: Final = 512
_YEAR_2000: Final = 946_684_800
_V5: Final = Template(
    [
        Field(8, 4), Field(12, 4), Field(15, 4), Field(10, 2), Field(14, 2), Field(2, 4), Field(1, 4), Field(22, 4),
        Field(21, 4), Field(7, 2), Field(11, 2), Field(210, 1), Field(6, 1), Field(4, 1), Field(5, 1), Field(16, 2),
        Field(17, 2), Field(9, 1), Field(13, 1), Field(210, 2),
    ]
)  # fmt: skip
_V5_RECORDS: Final = 30
_HEADERS: Final = {5: 24, 9: 20, 10: 16}


class NetflowExport:
    """A file of messages. Exporters are told apart by their domain only; the file does not hold their addresses."""

    name: ClassVar[str] = "netflow-export"

    @staticmethod
    def fits(head: Head) -> bool:
        """A message header of version 5, 9 or 10 with a time of this century, and a set after it."""
        start = head.content[:24]
        if len(start) < 20 or start[0]:
            return False
        version, second, third, fourth = struct.unpack_from(">HHII", start)
        if version == 5:
            return 0 < second <= _V5_RECORDS and fourth >= _YEAR_2000 and len(start) == 24
        if version == 9:
            named = int.from_bytes(start[20:22])
            return second > 0 and fourth >= _YEAR_2000 and (named in (0, 1) or named >= 256)
        named = int.from_bytes(start[16:18])
        return version == 10 and second >= 20 and third >= _YEAR_2000 and (named in (2, 3) or named >= 256)

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Flows as they are complete, then what was watched; of a damaged file those before the damage."""
        messages, pairs = _Messages(path, reading), FlowPairs(path, reading, SKEW_BOUND_S, place="record")
        log = TranslationLog(path, reading, SKEW_BOUND_S, place="record")
        damage: SourceError | None = None
        rest = b""
        while damage is None:
            try:
                data = stream.read(BLOCK_BYTES)
                rest = messages.take(rest + data)
                if not data and rest:
                    raise SourceError(path, "cut off within a message.", position=messages.place())  # noqa: TRY301
            except SourceError as error:
                damage, data = error, b""
            if not data or messages.waiting >= TOGETHER:
                for template, waiting in messages.taken():
                    if template.translating:
                        yield from log.batches(_events(waiting, template, reading))
                    else:
                        yield from pairs.batches(waiting.columns(template))
            if not data:
                break
        yield from pairs.rest()
        yield from log.rest()
        if damage is not None:
            raise damage


def _events(waiting: Waiting, template: Template, reading: Reading) -> pl.DataFrame:
    """The begins and ends of translations; other events are left."""
    events = waiting.events(template)
    reading.tally.left("an event that is no translation's begin or end", int((~events["told"]).sum()))
    return events.filter("told")


class _Messages:
    """Takes messages apart into records that wait by their template."""

    def __init__(self, path: Path, reading: Reading) -> None:
        self._path, self._reading = path, reading
        self._templates: dict[tuple[int, int, int], Template] = {}
        self._rates: dict[tuple[int, int], int] = {}
        self._found: dict[Template, Waiting] = {}
        self._version = self._domain = self._left = 0
        self._export_ms, self._uptime = 0, -1
        self._records = 0
        self.waiting = 0

    def place(self) -> str:
        """Where reading stands."""
        return f"record {self._records + 1}"

    def taken(self) -> list[tuple[Template, Waiting]]:
        """The records that wait; none wait after."""
        found, self._found, self.waiting = list(self._found.items()), {}, 0
        return found

    def take(self, data: bytes) -> bytes:
        """Take in all whole messages and sets; returns what is left. Raises SourceError where no message begins."""
        at = 0
        while len(data) - at >= 4:
            name, size = struct.unpack_from(">HH", data, at)
            inside = self._left >= 4 if self._version == 10 else name not in _HEADERS
            if not inside:
                step = self._message(data, at, name, size)
            else:
                if size < 4 or self._version not in (9, 10) or (self._version == 10 and size > self._left):
                    raise SourceError(self._path, "damaged: a set of an impossible length.", position=self.place())
                step = size if at + size <= len(data) else 0
                if step:
                    self._set(name, data[at + 4 : at + size])
                    self._left -= size
            if not step:
                break
            at += step
        return data[at:]

    def _message(self, data: bytes, at: int, version: int, size: int) -> int:
        """A message's header, and all of it in version 5: how many bytes; 0 where more are needed."""
        if version not in _HEADERS or (version == 5 and size > _V5_RECORDS) or (version == 10 and size < 16):
            raise SourceError(self._path, "damaged: no message where one should begin.", position=self.place())
        length = _HEADERS[version] + (48 * size if version == 5 else 0)
        if at + length > len(data):
            return 0
        self._version, self._left = version, size - 16 if version == 10 else 0
        if version == 10:
            seconds, _, self._domain = struct.unpack_from(">III", data, at + 4)
            self._export_ms, self._uptime = seconds * 1000, -1
            return length + (self._left if self._left < 4 and at + size <= len(data) else 0)
        self._uptime, seconds, nanoseconds, self._domain = struct.unpack_from(">IIII", data, at + 4)
        self._export_ms = seconds * 1000
        if version == 9:
            self._domain = int.from_bytes(data[at + 16 : at + 20])
            return length
        self._export_ms += nanoseconds // 1_000_000
        self._domain = int.from_bytes(data[at + 20 : at + 22])
        rate = int.from_bytes(data[at + 22 : at + 24]) & 0x3FFF
        if size:
            self._keep(_V5, data[at + 24 : at + length], size, rate)
        return length

    def _set(self, name: int, content: bytes) -> None:
        first = 0 if self._version == 9 else 2
        if name == first:
            self._learn(content, options=False)
        elif name == first + 1:
            self._learn(content, options=True)
        elif name >= 256:
            self._data(name, content)
        else:
            self._damaged(f"a set of the reserved number {name}")

    def _damaged(self, reason: str) -> None:
        self._records += 1
        self._reading.tally.met(1)
        self._reading.quarantine.add(str(self._path), f"record {self._records}", reason)

    def _learn(self, content: bytes, *, options: bool) -> None:
        """Templates of a set; one without fields withdraws, one that is cut off is damage."""
        at, least = 0, 6 if options else 4
        while len(content) - at >= 4:
            name, count = struct.unpack_from(">HH", content, at)
            if name < 256 and not (count == 0 and name in (2, 3)):
                return  # padding
            if self._version == 10 and count == 0:
                self._withdraw(name)
                at += 4
                continue
            if len(content) - at < least:
                return
            if options and self._version == 9:
                count = (count + int.from_bytes(content[at + 4 : at + 6])) // 4
            found, at = self._fields(content, at + least, count)
            template = Template(found, options) if found else None
            if template is None or (not template.length and not template.variable):
                self._damaged("a damaged template")
                return
            if len(self._templates) >= MOST_TEMPLATES:
                del self._templates[next(iter(self._templates))]
            self._templates[self._version, self._domain, name] = template

    def _withdraw(self, name: int) -> None:
        own = [key for key in self._templates if key[:2] == (10, self._domain) and name in (2, 3, key[2])]
        for key in own:
            if name >= 256 or self._templates[key].options == (name == 3):
                del self._templates[key]

    def _fields(self, content: bytes, at: int, count: int) -> tuple[list[Field], int]:
        """The fields of a template and where it ends; none where it is damaged."""
        found = []
        if count > MOST_FIELDS:
            return [], at
        for _ in range(count):
            if len(content) - at < 4:
                return [], at
            number, length = struct.unpack_from(">HH", content, at)
            at, enterprise = at + 4, 0
            if self._version == 10 and number & 0x8000:
                if len(content) - at < 4:
                    return [], at
                number, enterprise, at = number & 0x7FFF, int.from_bytes(content[at : at + 4]), at + 4
            if length == VARIABLE and self._version == 9:
                return [], at
            found.append(Field(number, length, enterprise))
        return found, at

    def _data(self, name: int, content: bytes) -> None:
        template = self._templates.get((self._version, self._domain, name))
        if template is None:
            self._damaged(
                f"records of template {name}, which was not told before; capture from the exporter's start on"
            )
            return
        if template.variable:
            content, count = without_variable(template, content)
        else:
            count = len(content) // template.length
            content = content[: count * template.length]
        if count and template.options:
            self._options(template, content, count)
        elif count and template.translating:
            self._keep(template, content, count, 0)
        elif count and not template.addressed:
            self._records += count
            self._reading.tally.met(count)
            self._reading.tally.left("a record that does not name both ends", count)
        elif count:
            self._keep(template, content, count, self._rates.get((self._version, self._domain), 0))

    def _options(self, template: Template, content: bytes, count: int) -> None:
        """What the exporter says of itself: of use is its sampling."""
        self._records += count
        self._reading.tally.met(count)
        self._reading.tally.left("options of an exporter", count)
        for number in (34, 50, 305):
            offset, length = template.at.get((0, number), (0, 0))
            if 0 < length <= 8:
                rate = int.from_bytes(content[offset : offset + length])
                space, size = template.at.get((0, 306), (0, 0))
                if number == 305 and size:
                    rate = (rate + int.from_bytes(content[space : space + size])) // max(rate, 1)
                if len(self._rates) < MOST_TEMPLATES and rate < 1 << 31:
                    self._rates[self._version, self._domain] = rate
                return

    def _keep(self, template: Template, content: bytes, count: int, rate: int) -> None:
        waiting = self._found.setdefault(template, Waiting())
        waiting.parts.append(content)
        waiting.counts.append(count)
        waiting.heads.append((self._records + 1, self._export_ms, self._uptime, self._domain, rate))
        self._records += count
        self.waiting += count
        self._reading.tally.met(count)
