from __future__ import annotations

import json
import random
from datetime import UTC, datetime

import mutations
import pytest
from unit_reads import read_bytes, read_paths, shared

from relaywatch.model.schemas import Direction, Observability, SignalKind
from relaywatch.sources.reading import Head
from relaywatch.sources.threat_crowdstrike import FalconMobile
from relaywatch.sources.threat_lookout import Lookout
from relaywatch.sources.threat_products import HarmonyMobile, Pradeo, Zimperium

AT = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
FALCON = {
    "metadata": {"eventType": "MobileDetectionSummaryEvent", "eventCreationTime": 1_700_000_090_000, "offset": 1},
    "event": {
        "SensorId": "85ae98",
        "ComputerName": "phone-7.example.com",
        "UserName": "ana",
        "ContextTimeStamp": 1_700_000_000,
        "DetectName": "SideloadDetected",
        "Severity": 50,
        "MobileAppsDetails": [
            {"AppIdentifier": "com.example.share", "AndroidAppLabel": "Share", "AppInstallerInformation": "unknown"}
        ],
        "MobileNetworkConnections": [
            {
                "AccessTimestamp": 1_700_000_001,
                "Protocol": "6",
                "LocalAddress": "",
                "RemoteAddress": "198.51.100.7",
                "RemotePort": 443,
                "ConnectionDirection": 0,
                "Url": "https://Cdn.example.org/x",
                "ContextProcessId": 17793441978049446000,
            }
        ],
    },
}
LOOKOUT_THREAT = {
    "id": "e1",
    "enterprise_guid": "c1",
    "created_time": "2023-11-14T22:13:20.000+00:00",
    "type": "THREAT",
    "change_type": "CREATED",
    "threat": {
        "guid": "t1",
        "status": "OPEN",
        "severity": "HIGH",
        "type": "APPLICATION",
        "classifications": ["TROJAN"],
        "details": {"application_name": "Share", "package_name": "com.example.share", "package_sha": "ae2a"},
    },
    "target": {"guid": "d1", "type": "THREAT"},
    "actor": {"guid": "d1", "type": "DEVICE"},
}
LOOKOUT_DEVICE = {
    "id": "e2",
    "enterprise_guid": "c1",
    "created_time": "2023-11-14T22:13:20Z",
    "type": "DEVICE",
    "device": {
        "guid": "d1",
        "platform": "ANDROID",
        "profile_type": "WORK",
        "info": {"external_id": "ext-7"},
        "status": {"security_status": "SECURE"},
        "parent_status": {"parent_device_guid": "p1"},
    },
    "target": {"guid": "d1", "type": "DEVICE"},
}
LOOKOUT_V1 = {
    "id": 7,
    "type": "THREAT",
    "eventTime": "2023-11-14T22:13:20Z",
    "details": {
        "type": "APPLICATION",
        "action": "DETECTED",
        "severity": "HIGH",
        "classifications": ["ADWARE"],
        "packageName": "com.example.share",
        "applicationName": "Share",
    },
    "target": {"type": "DEVICE", "guid": "d1", "emailAddress": "ana@example.com", "externalId": "ext-7"},
}
ZIMPERIUM = {
    "id": "z1",
    "deviceId": "62",
    "device": {"id": "62", "mdmDeviceId": "m-7", "model": "A5000", "os": {"name": "ANDROID", "version": "14"}},
    "timestamp": 1_700_000_000_000,
    "threatTypeName": "UNKNOWN SOURCES ON",
    "severityName": "ELEVATED",
    "vectorName": "Device",
    "deviceOwner": "ana@example.com",
    "simulated": False,
}
PRADEO_APP = {
    "id": "p1",
    "creationDate": "2023-11-14T22:13:20.000Z",
    "source": "system",
    "type": "DeviceApplicationComplianceUpdated",
    "content": {
        "deviceApplicationCompliance": {
            "status": "Disapproved",
            "deviceApplication": {
                "application": {"name": "Share", "sha256": "33ab", "package": {"package": "com.example.share"}},
                "device": {
                    "id": "d9",
                    "serialNumber": "unknown",
                    "imei": "356938035643809",
                    "email": "ana@example.com",
                },
            },
        }
    },
}
PRADEO_DETECTION = {
    "id": "p2",
    "creationDate": "2023-11-14T22:13:20.000Z",
    "source": "admin",
    "category": "Network",
    "type": "DeviceDetection",
    "content": {"id": "d9", "email": "", "metric": "match_vpn", "type": "VPN activation", "status": "START"},
}
PRADEO_CREATED = PRADEO_DETECTION | {"type": "ApplicationCreated", "content": {"application": {"id": "x"}}}
HARMONY = {
    "attack_vector": "NetworkSecurity",
    "backend_last_updated": "2023-11-14T22:14:20+00:00",
    "details": "Domain:bb.example",
    "device_id": 8,
    "device_rooted": False,
    "email": "ana@example.com",
    "event": "Alert",
    "event_timestamp": "11/14/2023 22:13:20",
    "mdm_uuid": "00000000-0000-0000-0000-000000000000",
    "severity": "Critical",
    "threat_factors": "Phishing",
    "device_model": "Android",
}
FEEDS = {
    "falcon.jsonl": (FalconMobile(), [FALCON]),
    "lookout.jsonl": (Lookout(), [LOOKOUT_THREAT, LOOKOUT_DEVICE, LOOKOUT_V1]),
    "zimperium.jsonl": (Zimperium(), [ZIMPERIUM]),
    "pradeo.jsonl": (Pradeo(), [PRADEO_APP, PRADEO_DETECTION, PRADEO_CREATED]),
    "harmony.jsonl": (HarmonyMobile(), [HARMONY]),
}


