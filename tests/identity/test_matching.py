"""Records of one connection meet: nearest first, each once, whatever their order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.identity.matching import Side, match

TIMES = st.lists(st.tuples(st.integers(0, 3), st.floats(0, 100)), max_size=25)

BURST = st.lists(st.tuples(st.integers(0, 1), st.floats(0, 2)), min_size=8, max_size=25)


def side(rows, *, lasting=None, first_seen=False):
    keys = np.array([key for key, _ in rows], np.int64)
    start = np.array([time for _, time in rows], np.float64)
    end = start + (np.inf if lasting is None else lasting)
    return Side(keys, start, end, np.full(len(rows), first_seen))


def pairs(found):
    return sorted(zip(found.left.tolist(), found.right.tolist(), strict=True))


def test_each_record_meets_the_nearest_of_its_endpoint():
    left = side([(1, 10.1), (1, 20.1), (2, 10.0)])
    right = side([(1, 20.0), (1, 10.0), (3, 10.0)])
    assert pairs(match(left, right, 1.0)) == [(0, 1), (1, 0)]


def test_records_beyond_the_tolerance_do_not_meet():
    assert not len(match(side([(1, 0.0)]), side([(1, 3.1)]), 3.0).left)


def test_a_rival_is_counted():
    found = match(side([(1, 10.0), (1, 10.4)]), side([(1, 10.1)]), 1.0)
    assert pairs(found) == [(0, 0)]
    assert found.rivals.tolist() == [1]


def test_a_burst_to_one_endpoint_meets_in_full_though_the_near_ones_are_taken():
    connects = [10.004, 10.0045, 10.005, 10.0055, 10.02]
    packets = [10.0, 10.001, 10.002, 10.003, 10.0035]
    found = match(side([(1, time) for time in connects]), side([(1, time) for time in packets]), 0.25)
    assert sorted(found.left.tolist()) == sorted(found.right.tolist()) == list(range(5))
    assert (found.rivals > 0).all()


def test_another_place_where_a_record_fits_is_counted():
    found = match(side([(1, 10.1)]), side([(1, 10.0), (1, 10.4)]), 1.0)
    assert pairs(found) == [(0, 0)]
    assert found.others.tolist() == [1]


def test_a_socket_table_meets_the_connection_that_was_open():
    snapshot = side([(1, 50.0)], first_seen=True)
    flows = side([(1, 10.0), (1, 48.0)], lasting=5.0)
    assert pairs(match(snapshot, flows, 1.0)) == [(0, 1)]
    assert not len(match(snapshot, side([(1, 10.0)], lasting=5.0), 1.0).left)


@given(left=TIMES, right=TIMES, tolerance=st.floats(0.01, 5))
def test_every_match_is_a_pair_of_equal_endpoint_within_the_tolerance_and_each_row_in_one(left, right, tolerance):
    found = match(side(left), side(right), tolerance)
    assert len(set(found.left.tolist())) == len(found.left)
    assert len(set(found.right.tolist())) == len(found.right)
    for one, other in pairs(found):
        assert left[one][0] == right[other][0]
        assert abs(left[one][1] - right[other][1]) <= tolerance


@given(left=BURST, right=BURST, tolerance=st.floats(0.01, 5))
def test_no_two_records_that_could_have_met_are_both_left_alone(left, right, tolerance):
    found = match(side(left), side(right), tolerance)
    alone = [set(range(len(rows))) - set(met.tolist()) for rows, met in ((left, found.left), (right, found.right))]
    for one in alone[0]:
        for other in alone[1]:
            assert left[one][0] != right[other][0] or abs(left[one][1] - right[other][1]) > tolerance


@given(rows=TIMES)
def test_a_source_matches_itself_in_full(rows):
    distinct = sorted({(key, round(time, 1)) for key, time in rows})
    found = match(side(distinct), side(distinct), 0.05)
    assert pairs(found) == [(n, n) for n in range(len(distinct))]
