"""Perfetto's network packets: app, direction and bytes of each flow; no address is made up; nothing is lost."""

import random
import zlib
from collections import Counter
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from mutations import assert_survives, mutate
from perfetto_examples import (
    ACK,
    BOOT_NS,
    CLEARED,
    EGRESS,
    FIN,
    INGRESS,
    NEEDED,
    PUSH,
    REAL_NS,
    RST,
    SYN,
    SYN_ACK,
    accepted,
    at,
    bundle,
    clocks,
    event,
    intern,
    message,
    number,
    packages,
    packet,
    read,
    single,
    totals,
    varint,
)

from relaywatch.model.schemas import Direction, Observability, SignalKind
from relaywatch.model.tables import batch
from relaywatch.outputs.telemetry import ExportFormat, export
from relaywatch.sources import perfetto_order
from relaywatch.sources.perfetto_messages import fields, is_trace

HEAD = clocks() + packages(com_relay=10_123, com_other=10_124)
START = datetime(2026, 1, 1, tzinfo=UTC)
CONTEXT = event(EGRESS, protocol=17)
BUNDLES = (
    bundle(5, number(1, 7), [0, 1_000, 2_000_000], [128, 228, 1028], number(13, CLEARED) + intern(7, CONTEXT), 4)
    + bundle(6, number(1, 7), [0], [128], number(13, NEEDED), 4)
    + totals(7, message(2, CONTEXT), 10, 10_280, 2_500_000_000)
)
TRACE = HEAD + b"".join(accepted()) + BUNDLES
FUZZ_SEEDS = [
    ("pixel.perfetto-trace", TRACE),
    ("packed.perfetto-trace", packet(message(50, zlib.compress(TRACE)), 1) + b"".join(accepted(9))),
]


def test_an_accepted_session_is_observed_with_its_app_and_bytes(tmp_path):
    rows, quarantine, tally = read(tmp_path, HEAD + b"".join(accepted()))
    (flow,) = rows["flows"]
    assert (flow["device_uid"], flow["android_package"], flow["android_uid"]) == ("pixel", "com.relay", 10_123)
    assert (flow["direction_id"], flow["direction_observability"]) == (Direction.INBOUND, Observability.OBSERVED)
    assert (flow["bytes_in"], flow["bytes_out"], flow["bytes_observability"]) == (500, 1400, Observability.INFERRED)
    assert (flow["wire_bytes_in"], flow["packets_in"], flow["packets_out"]) == (60 + 3 * 52 + 500, 4, 4)
    assert (flow["local_port"], flow["remote_port"], flow["established"]) == (8080, 50_000, True)
    assert flow["local_ip"] is flow["remote_ip"] is None
    assert flow["start_time"] == START + timedelta(seconds=1)
    assert flow["end_time"] == START + timedelta(seconds=1.007)
    assert quarantine.total == 0
    assert tally.with_rows == 8


def test_the_answer_to_a_syn_proves_a_listener_and_the_trace_says_when_it_watched(tmp_path):
    rows, _, _ = read(tmp_path, HEAD + b"".join(accepted(1) + accepted(4, remote=50_001)))
    listener = next(row for row in rows["signals"] if row["kind"] == SignalKind.LISTENER)
    assert (listener["local_port"], listener["android_package"]) == (8080, "com.relay")
    assert (listener["start_time"], listener["end_time"]) == (
        START + timedelta(seconds=1),
        START + timedelta(seconds=4),
    )
    capture = next(row for row in rows["signals"] if row["kind"] == SignalKind.CAPTURE)
    assert (capture["start_time"], capture["detail"]) == (START + timedelta(seconds=1), "")
    assert {row["android_package"]: row["android_uid"] for row in rows["inventory"]} == {
        "com.relay": 10_123,
        "com.other": 10_124,
    }


