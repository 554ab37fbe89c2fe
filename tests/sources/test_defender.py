from __future__ import annotations

import csv
import gzip
import io
import json
import random
from datetime import UTC, datetime

import mutations
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit_reads import read_bytes, read_paths, shared

from relaywatch.model.schemas import Direction, Observability, SignalKind
from relaywatch.sources.defender import Defender, DefenderCsv
from relaywatch.sources.reading import Head

PHONE, SERVER = "192.168.7.20", "198.51.100.7"
EVENT = {
    "Timestamp": "2023-11-14T22:13:20.2500001Z",
    "DeviceId": "68b329da",
    "DeviceName": "Phone-7.example.com",
    "ActionType": "ConnectionSuccess",
    "RemoteIP": SERVER,
    "RemotePort": 443,
    "RemoteUrl": "https://WWW.example.org/path",
    "LocalIP": PHONE,
    "LocalPort": 40_000,
    "Protocol": "TcpV4",
    "InitiatingProcessFileName": "chrome.exe",
    "AdditionalFields": None,
}
INFO = {
    "Timestamp": "2023-11-14T22:00:00Z",
    "DeviceId": "68b329da",
    "DeviceName": "phone-7.example.com",
    "OSPlatform": "Android",
    "OSVersion": "14",
    "PublicIP": "203.0.113.1",
    "LoggedOnUsers": '[{"UserName":"ana"}]',
    "MachineGroup": "field",
    "AadDeviceId": "2222-3333",
}
ADAPTER = {
    "Timestamp": "2023-11-14T22:01:00Z",
    "DeviceId": "68b329da",
    "DeviceName": "phone-7.example.com",
    "MacAddress": "02-00-5E-00-53-01",
    "NetworkAdapterStatus": "Up",
    "IPAddresses": json.dumps([{"IPAddress": PHONE}, {"IPAddress": "fe80::1"}, {"IPAddress": "2001:DB8::5"}]),
}
AT = datetime(2023, 11, 14, 22, 13, 20, 250_000, UTC)


def streamed(record, table="DeviceNetworkEvents"):
    return {"time": "2023-11-14T22:15:00Z", "category": f"AdvancedHunting-{table}", "properties": record}


def lines(*records) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def read(*records, device=""):
    rows, quarantine = read_bytes(Defender(), lines(*records), device=device)
    assert quarantine.total == 0
    return rows


def event(**changed):
    return EVENT | changed


def extra(action, **fields):
    return event(ActionType=action, AdditionalFields=json.dumps(fields))


FUZZ_SEEDS = [
    (
        "defender.jsonl",
        lines(
            streamed(INFO, "DeviceInfo"),
            streamed(ADAPTER, "DeviceNetworkInfo"),
            *(streamed(event(RemotePort=port)) for port in range(400, 420)),
            streamed(event(ActionType="ListeningConnectionCreated")),
            streamed(extra("DnsConnectionInspected", direction="Out", query="a.example", answers='["192.0.2.1"]')),
            streamed(extra("HttpConnectionInspected", direction="In", method="CONNECT", uri="a.example:443")),
        ),
    ),
    ("defender-bare.json", json.dumps([INFO, ADAPTER, EVENT, event(ActionType="ConnectionFound")]).encode()),
    (
        "defender.csv",
        b"Timestamp,DeviceId,DeviceName,ActionType,RemoteIP,RemotePort,LocalIP,LocalPort,Protocol\n"
        b'2023-11-14T22:13:20Z,68b3,"phone, seven",ConnectionSuccess,198.51.100.7,443,192.168.7.20,40000,Tcp\n'
        b"2023-11-14T22:13:21Z,68b3,phone,InboundConnectionAccepted,203.0.113.9,50000,192.168.7.20,1080,Tcp\n",
    ),
]


def test_a_successful_connection_is_an_outbound_flow_without_bytes():
    for record in (streamed(EVENT), EVENT):
        rows = read(record)
        (flow,) = rows["flows"]
        assert (flow["device_uid"], flow["start_time"], flow["end_time"]) == ("defender:68b329da", AT, None)
        assert (flow["local_ip"], flow["local_port"], flow["remote_ip"], flow["remote_port"]) == (
            PHONE,
            40_000,
            SERVER,
            443,
        )
        assert (flow["direction_id"], flow["direction_observability"]) == (Direction.OUTBOUND, Observability.OBSERVED)
        assert (flow["remote_hostname"], flow["hostname_observability"]) == ("www.example.org", Observability.OBSERVED)
        assert (flow["bytes_out"], flow["bytes_in"], flow["bytes_observability"]) == (None, None, 0)
        assert (flow["protocol_num"], flow["established"], flow["clock"]) == (6, True, "device")


def test_a_windows_process_is_no_package_and_is_told_in_the_inventory():
    rows = read(streamed(EVENT), streamed(EVENT))
    assert {flow["android_package"] for flow in rows["flows"]} == {None}
    details = [row["detail"] for row in rows["inventory"] if row["detail"]]
    assert details == ["process chrome.exe: not stated to be an Android app"]


