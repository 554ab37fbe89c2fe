from __future__ import annotations

import random
import socket
import struct
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import assert_accounted, assert_survives, mutate, read_path
from unit_reads import read_bytes

from relaywatch.model.schemas import Direction, Observability, SignalKind
from relaywatch.sources.netflow_export import NetflowExport
from relaywatch.sources.reading import Head

PHONE, SERVER, PUBLIC = "192.168.7.20", "198.51.100.7", "203.0.113.9"
NOW, UPTIME = 1_700_000_000, 600_000
UP = [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (1, 4), (2, 4), (22, 4), (21, 4)]
IPFIX = [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (1, 8), (2, 8), (152, 8), (153, 8)]


def record(fields, *values) -> bytes:
    return b"".join(
        socket.inet_pton(socket.AF_INET6 if ":" in v else socket.AF_INET, v) if isinstance(v, str) else v.to_bytes(n)
        for (_, n), v in zip(fields, values, strict=True)
    )


def there(*, first=590_000, last=599_000, octets=1_300) -> bytes:
    return record(UP, PHONE, SERVER, 40_000, 443, 6, octets, 12, first, last)


def back(*, first=590_040, last=599_500) -> bytes:
    return record(UP, SERVER, PHONE, 443, 40_000, 6, 9_700, 14, first, last)


def a_set(name: int, content: bytes) -> bytes:
    return struct.pack(">HH", name, 4 + len(content)) + content


def template(fields, name: int = 256) -> bytes:
    return struct.pack(">HH", name, len(fields)) + b"".join(struct.pack(">HH", *one) for one in fields)


def v9(*sets: bytes, domain: int = 7, uptime: int = UPTIME) -> bytes:
    return struct.pack(">HHIIII", 9, len(sets), uptime, NOW, 1, domain) + b"".join(sets)


def ipfix(*sets: bytes, domain: int = 7) -> bytes:
    return struct.pack(">HHIII", 10, 16 + sum(map(len, sets)), NOW, 1, domain) + b"".join(sets)


def v5(*records: tuple, sampling: int = 0) -> bytes:
    body = b"".join(
        socket.inet_aton(src) + socket.inet_aton(dst) + bytes(8)
        + struct.pack(">IIIIHHBBBBHHBBH", packets, octets, first, last, sport, dport, 0, 27, 6, 0, 0, 0, 0, 0, 0)
        for src, dst, sport, dport, packets, octets, first, last in records
    )  # fmt: skip
    return struct.pack(">HHIIIIBBH", 5, len(records), UPTIME, NOW, 250_000_000, 1, 0, 0, sampling) + body


def ipfix_record(src: str, dst: str, sport: int, dport: int, octets: int, packets: int, first: int) -> bytes:
    return record(IPFIX, src, dst, sport, dport, 6, octets, packets, NOW * 1000 + first, NOW * 1000 + first + 5_000)


def flows(content: bytes, device: str = ""):
    rows, quarantine = read_bytes(NetflowExport(), content, device=device)
    assert quarantine.total == 0, quarantine.records
    return rows["flows"]


V9 = v9(a_set(0, template(UP)), a_set(256, there() + back()))
V5 = v5(
    (PHONE, SERVER, 40_000, 443, 12, 1_300, 590_000, 599_000), (SERVER, PHONE, 443, 40_000, 14, 9_700, 590_040, 599_500)
)
IPFIX_FILE = ipfix(
    a_set(2, template(IPFIX)),
    a_set(256, ipfix_record(PHONE, SERVER, 40_000, 443, 1_300, 12, 0)),
    a_set(256, ipfix_record(SERVER, PHONE, 443, 40_000, 9_700, 14, 40)),
)


@pytest.mark.parametrize("content", [V9, IPFIX_FILE], ids=["v9", "ipfix"])
def test_both_directions_are_one_connection_of_the_phone(content):
    (flow,) = flows(content)
    assert NetflowExport.fits(Head(Path("x"), content))
    assert (flow["device_uid"], flow["remote_ip"], flow["local_port"], flow["remote_port"]) == (
        PHONE,
        SERVER,
        40_000,
        443,
    )
    assert (flow["wire_bytes_out"], flow["wire_bytes_in"], flow["packets_out"], flow["packets_in"]) == (
        1_300,
        9_700,
        12,
        14,
    )
    assert flow["direction_id"] == Direction.OUTBOUND
    assert flow["bytes_observability"] == Observability.INFERRED
    assert flow["clock"] == "sensor"


def test_times_that_count_from_the_exporters_start_are_told_by_the_header():
    (flow,) = flows(V9)
    assert flow["start_time"] == datetime.fromtimestamp(NOW - 10, UTC)
    (flow,) = flows(v9(a_set(0, template(UP)), a_set(256, there(first=(1 << 32) - 4_000, last=1_000)), uptime=6_000))
    assert flow["start_time"] == datetime.fromtimestamp(NOW - 10, UTC)
    (flow,) = flows(v5((PHONE, SERVER, 40_000, 443, 12, 1_300, 590_000, 599_000)))
    assert flow["start_time"] == datetime.fromtimestamp(NOW - 9.75, UTC)


