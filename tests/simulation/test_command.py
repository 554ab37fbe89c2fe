"""What a user of `relaywatch simulate` is promised: files that are read back, the truth, mistakes in a line."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import polars as pl
import pyarrow as pa
import pytest
from fleets import plain, tables

from relaywatch.cli import Exit
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import TABLES
from relaywatch.simulation.plan import Plan
from relaywatch.sources.discovery import discover
from relaywatch.sources.reading import Reading

OPTIONS = ("--devices", 5, "--flows", 3_000, "--volumes", 0.5, "--seed", 3)
PLAN = Plan(devices=5, flows=3_000, volumes=0.5, seed=3)


def read_back(folder):
    """The rows of each table as relaywatch reads them, and what it could not read."""
    quarantine = Quarantine()
    reading = Reading(quarantine)
    parts = {name: [] for name in TABLES}
    for unit in discover([folder]).units:
        for batch in unit.read(reading):
            parts[batch.table].append(batch.rows)
    return {name: plain(pl.from_arrow(pa.Table.from_batches(rows))) for name, rows in parts.items()}, quarantine


class TestFiles:
    @pytest.mark.parametrize("form", ["parquet", "ndjson"])
    def test_what_is_written_is_read_back_whole(self, run, tmp_path, form):
        status, out, _ = run("simulate", *OPTIONS, "--to", form, tmp_path / "fleet")
        found, quarantine = read_back(tmp_path / "fleet" / "telemetry")
        assert (status, out, quarantine.total) == (Exit.NOTHING_FOUND, "", 0)
        for name, table in tables(PLAN).items():
            made = plain(pl.from_arrow(table))
            order = ["device_uid", "position", *(["android_uid"] if name == "inventory" else [])]
            assert found[name].sort(order).equals(made.sort(order)), name

    def test_arrow_is_a_stream_a_table(self, run, tmp_path):
        run("simulate", *OPTIONS, "--to", "arrow", tmp_path)
        for name, table in tables(PLAN).items():
            with pa.ipc.open_stream(tmp_path / "telemetry" / f"{name}.arrows") as stream:
                assert stream.read_all().equals(table)

    def test_the_truth_lies_beside(self, run, tmp_path):
        run("simulate", *OPTIONS, "--relays", 0.02, tmp_path)
        truth = json.loads((tmp_path / "truth.json").read_text())
        episodes = pl.read_parquet(tmp_path / "truth.parquet")
        assert truth["synthetic"] is True
        assert truth["plan"]["seed"] == 3
        assert sum(relay["episodes"] for relay in truth["relays"]) == episodes.height
        assert {relay["device_uid"] for relay in truth["relays"]} == set(episodes["device_uid"])

    def test_json_says_what_was_made(self, run, tmp_path):
        status, out, err = run("simulate", *OPTIONS, "--faults", "duplicates=0.5", "--json", tmp_path)
        told = json.loads(out)
        assert (status, err) == (Exit.NOTHING_FOUND, "")
        assert told["written"]["flows"] == 3_000 + told["written"]["repeated"]
        assert told["synthetic"] is True
        assert [path for path in told["files"] if path.endswith("flows.parquet")]

    def test_a_fleet_is_not_written_over_another(self, run, tmp_path):
        run("simulate", *OPTIONS, tmp_path)
        status, _, err = run("simulate", *OPTIONS, tmp_path)
        assert status == Exit.UNUSABLE
        assert "is there already" in err

    def test_flows_a_day_are_of_each_device(self, run, tmp_path):
        status, _, err = run("simulate", "--devices", 4, "--flows-a-day", 500, "--days", 2, tmp_path)
        assert status == Exit.NOTHING_FOUND, err
        assert pl.read_parquet(tmp_path / "telemetry" / "flows.parquet").height == 4_000


class TestStandardOutput:
    def test_arrow_is_the_flows(self, run, tmp_path, monkeypatch):
        stream = _piped(monkeypatch)
        status, _, _ = run("simulate", *OPTIONS, "--to", "arrow", "--truth", tmp_path, "-")
        with pa.ipc.open_stream(stream.getvalue()) as found:
            assert found.read_all().equals(tables(PLAN)["flows"])
        assert status == Exit.NOTHING_FOUND
        assert (tmp_path / "truth.json").exists()

    def test_ndjson_is_all_tables(self, run, monkeypatch):
        stream = _piped(monkeypatch)
        run("simulate", *OPTIONS, "--to", "ndjson", "-")
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        counts = {name: sum(line["table"] == name for line in lines) for name in TABLES}
        assert counts == {name: table.num_rows for name, table in tables(PLAN).items()}

    @pytest.mark.parametrize("form", ["arrow", "ndjson"])
    def test_a_reader_may_go_away(self, form):
        command = [
            sys.executable,
            "-m",
            "relaywatch",
            "simulate",
            "--devices",
            "20",
            "--flows",
            "50000",
            "--to",
            form,
            "-",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as made:
            made.stdout.read(100)
            made.stdout.close()
            assert (made.wait(120), made.stderr.read()) == (Exit.READER_GONE, b"")


def _piped(monkeypatch):
    """Standard output as bytes that are kept."""
    kept = io.BytesIO()

    class Pipe(io.TextIOWrapper):
        def close(self):
            self.flush()

    monkeypatch.setattr("sys.stdout", Pipe(kept))
    return kept


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--devices", 0, "--flows", 10), "devices: 0 is out of range"),
        (("--devices", 5), "give one of --flows"),
        (("--devices", 5, "--flows", 10, "--flows-a-day", 3), "give one of --flows"),
        (("--devices", 5, "--flows", 3_000, "--relays", 2), "relays: 2 is no share"),
        (("--devices", 5, "--flows", 3_000, "--start", "today"), "is no day"),
        (("--devices", 5, "--flows", 3_000, "--faults", "fire=1"), "'fire' is no fault"),
        (("--devices", 5, "--flows", 3_000, "--faults", "late=much"), "write late=RATE"),
        (("--devices", 5, "--flows", 3_000, "--faults", "late=2"), "is no share"),
        (("--devices", 5, "--flows", 3_000, "--faults", "gaps=0.1:1e9"), "bound"),
        (("--devices", 500, "--flows", 100), "too few"),
    ],
)
def test_a_mistake_is_told_in_a_line(run, tmp_path, options, said):
    status, out, err = run("simulate", *options, tmp_path / "fleet")
    assert (status, out) == (Exit.UNUSABLE, "")
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "fleet").exists()


@pytest.mark.parametrize("options", [("--to", "parquet", "-"), ("--json", "-"), ("--truth", "there", "here")])
def test_what_does_not_go_together_is_refused(run, options):
    status, out, _ = run("simulate", *OPTIONS, *options)
    assert (status, out) == (Exit.UNUSABLE, "")
