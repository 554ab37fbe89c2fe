"""dumpsys activity and netpolicy say what was in front, and what served, when the dump was taken."""

from __future__ import annotations

import random
from pathlib import Path

import mutations
from android_sections import assert_linear, assert_parser_survives, brief, context, parsed

from relaywatch.model.schemas import Observability
from relaywatch.sources.activity_state import activity_state, network_policy

ACTIVITY = """ACTIVITY MANAGER SERVICES (dumpsys activity services)
  User 0 active services:
  * ServiceRecord{54107b3 u0 org.proxy/.bg.VPNService}
    intent={act=android.net.VpnService cmp=org.proxy/.bg.VPNService}
    packageName=org.proxy
    isForeground=true foregroundId=1 foregroundNoti=Notification(channel=vpn)
    createTime=-2m0s548ms startingBgTimeout=--
  * ServiceRecord{b26f688 u10 com.news/.Sync}
    intent={cmp=com.news/.Sync}
    Bindings:
    * IntentBindRecord{f6fece9 CREATE}:
      intent={act=android.net.Other cmp=com.news/.Sync}

ACTIVITY MANAGER ACTIVITIES (dumpsys activity activities)
    mResumedActivity: ActivityRecord{7478fcd u0 com.news/.Front t33}
 ResumedActivity:ActivityRecord{7478fcd u0 com.news/.Front t33}
  topResumedActivity=ActivityRecord{7478fcd u10 com.news/.Front t34}
  ResumedActivity: null

ACTIVITY MANAGER RUNNING PROCESSES (dumpsys activity processes)
    UID 1000: UidRecord{bbaf733 1000 PER  change:active|uncached procs:4 seq(0,0,0)}
    UID u0a98: UidRecord{dcfe225 u0a98 FGS procs:1 seq(0,0,0)}
    UID u0a44: UidRecord{dcfe226 u0a44 TOP procs:1 seq(0,0,0)}
  Process LRU list (sorted by oom_adj, 84 total):
    Proc # 0: fore   T/A/TOP  trm: 0 1878:com.news/u0a50 (top-activity)
    Proc #12: fg     F/ /FGS  ---  t: 0 5274:org.proxy:vpn/u10a98 (fg-service)
    Proc # 4: cch+ 5 B/ /CEM  trm: 0 3330:com.weather/u0a106 (cch-empty)
"""
POLICY = """Status for all known UIDs:
  UID=1001 state=0 (fg) rules=0 (NONE)
  UID=10050 state=2 (fg) rules=0 (NONE)
  UID=10098 state=6 (fg svc) rules=0 (NONE)
  UID=10038 state=9 (bg) rules=0 (NONE)
  UID=1010098 state={procState=FGS,seq=12,cap=LCM} blocked_state={blocked=NONE,allowed=FOREGROUND,effective=NONE}
  UID=1010050 state={procState=TOP,seq=12,cap=LCMN} blocked_state={blocked=NONE,allowed=NONE,effective=NONE}
"""
FUZZ_SEEDS = [
    ("activity.txt", b"DUMP OF SERVICE activity:\n" + ACTIVITY.encode()),
    ("netpolicy.txt", b"DUMP OF SERVICE netpolicy:\n" + POLICY.encode()),
]


def test_services_activities_and_processes_at_the_dumps_time() -> None:
    rows, reading = parsed(activity_state, ACTIVITY)
    found = [(kind, package, row["android_uid"]) for (kind, package, _, _), row in zip(brief(rows), rows, strict=True)]
    assert sorted(found[:2]) == [("FOREGROUND_SERVICE", "org.proxy", 10_098), ("VPN", "org.proxy", 10_098)]
    assert found[2:] == [
        ("FOREGROUND_UI", "com.news", 10_050),
        ("FOREGROUND_UI", "com.news", 1_010_050),
        ("FOREGROUND_SERVICE", "org.proxy", 10_098),
        ("FOREGROUND_UI", None, 10_044),
        ("FOREGROUND_UI", "com.news", 10_050),
        ("FOREGROUND_SERVICE", "org.proxy", 1_010_098),
    ]
    # In front and serving hold for that moment only; a VPN stays until something says otherwise.
    assert {(kind, start, end) for kind, _, start, end in brief(rows)} == {
        ("FOREGROUND_UI", "08:00:00", "08:00:00"),
        ("FOREGROUND_SERVICE", "08:00:00", "08:00:00"),
        ("VPN", "08:00:00", None),
    }
    assert reading.tally.unused["told elsewhere in the same dump"] == 1


def test_netpolicy_in_its_old_and_new_forms() -> None:
    rows, reading = parsed(network_policy, POLICY)
    assert [(kind, package) for kind, package, _, _ in brief(rows)] == [
        ("FOREGROUND_UI", "com.news"),
        ("FOREGROUND_SERVICE", "org.proxy"),
        ("FOREGROUND_SERVICE", "org.proxy"),
        ("FOREGROUND_UI", "com.news"),
    ]
    assert [row["observability"] for row in rows] == [
        Observability.OBSERVED,
        Observability.INFERRED,
        Observability.OBSERVED,
        Observability.OBSERVED,
    ]
    assert reading.tally.records == 6


def test_the_moment_of_a_dump_lasts_some_minutes() -> None:
    rows, _ = parsed(network_policy, POLICY)
    assert {row["clock_skew_bound_s"] for row in rows} == {602.0}


def test_a_dump_without_a_time_dates_nothing() -> None:
    rows, reading = parsed(activity_state, ACTIVITY, within=context(taken=None))
    assert not rows
    assert reading.tally.unused["the dump does not say when it was taken"] >= 5


def test_uids_and_packages_that_cannot_be_go_to_quarantine() -> None:
    _, reading = parsed(activity_state, ACTIVITY.replace("/u0a50", "/zz").replace("u10 com.news/.Sync}", "u10 ;/x}"))
    assert reading.quarantine.total == 2


def test_hostile_variants_are_survived(tmp_path: Path) -> None:
    rng = random.Random(9)  # noqa: S311 - seeded, so that it repeats
    for (name, content), parser in zip(FUZZ_SEEDS, (activity_state, network_policy), strict=True):
        assert_parser_survives(parser, content)
        for _ in range(200):
            mutations.assert_survives(tmp_path, name, mutations.mutate(content, rng))


def test_long_lines_are_read_in_linear_time() -> None:
    assert_linear(
        activity_state,
        [
            "    Proc # 0: fore   T/A/TOP  trm: 0 ",
            " ",
            "    UID ",
            "  topResumedActivity=ActivityRecord{",
            "  * ServiceRecord{",
            "  mCurrentVpns={",
        ],
    )
    assert_linear(network_policy, ["  UID=1 state=", "  UID=1 state={procState=TOP"])
