"""MVT's results: the same facts as from the dumps that MVT read, each record accounted for, nothing executed."""

import json
import random

import pytest
from mutations import assert_accounted, assert_survives, mutate, read_path

from relaywatch.model.schemas import SignalKind

INFO = {
    "target_path": "/cases/7",
    "mvt_version": "2026.10.26",
    "date": "2026-11-28 04:22:45",
    "ioc_files": [],
    "hashes": [],
}
CONNECT = {
    "event_time": 1746979201000,
    "ip_address": "/93.184.216.34",
    "port": 443,
    "package_name": "com.example.app",
    "timestamp": "2025-05-11 16:00:01.000000",
}
DNS = {
    "event_time": 1746979200000,
    "hostname": "example.com",
    "ip_addresses": ["/93.184.216.34"],
    "ip_addresses_count": 1,
    "package_name": "com.example.app",
    "timestamp": "2025-05-11 16:00:00.000000",
}
SECURITY = {
    "event_id": 191,
    "event_time": 1700000002000000000,
    "app_process_start": {"process": "com.example.app", "uid": 10000, "pid": 1234},
    "timestamp": "2023-11-14 22:13:22.000000",
}
PROPERTIES = [
    {"name": "persist.sys.timezone", "value": "Europe/Berlin"},
    {"name": "ro.serialno", "value": "R58M1"},
    {"name": "ro.product.locale", "value": "de-DE"},
]
PACKAGE = {
    "package_name": "com.example.vpn",
    "package_type": "active",
    "app_id": 10150,
    "version_code": 28,
    "installer": "com.android.vending",
    "permissions": [],
    "users": [
        {"user_id": 0, "installed": True},
        {"user_id": 11, "installed": True},
        {"user_id": 12, "installed": False},
    ],
}
ACCESS = {
    "event": "access",
    "access": "Access",
    "uid_state": "fg-s",
    "timestamp": "2026-01-08 15:29:44.374000",
    "relative_time": "(-2m5s)",
    "duration": "+1m0s0ms",
    "attribution": None,
}
APP_OPS = [
    {
        "package_name": "com.other",
        "uid": "u0a9",
        "permissions": [{"name": "VIBRATE", "mode": "allow", "entries": [ACCESS]}],
    },
    {
        "package_name": "com.example.vpn",
        "uid": "u0a150",
        "permissions": [{"name": "ACTIVATE_VPN", "mode": "allow", "entries": [ACCESS]}],
    },
]
BATTERY = [
    {
        "time_elapsed": "+1s",
        "timestamp": "2026-01-08 15:00:01.500000",
        "event": "wake",
        "uid": "1001",
        "package_name": None,
    },
    {"time_elapsed": "+2s", "timestamp": "2026-01-08 15:00:02.250000", "event": "start_top", "uid": "u0a82"}
    | {"package_name": "com.example.game", "service": ""},
    {"time_elapsed": "+9s", "timestamp": "2026-01-08 16:00:09.750000", "event": "end_top", "uid": "u0a82"}
    | {"package_name": "com.example.game", "service": ""},
]
SETTINGS = [
    {"namespace": "global", "user": "0", "name": "adb_enabled", "value": "1"},
    {"namespace": "global", "user": "0", "name": "http_proxy", "value": "no proxy at all"},
]
AQF_PACKAGE = {
    "name": "com.example.app",
    "files": [{"path": "/data/app/base.apk", "certificate": {"Sha256": "ab" * 32}}],
    "installer": "null",
    "uid": 10123,
    "disabled": False,
    "system": False,
    "third_party": True,
}
TIMELINE = (
    '"UTC Timestamp","Plugin","Event","Description"\n'
    '"","RootBinaries","root_binary_found","Root binary found: /system/bin/su (binary: su)"\n'
    '"2023-11-14 22:13:22.000000","SecurityEvent","app_process_start","Process started: com.a:x (UID: 10000, PID: 1)"\n'
    '"2025-05-11 16:00:00.000000","DnsEvent","dns_query","DNS query for example.com by com.a [IPs: 93.184.216.34]"\n'
    '"2025-05-11 16:00:01.000000","ConnectEvent","network_connection","Connection to 93.184.216.34:443 by com.a"\n'
)
FOLDER = {
    "info.json": INFO,
    "connect_event.json": [CONNECT],
    "dns_event.json": [DNS],
    "security_event.json": [SECURITY],
    "dumpsys_get_prop.json": PROPERTIES,
    "dumpsys_packages.json": [PACKAGE],
    "dumpsys_appops.json": APP_OPS,
    "dumpsys_battery_history.json": BATTERY,
    "settings.json": SETTINGS,
    "aqf_packages.json": [AQF_PACKAGE],
    "processes.json": [{"pid": 1, "command": "init"}],
}
FUZZ_SEEDS = [("timeline.csv", TIMELINE.encode())]


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content, indent=4)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def read(path, device=""):
    batches, quarantine, tally, unknown = read_path(path, device)
    assert not unknown
    assert_accounted(quarantine, tally)
    rows = {"flows": [], "volumes": [], "signals": [], "inventory": []}
    for part in batches:
        part.rows.validate(full=True)
        rows[part.table] += part.rows.to_pylist()
    return rows, quarantine, tally


