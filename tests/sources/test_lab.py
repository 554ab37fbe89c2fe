from __future__ import annotations

import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mutations import assert_accounted, assert_survives, mutate, read_path
from unit_reads import read_paths, shared

from relaywatch.model.schemas import Direction, Observability, SignalKind
from relaywatch.sources.discovery import discover
from relaywatch.sources.lab import LabTrace

FLOW = {
    "flow_id": 0,
    "start": 1700000001.25,
    "end": 1700000009.5,
    "proto": "tcp",
    "local_ip": "10.7.0.23",
    "local_port": 40000,
    "remote_ip": "198.18.4.9",
    "remote_port": 443,
    "direction": "out",
    "hostname": "shop.example",
    "hostname_src": "sni",
    "tx_payload": 700,
    "rx_payload": 9000,
    "tx_ip": 1300,
    "rx_ip": 9700,
    "tx_pkts": 12,
    "rx_pkts": 14,
    "syn_seen": 1,
    "established": 1,
}
BIN = {"flow_id": 0, "sec": 1700000001, "tx_bytes": 700, "rx_bytes": 9000, "tx_pkts": 12, "rx_pkts": 14}
CONTEXT = {
    "package": "com.example.game",
    "uid": 10321,
    "trace_start": 1700000000.0,
    "trace_end": 1700000100.0,
    "foreground": [[1700000000.0, 1700000020.0]],
    "foreground_service": True,
    "screen_on": [[1700000000.0, 1700000030.0], [1700000050.0, 1700000060.0]],
    "interaction": [1700000002.5],
    "listeners": [{"proto": "tcp", "addr": "0.0.0.0:8080", "first_seen": 1700000012.0, "last_seen": 1700000096.0}],
}
ALL_KINDS = "LISTENER FOREGROUND_UI FOREGROUND_SERVICE SCREEN_ON USER_INTERACTION"


def csv(*flows: dict[str, object]) -> str:
    return "\n".join([",".join(FLOW), *(",".join(str(flow[name]) for name in FLOW) for flow in flows), ""])


def trace(folder, *flows, context=CONTEXT, bins=(BIN,)):
    folder.mkdir(exist_ok=True)
    (folder / "flows.csv").write_text(csv(*(flows or (FLOW,))))
    (folder / "context.json").write_text(context if isinstance(context, str) else json.dumps(context))
    if bins is not None:
        pq.write_table(pa.Table.from_pylist(list(bins)), folder / "bins.parquet")
    return folder


def test_a_trace_is_one_app_on_a_device_named_as_its_folder(tmp_path):
    rows, quarantine = read_paths(trace(tmp_path / "T7"))
    assert quarantine.total == 0
    (flow,) = rows["flows"]
    assert (flow["device_uid"], flow["android_package"], flow["android_uid"]) == ("T7", "com.example.game", 10321)
    assert (flow["bytes_out"], flow["bytes_in"], flow["wire_bytes_out"], flow["packets_in"]) == (700, 9000, 1300, 14)
    assert (flow["start_time"].timestamp(), flow["end_time"].timestamp()) == (1700000001.25, 1700000009.5)
    assert (flow["direction_id"], flow["direction_observability"]) == (Direction.OUTBOUND, Observability.OBSERVED)
    assert (flow["remote_hostname"], flow["hostname_observability"]) == ("shop.example", Observability.OBSERVED)
    assert (flow["established"], flow["position"], flow["clock"]) == (True, 2, "device")


def test_volumes_are_one_second_of_their_flow(tmp_path):
    rows, _ = read_paths(trace(tmp_path / "T7"))
    (volume,) = rows["volumes"]
    (flow,) = rows["flows"]
    assert (volume["source"], volume["flow_id"]) == (flow["source"], flow["flow_id"])
    assert (volume["duration_us"], volume["bytes_out"], volume["bytes_in"]) == (1_000_000, 700, 9000)
    assert volume["start_time"].timestamp() == 1700000001


def test_without_a_syn_the_direction_is_inferred_and_acceptance_unknown(tmp_path):
    late = FLOW | {"syn_seen": 0, "established": 0, "direction": "in", "hostname_src": "dns"}
    udp = FLOW | {"proto": "udp", "syn_seen": 0, "established": 0, "hostname": "", "hostname_src": ""}
    refused = FLOW | {"established": 0}
    flows = read_paths(trace(tmp_path / "T7", late, udp, refused))[0]["flows"]
    assert [flow["direction_observability"] for flow in flows] == [2, 2, 1]
    assert [flow["established"] for flow in flows] == [None, None, False]
    assert [flow["direction_id"] for flow in flows] == [Direction.INBOUND, Direction.OUTBOUND, Direction.OUTBOUND]
    assert [flow["hostname_observability"] for flow in flows] == [2, 0, 1]


