"""What figures of pairs promise: every pair counts, thresholds keep their rate, and a bridge is found where it is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled import EXAMPLES, app

from relaywatch.detection.calibration import MEASURED
from relaywatch.evaluation.app_traffic import read_columns, read_traffic
from relaywatch.evaluation.bridges import (
    FALSE_POSITIVE_RATES,
    bridge_rows,
    rule_row,
    scenario_rows,
    score_pairs,
    scored,
)

FLOWS = range(100)


def relay(scores, true, flows=FLOWS, **other):
    return scored(app(pairs=frozenset(true), **other), flows, scores)


def test_pairs_that_nobody_lists_are_negatives_too():
    own = relay({(0, 1): 3.0, (4, 5): 1.0}, [(0, 1), (2, 3)])
    assert own.true.tolist() == [3.0, -np.inf]
    assert own.false.tolist() == [1.0]
    assert own.pairs == 100 * 99
    assert (own.clients, own.targets) == ({0: 3.0, 4: 1.0}, {1: 3.0, 5: 1.0})
    assert own.flows == {0: 3.0, 1: 3.0, 4: 1.0, 5: 1.0}


def test_the_threshold_is_of_ordinary_apps_too():
    own = relay({(0, 1): 3.0, (2, 3): 1.0}, [(0, 1), (2, 3)])
    ordinary = scored(app(label="benign"), FLOWS, {(k, 50): 2.0 for k in range(40)})
    alone, beside = rule_row("rule", [own]), rule_row("rule", [own, ordinary])
    assert [found.value for found in alone.found] == [1.0, 1.0, 1.0]
    # 40 false pairs at 2.0 of 19,798: more than any of the rates allows.
    assert [found.value for found in beside.found] == [0.5, 0.5, 0.5]


def test_a_true_pair_that_is_not_listed_is_never_found():
    row = rule_row("rule", [relay({}, [(0, 1)])])
    assert (row.pairs, [found.value for found in row.found], row.median) == (1, [0.0, 0.0, 0.0], 0.0)


def test_the_median_is_of_traces_whatever_they_hold():
    many = relay({(k, k + 1): 5.0 for k in range(90)}, [(k, k + 1) for k in range(90)])
    few = [relay({}, [(0, 1)]) for _ in range(2)]
    row = rule_row("rule", [many, *few])
    assert row.found[0].value == pytest.approx(90 / 92)
    assert row.median == 0.0


def test_rows_are_by_hiding_topology_and_scenario():
    open_ = relay({(0, 1): 1.0}, [(0, 1)])
    hidden = relay({}, [(0, 1)], scenario="evade-delay", topology="tunnel")
    rows = {row.group: row.found[0].value for row in bridge_rows([open_, hidden])}
    assert rows == {
        "all": 0.5,
        "not hidden": 1.0,
        "hidden": 0.0,
        "not hidden, accepted": 1.0,
        "hidden, tunnel": 0.0,
    }
    assert [row.group for row in scenario_rows([open_, hidden])] == ["evade-delay", "microsocks-scrape"]


scores = st.dictionaries(st.tuples(st.integers(0, 30), st.integers(31, 60)), st.integers(-5, 5).map(float))


@given(scores, st.sets(st.tuples(st.integers(0, 30), st.integers(31, 60)), min_size=1))
def test_false_pairs_beyond_a_threshold_keep_its_rate(listed, true):
    own = relay(listed, true, range(61))
    found = rule_row("rule", [own]).found
    for rate, share in zip(FALSE_POSITIVE_RATES, found, strict=True):
        allowed = int(rate * (own.pairs - len(true)))
        beaten = sorted(own.false.tolist(), reverse=True)[allowed] if len(own.false) > allowed else -np.inf
        assert share.value * len(true) == pytest.approx(sum(score > beaten for score in own.true.tolist()))


def test_bridges_of_a_listener_rank_above_all_else():
    trace = EXAMPLES / "T1048"
    flows = read_traffic(app("T1048", folder=trace)).flows
    # Each accepted session of this trace is followed at once by one connection to a site.
    begun = {row["flow_id"]: row["start"] for row in flows.iter_rows(named=True)}
    accepted = flows.filter("inbound")["flow_id"].to_list()
    dialled = flows.filter(~flows["inbound"] & (flows["protocol"] == "tcp"))["flow_id"].to_list()
    pairs = {
        (client, min((t for t in dialled if begun[t] > begun[client]), key=begun.__getitem__)) for client in accepted
    }
    (columns,) = read_columns([app("T1048", folder=trace, pairs=frozenset(pairs))])
    own = score_pairs(columns, MEASURED)
    assert own.pairs == 87 * 86
    row = rule_row("relaywatch", [own])
    assert row.pairs == len(accepted)
    assert row.found[0].value > 0.9
    assert rule_row("relaywatch", [score_pairs(columns.without_volumes, MEASURED)]).found[0].value > 0.9
