"""Who was behind an outside end: the translation that held then, else the nearest within the clocks' slack."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.identity.translations import NOBODY, SLACK_US, behind

S = 1_000_000
KINDS = {"outside": pl.Int64, "begin": pl.Int64, "end": pl.Int64}


def book(*rows):
    return pl.DataFrame(rows, schema=KINDS, orient="row")


@pytest.mark.parametrize(
    ("outside", "seconds", "row"),
    [(1, 120, 0), (1, 149, 0), (1, 155, NOBODY), (1, 250, 1), (1, 10**6, 1), (2, 120, NOBODY), (1, 50, NOBODY)],
)
def test_the_translation_that_held_is_meant(outside, seconds, row):
    held = book((1, 100 * S, 150 * S), (1, 200 * S, None))
    assert behind(np.array([outside]), np.array([seconds * S]), held).tolist() == [row]


@pytest.mark.parametrize(("seconds", "row"), [(97.5, 0), (152.5, 0), (96.0, NOBODY), (154.0, NOBODY)])
def test_clocks_may_be_some_seconds_apart(seconds, row):
    assert behind(np.array([1]), np.array([int(seconds * S)]), book((1, 100 * S, 150 * S))).tolist() == [row]


def test_one_that_held_at_the_very_time_goes_before_one_that_begins_soon():
    held = book((1, 100 * S, 150 * S), (1, 151 * S, 160 * S))
    assert behind(np.array([1, 1]), np.array([149 * S, 152 * S]), held).tolist() == [0, 1]


times = st.integers(0, 60).map(lambda tenth: tenth * S // 2)


@given(
    rows=st.lists(st.tuples(st.integers(1, 3), times, st.one_of(st.none(), times)), max_size=12),
    asked=st.lists(st.tuples(st.integers(1, 3), times), min_size=1, max_size=12),
)
def test_whoever_is_named_had_the_outside_end_near_that_time(rows, asked):
    outside, time = (np.array(column, np.int64) for column in zip(*asked, strict=True))
    for (end, when), row in zip(asked, behind(outside, time, book(*rows)).tolist(), strict=True):
        if row == NOBODY:
            open_then = [r for r in rows if r[0] == end and r[1] <= when and r[2] is None]
            latest = max((r[1] for r in rows if r[0] == end and r[1] <= when), default=None)
            assert not any(r[1] == latest for r in open_then if [q[1] for q in rows if q[0] == end].count(latest) == 1)
        else:
            assert rows[row][0] == end
            assert rows[row][1] - SLACK_US <= when
            assert rows[row][2] is None or when <= rows[row][2] + SLACK_US
