"""The magic numbers by which captures are known: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng."""

from __future__ import annotations

from typing import Final

CLASSIC: Final = {
    b"\xa1\xb2\xc3\xd4": (1, 1),
    b"\xd4\xc3\xb2\xa1": (0, 1),
    b"\xa1\xb2\x3c\x4d": (1, 1000),
    b"\x4d\x3c\xb2\xa1": (0, 1000),
}
"""Magic of a classic file: (big-endian, units of the fraction in a microsecond)."""
SECTION: Final = b"\x0a\x0d\x0d\x0a"
"""A pcapng section's block type, alike in both byte orders."""
ORDERS: Final = {b"\x1a\x2b\x3c\x4d": 1, b"\x4d\x3c\x2b\x1a": 0}
"""Byte-order magic of a section: big-endian."""


def is_capture(content: bytes) -> bool:
    """Whether `content` begins as a pcap or pcapng file."""
    return content[:4] in CLASSIC or (content[:4] == SECTION and content[8:12] in ORDERS)
