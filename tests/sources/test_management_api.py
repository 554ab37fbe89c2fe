"""The Android Management API's logs and devices: late, repeated and enveloped as they come, each event counts once."""

import base64
import json
import random

import pytest
from mutations import assert_accounted, assert_survives, mutate, read_path

from relaywatch.model.schemas import SignalKind
from relaywatch.model.tables import batch
from relaywatch.outputs.telemetry import ExportFormat, export

DEVICE = "enterprises/LC00/devices/3aa1"


def event(number, kind, second, **further):
    return {"eventId": str(number), "eventTime": f"2026-03-03T09:00:{second:06.3f}Z", "eventType": kind, **further}


CONNECT = {"connectEvent": {"destinationIpAddress": "203.0.113.9", "destinationPort": 443, "packageName": "com.a"}}
DNS = {
    "dnsEvent": {
        "hostname": "gw.example",
        "ipAddresses": ["203.0.113.9"],
        "totalIpAddressesReturned": "1",
        "packageName": "com.a",
    }
}
STARTED = {
    "appProcessStartEvent": {"processInfo": {"processName": "com.a:bg", "packageNames": ["com.a"], "uid": 10101}}
}
EVENTS = [
    event(1, "DNS", 1, **DNS),
    event(2, "CONNECT", 2, **CONNECT),
    event(3, "APP_PROCESS_START", 0.5, **STARTED),
    event(4, "KEYGUARD_SECURED", 10, keyguardSecuredEvent={}),
    event(5, "KEYGUARD_DISMISSED", 30, keyguardDismissedEvent={}),
    event(6, "LOG_BUFFER_SIZE_CRITICAL", 40, logBufferSizeCriticalEvent={}),
    event(7, "LOGGING_STOPPED", 50, loggingStoppedEvent={}),
    event(8, "LOGGING_STARTED", 55, loggingStartedEvent={}),
    event(9, "REMOTE_LOCK", 56, remoteLockEvent={}),
]


def batch_of(*events, device=DEVICE):
    return {
        "device": device,
        "user": "users/1",
        "retrievalTime": "2026-03-04T00:00:00Z",
        "usageLogEvents": list(events),
    }


def enveloped(record, kind="USAGE_LOGS"):
    data = base64.b64encode(json.dumps(record).encode()).decode()
    return {"message": {"data": data, "attributes": {"notificationType": kind}, "messageId": "7"}}


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


REPORT = {
    "name": DEVICE,
    "ownership": "PERSONALLY_OWNED",
    "policyCompliant": True,
    "user": {"accountIdentifier": "a.holder"},
    "hardwareInfo": {"serialNumber": "R58M123"},
    "networkInfo": {"imei": "350000000000001", "wifiMacAddress": "3C22FB000001", "telephonyInfos": [{"imei": "35"}]},
    "securityPosture": {"devicePosture": "SECURE"},
    "applicationReports": [
        {
            "packageName": "com.a",
            "displayName": "A",
            "installerPackageName": "com.android.vending",
            "signingKeyCertFingerprints": ["AB:" * 31 + "AB"],
        }
    ],
}
FUZZ_SEEDS = [
    ("usage.ndjson", lines(enveloped(batch_of(*EVENTS[:4])), batch_of(*EVENTS[4:]), EVENTS[1])),
    ("devices.ndjson", lines(REPORT, enveloped(REPORT, "STATUS_REPORT"), {"name": "enterprises/LC00/policies/p"})),
]


def read(tmp_path, content, device=""):
    path = tmp_path / "logs.json"
    path.write_bytes(content)
    batches, quarantine, tally, unknown = read_path(path, device)
    assert not unknown
    assert_accounted(quarantine, tally)
    rows = {"flows": [], "signals": [], "inventory": []}
    for part in batches:
        rows[part.table] += part.rows.to_pylist()
    return rows, quarantine, tally


@pytest.mark.parametrize("wrap", [enveloped, lambda record: record, lambda record: enveloped(record)["message"]])
def test_events_are_read_in_every_wrapping(tmp_path, wrap):
    rows, quarantine, tally = read(tmp_path, lines(wrap(batch_of(*EVENTS))))
    assert not quarantine.total
    assert tally.records == len(EVENTS)
    (flow,) = rows["flows"]
    assert (flow["device_uid"], flow["android_package"], flow["remote_ip"], flow["remote_port"]) == (
        "3aa1",
        "com.a",
        "203.0.113.9",
        443,
    )
    assert (flow["remote_hostname"], flow["hostname_observability"]) == ("gw.example", 2)
    assert flow["bytes_out"] is flow["local_port"] is flow["end_time"] is None


def test_states_become_intervals_and_gaps(tmp_path):
    rows, _, tally = read(tmp_path, lines(batch_of(*EVENTS)))
    spans = {
        (SignalKind(row["kind"]), row["detail"]): (row["start_time"].second, row["end_time"].second)
        for row in rows["signals"]
    }
    assert spans[SignalKind.KEYGUARD_LOCKED, "KEYGUARD_SECURED"] == (10, 30)
    assert spans[SignalKind.USER_INTERACTION, "KEYGUARD_DISMISSED"] == (30, 30)
    assert spans[SignalKind.LOGGING_GAP, "LOG_BUFFER_SIZE_CRITICAL"] == (40, 40)
    assert spans[SignalKind.LOGGING_GAP, "LOGGING_STOPPED"] == (50, 55)
    assert spans[SignalKind.CAPTURE, "KEYGUARD_LOCKED NAME_LOOKUP PROCESS_START USER_INTERACTION"] == (0, 56)
    assert tally.unused == {"an event that no table holds": 1, "the end of a state": 1}


