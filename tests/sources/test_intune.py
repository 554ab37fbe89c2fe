from __future__ import annotations

import json
import random

import mutations
from hypothesis import given, settings
from hypothesis import strategies as st
from unit_reads import read_bytes, read_paths, shared

from relaywatch.sources.intune import Intune

MANAGED = {
    "@odata.type": "#microsoft.graph.managedDevice",
    "id": "a2f2-1",
    "deviceName": "Phone-7",
    "managedDeviceOwnerType": "company",
    "managementAgent": "mdm",
    "complianceState": "compliant",
    "userPrincipalName": "ana@example.com",
    "operatingSystem": "Android",
    "osVersion": "14.0",
    "manufacturer": "samsung",
    "model": "SM-G996B",
    "androidSecurityPatchLevel": "2023-10-01",
    "jailBroken": "False",
    "serialNumber": "R5CN7",
    "imei": "356938035643809",
    "wiFiMacAddress": "02005E005301",
    "azureADDeviceId": "5f02-9",
    "lastSyncDateTime": "2023-11-14T22:13:20Z",
}
APP = {"id": "h1", "displayName": "Share", "version": "1.2", "publisher": "Example", "deviceCount": 2, "platform": "x"}
DEVICES = {
    "time": "2023-11-14T22:13:20.4103000Z",
    "category": "Devices",
    "operationName": "Devices",
    "resultType": "None",
    "properties": {
        "DeviceId": "a2f2-1",
        "DeviceName": "ana_AndroidForWork_10/17/2023_2:23 PM",
        "UPN": "ana@example.com",
        "OS": "Android (Personally-Owned Work Profile)",
        "OSVersion": "14.0",
        "Ownership": "Personal",
        "CompliantState": "Compliant",
        "SerialNumber": "0",
        "IMEI": "88888",
        "WifiMacAddress": "aaa:ffff",
        "ReferenceId": "5f02-9",
        "LastContact": "2023-11-14 21:03:14.6829201",
        "IntuneAccountId": "acc",
    },
}
ENROLMENT = {
    "time": "2023-11-14T22:13:20Z",
    "category": "OperationalLogs",
    "operationName": "Enrollment",
    "resultType": "Success",
    "properties": {"IntuneDeviceId": "a2f2-1", "Os": "Android", "EnrollmentType": "X", "IntuneAccountId": "acc"},
}
AUDIT = {
    "time": "2023-11-14T22:13:20Z",
    "category": "AuditLogs",
    "operationName": "wipe ManagedDevice",
    "resultType": "Success",
    "identity": "admin@example.com",
    "properties": {"AuditEventId": "x", "TargetObjectIds": ["a2f2-1"], "Targets": []},
}
POLICY = AUDIT | {"operationName": "Delete MobileAppAssignment"}


def lines(*records) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


FUZZ_SEEDS = [
    ("managed.json", json.dumps({"@odata.context": "x", "value": [MANAGED, MANAGED | {"id": "b"}]}).encode()),
    ("intune.jsonl", lines(DEVICES, ENROLMENT, AUDIT, POLICY, DEVICES)),
]


def read(*records):
    rows, quarantine = read_bytes(Intune(), lines(*records))
    assert quarantine.total == 0
    assert set(rows) <= {"inventory"}
    return rows["inventory"]


def names(rows):
    return {(row["identifier_kind"], row["identifier"]) for row in rows if row["identifier"]}


def test_a_managed_device_has_all_its_names_its_user_and_its_state():
    rows = read(MANAGED)
    assert {row["device_uid"] for row in rows} == {"intune:a2f2-1"}
    assert names(rows) == {
        ("mdm_id", "intune:a2f2-1"),
        ("serial", "R5CN7"),
        ("imei", "356938035643809"),
        ("mac", "02:00:5e:00:53:01"),
        ("hostname", "phone-7"),
        ("mdm_id", "entra:5f02-9"),
    }
    (device,) = [row for row in rows if row["user_name"]]
    assert device["user_name"] == "ana@example.com"
    assert device["detail"] == (
        "Android 14.0, samsung SM-G996B, ownership company, compliance compliant, jailbroken False, "
        "patch level 2023-10-01, last contact 2023-11-14T22:13:20Z"
    )


def test_a_work_profiles_placeholders_are_no_names():
    assert names(read(DEVICES)) == {("mdm_id", "intune:a2f2-1"), ("mdm_id", "entra:5f02-9")}


def test_the_stream_and_the_list_name_one_device_alike():
    assert {row["device_uid"] for row in read(MANAGED, DEVICES, ENROLMENT, AUDIT)} == {"intune:a2f2-1"}


def test_an_action_on_a_device_is_told_of_it():
    details = [row["detail"] for row in read(AUDIT) if row["detail"]]
    assert details == ["audit: wipe ManagedDevice, admin@example.com, Success"]


def test_a_detected_app_is_a_label_on_the_devices_that_the_query_expanded():
    assert read(APP) == []
    (row,) = read(APP | {"managedDevices": [{"id": "a2f2-1", "deviceName": "x"}]})
    assert (row["device_uid"], row["app_label"], row["android_package"]) == ("intune:a2f2-1", "Share", None)


def test_every_record_is_accounted_for(tmp_path):
    nameless = DEVICES | {"properties": {"IntuneAccountId": "acc", "DeviceName": "x"}}
    (tmp_path / "intune.jsonl").write_bytes(lines(DEVICES, POLICY, APP, nameless) + b"{damaged\n")
    _, quarantine, tally, unknown = mutations.read_path(tmp_path)
    assert not unknown
    assert (tally.records, tally.with_rows, tally.unused.total(), quarantine.total) == (5, 1, 2, 2)


def test_the_answer_of_the_api_is_read_device_by_device(tmp_path):
    name, content = FUZZ_SEEDS[0]
    (tmp_path / name).write_bytes(content)
    rows, quarantine = read_paths(tmp_path)
    assert quarantine.total == 0
    assert {row["device_uid"] for row in rows["inventory"]} == {"intune:a2f2-1", "intune:b"}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=12, alphabet="abc123"), min_size=1, max_size=20, unique=True))
def test_each_device_of_a_list_keeps_its_own_names(ids):
    rows = read(*(MANAGED | {"id": f"i{each}", "serialNumber": f"S{each}"} for each in ids))
    serials = {row["device_uid"]: row["identifier"] for row in rows if row["identifier_kind"] == "serial"}
    assert serials == {f"intune:i{each}": f"S{each}" for each in ids}


def test_hostile_variants_are_read_to_the_end(tmp_path):
    rng = random.Random(9)  # noqa: S311 - a repeatable test
    for name, content in FUZZ_SEEDS:
        for number in range(100):
            mutations.assert_survives(tmp_path / str(number), name, mutations.mutate(content, rng))


def test_the_public_samples_are_read():
    for path in sorted(shared("samples", "mdm").glob("*.json")):
        rows, quarantine = read_paths(path)
        assert quarantine.total == 0, (path.name, quarantine.records)
        assert rows["inventory"] or "Audit" in path.name, path.name
