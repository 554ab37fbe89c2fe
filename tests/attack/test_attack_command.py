"""What a user is promised of `relaywatch attack`: statuses, both forms, and no trace of hostile text."""

import json
import sys

import pytest
from stix_examples import ANALYTIC, TECHNIQUE, bundle, collection, folder, objects, relation, same, software

from relaywatch import cli
from relaywatch.attack.provenance import canonical_digest, vendored_objects


@pytest.fixture
def run(monkeypatch, capsys):
    """Run `relaywatch attack` in this process: its status, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["relaywatch", "attack", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "300")
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    return call


def records(text: str, kind: str) -> list[dict]:
    return [record for record in map(json.loads, text.splitlines()) if record["kind"] == kind]


def test_without_a_path_every_vendored_object_is_shown_with_release_version_and_digest(run):
    status, out, _ = run("--json")
    shown = {record["stix_id"]: record for record in records(out, "object")}
    assert status == 0
    assert {i: record["sha256"] for i, record in shown.items()} == {
        i: canonical_digest(stix) for i, stix in vendored_objects().items()
    }
    own = shown[ANALYTIC]
    assert (own["id"], own["release"], own["version"], own["spec_version"]) == ("AN1702", "19.1", "1.1", "3.3.0")
    assert own["modified"] == "2026-05-12T16:30:18.382Z"
    status, out, _ = run()
    assert status == 0
    assert all(record["sha256"] in out and stix_id in out for stix_id, record in shown.items())


def test_release_without_drift_is_status_0(run, tmp_path):
    status, out, _ = run(folder(tmp_path / "cti", *same().values()))
    assert status == 0
    assert "no drift" in out


def test_drift_is_status_1_with_what_it_touches_and_a_missing_setting_stands_out(run, tmp_path):
    own = same()
    own[ANALYTIC]["x_mitre_mutable_elements"].append({"field": "SleepWindow", "description": "Pauses"})
    own[ANALYTIC]["x_mitre_mutable_elements"][0]["description"] = "Another meaning"
    path = bundle(tmp_path / "b.json", collection("19.9"), *own.values())
    status, out, _ = run(path)
    assert status == 1
    assert "no setting here for SleepWindow" in out
    assert "settings: TimeWindow" in out
    status, out, _ = run(path, "--json")
    found = {record["key"]: record for record in records(out, "change")}
    assert status == 1
    assert found["SleepWindow"]["settings"] == [{"name": "SleepWindow", "known": False, "default": None}]
    assert found["TimeWindow"]["settings"] == [{"name": "TimeWindow", "known": True, "default": "10.0"}]
    assert found["TimeWindow"]["evidence"] == ["conserved bridges", "link mirrors targets"]
    assert [need["table"] for need in found["TimeWindow"]["telemetry"]] == ["flows", "volumes"]


def test_several_releases_stand_side_by_side(run, tmp_path):
    older, newer = same(), same()
    older[TECHNIQUE]["x_mitre_version"] = "1.0"
    newer[TECHNIQUE]["x_mitre_version"] = "2.0"
    newer[ANALYTIC]["name"] = "Renamed"
    paths = [
        bundle(tmp_path / "old.json", collection("17.1"), *older.values()),
        bundle(tmp_path / "new.json", collection("20.0"), *newer.values()),
    ]
    status, out, _ = run(*paths)
    (row,) = (line.split() for line in out.splitlines() if line.rstrip().endswith("states the technique"))
    assert status == 1
    assert row[-8:-5] == ["1.1", "1.0", "2.0"]
    status, out, _ = run(*paths, "--json")
    assert [(r["release"], r["changes"]) for r in records(out, "release")] == [("17.1", 1), ("20.0", 2)]


def test_new_software_that_relays_is_named(run, tmp_path):
    new = software("S9001", "Newproxy")
    stix = [*same().values(), new, relation(new["id"], "uses")]
    status, out, _ = run(bundle(tmp_path / "b.json", collection("19.9"), *stix))
    assert status == 1
    assert "S9001 Newproxy uses T1604 Proxy Through Victim" in out


def test_log_sources_that_nobody_cites_are_counted_in_one_line(run, tmp_path):
    status, out, _ = run(bundle(tmp_path / "b.json", *objects().values()))
    assert status == 1
    assert out.count("x_mitre_log_sources") == 4
    own = same()
    for stix in own.values():
        if "x_mitre_log_sources" in stix:
            stix["x_mitre_log_sources"] = [{"name": "n", "channel": str(number)} for number in range(300)]
    _, out, _ = run(bundle(tmp_path / "b.json", *own.values()))
    assert out.count("x_mitre_log_sources") == 4
    assert "300 more" in out


def test_problems_are_listed_and_are_no_drift(run, tmp_path):
    path = bundle(tmp_path / "b.json", collection("19.1"), *same().values())
    status, out, _ = run(path)
    assert status == 0
    assert "DC0078 here lists no such log source" in out
    assert len(records(run(path, "--json")[1], "problem")) == 4


def test_unusable_path_is_status_2_in_a_line(run, tmp_path):
    (tmp_path / "x.json").write_text("{")
    status, out, err = run(tmp_path / "x.json")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "no sound JSON" in err


def test_hostile_text_reaches_the_terminal_escaped(run, tmp_path):
    own = same()
    own[ANALYTIC]["name"] = "\x1b]0;owned\x07[red]x[/red]\u202e"
    own[ANALYTIC]["x_mitre_mutable_elements"].append({"field": "[bold]\x1b[2J", "description": "\x9b31m"})
    path = bundle(tmp_path / "b.json", *own.values())
    for arguments in ((path,), (path, "--json")):
        _, out, _ = run(*arguments)
        assert not set(out) & set("\x1b\x07\x9b\u202e")
    assert "[red]x[/red]" in run(path)[1]
