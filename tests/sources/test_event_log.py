"""logcat's event buffer becomes process starts, resumed activities, foreground services and the screen."""

from __future__ import annotations

import random
from pathlib import Path

import mutations
from android_sections import assert_linear, assert_parser_survives, brief, context, parsed

from relaywatch.model.schemas import SignalKind
from relaywatch.sources.event_log import event_log

LOG = """--------- beginning of events
10-01 09:50:00.721  1000   929  1028 I screen_toggled: 1
10-01 09:50:01.839 10087  1497  1497 I sysui_multi_action: [757,186,758,4]
10-01 09:50:02.018  1000   929  1349 I am_set_resumed_activity: [0,org.proxy/.Main,resumeTopActivityInnerLocked]
10-01 09:50:02.019  1000   929  1349 I am_resume_activity: [0,122130381,33,org.proxy/.Main]
10-01 09:50:05.000  1000   929   996 I am_proc_start: [0,3663,10050,com.news:sync,service,{com.news/com.news.Sync}]
10-01 09:50:06.000  1000   929   996 I wm_set_resumed_activity: [10,com.news/.Front,x]
10-01 09:50:07.000  1000   929   996 I wm_pause_activity: [10,99,com.news/.Front,userLeaving=true]
10-01 09:50:08.000  1000   929   995 I am_uid_idle: 10038
10-01 09:50:09.000   929   995 I am_foreground_service_start: [0,org.proxy/.Relay,1,PROC_STATE_TOP]
10-01 09:50:39.500   929   995 I am_foreground_service_stop: [0,org.proxy/.Relay,1,PROC_STATE_TOP]
10-01 09:51:00.000  1000   929  1028 I screen_toggled: 0
"""
FUZZ_SEEDS = [("events.txt", b"------ EVENT LOG (logcat -b events -v threadtime -d *:v) ------\n" + LOG.encode())]


def test_events_become_signals() -> None:
    rows, reading = parsed(event_log, LOG)
    assert brief(rows) == [
        ("SCREEN_ON", None, "07:50:00", "07:51:00"),
        ("CAPTURE", None, "07:50:00", "07:51:00"),
        ("FOREGROUND_UI", "org.proxy", "07:50:02", "07:50:06"),
        ("PROCESS_START", "com.news", "07:50:05", None),
        ("FOREGROUND_UI", "com.news", "07:50:06", "07:50:07"),
        ("FOREGROUND_SERVICE", "org.proxy", "07:50:09", "07:50:39"),
    ]
    assert rows[1]["detail"] == "PROCESS_START FOREGROUND_UI FOREGROUND_SERVICE SCREEN_ON"
    start = rows[3]
    assert (start["android_uid"], start["detail"]) == (10_050, "service com.news/com.news.Sync")
    assert rows[4]["android_uid"] == 1_010_050
    assert reading.tally.records == 10
    assert not reading.quarantine.total


def test_other_buffers_are_no_records() -> None:
    rows, reading = parsed(event_log, "10-01 09:50:00.721  1000   929  1028 I ActivityManager: am_proc_start: x\nx\n")
    assert (rows, reading.tally.records) == ([], 0)


def test_the_year_is_the_dumps_or_the_one_before() -> None:
    text = "12-31 23:50:00.000  1000   1  1 I screen_toggled: 1\n2024-05-01 12:00:00.000   1  1 I screen_toggled: 0"
    rows, _ = parsed(event_log, text)
    assert {row["start_time"].year for row in rows if row["kind"] == SignalKind.SCREEN_ON} == {2025}
    undated, reading = parsed(event_log, text, within=context(taken=None))
    assert not undated
    assert reading.tally.unused.total() == 2


def test_epoch_stamps_need_no_zone() -> None:
    rows, _ = parsed(event_log, "1790838000.250   1  1 I screen_toggled: 1", within=context(zone_known=False))
    assert rows[0]["start_time"].timestamp() == 1790838000.25
    assert rows[0]["clock_skew_bound_s"] < 3


def test_a_resumed_activity_of_nobody_ends_the_one_before() -> None:
    text = LOG.split("\n")[3] + "\n10-01 09:55:00.000  1000   9  9 I wm_set_resumed_activity: [0,null,x]"
    rows, _ = parsed(event_log, text)
    assert brief(rows)[0] == ("FOREGROUND_UI", "org.proxy", "07:50:02", "07:55:00")


def test_values_that_cannot_be_go_to_quarantine() -> None:
    text = LOG.replace("3663,10050", "3663,99999999999").replace("[10,com.news", "[x,com.news")
    _, reading = parsed(event_log, text)
    assert [record.position for record in reading.quarantine.records] == ["line 6", "line 7"]


def test_hostile_variants_are_survived(tmp_path: Path) -> None:
    rng = random.Random(5)  # noqa: S311 - seeded, so that it repeats
    for name, content in FUZZ_SEEDS:
        assert_parser_survives(event_log, content, name="logcat")
        for _ in range(200):
            mutations.assert_survives(tmp_path, name, mutations.mutate(content, rng))


def test_long_lines_are_read_in_linear_time() -> None:
    assert_linear(
        event_log,
        ["10-01 09:50:05.000  1000   929   996 I am_proc_start: [0,3663,", "10-01 09:50:05.000 ", "1790838000.250"],
    )
