"""Findings as OCSF Detection Finding events (class 2004), NDJSON, by py-ocsf-models (which models OCSF 1.5.0).

Added to what the library serialises, because its models lack the attribute or demand ones that a phone does not have:

- top level: device, actor (profile host), verdict_id, verdict (profile incident), is_alert;
- device: the library requires hostname, ip, name and region, OCSF only type_id and one identifier;
- evidences[]: connection_info, src_endpoint, dst_endpoint, verdict, uid;
- finding_info.analytic.state_id and the observables' type_id 11 (port), absent from the library's enum.

Android's package, uid, user id and signing digest have no place in OCSF and stand in unmapped.android.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, TextIO

from py_ocsf_models import OCSF_VERSION
from py_ocsf_models.events.findings.activity_id import ActivityID
from py_ocsf_models.events.findings.confidence_id import ConfidenceID
from py_ocsf_models.events.findings.detection_finding import DetectionFinding
from py_ocsf_models.events.findings.detection_finding_type_id import DetectionFindingTypeID
from py_ocsf_models.events.findings.severity_id import SeverityID
from py_ocsf_models.events.findings.status_id import StatusID
from py_ocsf_models.objects.analytic import Analytic
from py_ocsf_models.objects.device import DeviceType
from py_ocsf_models.objects.finding_info import FindingInformation
from py_ocsf_models.objects.metadata import Metadata
from py_ocsf_models.objects.mitre_attack import MITREAttack, Tactic, Technique
from py_ocsf_models.objects.observable import Observable
from py_ocsf_models.objects.observable import TypeID as ObservableType
from py_ocsf_models.objects.operating_system import OperatingSystem
from py_ocsf_models.objects.operating_system import TypeID as OperatingSystemType
from py_ocsf_models.objects.product import Product
from py_ocsf_models.objects.remediation import Remediation
from py_ocsf_models.objects.verdict import VerdictID

from relaywatch.model.finding import Bridge, Finding, Leg, Topology, Verdict
from relaywatch.outputs.native import json_line
from relaywatch.outputs.ranking import strongest_bridges
from relaywatch.outputs.text import VERDICT_TEXT, app_name, sentence, utc

BRIDGES: Final = 25
OBSERVABLES: Final = 200
"""Bounds of the lists that grow with an episode; the NDJSON finding holds the rest."""

VERDICT: Final = {
    Verdict.RELAY: VerdictID.SecurityRisk,
    Verdict.SUSPECTED_RELAY: VerdictID.Suspicious,
    Verdict.SANCTIONED_RELAY: VerdictID.Disregard,
    Verdict.INSUFFICIENT_TELEMETRY: VerdictID.InsufficientData,
}
"""True Positive is an analyst's word, not a detector's. A sanctioned relay is real, so not Benign: Disregard."""

SEVERITY: Final = {
    Verdict.RELAY: SeverityID.High,
    Verdict.SUSPECTED_RELAY: SeverityID.Medium,
    Verdict.SANCTIONED_RELAY: SeverityID.Informational,
    Verdict.INSUFFICIENT_TELEMETRY: SeverityID.Low,
}
ALERTS: Final = frozenset({Verdict.RELAY, Verdict.SUSPECTED_RELAY})

_VERDICT_CAPTION: Final = {
    VerdictID.SecurityRisk: "Security Risk",
    VerdictID.Suspicious: "Suspicious",
    VerdictID.Disregard: "Disregard",
    VerdictID.InsufficientData: "Insufficient Data",
}
_BEHAVIORAL: Final = 2
_ACTIVE: Final = 1
_PORT: Final = 11
_DIRECTION: Final = {1: "Inbound", 2: "Outbound"}
_PROTOCOLS: Final = {"tcp": 6, "udp": 17}
_KEPT: Final = {
    "schema_version",
    "verdict",
    "probability",
    "score",
    "topology",
    "bridges",
    "bytes_in",
    "bytes_out",
    "client_bytes_in",
    "client_bytes_out",
    "listener_port",
    "gateways",
    "spread",
    "context",
    "indicators",
    "not_observable",
    "settings",
    "attack",
    "exception",
    "sources",
}
"""Keys of the finding that OCSF has no attribute for."""
_MOBILE_TACTICS: Final = {"defense-evasion": "TA0030", "command-and-control": "TA0037"}
"""Mobile ATT&CK's own tactic ids; enterprise's differ."""


def write_ocsf(findings: Iterable[Finding], stream: TextIO) -> None:
    """Write one Detection Finding a line; the same findings give the same bytes."""
    for finding in findings:
        stream.write(json_line(ocsf_event(finding)))


def ocsf_event(finding: Finding) -> dict[str, Any]:
    """Return one Detection Finding as JSON values: class 2004, activity Create, times in epoch milliseconds.

    `time`, the finding's creation time in OCSF, is when the episode was last seen: outputs hold no wall clock.
    """
    event: dict[str, Any] = _modelled(finding).model_dump(mode="json", exclude_none=True)
    event["finding_info"]["analytic"] |= {"state_id": _ACTIVE, "state": "Active"}
    verdict = VERDICT[finding.verdict]
    event |= {
        "device": device_object(finding),
        "verdict_id": int(verdict),
        "verdict": _VERDICT_CAPTION[verdict],
        "is_alert": finding.verdict in ALERTS,
        "evidences": _evidences(finding),
    }
    if actor := _actor(finding):
        event["actor"] = actor
    if finding.listener_port is not None:
        port = {"name": "unmapped.listener_port", "type_id": _PORT, "type": "Port", "value": str(finding.listener_port)}
        event["observables"].append(port)
    return event


def severity(finding: Finding) -> SeverityID:
    """Grade severity by verdict; Critical where a relay let a client from outside into a private network."""
    inside = any(row.lateral for row in finding.destinations)
    return SeverityID.Critical if inside and finding.verdict is Verdict.RELAY else SEVERITY[finding.verdict]


def confidence(finding: Finding) -> ConfidenceID:
    """Grade confidence by probability, from 0.9 High, from 0.5 Medium; Low wherever telemetry was insufficient."""
    if finding.verdict is Verdict.INSUFFICIENT_TELEMETRY or finding.probability < 0.5:
        return ConfidenceID.Low
    return ConfidenceID.High if finding.probability >= 0.9 else ConfidenceID.Medium


def device_object(finding: Finding) -> dict[str, Any]:
    """Return the phone as an OCSF device."""
    system = OperatingSystem(name="Android", type_id=OperatingSystemType.Android, type="Android")
    device: dict[str, Any] = {
        "uid": finding.device.uid,
        "type_id": int(DeviceType.Mobile),
        "type": "Mobile",
        "os": system.model_dump(mode="json", exclude_none=True),
    }
    if finding.device.group:
        device["groups"] = [{"name": finding.device.group}]
    return device


def _modelled(finding: Finding) -> DetectionFinding:
    begin, end = epoch_ms(finding.first_seen), epoch_ms(finding.last_seen)
    level, trust = severity(finding), confidence(finding)
    return DetectionFinding(
        activity_id=ActivityID.Create,
        activity_name="Create",
        category_name="Findings",
        class_name="Detection Finding",
        type_uid=DetectionFindingTypeID.Create,
        type_name="Detection Finding: Create",
        time=end,
        start_time=begin,
        end_time=end,
        duration=end - begin,
        timezone_offset=0,
        count=finding.bridges,
        severity_id=level,
        severity=level.name,
        confidence_id=trust,
        confidence=trust.name,
        confidence_score=int(100 * finding.probability),
        status_id=StatusID.New,
        status="New",
        message=sentence(finding),
        metadata=_metadata(finding),
        finding_info=_finding_info(finding, begin, end),
        observables=_observables(finding),
        remediation=Remediation(
            desc=" ".join((*finding.response.preserve, *finding.response.ask, *finding.response.contain))
        ),
        unmapped=_unmapped(finding),
    )


def _metadata(finding: Finding) -> Metadata:
    name, _, version = finding.producer.partition(" ")
    product = Product(name=name, vendor_name=name, version=version or None)
    return Metadata(product=product, version=OCSF_VERSION, profiles=["host", "incident"], uid=finding.finding_id)


def _finding_info(finding: Finding, begin: int, end: int) -> FindingInformation:
    attack = finding.attack
    technique = Technique(
        uid=attack.technique_id,
        name=attack.technique_name,
        src_url=f"https://attack.mitre.org/techniques/{attack.technique_id}/",
    )
    tactics = [Tactic(uid=_MOBILE_TACTICS.get(name), name=name.replace("-", " ").title()) for name in attack.tactics]
    return FindingInformation(
        uid=finding.finding_id,
        title=f"{VERDICT_TEXT[finding.verdict].capitalize()}: {app_name(finding)}",
        desc=sentence(finding),
        analytic=Analytic(
            uid=attack.analytic_id,
            name=f"{attack.technique_name}, {attack.strategy_id}",
            type="Behavioral",
            type_id=_BEHAVIORAL,
            version=attack.analytic_version,
        ),
        attacks=[
            MITREAttack(technique=technique, tactic=tactic, version=attack.release) for tactic in tactics or [None]
        ],
        data_sources=[f"{row.data_component} {row.data_component_name}" for row in attack.log_sources if row.satisfied],
        types=["Relay", finding.topology.value],
        first_seen_time=begin,
        last_seen_time=end,
    )


def _actor(finding: Finding) -> dict[str, Any]:
    actor: dict[str, Any] = {"app_name": finding.app.label or finding.app.package, "app_uid": finding.app.package}
    if finding.user.name:
        actor["user"] = {"name": finding.user.name, "type_id": 0}
    return {name: value for name, value in actor.items() if value is not None}


def _evidences(finding: Finding) -> list[dict[str, Any]]:
    """List the items that moved the odds, then the strongest bridges with both their legs."""
    verdict = {"verdict_id": int(VERDICT[finding.verdict]), "verdict": _VERDICT_CAPTION[VERDICT[finding.verdict]]}
    items = [
        {"name": item.name, "uid": f"evidence-{number}", "data": item.model_dump(mode="json"), **verdict}
        for number, item in enumerate(finding.evidence, 1)
    ]
    bridges = strongest_bridges(finding, BRIDGES)
    return items + [{**_bridge(finding, bridge), **verdict} for bridge in bridges]


def _bridge(finding: Finding, bridge: Bridge) -> dict[str, Any]:
    """Describe one bridge: the connection is the target leg's, device to destination; the client leg is in data."""
    client, target = finding.client_legs[bridge.client], finding.target_legs[bridge.target]
    direction = 1 if finding.topology is Topology.ACCEPTED else 2
    return {
        "name": "bridge",
        "uid": f"bridge-{bridge.client}-{bridge.target}",
        "connection_info": _connection(target, 2),
        "src_endpoint": {"uid": finding.device.uid},
        "dst_endpoint": _endpoint(target),
        "data": {
            "bridge": bridge.model_dump(mode="json"),
            "client_leg": client.model_dump(mode="json"),
            "client_direction": _DIRECTION[direction],
            "target_leg": target.model_dump(mode="json"),
        },
    }


