"""The agents' framing: what is packed comes out, however the bytes are cut, and strangers' bytes are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from relay_range.framing import CODECS, Binary, Frame, FramingError, Kind, Sequencer, pack, unpack

U32 = st.integers(0, 2**32 - 1)
FRAMES = st.lists(st.builds(Frame, st.sampled_from(list(Kind)), U32, U32, st.binary(max_size=300)), max_size=6)
NAMES = st.sampled_from(sorted(CODECS))


@given(NAMES, FRAMES, st.integers(0, 500), st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_frames_survive_padding_and_any_cutting(name, frames, padding, cuts):
    sender, receiver = CODECS[name](), CODECS[name]()
    content = b"".join(sender.encode(frame, padding) for frame in frames)
    received, at, turn = [], 0, 0
    while at < len(content):
        size = cuts[turn % len(cuts)]
        received += receiver.feed(content[at : at + size])
        at, turn = at + size, turn + 1
    assert received == frames


@given(FRAMES)
def test_a_batch_holds_its_frames_and_repetition_shrinks(frames):
    assert unpack(pack(frames)) == frames
    repeated = [Frame(Kind.DATA, 1, n, b"the same again " * 60) for n in range(5)]
    assert len(pack(repeated).data) < sum(len(frame.data) for frame in repeated) / 5


@given(st.permutations(range(8)))
def test_frames_that_came_over_several_links_are_put_in_order(order):
    sequencer = Sequencer()
    out = [frame.number for number in order for frame in sequencer.add(Frame(Kind.DATA, 1, number))]
    assert out == list(range(8))


@given(st.binary(max_size=400))
def test_bytes_that_are_no_frames_raise_the_framing_error_alone(content):
    for name in CODECS:
        try:
            list(CODECS[name]().feed(content))
        except FramingError:
            continue


def test_a_frame_of_impossible_size_is_refused_before_it_is_awaited():
    with pytest.raises(FramingError, match="no frame"):
        list(Binary().feed(b"\xff" * 15))


def test_base64_in_json_costs_at_least_a_third():
    frame = Frame(Kind.DATA, 7, 0, bytes(9_000))
    assert len(CODECS["json"]().encode(frame)) > 12_000 > len(CODECS["binary"]().encode(frame))