def test_context_becomes_dated_signals(tmp_path):
    signals = read_paths(trace(tmp_path / "T7"))[0]["signals"]
    kinds = [SignalKind(signal["kind"]).name for signal in signals]
    assert sorted(kinds) == sorted([*ALL_KINDS.split(), "SCREEN_ON", "CAPTURE"])
    by_kind = dict(zip(kinds, signals, strict=True))
    assert by_kind["LISTENER"]["local_port"] == 8080
    assert by_kind["LISTENER"]["start_time"].timestamp() == 1700000012
    assert by_kind["USER_INTERACTION"]["end_time"] is None
    assert by_kind["FOREGROUND_SERVICE"]["end_time"].timestamp() == 1700000100
    assert by_kind["CAPTURE"]["detail"] == ALL_KINDS


def test_what_the_context_does_not_hold_is_not_claimed_as_watched(tmp_path):
    less = {key: value for key, value in CONTEXT.items() if key not in ("foreground_service", "listeners")}
    signals = read_paths(trace(tmp_path / "T7", context=less))[0]["signals"]
    capture = next(signal for signal in signals if signal["kind"] == SignalKind.CAPTURE)
    assert capture["detail"] == "FOREGROUND_UI SCREEN_ON USER_INTERACTION"


@pytest.mark.parametrize("context", ["{", "[]", "[" * 5000, "\x00"])
def test_a_broken_context_costs_only_the_context(tmp_path, context):
    rows, quarantine = read_paths(trace(tmp_path / "T7", context=context))
    assert (len(rows["flows"]), len(rows["volumes"]), len(rows["signals"])) == (1, 1, 0)
    assert [record.source for record in quarantine.records] == [str(tmp_path / "T7" / "context.json")]


def test_missing_and_broken_bins_cost_only_the_volumes(tmp_path):
    rows, quarantine = read_paths(trace(tmp_path / "T7", bins=None))
    assert len(rows["flows"]) == 1
    assert "bins.parquet" in quarantine.records[0].source
    (tmp_path / "T7" / "bins.parquet").write_bytes(b"PAR1 no")
    rows, quarantine = read_paths(tmp_path / "T7")
    assert len(rows["flows"]) == 1
    assert "Parquet" in quarantine.records[0].reason


@pytest.mark.parametrize(
    "damage",
    [
        {"start": "soon"},
        {"proto": "smoke"},
        {"tx_payload": -1},
        {"remote_port": 70000},
        {"flow_id": ""},
        {"start": "inf"},
    ],
)
def test_a_damaged_flow_is_put_aside_and_the_others_count(tmp_path, damage):
    rows, quarantine = read_paths(trace(tmp_path / "T7", FLOW, FLOW | damage, FLOW))
    assert [flow["position"] for flow in rows["flows"]] == [2, 4]
    assert [record.position for record in quarantine.records] == ["line 3"]


def test_damaged_context_entries_are_put_aside_one_by_one(tmp_path):
    context = CONTEXT | {"screen_on": [[5, 1], "x", [1700000000.0, 1700000001.0]], "listeners": [{"addr": "x:99999"}]}
    rows, quarantine = read_paths(trace(tmp_path / "T7", context=context))
    assert quarantine.total == 3
    assert sum(signal["kind"] == SignalKind.SCREEN_ON for signal in rows["signals"]) == 1


def fleet(folder):
    apps = [
        {"device": "D1", "uid": 10001, "package": "com.example.a", "window": [1700000000.0, 1700000100.0]}
        | {"listeners": [{"proto": "udp", "addr": "[::]:5353"}], "foreground": []},
        {"device": "D2", "uid": 10001, "package": "com.example.b", "window": [1700000000.0, 1700000100.0]},
    ]
    folder.mkdir()
    (folder / "apps.json").write_text(json.dumps(apps))
    (folder / "truth.json").write_text("not to be read")
    who = [{"device": "D1", "uid": 10001}, {"device": "D2", "uid": 10001}, {"device": "D2", "uid": 10999}]
    pq.write_table(
        pa.Table.from_pylist([FLOW | {"flow_id": i} | w for i, w in enumerate(who)]), folder / "flows.parquet"
    )
    pq.write_table(pa.Table.from_pylist([BIN | {"flow_id": i} | w for i, w in enumerate(who)]), folder / "bins.parquet")
    return folder


