"""Populations that could not be judged, as OCSF: what a consumer of class 2004 may rely on."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from assurance_examples import coverage_report, empty_coverage, hostile_report, population
from test_ocsf import BASE_ENUMS, OBSERVABLE_TYPES, _at, _definitions

from relaywatch.attack.provenance import attack_provenance
from relaywatch.model.assurance import ALL_DEVICES, CoverageReport
from relaywatch.outputs.ocsf_insufficient import ANALYTIC, TECHNIQUE, insufficient_events, write_insufficient


def phones(report: CoverageReport | None = None) -> dict[str, Any]:
    """The first event of the group that nothing can be proved of."""
    return next(insufficient_events(report or coverage_report()))


def test_required_attributes_and_enums():
    event = phones()
    assert (event["class_uid"], event["category_uid"], event["activity_id"], event["type_uid"]) == (2004, 2, 1, 200_401)
    assert isinstance(event["time"], int)
    assert event["metadata"]["version"] == "1.5.0"
    assert event["metadata"]["product"] == {"name": "relaywatch", "vendor_name": "relaywatch", "version": "0.1.0"}
    assert event["metadata"]["profiles"] == ["incident"]
    assert event["finding_info"]["uid"] == event["metadata"]["uid"]
    assert event["finding_info"]["title"] == "Insufficient telemetry: phones Zürich"
    for name, allowed in BASE_ENUMS.items():
        assert event[name] in allowed
    assert event["status_id"] == 1


def test_it_is_insufficient_data_and_no_alert():
    event = phones()
    assert (event["verdict_id"], event["verdict"], event["is_alert"]) == (7, "Insufficient Data", False)
    assert (event["severity_id"], event["severity"]) == (1, "Informational")


def test_it_says_what_is_missing_and_what_would_show_it():
    event = phones()
    assert "the source sees packets or flows, not the app that made them (20 %)" in event["status_detail"]
    assert event["remediation"]["desc"].startswith("Would show it, cheapest first: the same sources without pause;")
    assert "80 % could not show a relay of every kind" in event["message"]
    assert [item["data"]["share"] for item in event["evidences"]] == [0.7, 0.4, 0.2, 0.003]
    assert {item["verdict_id"] for item in event["evidences"]} == {7}
    assert event["count"] == 480


def test_every_group_has_its_events_and_all_devices_together_none():
    events = list(insufficient_events(coverage_report(days=3)))
    assert [event["resources"][0]["group"]["name"] for event in events] == ["phones Zürich"] * 3
    assert len({event["finding_info"]["uid"] for event in events}) == 3


def test_a_site_without_groups_is_one_population():
    report = coverage_report().model_copy(update={"populations": [population(ALL_DEVICES, 0, yes=0.5)]})
    (event,) = insufficient_events(report)
    assert event["resources"] == [{"group": {"name": "all devices"}, "type": "Device group"}]


def test_where_everything_can_be_judged_there_is_no_event():
    sure = coverage_report().model_copy(update={"populations": [population("tablets", 0, yes=1.0)]})
    assert list(insufficient_events(sure)) == []
    assert list(insufficient_events(empty_coverage())) == []


def test_in_part_is_no_reason_for_an_event():
    plain = population("tablets", 0, yes=0.8)
    every = plain.provable["every"].model_copy(update={"in_part": 0.2, "no": 0.0})
    partly = plain.model_copy(update={"provable": {**plain.provable, "every": every}})
    assert list(insufficient_events(coverage_report().model_copy(update={"populations": [partly]}))) == []


def test_the_uid_is_the_populations_and_windows_alone():
    report = coverage_report()
    again = [row.model_copy(update={"watched": 0.1, "gaps": row.gaps[:1]}) for row in report.populations]
    uid = phones()["finding_info"]["uid"]
    assert phones(report.model_copy(update={"populations": again}))["finding_info"]["uid"] == uid
    other = [row.model_copy(update={"group": row.group + "2"}) for row in report.populations]
    assert phones(report.model_copy(update={"populations": other}))["finding_info"]["uid"] != uid


def test_the_analytic_and_technique_are_the_vendored_ones():
    attack = attack_provenance(set())
    assert ANALYTIC["uid"] == attack.analytic_id
    assert ANALYTIC["version"] == attack.analytic_version
    assert ANALYTIC["name"] == f"{attack.technique_name}, {attack.strategy_id}"
    assert (TECHNIQUE["uid"], TECHNIQUE["name"]) == (attack.technique_id, attack.technique_name)
    assert TECHNIQUE["release"] == attack.release
    info = phones()["finding_info"]
    assert (info["analytic"]["uid"], info["analytic"]["type_id"], info["analytic"]["state_id"]) == ("AN1702", 2, 1)
    assert info["attacks"][0]["technique"]["uid"] == attack.technique_id


def test_times_are_epoch_milliseconds_of_the_window():
    event, first = phones(), coverage_report().populations[0]
    assert event["start_time"] == event["finding_info"]["first_seen_time"] == int(first.start.timestamp() * 1000)
    assert event["time"] == event["end_time"] == int(first.end.timestamp() * 1000)
    assert event["duration"] == 86_400_000


def test_every_observable_points_at_its_value():
    event = phones()
    for item in event["observables"]:
        assert item["type_id"] in OBSERVABLE_TYPES
        assert item["value"] in _at(event, item["name"])


def test_no_nulls():
    assert "null" not in json.dumps(phones())


def test_lines_are_ascii_and_the_same_for_the_same_report():
    texts = []
    for _ in range(2):
        stream = io.StringIO()
        write_insufficient(coverage_report(), stream)
        write_insufficient(hostile_report().coverage, stream)
        texts.append(stream.getvalue())
    assert texts[0] == texts[1]
    assert texts[0].isascii()
    assert {json.loads(line)["verdict_id"] for line in texts[0].splitlines()} == {7}


def test_against_the_ocsf_definitions():
    folder = _definitions()
    dictionary = json.loads((folder / "dictionary.json").read_text())["attributes"]
    event = phones()
    assert set(event) <= set(dictionary)
    for name in ("severity_id", "confidence_id", "verdict_id"):
        assert dictionary[name]["enum"][str(event[name])]["caption"] == event[name.removesuffix("_id")]
    assert set(event["finding_info"]) | set(event["resources"][0]) <= set(dictionary)


@pytest.mark.parametrize("name", ["verdict", "is_alert"])
def test_what_siem_rules_filter_on_is_at_the_top_level(name: str):
    assert name in phones()