def test_a_process_of_a_device_called_android_is_its_package():
    events = [
        event(InitiatingProcessFileName=name) for name in ("com.example.vpn", "com.example.vpn:remote", "chrome.exe")
    ]
    rows = read(streamed(INFO, "DeviceInfo"), *map(streamed, events))
    assert [flow["android_package"] for flow in rows["flows"]][:2] == ["com.example.vpn"] * 2
    assert {row["android_package"] for row in rows["inventory"]} >= {"com.example.vpn", None}


def test_accepted_and_attempted_inbound_connections_say_whether_they_were_answered():
    inbound = read(event(ActionType="InboundConnectionAccepted"), event(ActionType="InboundConnectionAttempt"))["flows"]
    assert [flow["direction_id"] for flow in inbound] == [Direction.INBOUND] * 2
    assert [flow["established"] for flow in inbound] == [True, False]
    out = read(event(ActionType="ConnectionFailed"), extra("ConnectionAttempt", direction="In"))["flows"]
    assert [(flow["direction_id"], flow["established"]) for flow in out] == [
        (Direction.OUTBOUND, False),
        (Direction.INBOUND, False),
    ]


def test_a_syn_ack_that_came_in_answers_what_the_device_opened():
    (flow,) = read(extra("InboundConnectionAcknowledged", **{"Tcp Flags": 18}))["flows"]
    assert (flow["direction_id"], flow["direction_observability"]) == (Direction.OUTBOUND, Observability.INFERRED)
    assert flow["established"] is True


def test_who_opened_a_found_connection_is_unknown_and_its_start_a_guess():
    (flow,) = read(event(ActionType="ConnectionFound"))["flows"]
    assert (flow["direction_id"], flow["direction_observability"]) == (Direction.UNKNOWN, Observability.NOT_OBSERVABLE)
    assert flow["start_observability"] == Observability.INFERRED


def test_a_listener_is_a_signal_with_its_port():
    rows = read(event(ActionType="ListeningConnectionCreated", LocalPort=1080, RemoteIP=None, RemoteUrl=None))
    (signal,) = rows["signals"]
    assert (signal["kind"], signal["local_port"], signal["start_time"]) == (SignalKind.LISTENER, 1080, AT)
    assert not rows["flows"]


def test_inspections_give_names_and_proxy_requests():
    answers = json.dumps(["192.0.2.1", "cdn.example", "2001:DB8::1"])
    rows = read(
        extra("DnsConnectionInspected", direction="Out", query="A.example.", answers=answers),
        extra("SslConnectionInspected", direction="Out", server_name="tls.example"),
        extra("HttpConnectionInspected", direction="In", method="CONNECT", uri="target.example:443", status_code="200"),
        extra("DnsConnectionInspected", direction="In", query="b.example"),
    )
    assert [(row["kind"], row["detail"], row["observability"]) for row in rows["signals"]] == [
        (SignalKind.NAME_LOOKUP, "a.example 192.0.2.1 2001:db8::1", Observability.OBSERVED),
        (SignalKind.NAME_LOOKUP, f"tls.example {SERVER}", Observability.INFERRED),
        (SignalKind.HTTP_CONNECT, "CONNECT target.example:443 200", Observability.OBSERVED),
    ]
    assert not rows["flows"]


def test_device_records_name_the_device_its_user_and_its_addresses_at_a_time():
    rows = read(streamed(INFO, "DeviceInfo"), streamed(ADAPTER, "DeviceNetworkInfo"))["inventory"]
    names = {(row["identifier_kind"], row["identifier"]) for row in rows if row["identifier"]}
    assert names == {
        ("sensor_id", "defender:68b329da"),
        ("hostname", "phone-7.example.com"),
        ("mdm_id", "entra:2222-3333"),
        ("mac", "02:00:5e:00:53:01"),
        ("ip", PHONE),
        ("ip", "2001:db8::5"),
    }
    assert {row["valid_from"] for row in rows if row["identifier_kind"] == "ip"} == {
        datetime(2023, 11, 14, 22, 1, tzinfo=UTC)
    }
    (device,) = [row for row in rows if row["user_name"]]
    assert (device["user_name"], device["device_group"]) == ("ana", "field")
    assert "Android" in device["detail"]


def test_an_address_ends_with_the_report_that_no_longer_names_it():
    later = ADAPTER | {"Timestamp": "2023-11-14T23:00:00Z"}
    moved = later | {"IPAddresses": '[{"IPAddress":"192.0.2.9"}]', "Timestamp": "2023-11-14T23:30:00Z"}
    rows = read(ADAPTER, later, moved)["inventory"]
    found = {
        row["identifier"]: (row["position"], row["valid_from"].hour, row["valid_to"] and row["valid_to"].minute)
        for row in rows
        if row["identifier_kind"] == "ip"
    }
    assert found == {PHONE: (1, 22, 30), "2001:db8::5": (1, 22, 30), "192.0.2.9": (3, 23, None)}


