"""Devices and apps under one name before anything is judged: what sources call them is gathered while they are read.

Records then move to the device that they are of: from a translator's outside to its inside, by identifiers that names
share, by who had an address at the time, and last by a phone's connects that a sensor saw from one address.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from relaywatch.engines import shards
from relaywatch.engines.names import Names
from relaywatch.engines.records import NO_UID, Records, Registry, combined_codes
from relaywatch.engines.shards import ShardedTable
from relaywatch.engines.tables import Tables
from relaywatch.engines.translating import translate
from relaywatch.identity.addresses import CONTESTED, STATED_SLACK_US, AddressBook, Assignment, address_book
from relaywatch.identity.apps import Apps, apps_of
from relaywatch.identity.correlation import Likeness, likenesses
from relaywatch.identity.devices import Devices, Identifier, resolve
from relaywatch.model.schemas import Direction, IdentifierKind

MOST_CONNECTS: Final = 20_000
"""Connects of one phone that are compared with what sensors saw."""
MOST_STATED: Final = 1_000_000
"""(device, address) pairs that are remembered from flows; later ones are not."""
Codes = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class IdentityAccount:
    """How names became devices. translated: flows brought inside a translator; likenesses: by connections, as names."""

    devices: Devices = field(default_factory=Devices)
    by_address: int = 0
    contested: int = 0
    translated: int = 0
    likenesses: tuple[tuple[str, str, Likeness], ...] = ()

    def of(self, name: str) -> str:
        """The name in use for a device."""
        resolved = self.devices.of(name)
        return next((phone for phone, sensor, _ in self.likenesses if sensor == resolved), resolved)


class Identities:
    """What the sources say of who is who, gathered batch by batch."""

    def __init__(self) -> None:
        self._identifiers: set[Identifier] = set()
        self._leases: set[tuple[str, str, int | None, int | None]] = set()
        self._stated: dict[tuple[str, str], tuple[int, int]] = {}
        self._apps: dict[str, set[tuple[str, int]]] = defaultdict(set)

    def add_inventory(self, rows: pa.RecordBatch) -> None:
        """Take identifiers, leases and (package, uid) pairs."""
        frame = pl.from_arrow(
            rows.select(
                [
                    "device_uid",
                    "android_package",
                    "android_uid",
                    "identifier_kind",
                    "identifier",
                    "valid_from",
                    "valid_to",
                ]
            )
        )
        assert isinstance(frame, pl.DataFrame)  # noqa: S101  from_arrow of a batch is a frame; for the type checker
        instants = [pl.col(name).dt.epoch("us") for name in ("valid_from", "valid_to")]
        for device, package, uid, kind, value, begin, end in frame.with_columns(instants).unique().iter_rows():
            if package is not None and uid is not None:
                self._apps[device].add((package, uid))
            if kind == IdentifierKind.IP and value is not None:
                self._leases.add((value, device, begin, end))
            elif kind is not None and value is not None:
                self._identifiers.add(Identifier(device, kind, value))

    def add_flows(self, rows: pa.RecordBatch) -> None:
        """Take the addresses that devices with names of their own use."""
        if not len(rows["local_ip"].dictionary) or len(self._stated) >= MOST_STATED:
            return
        code, devices, addresses = combined_codes(rows["device_uid"], rows["local_ip"])
        starts = rows["start_time"].view(pa.int64()).to_numpy(zero_copy_only=False)
        met, first = np.unique(code, return_index=True)
        if len(met) == 1:
            spans = [(int(starts.min()), int(starts.max()))]
        else:
            order = np.argsort(code, kind="stable")
            cuts = np.searchsorted(code[order], met)
            low, high = np.minimum.reduceat(starts[order], cuts), np.maximum.reduceat(starts[order], cuts)
            spans = list(zip(low.tolist(), high.tolist(), strict=True))
        for at, span in zip(code[first].tolist(), spans, strict=True):
            device, address = devices[at // len(addresses)], addresses[at % len(addresses)]
            if device is not None and address is not None and device != address:
                known = self._stated.get((device, address), span)
                self._stated[device, address] = min(known[0], span[0]), max(known[1], span[1])

    def add_apps(self, device: str, pairs: Iterable[tuple[str, int]]) -> None:
        """Take (package, uid) pairs of a device."""
        self._apps[device].update(pairs)

    def resolve(self, registry: Registry) -> tuple[Devices, AddressBook]:
        """Names that are one device, and who had which address when."""
        # Anything that shows apps is a phone's or a manager's own name for it, the one that people know.
        preferred = (
            {key.device for key in registry.all_apps() if key.package or key.uid != NO_UID} if self._identifiers else ()
        )
        devices = resolve(self._identifiers, [*registry.devices, *(lease[1] for lease in self._leases)], preferred)
        assignments = [
            Assignment(address, registry.device_code(devices.of(device)), begin, end)
            for address, device, begin, end in sorted(self._leases, key=repr)
        ]
        leased = {assignment.address for assignment in assignments}
        assignments += [
            Assignment(
                address, registry.device_code(devices.of(device)), span[0] - STATED_SLACK_US, span[1] + STATED_SLACK_US
            )
            for (device, address), span in sorted(self._stated.items())
            if address not in leased and address in registry.devices
        ]
        return devices, address_book(assignments, {})

    def apps(self, registry: Registry, of: Callable[[str], str]) -> dict[str, Apps]:
        """Apps by device, from (package, uid) pairs stated together."""
        stated: dict[str, set[tuple[str, int]]] = defaultdict(set)
        for device, pairs in self._apps.items():
            stated[of(device)] |= pairs
        for key in registry.all_apps():
            if key.package and key.uid != NO_UID:
                stated[of(key.device)].add((key.package, key.uid))
        return {device: apps_of(sorted(pairs)) for device, pairs in stated.items()}


def unify(identities: Identities, tables: Tables, registry: Registry, names: Names) -> IdentityAccount:
    """Bring every record under its device's and app's one name."""
    translated = translate(tables, registry, names)
    devices, book = identities.resolve(registry)
    met = list(registry.devices)
    moved = {code: registry.device_code(devices.of(name)) for code, name in enumerate(met) if devices.of(name) != name}
    addressed = {code: name for code, name in enumerate(met) if name in book.addresses}
    counts = {"by address": 0, "contested": 0}
    if moved or addressed:
        tables.rewrite(lambda records: _moved(records, moved, addressed, book, registry, counts))
    alike = likenesses(*_connects(tables.flows, registry)) if len(registry.devices) > 1 else []
    if alike:
        tables.rewrite(
            lambda records: _moved(records, {like.sensor: like.phone for like in alike}, {}, book, registry, counts)
        )
    named = tuple((registry.device_name(like.phone), registry.device_name(like.sensor), like) for like in alike)
    account = IdentityAccount(devices, counts["by address"], counts["contested"], translated, named)
    complete_apps(identities, tables, registry, account)
    return account


def complete_apps(
    identities: Identities,
    tables: Tables,
    registry: Registry,
    account: IdentityAccount,
    learned: Mapping[str, Iterable[tuple[str, int]]] = MappingProxyType({}),
) -> None:
    """Give app identities the package or uid that they lack, where the device's sources know it.

    learned: (package, uid) by device, beside what sources state together.
    """
    for device, pairs in learned.items():
        identities.add_apps(device, pairs)
    if registry.incomplete_apps():
        apps = identities.apps(registry, account.of)
        if apps:
            tables.rewrite(lambda records: _completed(records, apps, registry))


def _moved(
    records: Records,
    moved: Mapping[int, int],
    addressed: Mapping[int, str],
    book: AddressBook,
    registry: Registry,
    counts: dict[str, int],
) -> Records:
    """The records under the device that they are of, their app codes with them."""
    table = np.arange(len(registry.devices), dtype=np.uint32)
    for code, other in moved.items():
        table[code] = other
    device = table[records["device"]]
    for code in np.intersect1d(records["device"], np.array(list(addressed), np.uint32)).tolist():
        rows = np.flatnonzero(records["device"] == code)
        holders = book.at(addressed[code], records["start"][rows])
        known = holders >= 0
        device[rows[known]] = holders[known]
        counts["by address"] += int(known.sum())
        counts["contested"] += int((holders == CONTESTED).sum())
    changed = device != records["device"]
    if changed.any():
        packages, uids = registry.app_parts(records["app"][changed])
        records["app"][changed] = registry.app_codes(device[changed], packages, uids)
        records["device"] = device
    return records


def _completed(records: Records, apps: Mapping[str, Apps], registry: Registry) -> Records:
    """The records with app identities completed by what the device's sources say together."""
    codes = np.unique(records["app"])
    table = {}
    for code, key in registry.app_keys(codes).items():
        known = apps.get(key.device)
        uid = None if key.uid == NO_UID else key.uid
        if known is not None and (bool(key.package) != (uid is not None)):
            package, uid = known.complete(key.package, uid)
            table[code] = registry.app_code(key.device, package, NO_UID if uid is None else uid)
    for code, new in table.items():
        if new != code:
            records["app"][records["app"] == code] = new
    return records


