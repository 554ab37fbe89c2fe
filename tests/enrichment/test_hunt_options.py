"""--asn and --indicators of `relaywatch hunt`: they reach the finding, and a wrong file is told before reading."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from mmdb_examples import database, holder
from scenarios import Recorder, listener_relay

from relaywatch import cli
from relaywatch.cli import Exit
from relaywatch.outputs.telemetry import ExportFormat, export

OWN = """[[indicator]]
value = "com.example.app"
kind = "package"
family = "Site's own"
source = "ticket 7"
licence = "own"
retrieved = 2026-03-01
"""


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["relaywatch", "hunt", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    return call


def test_database_and_own_indicators_reach_the_finding(run, tmp_path: Path):
    relay = listener_relay(np.random.default_rng(41), Recorder())
    (telemetry,) = export(relay.batches(), ExportFormat.NDJSON, tmp_path / "telemetry")
    base, own = tmp_path / "asn.mmdb", tmp_path / "own.toml"
    base.write_bytes(database({"198.18.0.0/15": holder(64496, "Example Hosting")}))
    own.write_text(OWN)
    status, out, _ = run(telemetry, "--json", "--asn", base, "--indicators", own)
    finding = json.loads(out)
    assert status == Exit.FINDINGS
    assert finding["spread"]["organisations"] == 1
    assert finding["destinations"][0]["autonomous_systems"] == [{"number": 64496, "organisation": "Example Hosting"}]
    assert [(match["family"], match["source"]) for match in finding["indicators"]] == [("Site's own", "ticket 7")]


@pytest.mark.parametrize("option", ["--asn", "--indicators"])
@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe nonsense [["])
def test_file_that_cannot_be_used_is_told_in_a_line_before_anything_is_read(run, tmp_path, option, content):
    wrong = tmp_path / "wrong"
    if content is not None:
        wrong.write_bytes(content)
    if option == "--indicators" and content == b"":
        wrong.write_bytes(b"[[other]]\n")
    status, out, err = run(tmp_path / "no telemetry", option, wrong)
    assert (status, out) == (Exit.UNUSABLE, "")
    assert str(wrong) in err
    assert err.count("\n") == 1
