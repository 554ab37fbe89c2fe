"""dumpsys usagestats becomes what was in front, and when the screen and the keyguard were on."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path

import mutations
from android_sections import assert_linear, assert_parser_survives, brief, context, parsed
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.model.schemas import Observability
from relaywatch.sources.usage_stats import usage_stats

PRETTY = """user=0
  Last 24 hour events (timeRange="9/30/2026, 9:59 AM – 10/1/2026, 9:59 AM" )
    time="2026-10-01 09:40:00" type=SCREEN_INTERACTIVE package=android flags=0x0
    time="2026-10-01 09:40:01" type=KEYGUARD_HIDDEN package=android flags=0x0
    time="2026-10-01 09:41:00" type=ACTIVITY_RESUMED package=org.proxy class=org.proxy.Main instanceId=1 flags=0x0
    time="2026-10-01 09:41:05" type=ACTIVITY_RESUMED package=org.proxy class=org.proxy.Second instanceId=2 flags=0x0
    time="2026-10-01 09:41:06" type=ACTIVITY_PAUSED package=org.proxy class=org.proxy.Main instanceId=1 flags=0x0
    time="2026-10-01 09:41:07" type=USER_INTERACTION package=org.proxy flags=0x0
    time="2026-10-01 09:42:00" type=ACTIVITY_PAUSED package=org.proxy class=org.proxy.Second instanceId=2 flags=0x0
    time="2026-10-01 09:42:01" type=ACTIVITY_STOPPED package=org.proxy class=org.proxy.Second instanceId=2 flags=0x0
    time="2026-10-01 09:43:00" type=FOREGROUND_SERVICE_START package=org.proxy class=org.proxy.Relay flags=0x0
    time="2026-10-01 09:44:00" type=SCREEN_NON_INTERACTIVE package=android flags=0x0
    time="2026-10-01 09:44:00" type=STANDBY_BUCKET_CHANGED package=com.news standbyBucket=10 flags=0x0
  In-memory daily stats
    packages
      package=org.proxy totalTimeUsed="01:00" lastTimeUsed="2026-10-01 09:42:00"
user=10
  Last 24 hour events (timeRange="9/30/2026, 9:59 AM – 10/1/2026, 9:59 AM" )
    time="2026-10-01 09:50:00" type=ACTIVITY_RESUMED package=org.proxy class=org.proxy.Main instanceId=3 flags=0x0
"""
CHECKIN = """user=0
  Last 24 hour events (beginTime=1790752800000 endTime=1790839200000 )
    time=1790838000250 type=MOVE_TO_BACKGROUND package=com.news class=com.news.Main flags=0x0
    time=1790838060250 type=MOVE_TO_FOREGROUND package=org.proxy class=org.proxy.Main flags=0x0
    time=1790838120750 type=MOVE_TO_BACKGROUND package=org.proxy class=org.proxy.Main flags=0x0
