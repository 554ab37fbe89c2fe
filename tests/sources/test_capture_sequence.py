import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from relaywatch.sources.capture_sequence import GAPS, new_payload

SEGMENT = st.tuples(st.integers(0, 12), st.integers(0, 4))


def counted(base: int, segments: list[tuple[int, int]]) -> int:
    gaps, edge, loose, total = np.zeros((GAPS, 2), np.uint32), base, 0, 0
    for begin, length in segments:
        fresh, edge, loose = new_payload(edge, gaps, loose, (base + begin) % 2**32, length)
        assert fresh >= 0
        total += fresh
    return total


@settings(deadline=None)
@given(st.lists(SEGMENT, max_size=12), st.sampled_from([0, 1000, 2**32 - 5, 2**31 - 3]))
def test_every_byte_counts_once_in_any_order_and_across_the_wrap(segments: list[tuple[int, int]], base: int) -> None:
    whole = [*segments, *((i, 4) for i in range(0, 16, 4))]
    assert counted(base, whole) == 16


@settings(deadline=None)
@given(st.lists(SEGMENT, max_size=GAPS), st.sampled_from([0, 2**32 - 5]))
def test_bytes_that_never_arrived_are_not_counted(segments: list[tuple[int, int]], base: int) -> None:
    assert counted(base, segments) == len({begin + i for begin, length in segments for i in range(length)})


@settings(deadline=None)
@given(st.lists(SEGMENT, max_size=40))
def test_no_more_is_counted_than_the_range_of_numbers(segments: list[tuple[int, int]]) -> None:
    assert counted(9, segments) <= max((begin + length for begin, length in segments), default=0)


def test_a_retransmission_counts_nothing() -> None:
    assert counted(77, [(0, 10), (0, 10), (5, 5), (10, 3)]) == 13


def test_more_gaps_than_places_still_add_up_once_they_are_filled() -> None:
    odd = [(i, 1) for i in range(1, 40, 2)]
    even = [(i, 1) for i in range(0, 40, 2)]
    assert counted(5, odd + even) == 40


def test_a_leap_beyond_any_window_begins_anew() -> None:
    assert counted(0, [(0, 10), (2**30, 10), (2**30 + 10, 5)]) == 25
