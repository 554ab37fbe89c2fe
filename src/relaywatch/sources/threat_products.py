"""Verdicts of Zimperium, Pradeo and Check Point Harmony Mobile: corroboration, and who a device is.

Formats: the threats of Zimperium's zConsole v2 API; Pradeo's events {id, creationDate, source, type, content{}};
Harmony Mobile's events, whose times without a zone are taken as UTC with a wide bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

from relaywatch.model.schemas import IdentifierKind, Observability
from relaywatch.model.tables import Batch
from relaywatch.sources.context_feed import DamagedRecord, email, fields, inside, joined, known_id, moment, struct
from relaywatch.sources.context_rows import ContextRows
from relaywatch.sources.device_names import instant, said
from relaywatch.sources.json_records import first_records
from relaywatch.sources.reading import Head, Reading
from relaywatch.sources.threat_feed import OF_ANOTHER_KIND, SKEW_BOUND_S, Verdicts, read_verdicts


class Zimperium:
    """Threats of Zimperium's zConsole v2 API."""

    name: ClassVar[str] = "zimperium"

    @staticmethod
    def fits(head: Head) -> bool:
        """A record has the keys of a threat."""
        return any({"threatTypeName", "severityName", "device"} <= record.keys() for record in first_records(head)[:3])

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Verdicts, and what the threats say of devices."""
        rows = ContextRows(path, "device", SKEW_BOUND_S)
        feed = Verdicts(rows, "Zimperium", "zimperium", reading.device)
        yield from read_verdicts(path, stream, reading, _ZIMPERIUM, feed, _zimperium)


_ZIMPERIUM: Final = fields(
    "timestamp", "threatTypeName", "severityName", "vectorName", "deviceId", "deviceOwner", "teamName", "simulated",
    device=struct("id", "mdmDeviceId", "model", "zdeviceId", os=struct("name", "version")),
    generalInfo=struct("ssid"),
)  # fmt: skip


def _zimperium(record: Mapping[str, Any], verdicts: Verdicts) -> str | None:
    if (record["simulated"] or "").lower() == "true":
        return "a simulated threat"
    at = moment(record["timestamp"], "timestamp")
    device = inside(record, "device")
    uid = verdicts.device(device.get("id") or record["deviceId"])
    verdicts.names(uid, mdm=device.get("mdmDeviceId"))
    system = inside(device, "os")
    network = said(inside(record, "generalInfo").get("ssid"))
    verdicts.describe(
        uid,
        user_name=said(record["deviceOwner"]),
        device_group=said(record["teamName"]),
        detail=joined(system.get("name"), system.get("version"), device.get("model")) or None,
    )
    what = said(record["threatTypeName"]) or "threat"
    verdicts.verdict(uid, at, joined(what, record["vectorName"], network and f"on {network}", record["severityName"]))
    return None


class Pradeo:
    """Pradeo's events: detections, compliance of apps, settings of devices."""

    name: ClassVar[str] = "pradeo"

    @staticmethod
    def fits(head: Head) -> bool:
        """A record has an event's keys."""
        return any(
            {"id", "creationDate", "source", "type", "content"} <= record.keys() and isinstance(record["content"], dict)
            for record in first_records(head)[:3]
        )

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Verdicts, and what the events say of devices and apps."""
        rows = ContextRows(path, "sensor", SKEW_BOUND_S)
        yield from read_verdicts(
            path, stream, reading, _PRADEO, Verdicts(rows, "Pradeo", "pradeo", reading.device), _pradeo
        )


_PRADEO_DEVICE: Final = struct(
    "id", "serialNumber", "imei", "name", "email", "declaredOperatingSystem", "declaredModel", "byod"
)
_PRADEO_APP: Final = struct("name", "sha256", "version", package=struct("package", "system"))
_PRADEO: Final = fields(
    "creationDate",
    "type",
    "category",
    content=struct(
        "id", "email", "metric", "type", "status",
        deviceApplicationCompliance=struct(
            "status",
            deviceApplication=struct("installedAt", "uninstalledAt", application=_PRADEO_APP, device=_PRADEO_DEVICE),
        ),
        deviceNetworkStatusRecord=struct("value", device=_PRADEO_DEVICE, deviceNetworkStatus=struct("name")),
        deviceSystemStatusRecord=struct("value", device=_PRADEO_DEVICE, deviceSystemStatus=struct("name")),
    ),
)  # fmt: skip


def _pradeo(record: Mapping[str, Any], verdicts: Verdicts) -> str | None:
    content, kind = inside(record, "content"), record["type"]
    at = moment(record["creationDate"], "creationDate")
    if kind == "DeviceDetection":
        uid = verdicts.device(content.get("id"))
        verdicts.describe(uid, user_name=email(content.get("email")))
        what = said(content.get("type")) or said(content.get("metric")) or "detection"
        verdicts.verdict(uid, at, joined(what, record["category"], content.get("status")))
        return None
    if compliance := inside(content, "deviceApplicationCompliance"):
        _pradeo_app(compliance, at, verdicts)
        return None
    for record_name, status_name in (
        ("deviceNetworkStatusRecord", "deviceNetworkStatus"),
        ("deviceSystemStatusRecord", "deviceSystemStatus"),
    ):
        if status := inside(content, record_name):
            uid = _pradeo_device(inside(status, "device"), verdicts)
            name = said(inside(status, status_name).get("name"))
            verdicts.describe(uid, detail=f"{name} {status.get('value')}" if name else None)
            return None
    return "an application known to the product, on no device" if kind == "ApplicationCreated" else OF_ANOTHER_KIND


def _pradeo_device(device: Mapping[str, Any], verdicts: Verdicts) -> str:
    uid = verdicts.device(device.get("id"), user_name=email(device.get("email")))
    verdicts.names(uid, number=device.get("imei"))
    verdicts.rows.name(verdicts.position, uid, IdentifierKind.SERIAL, known_id(device.get("serialNumber")))
    verdicts.describe(uid, detail=joined(device.get("declaredOperatingSystem"), device.get("declaredModel")) or None)
    return uid


def _pradeo_app(compliance: Mapping[str, Any], at: int, verdicts: Verdicts) -> None:
    """One app on one device, with the product's opinion of it."""
    installed = inside(compliance, "deviceApplication")
    app = inside(installed, "application")
    package = said(inside(app, "package").get("package"))
    if package is None:
        raise DamagedRecord("names no package")
    uid = _pradeo_device(inside(installed, "device"), verdicts)
    digest, opinion = said(app.get("sha256")), said(compliance.get("status")) or "no opinion"
    gone = said(installed.get("uninstalledAt"))
    verdicts.describe(
        uid,
        android_package=package,
        app_label=said(app.get("name")),
        detail=joined(opinion, digest and f"APK SHA-256 {digest}", gone and f"removed {gone}"),
    )
    if opinion.lower() not in ("approved", "no opinion"):
        verdicts.verdict(uid, at, joined("application", opinion), package=package)