def lines(*records) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


FUZZ_SEEDS = [(name, lines(*records, *records)) for name, (_, records) in FEEDS.items()]


def read(reader, *records, device=""):
    rows, quarantine = read_bytes(reader, lines(*records), device=device)
    assert quarantine.total == 0, quarantine.records
    return rows


def names(rows):
    return {(row["identifier_kind"], row["identifier"]) for row in rows["inventory"] if row["identifier"]}


def verdicts(rows):
    assert {row["kind"] for row in rows["signals"]} <= {SignalKind.THREAT_VERDICT}
    return [(row["device_uid"], row["android_package"], row["detail"]) for row in rows["signals"]]


@pytest.mark.parametrize("name", FEEDS)
def test_each_feed_is_known_by_its_records_and_by_no_other_reader(name):
    head = Head(path=None, content=lines(*FEEDS[name][1]))
    assert [other for other, (reader, _) in FEEDS.items() if reader.fits(head)] == [name]


def test_a_falcon_detection_is_a_verdict_on_its_app_with_the_connections_it_lists():
    rows = read(FalconMobile(), FALCON)
    assert verdicts(rows) == [
        ("crowdstrike:85ae98", "com.example.share", "CrowdStrike: SideloadDetected, severity 50"),
    ]
    assert rows["signals"][0]["start_time"] == AT
    (flow,) = rows["flows"]
    assert (flow["android_package"], flow["remote_ip"], flow["remote_port"]) == (
        "com.example.share",
        "198.51.100.7",
        443,
    )
    assert (flow["remote_hostname"], flow["bytes_out"], flow["local_ip"]) == ("cdn.example.org", None, None)
    assert (flow["direction_id"], flow["direction_observability"]) == (Direction.OUTBOUND, Observability.OBSERVED)
    assert names(rows) == {("sensor_id", "crowdstrike:85ae98"), ("hostname", "phone-7.example.com")}
    (app,) = [row for row in rows["inventory"] if row["android_package"]]
    assert (app["app_label"], app["installer"]) == ("Share", None)


def test_a_falcon_direction_that_was_never_documented_is_unknown():
    connection = FALCON["event"]["MobileNetworkConnections"][0]
    changed = [connection | {"ConnectionDirection": way} for way in (1, 2, None)]
    rows = read(FalconMobile(), FALCON | {"event": FALCON["event"] | {"MobileNetworkConnections": changed}})
    assert [(flow["direction_id"], flow["direction_observability"]) for flow in rows["flows"]] == [
        (Direction.INBOUND, Observability.INFERRED),
        (Direction.UNKNOWN, Observability.NOT_OBSERVABLE),
        (Direction.UNKNOWN, Observability.NOT_OBSERVABLE),
    ]
    assert len({flow["flow_id"] for flow in rows["flows"]}) == 3


def test_a_lookout_threat_names_the_app_and_the_device_that_reported_it():
    rows = read(Lookout(), LOOKOUT_THREAT)
    assert verdicts(rows) == [("lookout:d1", "com.example.share", "Lookout: APPLICATION TROJAN, HIGH, OPEN")]
    assert names(rows) == {("sensor_id", "lookout:d1")}
    assert not rows["flows"]


