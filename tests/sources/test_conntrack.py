"""A router's connection tracking: which inside end was behind which outside end, from when to when."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import assert_accounted, assert_survives, mutate, read_path
from sensor_examples import rows_of
from unit_reads import read_bytes

from relaywatch.model.schemas import SignalKind
from relaywatch.sources.conntrack import Conntrack
from relaywatch.sources.reading import Head

PHONE, SERVER, PUBLIC = "192.168.7.20", "198.51.100.7", "203.0.113.9"


def line(at, event, original, reply, *, protocol="tcp      6", rest="120 SYN_SENT "):
    ends = "src={} dst={} sport={} dport={}".format
    return f"[{at}]\t{event:>10} {protocol} {rest}{ends(*original)} [UNREPLIED] {ends(*reply)}\n"


OUT = ((PHONE, SERVER, 40_000, 443), (SERVER, PUBLIC, 443, 61_000))
NEW = line("1700000000.123456", "[NEW]", *OUT)
UPDATE = line("1700000000.200000", "[UPDATE]", *OUT, rest="60 SYN_RECV ").replace("[UNREPLIED] ", "")
DESTROY = line("1700000060.500000", "[DESTROY]", *OUT, rest="").replace("[UNREPLIED]", "packets=9 bytes=900")
FORWARDED = line("1700000001.0", "[NEW]", (SERVER, PUBLIC, 50_000, 8080), (PHONE, SERVER, 1080, 50_000))
PLAIN = line("1700000002.0", "[NEW]", (PHONE, SERVER, 40_002, 443), (SERVER, PHONE, 443, 40_002))
PING = f"[1700000003.0]\t[NEW] icmp 1 30 src={PHONE} dst={SERVER} type=8 code=0 id=1 src={SERVER} dst={PUBLIC} type=0\n"
FUZZ_SEEDS = [("conntrack.log", (NEW + UPDATE + FORWARDED + PLAIN + PING + DESTROY).encode())]


def read(tmp_path, *lines):
    path = tmp_path / "conntrack.log"
    path.write_text("".join(lines), encoding="utf-8")
    batches, quarantine, tally, unknown = read_path(path)
    assert not unknown
    assert_accounted(quarantine, tally)
    rows = rows_of(batches, "signals")
    assert {row["kind"] for row in rows} <= {SignalKind.TRANSLATION}
    told = [(r["device_uid"], r["local_port"], r["detail"], r["start_time"], r["end_time"]) for r in rows]
    return told, quarantine, tally


def at(seconds):
    return datetime.fromtimestamp(seconds, UTC)


def test_a_connection_going_out_is_behind_the_outside_port_from_its_begin_to_its_end(tmp_path):
    told, _, tally = read(tmp_path, NEW, UPDATE, DESTROY)
    assert told == [(PHONE, 40_000, f"tcp {PUBLIC} 61000", at(1700000000.123456), at(1700000060.5))]
    assert dict(tally.unused) == {"more of a translation": 1, "the end of a translation": 1}


def test_a_forwarded_port_is_the_inside_ones(tmp_path):
    told, _, _ = read(tmp_path, FORWARDED)
    assert told == [(PHONE, 1080, f"tcp {PUBLIC} 8080", at(1700000001), None)]


def test_what_was_not_translated_or_has_no_ports_is_left(tmp_path):
    told, quarantine, tally = read(tmp_path, NEW, PLAIN, PING)
    assert len(told) == 1
    assert not quarantine.total
    assert set(tally.unused) == {
        "a connection that is not translated",
        "a connection of a protocol without ports",
    }


@pytest.mark.parametrize(
    "bad",
    [
        "conntrack v1.4.7: 12 flow events have been shown.\n",
        NEW.replace("[1700000000.123456]\t", ""),
        NEW.replace("sport=40000", "sport=70000"),
        NEW.replace(f"src={PHONE}", "src=1.2.3"),
        NEW[:60] + "\n",
    ],
)
def test_a_damaged_line_is_put_aside_and_the_others_count(tmp_path, bad):
    told, quarantine, _ = read(tmp_path, NEW, bad, FORWARDED)
    assert len(told) == 2
    assert [record.position for record in quarantine.records] == ["line 2"]


def test_other_text_is_not_taken_for_it(tmp_path):
    assert not Conntrack.fits(Head(tmp_path, b"[12.5] [NEWS] tcp 6 src=\nhello\n"))
    assert Conntrack.fits(Head(tmp_path, b"conntrack v1\n" + NEW.encode()))


ports = st.integers(1, 3)
events = st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["[NEW]", "[DESTROY]"]), ports, ports), max_size=12)


@given(events=events)
def test_translations_of_one_outside_end_never_overlap(events):
    lines = [
        line(1_700_000_000 + second, event, (PHONE, SERVER, inside, 443), (SERVER, PUBLIC, 443, 100 + outside))
        for second, event, inside, outside in events
    ]
    rows, quarantine = read_bytes(Conntrack(), "".join(lines).encode())
    assert not quarantine.total
    found = sorted(rows["signals"], key=lambda row: (row["detail"], row["start_time"], row["position"]))
    for one, other in pairwise(found):
        if one["detail"] == other["detail"]:
            assert one["end_time"] is not None
            assert one["end_time"] <= other["start_time"]


def test_hostile_variants_are_read_to_the_end(tmp_path):
    rng = random.Random(1)  # noqa: S311  mutations, no secret
    for number in range(100):
        for name, content in FUZZ_SEEDS:
            assert_survives(tmp_path / str(number), name, mutate(content, rng))
