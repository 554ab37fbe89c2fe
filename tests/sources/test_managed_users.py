"""Users, owners and what Doze spares become inventory rows."""

from __future__ import annotations

import random
from pathlib import Path

import mutations
from android_sections import assert_linear, assert_parser_survives, brief, parsed

from relaywatch.sources.managed_users import device_idle, device_policy, users

USERS = """Users:
  UserInfo{0:null:13} serialNo=0
    State: RUNNING_UNLOCKED
  UserInfo{11:Work profile:1030} serialNo=11 isPrimary=false
    Type: android.os.usertype.profile.MANAGED
    State: -1
  UserInfo{12:Second:10} serialNo=12
"""
POLICY = """Current Device Policy Manager state:
  Device Owner:
    admin=ComponentInfo{com.mdm/com.mdm.Receiver}
    name=
    package=com.mdm
    isOrganizationOwnedDevice=true
    User ID: 0

  Profile Owner (User 150):
    admin=ComponentInfo{com.work.dpc/com.work.dpc.Receiver}
    isOrganizationOwnedDevice=false

  Enabled Device Admins (User 0, provisioningState: 3):
    mAlwaysOnVpnPackage=org.proxy
  Enabled Device Admins (User 10, provisioningState: 3):
    mAlwaysOnVpnPackage=null
"""
IDLE = """  Whitelist (except idle) system apps:
    com.android.shell
  Whitelist user apps:
    org.proxy
  Whitelist all app ids:
    2000
    10098
  mLightEnabled=false  mDeepEnabled=false
    com.not.listed
"""
FUZZ_SEEDS = [
    ("user.txt", b"DUMP OF SERVICE user:\n" + USERS.encode()),
    ("policy.txt", b"DUMP OF SERVICE device_policy:\n" + POLICY.encode()),
    ("idle.txt", b"DUMP OF SERVICE deviceidle:\n" + IDLE.encode()),
]


def test_users_and_the_work_profile() -> None:
    rows, _ = parsed(users, USERS)
    assert [(row["user_id"], row["detail"], row["android_package"]) for row in rows] == [
        (0, "user, flags 0x13", None),
        (11, "work profile 'Work profile', flags 0x1030, type android.os.usertype.profile.MANAGED", None),
        (12, "user 'Second', flags 0x10", None),
    ]


def test_owners_and_the_policys_vpn() -> None:
    rows, reading = parsed(device_policy, POLICY)
    owners = [(row["user_id"], row["detail"]) for row in rows if row["table"] == "inventory"]
    assert owners == [
        (0, "device owner com.mdm, organisation owns the device: true"),
        (150, "profile owner com.work.dpc, organisation owns the device: false"),
    ]
    assert [(kind, package) for kind, package, _, _ in brief(rows)] == [("VPN", "org.proxy")]
    assert reading.tally.unused["no VPN is set to be always on"] == 1


def test_apps_that_doze_spares() -> None:
    rows, reading = parsed(device_idle, IDLE)
    assert [(row["android_package"], row["android_uid"], row["detail"]) for row in rows] == [
        ("com.android.shell", None, "spared by Doze while the phone is not idle, system list"),
        ("org.proxy", 10_098, "spared by Doze always, user list"),
    ]
    assert reading.tally.records == 4


def test_damage_goes_to_quarantine() -> None:
    assert parsed(users, USERS.replace("{12:", "{99999:"))[1].quarantine.total == 1
    assert parsed(device_policy, POLICY.replace("package=com.mdm", "package=../x"))[1].quarantine.total == 1
    assert parsed(device_idle, IDLE.replace("org.proxy", "org proxy"))[1].quarantine.total == 1


def test_hostile_variants_are_survived(tmp_path: Path) -> None:
    rng = random.Random(19)  # noqa: S311 - seeded, so that it repeats
    for (name, content), parser in zip(FUZZ_SEEDS, (users, device_policy, device_idle), strict=True):
        assert_parser_survives(parser, content)
        for _ in range(200):
            mutations.assert_survives(tmp_path, name, mutations.mutate(content, rng))


def test_long_lines_are_read_in_linear_time() -> None:
    assert_linear(users, ["  UserInfo{0:"])
    assert_linear(device_policy, ["  Device Owner:\n  package=", "  mAlwaysOnVpnPackage="])
    assert_linear(device_idle, ["  Whitelist user apps:\n    "])
