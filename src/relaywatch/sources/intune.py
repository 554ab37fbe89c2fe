"""Microsoft Intune: managed devices and detected apps (Graph), and the diagnostic stream: who a device is.

Formats: Graph v1.0 managedDevice and detectedApp; Azure Monitor's diagnostic records {time, category, operationName,
properties{}} of the categories Devices, DeviceComplianceOrg, OperationalLogs and AuditLogs. Personally owned work
profiles have the serial number "0"; MACs are often masked. A detected app has no package name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

import pyarrow as pa

from relaywatch.model.schemas import IdentifierKind
from relaywatch.model.tables import Batch
from relaywatch.sources.context_feed import (
    TEXT,
    DamagedRecord,
    email,
    fields,
    inside,
    joined,
    known_id,
    read_feed,
    struct,
)
from relaywatch.sources.context_rows import ContextRows
from relaywatch.sources.device_names import host_name, imei, mac_address, said
from relaywatch.sources.json_records import first_records
from relaywatch.sources.reading import Head, Reading

SKEW_BOUND_S: Final = 60.0
"""The service's clock; an inventory holds no times that matter more finely."""
DEVICES_OF_AN_APP: Final = 100_000
_CATEGORIES: Final = ("Devices", "IntuneDevices", "DeviceComplianceOrg", "OperationalLogs", "AuditLogs")
_ACCOUNT: Final = ("IntuneAccountId", "AuditEventId")
"""What tells Intune's properties from those of other services with such categories."""

_SCHEMA: Final = fields(
    "category", "operationName", "resultType", "identity",
    "id", "deviceName", "managedDeviceName", "managedDeviceOwnerType", "managementAgent", "complianceState",
    "userPrincipalName", "userDisplayName", "emailAddress", "operatingSystem", "osVersion", "androidSecurityPatchLevel",
    "jailBroken", "partnerReportedThreatState", "lastSyncDateTime", "serialNumber", "imei", "wiFiMacAddress",
    "ethernetMacAddress", "manufacturer", "model", "deviceCategoryDisplayName", "azureADDeviceId",
    "displayName", "version", "publisher", "deviceCount",
    managedDevices=pa.list_(struct("id", "deviceName")),
    properties=struct(
        "DeviceId", "IntuneDeviceId", "AADDeviceId", "ReferenceId", "DeviceName", "DeviceHostName", "UPN", "UserEmail",
        "UserName", "UPNSuffix", "SerialNumber", "IMEI", "WifiMacAddress", "EthernetMacAddress", "OS", "Os", "OS_loc",
        "OSVersion", "OsVersion", "DeviceOperatingSystem", "Model", "Manufacturer", "Ownership", "OwnerType_loc",
        "CompliantState", "ComplianceState_loc", "AlertType", "JailBroken", "AndroidPatchLevel", "LastContact",
        "CategoryName", "EnrollmentType", "FailureReason", "DeviceHealthThreatLevel_loc", "OperationalLogCategory",
        TargetObjectIds=pa.list_(TEXT),
    ),
)  # fmt: skip


class Intune:
    """Lists of Graph and records of the diagnostic stream."""

    name: ClassVar[str] = "intune"

    @staticmethod
    def fits(head: Head) -> bool:
        """A record is a managed device, a detected app, or a diagnostic record with Intune's account."""
        return any(_known(record) for record in first_records(head)[:3])

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Inventory: names, users and states of devices. The formats name their devices, so that no name is given."""
        rows = ContextRows(path, "sensor", SKEW_BOUND_S)
        yield from read_feed(path, stream, reading, _SCHEMA, rows, lambda record: _take(record, rows))


def _known(record: Mapping[str, Any]) -> bool:
    properties = record.get("properties")
    if isinstance(properties, dict):
        return record.get("category") in _CATEGORIES and any(name in properties for name in _ACCOUNT)
    return {"id", "deviceName", "managedDeviceOwnerType"} <= record.keys() or (
        {"id", "displayName", "publisher", "deviceCount"} <= record.keys()
    )


def _take(record: Mapping[str, Any], rows: ContextRows) -> str | None:
    category = record["category"]
    if category is None:
        if record["deviceCount"] is not None:
            return _detected_app(record, rows)
        _managed_device(record, rows)
        return None
    if category == "AuditLogs":
        return _audit(record, rows)
    if category in _CATEGORIES:
        return _diagnostic(record, rows)
    return "a diagnostic record of another category"


def _managed_device(record: Mapping[str, Any], rows: ContextRows) -> None:
    """Graph's managedDevice."""
    uid = _device(record["id"], record["position"], rows)
    state = joined(
        *_system(record["operatingSystem"], record["osVersion"], record["manufacturer"], record["model"]),
        _worded("ownership", record["managedDeviceOwnerType"]),
        _worded("compliance", record["complianceState"]),
        _worded("jailbroken", record["jailBroken"]),
        _worded("patch level", record["androidSecurityPatchLevel"]),
        _worded("threat state", record["partnerReportedThreatState"]),
        _worded("last contact", record["lastSyncDateTime"]),
    )
    _names(
        record["position"],
        uid,
        rows,
        serial=record["serialNumber"],
        number=record["imei"],
        macs=(record["wiFiMacAddress"], record["ethernetMacAddress"]),
        host=record["deviceName"],
        entra=record["azureADDeviceId"],
    )
    user = email(record["userPrincipalName"]) or email(record["emailAddress"]) or said(record["userDisplayName"])
    group = said(record["deviceCategoryDisplayName"])
    _describe(record["position"], uid, rows, user_name=user, device_group=group, detail=state or None)


