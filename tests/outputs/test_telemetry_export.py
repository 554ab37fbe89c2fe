from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaywatch.model.errors import ExportError
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import Direction, Observability, SignalKind
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


@pytest.mark.parametrize("fmt", [ExportFormat.NETFLOW_V9, ExportFormat.IPFIX])
def test_flow_messages_carry_both_directions_and_ip_bytes_but_no_app(tmp_path, fmt):
    start = DIALLED["start_time"]
    many = [
        DIALLED
        | {"flow_id": n, "position": n, "local_port": 40_000 + n, "start_time": start + timedelta(minutes=n)}
        | {"end_time": start + timedelta(minutes=n, seconds=5)}
        for n in range(1, 60)
    ]
    six = many[0] | {"local_ip": "fd00::7", "remote_ip": "2001:db8::9", "flow_id": 60, "position": 60}
    (path,) = export([table("flows", [*many, six])], fmt, tmp_path)
    assert path.name.startswith("synthetic")
    found = read(tmp_path, device="phone-7")["flows"]
    by_key = lambda row: (row["local_ip"], row["local_port"])  # noqa: E731 - the order of both sides
    expected = sorted([*many, six], key=by_key)
    same(sorted(found, key=by_key), expected, "device_uid", *TUPLE, *WIRE, "start_time", "end_time", "direction_id")
    assert {row["android_package"] for row in found} == {None}


@given(days=st.lists(st.integers(0, 20_000), min_size=1, max_size=40))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("fmt", [ExportFormat.NETFLOW_V9, ExportFormat.IPFIX])
def test_flow_messages_tell_every_time_whatever_lies_between_the_flows(tmp_path, fmt, days):
    first = datetime(2001, 1, 1, 0, 0, 0, 123_000, UTC)
    flows = [
        DIALLED
        | {"flow_id": n, "position": n, "local_port": 1_000 + n, "start_time": first + timedelta(days=day)}
        | {"end_time": first + timedelta(days=day, hours=5)}
        for n, day in enumerate(days, 1)
    ]
    export([table("flows", flows)], fmt, tmp_path)
    found = sorted(read(tmp_path, device="phone-7")["flows"], key=lambda row: row["local_port"])
    same(found, flows, *TUPLE, *WIRE, "start_time", "end_time")


@pytest.mark.parametrize("fmt", [ExportFormat.NETFLOW_V9, ExportFormat.IPFIX])
def test_a_flow_that_no_message_can_tell_is_left_out(tmp_path, fmt):
    far = DIALLED | {"end_time": datetime(2200, 1, 1, tzinfo=UTC), "flow_id": 2, "position": 2}
    export([table("flows", [DIALLED, far])], fmt, tmp_path)
    assert len(read(tmp_path)["flows"]) == 1


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


WITHOUT_FLOWS = {
    ExportFormat.INVENTORY_CSV, ExportFormat.DHCP_LEASES, ExportFormat.NETSTATS_BINARY, ExportFormat.NETSTATS_TEXT,
    ExportFormat.USAGESTATS,
}  # fmt: skip
NETSTATS = (ExportFormat.NETSTATS_BINARY, ExportFormat.NETSTATS_TEXT)


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


def signals(*told):
    """(kind, begin s after START's second, end, package, uid, detail) of phone-7."""
    second = START.replace(microsecond=0)
    return table(
        "signals",
        [
            {
                "device_uid": "phone-7", "kind": int(kind), "android_package": package, "android_uid": uid,
                "start_time": second + timedelta(seconds=start), "detail": detail,
                "end_time": None if end is None else second + timedelta(seconds=end), "observability": 1,
                "position": at,
            }
            for at, (kind, start, end, package, uid, detail) in enumerate(told, 1)
        ],
    )  # fmt: skip


def whole(rows, folder, fmt):
    """Whole-uid volumes after writing and reading, with the provenance left aside."""
    export(rows, fmt, folder)
    names = (*WHO[:1], "android_uid", "android_set", "start_time", "duration_us", *BYTES, "packets_out", "packets_in")
    return [{name: row[name] for name in names} for row in read(folder, device="phone-7")["volumes"]]