def test_a_fleet_has_several_devices_and_apps(tmp_path):
    rows, quarantine = read_paths(fleet(tmp_path / "fleet"))
    assert quarantine.total == 0
    for table in ("flows", "volumes"):
        found = [(row["device_uid"], row["android_uid"], row["android_package"], row["flow_id"]) for row in rows[table]]
        assert found == [
            ("D1", 10001, "com.example.a", 0),
            ("D2", 10001, "com.example.b", 1),
            ("D2", 10999, None, 2),
        ]
    (listener,) = [signal for signal in rows["signals"] if signal["kind"] == SignalKind.LISTENER]
    assert (listener["local_port"], listener["start_time"].timestamp()) == (5353, 1700000000)


def test_labels_are_never_listed_to_any_reader(tmp_path):
    found = discover([fleet(tmp_path / "fleet")])
    assert [unit.reader_name for unit in found.units] == ["lab-fleet"]
    assert found.unrecognised == ()


def test_a_folder_of_traces_is_read_trace_by_trace(tmp_path):
    trace(tmp_path / "T2")
    trace(tmp_path / "T1")
    assert [unit.path.name for unit in discover([tmp_path]).units] == ["T1", "T2"]


def test_a_linked_file_does_not_make_a_trace(tmp_path):
    outside = trace(tmp_path / "outside")
    folder = trace(tmp_path / "T7")
    (folder / "flows.csv").unlink()
    (folder / "flows.csv").symlink_to(outside / "flows.csv")
    assert LabTrace.members(folder) == frozenset()


LINE = csv(FLOW).split("\n")[1]


@given(
    lines=st.lists(
        st.just(LINE)
        | st.text(max_size=40).map(lambda s: s.replace("\n", ""))
        | st.tuples(st.integers(0, len(LINE) - 1), st.sampled_from(",-x\x00\r\u00e9")).map(
            lambda change: LINE[: change[0]] + change[1] + LINE[change[0] + 1 :]
        ),
        max_size=6,
    )
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_line_is_a_flow_or_in_quarantine(tmp_path, lines):
    folder = trace(tmp_path / "T7")
    (folder / "flows.csv").write_bytes("\n".join([",".join(FLOW), *lines, ""]).encode())
    rows, quarantine = read_paths(folder)
    assert len(rows["flows"]) + quarantine.total == sum(1 for line in lines if line.removesuffix("\r"))


@pytest.mark.parametrize(
    ("name", "lost"),
    [("flows.csv", {"flows", "volumes"}), ("context.json", {"signals", "inventory"}), ("bins.parquet", {"volumes"})],
)
@given(content=st.binary(min_size=1, max_size=300).filter(lambda content: b"{" not in content))
@example(content=b"null")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_in_any_of_the_files_are_survived(tmp_path, name, lost, content):
    folder = trace(tmp_path / "T7")
    whole, _ = read_paths(folder)
    (folder / name).write_bytes(content)
    rows, quarantine = read_paths(folder)
    assert {table for table in whole if not rows[table]} == lost
    assert {record.source for record in quarantine.records} == {str(folder / name)}


def test_the_real_traces_are_read_whole():
    folder = shared("lab-dev", "traces")
    rows, quarantine = read_paths(folder)
    lines = sum(path.read_bytes().count(b"\n") - 1 for path in folder.glob("*/flows.csv"))
    assert quarantine.total == 0
    assert len(rows["flows"]) == lines


FUZZ_SEEDS: list[tuple[str, bytes]] = [
    ("T7/flows.csv", csv(FLOW, FLOW | {"flow_id": 1, "direction": "in"}, FLOW | {"flow_id": 2}).encode()),
    ("T7/context.json", json.dumps(CONTEXT).encode()),
]


@pytest.mark.parametrize(("name", "content"), FUZZ_SEEDS)
def test_hostile_variants_are_survived_and_accounted_for(tmp_path, name, content):
    rng = random.Random(37)  # noqa: S311 - seeded, so that it repeats
    trace(tmp_path / "T7")
    for _ in range(200):
        assert_survives(tmp_path, name, mutate(content, rng))


def test_apps_flows_and_seconds_are_counted_and_each_damaged_part(tmp_path):
    context = CONTEXT | {"foreground": [[5, 1], [1700000000.0, 1700000020.0]]}
    bins = (BIN, BIN | {"tx_bytes": -1})
    _, quarantine, tally, _ = read_path(
        trace(tmp_path / "T7", FLOW, FLOW | {"proto": "smoke"}, context=context, bins=bins)
    )
    assert (tally.records, tally.with_rows, quarantine.total) == (6, 3, 3)
    assert_accounted(quarantine, tally)
