from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaywatch.model.errors import ExportError
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import Direction, Observability
from relaywatch.model.tables import Batch, batch
from relaywatch.outputs.telemetry import ExportFormat, export
from relaywatch.outputs.telemetry.device_files import device_file
from relaywatch.sources.discovery import discover
from relaywatch.sources.reading import Reading

START = datetime(2024, 10, 5, 10, 0, 0, 250_000, UTC)
PROVENANCE = {"source": "first.csv", "clock": "device", "clock_skew_bound_s": 0.5}
DIALLED = {
    "device_uid": "phone-7",
    "android_package": "com.example.app",
    "android_uid": 10123,
    "flow_id": 1,
    "start_time": START,
    "end_time": START + timedelta(seconds=5),
    "protocol_num": 6,
    "direction_id": Direction.OUTBOUND,
    "direction_observability": Observability.OBSERVED,
    "local_ip": "10.7.0.23",
    "local_port": 40000,
    "remote_ip": "198.51.100.7",
    "remote_port": 443,
    "remote_hostname": "shop.example.com",
    "hostname_observability": Observability.INFERRED,
    "bytes_out": 4_321,
    "bytes_in": 98_765,
    "bytes_observability": Observability.OBSERVED,
    "wire_bytes_out": 4_321 + 40 * 10,
    "wire_bytes_in": 98_765 + 40 * 80,
    "packets_out": 10,
    "packets_in": 80,
    "established": True,
    "position": 1,
}
ACCEPTED = DIALLED | {
    "flow_id": 2,
    "direction_id": Direction.INBOUND,
    "local_port": 1080,
    "remote_ip": "203.0.113.9",
    "remote_port": 50000,
    "remote_hostname": None,
    "hostname_observability": Observability.NOT_OBSERVABLE,
    "bytes_out": 3_000,
    "bytes_in": 500,
    "position": 2,
}
INTERVALS = [(0, 4_000, 0), (1, 321, 50_000), (4, 0, 48_765)]


def table(name, rows) -> Batch:
    columns = {key: [row.get(key) for row in rows] for key in rows[0]}
    return batch(name, columns | PROVENANCE, length=len(rows))


def volumes(flow=1):
    who = {key: DIALLED[key] for key in ("device_uid", "android_package", "android_uid")}
    second = START.replace(microsecond=0)
    return table(
        "volumes",
        [
            who
            | {"flow_id": flow, "start_time": second + timedelta(seconds=at), "duration_us": 1_000_000}
            | {"bytes_out": out, "bytes_in": received, "position": at}
            for at, out, received in INTERVALS
        ],
    )


def label(name="Shop, the app"):
    who = {key: DIALLED[key] for key in ("device_uid", "android_package", "android_uid")}
    return table("inventory", [who | {"app_label": name, "position": 1}])


def read(folder: Path, device=""):
    rows = defaultdict(list)
    quarantine = Quarantine()
    for unit in discover([folder]).units:
        for part in unit.read(Reading(quarantine, device)):
            rows[part.table].extend(part.rows.to_pylist())
    assert quarantine.total == 0
    return rows


def same(found, expected, *columns):
    assert [{name: row[name] for name in columns} for row in found] == [
        {name: row[name] for name in columns} for row in expected
    ]


WHO = ("device_uid", "android_package", "android_uid")
TUPLE = ("protocol_num", "local_ip", "local_port", "remote_ip", "remote_port")
BYTES = ("bytes_out", "bytes_in")
WIRE = ("wire_bytes_out", "wire_bytes_in", "packets_out", "packets_in")


@pytest.mark.parametrize("fmt", [ExportFormat.PARQUET, ExportFormat.NDJSON])
def test_the_canonical_formats_carry_everything(tmp_path, fmt):
    given_batches = [label(), table("flows", [DIALLED, ACCEPTED]), volumes()]
    export(given_batches, fmt, tmp_path)
    found = read(tmp_path)
    for part in given_batches:
        assert found[part.table] == part.rows.to_pylist()


