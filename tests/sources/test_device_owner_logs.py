"""Logs of device owners: TestDPC's lines and OwnDroid's JSON."""

import json
import random

import pytest
from mutations import assert_accounted, assert_survives, mutate, read_path

from relaywatch.model.schemas import SignalKind

LINES = """DnsEvent(gw.example, 203.0.113.9 203.0.113.10, 2, 1506297599000, com.android.chrome)
ConnectEvent(203.0.113.9, 443, 1506297600000, com.android.chrome)
ConnectEvent(/2001:db8::9, 80, 1506297600500, android.uid.shared:10077)
ConnectEvent(127.0.0.1, 80, 1506297600600, com.android.chrome)
"""
OWNDROID = [
    {
        "id": 1,
        "timestamp": "1506297599000",
        "type": "dns",
        "host_name": "gw.example",
        "count": 1,
        "addresses": ["203.0.113.9"],
    },
    {"id": 2, "timestamp": "1506297600000", "type": "connect", "address": "203.0.113.9", "port": 443},
]
FUZZ_SEEDS = [("network_logs_1.txt", LINES.encode()), ("NetworkLogs.json", json.dumps(OWNDROID).encode())]


def read(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    batches, quarantine, tally, unknown = read_path(path)
    assert not unknown
    assert_accounted(quarantine, tally)
    rows = {"flows": [], "signals": []}
    for part in batches:
        rows[part.table] += part.rows.to_pylist()
    return rows, quarantine, tally


def test_lines_of_testdpc_are_flows_and_look_ups_of_their_app(tmp_path):
    rows, quarantine, tally = read(tmp_path, "network_logs_1.txt", LINES)
    assert not quarantine.total
    named, shared = rows["flows"]
    assert (named["android_package"], named["remote_ip"], named["remote_port"]) == (
        "com.android.chrome",
        "203.0.113.9",
        443,
    )
    assert (named["remote_hostname"], named["start_time"].timestamp()) == ("gw.example", 1506297600)
    assert (shared["android_package"], shared["android_uid"], shared["remote_ip"]) == (None, 10077, "2001:db8::9")
    (lookup,) = rows["signals"]
    assert (lookup["kind"], lookup["detail"]) == (SignalKind.NAME_LOOKUP, "gw.example 203.0.113.9 203.0.113.10")
    assert tally.unused == {"a connect to the phone itself": 1}


@pytest.mark.parametrize("bad", ["ConnectEvent(203.0.113.9, 99999, 1506297600000, a.b)", "ConnectEvent(x", "hello"])
def test_a_damaged_line_is_put_aside(tmp_path, bad):
    rows, quarantine, _ = read(tmp_path, "network_logs_1.txt", LINES + bad + "\n")
    assert len(rows["flows"]) == 2
    assert [record.position for record in quarantine.records] == ["line 5"]


@pytest.mark.parametrize("indent", [None, 2])
def test_owndroid_names_no_app(tmp_path, indent):
    rows, quarantine, _ = read(tmp_path, "NetworkLogs.json", json.dumps(OWNDROID, indent=indent))
    assert not quarantine.total
    (flow,) = rows["flows"]
    assert (flow["android_package"], flow["android_uid"], flow["remote_hostname"]) == (None, None, "gw.example")
    assert [row["kind"] for row in rows["signals"]] == [SignalKind.NAME_LOOKUP]


def test_hostile_variants_are_read_to_the_end(tmp_path):
    rng = random.Random(1)  # noqa: S311  mutations, no secret
    for number in range(150):
        for name, content in FUZZ_SEEDS:
            assert_survives(tmp_path / str(number), name, mutate(content, rng))
