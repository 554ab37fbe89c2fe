"""The battery history becomes what was on top or visible, and when the screen was on."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path

import mutations
from android_sections import assert_linear, assert_parser_survives, brief, parsed

from relaywatch.model.schemas import Observability, SignalKind
from relaywatch.sources.battery_history import battery_history

PRETTY = """Battery History (0% used, 9124 used of 4096KB, 47 strings using 4816):
                    0 (14) RESET:TIME: 2026-10-01-09-00-00
                    0 (2) 100 c0b00041 status=discharging health=good +running +screen top=u0a98:"org.proxy"
            +10s500ms (2) 100 c0200040 -screen -top=u0a98:"org.proxy" +fg=u10a50:"com.news"
            +11s000ms (2) 100 c0200040 +wake_lock=1001:"*telephony-radio*"
          +1m00s000ms (2) 100 c0200040 -fg=u10a50:"com.news" user=0:"0"
          +2m00s000ms (1) START
          +2m00s500ms (14) TIME: 1970-04-04-02-08-51
          +2m01s000ms (2) 099 c0100021 +screen
          +2m02s000ms (14) TIME: 2026-10-01-09-30-00

Per-PID Stats:
  PID 0 wake time: +4s866ms
"""
ABSOLUTE = """Battery History [Format: 2] (2% used, 8404 used of 4096KB):
          10-01 09:10:00.250 095 c0900020 +screen +top=u0a98:"org.proxy"
          10-01 09:10:30.250 095 c0900020 -top=u0a98:"org.proxy"
"""
CHECKIN = """9,0,i,vers,34,186,QP1A,QP1A
9,hsp,0,10098,"org.proxy"
9,hsp,1,0,"0"
9,h,0:RESET:TIME:1790838000250
9,h,0,Bl=100,+r,+S,Eur=1
9,h,1000,+Etp=0,-w
9,h,2000,-Etp=0
9,h,10000:TIME:1790838013250
9,h,-1000,-S
9,0,l,bt,0
"""
FUZZ_SEEDS = [
    (f"{name}.txt", b"DUMP OF SERVICE batterystats:\n" + text.encode())
    for name, text in (("pretty", PRETTY), ("absolute", ABSOLUTE), ("checkin", CHECKIN))
]


def test_relative_times_count_from_the_stated_clock() -> None:
    rows, reading = parsed(battery_history, PRETTY)
    assert brief([row for row in rows if row["kind"] != SignalKind.CAPTURE]) == [
        ("SCREEN_ON", None, "07:00:00", "07:00:10"),
        ("FOREGROUND_UI", "org.proxy", "07:00:00", "07:00:10"),
        ("FOREGROUND_UI", "com.news", "07:00:10", "07:01:00"),
        ("SCREEN_ON", None, "07:29:59", None),
    ]
    assert {row["android_uid"] for row in rows} == {None, 10_098, 1_010_050}
    assert not reading.quarantine.total


def test_newer_phones_state_the_time_on_each_line() -> None:
    rows, _ = parsed(battery_history, ABSOLUTE)
    assert set(brief(rows)) == {
        ("SCREEN_ON", None, "07:10:00", None),
        ("FOREGROUND_UI", "org.proxy", "07:10:00", "07:10:30"),
        ("CAPTURE", None, "07:10:00", "07:10:30"),
    }


def test_the_checkin_form_counts_from_line_to_line() -> None:
    rows, reading = parsed(battery_history, CHECKIN)
    assert {(row["kind"], row["start_time"].timestamp(), row["end_time"].timestamp()) for row in rows} == {
        (SignalKind.SCREEN_ON, 1790838000.25, 1790838012.25),
        (SignalKind.FOREGROUND_UI, 1790838001.25, 1790838003.25),
        (SignalKind.CAPTURE, 1790838000.25, 1790838012.25),
    }
    assert reading.tally.unused["states the clock or a restart"] == 2


def test_an_end_without_a_begin_was_so_since_the_historys_begin() -> None:
    text = PRETTY.replace("+running +screen ", "")
    rows, _ = parsed(battery_history, text)
    screen = next(row for row in rows if row["kind"] == SignalKind.SCREEN_ON)
    assert screen["start_time"] == datetime(2026, 10, 1, 7, 0, tzinfo=UTC)
    assert screen["observability"] == Observability.INFERRED


def test_a_history_without_a_clock_gives_no_rows() -> None:
    rows, reading = parsed(battery_history, PRETTY.replace("2026-", "1970-"))
    assert not rows
    assert reading.tally.unused["the clock was not set yet"] >= 3


def test_hostile_variants_are_survived(tmp_path: Path) -> None:
    rng = random.Random(7)  # noqa: S311 - seeded, so that it repeats
    for name, content in FUZZ_SEEDS:
        assert_parser_survives(battery_history, content, name="batterystats")
        for _ in range(200):
            mutations.assert_survives(tmp_path, name, mutations.mutate(content, rng))


def test_long_lines_are_read_in_linear_time() -> None:
    assert_linear(
        battery_history,
        ['Battery History (\n   +1s (2) 1 +top=u0a1:"', "Battery History (\n  +", "9,h,0:", '9,hsp,0,1,"'],
    )
