"""Who has which address inside the namespaces, and how far away it is. Nothing here exists outside them."""

from __future__ import annotations

import ipaddress
import zlib
from typing import Final

PHONE: Final = "phone"
INTERNET: Final = "internet"
CUSTOMERS: Final = "customers"
GATEWAYS: Final = "gateways"
LAN: Final = "lan"
SPACES: Final = (PHONE, INTERNET, CUSTOMERS, GATEWAYS, LAN)

RESOLVER: Final = "198.18.0.53"
"""The one name server; it answers for every name under .example and .test."""
GATEWAY_ZONE: Final = ".gw.test"

_BLOCKS: Final = {
    INTERNET: ("198.18.0.0/16",),
    CUSTOMERS: ("198.19.0.0/17", "198.19.128.0/18"),
    GATEWAYS: ("198.19.192.0/18",),
}


def phone_address(subnet: int) -> str:
    """The phone's address on home network number `subnet` (0..254)."""
    return f"10.{subnet}.0.23"


def lan_peer(subnet: int, number: int) -> str:
    """One of the 16 other machines on the phone's home network."""
    return f"10.{subnet}.0.{48 + number % 16}"


def blocks(space: str, subnet: int) -> tuple[str, ...]:
    """The prefixes that a namespace answers for."""
    if space == PHONE:
        return (f"{phone_address(subnet)}/32",)
    return (f"10.{subnet}.0.48/28",) if space == LAN else _BLOCKS[space]


def address_of(name: str) -> str:
    """The one address of a name; names of gateways lie apart from the internet's."""
    digest = zlib.crc32(name.lower().rstrip(".").encode())
    if name.rstrip(".").endswith(GATEWAY_ZONE):
        return f"198.19.{192 + digest % 64}.{1 + digest // 64 % 250}"
    return f"198.18.{1 + digest % 250}.{1 + digest // 250 % 250}"


def customer_address(number: int) -> str:
    """Address of a customer of the relay."""
    digest = zlib.crc32(f"customer{number}".encode())
    return f"198.19.{digest % 128}.{1 + digest // 128 % 250}"


def peer_address(number: int) -> str:
    """Address of a peer (of BitTorrent, of a call)."""
    return f"198.19.{128 + number % 64}.{10 + number}"


def path_delay_s(source: str, target: str) -> float:
    """One-way delay between two networks: the same for both directions and every run, 4 to 60 ms."""
    nets = sorted(str(ipaddress.ip_network(f"{end}/24", strict=False)) for end in (source, target))
    if all(net.startswith("10.") for net in nets):
        return 0.0005
    return 0.004 + zlib.crc32("".join(nets).encode()) % 1000 / 1000 * 0.056
