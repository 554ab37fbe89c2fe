"""Installed apps become inventory rows, one for each user that has the app."""

from __future__ import annotations

import random
from pathlib import Path

import mutations
from android_sections import assert_linear, assert_parser_survives, parsed
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.sources.package_state import package_state

DIGEST = "AB" * 32
DUMPED = f"""Service Resolver Table:
  Non-Data Actions:
      android.net.VpnService:
        5f6765d org.proxy/.bg.VPNService filter 1f permission android.permission.BIND_VPN_SERVICE
      android.service.notification.Other:
        5f6765e com.news/.Sync

Packages:
  Package [org.proxy] (cdce25a):
    appId=10098
    versionCode=2011 minSdk=21 targetSdk=34
    versionName=6.1.5
    firstInstallTime=2026-09-11 11:57:45
    lastUpdateTime=2026-09-12 11:57:45
    installerPackageName=com.android.vending
    installInitiatingPackageName=com.android.shell
    signatures=PackageSignatures{{83c0f07 version:3, signatures:[{DIGEST}], past signatures:[]}}
    install permissions:
      android.permission.INTERNET: granted=true
      android.permission.VIBRATE: granted=true
      android.permission.FOREGROUND_SERVICE_SPECIAL_USE: granted=true
    User 0: ceDataInode=860679 installed=true hidden=false
      gids=[3003]
      firstInstallTime=2026-09-13 11:57:45
    User 10: ceDataInode=1 installed=true hidden=false
    User 11: ceDataInode=0 installed=false hidden=false
  Package [a.media] (a0094a3):
    userId=10044
    sharedUser=SharedUserSetting{{82b2b2 android.media/10044}}
    versionCode=29 minSdk=29
    installerPackageName=null
    signatures=PackageSignatures{{a0094a3 version:3, signatures:[b4addb29], past signatures:[]}}
    User 0: ceDataInode=1 installed=true hidden=false

Shared users:
  SharedUser [android.media] (81c08d6):
    userId=10044
    Packages
      PackageSetting{{e63ee07 a.media/10044}}
    install permissions:
      android.permission.INTERNET: granted=true

Hidden system packages:
  Package [org.proxy] (cdce25b):
    userId=10098
"""
LISTED = """package:org.proxy uid:10098,1010098
package:/data/app/~~x==/com.news-1/base.apk=com.news versionCode:12 installer=com.android.vending uid:10050
package:com.other
"""
FUZZ_SEEDS = [
    ("packages.txt", b"DUMP OF SERVICE package:\n" + DUMPED.encode()),
    ("pm.txt", LISTED.encode()),
]


def test_an_app_has_a_row_for_each_user_that_has_it() -> None:
    rows, reading = parsed(package_state, DUMPED)
    proxy = [row for row in rows if row["android_package"] == "org.proxy"]
    assert [(row["user_id"], row["android_uid"]) for row in proxy] == [(0, 10_098), (10, 1_010_098)]
    assert {row["installer"] for row in proxy} == {"com.android.vending"}
    assert {row["signing_digest"] for row in proxy} == {"ab" * 32}
    assert proxy[0]["detail"] == (
        "versionCode 2011; firstInstallTime 2026-09-11 11:57:45; lastUpdateTime 2026-09-12 11:57:45; "
        "initiating com.android.shell; granted FOREGROUND_SERVICE_SPECIAL_USE INTERNET; VPN service .bg.VPNService"
    )
    assert reading.tally.records == 4


def test_apps_of_a_shared_uid_have_its_permissions_and_no_false_digest() -> None:
    rows, _ = parsed(package_state, DUMPED)
    media = next(row for row in rows if row["android_package"] == "a.media")
    assert media["detail"] == "versionCode 29; shared uid android.media; granted INTERNET"
    assert (media["signing_digest"], media["installer"], media["android_uid"]) == (None, None, 10_044)


def test_the_package_managers_list() -> None:
    rows, reading = parsed(package_state, LISTED, name="pm")
    assert [(row["android_package"], row["android_uid"], row["user_id"], row["installer"]) for row in rows] == [
        ("org.proxy", 10_098, 0, None),
        ("org.proxy", 1_010_098, 10, None),
        ("com.news", 10_050, 0, "com.android.vending"),
    ]
    assert reading.tally.records == 2


def test_apps_without_a_uid_go_to_quarantine() -> None:
    _, reading = parsed(package_state, DUMPED.replace("appId=10098", "appId=x"))
    assert [record.position for record in reading.quarantine.records] == ["line 9"]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1000, 19_999)), min_size=1, max_size=20, unique=True))
def test_every_listed_app_of_every_user_is_given(apps: list[tuple[int, int]]) -> None:
    text = "\n".join(f"package:p.a{i} uid:{user * 100_000 + app}" for i, (user, app) in enumerate(apps))
    rows, _ = parsed(package_state, text)
    assert [(row["user_id"], row["android_uid"] % 100_000) for row in rows] == apps


def test_hostile_variants_are_survived(tmp_path: Path) -> None:
    rng = random.Random(17)  # noqa: S311 - seeded, so that it repeats
    for name, content in FUZZ_SEEDS:
        assert_parser_survives(package_state, content)
        for _ in range(200):
            mutations.assert_survives(tmp_path, name, mutations.mutate(content, rng))


def test_long_lines_are_read_in_linear_time() -> None:
    assert_linear(
        package_state,
        [
            "package:",
            "package:a uid:1,",
            "  Package [",
            "  Package [a.b] (1):\n    appId=1",
            "  Package [a.b] (1):\n    User 0: ",
        ],
    )
