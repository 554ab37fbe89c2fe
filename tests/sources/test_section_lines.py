"""Large sections are read as columns: how their lines are cut into pieces changes nothing."""

from __future__ import annotations

import io
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
import test_android_dump
import test_event_log
import test_netstats
import test_socket_tables
import test_usage_stats
from android_sections import context, parsed
from hypothesis import given
from hypothesis import strategies as st
from mutations import assert_accounted

from relaywatch.model.quarantine import Quarantine
from relaywatch.sources import lines as line_blocks
from relaywatch.sources.android_facts import local_instants, local_us
from relaywatch.sources.android_section import Section, SectionParser
from relaywatch.sources.android_sections import ContextScan, sections
from relaywatch.sources.event_log import event_log
from relaywatch.sources.netstats_text import netstats
from relaywatch.sources.reading import Reading
from relaywatch.sources.section_lines import LINE_CHARACTERS, Lines, read_columns
from relaywatch.sources.socket_tables import parse_sockets
from relaywatch.sources.usage_stats import usage_stats

SECTIONS: dict[str, tuple[SectionParser, str]] = {
    "netstat": (parse_sockets, test_socket_tables.NETSTAT.replace("------", "1772528400\n------")),
    "ss": (parse_sockets, test_socket_tables.SS),
    "tcp": (parse_sockets, test_socket_tables.PROC + test_socket_tables.SS),
    "usagestats": (usage_stats, test_usage_stats.PRETTY + test_usage_stats.CHECKIN),
    "netstats": (netstats, test_netstats.TEXT + test_netstats.OLD + "d,7200\nc,0,10147,0,0\nb,1790661600,1,2,3,4,0\n"),
    "events": (event_log, test_event_log.LOG + "2026-10-01 09:52:00.000  1  2 I screen_toggled: 1\n"),
}
DAMAGES = st.sampled_from([" {}", "\t{}", "{}{}", "x{}", "{}\ufffd", ""])


def pieces(lines: list[str], cuts: list[int]) -> Lines:
    """The lines as columns that end at the cuts."""
    at = sorted({0, len(lines), *(cut % (len(lines) + 1) for cut in cuts)})
    return Lines([pl.Series(lines[a:b], dtype=pl.String) for a, b in pairwise(at)])


def told(name: str, lines: Any) -> tuple[object, ...]:
    """Everything that a parser says of the lines, in its order."""
    parser, _ = SECTIONS[name]
    reading, rows = Reading(Quarantine()), []
    for part in parser(Section(name, "", "dump.txt", 7, lines), context(), reading):
        part.rows.validate(full=True)
        rows += [(part.table, *row.items()) for row in part.rows.to_pylist()]
    assert_accounted(reading.quarantine, reading.tally)
    return rows, reading.quarantine.records, reading.tally


@given(st.data(), st.sampled_from(sorted(SECTIONS)))
def test_cuts_between_lines_change_nothing(data: st.DataObject, name: str) -> None:
    whole = SECTIONS[name][1].splitlines()
    lines = data.draw(st.lists(st.sampled_from(whole), max_size=30)) + whole
    for at, damage in data.draw(st.dictionaries(st.integers(0, len(lines) - 1), DAMAGES, max_size=4)).items():
        lines[at] = damage.replace("{}", lines[at])
    cuts = data.draw(st.lists(st.integers(0, 200), max_size=8))
    assert told(name, pieces(lines, cuts)) == told(name, lines)


@given(st.permutations(test_android_dump.DUMP.splitlines()), st.lists(st.integers(0, 200), max_size=8))
def test_sections_do_not_depend_on_cuts(lines: list[str], cuts: list[int]) -> None:
    def cut(lines: Any) -> list[tuple[object, ...]]:
        return [(s.name, s.command, s.first_line, list(s.lines)) for s in sections(lines, "x")]

    assert cut(pieces(lines, cuts)) == cut(lines)
    together, one_by_one = ContextScan(), ContextScan()
    together.read(pieces(lines, cuts).columns)
    for line in lines:
        one_by_one.take(line)
    assert together == one_by_one