class HarmonyMobile:
    """Check Point Harmony Mobile's events."""

    name: ClassVar[str] = "harmony-mobile"

    @staticmethod
    def fits(head: Head) -> bool:
        """A record has an event's keys."""
        return any({"threat_factors", "device_id", "mdm_uuid"} <= record.keys() for record in first_records(head)[:3])

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Verdicts, and what the events say of devices."""
        rows = ContextRows(path, "sensor", SKEW_BOUND_S)
        feed = Verdicts(rows, "Harmony Mobile", "harmony", reading.device)
        yield from read_verdicts(path, stream, reading, _HARMONY, feed, _harmony)


_HARMONY: Final = fields(
    "event", "event_timestamp", "backend_last_updated", "device_id", "mdm_uuid", "email", "severity", "threat_factors",
    "attack_vector", "details", "device_model", "device_rooted", "os_version", "client_version",
)  # fmt: skip


def _harmony(record: Mapping[str, Any], verdicts: Verdicts) -> str | None:
    told = instant(record["event_timestamp"])
    late = instant(record["backend_last_updated"])
    at = told or late
    if at is None:
        raise DamagedRecord("neither event_timestamp nor backend_last_updated is a time")
    uid = verdicts.device(record["device_id"])
    verdicts.names(uid, mdm=record["mdm_uuid"])
    rooted = True if (record["device_rooted"] or "").lower() == "true" else None
    verdicts.describe(
        uid,
        user_name=email(record["email"]),
        detail=joined(record["device_model"], record["os_version"], "rooted" if rooted else None, record["event"])
        or None,
    )
    factors = said(record["threat_factors"])
    if factors is not None and (record["event"] or "").lower() != "compliant":
        what = joined(factors, record["attack_vector"], record["event"], record["details"], record["severity"])
        seen = Observability.OBSERVED if told else Observability.INFERRED
        verdicts.verdict(uid, at.us, what, seen=seen, zoned=at.zoned)
    return None
