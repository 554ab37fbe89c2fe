"""What figures of single flows promise: no family sets its own threshold, and flows without a score count."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled import app

from relaywatch.evaluation.flow_level import Sought, best_threshold, flow_row, scored_flows

ROLES = {0: "relay_in", 1: "relay_out", 2: "own", 3: "dns"}


def flows(scores, family="microsocks", sought=Sought.BOTH, roles=ROLES):
    return scored_flows(app(family=family, roles=roles), sought, scores)


@pytest.mark.parametrize(
    ("sought", "flags"),
    [
        (Sought.CLIENT_LEGS, [True, False, False, False]),
        (Sought.TARGET_LEGS, [False, True, False, False]),
        (Sought.BOTH, [True, True, False, False]),
    ],
)
def test_what_is_sought_is_told_by_roles(sought, flags):
    assert flows({}, sought=sought).sought.tolist() == flags


def test_a_flow_that_a_rule_does_not_score_is_missed():
    row = flow_row("rule", Sought.BOTH, [flows({0: 1.0}, "a"), flows({0: 1.0, 1: 1.0}, "b")])
    assert (row.flows, row.recall.value, row.precision.value) == (8, 0.75, 1.0)
    assert row.false_positive_rate.value == 0.0


def test_a_family_has_no_part_in_its_own_threshold():
    # In each family a threshold of its own would tell all; that of the other is too low, or too high.
    low, high = flows({0: 2.0, 1: 2.0, 2: 1.0, 3: 1.0}, "low"), flows({0: 9.0, 1: 9.0, 2: 8.0, 3: 8.0}, "high")
    row = flow_row("rule", Sought.BOTH, [low, high])
    assert row.recall.value == 0.5
    assert row.false_positive_rate.value == 0.5
    assert row.f1 == pytest.approx(2 * 0.5 * 0.5 / (0.5 + 0.5))


def test_apps_of_one_family_are_held_out_together():
    pair = [flows({0: 2.0, 1: 2.0}, "a"), flows({0: 2.0, 1: 2.0}, "a")]
    assert flow_row("rule", Sought.BOTH, pair).recall.value == 0.0


def test_nothing_is_called_where_no_threshold_is_worth_it():
    assert best_threshold(np.array([-np.inf, -np.inf]), np.array([True, False])) == np.inf
    assert best_threshold(np.array([1.0, 2.0]), np.array([False, False])) == np.inf
    assert best_threshold(np.empty(0), np.empty(0, np.bool_)) == np.inf


@given(st.lists(st.tuples(st.sampled_from([-np.inf, 0.0, 1.0, 2.0, 3.0]), st.booleans()), min_size=1))
def test_no_other_threshold_has_a_better_f1(labelled):
    score, sought = np.array([s for s, _ in labelled]), np.array([flag for _, flag in labelled])

    def f1(least):
        called = score >= least
        return 2.0 * (called & sought).sum() / max(called.sum() + sought.sum(), 1)

    assert f1(best_threshold(score, sought)) == pytest.approx(max(f1(least) for least in (0.0, 1.0, 2.0, 3.0, np.inf)))