def _connects(flows: ShardedTable, registry: Registry) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Phones' connects without bytes or port, and the anonymous flows to the same endpoints of devices without apps."""
    phones, with_apps = [], []
    for shard in range(shards.SHARDS):
        records = flows.read(shard)
        if len(records):
            named = ~registry.anonymous(records["app"])
            with_apps.append(np.unique(records["device"][named]))
            rows = (
                named
                & (records["bytes_out"] < 0)
                & (records["local_port"] == 0)
                & (records["direction"] != Direction.INBOUND)
            )
            phones.append(
                _events(records[rows & (records["remote"] != 0)])
                .sort("time", "endpoint")
                .group_by("device")
                .head(MOST_CONNECTS)
            )
    if not phones or not sum(map(len, phones)):
        return _events(np.empty(0, flows.dtype)), _events(np.empty(0, flows.dtype))
    held = pl.concat(phones)
    endpoints, known = held.select("endpoint").unique(), np.unique(np.concatenate(with_apps))
    sensors = []
    for shard in range(shards.SHARDS):
        records = flows.read(shard)
        others = records[~np.isin(records["device"], known)]
        if len(others):
            sensors.append(_events(others).join(endpoints, on="endpoint", how="semi"))
    return held, pl.concat([_events(np.empty(0, flows.dtype)), *sensors])


def _events(records: Records) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "device": records["device"],
            "endpoint": records["remote"] ^ records["remote_port"].astype(np.uint64) << np.uint64(1),
            "time": records["start"] * 1e-6,
        }
    )


def renamed(rows: Iterable[Mapping[str, object]], account: IdentityAccount) -> list[dict[str, object]]:
    """Inventory rows under the devices' names in use."""
    return [{**row, "device_uid": account.of(str(row["device_uid"]))} for row in rows]
