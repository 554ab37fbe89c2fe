"""Devices and policies of the Android Management API: who a device is, whose, and what is installed on it.

Format: the API's discovery document (Device, Policy), bare, listed, or in Pub/Sub status reports. The API states no IP
address of a device.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final, cast

from relaywatch.model.schemas import IdentifierKind
from relaywatch.model.tables import Batch
from relaywatch.sources.context_rows import ROWS_AT_ONCE, ContextRows
from relaywatch.sources.device_names import mac_address, said
from relaywatch.sources.json_records import first_records
from relaywatch.sources.lines import blocks, shown
from relaywatch.sources.management_envelope import Opened, inside
from relaywatch.sources.reading import Head, Reading

SKEW_BOUND_S: Final = 2.0
MOST_APPS: Final = 10_000
"""Applications of one device; more are none that a phone holds."""
_STATED: Final = (
    "ownership",
    "managementMode",
    "state",
    "appliedPolicyName",
    "policyCompliant",
    "lastStatusReportTime",
)
_POLICY: Final = frozenset({"applications", "alwaysOnVpnPackage", "recommendedGlobalProxy", "usageLog"})


class ManagementInventory:
    """Device and policy resources, one a line."""

    name: ClassVar[str] = "management-api-inventory"

    @staticmethod
    def fits(head: Head) -> bool:
        """A record, or what its envelope holds, whose name is a device's or a policy's resource name."""
        return any(_kind(inside(record) or record) is not None for record in first_records(head))

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Inventory rows: the device's identifiers, its person, its applications."""
        rows = ContextRows(path, "sensor", SKEW_BOUND_S)
        for block in blocks(cast("BinaryIO", Opened(stream)), path, reading.quarantine):
            for number, line in block.lines():
                if line.strip():
                    reading.tally.met(1)
                    _take(line, number, rows, path, reading)
            if len(rows) >= ROWS_AT_ONCE:
                yield from _given(rows, reading)
        yield from _given(rows, reading)


def _given(rows: ContextRows, reading: Reading) -> list[Batch]:
    batches = rows.batches()
    reading.tally.gave(batches)
    return batches


def _kind(record: dict[str, Any]) -> str | None:
    """Return "devices" or "policies", as the resource name says; None where it is neither."""
    parts = str(record.get("name", "")).split("/")
    if len(parts) == 4 and parts[0] == "enterprises" and parts[2] in {"devices", "policies"}:
        return parts[2]
    return None


def _take(line: bytes, number: int, rows: ContextRows, path: Path, reading: Reading) -> None:
    try:
        record = json.loads(line)
        json.dumps(record, ensure_ascii=False).encode()  # a lone surrogate is no text
        kind = _kind(record) if isinstance(record, dict) else None
        if kind == "devices":
            _device(record, number, rows, reading.device)
        elif kind == "policies":
            # A policy names no device; what it allows is the exception file's to say.
            reading.tally.left("a policy, which names no device", 1)
        elif isinstance(record, dict):
            reading.tally.left("a notification that is no device and no policy", 1)
        else:
            reading.quarantine.add(str(path), f"line {number}", "no JSON object")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        reading.quarantine.add(str(path), f"line {number}", f"no device as the API has it ({shown(error)})")


def _device(record: dict[str, Any], number: int, rows: ContextRows, named: str) -> None:
    """Rows of one device. Raises ValueError or TypeError, with nothing added, where it is not shaped as documented."""
    own = record["name"].split("/")[3]
    device = named or own
    network, hardware = _object(record, "networkInfo"), _object(record, "hardwareInfo")
    apps = [_app(app) for app in _list(record, "applicationReports")[:MOST_APPS]]
    stated = {name: record[name] for name in _STATED if isinstance(record.get(name), (str, bool))}
    user = said(_object(record, "user").get("accountIdentifier")) or said(record.get("userName"))
    posture = said(_object(record, "securityPosture").get("devicePosture"))
    detail = "; ".join(
        f"{name} {value}" for name, value in [*stated.items(), ("devicePosture", posture)] if value is not None
    )
    rows.add("inventory", number, device, user_name=user, detail=detail or None)
    rows.name(number, device, IdentifierKind.MDM_ID, f"amapi:{own}")
    rows.name(number, device, IdentifierKind.SERIAL, said(hardware.get("serialNumber")))
    rows.name(number, device, IdentifierKind.MAC, mac_address(network.get("wifiMacAddress")))
    imeis = [network.get("imei"), *(_object({"t": t}, "t").get("imei") for t in _list(network, "telephonyInfos"))]
    for imei in dict.fromkeys(found for value in imeis if (found := said(value)) is not None):
        rows.name(number, device, IdentifierKind.IMEI, imei)
    for app in apps:
        rows.add("inventory", number, device, **app)


def _app(report: object) -> dict[str, Any]:
    """One application's columns."""
    app = _object({"app": report}, "app")
    prints = [said(value) for value in _list(app, "signingKeyCertFingerprints")]
    stated = {"version": app.get("versionName"), "state": app.get("state"), "apk sha256": app.get("packageSha256Hash")}
    return {
        "android_package": said(app.get("packageName")),
        "app_label": said(app.get("displayName")),
        "installer": said(app.get("installerPackageName")),
        "signing_digest": _digest(prints[0]) if len(prints) == 1 and prints[0] else None,
        "detail": "; ".join(f"{name} {value}" for name, value in stated.items() if said(value)) or None,
    }


def _digest(text: str) -> str | None:
    """A SHA-256 fingerprint as lower-case hex; None where it is none."""
    digits = text.replace(":", "").lower()
    whole = len(digits) == 64 and all(digit in "0123456789abcdef" for digit in digits)
    return digits if whole else None


def _object(record: dict[str, Any], name: str) -> dict[str, Any]:
    value = record.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise TypeError(f"{name} is no object")
    return value


def _list(record: dict[str, Any], name: str) -> list[Any]:
    value = record.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise TypeError(f"{name} is no list")
    return value