def test_zeek_carries_both_directions_bytes_and_names_but_no_app(tmp_path):
    paths = export([table("flows", [DIALLED, ACCEPTED])], ExportFormat.ZEEK, tmp_path / "made")
    assert [path.name for path in paths] == ["conn.log", "dns.log"]
    found = read(tmp_path / "made", device="phone-7")["flows"]
    timing = ("start_time", "end_time", "direction_id", "direction_observability", "established")
    same(found, [DIALLED, ACCEPTED], "device_uid", *TUPLE, *BYTES, *WIRE, *timing, "remote_hostname")
    assert {row["android_package"] for row in found} == {None}


def test_zeek_keeps_an_inferred_direction_inferred(tmp_path):
    unsure = ACCEPTED | {"direction_observability": Observability.INFERRED, "established": None}
    export([table("flows", [unsure])], ExportFormat.ZEEK, tmp_path)
    same(read(tmp_path, device="phone-7")["flows"], [unsure], "direction_id", "direction_observability", "established")


def test_the_connection_list_carries_apps_even_with_commas_in_their_names(tmp_path):
    (path,) = export([label(), table("flows", [DIALLED, ACCEPTED])], ExportFormat.PCAPDROID_CSV, tmp_path)
    assert path.name == "phone-7.csv"
    found = read(tmp_path)
    timing = ("start_time", "end_time", "remote_hostname")
    same(found["flows"][:1], [DIALLED], *WHO, *TUPLE, *BYTES, *WIRE, *timing)
    assert found["inventory"][0]["app_label"] == "Shop, the app"


def test_the_connection_list_shows_accepted_connections_by_their_listening_port_alone(tmp_path):
    sessions = [ACCEPTED | {"flow_id": at, "remote_port": 50000 + at} for at in range(3)]
    export([table("flows", [DIALLED, *sessions])], ExportFormat.PCAPDROID_CSV, tmp_path)
    found = read(tmp_path)["flows"]
    same(found, [DIALLED, *sessions], *TUPLE, "direction_id")
    assert {flow["direction_observability"] for flow in found} == {Observability.INFERRED}


def test_a_devices_list_goes_on_over_batches(tmp_path):
    more = DIALLED | {"flow_id": 3, "local_port": 40001}
    export([table("flows", [DIALLED]), table("flows", [more])], ExportFormat.PCAPDROID_CSV, tmp_path)
    assert len(read(tmp_path)["flows"]) == 2
    export([table("flows", [DIALLED])], ExportFormat.PCAPDROID_CSV, tmp_path)
    assert len(read(tmp_path)["flows"]) == 1


def test_the_capture_carries_apps_directions_and_volumes_exactly(tmp_path):
    export([label(), table("flows", [DIALLED, ACCEPTED]), volumes()], ExportFormat.PCAPDROID_PCAP, tmp_path)
    found = read(tmp_path)
    flows = sorted((f for f in found["flows"] if f["remote_port"] != 53), key=lambda f: f["direction_id"], reverse=True)
    same(
        flows,
        [DIALLED, ACCEPTED],
        "device_uid",
        "android_uid",
        *TUPLE,
        *BYTES,
        "direction_id",
        "direction_observability",
    )
    assert [flow["start_time"] for flow in flows] == [START, START]
    assert flows[0]["remote_hostname"] == "shop.example.com"
    per_second = defaultdict(lambda: [0, 0])
    for row in found["volumes"]:
        if row["flow_id"] == flows[0]["flow_id"]:
            at = int((row["start_time"] - START.replace(microsecond=0)).total_seconds())
            per_second[at][0] += row["bytes_out"]
            per_second[at][1] += row["bytes_in"]
    carried = {at: tuple(sums) for at, sums in per_second.items() if any(sums)}
    assert carried == {at: (out, received) for at, out, received in INTERVALS}


def test_the_captures_trailer_is_pcapdroids(tmp_path):
    (path,) = export([label(), table("flows", [ACCEPTED])], ExportFormat.PCAPDROID_PCAP, tmp_path)
    content = path.read_bytes()
    length = int.from_bytes(content[32:36], "little")
    frame = content[40 : 40 + length]
    assert frame[:12] == bytes(12)
    assert length % 4 == 0
    assert frame[-32:-28] == bytes.fromhex("01072021")
    assert int.from_bytes(frame[-28:-24], "big") == 10123
    assert frame[-24:-4].rstrip(b"\0") == b"Shop, the app"