def test_an_adapter_that_is_down_holds_no_address():
    rows = read(ADAPTER | {"NetworkAdapterStatus": "Down"})["inventory"]
    assert "ip" not in {row["identifier_kind"] for row in rows}


def test_the_users_word_names_the_device():
    assert {flow["device_uid"] for flow in read(EVENT, device="phone-7")["flows"]} == {"phone-7"}


def test_the_portals_csv_reads_as_the_stream_does():
    out = io.StringIO()
    writer = csv.DictWriter(out, list(EVENT), lineterminator="\r\n")
    writer.writeheader()
    command = event(InitiatingProcessFileName='a "quoted",\nname')
    for record in (EVENT, command):
        writer.writerow({name: "" if value is None else value for name, value in record.items()})
    content = out.getvalue().encode("utf-8-sig")
    assert DefenderCsv.fits(Head(path=None, content=content))
    rows, quarantine = read_bytes(DefenderCsv(), content)
    assert quarantine.total == 0
    (plain, quoted), (streamed_flow,) = rows["flows"], read(EVENT)["flows"]
    assert {k: v for k, v in plain.items() if k not in ("position", "flow_id")} == {
        k: v for k, v in streamed_flow.items() if k not in ("position", "flow_id")
    }
    assert [plain["position"], quoted["position"]] == [2, 3]


def test_damaged_records_are_put_aside_one_by_one():
    content = lines(EVENT, event(Timestamp="soon"), event(DeviceId=""), event(RemoteIP="here"), event(LocalPort=70_000))
    rows, quarantine = read_bytes(Defender(), content)
    assert len(rows["flows"]) == 1
    assert [(q.position, q.reason) for q in quarantine.records] == [
        ("line 2", "Timestamp is missing or no time"),
        ("line 3", "DeviceId is missing"),
        ("line 5", "a port is out of range"),
        ("line 4", "RemoteIP is no address"),
    ] or {q.position for q in quarantine.records} == {"line 2", "line 3", "line 4", "line 5"}


def test_every_record_is_accounted_for(tmp_path):
    records = [
        *map(streamed, (EVENT, event(ActionType="NetworkSignatureInspected"), event(RemoteIP=None, RemoteUrl=None))),
        streamed({"Timestamp": EVENT["Timestamp"], "DeviceId": "x"}, "DeviceProcessEvents"),
        streamed(event(Timestamp=None) | {"Timestamp": "never"}),
    ]
    path = tmp_path / "defender.jsonl"
    path.write_bytes(lines(*records) + b"{damaged\n")
    _, quarantine, tally, unknown = mutations.read_path(tmp_path)
    assert not unknown
    assert tally.records == 6
    assert tally.unused.total() == 3
    mutations.assert_accounted(quarantine, tally)


@pytest.mark.parametrize("number", range(len(FUZZ_SEEDS)))
def test_what_came_before_the_damage_of_a_compressed_file_is_kept(tmp_path, number):
    name, content = FUZZ_SEEDS[number]
    records = content.rstrip() + b"\n" if name != "defender-bare.json" else lines(INFO, ADAPTER, EVENT)
    noise = random.Random(5).randbytes(200_000).hex().encode()  # noqa: S311 - so that the damage is far behind
    stored = gzip.compress(records + noise)
    (tmp_path / f"{name}.gz").write_bytes(stored[: len(stored) // 2])
    rows, quarantine, tally, _ = mutations.read_path(tmp_path)
    assert sum(part.rows.num_rows for part in rows) >= 3
    mutations.assert_accounted(quarantine, tally)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 65_535), st.integers(1, 65_535), st.ip_addresses().map(str), st.booleans()),
        min_size=1,
        max_size=100,
    )
)
def test_each_report_is_one_flow_with_its_own_ends(ends):
    actions = {True: "InboundConnectionAccepted", False: "ConnectionSuccess"}
    rows, quarantine = read_bytes(
        Defender(),
        lines(*(event(LocalPort=a, RemotePort=b, RemoteIP=ip, ActionType=actions[way]) for a, b, ip, way in ends)),
    )
    assert quarantine.total == 0
    assert [(f["local_port"], f["remote_port"], f["direction_id"] == Direction.INBOUND) for f in rows["flows"]] == [
        (a, b, way) for a, b, _, way in ends
    ]
    assert len({f["flow_id"] for f in rows["flows"]}) == len(ends)


def test_hostile_variants_are_read_to_the_end(tmp_path):
    rng = random.Random(7)  # noqa: S311 - a repeatable test
    for name, content in FUZZ_SEEDS:
        for number in range(70):
            mutations.assert_survives(tmp_path / str(number), name, mutations.mutate(content, rng))


def test_the_public_samples_are_read():
    for path in sorted(shared("samples", "edr_mtd").glob("sekoia_mde_*.json")):
        rows, quarantine = read_paths(path)
        assert quarantine.total == 0, quarantine.records
        assert rows["flows"] or rows["inventory"], path.name
