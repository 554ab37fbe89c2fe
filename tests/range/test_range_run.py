"""The whole range on two tiny scenarios: real namespaces, real packets, labels that fit, nothing left behind."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from relay_range.spaces import obstacle

from relaywatch.model.quarantine import Quarantine
from relaywatch.sources.compression import open_content
from relaywatch.sources.lab import LabTrace
from relaywatch.sources.pcap import Pcap
from relaywatch.sources.reading import Reading

RANGE = Path(__file__).parents[2] / "range"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of one relay and one ordinary app: its output folder and its process's number."""
    if why := obstacle():
        pytest.skip(f"no namespaces here: {why}")
    out = tmp_path_factory.mktemp("range")
    argv = [sys.executable, "-m", "relay_range", "run", "--out", str(out), "--seconds", "10"]
    argv += ["--only", "agent-binary-scrape,script-browse"]
    with subprocess.Popen(argv, cwd=RANGE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, said
    assert "2 run, 0 not run, 0 failed" in said
    return out, process.pid


@pytest.fixture(scope="module")
def data(finished):
    """The output folder."""
    return finished[0]


@pytest.fixture(scope="module")
def truths(data):
    """The labels by scenario."""
    found = [json.loads(path.read_text()) for path in (data / "truth").glob("R*.json")]
    return {truth["scenario"]: truth for truth in found}


def rows(folder):
    with (folder / "flows.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_relays_sessions_are_paired_by_what_gateway_and_origin_wrote_down(data, truths):
    truth = truths["agent-binary-scrape"]
    assert (truth["label"], truth["topology"], truth["group"]) == ("relay", "tunnel", "main")
    assert truth["mixed_with_own_traffic"] is False
    assert truth["pairs"]
    assert {pair["source"] for pair in truth["pairs"]} == {"gateway-log+origin-log"}
    flows = {row["flow_id"]: row for row in rows(data / "traces" / truth["trace"])}
    link = flows[str(truth["pairs"][0]["in_flow"])]
    assert (link["remote_ip"], link["direction"]) == (truth["gateways"][0], "out")
    down, up = truth["byte_conservation_payload"].values()
    assert 0.9 < down[2] < 1.3
    assert 0 < up[2] < 1


def test_the_ordinary_app_has_flows_of_its_own_only(truths):
    truth = truths["script-browse"]
    assert truth["label"] == "benign"
    assert set(truth["role_counts"]) == {"own", "dns"}
    assert truth["pairs"] == []


def test_relaywatch_reads_each_trace_whole(data, truths):
    for truth in truths.values():
        folder, quarantine = data / "traces" / truth["trace"], Quarantine()
        assert LabTrace.members(folder)
        tables = {}
        for batch in LabTrace().read(folder, Reading(quarantine)):
            tables[batch.table] = tables.get(batch.table, 0) + batch.rows.num_rows
        assert quarantine.total == 0
        assert tables["flows"] == len(truth["flow_roles"])
        assert min(tables["volumes"], tables["signals"], tables["inventory"]) > 0


def test_the_shortened_capture_has_the_same_flows(data, truths):
    trace = data / "traces" / truths["script-browse"]["trace"]
    flows = 0
    with open_content(trace / "trace.pcap.zst") as stream:
        for batch in Pcap().read(trace / "trace.pcap.zst", stream, Reading(Quarantine(), device="phone")):
            flows += batch.rows.num_rows if batch.table == "flows" else 0
    assert flows == len(rows(trace))


def test_no_namespace_and_no_resolver_file_is_left(finished):
    for place in (Path("/run/netns"), Path("/etc/netns")):
        left = [path.name for path in place.iterdir()] if place.is_dir() else []
        assert not [name for name in left if name.startswith(f"rr{finished[1]}")]