def test_ipv6_and_udp_survive_the_capture(tmp_path):
    datagrams = DIALLED | {
        "protocol_num": 17,
        "local_ip": "2001:db8::7",
        "remote_ip": "2001:db8:1::9",
        "remote_hostname": None,
        "established": None,
    }
    export([table("flows", [datagrams])], ExportFormat.PCAPDROID_PCAP, tmp_path)
    same(read(tmp_path)["flows"], [datagrams], *TUPLE, *BYTES)


@pytest.mark.parametrize(
    "device", ["../../etc/cron", "/etc/passwd", "a/b", "..", ".hidden", "x" * 500, "tel\u00e9fono", "a\x00b"]
)
def test_a_devices_name_cannot_lead_out_of_the_folder(tmp_path, device):
    path = device_file(tmp_path, device, ".csv")
    assert path.parent == tmp_path
    assert path.resolve().parent == tmp_path.resolve()
    assert not path.name.startswith(".")
    path.write_text("")


WITHOUT_FLOWS = {ExportFormat.INVENTORY_CSV, ExportFormat.DHCP_LEASES}


@given(
    text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    fmt=st.sampled_from([fmt for fmt in ExportFormat if fmt not in WITHOUT_FLOWS]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hostile_text_breaks_no_format(tmp_path, text, fmt):
    folder = tmp_path / fmt
    for old in folder.glob("*"):
        old.unlink()
    flow = DIALLED | {"android_package": text, "remote_hostname": text, "device_uid": "phone-7"}
    export([label(text), table("flows", [flow])], fmt, folder)
    rows = [row for row in read(folder, device="phone-7")["flows"] if row["remote_port"] == 443]
    assert len(rows) == 1


def test_nothing_in_gives_nothing_out(tmp_path):
    assert export([], ExportFormat.PARQUET, tmp_path) == []
    assert export([], ExportFormat.PCAPDROID_CSV, tmp_path) == []
    assert export([], ExportFormat.PCAPDROID_PCAP, tmp_path) == []


@pytest.mark.parametrize(
    ("fmt", "lacking", "named"),
    [
        (ExportFormat.PCAPDROID_CSV, {"local_ip": None}, "both addresses"),
        (ExportFormat.PCAPDROID_CSV, {"remote_ip": None}, "both addresses"),
        (ExportFormat.PCAPDROID_PCAP, {"local_ip": None}, "both addresses"),
        (ExportFormat.PCAPDROID_PCAP, {"remote_port": None}, "both ports"),
        (ExportFormat.PCAPDROID_PCAP, {"protocol_num": 1}, "TCP or UDP"),
        (ExportFormat.PERFETTO, {"local_port": None}, "both ports"),
        (ExportFormat.PERFETTO, {"android_uid": None}, "the app's uid"),
    ],
)
def test_flows_that_the_format_cannot_carry_at_all_are_told_with_a_way_out(tmp_path, fmt, lacking, named):
    parts = [label(), table("flows", [DIALLED | lacking, ACCEPTED | lacking]), volumes()]
    with pytest.raises(ExportError, match=rf"none of the 2 flows .*{named}.*--to ndjson") as told:
        export(parts, fmt, tmp_path / "made")
    assert str(fmt) in str(told.value)
    assert list((tmp_path / "made").iterdir()) == []


@pytest.mark.parametrize("fmt", [ExportFormat.PCAPDROID_CSV, ExportFormat.PCAPDROID_PCAP])
def test_flows_without_addresses_are_left_out_beside_others(tmp_path, fmt):
    (path,) = export([table("flows", [DIALLED, ACCEPTED | {"local_ip": None}])], fmt, tmp_path)
    found = [row for row in read(tmp_path)["flows"] if row["remote_port"] != 53]
    same(found, [DIALLED], *TUPLE)
    assert path.stem == "phone-7"


def test_the_batches_are_taken_as_a_stream(tmp_path):
    rows = table("flows", [DIALLED])
    export(iter([rows, rows]), ExportFormat.PARQUET, tmp_path)
    assert pq.read_table(tmp_path / "flows.parquet").num_rows == 2
