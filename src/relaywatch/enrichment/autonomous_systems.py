"""Who announces an address, from a local database in MaxMind's format. Reads the file; asks no network.

The format: MaxMind DB specification 2.0 (maxmind.github.io/MaxMind-DB). Keys of the records: MaxMind's and DB-IP's
(autonomous_system_number, autonomous_system_organization) or IPinfo's (asn, as_name).
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from relaywatch.model.errors import EnrichmentError
from relaywatch.model.finding import AutonomousSystem

PROBES: Final = 512
"""Addresses looked up before a hunt, so that a damaged or unfit database is told then, not after hours of reading."""
REMEMBERED: Final = 65_536
LONGEST_ORGANISATION: Final = 200
LARGEST_NUMBER: Final = 2**32 - 1
"""RFC 6793."""
_DAMAGED: Final = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError)
"""What the reader raises on a damaged file: its own error is a RuntimeError, the rest come from values of odd types."""
_REMEDY: Final = "Give a database of autonomous systems in MaxMind's format, such as GeoLite2-ASN.mmdb."


class AutonomousSystems:
    """Autonomous systems by address."""

    def __init__(self, path: Path) -> None:
        """Open the database at `path`.

        Raises EnrichmentError where maxminddb is not installed, or the file is absent, damaged, or of another kind.
        """
        try:
            import maxminddb
        except ImportError as fault:
            raise EnrichmentError(
                f"{path}: the library maxminddb is not installed. Run pip install 'relaywatch[asn]'."
            ) from fault
        if not path.is_file():
            raise EnrichmentError(f"{path}: there is no such file. {_REMEDY}")
        self._path = path
        try:
            # The reader in Python bounds values, depth and bytes of a record; the one in C does so only from 3.3 on.
            self._reader = maxminddb.open_database(path, maxminddb.MODE_MMAP)
            self._bits = self._reader.metadata().ip_version
        except OSError as fault:
            raise EnrichmentError(f"{path}: cannot be opened: {fault.strerror}.") from fault
        except _DAMAGED as fault:
            raise EnrichmentError(f"{path}: no database that can be read: {fault}. {_REMEDY}") from fault
        self._remembered = lru_cache(REMEMBERED)(self._looked_up)
        self._probe()

    def of(self, address: str) -> AutonomousSystem | None:
        """Return the autonomous system that announces the address; None where none is known, or it is no address.

        Raises EnrichmentError where the record is damaged.
        """
        return self._remembered(address)

    def _looked_up(self, address: str) -> AutonomousSystem | None:
        return _system(self._record(address))

    def _record(self, address: str) -> Any:  # noqa: ANN401  a record may be of any type
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return None
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        if parsed.version == 6 and self._bits == 4:
            return None
        try:
            return self._reader.get(parsed)
        except _DAMAGED as fault:
            raise EnrichmentError(f"{self._path}: damaged at {address}: {fault}. {_REMEDY}") from fault

    def _probe(self) -> None:
        """Refuse a database that is damaged, or whose records hold no autonomous system."""
        numbers = random.Random(1604)  # noqa: S311  a fixed choice of addresses, no secret
        records = [self._record(str(ipaddress.IPv4Address(numbers.getrandbits(32)))) for _ in range(PROBES)]
        held = [record for record in records if record is not None]
        if held and not any(map(_system, held)):
            kind = str(self._reader.metadata().database_type)[:LONGEST_ORGANISATION]
            raise EnrichmentError(f"{self._path}: its records hold no autonomous systems (type {kind!r}). {_REMEDY}")


def _system(record: object) -> AutonomousSystem | None:
    """The autonomous system of a record; None where it holds neither a number nor an organisation."""
    if not isinstance(record, Mapping):
        return None
    number = _number(record.get("autonomous_system_number", record.get("asn")))
    name = record.get("autonomous_system_organization", record.get("as_name"))
    organisation = name.strip()[:LONGEST_ORGANISATION] if isinstance(name, str) else ""
    if number is None and not organisation:
        return None
    return AutonomousSystem(number=number, organisation=organisation or None)


def _number(value: object) -> int | None:
    digits = str(value).removeprefix("AS") if isinstance(value, int | str) else ""
    # Bounded before it is read: Python refuses very long numbers with an error of its own.
    number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 10 else 0
    return number if 0 < number <= LARGEST_NUMBER else None