UID_BUCKET = {
    "device_uid": "phone-7", "android_uid": 10123, "android_set": "foreground",
    "start_time": datetime(2024, 10, 5, 8, 0, 0, 0, UTC), "duration_us": 7_200_000_000, "bytes_out": 5_000_000_000,
    "bytes_in": 0, "packets_out": 4_000_000, "packets_in": 0,
}  # fmt: skip


@pytest.mark.parametrize("fmt", NETSTATS)
def test_netstats_carries_a_uids_buckets_as_they_are(tmp_path, fmt):
    buckets = [
        UID_BUCKET,
        UID_BUCKET | {"android_set": "background", "android_uid": -5},
        UID_BUCKET | {"duration_us": 3_600_000_000, "android_uid": 1_010_123, "android_set": "vpn_in"},
        UID_BUCKET | {"start_time": datetime(2024, 10, 6, 9, 30, 0, 0, UTC), "bytes_in": 127, "packets_in": 1},
    ]
    rows = [bucket | {"position": at} for at, bucket in enumerate(buckets)]
    unseen = rows[0] | {"android_uid": None, "android_package": "com.example.app"}
    found = whole([table("volumes", [*rows, unseen]), table("flows", [DIALLED]), volumes()], tmp_path, fmt)
    order = ("android_uid", "android_set", "start_time")
    assert found == sorted(buckets, key=lambda bucket: [bucket[name] for name in order])
    (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert b"synthetic" in path.read_bytes()
    assert "synthetic" in str(path.relative_to(tmp_path))


@pytest.mark.parametrize("fmt", NETSTATS)
def test_netstats_adds_up_flows_by_two_hours_and_by_what_was_in_front(tmp_path, fmt):
    front = signals(
        (SignalKind.FOREGROUND_UI, 1, 3, None, 10123, None), (SignalKind.FOREGROUND_UI, 2, 4, None, 10123, None)
    )
    without_volumes = ACCEPTED | {"end_time": START + timedelta(hours=2), "packets_out": None, "packets_in": None}
    found = whole([table("flows", [DIALLED, without_volumes]), volumes(), front], tmp_path, fmt)
    expected = {"packets_out": 0, "packets_in": 0, "duration_us": 7_200_000_000}
    told = [
        ("background", 10, 4_000, 48_765),
        ("background", 12, 3_000, 500),
        ("foreground", 10, 321, 50_000),
    ]
    begins = {hour: START.replace(hour=hour, microsecond=0) for hour in (10, 12)}
    assert found == [
        UID_BUCKET
        | expected
        | {"android_set": kind, "start_time": begins[hour], "bytes_out": out, "bytes_in": received}
        for kind, hour, out, received in told
    ]


def test_the_netstats_file_is_named_by_its_time_and_replaces_the_last_one(tmp_path):
    for hour in (8, 10):
        bucket = UID_BUCKET | {"start_time": datetime(2024, 10, 5, hour, tzinfo=UTC), "position": 1}
        (path,) = export([table("volumes", [bucket])], ExportFormat.NETSTATS_BINARY, tmp_path)
    assert path.name == "uid.1728122400000-1728129600000"
    assert list(path.parent.iterdir()) == [path]


USAGE = [
    (SignalKind.FOREGROUND_UI, 10, 70, "com.example.app", 10123, None),
    (SignalKind.FOREGROUND_UI, 90, None, "com.example.app", 10123, None),
    (SignalKind.FOREGROUND_SERVICE, 0, 300, "com.example.other", 1_010_124, None),
    (SignalKind.SCREEN_ON, 5, 100, None, None, None),
    (SignalKind.KEYGUARD_LOCKED, 100, 200, None, None, None),
    (SignalKind.USER_INTERACTION, 12, None, "com.example.app", 10123, None),
    (SignalKind.USER_INTERACTION, 14, None, "com.example.app", 10123, None),
]


def usage(folder):
    """What usage_stats tells after writing and reading: kind, begin and end in s, package."""
    second = START.replace(microsecond=0)
    return {
        (
            SignalKind(row["kind"]),
            (row["start_time"] - second).total_seconds(),
            row["end_time"] and (row["end_time"] - second).total_seconds(),
            row["android_package"],
        )
        for row in read(folder)["signals"]
    }


def test_usagestats_carries_what_was_in_front_services_screen_keyguard_and_touches(tmp_path):
    watched = (SignalKind.CAPTURE, -60, 400, None, None, "FOREGROUND_UI SCREEN_ON")
    paths = export([signals(*USAGE, watched)], ExportFormat.USAGESTATS, tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "synthetic-phone-7/getprop.txt",
        "synthetic-phone-7/usagestats.txt",
    ]
    assert paths[1].read_text().startswith("# synthetic")
    found = usage(tmp_path)
    assert found >= {told[:4] for told in USAGE}
    assert (SignalKind.CAPTURE, -60, 400, None) in found
    assert {row["device_uid"] for row in read(tmp_path)["signals"]} == {"phone-7"}
    listed = paths[1].read_text()
    assert listed.index("user=10") < listed.index("package=com.example.other")


def test_what_several_apps_say_of_the_screen_is_one_interval(tmp_path):
    screens = [
        (SignalKind.SCREEN_ON, start, end, app, 10123, None) for start, end, app in [(0, 50, "a"), (40, 80, "b")]
    ]
    export([signals(*screens)], ExportFormat.USAGESTATS, tmp_path)
    assert {told for told in usage(tmp_path) if told[0] is SignalKind.SCREEN_ON} == {
        (SignalKind.SCREEN_ON, 0, 80, None)
    }


def test_usagestats_reaches_a_day_back(tmp_path):
    old = (SignalKind.USER_INTERACTION, 0, None, "com.example.old", 10123, None)
    since = (SignalKind.FOREGROUND_UI, 100, 90_000, "com.example.app", 10123, None)
    export([signals(old, since)], ExportFormat.USAGESTATS, tmp_path)
    # The heading, which says since when, is written to the minute.
    (told,) = (told for told in usage(tmp_path) if told[0] is not SignalKind.CAPTURE)
    assert (told[0], told[2], told[3]) == (SignalKind.FOREGROUND_UI, 90_000, "com.example.app")
    assert 90_000 - 86_400 - 60 < told[1] <= 90_000 - 86_400


@given(text=st.text(st.characters(codec="utf-8"), max_size=20))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hostile_text_adds_no_line_to_usagestats(tmp_path, text):
    for old in tmp_path.glob("*/*"):
        old.unlink()
    hostile = [(kind, 1, 2, text, 10123, text) for kind in SignalKind]
    rows = signals(*hostile, (SignalKind.USER_INTERACTION, 3, None, "com.example.app", 10123, None))
    renamed = rows.rows.set_column(0, "device_uid", pa.array([text or "x"] * len(rows.rows)).dictionary_encode())
    export([Batch("signals", renamed.cast(rows.rows.schema))], ExportFormat.USAGESTATS, tmp_path)
    found = read(tmp_path, device="phone-7")["signals"]
    interactions = {row["android_package"] for row in found if row["kind"] == SignalKind.USER_INTERACTION}
    assert interactions - {text} == {"com.example.app"}


def test_nothing_in_gives_nothing_out(tmp_path):
    for fmt in (*NETSTATS, ExportFormat.USAGESTATS):
        assert export([], fmt, tmp_path) == []
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
        (ExportFormat.NETSTATS_BINARY, {"android_uid": None}, "the app's uid"),
        (ExportFormat.NETSTATS_TEXT, {"android_uid": None}, "the app's uid"),
        (ExportFormat.USAGESTATS, {}, "signals"),
        (ExportFormat.PERFETTO, {"local_port": None}, "both ports"),
        (ExportFormat.PERFETTO, {"android_uid": None}, "the app's uid"),
    ],
)
def test_flows_that_the_format_cannot_carry_at_all_are_told_with_a_way_out(tmp_path, fmt, lacking, named):
    parts = [label(), table("flows", [DIALLED | lacking, ACCEPTED | lacking])]
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
