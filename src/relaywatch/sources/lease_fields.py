"""What the lease files of DHCP servers share: lines, addresses, times, and the MAC inside a DUID."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from relaywatch.sources.columns import canonical_address
from relaywatch.sources.context_feed import DamagedRecord
from relaywatch.sources.device_names import instant, mac_address
from relaywatch.sources.lines import counted_blocks, shown
from relaywatch.sources.reading import Reading

SKEW_BOUND_S: Final = 5.0
"""A server's clock under NTP, and the second to which leases are written."""


def mac_of_duid(text: object) -> str | None:
    """The MAC within a DHCPv6 DUID of type LLT or LL over Ethernet (RFC 8415); None where it holds none."""
    digits = re.sub(r"[:\-\s]", "", str(text or "")).lower()
    for begin, length in (("00010001", 28), ("00030001", 20)):
        if digits.startswith(begin) and len(digits) == length:
            return mac_address(digits[-12:])
    return None


def numbered_lines(path: Path, stream: BinaryIO, reading: Reading) -> Iterator[tuple[int, str]]:
    """Each line that is not empty, with its number; counts those put aside for their length."""
    for block in counted_blocks(stream, path, reading):
        for number, line in block.lines():
            if line.strip():
                yield number, line.decode("utf-8", "replace")


def leased_address(text: str) -> str:
    """The address in canonical form; raises DamagedRecord where it is none."""
    address = canonical_address(text.strip())
    if address is None:
        raise DamagedRecord(f"{shown(text)} is no address")
    return address


def whole_number(record: Mapping[str, str], name: str) -> int:
    """A field of digits; raises DamagedRecord where it is none."""
    text = record.get(name) or ""
    if not re.fullmatch(r"\d{1,12}", text, re.ASCII):
        raise DamagedRecord(f"{name}: {shown(text)} is no number")
    return int(text)


def epoch_seconds(seconds: int | None) -> int | None:
    """Epoch seconds as microseconds; raises DamagedRecord where they are no time."""
    if seconds is None:
        return None
    at = instant(str(seconds).zfill(9)) if seconds >= 0 else None
    if at is None:
        raise DamagedRecord(f"{seconds} is no time")
    return at.us
