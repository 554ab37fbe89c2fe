"""The offset of two clocks is where differences pile up, and is not believed where they do not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.identity.skew import estimate


@given(offset=st.floats(-1800, 1800), seed=st.integers(0, 50), unrelated=st.integers(0, 300))
def test_the_offset_is_found_among_unrelated_pairs(offset, seed, unrelated):
    rng = np.random.default_rng(seed)
    true = offset + rng.normal(0.0, 0.02, 60)
    found = estimate(np.concatenate([true, rng.uniform(-3600, 3600, unrelated)]))
    assert found is not None
    assert found.offset == pytest.approx(offset, abs=0.1)
    assert found.support >= 60


@given(seed=st.integers(0, 200))
def test_unrelated_pairs_show_no_offset(seed):
    pairs = np.random.default_rng(seed).uniform(-3600, 3600, 5000)
    assert estimate(pairs) is None


def test_too_few_pairs_show_nothing():
    assert estimate(np.array([2.0, 2.0])) is None
    assert estimate(np.empty(0)) is None


def test_clocks_an_hour_apart_are_not_guessed_at():
    assert estimate(np.full(50, 7200.0)) is None