@given(st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"\r")), min_size=1), st.integers(1, 40))
def test_a_files_lines_do_not_depend_on_blocks(lines: list[bytes], block_bytes: int) -> None:
    stream = io.BytesIO(b"\n".join(lines) + b"\n")
    columns = read_columns(stream, Path("x"), Reading(Quarantine()), block_bytes=block_bytes)
    assert list(Lines(columns)) == [line.decode("utf-8", "replace").rstrip("\r\n") for line in lines]


def test_a_line_that_is_too_long_is_counted_and_others_keep_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_blocks, "LINE_BYTES", LINE_CHARACTERS * 2)
    content = b"a\n" + b"x" * (LINE_CHARACTERS + 1) + b"\n" + b"y" * LINE_CHARACTERS * 3 + b"\nb\n"
    reading = Reading(Quarantine())
    found = list(Lines(read_columns(io.BytesIO(content), Path("x"), reading, block_bytes=1000)))
    assert found == ["a", "x" * LINE_CHARACTERS, "", "b"]
    assert [record.position for record in reading.quarantine.records] == ["line 3"]
    assert_accounted(reading.quarantine, reading.tally)


ZONES = [UTC, ZoneInfo("Europe/Stockholm"), ZoneInfo("Australia/Lord_Howe"), ZoneInfo("America/St_Johns")]
CHANGES = [datetime.fromisoformat(day) for day in ("2026-03-29T02", "2026-10-25T02", "2026-04-05T01:30", "1970-01-01")]
TIMES = st.one_of(
    st.tuples(st.sampled_from(CHANGES), st.integers(-9000, 9000)).map(lambda t: t[0] + timedelta(seconds=t[1])),
    st.datetimes(),
)
LAYOUTS = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S.%f", "%m-%d %H:%M:%S.%f"]
NO_TIMES = ["", "2026-02-30 10:00:00", "02-29 10:00:00.000", "2026-1-1 1:2:3", "2026-01-01 10:00:60", "x"]


@given(st.lists(TIMES), st.sampled_from(LAYOUTS), st.sampled_from(ZONES), st.sampled_from([{}, {"taken": None}]))
def test_times_read_together_are_those_read_one_by_one(
    times: list[datetime], layout: str, zone: ZoneInfo, undated: dict[str, None]
) -> None:
    within = context(zone=zone, **undated)
    texts = [f"{time.year:04d}-{time:%m-%d %H:%M:%S.%f}"[0 if "%Y" in layout else 5 :] for time in times]
    texts = [text if "%f" in layout else text[:19] for text in texts] + NO_TIMES
    found = local_instants(pl.Series(texts, dtype=pl.String), layout, within).to_list()
    assert found == [local_us(text, layout, within) for text in texts]


@given(st.lists(st.tuples(st.integers(1, 200), st.sets(st.integers(1, 4))), min_size=1, max_size=30))
def test_a_socket_is_one_connection_until_it_is_away_for_two_minutes(polls: list[tuple[int, set[int]]]) -> None:
    text, now, spans = "", 1_790_000_000, dict[int, list[list[int]]]()
    for gap, ports in polls:
        now += gap
        text += f"{now}\n" + "".join(f"tcp ESTAB 0 0 10.0.0.5:{port} 203.0.113.9:443 uid:10150\n" for port in ports)
        for port in ports:
            if port in spans and now - spans[port][-1][1] <= 120:
                spans[port][-1][1] = now
            else:
                spans.setdefault(port, []).append([now, now])
    rows, reading = parsed(parse_sockets, text, name="ss")
    flows = [row for row in rows if row["table"] == "flows"]
    found = Counter(
        (row["local_port"], row["start_time"].timestamp(), (row["end_time"] or row["start_time"]).timestamp())
        for row in flows
    )
    assert found == Counter((port, *span) for port, times in spans.items() for span in times)
    assert reading.tally.records == sum(len(ports) for _, ports in polls)