def _connection(leg: Leg, direction: int) -> dict[str, Any]:
    name = leg.protocol.lower()
    info = {"direction_id": direction, "direction": _DIRECTION[direction], "protocol_name": name}
    return info | ({"protocol_num": _PROTOCOLS[name]} if name in _PROTOCOLS else {})


def _endpoint(leg: Leg) -> dict[str, Any]:
    found = {"ip": leg.address, "port": leg.port, "hostname": leg.hostname}
    return {name: value for name, value in found.items() if value not in (None, "")}


def _observables(finding: Finding) -> list[Observable]:
    """List device, app, certificate, user, gateways, then destinations; each value once."""
    values: dict[tuple[ObservableType, str], Observable] = {}

    def add(kind: ObservableType, name: str, value: str | None, caption: str) -> None:
        if value and (kind, value) not in values and len(values) < OBSERVABLES:
            values[kind, value] = Observable(name=name, type_id=kind, type=caption, value=value)

    add(ObservableType.Resource_UID, "device.uid", finding.device.uid, "Resource UID")
    add(ObservableType.Other, "unmapped.android.package", finding.app.package, "Android package")
    add(ObservableType.Hash, "unmapped.android.signing_digest", finding.app.signing_digest, "Hash")
    add(ObservableType.User_Name, "actor.user.name", finding.user.name, "User Name")
    for remote in finding.gateways:
        add(ObservableType.IP_Address, "unmapped.gateways.address", remote.address, "IP Address")
        add(ObservableType.Hostname, "unmapped.gateways.hostname", remote.hostname, "Hostname")
    for destination in finding.destinations:
        for host in destination.hostnames:
            add(ObservableType.Hostname, "evidences.dst_endpoint.hostname", host, "Hostname")
        for address in destination.addresses:
            add(ObservableType.IP_Address, "evidences.dst_endpoint.ip", address, "IP Address")
    return list(values.values())


def _unmapped(finding: Finding) -> dict[str, Any]:
    app = finding.app
    android = {
        "package": app.package,
        "uid": app.uid,
        "user_id": app.user_id,
        "signing_digest": app.signing_digest,
        "label": app.label,
    }
    whole = finding.model_dump(mode="json", include=_KEPT)
    return {"android": {name: value for name, value in android.items() if value is not None}, **whole}


def epoch_ms(moment: datetime) -> int:
    """Return milliseconds since 1970, rounded down, in whole numbers so that no float touches a time."""
    since = utc(moment) - datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