"""
FUZZ_SEEDS = [
    ("usage.txt", b"DUMP OF SERVICE usagestats:\n" + PRETTY.encode()),
    ("checkin.txt", b"DUMP OF SERVICE usagestats:\n" + CHECKIN.encode()),
]


def test_events_become_intervals_in_the_devices_zone() -> None:
    rows, reading = parsed(usage_stats, PRETTY)
    # Keyguard hidden without a begin: shown since the begin of the stated span.
    assert ("KEYGUARD_LOCKED", None, "07:59:00", "07:40:01") in brief(rows)
    assert ("SCREEN_ON", None, "07:40:00", "07:44:00") in brief(rows)
    assert ("FOREGROUND_UI", "org.proxy", "07:41:00", "07:42:00") in brief(rows)
    assert ("USER_INTERACTION", "org.proxy", "07:41:07", None) in brief(rows)
    assert ("FOREGROUND_SERVICE", "org.proxy", "07:43:00", None) in brief(rows)
    assert not reading.quarantine.total
    assert reading.tally.unused["an event of another kind"] == 1


def test_an_end_without_a_begin_is_inferred_from_the_spans_begin() -> None:
    rows, _ = parsed(usage_stats, CHECKIN)
    first = next(row for row in rows if row["android_package"] == "com.news")
    assert first["start_time"] == datetime(2026, 9, 30, 7, 20, tzinfo=UTC)
    assert first["observability"] == Observability.INFERRED
    second = next(row for row in rows if row["android_package"] == "org.proxy")
    assert second["observability"] == Observability.OBSERVED
    assert (second["end_time"] - second["start_time"]).total_seconds() == 60.5


def test_a_work_profiles_app_has_that_users_uid() -> None:
    rows, _ = parsed(usage_stats, PRETTY)
    uids = {row["android_uid"] for row in rows if row["android_package"] == "org.proxy"}
    assert uids == {10_098, 1_010_098}


def test_the_list_covers_from_its_first_event_on() -> None:
    rows, _ = parsed(usage_stats, PRETTY)
    captures = [row for row in brief(rows) if row[0] == "CAPTURE"]
    assert captures == [("CAPTURE", None, "07:40:00", "08:00:00"), ("CAPTURE", None, "07:50:00", "08:00:00")]
    old, _ = parsed(usage_stats, CHECKIN)
    assert next(row["detail"] for row in old if row["detail"]) == "FOREGROUND_UI USER_INTERACTION"


def test_what_dumpsys_and_its_checkin_both_list_is_given_once() -> None:
    both = context()
    first, _ = parsed(usage_stats, PRETTY, within=both)
    again, reading = parsed(usage_stats, PRETTY, within=both)
    assert first
    assert not again
    assert reading.tally.unused["told elsewhere in the same dump"] == len(first)


def test_the_heading_of_newer_phones_has_narrow_spaces() -> None:
    text = PRETTY.replace("9:59 AM – 10/1/2026, 9:59 AM", "9:59\u202fAM\u2009–\u200910/1/2026, 9:59\u202fAM")
    assert [brief([row]) for row in parsed(usage_stats, text)[0]] == [
        brief([row]) for row in parsed(usage_stats, PRETTY)[0]
    ]


def test_a_crash_ends_everything_at_the_last_event_before_it() -> None:
    text = """  Last 24 hour events (beginTime=1790752800000 endTime=1790839200000 )
    time=1790838000000 type=ACTIVITY_RESUMED package=org.proxy class=A instanceId=1 flags=0x0
    time=1790838010000 type=STANDBY_BUCKET_CHANGED package=com.news flags=0x0
    time=1790838900000 type=DEVICE_STARTUP package=android flags=0x0"""
    rows, _ = parsed(usage_stats, text)
    assert brief(rows)[1] == ("FOREGROUND_UI", "org.proxy", "07:00:00", "07:00:10")


def test_an_unknown_zone_widens_the_skew_of_local_times_only() -> None:
    within = context(zone=UTC, zone_known=False)
    pretty, _ = parsed(usage_stats, PRETTY, within=within)
    checkin, _ = parsed(usage_stats, CHECKIN, within=within)
    assert min(row["clock_skew_bound_s"] for row in pretty) > 14 * 3600
    assert max(row["clock_skew_bound_s"] for row in checkin) < 3


def test_damaged_times_and_packages_go_to_quarantine() -> None:
    text = PRETTY.replace("2026-10-01 09:40:00", "2026-99-01 09:40:00").replace("package=com.news", "package=../etc")
    _, reading = parsed(usage_stats, text)
    assert [record.position for record in reading.quarantine.records] == ["line 3", "line 13"]


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=30))
def test_alternating_begins_and_ends_give_their_intervals(gaps: list[int]) -> None:
    times = [1_790_000_000_000 + sum(gaps[: i + 1]) * 1000 for i in range(len(gaps))]
    kinds = ("FOREGROUND_SERVICE_START", "FOREGROUND_SERVICE_STOP")
    text = "\n".join(f"time={t} type={kinds[i % 2]} package=org.proxy class=S flags=0x0" for i, t in enumerate(times))
    rows, _ = parsed(usage_stats, text)
    expected = [(t, times[i + 1] if i + 1 < len(times) else None) for i, t in enumerate(times) if i % 2 == 0]
    got = [(row["start_time"].timestamp(), row["end_time"] and row["end_time"].timestamp()) for row in rows]
    assert got == [(start / 1000, end and end / 1000) for start, end in expected]


def test_hostile_variants_are_survived(tmp_path: Path) -> None:
    rng = random.Random(3)  # noqa: S311 - seeded, so that it repeats
    for name, content in FUZZ_SEEDS:
        assert_parser_survives(usage_stats, content, name="usagestats")
        for _ in range(200):
            mutations.assert_survives(tmp_path, name, mutations.mutate(content, rng))


def test_long_lines_are_read_in_linear_time() -> None:
    assert_linear(
        usage_stats,
        ['    time="2026-10-01 09:40:00" type=A package=b', "    time=", '  Last 24 hour events (timeRange="', " "],
    )
