"""Flows as a router exports them: NetFlow v9 and IPFIX messages one after the other in a file.

Formats: RFC 3954 (v9), RFC 7011 with RFC 5655's file of messages (IPFIX). Synthetic: written of what the given rows
hold; file names say so. Each message is of one exporter (domain 0) and tells its templates anew.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

from relaywatch.model.tables import Batch
from relaywatch.outputs.telemetry.flow_records import one_directional

RECORDS: Final = 24
"""Records a message: as many as fit a datagram."""
LONGEST_MS: Final = 1 << 30
"""Times of a v9 message lie closer: its clock of 32 bits starts again after 49 days."""
LAST_S: Final = (1 << 32) - 1
"""The last second that a message's header can name."""
TCP_FLAGS: Final = 0x1B
"""SYN, FIN, PSH, ACK: the rows do not say."""
_ENDS: Final = {4: ((8, 4), (12, 4)), 6: ((27, 16), (28, 16))}
_COUNTED: Final = ((7, 2), (11, 2), (4, 1), (6, 1), (1, 8), (2, 8))
_V9_TIMES: Final = ((22, 4), (21, 4))
_IPFIX_TIMES: Final = ((152, 8), (153, 8))
_TEMPLATE_ID: Final = {4: 256, 6: 257}


class _Record(NamedTuple):
    """One direction: IP version, all fields before the times as bytes, first and last packet (ms since epoch)."""

    version: int
    content: bytes
    first: int
    last: int


def write_netflow_v9(batches: Iterable[Batch], folder: Path) -> list[Path]:
    """`synthetic-netflow-v9.bin`: two records a flow, one a direction; times to the millisecond."""
    short = (record for record in _records(batches) if record.last - record.first <= LONGEST_MS)
    return _written(folder / "synthetic-netflow-v9.bin", _v9(_messages(short)))


def write_ipfix(batches: Iterable[Batch], folder: Path) -> list[Path]:
    """`synthetic-flows.ipfix`: two records a flow, one a direction; times to the millisecond."""
    return _written(folder / "synthetic-flows.ipfix", _ipfix(_messages(_records(batches))))


def _written(path: Path, messages: Iterator[bytes]) -> list[Path]:
    first = next(messages, None)
    if first is None:
        return []
    with path.open("wb") as file:
        file.writelines(chain([first], messages))
    return [path]


def _records(batches: Iterable[Batch]) -> Iterator[_Record]:
    for flow, sender, receiver, start in one_directional(batches):
        source, destination = (ipaddress.ip_address(end.ip) for end in (sender, receiver))
        if source.version != destination.version or sender.wire is None or flow.end // 1_000_000 >= LAST_S:
            continue
        flags = TCP_FLAGS if flow.protocol == 6 else 0
        counts = (sender.wire, sender.packets or 0)
        counted = struct.pack(">HHBBQQ", sender.port, receiver.port, flow.protocol, flags, *counts)
        yield _Record(source.version, source.packed + destination.packed + counted, start // 1000, flow.end // 1000)


def _messages(records: Iterable[_Record]) -> Iterator[list[_Record]]:
    """The records in as many as a message holds."""
    held: list[_Record] = []
    for record in records:
        begun, ended = (min(r.first for r in (*held, record)), max(r.last for r in (*held, record)))
        if len(held) == RECORDS or (held and ended - begun > LONGEST_MS):
            yield held
            held = []
        held.append(record)
    if held:
        yield held


def _v9(messages: Iterable[list[_Record]]) -> Iterator[bytes]:
    """Messages that are exported in the second after their last packet, by a router that began with their first."""
    for number, records in enumerate(messages):
        began, seconds = min(record.first for record in records), _exported_s(records)
        data = _data(records, ">II", began)
        count = len(records) + len(_TEMPLATE_ID)
        header = struct.pack(">HHIIII", 9, count, seconds * 1000 - began, seconds, number & 0xFFFFFFFF, 0)
        yield header + _set(0, _templates(_V9_TIMES)) + data


def _ipfix(messages: Iterable[list[_Record]]) -> Iterator[bytes]:
    """Messages that are exported in the second after their last packet."""
    sent = 0
    for records in messages:
        content = _set(2, _templates(_IPFIX_TIMES)) + _data(records, ">QQ", 0)
        yield struct.pack(">HHIII", 10, 16 + len(content), _exported_s(records), sent & 0xFFFFFFFF, 0) + content
        sent += len(records)


def _exported_s(records: list[_Record]) -> int:
    return max(record.last for record in records) // 1000 + 1


def _data(records: list[_Record], form: str, began: int) -> bytes:
    """A set of records for each IP version that there are records of; their times as ms after `began`."""
    parts: dict[int, list[bytes]] = {version: [] for version in _TEMPLATE_ID}
    for record in records:
        times = struct.pack(form, record.first - began, record.last - began)
        parts[record.version].append(record.content + times)
    return b"".join(_set(_TEMPLATE_ID[version], b"".join(own)) for version, own in parts.items() if own)


def _templates(times: Iterable[tuple[int, int]]) -> bytes:
    """The templates of both IP versions, field by field."""
    told = []
    for version, name in _TEMPLATE_ID.items():
        fields = [*_ENDS[version], *_COUNTED, *times]
        told.append(struct.pack(">HH", name, len(fields)) + b"".join(struct.pack(">HH", *field) for field in fields))
    return b"".join(told)


def _set(name: int, content: bytes) -> bytes:
    """A set, padded to whole words."""
    padding = -len(content) % 4
    return struct.pack(">HH", name, 4 + len(content) + padding) + content + bytes(padding)
