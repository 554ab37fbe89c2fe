"""Figures with their uncertainty, against values known by hand or by their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.evaluation.metrics import area_under_curve, proportion, rate, recall_without_alarms, threshold_at


def test_no_hit_in_a_hundred_is_the_rule_of_three():
    assert proportion(0, 100).high == pytest.approx(0.0362, abs=1e-4)
    assert proportion(100, 100).low == pytest.approx(1 - 0.0362, abs=1e-4)


def test_no_event_bounds_the_rate_by_its_exposure():
    assert rate(0, 100_000.0).high == pytest.approx(3.69e-5, rel=1e-2)


@given(st.integers(1, 500), st.data())
def test_an_interval_holds_its_value(trials, data):
    hits = data.draw(st.integers(0, trials))
    found = proportion(hits, trials)
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0


def test_area_counts_ties_half():
    scores, positive = np.array([1.0, 1.0, 2.0, 0.0]), np.array([True, False, True, False])
    assert area_under_curve(scores, positive, ["a", "b", "c", "d"]).value == pytest.approx((0.5 + 1 + 1 + 1) / 4)
    assert recall_without_alarms(scores, positive) == 0.5


@given(st.lists(st.floats(-5, 5), max_size=40), st.integers(0, 1_000), st.sampled_from([0.0, 0.01, 0.1, 0.5]))
def test_no_more_than_the_rate_lies_above_the_threshold(listed, unlisted, share):
    negatives = np.array(listed)
    least = threshold_at(negatives, len(listed) + unlisted, share)
    assert (negatives > least).sum() <= share * (len(listed) + unlisted)