def test_late_and_repeated_batches_count_once(tmp_path):
    late = [enveloped(batch_of(*EVENTS[4:])), enveloped(batch_of(*EVENTS[:5])), enveloped(batch_of(*EVENTS))]
    rows, _, tally = read(tmp_path, lines(*late))
    once, _, _ = read(tmp_path, lines(batch_of(*EVENTS)))

    def told(found):
        return sorted((r["kind"], str(r["start_time"]), str(r["end_time"])) for r in found["signals"])

    assert told(rows) == told(once)
    assert len(rows["flows"]) == 1
    assert tally.unused["an event that came before"] == len(EVENTS) + 1


def test_the_same_event_number_of_another_device_is_another_event(tmp_path):
    other = batch_of(EVENTS[1], device="enterprises/LC00/devices/other")
    rows, _, _ = read(tmp_path, lines(batch_of(EVENTS[1]), other))
    assert sorted(row["device_uid"] for row in rows["flows"]) == ["3aa1", "other"]


def test_a_single_event_is_read_and_its_device_named(tmp_path):
    rows, _, _ = read(tmp_path, lines(EVENTS[1]), device="phone-9")
    assert rows["flows"][0]["device_uid"] == "phone-9"


@pytest.mark.parametrize("damage", [{"eventTime": "yesterday"}, {"connectEvent": {"destinationIpAddress": "x"}}])
def test_a_damaged_event_costs_only_itself(tmp_path, damage):
    rows, quarantine, _ = read(tmp_path, lines(batch_of(EVENTS[0], EVENTS[1] | damage, EVENTS[3])))
    assert [record.position for record in quarantine.records] == ["event 2"]
    assert not rows["flows"]
    assert {row["kind"] for row in rows["signals"]} >= {SignalKind.NAME_LOOKUP, SignalKind.KEYGUARD_LOCKED}


def test_a_device_report_names_device_person_and_apps(tmp_path):
    rows, quarantine, _ = read(tmp_path, lines(enveloped(REPORT, "STATUS_REPORT")))
    assert not quarantine.total
    named = {(row["identifier_kind"], row["identifier"]) for row in rows["inventory"] if row["identifier"]}
    assert named == {
        ("serial", "R58M123"),
        ("imei", "350000000000001"),
        ("imei", "35"),
        ("mac", "3c:22:fb:00:00:01"),
        ("mdm_id", "amapi:3aa1"),
    }
    (app,) = (row for row in rows["inventory"] if row["android_package"])
    assert (app["android_package"], app["installer"], app["signing_digest"]) == (
        "com.a",
        "com.android.vending",
        "ab" * 32,
    )
    assert {row["user_name"] for row in rows["inventory"] if row["user_name"]} == {"a.holder"}


@pytest.mark.parametrize("damage", [{"networkInfo": 5}, {"applicationReports": {}}, {"applicationReports": [7]}])
def test_a_damaged_report_is_put_aside(tmp_path, damage):
    rows, quarantine, _ = read(tmp_path, lines(REPORT | damage, REPORT))
    assert [record.position for record in quarantine.records] == ["line 1"]
    assert rows["inventory"]


def test_what_is_written_is_read_back(tmp_path):
    told = {"device_uid": "phone-7", "android_package": "com.a", "source": "x", "clock": "device"}
    begin = 1_772_528_400_000_000
    flows = told | {"flow_id": [1, 2], "protocol_num": 6, "direction_id": [2, 1], "direction_observability": 1}
    flows |= {"start_time": [begin, begin], "bytes_observability": 0, "position": [1, 2], "remote_port": [443, 50_000]}
    flows |= {"remote_ip": ["203.0.113.9", "203.0.113.10"]}
    signals = told | {"observability": 1, "position": [1, 2, 3], "detail": ["gw.example 203.0.113.9", None, None]}
    signals |= {"kind": [int(SignalKind.NAME_LOOKUP), int(SignalKind.KEYGUARD_LOCKED), int(SignalKind.PROCESS_START)]}
    signals |= {"start_time": [begin - 1_000_000, begin, begin], "end_time": [None, begin + 60_000_000, None]}
    (path,) = export(
        [batch("flows", flows, length=2), batch("signals", signals, length=3)], ExportFormat.MANAGEMENT_API, tmp_path
    )
    rows, quarantine, _ = read(tmp_path, path.read_bytes())
    assert not quarantine.total
    assert [(row["device_uid"], row["remote_ip"]) for row in rows["flows"]] == [("phone-7", "203.0.113.9")]
    kinds = sorted(row["kind"] for row in rows["signals"])
    expected = ("KEYGUARD_LOCKED", "USER_INTERACTION", "PROCESS_START", "CAPTURE", "NAME_LOOKUP")
    assert kinds == sorted(int(SignalKind[name]) for name in expected)


def test_hostile_variants_are_read_to_the_end(tmp_path):
    rng = random.Random(1)  # noqa: S311  mutations, no secret
    for number in range(100):
        for name, content in FUZZ_SEEDS:
            assert_survives(tmp_path / str(number), name, mutate(content, rng))
