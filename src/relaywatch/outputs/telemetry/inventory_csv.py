"""A plain CSV of devices, apps and names of devices, as people keep it: one line an inventory row.

Read back by the same headers. Labelled by its file name; control characters become spaces.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from relaywatch.model.tables import Batch

FILE_NAME: Final = "synthetic-inventory.csv"
_VALUES: Final = {
    "group": "device_group",
    "user": "user_name",
    "package": "android_package",
    "app_label": "app_label",
    "uid": "android_uid",
    "android_user": "user_id",
    "installer": "installer",
    "signing_digest": "signing_digest",
    "detail": "detail",
    "valid_from": "valid_from",
    "valid_to": "valid_to",
}
_KINDS: Final = ("serial", "imei", "android_id", "mdm_id", "sensor_id", "mac", "hostname", "ip")


def write_inventory_csv(batches: Iterable[Batch], folder: Path) -> list[Path]:
    """The inventory's rows; the header alone where there are none."""
    path = folder / FILE_NAME
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("device", *_KINDS, *_VALUES))
        for part in batches:
            if part.table == "inventory":
                writer.writerows(map(_line, part.rows.to_pylist()))
    return [path]


def _line(row: dict[str, Any]) -> list[str]:
    names = (row["identifier"] if row["identifier_kind"] == kind else None for kind in _KINDS)
    return [_text(value) for value in (row["device_uid"], *names, *(row[name] for name in _VALUES.values()))]


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    return "".join(c if c.isprintable() else " " for c in str(value))