def test_an_attempt_without_an_answer_is_inbound_and_no_listener(tmp_path):
    rows, _, _ = read(tmp_path, HEAD + single(1, 60, event(INGRESS, SYN, local=23, remote=5)))
    (flow,) = rows["flows"]
    assert (flow["direction_id"], flow["direction_observability"], flow["established"]) == (1, 1, False)
    assert not [row for row in rows["signals"] if row["kind"] == SignalKind.LISTENER]


def test_who_opened_a_connection_already_open_is_only_inferred(tmp_path):
    rows, _, _ = read(tmp_path, HEAD + single(1, 600, event(EGRESS, PUSH)) + single(2, 600, event(INGRESS, PUSH)))
    (flow,) = rows["flows"]
    assert (flow["direction_id"], flow["direction_observability"]) == (Direction.OUTBOUND, Observability.INFERRED)


@pytest.mark.parametrize("bare", [40, 52, 60, 72])
def test_headers_are_told_by_a_connections_bare_acknowledgements(tmp_path, bare):
    rows, _, _ = read(tmp_path, HEAD + b"".join(accepted(bare=bare)))
    assert (rows["flows"][0]["bytes_in"], rows["flows"][0]["bytes_out"]) == (500, 1400)


def test_volumes_say_when_bytes_moved(tmp_path):
    rows, _, _ = read(tmp_path, HEAD + BUNDLES)
    found = {row["start_time"].second: (row["bytes_out"], row["packets_out"]) for row in rows["volumes"]}
    assert found[5] == (100 + 200 + 1000, 3)
    assert found[6] == (100, 1)
    assert sum(found[second][0] for second in (7, 8, 9)) == 10_280 - 280
    assert sum(found[second][1] for second in (7, 8, 9)) == 10
    assert {row["flow_id"] for row in rows["volumes"]} == {rows["flows"][0]["flow_id"]}


def test_a_polls_bundles_are_put_in_order_of_time(tmp_path):
    """Bundles of one poll come in any order: an answer may stand before what it answers."""
    parts = accepted()
    rows, _, _ = read(tmp_path / "a", HEAD + b"".join(reversed(parts)))
    expected, _, _ = read(tmp_path / "b", HEAD + b"".join(parts))
    dropped = {"source", "position"}
    assert [{k: v for k, v in row.items() if k not in dropped} for row in rows["flows"]] == [
        {k: v for k, v in row.items() if k not in dropped} for row in expected["flows"]
    ]


def test_ports_used_again_are_another_flow_and_apps_are_kept_apart(tmp_path):
    again = accepted(1) + accepted(3)
    other = [single(1.5, 80, event(EGRESS, protocol=17, local=8080, remote=50_000, uid=10_124))]
    cellular = [single(1.6, 80, event(EGRESS, protocol=17, local=8080, remote=50_000, uid=10_124, interface=b"rmnet0"))]
    late = [single(400, 80, event(EGRESS, protocol=17, local=8080, remote=50_000, uid=10_124))]
    rows, _, _ = read(tmp_path, HEAD + b"".join(again + other + cellular + late))
    assert len(rows["flows"]) == 2 + 3
    assert Counter(row["android_uid"] for row in rows["flows"]) == {10_123: 2, 10_124: 3}


def test_an_unanswered_syn_repeated_is_one_attempt(tmp_path):
    syns = b"".join(single(t, 60, event(EGRESS, SYN)) for t in (1, 2, 4)) + single(4.1, 40, event(INGRESS, RST))
    rows, _, _ = read(tmp_path, HEAD + syns)
    (flow,) = rows["flows"]
    assert (flow["packets_out"], flow["established"], flow["bytes_out"]) == (3, False, 0)


def test_packets_to_the_phone_itself_are_left_with_the_reason(tmp_path):
    rows, _, tally = read(tmp_path, HEAD + single(1, 600, event(EGRESS, PUSH, interface=b"lo")))
    assert not rows["flows"]
    assert tally.unused["a packet on the loopback interface: it never leaves the phone"] == 1


