"""Destinations that a user names in a setting or an exception: domains and address prefixes, and what they cover."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final, Self

from publicsuffixlist import PublicSuffixList

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LONGEST_HOSTNAME: Final = 253
"""Characters of a host name in text form (RFC 1035, section 2.3.4)."""
_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


@dataclass(frozen=True, slots=True)
class DestinationList:
    """Domains (each covers the names under it) and address prefixes.

    domains: lower case, in their ASCII form; networks: IPv4 and IPv6 prefixes.
    """

    domains: frozenset[str]
    networks: tuple[Network, ...]

    @classmethod
    def parse(cls, entries: Iterable[str]) -> Self:
        """Read entries such as "corp.example", "10.0.0.0/8" or "2001:db8::/32".

        Raises ValueError naming the entry that is neither a domain nor a prefix, or that covers a public suffix.
        """
        parsed = [_network(entry) or _domain(entry) for entry in entries]
        return cls(
            frozenset(entry for entry in parsed if isinstance(entry, str)),
            tuple(entry for entry in parsed if not isinstance(entry, str)),
        )

    def __bool__(self) -> bool:
        """Whether anything is named at all."""
        return bool(self.domains or self.networks)

    def covers_name(self, hostname: str) -> bool:
        """Whether the host name is one of the domains or stands under one."""
        if len(hostname) > LONGEST_HOSTNAME:
            return False
        labels = hostname.lower().rstrip(".").split(".")
        return any(".".join(labels[start:]) in self.domains for start in range(len(labels)))

    def covers_address(self, address: str) -> bool:
        """Whether the address lies in one of the prefixes; an IPv4 address mapped into IPv6 counts as IPv4."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self.networks)


def _network(entry: str) -> Network | None:
    try:
        return ipaddress.ip_network(entry.strip())
    except ValueError:
        if re.fullmatch(r"[0-9.]+(/.*)?|.*:.*|.*/.*", entry.strip()):
            raise ValueError(f"{entry!r} is no address prefix such as 10.0.0.0/8 (host bits must be zero)") from None
        return None


def _domain(entry: str) -> str:
    try:
        name = entry.strip().rstrip(".").lower().encode("idna").decode()
    except UnicodeError:
        name = ""
    if len(name) > LONGEST_HOSTNAME or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise ValueError(f"{entry!r} is neither a domain such as corp.example nor an address prefix")
    if _public_suffixes().is_public(name):
        raise ValueError(f"{entry!r} is a public suffix: it would cover every name under it; name the domain itself")
    return name


@cache
def _public_suffixes() -> PublicSuffixList:
    return PublicSuffixList()
