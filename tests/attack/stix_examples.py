"""STIX bundles and folders as ATT&CK publishes them, made from the vendored objects."""

import copy
import json
import uuid
from pathlib import Path

from relaywatch.attack.provenance import vendored_objects

ANALYTIC = "x-mitre-analytic--cb78ff0f-6f8a-41a8-a199-4660a0addec9"
STRATEGY = "x-mitre-detection-strategy--973a4da0-af9c-4d57-ab62-21fbc308f8b3"
TECHNIQUE = "attack-pattern--5ca3c7ec-55b2-4587-9376-cf6c96f8047a"
FLOW = "x-mitre-data-component--a7f22107-02e5-4982-9067-6625d4a1765a"
CONTENT = "x-mitre-data-component--3772e279-27d6-477a-9fe3-c6beb363594c"
STATE = "x-mitre-data-component--55c669d9-b42a-4cf6-a38a-07161b228ce9"
MARKING = "marking-definition--fa42a846-8d90-4e51-bc29-71d5b4802168"
AUTHOR = "identity--c78cb6e5-0c4b-4611-8297-d1b8b55e40b5"


def objects() -> dict[str, dict]:
    """The vendored objects, to be changed, with AN1702's rows in the lists of the data components that it cites."""
    own = copy.deepcopy(vendored_objects())
    for row in own[ANALYTIC]["x_mitre_log_source_references"]:
        listed = own[row["x_mitre_data_component_ref"]]["x_mitre_log_sources"]
        listed.append({"name": row["name"], "channel": row["channel"]})
    return own


def same() -> dict[str, dict]:
    """The vendored objects as they are, to be changed."""
    return copy.deepcopy(vendored_objects())


def collection(version: str, modified: str = "2026-09-01T00:00:00.000Z") -> dict:
    return {
        "type": "x-mitre-collection",
        "id": "x-mitre-collection--dac0d2d7-8653-445c-9bff-82f934c1e858",
        "name": "Mobile ATT&CK",
        "x_mitre_version": version,
        "modified": modified,
        "x_mitre_contents": [{"object_ref": TECHNIQUE, "object_modified": modified}],
    }


def common(kind: str, number: str, name: str, page: str) -> dict:
    return {
        "type": kind,
        "id": f"{kind}--{uuid.uuid5(uuid.NAMESPACE_URL, number)}",
        "created": "2026-03-11T00:00:00.000Z",
        "modified": "2026-05-12T00:00:00.000Z",
        "created_by_ref": AUTHOR,
        "object_marking_refs": [MARKING],
        "name": name,
        "description": f"What {name} is.",
        "external_references": [{"source_name": "mitre-attack", "external_id": number, "url": page}],
        "x_mitre_version": "1.0",
        "x_mitre_attack_spec_version": "3.3.0",
        "x_mitre_domains": ["mobile-attack"],
    }


def application_state() -> dict:
    page = "https://attack.mitre.org/datacomponents/DC0123"
    row = {"name": "MobileEDR:telemetry", "channel": "AppState=background when traffic is relayed"}
    return common("x-mitre-data-component", "DC0123", "Application State", page) | {
        "id": STATE,
        "x_mitre_log_sources": [row],
    }


def software(number: str, name: str) -> dict:
    return common("malware", number, name, f"https://attack.mitre.org/software/{number}")


def mitigation(number: str, name: str) -> dict:
    return common("course-of-action", number, name, f"https://attack.mitre.org/mitigations/{number}")


def further_analytic() -> dict:
    page = "https://attack.mitre.org/detectionstrategies/DET0631#AN9999"
    return common("x-mitre-analytic", "AN9999", "Analytic 9999", page) | {"x_mitre_platforms": ["Android"]}


def relation(source: str, kind: str, target: str = TECHNIQUE) -> dict:
    return {
        "type": "relationship",
        "id": f"relationship--{uuid.uuid5(uuid.NAMESPACE_URL, source + kind)}",
        "created": "2026-03-11T00:00:00.000Z",
        "modified": "2026-05-12T00:00:00.000Z",
        "created_by_ref": AUTHOR,
        "object_marking_refs": [MARKING],
        "relationship_type": kind,
        "source_ref": source,
        "target_ref": target,
        "x_mitre_attack_spec_version": "3.3.0",
    }


def bundle(path: Path, *stix: dict) -> Path:
    path.write_text(json.dumps({"type": "bundle", "id": f"bundle--{uuid.uuid4()}", "objects": list(stix)}, indent=4))
    return path


def folder(path: Path, *stix: dict) -> Path:
    """As mitre/cti has it: a folder a type, and in it a bundle of one object a file, in the form of STIX 2.0."""
    for entry in stix:
        place = path / entry["type"]
        place.mkdir(parents=True, exist_ok=True)
        whole = {"type": "bundle", "id": f"bundle--{uuid.uuid4()}", "spec_version": "2.0", "objects": [entry]}
        (place / f"{entry['id']}.json").write_text(json.dumps(whole))
    return path