def test_a_uid_of_several_packages_gets_no_package(tmp_path):
    rows, _, _ = read(tmp_path, clocks() + packages(com_a=10_123, com_b=10_123) + b"".join(accepted()))
    assert (rows["flows"][0]["android_package"], rows["flows"][0]["android_uid"]) == (None, 10_123)


def test_an_app_of_a_work_profile_is_known_by_its_app_id(tmp_path):
    rows, _, _ = read(tmp_path, HEAD + b"".join(accepted(uid=1_010_123)))
    assert (rows["flows"][0]["android_package"], rows["flows"][0]["android_uid"]) == ("com.relay", 1_010_123)


def test_fields_that_the_trace_was_told_to_drop_are_not_known(tmp_path):
    dropped = number(1, EGRESS) + number(4, 10_123) + number(6, 6)
    rows, _, _ = read(tmp_path, HEAD + single(1, 600, dropped))
    (flow,) = rows["flows"]
    assert flow["local_port"] is flow["remote_port"] is flow["established"] is None
    assert flow["direction_observability"] == Observability.INFERRED


def test_a_loss_is_a_gap_and_what_it_took_the_attributes_of_is_put_aside(tmp_path):
    lost = bundle(9, number(1, 7), [0], [99], number(13, NEEDED) + number(42, 1), 4)
    fresh = bundle(10, number(1, 7), [0], [128], number(13, CLEARED) + intern(7, CONTEXT), 4)
    rows, quarantine, _ = read(tmp_path, HEAD + BUNDLES + lost + fresh)
    (gap,) = [row for row in rows["signals"] if row["kind"] == SignalKind.LOGGING_GAP]
    assert (gap["start_time"], gap["end_time"]) == (START + timedelta(seconds=6), START + timedelta(seconds=9))
    assert [record.position for record in quarantine.records] == ["packet 6"]
    assert "lost" in quarantine.records[0].reason
    assert rows["flows"][0]["packets_out"] == 15


def test_a_writers_first_packet_and_its_resets_are_no_loss(tmp_path):
    first = bundle(5, number(1, 1), [0], [99], number(13, CLEARED) + number(42, 1) + intern(1, CONTEXT), 8)
    again = bundle(6, number(1, 1), [0], [99], number(13, CLEARED) + intern(1, event(EGRESS, local=7, protocol=17)), 8)
    rows, quarantine, _ = read(tmp_path, HEAD + first + again)
    assert not [row for row in rows["signals"] if row["kind"] == SignalKind.LOGGING_GAP]
    assert {row["local_port"] for row in rows["flows"]} == {40_000, 7}
    assert quarantine.total == 0


def test_writers_do_not_share_their_attributes(tmp_path):
    one = bundle(5, number(1, 1), [0], [99], number(13, CLEARED) + intern(1, CONTEXT), 8)
    other = bundle(6, number(1, 1), [0], [99], number(13, CLEARED), 9)
    _, quarantine, _ = read(tmp_path, HEAD + one + other)
    assert quarantine.total == 1


def test_chunks_that_a_full_buffer_discarded_are_a_gap(tmp_path):
    stats = packet(message(35, message(1, number(18, 5) + number(3, 7)) + number(8, 1)), 1)
    rows, _, _ = read(tmp_path, HEAD + b"".join(accepted()) + stats)
    (gap,) = [row for row in rows["signals"] if row["kind"] == SignalKind.LOGGING_GAP]
    assert gap["observability"] == Observability.INFERRED
    assert gap["detail"].startswith("6 chunks")


def test_packets_before_the_first_clock_wait_for_it_and_without_one_are_put_aside(tmp_path):
    rows, _, _ = read(tmp_path / "late", packages(com_relay=10_123) + b"".join(accepted()) + clocks())
    assert rows["flows"][0]["start_time"] == START + timedelta(seconds=1)
    rows, quarantine, _ = read(tmp_path / "none", packages(com_relay=10_123) + b"".join(accepted()))
    assert not rows["flows"]
    assert quarantine.total == 8


