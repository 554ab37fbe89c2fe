"""A security lake's events: OCSF as JSON lines and Parquet, and ECS documents."""

import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mutations import assert_accounted, assert_survives, mutate, read_path
from sensor_examples import DEVICE, assert_same_flows, flows, rows_of

from relaywatch.model.schemas import SignalKind
from relaywatch.outputs.telemetry import ExportFormat, export

META = {"version": "1.5.0", "product": {"name": "Sensor"}}
BASE = {"class_uid": 4001, "activity_id": 6, "time": 1_772_528_410_000, "metadata": META}
NETWORK = BASE | {
    "start_time": 1_772_528_400_000,
    "connection_info": {"direction_id": 2, "protocol_num": 6, "uid": "c1"},
    "src_endpoint": {"ip": "10.0.0.5", "port": 40001},
    "dst_endpoint": {"ip": "203.0.113.9", "port": 443, "hostname": "Gw.Example"},
    "traffic": {"bytes_out": 1400, "bytes_in": 20_800, "packets_out": 10, "packets_in": 20},
    "device": {
        "uid": "phone-7",
        "ip": "10.0.0.5",
        "hostname": "pixel",
        "mac": "3C:22:FB:00:00:01",
        "os": {"name": "Android"},
    },
    "unmapped": {"android": {"package": "com.a", "uid": 10101}},
}
LISTEN = BASE | {"activity_id": 7, "src_endpoint": {"ip": "10.0.0.5", "port": 1080}, "device": NETWORK["device"]}
DNS = BASE | {
    "class_uid": 4003, "activity_id": 2, "query": {"hostname": "Gw.Example."}, "answers": [{"rdata": "203.0.113.9"}],
    "src_endpoint": {"ip": "10.0.0.5"},
}  # fmt: skip
PROCESS = BASE | {"class_uid": 1007, "activity_id": 1, "process": {"name": "com.a:bg"}, "device": NETWORK["device"]}
SOFTWARE = BASE | {
    "class_uid": 5020,
    "package": {"name": "com.a"},
    "device": NETWORK["device"] | {"owner": {"name": "A. Holder"}},
}
SOCKETS = NETWORK | {"class_uid": 5012, "connection_info": {"direction_id": 1, "protocol_num": 6}, "traffic": None}
FINDING = BASE | {
    "class_uid": 2004,
    "severity": "High",
    "finding_info": {"title": "Proxyware"},
    "device": NETWORK["device"],
}
OTHER = BASE | {"class_uid": 3002}
EVENTS = [NETWORK, LISTEN, DNS, PROCESS, SOFTWARE, SOCKETS, FINDING, OTHER]
ECS = {
    "@timestamp": "2026-03-03T09:00:10Z", "ecs": {"version": "8.17.0"}, "event": {"duration": 10_000_000_000},
    "network": {"transport": "tcp", "direction": "ingress"}, "host": {"id": "phone-7"},
    "source": {"ip": "198.51.100.7", "port": 51000, "bytes": 900, "packets": 10},
    "destination": {"ip": "10.0.0.5", "port": 8899, "bytes": 70_400, "packets": 10}, "package": {"name": "com.a"},
}  # fmt: skip


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


FUZZ_SEEDS = [("ocsf.ndjson", lines(*EVENTS)), ("ecs.ndjson", lines(ECS, ECS | {"network": {}}, ECS | {"host": {}}))]


def read(tmp_path, *records, device=""):
    path = tmp_path / "events"
    path.write_bytes(lines(*records))
    return told(path, device)


def told(path, device=""):
    batches, quarantine, tally, unknown = read_path(path, device)
    assert not unknown
    assert_accounted(quarantine, tally)
    return batches, quarantine, tally


def test_a_network_activity_is_a_flow_of_the_devices_app(tmp_path):
    (row,) = rows_of(read(tmp_path, NETWORK)[0])
    assert (row["device_uid"], row["android_package"], row["android_uid"]) == ("phone-7", "com.a", 10101)
    assert (row["direction_id"], row["direction_observability"], row["remote_hostname"]) == (2, 1, "gw.example")
    assert (row["wire_bytes_out"], row["wire_bytes_in"], row["bytes_out"]) == (1400, 20_800, 1000)
    assert (row["end_time"] - row["start_time"]).total_seconds() == 10


def test_an_inbound_one_is_seen_from_the_destination(tmp_path):
    inbound = NETWORK | {
        "connection_info": {"direction_id": 1, "protocol_num": 6},
        "src_endpoint": {"ip": "198.51.100.7", "port": 51000},
        "dst_endpoint": {"ip": "10.0.0.5", "port": 8899},
    }
    (row,) = rows_of(read(tmp_path, inbound)[0])
    assert (row["direction_id"], row["local_port"], row["remote_ip"]) == (1, 8899, "198.51.100.7")
    assert (row["wire_bytes_out"], row["wire_bytes_in"]) == (20_800, 1400)