def test_a_direction_that_was_not_exported_is_not_known():
    (flow,) = flows(v5((PHONE, SERVER, 40_000, 443, 12, 1_300, 590_000, 599_000)))
    assert (flow["wire_bytes_out"], flow["wire_bytes_in"], flow["bytes_in"]) == (1_300, None, None)


def test_sampled_counts_are_scaled_and_the_capture_says_so():
    options = struct.pack(">HHH", 257, 4, 4) + struct.pack(">HHHH", 1, 4, 34, 4)
    told = a_set(257, bytes(4) + (100).to_bytes(4))
    rows, _ = read_bytes(NetflowExport(), v9(a_set(0, template(UP)), a_set(1, options), told, a_set(256, there())))
    assert rows["flows"][0]["wire_bytes_out"] == 130_000
    assert rows["signals"][0]["detail"] == "sampled 1:100"
    rows, _ = read_bytes(NetflowExport(), v5((PHONE, SERVER, 1, 2, 12, 1_300, 590_000, 599_000), sampling=0x4000 | 10))
    assert rows["flows"][0]["wire_bytes_out"] == 13_000


def test_fields_of_others_and_of_variable_length_are_stepped_over():
    fields = struct.pack(">HHHHI", 256, len(IPFIX) + 2, 0x8000 | 5, 65_535, 4_711)
    fields += b"".join(struct.pack(">HH", *one) for one in IPFIX) + struct.pack(">HH", 82, 65_535)
    plain = ipfix_record(PHONE, SERVER, 40_000, 443, 1_300, 12, 0)
    one = b"\x03abc" + plain + b"\xff\x01\x00" + bytes(256)
    (flow,) = flows(ipfix(a_set(2, fields), a_set(256, one)))
    assert (flow["local_port"], flow["wire_bytes_out"]) == (40_000, 1_300)


def test_what_a_record_counts_of_the_other_direction_is_the_other_direction():
    fields = struct.pack(">HH", 256, len(IPFIX) + 2) + b"".join(struct.pack(">HH", *one) for one in IPFIX)
    fields += struct.pack(">HHIHHI", 0x8001, 4, 29_305, 0x8002, 4, 29_305)
    one = ipfix_record(PHONE, SERVER, 40_000, 443, 1_300, 12, 0) + struct.pack(">II", 9_700, 14)
    (flow,) = flows(ipfix(a_set(2, fields), a_set(256, one)))
    assert (flow["wire_bytes_out"], flow["wire_bytes_in"], flow["packets_in"]) == (1_300, 9_700, 14)


def test_the_device_is_the_address_behind_a_translation():
    fields = [*IPFIX, (226, 4)]
    one = ipfix_record(SERVER, PUBLIC, 443, 40_000, 9_700, 14, 0) + socket.inet_aton(PHONE)
    (flow,) = flows(ipfix(a_set(2, template(fields)), a_set(256, one)))
    assert flow["device_uid"] == PHONE


def test_a_withdrawn_or_unknown_template_puts_its_records_aside():
    withdrawn = ipfix(a_set(2, struct.pack(">HH", 256, 0)), a_set(256, bytes(41)))
    rows, quarantine = read_bytes(NetflowExport(), IPFIX_FILE + withdrawn)
    assert len(rows["flows"]) == 1
    assert [entry.position for entry in quarantine.records] == ["record 3"]
    assert "template 256" in quarantine.records[0].reason
    assert read_bytes(NetflowExport(), v9(a_set(256, there())))[1].total == 1


def test_what_comes_before_a_cut_is_kept():
    rows, quarantine = read_bytes(NetflowExport(), V9 + V9[:-5])
    assert len(rows["flows"]) == 1
    assert [entry.reason for entry in quarantine.records] == ["cut off within a message."]


@given(st.lists(st.tuples(st.integers(1024, 65_535), st.integers(0, 2**31), st.integers(0, 2**31)), max_size=40))
@settings(max_examples=60, deadline=None)
def test_every_version_gives_the_same_connections(found):
    distinct = {port: (octets, packets) for port, octets, packets in found}
    rows = [(PHONE, SERVER, port, 443, p, o, 590_000, 599_000) for port, (o, p) in distinct.items()]
    old = b"".join(v5(*rows[n : n + 30]) for n in range(0, len(rows), 30))
    records = [record(UP, src, dst, sp, dp, 6, o, p, f, t) for src, dst, sp, dp, p, o, f, t in rows]
    new = v9(a_set(0, template(UP)), a_set(256, b"".join(records)))
    counted = [
        [(f["local_port"], f["wire_bytes_out"], f["packets_out"], f["position"]) for f in flows(content)]
        for content in (old, new)
    ]
    assert counted[0] == counted[1] == [(s, o, p, n) for n, (s, (o, p)) in enumerate(distinct.items(), 1)]


