"""Lookout's Mobile Risk API: verdicts, and what its events say of devices. Corroboration only.

v2: {type, created_time, enterprise_guid, threat{}, device{}, target{}, actor{}};
v1: {type, eventTime, details{}, target{}}.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

import pyarrow as pa

from relaywatch.model.tables import Batch
from relaywatch.sources.context_feed import TEXT, email, fields, inside, joined, known_id, moment, struct
from relaywatch.sources.context_rows import ContextRows
from relaywatch.sources.device_names import said
from relaywatch.sources.json_records import first_records
from relaywatch.sources.reading import Head, Reading
from relaywatch.sources.threat_feed import OF_ANOTHER_KIND, SKEW_BOUND_S, Verdicts, read_verdicts


class Lookout:
    """Events of Lookout's Mobile Risk API, both versions."""

    name: ClassVar[str] = "lookout"

    @staticmethod
    def fits(head: Head) -> bool:
        """A record has the keys of a v2 or a v1 event."""
        return any(
            {"type", "enterprise_guid", "created_time"} <= record.keys()
            or {"type", "id", "eventTime", "details", "target"} <= record.keys()
            for record in first_records(head)[:3]
        )

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Verdicts, and what the events say of devices."""
        rows = ContextRows(path, "sensor", SKEW_BOUND_S)
        yield from read_verdicts(
            path, stream, reading, _LOOKOUT, Verdicts(rows, "Lookout", "lookout", reading.device), _lookout
        )


_LOOKOUT_APP: Final = ("application_name", "package_name", "package_sha")
_LOOKOUT_ABOUT: Final = ("severity", "type", "status", "classification", "action")
_LOOKOUT_END: Final = struct(
    "guid", "type", "emailAddress", "email_address", "platform", "externalId", "mdmConnectorId"
)
_LOOKOUT: Final = fields(
    "type",
    "created_time",
    "eventTime",
    threat=struct(
        *_LOOKOUT_ABOUT, *_LOOKOUT_APP, classifications=pa.list_(TEXT), details=struct(*_LOOKOUT_APP, "file_name")
    ),
    smishing_alert=struct("type", "severity"),
    device=struct(
        "guid", "platform", "profile_type", "email_address", "os_version", "model", "security_status",
        info=struct("external_id"), details=struct("external_id"), status=struct("security_status"),
        hardware=struct("manufacturer", "model"), software=struct("os_version"),
        parent_status=struct("parent_device_guid"),
    ),
    details=struct(*_LOOKOUT_ABOUT, "applicationName", "packageName", "packageSha", classifications=pa.list_(TEXT)),
    target=_LOOKOUT_END,
    actor=_LOOKOUT_END,
)  # fmt: skip


def _lookout(record: Mapping[str, Any], verdicts: Verdicts) -> str | None:
    kind = (record["type"] or "").upper()
    if kind == "AUDIT":
        return "an administrator's action"
    if kind not in ("THREAT", "DEVICE", "SMISHING_ALERT"):
        return OF_ANOTHER_KIND
    at = moment(record["created_time"] or record["eventTime"], "created_time")
    device, target = inside(record, "device"), inside(record, "target")
    uid = verdicts.device(_lookout_device(record))
    outside = inside(device, "info").get("external_id") or inside(device, "details").get("external_id")
    verdicts.names(uid, mdm=outside or target.get("externalId"))
    verdicts.describe(
        uid,
        user_name=email(device.get("email_address") or target.get("email_address") or target.get("emailAddress")),
        detail=_lookout_description(device) or said(target.get("platform")),
    )
    if kind == "SMISHING_ALERT":
        alert = inside(record, "smishing_alert")
        verdicts.verdict(uid, at, joined(alert.get("type") or "smishing", alert.get("severity")))
    elif kind == "THREAT":
        _lookout_threat(record, uid, at, verdicts)
    return None


def _lookout_device(record: Mapping[str, Any]) -> str | None:
    """The device an event is of: named, or the end of the event that is a device."""
    if found := known_id(inside(record, "device").get("guid")):
        return found
    for end in (inside(record, "target"), inside(record, "actor")):
        if (end.get("type") or "").upper() == "DEVICE" and (found := known_id(end.get("guid"))):
            return found
    # v1 names the device in `target`, whose id may be only the MDM's.
    return known_id(inside(record, "target").get("externalId"))


def _lookout_description(device: Mapping[str, Any]) -> str | None:
    parent = known_id(inside(device, "parent_status").get("parent_device_guid"))
    hardware, software = inside(device, "hardware"), inside(device, "software")
    state = inside(device, "status").get("security_status") or device.get("security_status")
    text = joined(
        device.get("platform"),
        software.get("os_version") or device.get("os_version"),
        hardware.get("model") or device.get("model"),
        device.get("profile_type") and f"profile {device['profile_type']}",
        state and f"security {state}",
        parent and f"of lookout:{parent}",
    )
    return text or None


def _lookout_threat(record: Mapping[str, Any], uid: str, at: int, verdicts: Verdicts) -> None:
    """v2 holds the threat in `threat` with the app in its `details`, v1 all in `details`."""
    threat = inside(record, "threat") or inside(record, "details")
    app = inside(threat, "details") or threat
    package = said(app.get("package_name") or app.get("packageName"))
    label = said(app.get("application_name") or app.get("applicationName"))
    digest = said(app.get("package_sha") or app.get("packageSha"))
    if package is not None:
        verdicts.describe(
            uid, android_package=package, app_label=label, detail=f"package SHA-1 {digest}" if digest else None
        )
    classes: list[Any] = [text for entry in threat.get("classifications") or [] if (text := said(entry))]
    words: list[object] = [threat.get("type"), *(classes or [threat.get("classification")])]
    what = " ".join(word for part in words if (word := said(part)))
    file = None if package else app.get("file_name")
    state = threat.get("status") or threat.get("action")
    verdicts.verdict(uid, at, joined(what or "threat", file, threat.get("severity"), state), package=package)
