"""A plain list of devices or apps as CSV, by whatever headers it has (csv_columns.SYNONYMS).

One line a device, an app on a device, or one more name of a device. Delimiter comma, semicolon or tab. Columns that are
not known are not used. The device is the `device` column, else its serial number, IMEI, Android id, host name or MAC.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

from relaywatch.model.errors import SourceError
from relaywatch.model.schemas import IdentifierKind
from relaywatch.model.tables import Batch
from relaywatch.sources import csv_records
from relaywatch.sources.columns import canonical_address
from relaywatch.sources.context_feed import DamagedRecord, known_id
from relaywatch.sources.context_rows import ROWS_AT_ONCE, ContextRows
from relaywatch.sources.csv_columns import known_columns, known_records
from relaywatch.sources.device_names import UNZONED_S, host_name, imei, instant, mac_address, said
from relaywatch.sources.lines import shown
from relaywatch.sources.reading import Head, Reading

SKEW_BOUND_S: Final = 60.0
NAMES_KEPT: Final = 200_000
"""Names told already, so that a device with a hundred apps is named once; beyond, some are told again."""

_NAMES: Final[tuple[tuple[str, IdentifierKind, Callable[[object], str | None]], ...]] = (
    ("serial", IdentifierKind.SERIAL, known_id),
    ("imei", IdentifierKind.IMEI, imei),
    ("android_id", IdentifierKind.ANDROID_ID, known_id),
    ("mdm_id", IdentifierKind.MDM_ID, known_id),
    ("sensor_id", IdentifierKind.SENSOR_ID, known_id),
    ("hostname", IdentifierKind.HOSTNAME, host_name),
    ("mac", IdentifierKind.MAC, mac_address),
    ("ip", IdentifierKind.IP, lambda text: canonical_address(str(text)) if said(text) else None),
)
_DEVICE: Final = ("device", "serial", "imei", "android_id", "hostname", "mac")
"""Columns that can say which device a line is about, best first."""
_LARGEST_UID: Final = 2**31 - 1
_USER_UIDS: Final = 100_000


class InventoryCsv:
    """A list of devices, apps or names of devices."""

    name: ClassVar[str] = "inventory-csv"

    @staticmethod
    def fits(head: Head) -> bool:
        """The header names a device's column and one more known column, and none of a log of events."""
        found = csv_records.header(head)
        columns = known_columns(found[1]) if found is not None else None
        return columns is not None and len(columns) > 1 and any(name in columns for name in _DEVICE)

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Inventory rows. A list names its devices, so that a name given for the whole reading is not used."""
        rows, told = ContextRows(path, "sensor", SKEW_BOUND_S), _Told()
        try:
            for position, record in known_records(csv_records.records(stream, path, reading, None)):
                try:
                    _take(record, position, rows, told)
                except DamagedRecord as damage:
                    reading.quarantine.add(str(path), f"line {position}", str(damage))
                if len(rows) >= ROWS_AT_ONCE:
                    yield from _given(rows, reading)
        except SourceError:
            yield from _given(rows, reading)
            raise
        yield from _given(rows, reading)


class _Told:
    """The names told so far."""

    __slots__ = ("_names",)

    def __init__(self) -> None:
        self._names: set[tuple[str, str, str]] = set()

    def first_time(self, device: str, kind: str, name: str) -> bool:
        if (device, kind, name) in self._names:
            return False
        if len(self._names) >= NAMES_KEPT:
            self._names.clear()
        self._names.add((device, kind, name))
        return True


def _given(rows: ContextRows, reading: Reading) -> list[Batch]:
    found = rows.batches()
    reading.tally.gave(found)
    return found


def _take(record: Mapping[str, str], position: int, rows: ContextRows, told: _Told) -> None:
    """The rows of one line; raises DamagedRecord where a known column holds no value of its kind."""
    names = _names(record)
    device = known_id(record.get("device")) or next((_named(n, names[n]) for n in _DEVICE[1:] if n in names), None)
    if device is None:
        raise DamagedRecord("names no device")
    times = _times(record)
    values = _description(record)
    new = [
        (kind, names[column])
        for column, kind, _ in _NAMES
        if column in names and ((times and column == "ip") or told.first_time(device, column, names[column]))
    ]
    for kind, name in new:
        rows.name(position, device, kind, name, **(times if kind is IdentifierKind.IP else {}))
    if values or not new:
        rows.add("inventory", position, device, **values)


def _named(column: str, name: str) -> str:
    return f"mac:{name}" if column == "mac" else name


def _names(record: Mapping[str, str]) -> dict[str, str]:
    """The device's names by column."""
    found = {}
    for column, _, parse in _NAMES:
        text = said(record.get(column))
        if text is None:
            continue
        name = parse(text)
        if name is not None:
            found[column] = name
        elif column in ("ip", "mac") and not _masked(text):
            raise DamagedRecord(f"{column}: {shown(text)} is none")
    return found


def _masked(text: str) -> bool:
    """Whether the text only hides a value, or Android's placeholder for a MAC."""
    return not re.sub(r"^02|[*xX0:.\-]", "", text)


def _times(record: Mapping[str, str]) -> dict[str, Any]:
    """For how long an address is the device's, where the line says so."""
    found: dict[str, Any] = {}
    for column, name in (("begin", "valid_from"), ("end", "valid_to")):
        text = said(record.get(column))
        if text is None:
            continue
        at = instant(text)
        if at is None:
            raise DamagedRecord(f"{column}: {shown(text)} is no time")
        found[name] = at.us
        if not at.zoned:
            found["clock_skew_bound_s"] = UNZONED_S
    return found


def _description(record: Mapping[str, str]) -> dict[str, Any]:
    """What the line says of the device or app besides names; only what is known."""
    uid, user = (_number(record, name) for name in ("uid", "android_user"))
    digest = re.sub(r"[:\s]", "", said(record.get("signing_digest")) or "").lower()
    signed = re.fullmatch(r"[0-9a-f]{64}", digest) is not None
    notes = [
        said(record.get("detail")),
        f"signed by {said(record.get('signing_digest'))}" if digest and not signed else None,
    ]
    values = {
        "android_package": said(record.get("package")),
        "android_uid": uid,
        "user_id": user if user is not None else uid // _USER_UIDS if uid is not None else None,
        "user_name": said(record.get("user")),
        "device_group": said(record.get("group")),
        "app_label": said(record.get("app")),
        "signing_digest": digest if signed else None,
        "installer": said(record.get("installer")),
        "detail": ", ".join(note for note in notes if note) or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def _number(record: Mapping[str, str], column: str) -> int | None:
    text = (record.get(column) or "").strip()
    if not text or (said(text) is None and text != "0"):
        return None
    if not re.fullmatch(r"\d{1,10}", text, re.ASCII) or int(text) > _LARGEST_UID:
        raise DamagedRecord(f"{column}: {shown(text)} is no Android number")
    return int(text)