def test_other_clocks_are_read_by_the_snapshot_or_put_aside(tmp_path):
    monotonic = packet(number(8, 5_000_000_000) + number(58, 3) + message(88, CONTEXT + number(3, 99)))
    own = packet(number(8, 5) + number(58, 64) + message(88, CONTEXT + number(3, 99)))
    default = packet(number(8, 6_000_000_000) + message(59, number(58, 3)) + message(88, CONTEXT + number(3, 99)), 5)
    rows, quarantine, _ = read(tmp_path, clocks(c3=4_000_000_000) + monotonic + own + default)
    assert rows["flows"][0]["start_time"] == START + timedelta(seconds=1)
    assert rows["flows"][0]["end_time"] == START + timedelta(seconds=2)
    assert [record.position for record in quarantine.records] == ["packet 3"]


def test_a_clock_that_is_set_meanwhile_stretches_no_flow_and_widens_the_bound(tmp_path):
    jump = clocks(boot=BOOT_NS + 1_003_000_000, real=REAL_NS + 7_200_000_000_000)
    parts = accepted()
    rows, _, _ = read(tmp_path, HEAD + b"".join(parts[:4]) + jump + b"".join(parts[4:]))
    (flow,) = rows["flows"]
    assert flow["end_time"] - flow["start_time"] == timedelta(seconds=0.007)
    assert flow["clock_skew_bound_s"] == pytest.approx(7_201, abs=1)


@pytest.mark.parametrize("pack", [lambda data: message(50, zlib.compress(data)), lambda data: message(133, zstd(data))])
def test_compressed_packets_are_the_same_packets(tmp_path, pack):
    plain, _, _ = read(tmp_path / "plain", TRACE)
    packed, _, _ = read(tmp_path / "packed", packet(pack(TRACE), 1))
    assert [row["bytes_out"] for row in packed["flows"]] == [row["bytes_out"] for row in plain["flows"]]
    assert len(packed["volumes"]) == len(plain["volumes"])


def zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)


@pytest.mark.parametrize("pack", [lambda data: message(50, zlib.compress(data)), lambda data: message(133, zstd(data))])
def test_a_trace_is_told_by_a_first_packet_longer_than_what_is_looked_at(tmp_path, pack):
    noise = packet(at(0.5) + message(11, random.Random(1).randbytes(200_000)))  # noqa: S311  no secret
    rows, _, _ = read(tmp_path, packet(pack(HEAD + noise + b"".join(accepted())), 1))
    assert len(rows["flows"]) == 1


def test_a_decompression_bomb_is_put_aside_in_bounded_memory(tmp_path):
    bomb = zlib.compress(bytes(1 << 26), 9)
    content = HEAD + packet(message(50, bomb), 1) + b"".join(accepted())
    assert_survives(tmp_path / "bomb", "pixel.perfetto-trace", content)
    rows, quarantine, _ = read(tmp_path, content)
    assert len(rows["flows"]) == 1
    assert [record.position for record in quarantine.records] == ["packet 3"]


def test_compression_within_compression_is_refused(tmp_path):
    inner = packet(message(50, zlib.compress(TRACE)), 1)
    rows, quarantine, _ = read(tmp_path, HEAD + packet(message(50, zlib.compress(inner)), 1))
    assert not rows["flows"]
    assert "within a compressed" in quarantine.records[0].reason


