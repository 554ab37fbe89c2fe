"""OCSF Detection Finding: what a consumer of class 2004 may rely on."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from findings_examples import example, examples, hostile

from relaywatch.model.finding import App, Destination, Finding, Topology, Verdict
from relaywatch.outputs.ocsf import BRIDGES, OBSERVABLES, ocsf_event, write_ocsf

VERDICTS = list(Verdict)
BASE_ENUMS = {
    "activity_id": {0, 1, 2, 3, 99},
    "severity_id": {0, 1, 2, 3, 4, 5, 6, 99},
    "status_id": {0, 1, 2, 3, 4, 5, 6, 99},
    "confidence_id": {0, 1, 2, 3, 99},
    "verdict_id": {*range(11), 99},
}
OBSERVABLE_TYPES = {*range(1, 20), *range(20, 31), 99}


def _inside(finding: Finding) -> Finding:
    row = Destination(
        name="10.0.0.0/24",
        hostnames=[],
        addresses=["10.0.0.9"],
        ports=[22],
        bridges=1,
        bytes_in=1,
        bytes_out=1,
        private=True,
    )
    return finding.model_copy(update={"destinations": [row]})


def _at(event: dict[str, Any], path: str) -> set[str]:
    """Scalar values at a dotted path; lists are searched through."""
    found: list[Any] = [event]
    for part in path.split("."):
        found = [item for value in found for item in (value if isinstance(value, list) else [value])]
        found = [value[part] for value in found if isinstance(value, dict) and part in value]
    return {str(value) for value in found}


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("topology", list(Topology))
def test_required_attributes_and_enums(topology: Topology, verdict: Verdict) -> None:
    event = ocsf_event(example(topology, verdict=verdict))
    assert (event["class_uid"], event["category_uid"], event["activity_id"], event["type_uid"]) == (2004, 2, 1, 200_401)
    assert isinstance(event["time"], int)
    assert event["metadata"]["version"] == "1.5.0"
    assert event["metadata"]["product"] == {"name": "relaywatch", "vendor_name": "relaywatch", "version": "0.1.0"}
    assert set(event["metadata"]["profiles"]) == {"host", "incident"}
    assert event["finding_info"]["uid"]
    assert event["finding_info"]["title"]
    for name, allowed in BASE_ENUMS.items():
        assert event[name] in allowed
    assert event["status_id"] == 1


def test_the_analytic_and_technique_are_attacks() -> None:
    info = ocsf_event(examples()[0])["finding_info"]
    assert (info["analytic"]["uid"], info["analytic"]["type_id"], info["analytic"]["state_id"]) == ("AN1702", 2, 1)
    (attack,) = info["attacks"]
    assert attack["version"] == "19.1"
    assert attack["technique"]["uid"] == "T1604"
    assert attack["tactic"] == {"uid": "TA0030", "name": "Defense Evasion"}


def test_the_device_is_an_android_phone() -> None:
    device = ocsf_event(examples()[0])["device"]
    assert (device["uid"], device["type_id"]) == ("tab-warehouse-3", 5)
    assert (device["os"]["name"], device["os"]["type_id"]) == ("Android", 201)


def test_times_are_epoch_milliseconds() -> None:
    finding = examples()[0]
    event = ocsf_event(finding)
    assert event["finding_info"]["first_seen_time"] == event["start_time"] == int(finding.first_seen.timestamp() * 1000)
    assert event["time"] == event["end_time"] == event["finding_info"]["last_seen_time"]
    assert event["duration"] == event["end_time"] - event["start_time"]


@pytest.mark.parametrize(
    ("verdict", "severity", "verdict_id", "alert"),
    [
        (Verdict.RELAY, 4, 8, True),
        (Verdict.SUSPECTED_RELAY, 3, 4, True),
        (Verdict.SANCTIONED_RELAY, 1, 3, False),
        (Verdict.INSUFFICIENT_TELEMETRY, 2, 7, False),
    ],
)
def test_verdicts_map_to_severity_verdict_and_alert(
    verdict: Verdict, severity: int, verdict_id: int, *, alert: bool
) -> None:
    event = ocsf_event(example(Topology.TUNNEL, verdict=verdict))
    assert (event["severity_id"], event["verdict_id"], event["is_alert"]) == (severity, verdict_id, alert)


def test_a_relay_into_the_devices_own_network_is_critical() -> None:
    assert ocsf_event(_inside(example(Topology.TUNNEL)))["severity_id"] == 5
    assert ocsf_event(_inside(example(Topology.TUNNEL, verdict=Verdict.SUSPECTED_RELAY)))["severity_id"] == 3


@pytest.mark.parametrize(
    ("verdict", "confidence"), [(Verdict.RELAY, 3), (Verdict.SUSPECTED_RELAY, 2), (Verdict.INSUFFICIENT_TELEMETRY, 1)]
)
def test_confidence_follows_the_probability(verdict: Verdict, confidence: int) -> None:
    event = ocsf_event(example(Topology.TUNNEL, verdict=verdict))
    assert event["confidence_id"] == confidence
    assert event["confidence_score"] < 100


def test_evidences_hold_the_items_and_the_strongest_bridges() -> None:
    finding = examples()[0]
    evidences = ocsf_event(finding)["evidences"]
    assert len(evidences) == len(finding.evidence) + BRIDGES
    assert [item["data"]["log_likelihood_ratio"] for item in evidences[: len(finding.evidence)]] == [
        item.log_likelihood_ratio for item in finding.evidence
    ]
    for bridge in evidences[len(finding.evidence) :]:
        assert bridge["connection_info"] == {
            "direction_id": 2,
            "direction": "Outbound",
            "protocol_name": "tcp",
            "protocol_num": 6,
        }
        assert {"ip", "port", "hostname"} <= set(bridge["dst_endpoint"])
        assert bridge["data"]["client_leg"]["record"]["source"] == "edge/conn.log"


def test_every_observable_points_at_its_value_or_lies_beyond_the_listed_bridges() -> None:
    for finding in examples():
        event = ocsf_event(finding)
        for item in event["observables"]:
            assert item["type_id"] in OBSERVABLE_TYPES
            assert item["value"]
            if not item["name"].startswith("evidences."):
                assert item["value"] in _at(event, item["name"])
            else:
                assert item["value"] in {v for row in finding.destinations for v in (*row.hostnames, *row.addresses)}
        kinds = {item["type_id"] for item in event["observables"]}
        assert {1, 2, 8, 10, 99} <= kinds


def test_observables_are_bounded_and_unique() -> None:
    rows = [
        Destination(
            name=f"n{n}",
            hostnames=[f"h{n}.example"],
            addresses=[f"203.0.113.{n % 256}"],
            ports=[],
            bridges=1,
            bytes_in=0,
            bytes_out=0,
            private=False,
        )
        for n in range(2000)
    ]
    observables = ocsf_event(example(Topology.TUNNEL).model_copy(update={"destinations": rows}))["observables"]
    assert len(observables) == OBSERVABLES == len({(item["type_id"], item["value"]) for item in observables})


def test_androids_identity_is_kept_unmapped() -> None:
    event = ocsf_event(examples()[0])
    assert event["unmapped"]["android"] == {
        "package": "com.example.earnapp",
        "uid": 10_231,
        "user_id": 0,
        "signing_digest": "ab" * 32,
        "label": "Easy Earn",
    }
    assert event["actor"] == {"app_name": "Easy Earn", "app_uid": "com.example.earnapp"}


def test_an_unnamed_app_makes_no_empty_actor() -> None:
    event = ocsf_event(example(Topology.TUNNEL).model_copy(update={"app": App(uid=10_044)}))
    assert "actor" not in event
    assert event["unmapped"]["android"] == {"uid": 10_044}


def test_no_nulls_outside_our_own_objects() -> None:
    event = ocsf_event(examples()[1])
    mapped = {name: value for name, value in event.items() if name not in {"unmapped", "evidences"}}
    assert "null" not in json.dumps(mapped)


def test_lines_are_ascii_and_the_same_for_the_same_findings() -> None:
    first, second = io.StringIO(), io.StringIO()
    write_ocsf([*examples(), hostile()], first)
    write_ocsf([*examples(), hostile()], second)
    assert first.getvalue() == second.getvalue()
    assert first.getvalue().isascii()
    assert [json.loads(line)["class_uid"] for line in first.getvalue().splitlines()] == [2004] * 4


def _definitions() -> Path:
    shared = Path(os.environ.get("RELAYWATCH_SHARED", Path(__file__).parents[3] / "shared"))
    folder = shared / "samples" / "schemas" / "ocsf-1.9.0-dev"
    if not folder.is_dir():
        pytest.skip("OCSF definitions are not at hand")
    return folder


@pytest.mark.parametrize("verdict", VERDICTS)
def test_against_the_ocsf_definitions(verdict: Verdict) -> None:
    folder = _definitions()
    dictionary = json.loads((folder / "dictionary.json").read_text())["attributes"]
    event = ocsf_event(example(Topology.ACCEPTED, verdict=verdict))
    assert set(event) <= set(dictionary)
    for name in ("severity_id", "confidence_id", "verdict_id"):
        assert dictionary[name]["enum"][str(event[name])]["caption"] == event[name.removesuffix("_id")]
    for part, names in (
        (event["device"], ("device", "endpoint")),
        (event["evidences"][-1]["dst_endpoint"], ("network_endpoint", "endpoint")),
        (event["evidences"][-1]["connection_info"], ("network_connection_info",)),
    ):
        attributes: dict[str, Any] = {}
        for name in reversed(names):
            attributes |= json.loads((folder / f"objects_{name}.json").read_text())["attributes"]
        assert set(part) <= set(attributes)
        required = {
            name
            for name, spec in attributes.items()
            if isinstance(spec, dict) and spec.get("requirement") == "required"
        }
        assert required <= set(part)
