"""Which ATT&CK objects a finding implements, read from the vendored copies. Knows the model and nothing of detection.

The objects are MITRE's, unchanged; their terms and origins stand in `objects/LICENCE-NOTICE.md`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Set as AbstractSet
from functools import cache
from importlib import resources
from typing import Any, Final

from relaywatch.model.finding import Attack, LogSource

StixObject = dict[str, Any]

RELEASE: Final = "19.1"
"""ATT&CK release of the analytic: Mobile collection 19.1, modified 2026-05-12T14:00:00.188Z."""
RELEASE_OF_OTHERS: Final = "18.1"
"""ATT&CK release that every other vendored object was taken from."""

_ANALYTIC: Final = "x-mitre-analytic--cb78ff0f-6f8a-41a8-a199-4660a0addec9.v1.1.json"
_RENAMED: Final[dict[str, str]] = {"DC0114": "Application Permission"}
"""Component names that changed in release 19; the vendored components are those of 18.1."""


@cache
def vendored_objects() -> dict[str, StixObject]:
    """Every vendored STIX object by its id. Shared: callers must not change it."""
    folder = resources.files(__package__) / "objects"
    texts = (entry.read_text("utf-8") for entry in folder.iterdir() if entry.name.endswith(".json"))
    return {stix["id"]: stix for stix in map(json.loads, texts)}


def analytic() -> StixObject:
    """AN1702 as vendored."""
    return vendored_objects()[_ANALYTIC.partition(".")[0]]


def vendored_from(stix_id: str) -> str:
    """ATT&CK release that the vendored object was taken from."""
    return RELEASE if stix_id == analytic()["id"] else RELEASE_OF_OTHERS


def external_id(stix: StixObject) -> str:
    """Return the ATT&CK id (AN1702, DC0085, ...) of a vendored object; KeyError where it has none."""
    for reference in stix.get("external_references", ()):
        if reference["source_name"] == "mitre-attack":
            return str(reference["external_id"])
    raise KeyError(f"{stix['id']} has no ATT&CK id")


def canonical_digest(stix: StixObject) -> str:
    """SHA-256, in lower-case hex, of the object's JSON with sorted keys and no spaces, UTF-8."""
    text = json.dumps(stix, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def mutable_elements() -> dict[str, str]:
    """AN1702's mutable elements: name to ATT&CK's own description, in ATT&CK's order."""
    return {element["field"]: element["description"] for element in analytic()["x_mitre_mutable_elements"]}


def log_sources(satisfied: AbstractSet[str]) -> list[LogSource]:
    """AN1702's log-source rows in ATT&CK's order. satisfied: data components (DC0085, ...) that evidence met.

    Raises ValueError where `satisfied` names a component that AN1702 does not cite.
    """
    rows = [_log_source(reference, satisfied) for reference in analytic()["x_mitre_log_source_references"]]
    foreign = satisfied - {row.data_component for row in rows}
    if foreign:
        raise ValueError(f"AN1702 has no log-source row on {', '.join(sorted(foreign))}")
    return rows


def _log_source(reference: dict[str, str], satisfied: AbstractSet[str]) -> LogSource:
    component = vendored_objects()[reference["x_mitre_data_component_ref"]]
    number = external_id(component)
    return LogSource(
        data_component=number,
        data_component_name=_RENAMED.get(number) or component["name"],
        name=reference["name"],
        channel=reference["channel"],
        satisfied=number in satisfied,
    )


def attack_provenance(satisfied: AbstractSet[str]) -> Attack:
    """State the finding's ATT&CK provenance. satisfied: data components of the log-source rows that the evidence met.

    Raises ValueError as `log_sources`.
    """
    implemented = analytic()
    objects = vendored_objects().values()
    strategy = next(o for o in objects if implemented["id"] in o.get("x_mitre_analytic_refs", ()))
    detects = next(o for o in objects if o.get("relationship_type") == "detects" and o["source_ref"] == strategy["id"])
    technique = vendored_objects()[detects["target_ref"]]
    return Attack(
        release=RELEASE,
        domain=implemented["x_mitre_domains"][0],
        analytic_id=external_id(implemented),
        analytic_stix_id=implemented["id"],
        analytic_version=implemented["x_mitre_version"],
        analytic_modified=implemented["modified"],
        analytic_digest=canonical_digest(implemented),
        strategy_id=external_id(strategy),
        technique_id=external_id(technique),
        technique_name=technique["name"],
        tactics=[phase["phase_name"] for phase in technique["kill_chain_phases"]],
        log_sources=log_sources(satisfied),
    )
