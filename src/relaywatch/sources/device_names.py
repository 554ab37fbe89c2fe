"""Names and times of devices as products and people write them, in the form that the canonical tables keep."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Final, NamedTuple

from relaywatch.sources.columns import LAST_SECOND

UNZONED_S: Final = 14 * 3600.0
"""How far a time without a zone can be from UTC: offsets reach +14:00."""

LONGEST_NAME: Final = 64
"""No MAC or IP address is written in more characters."""

_NOTHING: Final = frozenset(
    {"", "0", "-", "n/a", "na", "none", "null", "<null>", "unknown", "undefined", "not available", "unavailable"}
)
"""What products write where they know no value."""
_NO_MAC: Final = frozenset({"000000000000", "020000000000"})
"""All zero, and what Android shows in place of its own MAC."""
_HOST: Final = re.compile(r"[^\s/@\x00-\x1f\x7f]{1,253}")
_ISO: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?\s*(Z|UTC|[+-]\d\d:?\d\d)?", re.ASCII
)
_AMERICAN: Final = re.compile(
    r"(\d{1,2})/(\d{1,2})/(\d{4}|\d\d)(?:[ ,T]+(\d{1,2}):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(?: ?([AaPp])[Mm])?)?",
    re.ASCII,
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Instant(NamedTuple):
    """Microseconds since the epoch, and whether the text named its zone (else it is taken as UTC)."""

    us: int
    zoned: bool


def said(value: object) -> str | None:
    """The value as text without outer white space; None where it only says that there is none."""
    if value is None:
        return None
    text = str(value).strip()
    return None if text.lower() in _NOTHING else text


def mac_address(value: object) -> str | None:
    """A MAC in lower case with colons, however it is grouped; None where it is none, or only a placeholder."""
    text = str(value) if value is not None else ""
    return _mac(text) if 12 <= len(text) <= LONGEST_NAME else None


@lru_cache(maxsize=1 << 15)
def _mac(text: str) -> str | None:
    digits = re.sub(r"[:.\-\s]", "", text)
    if not re.fullmatch(r"[0-9A-Fa-f]{12}", digits) or digits in _NO_MAC:
        return None
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2)).lower()


def host_name(value: object) -> str | None:
    """A device's name on the network: lower case, no final dot; None where it cannot be one."""
    text = said(value)
    if text is None or not _HOST.fullmatch(text := text.lower().rstrip(".")):
        return None
    return text


def imei(value: object) -> str | None:
    """The 14 to 16 digits of an IMEI, without separators; None where it is none."""
    digits = re.sub(r"[\s/-]", "", str(value)) if value is not None else ""
    return digits if re.fullmatch(r"\d{14,16}", digits, re.ASCII) and digits.strip("0") else None


def instant(value: object) -> Instant | None:
    """A time: ISO 8601, epoch seconds, milliseconds or microseconds, or month/day/year; None where it is none.

    Years before 1971 and after 9999 are none: products write such where they know no time.
    """
    text = str(value).strip() if value is not None and not isinstance(value, bool) else ""
    if not text or len(text) > 40:
        return None
    try:
        found = _epoch(text) or _iso(text) or _american(text)
    except (ValueError, OverflowError):
        return None
    return found if found is not None and 31_536_000_000_000 <= found.us < LAST_SECOND * 1_000_000 - 1 else None


def _epoch(text: str) -> Instant | None:
    if not re.fullmatch(r"\d{9,16}(?:\.\d{1,9})?", text, re.ASCII):
        return None
    whole, _, rest = text.partition(".")
    unit = 1_000_000 if len(whole) <= 11 else 1_000 if len(whole) <= 14 else 1
    return Instant(int(whole) * unit + (round(float(f"0.{rest}") * unit) if rest else 0), zoned=True)


def _iso(text: str) -> Instant | None:
    match = _ISO.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    moment = datetime(
        int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=_zone(zone)
    )
    return Instant(_microseconds(moment, fraction), zone is not None)


def _american(text: str) -> Instant | None:
    match = _AMERICAN.fullmatch(text)
    if match is None:
        return None
    month, day, year, hour, minute, second, fraction, half = match.groups()
    hours = int(hour or 0)
    if half is not None:
        hours = hours % 12 + (12 if half in "Pp" else 0)
    years = int(year) + (2000 if len(year) == 2 else 0)
    moment = datetime(years, int(month), int(day), hours, int(minute or 0), int(second or 0), tzinfo=UTC)
    return Instant(_microseconds(moment, fraction), zoned=False)


def _zone(zone: str | None) -> timezone:
    if zone is None or zone in ("Z", "UTC"):
        return UTC
    hours, minutes = int(zone[1:3]), int(zone[-2:])
    return timezone(timedelta(hours=hours, minutes=minutes) * (-1 if zone[0] == "-" else 1))


def _microseconds(moment: datetime, fraction: str | None) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) + int((fraction or "0").ljust(6, "0")[:6])
