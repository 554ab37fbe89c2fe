"""Populations that could not be judged as OCSF Detection Findings with the verdict Insufficient Data, NDJSON.

One event a population and window in which some app has `provable: no`. It is no alert: it tells a SIEM that silence
there means nothing, what is missing, and what would show it. As in ocsf.py, verdict and is_alert are added to what the
library models. There is no device and so no profile host: the population stands in resources.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final, TextIO

from py_ocsf_models import OCSF_VERSION
from py_ocsf_models.events.findings.activity_id import ActivityID
from py_ocsf_models.events.findings.confidence_id import ConfidenceID
from py_ocsf_models.events.findings.detection_finding import DetectionFinding
from py_ocsf_models.events.findings.detection_finding_type_id import DetectionFindingTypeID
from py_ocsf_models.events.findings.severity_id import SeverityID
from py_ocsf_models.events.findings.status_id import StatusID
from py_ocsf_models.objects.analytic import Analytic
from py_ocsf_models.objects.finding_info import FindingInformation
from py_ocsf_models.objects.group import Group
from py_ocsf_models.objects.metadata import Metadata
from py_ocsf_models.objects.mitre_attack import MITREAttack, Technique
from py_ocsf_models.objects.observable import Observable
from py_ocsf_models.objects.observable import TypeID as ObservableType
from py_ocsf_models.objects.product import Product
from py_ocsf_models.objects.remediation import Remediation
from py_ocsf_models.objects.resource_details import ResourceDetails
from py_ocsf_models.objects.verdict import VerdictID

from relaywatch.model.assurance import CoverageReport, PopulationCoverage
from relaywatch.outputs.assurance_text import answers, gap_words, separate_groups, share, topology_word
from relaywatch.outputs.native import json_line, plain_object
from relaywatch.outputs.ocsf import epoch_ms
from relaywatch.outputs.text import period, plural, printable

ANALYTIC: Final = {"uid": "AN1702", "name": "Proxy Through Victim, DET0631", "version": "1.1"}
TECHNIQUE: Final = {"uid": "T1604", "name": "Proxy Through Victim", "release": "19.1"}
"""As the vendored ATT&CK objects have them, which outputs do not import."""
_BEHAVIORAL: Final = 2
_ACTIVE: Final = 1
_INSUFFICIENT: Final = {"verdict_id": int(VerdictID.InsufficientData), "verdict": "Insufficient Data"}


def write_insufficient(report: CoverageReport, stream: TextIO) -> None:
    """Write one Detection Finding a line; the same report gives the same bytes."""
    for event in insufficient_events(report):
        stream.write(json_line(event))


def insufficient_events(report: CoverageReport) -> Iterator[dict[str, Any]]:
    """Yield one event as JSON values for each population and window that holds apps that cannot be judged.

    Where devices are in groups, each group has its events and all devices together have none: nothing is told twice.
    """
    for population in separate_groups(report.populations):
        if population.provable["every"].no > 0.0:
            yield _event(population, report)


def _event(population: PopulationCoverage, report: CoverageReport) -> dict[str, Any]:
    event: dict[str, Any] = _modelled(population, report).model_dump(mode="json", exclude_none=True)
    event["finding_info"]["analytic"] |= {"state_id": _ACTIVE, "state": "Active"}
    gaps = {gap.name: gap for gap in report.gaps}
    held = [{"share": each.share, **plain_object(gaps[each.name])} for each in population.gaps if each.name in gaps]
    evidences = [{"name": item["name"], "uid": f"gap-{item['name']}", "data": item, **_INSUFFICIENT} for item in held]
    return event | {**_INSUFFICIENT, "is_alert": False} | ({"evidences": evidences} if evidences else {})


def _modelled(population: PopulationCoverage, report: CoverageReport) -> DetectionFinding:
    begin, end = epoch_ms(population.start), epoch_ms(population.end)
    uid = _uid(population)
    name, _, version = report.producer.partition(" ")
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
        count=max(round(population.provable["every"].no * population.app_windows), 1),
        severity_id=SeverityID.Informational,
        severity=SeverityID.Informational.name,
        confidence_id=ConfidenceID.Low,
        confidence=ConfidenceID.Low.name,
        status_id=StatusID.New,
        status="New",
        status_detail=_missing(population, report),
        message=_sentence(population),
        metadata=Metadata(
            product=Product(name=name, vendor_name=name, version=version or None),
            version=OCSF_VERSION,
            profiles=["incident"],
            uid=uid,
        ),
        finding_info=_finding_info(population, report, uid),
        observables=[
            Observable(
                name="resources.group.name", type_id=ObservableType.Other, type="Device group", value=population.group
            )
        ],
        resources=[ResourceDetails(group=Group(name=population.group), type="Device group")],
        remediation=Remediation(desc=_remedy(population)),
        unmapped={"population": plain_object(population)},
    )


def _finding_info(population: PopulationCoverage, report: CoverageReport, uid: str) -> FindingInformation:
    technique = Technique(
        uid=TECHNIQUE["uid"],
        name=TECHNIQUE["name"],
        src_url=f"https://attack.mitre.org/techniques/{TECHNIQUE['uid']}/",
    )
    return FindingInformation(
        uid=uid,
        title=f"Insufficient telemetry: {printable(population.group)}",
        desc=f"{_sentence(population)} {_missing(population, report)}".strip(),
        analytic=Analytic(type="Behavioral", type_id=_BEHAVIORAL, **ANALYTIC),
        attacks=[MITREAttack(technique=technique, version=TECHNIQUE["release"])],
        types=["Relay", "insufficient_telemetry"],
        first_seen_time=epoch_ms(population.start),
        last_seen_time=epoch_ms(population.end),
    )


def _uid(population: PopulationCoverage) -> str:
    """Name the population and window alone, so that a window that is counted again is the same finding."""
    parts = f"{population.group}\x00{epoch_ms(population.start)}\x00{epoch_ms(population.end)}"
    return hashlib.sha256(f"relaywatch insufficient\x00{parts}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _sentence(population: PopulationCoverage) -> str:
    by_topology = "; ".join(
        f"{topology_word(name)} {answers(shares)}" for name, shares in population.provable.items() if name != "every"
    )
    return (
        f"Of {plural(population.app_windows, 'app window')} on {plural(population.devices, 'device')} of "
        f"{printable(population.group)}, {period(population.start, population.end)}, "
        f"{share(population.provable['every'].no)} could not show a relay of every kind, so that no finding there is "
        f"not proof of absence. Provable: {by_topology}."
    )


def _missing(population: PopulationCoverage, report: CoverageReport) -> str:
    missing = "; ".join(f"{gap_words(gap.name, report.gaps)} ({share(gap.share)})" for gap in population.gaps)
    return f"Missing, by share of app windows: {missing}." if missing else ""


def _remedy(population: PopulationCoverage) -> str:
    if not population.remedies:
        return "No single source is known to show it."
    return f"Would show it, cheapest first: {'; '.join(map(printable, population.remedies))}."
