"""What a user is promised of coverage, drill and report: statuses, streams, files, and errors told in a line."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import yaml
from scenarios import listener_relay, without
from sites import batches_of, phone, written

from relaywatch.cli import Exit

EXCEPTION = """[[exception]]
id = "lab-proxy"
package = "com.example.app1"
owner = "netops"
reason = "own proxy for tests"
expires = 2026-03-20
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Two phones, on one of which an app relays."""
    relaying = phone(2)
    listener_relay(np.random.default_rng(9), relaying[1], 20)
    return written(batches_of([*phone(1), *relaying]), tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A phone whose sources know no app."""
    batches = without(batches_of(phone(1)), "flows", "android_package", "android_uid")
    return written(batches, tmp_path_factory.mktemp("bare"))


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


class TestCoverage:
    def test_every_app_window_is_a_line(self, run, site):
        status, out, err = run("coverage", site, "--json")
        records = lines(out)
        found = [record for record in records if record["kind"] == "window"]
        assert (status, err) == (Exit.NOTHING_FOUND, "")
        assert {(w["device"], w["package"]) for w in found} == {
            (f"phone-{n}", f"com.example.app{k}") for n in (1, 2) for k in (0, 1)
        }
        assert all(window["provable"]["tunnel"] == "yes" for window in found)

    def test_the_page_says_what_no_finding_means(self, run, bare):
        status, out, _ = run("coverage", bare)
        assert status == Exit.NOTHING_FOUND
        assert "not observed" in out
        assert "PCAPdroid" in out

    def test_populations_that_cannot_be_judged_are_ocsf_findings_of_insufficient_data(self, run, site, bare):
        _, out, _ = run("coverage", bare, "--ocsf")
        (event,) = lines(out)
        assert (event["class_uid"], event["verdict_id"], event["is_alert"]) == (2004, 7, False)
        assert run("coverage", site, "--ocsf")[1] == ""

    def test_shorter_windows_are_more_of_them(self, run, site):
        _, out, _ = run("coverage", site, "--json", "--window", "5m")
        windows = {record["start"] for record in lines(out) if record["kind"] == "window"}
        assert len(windows) == 3

    @pytest.mark.parametrize("window", ["", "0d", "5", "1w", "-1h"])
    def test_a_window_that_is_none_is_told(self, run, site, window):
        status, out, err = run("coverage", site, f"--window={window}")
        assert (status, out) == (Exit.UNUSABLE, "")
        assert "--window" in err

    def test_scores_are_files_of_other_tools(self, run, site, tmp_path):
        file = tmp_path / "exceptions.toml"
        file.write_text(EXCEPTION)
        status, _, err = run("coverage", site, "--scores", tmp_path / "scores", "--exceptions", file)
        assert status == Exit.NOTHING_FOUND
        sources = yaml.safe_load((tmp_path / "scores" / "dettect-data-sources.yaml").read_text())
        names = {entry["data_source_name"] for entry in sources["data_sources"]}
        assert {"Network Traffic Flow", "Network Traffic Content"} <= names
        layer = json.loads((tmp_path / "scores" / "navigator-layer.json").read_text())
        assert layer["techniques"][0]["techniqueID"] == "T1604"
        summiting = json.loads((tmp_path / "scores" / "summiting-the-pyramid.json").read_text())
        assert (summiting["robustness"], summiting["robustness_without_permissions"]) == ("1A", "4H")
        assert "signing digest" in err


class TestDrill:
    def test_recall_is_told_by_topology(self, run, site):
        status, out, err = run("drill", site, "--episodes", 2, "--json")
        records = lines(out)
        assert (status, err) == (Exit.NOTHING_FOUND, "")
        rows = [record for record in records if record["kind"] == "drill_row"]
        assert [row["topology"] for row in rows] == ["accepted", "back_connect", "tunnel"]
        assert all(row["relay"]["value"] == 1.0 for row in rows)

    def test_one_topology_and_an_evasion(self, run, site):
        _, out, _ = run("drill", site, "--episodes", 1, "--topology", "tunnel", "--evade", "chaff")
        assert "tunnel" in out
        assert "chaff" in out
        assert "back-connect" not in out

    def test_a_wrong_number_is_told(self, run, site):
        status, out, err = run("drill", site, "--episodes", 0)
        assert (status, out) == (Exit.UNUSABLE, "")
        assert "--episodes" in err


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "report"


class TestReport:
    def test_it_is_written_in_all_forms(self, run, site, folder):
        file = folder.with_suffix(".toml")
        file.write_text(EXCEPTION)
        given = ("report", site, "--out", folder / "out", "--episodes", 1, "--exceptions", file, "--site", "Site <b>")
        status, out, _ = run(*given)
        assert status == Exit.NOTHING_FOUND
        assert [line.rpartition("/")[2] for line in out.splitlines()] == [
            "report.html", "report.pdf", "report.json", "report.csv",
        ]  # fmt: skip
        record = json.loads((folder / "out" / "report.json").read_text())
        assert [(f["verdict"], f["exception"]["id"]) for f in record["findings"]] == [("sanctioned_relay", "lab-proxy")]
        assert record["exceptions"][0]["covers"] == 1
        assert "Site &lt;b&gt;" in (folder / "out" / "report.html").read_text()
        assert (folder / "out" / "report.pdf").read_bytes().startswith(b"%PDF-")
        with (folder / "out" / "report.csv").open(newline="", encoding="utf-8") as stream:
            assert all(row["how_obtained"] for row in csv.DictReader(stream))

    def test_without_a_drill_it_says_so(self, run, site, folder):
        status, _, _ = run("report", site, "--out", folder / "plain", "--episodes", 0)
        record = json.loads((folder / "plain" / "report.json").read_text())
        assert (status, record["drill"]) == (Exit.NOTHING_FOUND, None)

    def test_damaged_records_are_told_and_the_rest_is_reported(self, run, site, folder, tmp_path):
        (tmp_path / "site").mkdir()
        for path in site.iterdir():
            (tmp_path / "site" / path.name).write_bytes(path.read_bytes())
        (tmp_path / "site" / "cut.parquet").write_bytes((site / "volumes.parquet").read_bytes()[:-40])
        status, _, err = run("report", tmp_path / "site", "--out", folder, "--episodes", 0)
        assert status == Exit.PARTIAL
        assert "cut.parquet" in err
        assert (folder / "report.html").exists()