def test_a_lookout_device_event_gives_its_mdm_id_and_its_personal_side():
    rows = read(Lookout(), LOOKOUT_DEVICE)
    assert names(rows) == {("sensor_id", "lookout:d1"), ("mdm_id", "mdm:ext-7")}
    (device,) = [row for row in rows["inventory"] if row["detail"]]
    assert device["detail"] == "ANDROID, profile WORK, security SECURE, of lookout:p1"
    assert not rows["signals"]


def test_lookouts_first_version_reads_as_the_second_does():
    rows = read(Lookout(), LOOKOUT_V1)
    assert verdicts(rows) == [("lookout:d1", "com.example.share", "Lookout: APPLICATION ADWARE, HIGH, DETECTED")]
    assert ("mdm_id", "mdm:ext-7") in names(rows)
    assert "ana@example.com" in {row["user_name"] for row in rows["inventory"]}


def test_a_zimperium_threat_is_a_verdict_on_the_device_unless_simulated():
    rows = read(Zimperium(), ZIMPERIUM, ZIMPERIUM | {"simulated": True})
    assert verdicts(rows) == [("zimperium:62", None, "Zimperium: UNKNOWN SOURCES ON, Device, ELEVATED")]
    assert names(rows) == {("sensor_id", "zimperium:62"), ("mdm_id", "mdm:m-7")}
    assert "ana@example.com" in {row["user_name"] for row in rows["inventory"]}


def test_pradeo_judges_apps_and_describes_devices():
    rows = read(Pradeo(), PRADEO_APP, PRADEO_DETECTION, PRADEO_CREATED)
    assert verdicts(rows) == [
        ("pradeo:d9", "com.example.share", "Pradeo: application, Disapproved"),
        ("pradeo:d9", None, "Pradeo: VPN activation, Network, START"),
    ]
    assert names(rows) == {("sensor_id", "pradeo:d9"), ("imei", "356938035643809")}


def test_harmonys_time_without_a_zone_has_a_wide_bound_and_a_late_one_is_a_guess():
    rows = read(HarmonyMobile(), HARMONY, HARMONY | {"event_timestamp": None})
    told, late = rows["signals"]
    assert (told["start_time"], told["observability"], told["clock_skew_bound_s"]) == (AT, 1, 14 * 3600)
    assert (late["observability"], late["clock_skew_bound_s"]) == (Observability.INFERRED, 60)
    assert told["detail"] == "Harmony Mobile: Phishing, NetworkSecurity, Alert, Domain:bb.example, Critical"
    assert names(rows) == {("sensor_id", "harmony:8")}


def test_a_device_that_is_compliant_again_is_no_verdict():
    rows = read(HarmonyMobile(), HARMONY | {"event": "Compliant"})
    assert not rows["signals"]
    assert "Compliant" in rows["inventory"][-1]["detail"]


def test_records_without_a_device_or_a_time_are_put_aside(tmp_path):
    nameless = LOOKOUT_THREAT | {"actor": {"guid": "u1", "type": "USER"}}
    damaged = [nameless, LOOKOUT_THREAT | {"created_time": "soon"}, LOOKOUT_THREAT | {"type": "AUDIT"}]
    (tmp_path / "lookout.jsonl").write_bytes(lines(LOOKOUT_THREAT, *damaged))
    _, quarantine, tally, unknown = mutations.read_path(tmp_path)
    assert not unknown
    assert [q.reason for q in quarantine.records] == ["names no device", "created_time: 'soon' is no time"]
    assert tally.unused.total() == 1
    mutations.assert_accounted(quarantine, tally)


def test_hostile_variants_are_read_to_the_end(tmp_path):
    rng = random.Random(8)  # noqa: S311 - a repeatable test
    for name, content in FUZZ_SEEDS:
        for number in range(60):
            mutations.assert_survives(tmp_path / str(number), name, mutations.mutate(content, rng))


def test_the_public_samples_are_read():
    for path in sorted(shared("samples", "edr_mtd").glob("*.json")):
        if "mde" in path.name:
            continue
        rows, quarantine = read_paths(path)
        assert quarantine.total == 0, (path.name, quarantine.records)
        assert rows["inventory"] or path.name.startswith("sekoia_pradeo_application"), path.name