def _detected_app(record: Mapping[str, Any], rows: ContextRows) -> str | None:
    """Graph's detectedApp: a display name, and devices only where the query expanded them."""
    label = said(record["displayName"])
    devices = [known_id(inside({"device": entry}, "device").get("id")) for entry in record["managedDevices"] or []]
    if label is None or not any(devices):
        return "an app found on a number of devices, without saying on which"
    if len(devices) > DEVICES_OF_AN_APP:
        raise DamagedRecord(f"an app on more than {DEVICES_OF_AN_APP} devices")
    detail = joined(_worded("version", record["version"]), _worded("publisher", record["publisher"])) or None
    for device in filter(None, devices):
        rows.add("inventory", record["position"], f"intune:{device}", app_label=label, detail=detail)
    return None


def _diagnostic(record: Mapping[str, Any], rows: ContextRows) -> str | None:
    """Devices, DeviceComplianceOrg, and the operational logs of compliance and enrolment."""
    values = inside(record, "properties")
    device = known_id(values.get("DeviceId") or values.get("IntuneDeviceId"))
    if device is None and record["category"] == "OperationalLogs":
        return "an operational record that names no device"
    uid = _device(device, record["position"], rows)
    system = values.get("OS") or values.get("OS_loc") or values.get("Os") or values.get("DeviceOperatingSystem")
    version = values.get("OSVersion") or values.get("OsVersion")
    state = joined(
        *_system(system, version, values.get("Manufacturer"), values.get("Model")),
        _worded("ownership", values.get("Ownership") or values.get("OwnerType_loc")),
        _worded("compliance", values.get("CompliantState") or values.get("ComplianceState_loc")),
        values.get("AlertType"),
        _worded("jailbroken", values.get("JailBroken")),
        _worded("patch level", values.get("AndroidPatchLevel")),
        _worded("threat level", values.get("DeviceHealthThreatLevel_loc")),
        _worded("enrolment", record["resultType"] if values.get("EnrollmentType") else None),
        _worded("last contact", values.get("LastContact")),
    )
    _names(
        record["position"],
        uid,
        rows,
        serial=values.get("SerialNumber"),
        number=values.get("IMEI"),
        macs=(values.get("WifiMacAddress"), values.get("EthernetMacAddress")),
        host=values.get("DeviceHostName") or values.get("DeviceName"),
        entra=values.get("AADDeviceId") or values.get("ReferenceId"),
    )
    group = said(values.get("CategoryName"))
    _describe(record["position"], uid, rows, user_name=_user(values), device_group=group, detail=state or None)
    return None


def _audit(record: Mapping[str, Any], rows: ContextRows) -> str | None:
    """An administrator's action on a device (wipe, retire, rename, ...), as what was said of the device."""
    action = said(record["operationName"]) or ""
    targets = [known_id(entry) for entry in inside(record, "properties").get("TargetObjectIds") or []]
    if not action.endswith("ManagedDevice") or not any(targets):
        return "an administrator's action that names no device"
    detail = joined(f"audit: {action}", record["identity"], record["resultType"])
    for target in dict.fromkeys(filter(None, targets)):
        rows.add("inventory", record["position"], _device(target, record["position"], rows), detail=detail)
    return None


def _device(intune_id: object, position: int, rows: ContextRows) -> str:
    """The device by its id in Intune, which every record of Intune has; raises without one."""
    known = known_id(intune_id)
    if known is None:
        raise DamagedRecord("names no device")
    uid = f"intune:{known}"
    rows.name(position, uid, IdentifierKind.MDM_ID, uid)
    return uid


def _names(
    position: int,
    uid: str,
    rows: ContextRows,
    *,
    serial: object,
    number: object,
    macs: tuple[object, ...],
    host: object,
    entra: object,
) -> None:
    """Further names of the device, each where it is a real one."""
    rows.name(position, uid, IdentifierKind.SERIAL, known_id(serial))
    rows.name(position, uid, IdentifierKind.IMEI, imei(number))
    for mac in dict.fromkeys(mac_address(value) for value in macs):
        rows.name(position, uid, IdentifierKind.MAC, mac)
    rows.name(position, uid, IdentifierKind.HOSTNAME, host_name(host))
    directory = known_id(entra)
    rows.name(position, uid, IdentifierKind.MDM_ID, f"entra:{directory}" if directory else None)


def _describe(position: int, uid: str, rows: ContextRows, **values: str | None) -> None:
    if any(value is not None for value in values.values()):
        rows.add("inventory", position, uid, **values)


def _system(*parts: str | None) -> list[str | None]:
    """Operating system with its version, maker with the model."""
    system, version, maker, model = (said(part) for part in parts)
    return [" ".join(filter(None, pair)) or None for pair in ((system, version), (maker, model))]


def _worded(word: str, value: str | None) -> str | None:
    text = said(value)
    return f"{word} {text}" if text is not None else None


def _user(values: Mapping[str, Any]) -> str | None:
    """The person: the principal name, whole or in its two halves, else the e-mail address or the name."""
    name, suffix = said(values.get("UserName")), said(values.get("UPNSuffix"))
    whole = f"{name}@{suffix}" if name and suffix and "@" not in name else name
    return email(values.get("UPN")) or email(values.get("UserEmail")) or whole
