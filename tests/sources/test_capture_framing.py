import io
import struct
from pathlib import Path

import pytest
from capture_examples import T0, block, classic, enhanced, ethernet, interface, option, section, timed, udp
from hypothesis import given, settings
from hypothesis import strategies as st

from relaywatch.model.errors import SourceError
from relaywatch.model.quarantine import Quarantine
from relaywatch.sources.capture_columns import Fault
from relaywatch.sources.capture_framing import Frames
from relaywatch.sources.capture_magic import is_capture

PACKET = udp("10.0.0.2", 4000, "198.51.100.7", 9, b"hello")
FRAME = ethernet(PACKET)


def framed(content: bytes) -> tuple[list[tuple[int, bytes, int]], Quarantine, Frames]:
    """(time, captured bytes, fault) of each packet."""
    frames = Frames(Path("x.pcap"), io.BytesIO(content), Quarantine())
    found = []
    for part in frames:
        for packet in part.packets:
            data = part.octets[packet["data"] : packet["end"]].tobytes()
            found.append((int(packet["time"]), data, int(packet["fault"])))
    return found, frames.quarantine, frames


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("units", [1, 1000])
def test_classic_files_of_both_byte_orders_and_resolutions(order: str, units: int) -> None:
    found, quarantine, _ = framed(classic(timed([FRAME, FRAME]), order=order, units=units))
    assert found == [(T0, FRAME, 0), (T0 + 1000, FRAME, 0)]
    assert quarantine.total == 0


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_times_follow_each_interfaces_resolution_and_offset(order: str) -> None:
    content = section(order)
    content += interface(order=order)
    content += interface(order=order, options=option(9, b"\x09", order))
    content += interface(order=order, options=option(9, b"\x8a", order))
    content += interface(order=order, options=option(14, struct.pack(order + "q", 100), order))
    content += enhanced(T0, FRAME, 0, order) + enhanced(T0 * 1000 + 999, FRAME, 1, order)
    content += enhanced(T0 // 10**6 * 1024 + 512, FRAME, 2, order) + enhanced(T0, FRAME, 3, order)
    found, quarantine, _ = framed(content)
    assert [time for time, _, _ in found] == [T0, T0, T0 + 500_000, T0 + 100_000_000]
    assert {data for _, data, _ in found} == {FRAME}
    assert quarantine.total == 0


def test_sections_of_different_byte_order_each_have_their_own_interfaces() -> None:
    content = section("<") + interface(101) + enhanced(T0, PACKET) + section(">") + enhanced(T0, FRAME, order=">")
    found, _, _ = framed(content + interface(1, ">") + enhanced(T0, FRAME, order=">"))
    assert [(data, fault) for _, data, fault in found] == [
        (PACKET, 0),
        (b"", Fault.NO_INTERFACE),
        (FRAME, 0),
    ]


def test_simple_packets_take_the_last_time_and_have_none_without() -> None:
    simple = block(3, struct.pack("<I", len(FRAME)) + FRAME)
    found, _, _ = framed(section() + interface() + simple + enhanced(T0, FRAME) + simple)
    assert [fault for _, _, fault in found] == [Fault.NO_TIME, 0, 0]
    assert found[2] == (T0, FRAME, 0)


def test_blocks_of_other_kinds_are_passed_over() -> None:
    content = (
        section() + block(4, bytes(40)) + interface() + block(10, b"secret") + enhanced(T0, FRAME) + block(5, bytes(12))
    )
    found, quarantine, _ = framed(content)
    assert found == [(T0, FRAME, 0)]
    assert quarantine.total == 0


def test_options_without_end_or_with_zero_length_do_not_loop() -> None:
    options = option(1, b"") * 2000 + b"\x01\x00\xff\xff"
    found, _, _ = framed(section(options=options) + interface(options=options) + enhanced(T0, FRAME, options=options))
    assert found == [(T0, FRAME, 0)]


def test_a_cut_last_record_is_named_by_its_byte_and_the_rest_counts() -> None:
    content = classic(timed([FRAME, FRAME]))
    found, quarantine, _ = framed(content[:-3])
    assert len(found) == 1
    assert [record.position for record in quarantine.records] == [f"byte {24 + 16 + len(FRAME)}"]


def test_a_record_of_absurd_length_ends_the_reading_with_its_reason() -> None:
    content = classic(timed([FRAME])) + struct.pack("<IIII", 1, 2, 2**31, 60) + bytes(1000)
    found, quarantine, _ = framed(content)
    assert len(found) == 1
    assert "2147483648 captured bytes" in quarantine.records[0].reason


@pytest.mark.parametrize("length", [0, 8, 13, 2**32 - 4])
def test_an_impossible_block_length_ends_the_reading(length: int) -> None:
    bad = struct.pack("<II", 6, length) + bytes(64)
    found, quarantine, _ = framed(section() + interface() + enhanced(T0, FRAME) + bad)
    assert len(found) == 1
    assert quarantine.total == 1


def test_a_packet_longer_than_its_block_is_put_aside_alone() -> None:
    bad = bytearray(enhanced(T0, FRAME))
    bad[20:24] = struct.pack("<I", 5000)
    found, _, _ = framed(section() + interface() + bytes(bad) + enhanced(T0, FRAME))
    assert [fault for _, _, fault in found] == [Fault.BAD_BLOCK, 0]


def test_another_file_is_refused() -> None:
    with pytest.raises(SourceError, match="not a pcap"):
        framed(b"PK\x03\x04 something else entirely")
    with pytest.raises(SourceError, match="file header"):
        framed(classic([])[:10])


def test_captures_are_known_by_magic_alone() -> None:
    assert is_capture(classic([]))
    assert is_capture(classic([], order=">", units=1000))
    assert is_capture(section())
    assert not is_capture(b"")
    assert not is_capture(b"\x0a\x0d\x0d\x0a" + bytes(20))


GOOD = [
    classic(timed([FRAME] * 3)),
    section() + interface(options=option(9, b"\x09")) + enhanced(T0, FRAME, options=option(1, b"u-10001")) * 3,
]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(GOOD),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    st.integers(4, 500),
)
def test_damage_never_raises_but_sourceerror_and_packets_stay_within_the_buffer(
    content: bytes, changes: list[tuple[int, int]], length: int
) -> None:
    damaged = bytearray(content)
    for at, value in changes:
        damaged[at % len(damaged)] = value
    frames = Frames(Path("x.pcap"), io.BytesIO(bytes(damaged[:length])), Quarantine())
    try:
        for part in frames:
            assert (part.packets["data"] <= part.packets["end"]).all()
            assert (part.packets["end"] <= length).all()
    except SourceError:
        pass
