"""Leases as the memfile of a Kea DHCP server holds them (kea-leases4.csv, kea-leases6.csv), from inventory rows.

Kea's ARM, "Memfile". Each lease says in its user context that it is synthetic. Times are whole seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from relaywatch.model.schemas import IdentifierKind
from relaywatch.model.tables import Batch

_FOREVER: Final = 0xFFFF_FFFF
_LAST_SECOND: Final = 253_402_300_798
_MARK: Final = '{ "synthetic": true }'
_V4: Final = (
    "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id"
)
_V6: Final = (
    "address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len,fqdn_fwd,fqdn_rev,hostname,"
    "hwaddr,state,user_context,hwtype,hwaddr_source,pool_id"
)


def write_dhcp_leases(batches: Iterable[Batch], folder: Path) -> list[Path]:
    """synthetic-kea-leases4.csv, and synthetic-kea-leases6.csv where there are IPv6 leases.

    Leases whose begin is not known, and those of devices without a MAC, are left out: Kea has neither.
    """
    leases: list[dict[str, Any]] = []
    macs: dict[str, str] = {}
    hosts: dict[str, str] = {}
    for part in batches:
        if part.table != "inventory":
            continue
        for row in part.rows.to_pylist():
            device, kind = row["device_uid"], row["identifier_kind"]
            if kind == IdentifierKind.IP and row["valid_from"] is not None:
                leases.append(row)
            elif kind == IdentifierKind.MAC:
                macs.setdefault(device, row["identifier"])
            elif kind == IdentifierKind.HOSTNAME:
                hosts[device] = row["identifier"]
    known = sorted((row for row in leases if row["device_uid"] in macs), key=lambda row: row["valid_from"])
    written = []
    for header, sixth in ((_V4, False), (_V6, True)):
        lines = [_line(row, macs, hosts) for row in known if (":" in row["identifier"]) is sixth]
        if lines or not sixth:
            path = folder / f"synthetic-kea-leases{6 if sixth else 4}.csv"
            path.write_text("\n".join((header, *lines)) + "\n", encoding="utf-8", newline="\n")
            written.append(path)
    return written


def _line(row: dict[str, Any], macs: dict[str, str], hosts: dict[str, str]) -> str:
    address, device = row["identifier"], row["device_uid"]
    begin, end = _seconds(row["valid_from"]), row["valid_to"]
    lifetime = _FOREVER if end is None else max(_seconds(end) - begin, 1)
    expire = min(begin + lifetime, _LAST_SECOND)
    mac, host = macs[device], _field(hosts.get(device, ""))
    fields: tuple[object, ...]
    if ":" in address:
        duid = "00:03:00:01:" + mac
        fields = (address, duid, lifetime, expire, 1, lifetime, 0, 1, 128, 0, 0, host, mac, 0, _MARK, 1, 0, 0)
    else:
        fields = (address, mac, "01:" + mac, lifetime, expire, 1, 0, 0, host, 0, _MARK, 0)
    return ",".join(map(str, fields))


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _field(text: str) -> str:
    """A name as Kea writes it: commas escaped, nothing quoted."""
    return "".join(c for c in text if c.isprintable() and c != '"').replace(",", "&#x2c")
