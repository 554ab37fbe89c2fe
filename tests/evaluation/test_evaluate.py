"""What `relaywatch evaluate` promises, on a small lab of bundled traces: every section, its files, clear refusals."""

import json
import re
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from xml.etree import ElementTree

import polars as pl
import pytest
from labelled import EXAMPLES, write_label

from relaywatch import cli

LAB = {
    "T1048": {"tool": "microsocks", "scenario": "microsocks-slow"},
    "T1270": {"tool": "tinyproxy", "scenario": "evade-nothing"},
    "T1604": {"tool": "agent", "scenario": "agent-scrape"},
    "T1126": {"tool": "wireguard", "scenario": "vpn-client", "label": "benign"},
    "T1312": {"tool": "read-later", "scenario": "read-later", "label": "benign"},
    "T1606": {"tool": "push", "scenario": "push-fetch", "label": "benign"},
    "T1273": {"tool": "aria2", "scenario": "bittorrent", "label": "benign"},
}
TOTALS, EMPTY = "T1312", "T1273"
SECTIONS = (
    "Held out: tables fitted without the app's family",
    "In sample: the tables that ship",
    "By kind of telemetry",
    "Rules on the same apps and split",
    "Pairs of legs, with volumes",
    "Pairs of legs, totals only",
    "Pairs of legs by rule",
    "Single flows",
    "What each evidence adds",
    "Programs merged into one app",
    "Reliability, on apps and merged apps",
)


def labelled_pairs(trace):
    """Roles and pairs as a label gives them, by what is plain in these traces: a client leg, then its target leg."""
    flows = pl.read_csv(EXAMPLES / trace / "flows.csv", infer_schema_length=None).sort("start")
    roles, pairs, waiting = {}, [], []
    gateway = flows.filter(pl.col("direction") == "out")["remote_ip"].mode().sort()[0]
    for row in flows.filter(pl.col("proto") == "tcp").iter_rows(named=True):
        accepted = row["direction"] == "in"
        if accepted or (trace == "T1604" and row["remote_ip"] == gateway):
            roles[str(row["flow_id"])] = "relay_in" if accepted else "relay_tunnel"
            waiting.append(row["flow_id"])
        else:
            roles[str(row["flow_id"])] = "relay_out"
            if waiting:
                pairs.append({"in_flow": waiting.pop(0), "out_flow": row["flow_id"], "source": "construction"})
    return {"flow_roles": roles, "pairs": pairs}


def build(lab, names):
    for name in names:
        shutil.copytree(EXAMPLES / name, lab / "traces" / name)
        relay = LAB[name].get("label") != "benign"
        write_label(lab, name, **(labelled_pairs(name) if relay else {}), **LAB[name])
    return lab


def run(*arguments):
    """Exit status, standard output and standard error of `relaywatch evaluate`."""
    shown, told = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(shown), redirect_stderr(told):
        patch.setattr(sys, "argv", ["relaywatch", "evaluate", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
    return left.value.code or 0, shown.getvalue(), told.getvalue()


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    lab = build(folder / "lab", LAB)
    (lab / "traces" / TOTALS / "bins.parquet").unlink()
    head, *_ = (lab / "traces" / EMPTY / "flows.csv").read_text().splitlines(keepends=True)
    (lab / "traces" / EMPTY / "flows.csv").write_text(head)
    status, shown, told = run(lab, "--out", folder / "out")
    assert (status, "rror" in told) == (0, False), told
    return folder / "out", shown


def test_every_section_is_written_and_shown(outcome):
    out, shown = outcome
    text = (out / "evaluation.md").read_text()
    assert [title for title in SECTIONS if f"## {title}\n" not in text] == []
    plain = re.sub(r"\s+", " ", shown)
    assert [title for title in SECTIONS if title not in plain] == []


def test_the_document_says_its_version_and_the_same_figures(outcome):
    out, _ = outcome
    document = json.loads((out / "evaluation.json").read_text())
    assert re.fullmatch(r"\d+\.\d+\.\d+", document["evaluation_version"])
    assert document["labs"] == ["lab"]
    assert document["apps"] == sorted(set(LAB) - {EMPTY})
    assert document["without_flows"] == [EMPTY]
    assert document["held_out"]["relays"] == 3
    assert document["held_out"]["benign"] == 3
    assert document["held_out"]["recall_flagged"]["value"] == 1.0
    assert document["held_out"]["false_flagged"] == {"value": 0.0, "low": 0.0, "high": pytest.approx(0.708, abs=1e-3)}
    scores = document["curves"]["relaywatch"]
    assert len(scores) == len(document["relays"]) == len(document["apps"])
    assert len(document["pair_rates"]) == len(document["pair_curves"]["relaywatch"])
    assert all(0.0 <= share <= 1.0 for curve in document["pair_curves"].values() for share in curve)


def test_every_rule_stands_beside_on_the_same_apps(outcome):
    out, _ = outcome
    document = json.loads((out / "evaluation.json").read_text())
    rules = {row["rule"]: row for row in document["rules"]}
    assert next(iter(rules)) == "relaywatch"
    assert {"one-line hub rule", "Zeek stepping stone", "RITA beacon", "ASOF join, time: count"} <= set(rules)
    assert rules["relaywatch"]["false_alarms"] == 0
    assert set(document["curves"]) <= set(rules)


def test_the_harder_half_has_rows_of_its_own(outcome):
    out, _ = outcome
    document = json.loads((out / "evaluation.json").read_text())
    groups = {row["group"]: row["apps"] for row in document["held_out"]["rows"]}
    assert (groups["hidden: yes"], groups["hidden: no"]) == (1, 2)
    assert groups["topology: back_connect"] == 1
    assert groups["program: tinyproxy"] == 1


def test_plots_are_drawn(outcome):
    out, _ = outcome
    for name in ("roc.svg", "bridge_roc.svg", "reliability.svg"):
        assert ElementTree.parse(out / name).getroot().tag.endswith("svg")  # noqa: S314  our own file


def refused(*arguments):
    status, _, told = run(*arguments)
    assert status == 2
    return re.sub(r"\s+", " ", told)


def test_a_folder_that_is_no_lab_is_refused(tmp_path):
    assert "holds no truth/*.json" in refused(tmp_path, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["T1048", "T1126", "T1606"], "relays of 1 families"),
        (["T1048", "T1270", "T1606"], "benign apps of 1 families"),
        (["T1048", "T1270"], "benign apps of 0 families"),
    ],
    ids=["one relay", "one benign app", "no benign app"],
)
def test_a_lab_that_cannot_be_held_out_is_refused(tmp_path, names, kind):
    assert kind in refused(build(tmp_path / "lab", names), "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("member", "text"), [(".", None), ("context.json", None), ("context.json", "[1"), ("flows.csv", "text")], ids=str
)
def test_a_trace_that_cannot_be_read_is_refused_by_name(tmp_path, member, text):
    lab = build(tmp_path / "lab", ["T1048", "T1270", "T1126", "T1606"])
    damaged = lab / "traces" / "T1048" / member
    if text is not None:
        damaged.write_text(text)
    elif damaged.is_dir():
        shutil.rmtree(damaged)
    else:
        damaged.unlink()
    assert "T1048" in refused(lab, "--out", tmp_path / "out")


def test_a_place_that_is_no_folder_is_refused_before_the_work(tmp_path):
    (tmp_path / "out").write_text("")
    assert "out" in refused(tmp_path, "--out", tmp_path / "out")
