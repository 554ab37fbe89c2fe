"""What a user is promised of the byte balance: every byte in its interval, and no more intervals than can be shown."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.detection.columns import VolumeColumns
from relaywatch.engines.balance import POINTS, balance_bins

NO_VOLUMES = VolumeColumns(np.zeros(2, np.int64), np.empty(0, np.int64), *np.empty((3, 0)))


def test_volumes_stand_where_they_were_seen():
    volumes = VolumeColumns(
        np.array([0, 4]),
        np.array([0, 0, 1, 2]),
        np.array([0.0, 3.0, 1.0, 1.0]),
        np.array([5.0, 6.0, 7.0, 1e6]),
        np.array([1.0, 2.0, 3.0, 1e6]),
    )
    start, end = np.array([0.0, 1.0, 1.0]), np.array([4.0, 2.0, 2.0])
    times, rows = balance_bins(start, end, (start, start), volumes, np.array([0]), np.array([1]))
    assert times.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert rows.tolist() == [[1, 0, 0, 2, 0], [0, 7, 0, 0, 0], [0, 3, 0, 0, 0], [5, 0, 0, 6, 0]]


@given(st.floats(0.0, 1e8), st.floats(0.0, 1e7), st.floats(0.0, 1e7), st.integers(0, 10**9))
def test_without_volumes_bytes_are_even_over_a_flows_life_and_none_are_lost(begin, life, later, size):
    start, end = np.array([begin, begin + later]), np.array([begin + life, begin + later + 1.0])
    sizes = np.array([float(size), 0.0])
    times, rows = balance_bins(start, end, (sizes, sizes), NO_VOLUMES, np.array([0]), np.array([1]))
    assert len(times) == rows.shape[1] <= POINTS + 1
    assert size - len(times) <= rows[0].sum() <= size
    assert (rows >= 0).all()
    assert times[0] <= begin


def test_bytes_that_are_not_known_count_as_none():
    start, end, unknown = np.array([0.0, 0.0]), np.array([5.0, 5.0]), np.array([-1.0, -1.0])
    rows = balance_bins(start, end, (unknown, unknown), NO_VOLUMES, np.array([0]), np.array([1]))[1]
    assert rows.sum() == 0
