"""What each log-source row of AN1702 asks for: the evidence that satisfies it and the telemetry that evidence needs.

Declared once, here. Evidence, readiness and documentation look it up; nothing here reads telemetry.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

from relaywatch.model.tables import TableName


@dataclass(frozen=True, slots=True)
class TelemetryRequirement:
    """Columns of one canonical table without which an item of evidence cannot be had.

    kinds: names of the SignalKinds needed, for the signals table. sources: telemetry that fills the columns.
    """

    table: TableName
    columns: tuple[str, ...]
    sources: tuple[str, ...]
    why: str
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Requirement:
    """One data component: `Evidence.name` values that satisfy it, and the telemetry they need.

    analytic: whether the evidence satisfies AN1702's log-source row on the component; false for relaywatch's own
    extension. settings: the mutable elements of AN1702 that the evidence is judged by.
    """

    data_component: str
    evidence: tuple[str, ...]
    telemetry: tuple[TelemetryRequirement, ...]
    analytic: bool = True
    settings: tuple[str, ...] = ()


_APP: Final = ("device_uid", "android_package", "android_uid")
_REMOTE: Final = ("remote_ip", "remote_port", "remote_hostname")
_BYTES: Final = ("start_time", "end_time", "bytes_out", "bytes_in")

REQUIREMENTS: Final = (
    Requirement(
        "DC0021",
        ("listener", "vpn or proxy setting"),
        (
            TelemetryRequirement(
                "signals",
                (*_APP, "kind", "start_time", "local_port"),
                ("bug report socket tables", "dumpsys vpn_management and connectivity", "mobile EDR listener events"),
                "a listener or a VPN or proxy that the app set up shows that it made ready to relay",
                ("LISTENER", "RAW_SOCKET", "VPN", "PROXY_SETTING"),
            ),
        ),
    ),
    Requirement(
        "DC0114",
        ("no approved role",),
        (
            TelemetryRequirement(
                "inventory",
                ("device_uid", "android_package", "signing_digest", "installer"),
                ("Android Management API device reports", "Intune", "dumpsys package"),
                "an app's approved role can be looked up only for a known package, and safely only by its signature",
            ),
        ),
        settings=("AllowedAppList",),
    ),
    Requirement(
        "DC0078",
        ("unrelated destinations",),
        (
            TelemetryRequirement(
                "flows",
                (*_APP, *_REMOTE, "start_time", "end_time", "direction_id"),
                ("PCAPdroid", "Android network logging", "Zeek, Suricata or NetFlow joined to the app"),
                "how many unrelated parties one app talks to at a time needs each flow's app, remote and span",
            ),
        ),
        settings=("ConcurrentDestinationThreshold", "AllowedDestinationList"),
    ),
    Requirement(
        "DC0085",
        ("conserved bridges", "link mirrors targets"),
        (
            TelemetryRequirement(
                "flows",
                (*_APP, *_REMOTE, *_BYTES, "direction_id"),
                ("PCAPdroid in root mode", "capture on the device", "Zeek or Suricata on the device's segment"),
                "a client leg and its target leg are paired by direction, start, overlap and bytes each way",
            ),
            TelemetryRequirement(
                "volumes",
                (*_APP, "flow_id", "start_time", "duration_us", "bytes_out", "bytes_in"),
                ("packet captures", "perfetto network tracing", "exporters with interim records"),
                "a tunnel that carries many sessions is compared with its target legs interval by interval",
            ),
        ),
        settings=(
            "TimeWindow",
            "ByteSymmetryTolerance",
            "RelaySessionThreshold",
            "UplinkBytesThreshold",
            "AllowedDestinationList",
        ),
    ),
    Requirement(
        "DC0123",
        ("background", "no recent interaction"),
        (
            TelemetryRequirement(
                "signals",
                (*_APP, "kind", "start_time", "end_time"),
                ("dumpsys activity and usagestats", "security logging (keyguard)", "mobile EDR app state"),
                "whether a person was using the app while it relayed; AN1702 speaks of it but cites no row for it",
                ("FOREGROUND_UI", "SCREEN_ON", "KEYGUARD_LOCKED", "USER_INTERACTION"),
            ),
        ),
        analytic=False,
        settings=("ForegroundStateRequired",),
    ),
    Requirement(
        "DC0078",
        ("destinations of this install only", "public-IP look-up", "proxyware indicator"),
        (
            TelemetryRequirement(
                "flows",
                (*_APP, *_REMOTE, "start_time", "direction_id"),
                ("PCAPdroid", "DNS or TLS logs beside flows joined to the app", "telemetry of several phones"),
                "names that the app contacts, and whether its other installs contact them, explain what was bridged",
            ),
        ),
        analytic=False,
    ),
)
"""AN1702's four rows; Application State (DC0123), which its text asks for and its rows leave out; and what names and
other installs say, which satisfies no row because it never convicts."""


@cache
def _rows_by_evidence() -> dict[str, tuple[str, ...]]:
    names = {name for requirement in REQUIREMENTS for name in requirement.evidence}
    return {name: tuple(r.data_component for r in REQUIREMENTS if r.analytic and name in r.evidence) for name in names}


def log_sources_for(evidence_name: str) -> list[str]:
    """Name the data components of AN1702's rows that this evidence satisfies; empty for an extension's evidence.

    evidence_name: `Evidence.name`. Raises KeyError where no requirement declares the name.
    """
    try:
        return list(_rows_by_evidence()[evidence_name])
    except KeyError:
        raise KeyError(f"evidence {evidence_name!r} is declared in no Requirement") from None