BAD = {
    "no time": packet(message(88, event(EGRESS) + number(3, 99))),
    "a time beyond any clock": packet(number(8, 2**63 + 5) + message(88, event(EGRESS) + number(3, 99))),
    "no direction": single(2, 99, number(4, 10_123)),
    "a port that is none": single(2, 99, event(EGRESS, local=70_000)),
    "an absurd length": single(2, 2**32, event(EGRESS)),
    "an absurd uid": single(2, 99, event(EGRESS, uid=2**40)),
    "lists of unequal length": bundle(2, message(2, event(EGRESS)), [0, 1], [99]),
    "absurd totals": totals(2, message(2, event(EGRESS)), 2**40, 5, 5),
    "more bytes than its packets can hold": totals(2, message(2, event(EGRESS)), 1, 2**50, 5),
    "a bundle of hours": bundle(2, message(2, event(EGRESS)), [0, 10**14], [99, 99]),
    "a cut message": packet(at(2) + message(88, event(EGRESS)[:-3])),
    "a number without an end": packet(at(2) + message(88, b"\x08" + b"\xff" * 11)),
    "a group, as protocol buffers had once": packet(at(2) + b"\x0b" + message(88, event(EGRESS))),
    "a context that was never told": bundle(2, number(1, 9), [0], [99]),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_damaged_packet_is_put_aside_and_those_around_it_count(tmp_path, bad):
    rows, quarantine, _ = read(tmp_path, HEAD + b"".join(accepted()) + bad + b"".join(accepted(5, remote=50_001)))
    assert len(rows["flows"]) == 2
    assert [record.position for record in quarantine.records] == ["packet 11"]
    assert quarantine.records[0].reason


def test_a_package_list_with_bad_names_gives_the_good_ones(tmp_path):
    names = [b"com.good", b"\xff\xfe", b"../../etc", b"com.big"]
    listed = b"".join(message(1, message(1, name) + number(2, 10_123 + i)) for i, name in enumerate(names))
    huge = message(1, message(1, b"com.huge") + number(2, 2**40))
    rows, quarantine, _ = read(tmp_path, clocks() + packet(message(47, listed + huge), 2))
    assert {row["android_package"] for row in rows["inventory"]} == {"com.good", "com.big"}
    assert quarantine.total == 3


def test_a_trace_cut_short_gives_what_came_before_and_says_where(tmp_path):
    rows, quarantine, _ = read(tmp_path, (HEAD + b"".join(accepted()) + BUNDLES)[:-5])
    assert any(row["local_port"] == 8080 for row in rows["flows"])
    assert "ends within" in quarantine.records[0].reason


def test_what_is_no_packet_ends_the_reading_with_its_place(tmp_path):
    good = HEAD + b"".join(accepted())
    rows, quarantine, _ = read(tmp_path, good + b"\x00\x01\x02" + BUNDLES)
    assert len(rows["flows"]) == 1
    assert quarantine.records[0].position == f"byte {len(good)}"


def test_a_packet_of_absurd_length_is_skipped(tmp_path):
    long = b"\x0a" + varint(17 << 20) + bytes(17 << 20)
    rows, quarantine, _ = read(tmp_path, HEAD + long + b"".join(accepted()))
    assert len(rows["flows"]) == 1
    assert "not read" in quarantine.records[0].reason
    _, quarantine, _ = read(tmp_path / "b", HEAD + b"\x0a" + varint(2**63))
    assert quarantine.total == 2


def test_packets_of_other_data_sources_are_counted_and_left(tmp_path):
    _, quarantine, tally = read(tmp_path, HEAD + packet(at(1) + message(11, b"")) * 3 + b"".join(accepted()))
    assert tally.unused["a packet of another data source"] == 3
    assert quarantine.total == 0


def test_more_packets_than_are_held_give_the_same_flows(tmp_path, monkeypatch):
    content = HEAD + b"".join(b"".join(accepted(1 + i, remote=50_000 + i)) for i in range(60))
    whole, _, _ = read(tmp_path / "a", content)
    monkeypatch.setattr(perfetto_order, "HELD", 100)
    monkeypatch.setattr("relaywatch.sources.perfetto_reading.PIECE_BYTES", 97)
    parts, _, _ = read(tmp_path / "b", content)

    def ends(rows):
        return sorted((row["remote_port"], row["bytes_in"], row["start_time"]) for row in rows["flows"])

    assert ends(parts) == ends(whole)
    assert len(whole["flows"]) == 60


@given(data=st.binary(max_size=300))
def test_no_content_is_told_a_trace_by_accident_or_breaks_the_telling(data):
    assert not is_trace(b"\n" + data[:1].replace(b"\x00", b"x") + b"# a text that begins with an empty line\n")
    is_trace(data)
    is_trace(HEAD[: len(data)] + data)


@given(numbers=st.lists(st.tuples(st.integers(1, 2**29 - 1), st.integers(0, 2**64 - 1)), max_size=30))
def test_fields_written_are_fields_read(numbers):
    content = b"".join(number(*entry) for entry in numbers)
    assert [(entry[0], entry[2]) for entry in fields(content)] == numbers


FLOWS = st.lists(
    st.tuples(
        st.integers(0, 10**9), st.integers(1, 10**7), st.booleans(), st.integers(1, 10**5), st.integers(0, 10**5),
        st.integers(10_000, 10_005), st.sampled_from([6, 17]),
    ),
    min_size=1,
    max_size=8,
)  # fmt: skip


@given(flows=FLOWS)
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_back(tmp_path, flows):
    count = len(flows)
    table = batch(
        "flows",
        {
            "device_uid": "phone-7", "android_package": [f"com.app{entry[5]}" for entry in flows],
            "android_uid": [entry[5] for entry in flows], "flow_id": range(count),
            "protocol_num": [entry[6] for entry in flows], "local_port": [20_000 + i for i in range(count)],
            "remote_port": 443, "start_time": [REAL_NS // 1000 + entry[0] for entry in flows],
            "end_time": [REAL_NS // 1000 + entry[0] + entry[1] + 10 for entry in flows],
            "direction_id": [1 if entry[2] else 2 for entry in flows], "direction_observability": 1,
            "bytes_out": [entry[3] for entry in flows], "bytes_in": [entry[4] for entry in flows],
            "bytes_observability": 1, "established": True, "source": "x", "position": range(count), "clock": "device",
        },
        length=count,
    )  # fmt: skip
    (path,) = export([table], ExportFormat.PERFETTO, tmp_path)
    assert path.name == "synthetic-phone-7.perfetto-trace"
    rows, quarantine, _ = read(tmp_path / "again", path.read_bytes(), path.name)
    assert quarantine.total == 0
    found = {row["local_port"]: row for row in rows["flows"]}
    assert len(found) == len(rows["flows"]) == count
    for i, (start, _, inbound, sent, received, uid, protocol) in enumerate(flows):
        row = found[20_000 + i]
        assert (row["android_uid"], row["android_package"]) == (uid, f"com.app{uid}")
        assert (row["bytes_out"], row["bytes_in"]) == (sent, received)
        assert row["protocol_num"] == protocol
        if protocol == 6:
            assert row["direction_id"] == (1 if inbound else 2)
            assert row["start_time"] == datetime.fromtimestamp(REAL_NS // 10**9, UTC) + timedelta(microseconds=start)
    totals_of = Counter()
    for row in rows["volumes"]:
        totals_of[row["flow_id"]] += row["bytes_out"]
    assert {row["flow_id"]: row["bytes_out"] for row in rows["flows"]} == totals_of


def test_hostile_variants_are_read_to_the_end(tmp_path):
    rng = random.Random(1)  # noqa: S311  mutations, no secret
    for step in range(60):
        for name, content in FUZZ_SEEDS:
            assert_survives(tmp_path / str(step), name, mutate(content, rng))


def test_the_handshake_of_a_dialled_connection_is_observed(tmp_path):
    steps = [(EGRESS, SYN, 60), (INGRESS, SYN_ACK, 60), (EGRESS, ACK, 52), (EGRESS, PUSH, 152), (INGRESS, FIN, 52)]
    parts = [single(1 + i / 100, length, event(way, flags)) for i, (way, flags, length) in enumerate(steps)]
    rows, _, _ = read(tmp_path, HEAD + b"".join(parts))
    (flow,) = rows["flows"]
    assert (flow["direction_id"], flow["direction_observability"], flow["bytes_out"]) == (2, 1, 100)
    assert not [row for row in rows["signals"] if row["kind"] == SignalKind.LISTENER]
