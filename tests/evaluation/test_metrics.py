"""What the figures promise: intervals that hold what they say, ranks that ignore nothing, thresholds that err high."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, poisson

from relaywatch.evaluation.metrics import area_under_curve, recall_without_alarms, threshold_at
from relaywatch.model.estimates import proportion, rate

TAIL = 0.025


def ranked(*scores):
    return np.array(scores, np.float64)


@given(st.integers(1, 400), st.data())
def test_the_bounds_of_a_proportion_leave_a_fortieth_on_each_side(trials, data):
    hits = data.draw(st.integers(0, trials))
    value, low, high = proportion(hits, trials)
    assert low <= value <= high
    if hits:
        assert binom.sf(hits - 1, trials, low) == pytest.approx(TAIL, rel=1e-6)
    else:
        assert low == 0.0
    if hits < trials:
        assert binom.cdf(hits, trials, high) == pytest.approx(TAIL, rel=1e-6)
    else:
        assert high == 1.0


def test_no_alarm_among_few_excludes_little():
    assert proportion(0, 26).high == pytest.approx(0.132, abs=5e-4)  # 1 - 0.025^(1/26)


def test_of_nothing_nothing_is_known():
    share = proportion(0, 0)
    assert math.isnan(share.value)
    assert (share.low, share.high) == (0.0, 1.0)
    per_day = rate(0, 0.0)
    assert math.isnan(per_day.value)
    assert (per_day.low, per_day.high) == (0.0, math.inf)


@given(st.integers(0, 60), st.floats(0.01, 1e5))
def test_the_bounds_of_a_rate_leave_a_fortieth_on_each_side(events, days):
    value, low, high = rate(events, days)
    assert value == events / days
    assert poisson.cdf(events, high * days) == pytest.approx(TAIL, rel=1e-6)
    if events:
        assert poisson.sf(events - 1, low * days) == pytest.approx(TAIL, rel=1e-6)
    else:
        assert low == 0.0


def test_the_area_counts_ties_half_and_is_one_where_nothing_overlaps():
    positive = np.array([True, True, False, False])
    assert area_under_curve(ranked(3, 2, 1, 0), positive, list("abcd")).value == 1.0
    assert area_under_curve(ranked(1, 1, 1, 1), positive, list("abcd")).value == 0.5
    assert area_under_curve(ranked(3, 1, 1, 0), positive, list("abcd")).value == 0.875


def test_the_area_is_drawn_by_whole_groups():
    """Forty copies of two programs know no more than the two programs, however many apps there are."""
    scores, positive = np.tile(ranked(1, 0, 1, 2), 40), np.tile([True, True, False, False], 40)
    few = area_under_curve(scores, positive, ["a", "b", "c", "d"] * 40)
    many = area_under_curve(scores, positive, [str(number) for number in range(160)])
    assert few.high - few.low > 2.0 * (many.high - many.low)


@pytest.mark.parametrize("kind", [True, False])
def test_ranks_of_one_kind_alone_say_nothing(kind):
    scores, positive = ranked(1, 2), np.array([kind, kind])
    assert math.isnan(area_under_curve(scores, positive, ["a", "b"]).value)
    assert math.isnan(recall_without_alarms(scores, positive))


def test_recall_without_alarms_counts_no_tie_with_a_benign_app():
    positive = np.array([True, True, True, False, False])
    assert recall_without_alarms(ranked(5, 4, 3, 4, 0), positive) == pytest.approx(1 / 3)


@given(
    st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5]), max_size=60),
    st.integers(0, 5_000),
    st.sampled_from([1e-1, 1e-2, 1e-3, 1e-5]),
)
def test_above_a_threshold_lie_no_more_negatives_than_allowed(listed, unlisted, false_positive_rate):
    negatives = len(listed) + unlisted
    least = threshold_at(ranked(*listed), negatives, false_positive_rate)
    above = sum(1 for score in listed if score > least)
    assert above <= false_positive_rate * negatives
    # Nor could it be lower: at the threshold itself one more would be let in, or all are.
    assert not math.isfinite(least) or sum(1 for s in listed if s >= least) > int(false_positive_rate * negatives)


def test_pairs_that_no_rule_lists_count_among_all():
    assert threshold_at(ranked(3, 2, 1), 3, 1e-3) == 3.0
    assert threshold_at(ranked(3, 2, 1), 1_000, 1e-3) == 2.0
    assert threshold_at(ranked(3, 2, 1), 100_000, 1e-3) == -math.inf
