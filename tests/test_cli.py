"""What a user is promised of the command line: statuses, streams, plain errors, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from scenarios import Recorder, listener_relay, own_traffic, tunnel_relay

from relaywatch import __version__
from relaywatch.cli import Exit, hunting
from relaywatch.detection.settings import SETTINGS
from relaywatch.model.finding import FINDING_SCHEMA_VERSION, Finding
from relaywatch.model.tables import Batch
from relaywatch.outputs.telemetry import ExportFormat, export


def written(folder: Path, *apps: Recorder) -> Path:
    """A file of canonical records; made once an app is put into it."""
    (path,) = export([part for app in apps for part in app.batches()], ExportFormat.NDJSON, folder)
    return path


def relay(**who: object) -> Recorder:
    return listener_relay(np.random.default_rng(41), Recorder(**who))


@pytest.fixture
def relays(tmp_path) -> Path:
    """Telemetry of two relays and an app that is none."""
    quiet = own_traffic(np.random.default_rng(42), Recorder(device="phone-3"))
    return written(tmp_path, relay(), tunnel_relay(np.random.default_rng(43), Recorder(device="phone-2")), quiet)


@pytest.fixture
def nothing(tmp_path) -> Path:
    return written(tmp_path, own_traffic(np.random.default_rng(42), Recorder()))


def damaged(path: Path) -> Path:
    with path.open("a", encoding="utf-8") as file:
        file.write('{"table": "flows", "device_uid": "phone-1", "start_time": "yesterday"}\n')
    return path


class TestStatus:
    def test_nothing_found(self, run, nothing):
        status, out, err = run("hunt", nothing)
        assert (status, err) == (Exit.NOTHING_FOUND, "")
        assert "0 relays" in out

    def test_findings(self, run, relays):
        status, out, err = run("hunt", relays)
        assert (status, err) == (Exit.FINDINGS, "")
        assert "2 relays" in out
        assert "com.example.app" in out

    def test_a_damaged_record_is_told_and_costs_no_finding(self, run, relays):
        whole = run("hunt", relays, "--json")[1]
        status, out, err = run("hunt", damaged(relays))
        assert status == Exit.PARTIAL == 3
        assert "line" in out + err
        assert "2 relays" in out
        assert run("hunt", relays, "--json")[:2] == (Exit.PARTIAL, whole)

    @pytest.mark.parametrize("form", [[], ["--json"], ["--ocsf"]])
    def test_what_was_not_read_is_told_beside_every_output_and_never_in_it(self, run, relays, form):
        before = run("hunt", relays, *form)
        assert before[2] == ""
        for _ in range(23):
            damaged(relays)
        (relays.parent / "notes.txt").write_text("nothing that anyone could read\n")
        status, out, err = run("hunt", relays.parent, *form)
        lines = err.splitlines()
        assert status == Exit.PARTIAL
        assert len(lines) == 22
        assert all(line.startswith(f"relaywatch: put aside: {relays}, line ") for line in lines[:20])
        assert lines[20:] == [
            "relaywatch: put aside: 3 more damaged records",
            "relaywatch: not read: 1 path not recognised",
        ]
        assert form == [] or out == before[1]

    def test_damaged_records_without_findings_are_not_called_nothing(self, run, nothing):
        assert run("hunt", damaged(nothing))[0] == Exit.PARTIAL

    @pytest.mark.parametrize(
        ("arguments", "part"),
        [
            (["hunt", "{folder}/missing.pcap"], "missing.pcap: does not exist"),
            (["hunt", "{folder}/notes.txt"], "of no known format. Known formats: "),
            (["hunt", "{folder}/empty"], "holds no telemetry"),
            (["hunt", "{folder}/records.ndjson", "--set", "TimeWindw=3"], "Did you mean TimeWindow?"),
            (["hunt", "{folder}/records.ndjson", "--set", "TimeWindow=-1"], "above 0"),
            (["hunt", "{folder}/records.ndjson", "--settings", "{folder}/missing.toml"], "cannot be opened"),
            (["hunt", "{folder}/records.ndjson", "--exceptions", "{folder}/missing.toml"], "cannot be opened"),
            (["hunt", "{folder}/records.ndjson", "--exceptions", "{folder}/bad.toml"], "bad.toml"),
            (["hunt", "{folder}/records.ndjson", "--html", "{folder}/no/such/page.html"], "cannot be written"),
            (["hunt", "{folder}/missing.pcap", "--html", "{folder}/no/page.html"], "cannot be written"),
            (["hunt", "{folder}/missing.pcap", "--html", "{folder}/notes.txt/page.html"], "is no folder"),
            (["hunt", "{folder}/missing.pcap", "--html", "{folder}/empty"], "this is a folder"),
            (["export", "{folder}/empty", "--to", "ndjson", "--out", "{folder}/out"], "holds no telemetry"),
            (["export", "{folder}/missing", "--to", "ndjson", "--out", "{folder}/out"], "does not exist"),
            (["export", "{folder}/records.ndjson", "--to", "ndjson", "--out", "{folder}/notes.txt"], "notes.txt"),
            (["settings", "--set", "Nothing=1"], "no setting 'Nothing'"),
            (["explain", "abcd", "--from", "{folder}/missing.ndjson"], "there are no findings here"),
            (["explain", "abcd", "--from", "{folder}/notes.txt"], "line 1: not JSON"),
            (["explain", "abcd", "--from", "{folder}/empty"], "empty: no journal here"),
            (["explain", "abcd", "--from", "{folder}/latin1.ndjson"], "not UTF-8"),
        ],
    )
    def test_unusable_is_told_in_a_line(self, run, tmp_path, nothing, arguments, part):
        (tmp_path / "notes.txt").write_text("nothing that anyone could read\n")
        (tmp_path / "bad.toml").write_text("[[exception]]\nid = 1\n")
        (tmp_path / "latin1.ndjson").write_bytes(b'{"schema_version": "caf\xe9"}\n')
        (tmp_path / "empty").mkdir()
        status, out, err = run(*(argument.format(folder=tmp_path) for argument in arguments))
        assert (status, out) == (Exit.UNUSABLE, "")
        assert part in err
        assert err.startswith("relaywatch: ")
        assert err.count("\n") == 1

    @pytest.mark.parametrize("arguments", [[], ["hunt"], ["no-such-command"], ["hunt", "x", "--no-such-option"]])
    def test_wrong_usage_is_unusable_too(self, run, arguments):
        assert run(*arguments)[0] == Exit.UNUSABLE

    def test_empty_file_is_unusable(self, run, tmp_path):
        (tmp_path / "empty.ndjson").touch()
        assert run("hunt", tmp_path / "empty.ndjson")[0] == Exit.UNUSABLE

    def test_what_cannot_be_read_in_a_folder_is_told_beside_its_findings(self, run, relays):
        (relays.parent / "notes.txt").write_text("nothing that anyone could read\n")
        status, out, _ = run("hunt", relays.parent)
        assert status == Exit.FINDINGS
        assert "notes.txt" in out

    def test_interruption_leaves_nothing_behind(self, run, relays, monkeypatch, tmp_path, own_state):
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        work = tmp_path / "work"
        work.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(work))
        monkeypatch.setattr("relaywatch.engines.judging.arrange", interrupted)
        status, out, err = run("hunt", relays, "--json")
        assert (status, out) == (Exit.INTERRUPTED, "")
        assert err == "relaywatch: interrupted; nothing was kept\n"
        assert list(work.iterdir()) == []
        assert list(own_state.rglob("*.ndjson")) == []

    def test_a_defect_is_never_taken_for_findings(self, run, relays, monkeypatch):
        def broken(*_: object) -> None:
            raise ZeroDivisionError("\x1b[31mhalf\nof it")

        monkeypatch.setattr(hunting, "hunt", broken)
        status, out, err = run("hunt", relays)
        assert (status, out) == (Exit.DEFECT, "") == (70, "")
        assert err.startswith("relaywatch: internal error: ZeroDivisionError: ")
        assert "please report it" in err
        assert err.count("\n") == 1
        assert "\x1b" not in err

    def test_statuses_are_the_documented_ones(self):
        assert {status.name: int(status) for status in Exit} == {
            "NOTHING_FOUND": 0,
            "FINDINGS": 1,
            "UNUSABLE": 2,
            "PARTIAL": 3,
            "DEFECT": 70,
            "INTERRUPTED": 130,
            "READER_GONE": 141,
        }


class TestOutput:
    def test_json_is_one_finding_a_line_with_every_documented_key(self, run, relays):
        status, out, err = run("hunt", relays, "--json")
        assert (status, err) == (Exit.FINDINGS, "")
        lines = [json.loads(line) for line in out.splitlines()]
        assert len(lines) == 2
        for line in lines:
            assert set(line) == set(Finding.model_fields)
            assert line["schema_version"] == FINDING_SCHEMA_VERSION
            assert line["producer"] == f"relaywatch {__version__}"
            Finding.model_validate(line)

    def test_json_of_nothing_is_empty(self, run, nothing):
        assert run("hunt", nothing, "--json") == (Exit.NOTHING_FOUND, "", "")

    def test_ocsf_is_one_detection_finding_a_line(self, run, relays):
        status, out, _ = run("hunt", relays, "--ocsf")
        assert status == Exit.FINDINGS
        assert [json.loads(line)["class_uid"] for line in out.splitlines()] == [2004, 2004]

    def test_two_formats_on_one_stream_are_refused_before_anything_is_read(self, run, tmp_path):
        status, out, err = run("hunt", tmp_path / "missing", "--json", "--ocsf")
        assert (status, out) == (Exit.UNUSABLE, "")
        assert "choose one" in err

    def test_html_writes_a_page_beside_the_other_output(self, run, relays, tmp_path):
        page = tmp_path / "report.html"
        status, out, _ = run("hunt", relays, "--html", page, "--json")
        assert status == Exit.FINDINGS
        assert len(out.splitlines()) == 2
        assert page.read_text(encoding="utf-8").lower().startswith("<!doctype html>")

    def test_findings_are_out_before_a_page_that_fails(self, run, relays, monkeypatch, tmp_path):
        def fails(*_: object) -> None:
            raise OSError(28, "No space left on device", "report.html")

        monkeypatch.setattr("relaywatch.outputs.html.write_report", fails)
        status, out, err = run("hunt", relays, "--html", tmp_path / "report.html", "--json")
        assert (status, len(out.splitlines())) == (Exit.UNUSABLE, 2)
        assert err == "relaywatch: report.html: No space left on device.\n"

    def test_settings_and_their_origin_reach_the_finding(self, run, relays, tmp_path):
        file = tmp_path / "site.toml"
        file.write_text('[settings]\nAllowedAppList = ["com.example.app"]\n')
        _, out, _ = run("hunt", relays, "--json", "--settings", file, "--set", "TimeWindow=9")
        uses = {use["name"]: use for use in json.loads(out.splitlines()[0])["settings"]}
        assert uses["AllowedAppList"]["origin"] == f"file {file}"
        assert uses["TimeWindow"]["origin"] == "flag --set"
        assert {json.loads(line)["verdict"] for line in out.splitlines()} == {"sanctioned_relay"}

    def test_exceptions_reach_the_finding(self, run, relays, tmp_path):
        file = tmp_path / "exceptions.toml"
        file.write_text(
            '[[exception]]\nid = "E-7"\npackage = "com.example.app"\nowner = "IT"\nreason = "proxy"\n'
            "expires = 2030-01-01T00:00:00Z\n"
        )
        status, out, _ = run("hunt", relays, "--json", "--exceptions", file)
        assert status == Exit.FINDINGS
        assert {json.loads(line)["exception"]["id"] for line in out.splitlines()} == {"E-7"}

    def test_hostile_names_neither_style_nor_move_the_terminal(self, run, tmp_path):
        hostile = "[bold red]com.evil[/]\x1b[2J\x1b]0;title\x07\u202e"
        path = written(tmp_path, relay(package=hostile, device="[link=x]\x1b[31mphone\r\n"))
        for arguments in (["hunt", path], ["hunt", path, "--json"]):
            status, out, err = run(*arguments)
            assert status == Exit.FINDINGS
            assert not {"\x1b", "\x07", "\r", "\u202e"} & set(out + err)
        assert "[bold red]com.evil[/]" in run("hunt", path)[1]
        identity = json.loads(run("hunt", path, "--json")[1])["finding_id"]
        assert not {"\x1b", "\x07", "\r", "\u202e"} & set(run("explain", identity)[1])

    def test_hostile_path_is_neutralised_in_an_error(self, run, tmp_path):
        status, _, err = run("hunt", tmp_path / "\x1b[2J[bold]x")
        assert status == Exit.UNUSABLE
        assert "\x1b" not in err
        assert "[bold]x: does not exist" in err

    def test_version(self, run):
        assert run("--version") == (0, f"relaywatch {__version__}\n", "")


class TestExplain:
    def test_last_hunt_is_explained_by_the_first_characters_of_an_id(self, run, relays):
        first, second = (json.loads(line) for line in run("hunt", relays, "--json")[1].splitlines())
        for finding in (first, second):
            status, out, _ = run("explain", finding["finding_id"][:8].upper())
            assert status == 0
            assert finding["evidence"][0]["name"] in out
        assert json.loads(run("explain", first["finding_id"], "--json")[1]) == first

    def test_findings_of_a_file_are_explained(self, run, relays, nothing, tmp_path):
        out = run("hunt", written(tmp_path / "more", relay()), "--json")[1]
        saved = tmp_path / "findings.ndjson"
        saved.write_text(out, encoding="utf-8")
        run("hunt", nothing)
        identity = json.loads(out)["finding_id"]
        assert run("explain", identity[:8])[0] == Exit.UNUSABLE
        assert run("explain", identity[:8], "--from", saved)[0] == 0

    @pytest.mark.parametrize(
        ("wanted", "part"),
        [
            ("zzzz", "names 0 findings, not one"),
            ("", "give at least 4 characters"),
            ("a", "give at least 4 characters"),
        ],
    )
    def test_unknown_or_too_short_id_names_those_there_are(self, run, relays, wanted, part):
        known = json.loads(run("hunt", relays, "--json")[1].splitlines()[0])["finding_id"]
        status, out, err = run("explain", wanted)
        assert (status, out) == (Exit.UNUSABLE, "")
        assert part in err
        assert known[:8] in err

    def test_ambiguous_id_is_refused(self, run, relays, tmp_path):
        lines = run("hunt", relays, "--json")[1].splitlines()
        alike = [json.loads(line) | {"finding_id": f"abcd{number}"} for number, line in enumerate(lines)]
        saved = tmp_path / "alike.ndjson"
        saved.write_text("".join(json.dumps(finding) + "\n" for finding in alike))
        status, _, err = run("explain", "abcd", "--from", saved)
        assert status == Exit.UNUSABLE
        assert "'abcd' names 2 findings, not one" in err
        assert run("explain", "abcd1", "--from", saved)[0] == 0

    def test_without_a_hunt_the_user_is_told_what_to_do(self, run):
        status, _, err = run("explain", "abcd")
        assert status == Exit.UNUSABLE
        assert "Run relaywatch hunt first" in err

    def test_a_hunt_whose_findings_cannot_be_kept_still_gives_them(self, run, relays, own_state):
        (own_state / "relaywatch").write_text("in the way")
        status, out, err = run("hunt", relays, "--json")
        assert (status, len(out.splitlines())) == (Exit.FINDINGS, 2)
        assert "not kept for explain" in err


class TestSources:
    def test_sources_tells_what_is_there_and_counts_every_record(self, run, relays):
        status, out, err = run("sources", relays)
        assert status == Exit.NOTHING_FOUND
        assert "lost" not in out
        assert "canonical-ndjson" in out
        assert "app, direction" in " ".join(out.split())
        assert not err

    def test_json_has_an_object_a_source_and_the_sums(self, run, relays):
        _, out, _ = run("sources", relays, "--json")
        *sources, sums = map(json.loads, out.splitlines())
        assert [record["kind"] for record in sources] == ["source"]
        assert sources[0]["records"] == sources[0]["with_rows"] == sums["records"] > 0
        assert (sums["lost"], sums["quarantined"], sums["devices"]) == (0, 0, 3)
        assert sources[0]["fields"]["app"] == "observed"

    def test_damaged_records_are_told_and_change_the_status(self, run, relays):
        with relays.open("a") as file:
            file.write("{broken\n")
        status, out, err = run("sources", relays, "--json")
        assert status == Exit.PARTIAL
        assert json.loads(out.splitlines()[-1])["quarantined"] == 1
        assert "put aside" in err

    def test_two_views_of_one_phone_are_shown_as_joined(self, run, relays, tmp_path):
        zeek = tmp_path / "zeek"
        assert run("export", relays, "--to", "zeek", "--out", zeek)[0] == Exit.NOTHING_FOUND
        _, out, _ = run("sources", zeek, relays, "--json", "--device", "phone-1")
        joins = [json.loads(line) for line in out.splitlines() if '"join"' in line]
        assert {(join["one"], join["other"]) for join in joins} <= {
            ("zeek", "canonical-ndjson"),
            ("canonical-ndjson", "zeek"),
        }
        assert any(join["matched"] for join in joins)

    def test_a_missing_path_is_a_plain_error(self, run, tmp_path):
        status, _, err = run("sources", tmp_path / "none")
        assert status == Exit.UNUSABLE
        assert "does not exist" in err


class TestOtherCommands:
    def test_settings_are_listed_with_value_default_and_origin(self, run):
        status, out, _ = run("settings", "--json", "--set", "TimeWindow=3")
        uses = [json.loads(line) for line in out.splitlines()]
        assert status == 0
        assert [use["name"] for use in uses] == [setting.name for setting in SETTINGS]
        assert uses[0] == {
            "name": "TimeWindow",
            "value": "3.0",
            "default": "10.0",
            "origin": "flag --set",
            "attack": True,
        }

    def test_settings_are_shown_with_their_reasons(self, run):
        status, out, _ = run("settings")
        assert status == 0
        assert all(setting.name in out for setting in SETTINGS)
        assert "RecentUserInteractionWindow (ours)" in out

    @pytest.mark.parametrize("form", [form.value for form in ExportFormat if form is not ExportFormat.USAGESTATS])
    def test_export_writes_files_that_can_be_hunted(self, run, relays, tmp_path, form):
        folder = tmp_path / "out"
        status, out, _ = run("export", relays, "--to", form, "--out", folder)
        assert status == 0
        files = [Path(line) for line in out.splitlines()]
        assert files
        assert all(file.stat().st_size for file in files)
        assert run("hunt", folder)[0] in {Exit.NOTHING_FOUND, Exit.FINDINGS}

    @pytest.mark.parametrize("form", ["ndjson", "parquet"])
    def test_what_is_exported_whole_gives_the_same_findings(self, run, relays, tmp_path, form):
        folder = tmp_path / "out"
        run("export", relays, "--to", form, "--out", folder)
        here, there = (run("hunt", path, "--json")[1].splitlines() for path in (relays, folder))
        for ours, theirs in zip(map(json.loads, here), map(json.loads, there), strict=True):
            assert (ours["finding_id"], ours["score"], ours["evidence"][0]["statement"]) == (
                theirs["finding_id"],
                theirs["score"],
                theirs["evidence"][0]["statement"],
            )

    def test_export_tells_what_it_could_not_read_and_leaves_it_out(self, run, relays, tmp_path):
        folder = tmp_path / "telemetry"
        folder.mkdir()
        damaged(relays.rename(folder / relays.name))
        (folder / "no\x1b[2Jtes.txt").write_text("nothing that anyone could read\n")
        status, out, err = run("export", folder, "--to", "ndjson", "--out", tmp_path / "out")
        aside, unread = err.splitlines()
        assert status == Exit.PARTIAL
        assert [Path(line).parent for line in out.splitlines()] == [tmp_path / "out"]
        assert aside.startswith(f"relaywatch: put aside: {folder / relays.name}, line ")
        assert unread == f"relaywatch: not read: {folder}/no\\x1b[2Jtes.txt: of no known format"

    def test_export_of_nothing_known_makes_no_folder(self, run, tmp_path):
        (tmp_path / "notes.txt").write_text("nothing that anyone could read\n")
        assert run("export", tmp_path, "--to", "ndjson", "--out", tmp_path / "out")[0] == Exit.UNUSABLE
        assert not (tmp_path / "out").exists()


class TestProcess:
    """As a shell sees it."""

    def command(self, *arguments: object, **further: object) -> subprocess.CompletedProcess[str]:
        program = "from relaywatch.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)], text=True, check=False, timeout=300, **further
        )

    def test_same_input_gives_the_same_bytes_in_another_process(self, run, relays):
        there = self.command("hunt", relays, "--json", capture_output=True, env={**os.environ, "PYTHONHASHSEED": "7"})
        assert (there.returncode, there.stderr) == (Exit.FINDINGS, "")
        assert there.stdout == run("hunt", relays, "--json")[1]

    def test_reader_that_goes_away_is_no_finding_and_no_traceback(self, relays):
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "w") as gone:
            left = self.command("settings", stdout=gone, stderr=subprocess.PIPE)
        assert (left.returncode, left.stderr) == (Exit.READER_GONE, "")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="asks for a device that is always full")
    def test_full_disk_is_told(self):
        with Path("/dev/full").open("w") as full:
            left = self.command("settings", "--json", stdout=full, stderr=subprocess.PIPE)
        assert left.returncode == Exit.UNUSABLE
        assert left.stderr == "relaywatch: output: No space left on device.\n"


def test_telemetry_of_no_app_at_all_is_nothing_found(run, tmp_path):
    folder = tmp_path / "bare"
    rows = Recorder()
    rows.flow(0.0, 1.0, [(0.0, 10, 10)], "192.0.2.1")
    export(
        [Batch(part.table, part.rows) for part in rows.batches() if part.table == "inventory"],
        ExportFormat.NDJSON,
        folder,
    )
    status, out, _ = run("hunt", folder)
    assert status == Exit.NOTHING_FOUND
    assert "0 relays" in out