def test_connects_look_ups_and_process_starts_are_those_of_the_intrusion_logs(tmp_path):
    events = {"connect_event": CONNECT, "dns_event": DNS, "security_event": SECURITY}
    folder = write(
        tmp_path / "R58M1", {"info.json": INFO} | {f"{name}.json": [event] for name, event in events.items()}
    )
    (tmp_path / "log").mkdir()
    log = tmp_path / "log" / "R58M1.txt"
    log.write_text(
        "".join(json.dumps({name: events[name]}) + "\n" for name in ("dns_event", "connect_event", "security_event"))
    )
    found, expected = read(folder)[0], read(log)[0]
    for table in ("flows", "signals"):
        drop = {"source", "position"}
        assert [{k: v for k, v in row.items() if k not in drop} for row in found[table]] == [
            {k: v for k, v in row.items() if k not in drop} for row in expected[table]
        ]
    assert found["flows"][0]["remote_hostname"] == "example.com"


def test_the_phone_is_named_by_its_serial_number_and_its_zone_dates_local_times(tmp_path):
    rows, quarantine, _ = read(write(tmp_path / "case", FOLDER))
    everything = rows["signals"] + rows["inventory"] + rows["flows"]
    assert {row["device_uid"] for row in everything} == {"R58M1"}
    assert ("serial", "R58M1") in {(row["identifier_kind"], row["identifier"]) for row in rows["inventory"]}
    (vpn,) = [row for row in rows["signals"] if row["kind"] == SignalKind.VPN]
    assert (vpn["android_package"], vpn["android_uid"], vpn["detail"]) == ("com.example.vpn", 10150, "ACTIVATE_VPN")
    assert vpn["start_time"].isoformat() == "2026-01-08T14:29:44.374000+00:00"
    assert (vpn["end_time"] - vpn["start_time"]).total_seconds() == 60
    assert vpn["position"] == 2
    assert [record.position for record in quarantine.records] == ["record 2"]
    assert quarantine.records[0].source.endswith("settings.json")


def test_packages_have_their_uids_for_each_user_that_has_them(tmp_path):
    rows, _, _ = read(write(tmp_path / "case", FOLDER))
    found = {(row["android_package"], row["android_uid"], row["installer"]) for row in rows["inventory"]}
    assert {
        ("com.example.vpn", 10150, "com.android.vending"),
        ("com.example.vpn", 1110150, "com.android.vending"),
    } <= found
    assert not [entry for entry in found if entry[1] == 1210150]
    assert ("com.example.app", 10123, None) in found


def test_foreground_is_what_mvt_kept_and_screens_are_not_promised(tmp_path):
    rows, _, _ = read(write(tmp_path / "case", FOLDER))
    (top,) = [row for row in rows["signals"] if row["kind"] == SignalKind.FOREGROUND_UI]
    assert (top["android_package"], top["position"]) == ("com.example.game", 2)
    assert (top["end_time"] - top["start_time"]).total_seconds() == 3607.5
    (capture,) = [row for row in rows["signals"] if row["kind"] == SignalKind.CAPTURE]
    assert capture["detail"] == "FOREGROUND_UI"


def test_results_without_facts_are_left_with_the_reason(tmp_path):
    _, _, tally = read(write(tmp_path / "case", FOLDER | {"timeline.csv": TIMELINE, "alerts.json": []}))
    assert tally.unused["a result of MVT that is not read"] == 2
    assert tally.unused["restates the results beside it"] == 2
    assert tally.unused["gives no row of its own"] == 4


def test_a_folder_of_other_json_is_not_mvts(tmp_path):
    folder = write(tmp_path / "case", {"info.json": {"date": "x"}, "settings.json": SETTINGS})
    batches, _, _, unknown = read_path(folder)
    assert not batches
    assert len(unknown) == 2


def test_the_timeline_alone_gives_what_its_text_tells(tmp_path):
    rows, _, tally = read(write(tmp_path, {"timeline.csv": TIMELINE}) / "timeline.csv", "R58M1")
    (flow,) = rows["flows"]
    assert (flow["android_package"], flow["remote_ip"], flow["remote_port"]) == ("com.a", "93.184.216.34", 443)
    assert (flow["remote_hostname"], flow["device_uid"]) == ("example.com", "R58M1")
    assert flow["clock_skew_bound_s"] == 2
    assert {row["kind"] for row in rows["signals"]} == {SignalKind.NAME_LOOKUP, SignalKind.PROCESS_START}
    assert tally.unused == {"an event that no table holds": 1}


def test_local_times_of_a_timeline_have_a_bound_as_wide_as_the_zones(tmp_path):
    local = TIMELINE.replace("UTC Timestamp", "Device Local Timestamp")
    rows, _, _ = read(write(tmp_path, {"timeline.csv": local}) / "timeline.csv")
    assert rows["flows"][0]["clock_skew_bound_s"] == 14 * 3600 + 2


@pytest.mark.parametrize("stamp", ["", "yesterday", "2025-13-01 00:00:00", "1950-01-01 00:00:00"])
def test_a_timelines_event_without_a_time_is_put_aside(tmp_path, stamp):
    text = TIMELINE.replace("2025-05-11 16:00:01.000000", stamp)
    rows, quarantine, _ = read(write(tmp_path, {"timeline.csv": text}) / "timeline.csv")
    assert not rows["flows"]
    assert [record.position for record in quarantine.records] == ["line 5"]


@pytest.mark.parametrize("name", sorted(FOLDER))
def test_hostile_variants_of_each_result_are_read_to_the_end(tmp_path, name):
    rng = random.Random(name)  # noqa: S311  mutations, no secret
    whole = json.dumps(FOLDER[name], indent=4).encode()
    for step in range(25):
        folder = write(tmp_path / str(step), FOLDER)
        assert_survives(folder, name, mutate(whole, rng, changes=6))


def test_hostile_timelines_are_read_to_the_end(tmp_path):
    rng = random.Random(3)  # noqa: S311  mutations, no secret
    for step in range(60):
        assert_survives(tmp_path / str(step), "timeline.csv", mutate(TIMELINE.encode(), rng))