FUZZ_SEEDS: list[tuple[str, bytes]] = [("old.nf", V5 * 3), ("new.nf", V9 + V9), ("flows.ipfix", IPFIX_FILE * 2)]


@pytest.mark.parametrize(("name", "content"), FUZZ_SEEDS)
def test_hostile_variants_are_survived_and_accounted_for(tmp_path, name, content):
    rng = random.Random(31)  # noqa: S311 - seeded, so that it repeats
    for _ in range(200):
        assert_survives(tmp_path, name, mutate(content, rng))


def test_a_damaged_record_of_both_directions_is_put_aside_once():
    fields = struct.pack(">HH", 256, len(IPFIX) + 2) + b"".join(struct.pack(">HH", *one) for one in IPFIX[:-2])
    fields += struct.pack(">HHHH", 999, 8, 998, 8) + struct.pack(">HHIHHI", 0x8001, 4, 29_305, 0x8002, 4, 29_305)
    timeless = ipfix_record(PHONE, SERVER, 40_000, 443, 1_300, 12, 0) + struct.pack(">II", 9_700, 14)
    rows, quarantine = read_bytes(NetflowExport(), ipfix(a_set(2, fields), a_set(256, timeless)))
    assert (dict(rows), [entry.position for entry in quarantine.records]) == ({}, ["record 1"])


NEL = [(323, 8), (4, 1), (230, 1), (8, 4), (225, 4), (7, 2), (227, 2)]


def event(at: int, kind: int, port: int = 40_000, outside: int = 61_000, protocol: int = 6) -> bytes:
    return record(NEL, NOW * 1000 + at, protocol, kind, PHONE, PUBLIC, port, outside)


def logged(content: bytes):
    rows, quarantine = read_bytes(NetflowExport(), content)
    assert quarantine.total == 0, quarantine.records
    told = [row for row in rows["signals"] if row["kind"] == SignalKind.TRANSLATION]
    return [
        (row["device_uid"], row["local_port"], row["detail"], row["start_time"], row["end_time"])
        for row in sorted(told, key=lambda row: row["position"])
    ]


def ms(at: int) -> datetime:
    return datetime.fromtimestamp(NOW + at / 1000, UTC)


@pytest.mark.parametrize(("begin", "end"), [(1, 2), (4, 5), (10, 11)])
@pytest.mark.parametrize("message", [v9, ipfix])
def test_a_translators_events_are_translations_with_begin_and_end(message, begin, end):
    first = 0 if message is v9 else 2
    content = message(
        a_set(first, template(NEL)), a_set(256, event(0, begin) + event(5_000, end) + event(6_000, begin, 40_001))
    )
    assert logged(content) == [
        (PHONE, 40_000, f"tcp {PUBLIC} 61000", ms(0), ms(5_000)),
        (PHONE, 40_001, f"tcp {PUBLIC} 61000", ms(6_000), None),
    ]


def test_an_outside_port_given_to_another_ends_the_first_translation_without_a_word():
    content = ipfix(a_set(2, template(NEL)), a_set(256, event(0, 4) + event(5_000, 4, 40_001)))
    assert logged(content)[0] == (PHONE, 40_000, f"tcp {PUBLIC} 61000", ms(0), ms(5_000))


def test_events_that_are_no_translation_are_left_and_counted(tmp_path):
    content = ipfix(a_set(2, template(NEL)), a_set(256, event(0, 3) + event(1, 5) + event(2, 4, protocol=1)))
    path = tmp_path / "nel.ipfix"
    path.write_bytes(content)
    batches, quarantine, tally, _ = read_path(path)
    assert_accounted(quarantine, tally)
    assert not batches
    assert dict(tally.unused) == {
        "an event that is no translation's begin or end": 1,
        "the end of a translation": 1,
        "a translation of a protocol without ports": 1,
    }


def test_a_return_packets_record_is_the_inside_ports():
    fields = [*IPFIX, (226, 4), (228, 2)]
    out = ipfix_record(PHONE, SERVER, 40_000, 443, 1_300, 12, 0)
    back_in = ipfix_record(SERVER, PUBLIC, 443, 61_000, 9_700, 14, 40) + socket.inet_aton(PHONE) + (40_000).to_bytes(2)
    (row,) = flows(ipfix(a_set(2, template(IPFIX) + template(fields, 257)), a_set(256, out), a_set(257, back_in)))
    assert (row["device_uid"], row["local_port"]) == (PHONE, 40_000)
    assert (row["wire_bytes_out"], row["wire_bytes_in"]) == (1_300, 9_700)


FUZZ_SEEDS.append(("nel.ipfix", ipfix(a_set(2, template(NEL)), a_set(256, event(0, 4) + event(5_000, 5)))))