def test_what_events_add_sums_up_and_what_they_count_so_far_does_not(tmp_path):
    (row,) = rows_of(read(tmp_path, NETWORK, NETWORK | {"time": 1_772_528_420_000})[0])
    assert row["wire_bytes_out"] == 2800
    so_far = NETWORK | {"cumulative_traffic": NETWORK["traffic"], "traffic": None}
    (row,) = rows_of(read(tmp_path, so_far, so_far)[0])
    assert row["wire_bytes_out"] == 1400


def test_times_in_seconds_are_told_by_their_size(tmp_path):
    seconds = NETWORK | {"time": 1_772_528_410, "start_time": 1_772_528_400}
    (row,), (same,) = rows_of(read(tmp_path, seconds)[0]), rows_of(read(tmp_path, NETWORK)[0])
    assert (row["start_time"], row["end_time"]) == (same["start_time"], same["end_time"])


def test_other_classes_are_signals_and_inventory(tmp_path):
    batches, quarantine, tally = read(tmp_path, *EVENTS)
    assert not quarantine.total
    signals = {(row["kind"], row["local_port"], row["detail"]) for row in rows_of(batches, "signals")}
    assert signals == {
        (SignalKind.LISTENER, 1080, "tcp"),
        (SignalKind.NAME_LOOKUP, None, "gw.example 203.0.113.9"),
        (SignalKind.PROCESS_START, None, "com.a:bg"),
        (SignalKind.THREAT_VERDICT, None, "Sensor: Proxyware, High"),
    }
    inventory = rows_of(batches, "inventory")
    assert {row["identifier"] for row in inventory if row["identifier"]} == {"phone-7", "pixel", "3c:22:fb:00:00:01"}
    assert {row["user_name"] for row in inventory if row["user_name"]} == {"A. Holder"}
    (socket,) = (row for row in rows_of(batches) if row["start_observability"] == 2)
    assert socket["direction_id"] == 1
    assert tally.unused == {"an event of a class or activity that no table holds": 1}


def test_parquet_with_more_and_other_columns_gives_the_same(tmp_path):
    rows = [json.loads(json.dumps(event)) for event in (NETWORK, LISTEN, FINDING)]
    for row in rows:
        row["metadata"]["labels"] = ["x"]
        row["cloud"] = {"account": 7}
        row["time"] = row["time"] // 1000
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "lake.parquet")
    batches, quarantine, _ = told(tmp_path / "lake.parquet")
    plain, _, _ = read(tmp_path, NETWORK, LISTEN, FINDING)
    assert not quarantine.total
    keep = ("device_uid", "android_package", "local_port", "remote_ip", "wire_bytes_out", "start_time")
    assert [[r[k] for k in keep] for r in rows_of(batches)] == [[r[k] for k in keep] for r in rows_of(plain)]
    assert {r["kind"] for r in rows_of(batches, "signals")} == {SignalKind.LISTENER, SignalKind.THREAT_VERDICT}


@pytest.mark.parametrize(
    "damage", [{"time": None}, {"time": -1}, {"src_endpoint": {"ip": "x"}}, {"connection_info": {"protocol_num": 999}}]
)
def test_a_damaged_event_is_put_aside(tmp_path, damage):
    batches, quarantine, _ = read(tmp_path, NETWORK, NETWORK | damage)
    assert [record.position for record in quarantine.records] == ["record 2"]
    assert len(rows_of(batches)) == 1


def test_an_ecs_document_is_seen_from_its_host(tmp_path):
    (row,) = rows_of(read(tmp_path, ECS)[0])
    assert (row["device_uid"], row["android_package"], row["direction_id"]) == ("phone-7", "com.a", 1)
    assert (row["local_port"], row["wire_bytes_out"], row["wire_bytes_in"]) == (8899, 70_400, 900)
    assert (row["end_time"] - row["start_time"]).total_seconds() == 10


def test_dotted_names_are_the_same_fields(tmp_path):
    flat = {"@timestamp": ECS["@timestamp"], "ecs.version": "8.17.0"}
    for name in ("event", "network", "host", "source", "destination", "package"):
        flat |= {f"{name}.{field}": value for field, value in ECS[name].items()}
    assert rows_of(read(tmp_path, flat)[0]) == rows_of(read(tmp_path, ECS)[0])


def test_a_document_without_a_host_is_seen_from_the_local_end(tmp_path):
    (row,) = rows_of(read(tmp_path, ECS | {"host": {}})[0])
    assert (row["device_uid"], row["direction_id"]) == ("10.0.0.5", 1)


@pytest.mark.parametrize("form", [ExportFormat.OCSF, ExportFormat.ECS])
def test_what_is_written_is_read_back(tmp_path, form):
    (path,) = export([flows()], form, tmp_path)
    assert path.name.startswith("synthetic")
    batches, quarantine, _ = told(path)
    assert not quarantine.total
    assert_same_flows(rows_of(batches), device=DEVICE)


def test_hostile_variants_are_read_to_the_end(tmp_path):
    rng = random.Random(1)  # noqa: S311  mutations, no secret
    for number in range(100):
        for name, content in FUZZ_SEEDS:
            assert_survives(tmp_path / str(number), name, mutate(content, rng))
