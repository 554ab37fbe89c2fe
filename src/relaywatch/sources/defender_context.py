"""Who a Defender device is: its names, its user, its platform, its adapters' addresses at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import polars as pl

from relaywatch.model.schemas import IdentifierKind
from relaywatch.model.tables import Batch
from relaywatch.sources.columns import canonical_address
from relaywatch.sources.context_rows import ContextRows
from relaywatch.sources.device_names import host_name, mac_address, said
from relaywatch.sources.lines import shown
from relaywatch.sources.reading import Reading

SKEW_BOUND_S: Final = 5.0
"""The device stamps its events; its clock follows the network's."""
DEVICES_KEPT: Final = 100_000
"""Devices, and their processes, remembered so that each is described once; beyond, some are described again."""
KEYS_KEPT: Final = 1_000_000
ADDRESSES_PER_RECORD: Final = 64
_ANDROID: Final = "android"


class Devices:
    """What is known of the devices so far: which run Android, and what has been said of them already."""

    __slots__ = ("_android", "_met", "_told", "given")

    def __init__(self, given: str) -> None:
        self.given = given
        self._android: set[str] = set()
        self._told: set[tuple[str, str]] = set()
        self._met = pl.Series(dtype=pl.UInt64)

    def uid(self, device_id: str) -> str:
        """The device's name in the tables."""
        return self.given or f"defender:{device_id}"

    def runs(self, device_id: str, platform: str | None) -> None:
        """A record states the device's platform."""
        if platform and platform.lower().startswith(_ANDROID) and len(self._android) < DEVICES_KEPT:
            self._android.add(device_id)

    def android(self) -> list[str]:
        """Devices that a record has called Android."""
        return sorted(self._android)

    def unmet(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The first row of each `key` (a hash) that was not met before."""
        new = frame.filter(~pl.col("key").is_in(self._met.implode())).unique("key", keep="first", maintain_order=True)
        self._met = pl.concat([self._met if len(self._met) < KEYS_KEPT else self._met.clear(), new["key"]])
        return new

    def first_time(self, device_id: str, what: str) -> bool:
        """Whether this has not been told of the device yet."""
        if (device_id, what) in self._told:
            return False
        if len(self._told) >= DEVICES_KEPT:
            self._told.clear()
        self._told.add((device_id, what))
        return True


def describe(rows: ContextRows, position: int, device_id: str, host: str | None, devices: Devices) -> None:
    """The device's id with Defender and its host name."""
    uid = devices.uid(device_id)
    rows.name(position, uid, IdentifierKind.SENSOR_ID, f"defender:{device_id}")
    rows.name(position, uid, IdentifierKind.HOSTNAME, host_name(host))


def device_rows(frame: pl.DataFrame, path: Path, devices: Devices) -> list[Batch]:
    """DeviceInfo: names, user, group, platform. The public address is a gateway's as often as the device's: detail."""
    rows = ContextRows(path, "device", SKEW_BOUND_S)
    for record in frame.iter_rows(named=True):
        device_id, position = record["DeviceId"], record["position"]
        devices.runs(device_id, record["OSPlatform"])
        describe(rows, position, device_id, record["DeviceName"], devices)
        uid = devices.uid(device_id)
        entra = said(record["AadDeviceId"])
        rows.name(position, uid, IdentifierKind.MDM_ID, f"entra:{entra}" if entra else None)
        parts = ("OSPlatform", "OSVersion", "DeviceType", "OnboardingStatus", "PublicIP")
        detail = ", ".join(f"{name} {value}" for name in parts if (value := said(record[name])))
        rows.add(
            "inventory",
            position,
            uid,
            user_name=_user(record["LoggedOnUsers"]),
            device_group=said(record["MachineGroup"]),
            detail=detail or None,
        )
    return rows.batches()


def _user(text: str | None) -> str | None:
    """The first of the users logged on."""
    users = _parsed(text)
    if isinstance(users, list) and users and isinstance(users[0], dict):
        return said(users[0].get("UserName"))
    return None


class Adapters:
    """The addresses that adapters have: each from the record that first names it to the one that no longer does."""

    __slots__ = ("_held", "_path")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}

    def rows(self, frame: pl.DataFrame, reading: Reading, devices: Devices) -> list[Batch]:
        """DeviceNetworkInfo: names that are new, and addresses that are over. Keeps the tally itself.

        An address's row has the position of the record that first named it, and comes when it is over.
        """
        rows = ContextRows(self._path, "device", SKEW_BOUND_S)
        for record in frame.iter_rows(named=True):
            position = record["position"]
            addresses = _parsed(record["IPAddresses"])
            if addresses is not None and not isinstance(addresses, list):
                what = f"IPAddresses is no list ({shown(record['IPAddresses'])})"
                reading.quarantine.add(str(self._path), f"line {position}", what)
                continue
            if _names(rows, record, devices) | self._reported(rows, record, _addresses(addresses or []), devices):
                reading.tally.with_rows += 1
            else:
                reading.tally.left("an adapter's report that only repeats or ends what another said", 1)
        return rows.batches()

    def rest(self, devices: Devices) -> list[Batch]:
        """The addresses that are held at the end."""
        rows = ContextRows(self._path, "device", SKEW_BOUND_S)
        for key in list(self._held):
            self._give(rows, key, self._held.pop(key), None, devices)
        return rows.batches()

    def _reported(self, rows: ContextRows, record: dict[str, Any], addresses: list[str], devices: Devices) -> bool:
        """Whether the record begins an address of its adapter; gives those that it ends."""
        key = (record["DeviceId"], record["NetworkAdapterName"] or mac_address(record["MacAddress"]) or "")
        up = (record["NetworkAdapterStatus"] or "Up").lower() == "up"
        before = self._held.pop(key, {})
        now = {address: before.get(address, (record["at"], record["position"])) for address in addresses if up}
        over = {address: begun for address, begun in before.items() if address not in now}
        self._give(rows, key, over, record["at"], devices)
        if now:
            if len(self._held) >= DEVICES_KEPT:
                oldest = next(iter(self._held))
                self._give(rows, oldest, self._held.pop(oldest), None, devices)
            self._held[key] = now
        return any(address not in before for address in now)

    def _give(
        self,
        rows: ContextRows,
        key: tuple[str, str],
        addresses: dict[str, tuple[int, int]],
        end: int | None,
        devices: Devices,
    ) -> None:
        for address, (begin, position) in addresses.items():
            until = max(end, begin) if end is not None else None
            uid = devices.uid(key[0])
            rows.name(position, uid, IdentifierKind.IP, address, valid_from=begin, valid_to=until)


def _names(rows: ContextRows, record: dict[str, Any], devices: Devices) -> bool:
    """The device's and the adapter's names; whether any is new."""
    device_id, position, host = record["DeviceId"], record["position"], record["DeviceName"]
    new = devices.first_time(device_id, f"host {host}")
    if new:
        describe(rows, position, device_id, host, devices)
    mac = mac_address(record["MacAddress"])
    if mac is not None and devices.first_time(device_id, f"mac {mac}"):
        rows.name(position, devices.uid(device_id), IdentifierKind.MAC, mac)
        new = True
    return new


def _addresses(entries: list[Any]) -> list[str]:
    """The addresses that tell a device from its neighbours: not those of the link or the host itself."""
    found = []
    for entry in entries[:ADDRESSES_PER_RECORD]:
        text = entry.get("IPAddress") if isinstance(entry, dict) else entry
        address = canonical_address(text) if isinstance(text, str) else None
        if address and not address.startswith(("fe80:", "169.254.", "127.")) and address != "::1":
            found.append(address)
    return found


def _parsed(text: str | None) -> object:
    """The JSON inside a column of text; None where there is none, the text itself where it is no JSON."""
    if not text:
        return None
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found
