"""Android's intrusion logs: what they show becomes rows, each event once, and nothing else is lost in silence."""

import json
import random

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from mutations import assert_accounted, assert_survives, mutate, read_path

from relaywatch.model.schemas import SignalKind
from relaywatch.model.tables import batch
from relaywatch.outputs.telemetry import ExportFormat, export

DNS = {
    "dns_event": {
        "event_time": 1746979200000,
        "hostname": "Example.com.",
        "ip_addresses": ["/93.184.216.34", "example.com/2606:2800::1"],
        "ip_addresses_count": 2,
        "package_name": "com.example.app",
    }
}
CONNECT = {
    "connect_event": {
        "event_time": 1746979201000,
        "ip_address": "/93.184.216.34",
        "port": 443,
        "package_name": "com.example.app",
    }
}
START = {
    "security_event": {
        "event_id": 191,
        "event_time": 1700000002000000000,
        "app_process_start": {"process": "com.example.app:remote", "uid": 10000, "pid": 1234},
    }
}
OTHER = {"security_event": {"event_id": 7, "event_time": 1700000002000000000, "keyguard_secured": {}}}


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


FUZZ_SEEDS = [("phone.txt", lines(DNS, CONNECT, START, OTHER, CONNECT))]


def read(tmp_path, content, name="pixel.2026-05-11.txt"):
    (tmp_path / name).write_bytes(content)
    batches, quarantine, tally, unknown = read_path(tmp_path / name)
    assert not unknown
    assert_accounted(quarantine, tally)
    rows = {"flows": [], "signals": []}
    for part in batches:
        rows[part.table] += part.rows.to_pylist()
    return rows, quarantine, tally


def test_a_connect_is_a_dialled_flow_of_its_app_without_bytes(tmp_path):
    rows, _, _ = read(tmp_path, lines(DNS, CONNECT))
    (flow,) = rows["flows"]
    assert (flow["android_package"], flow["remote_ip"], flow["remote_port"]) == (
        "com.example.app",
        "93.184.216.34",
        443,
    )
    assert (flow["direction_id"], flow["direction_observability"], flow["protocol_num"]) == (2, 1, 6)
    assert flow["start_time"].timestamp() == 1746979201
    assert flow["bytes_out"] is flow["bytes_in"] is flow["local_port"] is flow["end_time"] is None
    assert flow["device_uid"] == "pixel"


def test_a_look_up_names_the_apps_later_connect_and_only_infers_it(tmp_path):
    rows, _, _ = read(tmp_path, lines(DNS, CONNECT))
    assert (rows["flows"][0]["remote_hostname"], rows["flows"][0]["hostname_observability"]) == ("example.com", 2)
    other = json.loads(json.dumps(CONNECT))
    other["connect_event"]["package_name"] = "com.other"
    rows, _, _ = read(tmp_path, lines(DNS, other))
    assert rows["flows"][0]["remote_hostname"] is None


def test_look_ups_and_process_starts_are_signals(tmp_path):
    rows, _, tally = read(tmp_path, lines(DNS, START, OTHER))
    told = [(row["kind"], row["android_package"], row["detail"]) for row in rows["signals"]]
    assert (SignalKind.NAME_LOOKUP, "com.example.app", "example.com 93.184.216.34 2606:2800::1") in told
    assert (SignalKind.PROCESS_START, "com.example.app", "com.example.app:remote") in told
    assert {row["start_time"].timestamp() for row in rows["signals"]} == {1746979200, 1700000002}
    assert tally.unused == {"a security event that no table holds": 1}


def test_a_shared_uid_is_a_uid_and_no_package(tmp_path):
    shared = json.loads(json.dumps(CONNECT))
    shared["connect_event"]["package_name"] = "android.uid.shared:10077"
    rows, _, _ = read(tmp_path, lines(shared))
    assert (rows["flows"][0]["android_package"], rows["flows"][0]["android_uid"]) == (None, 10077)


def test_an_event_listed_twice_is_taken_once(tmp_path):
    rows, _, tally = read(tmp_path, lines(CONNECT, DNS, CONNECT))
    assert len(rows["flows"]) == 1
    assert tally.unused["an event that is listed twice"] == 1


def test_connects_to_the_phone_itself_are_left_with_the_reason(tmp_path):
    own = json.loads(json.dumps(CONNECT))
    own["connect_event"]["ip_address"] = "localhost/127.0.0.1"
    rows, _, tally = read(tmp_path, lines(own, CONNECT))
    assert len(rows["flows"]) == 1
    assert tally.unused == {"a connect to the phone itself": 1}


@pytest.mark.parametrize(
    "damage",
    [{"event_time": -5}, {"event_time": 10**17}, {"ip_address": "/1.2.3.999"}, {"port": 70000}, {"port": None}],
)
def test_a_damaged_event_is_put_aside_and_the_others_count(tmp_path, damage):
    bad = {"connect_event": CONNECT["connect_event"] | damage}
    rows, quarantine, _ = read(tmp_path, lines(CONNECT, bad, DNS))
    assert (len(rows["flows"]), len(rows["signals"])) == (1, 1)
    assert [record.position for record in quarantine.records] == ["line 2"]


def is_own(address):
    """Whether the address is the phone's own, or none, also as IPv6 writes it."""
    plain = getattr(address, "ipv4_mapped", None) or address
    return plain.is_loopback or not int(plain)


CONNECTS = st.lists(
    st.tuples(st.integers(0, 10**9), st.ip_addresses().filter(lambda a: not is_own(a)), st.integers(0, 65535)),
    min_size=1,
    max_size=20,
    unique=True,
)


@given(connects=CONNECTS)
@hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_back(tmp_path, connects):
    flows = batch(
        "flows",
        {
            "device_uid": "phone-7", "android_package": "com.a", "flow_id": range(len(connects)), "protocol_num": 6,
            "start_time": [1_700_000_000_000_000 + ms * 1000 for ms, _, _ in connects], "direction_id": 2,
            "direction_observability": 1, "remote_ip": [str(a) for _, a, _ in connects], "bytes_observability": 0,
            "remote_port": [port for _, _, port in connects], "source": "x", "position": range(len(connects)),
            "clock": "device",
        },
        length=len(connects),
    )  # fmt: skip
    (path,) = export([flows], ExportFormat.INTRUSION_LOGS, tmp_path)
    assert path.name == "synthetic-phone-7.txt"
    rows, quarantine, _ = read(tmp_path, path.read_bytes(), path.name)
    assert not quarantine.total
    found = sorted((row["start_time"].timestamp(), row["remote_ip"], row["remote_port"]) for row in rows["flows"])
    expected = sorted(
        (1_700_000_000 + ms / 1000, str(a.ipv4_mapped or a) if a.version == 6 else str(a), port)
        for ms, a, port in connects
    )
    assert [entry[1:] for entry in found] == [entry[1:] for entry in expected]
    assert [entry[0] for entry in found] == pytest.approx([entry[0] for entry in expected], abs=1e-4)


def test_hostile_variants_are_read_to_the_end(tmp_path):
    rng = random.Random(1)  # noqa: S311  mutations, no secret
    for number in range(200):
        for name, content in FUZZ_SEEDS:
            assert_survives(tmp_path / str(number), name, mutate(content, rng))
