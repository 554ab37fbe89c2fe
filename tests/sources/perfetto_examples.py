"""Makes small Perfetto traces, field by field, and reads them."""

from __future__ import annotations

from pathlib import Path

from mutations import assert_accounted, read_path

INGRESS, EGRESS = 1, 2
SYN, SYN_ACK, ACK, PUSH, FIN, RST = 2, 18, 16, 24, 17, 4
BOOT_NS = 1_000_000_000_000
REAL_NS = 1_767_225_600_000_000_000
CLEARED, NEEDED = 1, 2


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def packet(content: bytes, writer: int = 3) -> bytes:
    return message(1, content + number(10, writer))


def at(seconds: float) -> bytes:
    """The packet's timestamp: seconds after the clock snapshot."""
    return number(8, BOOT_NS + round(seconds * 1e9))


def clocks(*, boot: int = BOOT_NS, real: int = REAL_NS, **more: int) -> bytes:
    readings = {6: boot, 1: real} | {int(name[1:]): value for name, value in more.items()}
    return packet(message(6, b"".join(message(1, number(1, k) + number(2, v)) for k, v in readings.items())), 1)


def packages(**uids: int) -> bytes:
    listed = (message(1, message(1, name.replace("_", ".").encode()) + number(2, uid)) for name, uid in uids.items())
    return packet(message(47, b"".join(listed)), 2)


def event(
    direction: int,
    flags: int = 0,
    *,
    local: int = 40_000,
    remote: int = 443,
    uid: int = 10_123,
    protocol: int = 6,
    interface: bytes = b"wlan0",
) -> bytes:
    numbers = ((1, direction), (4, uid), (6, protocol), (7, flags), (8, local), (9, remote))
    return b"".join(number(*entry) for entry in numbers) + message(2, interface)


def single(seconds: float, length: int, content: bytes, **more: int) -> bytes:
    return packet(at(seconds) + message(88, content + number(3, length)), **more)


def bundle(
    seconds: float, named: bytes, times: list[int], lengths: list[int], before: bytes = b"", writer: int = 3
) -> bytes:
    """named: an iid or a context; times in ns."""
    lists = message(3, b"".join(map(varint, times))) + message(4, b"".join(map(varint, lengths)))
    return packet(at(seconds) + before + message(92, named + lists), writer)


def totals(seconds: float, named: bytes, packets: int, length: int, duration: int, before: bytes = b"") -> bytes:
    counts = number(5, packets) + number(6, duration) + number(7, length)
    return packet(at(seconds) + before + message(92, named + counts))


def intern(iid: int, context: bytes) -> bytes:
    return message(12, message(30, number(1, iid) + message(2, context)))


def accepted(
    start: float = 1.0, *, local: int = 8080, remote: int = 50_000, uid: int = 10_123, bare: int = 52
) -> list[bytes]:
    """A session that the phone accepted: 500 bytes in, 1400 out; the answer and the last packet have no socket."""
    steps = [
        (INGRESS, SYN, bare + 8, uid), (EGRESS, SYN_ACK, bare + 8, 0), (INGRESS, ACK, bare, uid),
        (INGRESS, PUSH, bare + 500, uid), (EGRESS, PUSH, bare + 1400, uid), (EGRESS, FIN, bare, uid),
        (INGRESS, FIN, bare, uid), (EGRESS, ACK, bare, 0),
    ]  # fmt: skip
    return [
        single(start + 0.001 * i, length, event(way, flags, local=local, remote=remote, uid=owner))
        for i, (way, flags, length, owner) in enumerate(steps)
    ]


def read(folder: Path, content: bytes, name: str = "pixel.perfetto-trace", device: str = ""):
    """Rows by table, quarantine and tally; every record is accounted for."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    batches, quarantine, tally, unknown = read_path(folder / name, device)
    assert not unknown
    assert_accounted(quarantine, tally)
    rows: dict[str, list[dict]] = {"flows": [], "volumes": [], "signals": [], "inventory": []}
    for part in batches:
        part.rows.validate(full=True)
        rows[part.table] += part.rows.to_pylist()
    return rows, quarantine, tally
