"""What a sieve needs of a row, as twelve 64-bit numbers.

A sieve compares text and never shows it, so Spark hashes it before rows are moved: what goes through the shuffle and
to Python has one width, whatever the names.
"""

from __future__ import annotations

from typing import Final

WORDS: Final = (
    "device",
    "package",
    "uid_day",
    "source",
    "flow_id",
    "position",
    "start",
    "until",
    "bytes_out",
    "bytes_in",
    "remote",
    "marks",
)
"""Of a flow or a volume. device, package, source, remote: xxhash64 of the text, null as the empty text; uid_day: uid
above 32 bits, day since epoch below; start: us since epoch; until: a flow's end, us since epoch, or a volume's
duration, us; marks: from the lowest bit on 8 bits direction, 8 protocol, 16 local port, 16 remote port, then VOLUME,
UNFIT. Numbers not known are -1, ports 0, uids NO_UID."""
VOLUME: Final = 1 << 48
UNFIT: Final = 1 << 49
"""The row does not fit the schema: it is counted and left out."""
NO_PACKAGE: Final = -7444071767201028348
"""xxhash64 of the empty text, as Spark seeds it."""
