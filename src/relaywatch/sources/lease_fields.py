"""What the lease files of DHCP servers share: lines, addresses, times, and the MAC inside a DUID."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Final

from relaywatch.sources.columns import LAST_SECOND, canonical_address
from relaywatch.sources.context_feed import DamagedRecord
from relaywatch.sources.device_names import LONGEST_NAME, mac_address
from relaywatch.sources.lines import counted_blocks, shown
from relaywatch.sources.reading import Reading

SKEW_BOUND_S: Final = 5.0
"""A server's clock under NTP, and the second to which leases are written."""
_FIRST_SECOND: Final = 365 * 86_400
"""Clocks that were never set count from 1970."""


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
    address = _canonical(text) if len(text) <= LONGEST_NAME else None
    if address is None:
        raise DamagedRecord(f"{shown(text)} is no address")
    return address


@lru_cache(maxsize=1 << 15)
def _canonical(text: str) -> str | None:
    return canonical_address(text.strip())


def whole_number(record: Mapping[str, str], name: str) -> int:
    """A field of digits; raises DamagedRecord where it is none."""
    text = record.get(name) or ""
    if not re.fullmatch(r"\d{1,12}", text, re.ASCII):
        raise DamagedRecord(f"{name}: {shown(text)} is no number")
    return int(text)


def epoch_seconds(seconds: int | None) -> int | None:
    """Epoch seconds as microseconds; raises DamagedRecord where they are no time of this era."""
    if seconds is None:
        return None
    if not _FIRST_SECOND <= seconds < LAST_SECOND:
        raise DamagedRecord(f"{seconds} is no time")
    return seconds * 1_000_000
