"""What a user is promised of evidence: independent legs rarely look like a relay, whatever the app's own traffic."""

from collections.abc import Iterator
from math import exp, lgamma, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.detection import calibration
from relaywatch.detection.chance import (
    RAREST,
    RELAYED_SHARES,
    SHORTEST_SPAN_S,
    clock_step,
    grade_ratios,
    log_evidence,
    moved,
    shifts_within,
    timeline_around,
)

CALIBRATED = {
    "pairs": (calibration.MEASURED.pair_relay, calibration.PAIR_NULL),
    **{f"sendings {k}": (calibration.MEASURED.account_relay[k], calibration.ACCOUNT_NULL[k]) for k in range(3)},
}


def splits(legs: int, grades: int) -> Iterator[tuple[int, ...]]:
    """Every way in which so many legs fall into so many grades."""
    if grades == 1:
        yield (legs,)
        return
    for first in range(legs + 1):
        for rest in splits(legs - first, grades - 1):
            yield (first, *rest)


def expected_evidence(ratios: np.ndarray, shares: np.ndarray, legs: int) -> float:
    """Expectation of the evidence over every outcome, legs being independent with these shares of grades."""
    total = 0.0
    for counts in splits(legs, len(shares)):
        chance = lgamma(legs + 1) + sum(n * log(p) - lgamma(n + 1) for n, p in zip(counts, shares, strict=True))
        total += exp(chance + log_evidence(ratios, np.array(counts, np.int64), RELAYED_SHARES))
    return total


@pytest.mark.parametrize("name", CALIBRATED)
def test_calibrated_frequencies_are_frequencies(name):
    for shares in CALIBRATED[name]:
        assert shares.sum() == pytest.approx(1.0)
        assert (shares > 0).all()


@pytest.mark.parametrize("legs", [1, 2, 3, 5])
@pytest.mark.parametrize("name", CALIBRATED)
def test_evidence_of_independent_legs_is_one_on_average_before_the_app_is_measured(name, legs):
    relay, null = CALIBRATED[name]
    unmeasured = grade_ratios(np.zeros(len(null)), relay, null, 20.0)
    assert expected_evidence(unmeasured, null, legs) == pytest.approx(1.0, abs=1e-9)


@given(st.lists(st.floats(1e-6, 1.0), min_size=7, max_size=7), st.integers(1, 4))
def test_evidence_of_independent_legs_is_at_most_one_on_average_whatever_the_apps_own_traffic(weights, legs):
    own = np.array(weights) / sum(weights)
    measured = grade_ratios(
        own * 1e9, calibration.MEASURED.pair_relay, calibration.PAIR_NULL, calibration.PAIR_NULL_WEIGHT
    )
    assert expected_evidence(measured, own, legs) <= 1.0 + 1e-5


def test_independent_legs_exceed_a_level_no_more_often_than_promised():
    relay, null = calibration.MEASURED.pair_relay, calibration.PAIR_NULL
    ratios = grade_ratios(np.zeros(len(null)), relay, null, 20.0)
    draws = np.random.default_rng(1604).multinomial(30, null, size=20_000)
    evidence = np.array([log_evidence(ratios, counts, RELAYED_SHARES) for counts in draws])
    for rate in (0.1, 0.01, 0.001):
        assert (evidence >= -log(rate)).mean() <= rate
    assert np.exp(evidence).mean() <= 1.5


def test_legs_of_relays_gain_evidence():
    relay, null = calibration.MEASURED.pair_relay, calibration.PAIR_NULL
    ratios = grade_ratios(np.zeros(len(null)), relay, null, 20.0)
    draws = np.random.default_rng(1604).multinomial(14, relay, size=500)
    evidence = np.array([log_evidence(ratios, counts, RELAYED_SHARES) for counts in draws])
    assert (evidence >= -log(1e-5)).mean() >= 0.99


counts_of_legs = st.lists(st.integers(0, 200), min_size=4, max_size=4).map(lambda n: np.array(n, np.int64))
ratios_of_grades = st.lists(st.floats(0.01, 100.0), min_size=4, max_size=4).map(np.array)


@given(ratios_of_grades, counts_of_legs, st.integers(0, 3), st.floats(1.0, 10.0))
def test_a_stronger_ratio_never_lowers_the_evidence(ratios, counts, grade, factor):
    stronger = ratios.copy()
    stronger[grade] *= factor
    assert log_evidence(stronger, counts, RELAYED_SHARES) >= log_evidence(ratios, counts, RELAYED_SHARES) - 1e-9


@given(ratios_of_grades, counts_of_legs, st.integers(0, 3))
def test_a_leg_that_speaks_for_a_relay_never_lowers_the_evidence_and_one_against_never_raises_it(ratios, counts, grade):
    more = counts.copy()
    more[grade] += 1
    change = log_evidence(ratios, more, RELAYED_SHARES) - log_evidence(ratios, counts, RELAYED_SHARES)
    assert change >= -1e-9 if ratios[grade] >= 1.0 else change <= 1e-9


@given(st.lists(st.floats(0.0, 1e6), min_size=7, max_size=7))
def test_an_apps_own_traffic_never_makes_a_grade_rarer_than_a_part_of_what_is_assumed_of_all(counts):
    relay, null = calibration.MEASURED.pair_relay, calibration.PAIR_NULL
    ratios = grade_ratios(np.array(counts), relay, null, 20.0)
    assert (ratios <= relay / (RAREST * null) * (1 + 1e-12)).all()


@given(st.floats(0.0, 1e7))
def test_shifts_never_bring_activity_back_onto_itself(span):
    shifts = shifts_within(span)
    assert (len(shifts) == 0) == (span < SHORTEST_SPAN_S)
    around = np.mod(shifts, span) if len(shifts) else shifts
    assert (np.minimum(around, span - around) >= 9.99).all()


@given(st.lists(st.floats(0.0, 1e5), min_size=1, max_size=20), st.floats(0.0, 290.0))
def test_a_moved_time_stays_near_what_is_judged(begins, shift):
    begin = np.array(begins)
    line = timeline_around(begin, begin + 2.0)
    for time in begins:
        place = moved(time, shift, line)
        assert ((begin - 15.0 - 1e-6 <= place) & (place <= begin + 17.0 + 1e-6)).any()


def test_silence_between_is_cut_out():
    line = timeline_around(np.array([0.0, 10_000.0]), np.array([5.0, 10_005.0]))
    assert line.before[-1] == 70.0
    assert moved(0.0, 30.0, line) == pytest.approx(9_995.0)
    assert moved(10_000.0, 30.0, line) == pytest.approx(-5.0)


@pytest.mark.parametrize("step", [60.0, 10.0, 1.0])
def test_the_clocks_step_is_seen_in_the_starts(step):
    starts = 17.25 + step * np.array([0.0, 1.0, 3.0, 11.0])
    assert clock_step(starts) == step
    assert clock_step(starts + np.array([0.0, 0.0, 0.001, 0.0])) == 0.0
