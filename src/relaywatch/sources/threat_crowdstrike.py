"""CrowdStrike Falcon for Mobile: MobileDetectionSummaryEvent of the event stream API.

A detection is a verdict. The connections that it lists are flows of the device (no bytes, no end); the apps that it
lists are inventory. ConnectionDirection is a number: 0 was seen with connections that the device opened; 1 for accepted
ones is how Falcon's other sensors number it, so it is inferred.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final
from urllib.parse import urlsplit

import pyarrow as pa

from relaywatch.model.schemas import Direction, IdentifierKind, Observability
from relaywatch.model.tables import Batch
from relaywatch.sources.columns import canonical_address
from relaywatch.sources.context_feed import DamagedRecord, fields, inside, joined, moment, struct
from relaywatch.sources.context_rows import ContextRows
from relaywatch.sources.device_names import host_name, said
from relaywatch.sources.json_records import first_records
from relaywatch.sources.lines import shown
from relaywatch.sources.reading import Head, Reading
from relaywatch.sources.threat_feed import SKEW_BOUND_S, Verdicts, read_verdicts

CONNECTIONS_PER_RECORD: Final = 1000
_EVENT: Final = "MobileDetectionSummaryEvent"
_WAYS: Final = {
    0: (Direction.OUTBOUND, Observability.OBSERVED),
    1: (Direction.INBOUND, Observability.INFERRED),
}
_SCHEMA: Final = fields(
    metadata=struct("eventType", eventCreationTime=pa.int64()),
    event=struct(
        "SensorId", "ComputerName", "UserName", "ContextTimeStamp", "DetectName", "Name", "Technique", "Severity",
        "ApplicationName", "NetworkDetectionType",
        MobileAppsDetails=pa.list_(
            struct("AppIdentifier", "AndroidAppLabel", "AndroidAppVersionName", "AppInstallerInformation",
                   "IsContainerized")
        ),
        MobileNetworkConnections=pa.list_(
            struct("AccessTimestamp", "LocalAddress", "RemoteAddress", "Url", Protocol=pa.int64(),
                   LocalPort=pa.int64(), RemotePort=pa.int64(), ConnectionDirection=pa.int64())
        ),
    ),
)  # fmt: skip


class FalconMobile:
    """Detections of Falcon for Mobile."""

    name: ClassVar[str] = "crowdstrike-mobile"

    @staticmethod
    def fits(head: Head) -> bool:
        """A record's metadata names the event."""
        return any(
            isinstance(metadata := record.get("metadata"), dict) and metadata.get("eventType") == _EVENT
            for record in first_records(head)
        )

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Verdicts, the connections and apps that they list, and what they say of devices."""
        rows = ContextRows(path, "device", SKEW_BOUND_S)
        yield from read_verdicts(
            path, stream, reading, _SCHEMA, Verdicts(rows, "CrowdStrike", "crowdstrike", reading.device), _take
        )


def _take(record: Mapping[str, Any], verdicts: Verdicts) -> str | None:
    if inside(record, "metadata").get("eventType") != _EVENT:
        return "an event of the stream that is no mobile detection"
    event = inside(record, "event")
    at = moment(
        event.get("ContextTimeStamp") or inside(record, "metadata").get("eventCreationTime"), "ContextTimeStamp"
    )
    flows = [_flow(entry) for entry in (event.get("MobileNetworkConnections") or []) if entry]
    if len(flows) > CONNECTIONS_PER_RECORD:
        raise DamagedRecord(f"lists more than {CONNECTIONS_PER_RECORD} connections")
    uid = verdicts.device(event.get("SensorId"), user_name=said(event.get("UserName")))
    verdicts.rows.name(verdicts.position, uid, IdentifierKind.HOSTNAME, host_name(event.get("ComputerName")))
    found = (_app(app, uid, verdicts) for app in event.get("MobileAppsDetails") or [])
    packages = list(dict.fromkeys(package for package in found if package is not None))
    named = said((event.get("ApplicationName") or "").lstrip("."))
    what = joined(
        event.get("DetectName") or event.get("Name") or event.get("Technique") or "detection",
        event.get("NetworkDetectionType"),
        said(event.get("Severity")) and f"severity {event['Severity']}",
    )
    judged: list[str | None] = [*packages] or [named]
    for app in judged:
        verdicts.verdict(uid, at, what, package=app)
    for number, flow in enumerate(flows):
        flow_id = verdicts.position * CONNECTIONS_PER_RECORD + number
        package = named or (packages[0] if len(packages) == 1 else None)
        verdicts.rows.add("flows", verdicts.position, uid, flow_id=flow_id, android_package=package, **flow)
    return None


def _app(app: Mapping[str, Any] | None, uid: str, verdicts: Verdicts) -> str | None:
    """An app that a detection lists, as inventory."""
    if not app or (package := said(app.get("AppIdentifier"))) is None:
        return None
    version = said(app.get("AndroidAppVersionName"))
    contained = app.get("IsContainerized") == "true"
    verdicts.describe(
        uid,
        android_package=package,
        app_label=said(app.get("AndroidAppLabel")),
        installer=said(app.get("AppInstallerInformation")),
        detail=joined(version and f"version {version}", "in a work profile" if contained else None) or None,
    )
    return package


def _flow(entry: Mapping[str, Any]) -> dict[str, Any]:
    """One listed connection; raises DamagedRecord where its time, address, ports or protocol do not parse."""
    remote, local = said(entry["RemoteAddress"]), said(entry["LocalAddress"])
    address = canonical_address(remote) if remote else None
    if remote and address is None:
        raise DamagedRecord(f"RemoteAddress: {shown(remote)} is no address")
    protocol = entry["Protocol"]
    if protocol is None or not 0 <= protocol <= 255:
        raise DamagedRecord(f"Protocol: {shown(protocol)} is no IANA number")
    ports = {side: entry[name] for side, name in (("local_port", "LocalPort"), ("remote_port", "RemotePort"))}
    for port in ports.values():
        if port is not None and not 0 <= port <= 65_535:
            raise DamagedRecord(f"{shown(port)} is no port")
    way, seen = _WAYS.get(entry["ConnectionDirection"], (Direction.UNKNOWN, Observability.NOT_OBSERVABLE))
    host = _host(entry["Url"])
    return {
        "start_time": moment(entry["AccessTimestamp"], "AccessTimestamp"),
        "protocol_num": protocol,
        "direction_id": int(way),
        "direction_observability": int(seen),
        "local_ip": canonical_address(local) if local else None,
        "remote_ip": address,
        "remote_hostname": host,
        "hostname_observability": int(Observability.OBSERVED if host else Observability.NOT_OBSERVABLE),
        "bytes_observability": int(Observability.NOT_OBSERVABLE),
        **ports,
    }


def _host(url: str | None) -> str | None:
    """The host name of a URL; None where it is an address or none."""
    try:
        host = urlsplit(url if "://" in (url or "") else f"//{url}").hostname if url else None
    except ValueError:
        return None
    return host_name(host) if host and canonical_address(host) is None else None
