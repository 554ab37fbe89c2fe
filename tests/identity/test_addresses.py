"""Whose an address was: by lease and time, and nobody's where two devices claim it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.identity.addresses import CONTESTED, NOBODY, Assignment, address_book

LEASES = st.lists(
    st.builds(Assignment, st.just("10.0.0.5"), st.integers(0, 3), st.integers(0, 40), st.none() | st.integers(0, 60)),
    min_size=1,
    max_size=8,
)


def test_a_lease_holds_from_its_begin_to_its_end():
    book = address_book([Assignment("10.0.0.5", 7, 100, 200)], {})
    assert book.at("10.0.0.5", np.array([99, 100, 199, 200])).tolist() == [NOBODY, 7, 7, NOBODY]
    assert book.addresses == {"10.0.0.5"}


def test_an_open_lease_ends_where_the_next_begins():
    book = address_book([Assignment("10.0.0.5", 1, 0, None), Assignment("10.0.0.5", 2, 500, None)], {})
    assert book.at("10.0.0.5", np.array([0, 499, 500, 10**15])).tolist() == [1, 1, 2, 2]


def test_two_claims_for_one_time_answer_for_nobody():
    book = address_book([Assignment("10.0.0.5", 1, 0, 300), Assignment("10.0.0.5", 2, 200, 400)], {})
    assert book.at("10.0.0.5", np.array([100, 250, 350])).tolist() == [1, CONTESTED, 2]


def test_claims_of_two_names_of_one_device_do_not_contradict():
    book = address_book([Assignment("10.0.0.5", 1, 0, 300), Assignment("10.0.0.5", 2, 200, 400)], {2: 1})
    assert book.at("10.0.0.5", np.array([100, 250, 350])).tolist() == [1, 1, 1]


@given(leases=LEASES, time=st.integers(-5, 70), data=st.data())
def test_every_time_is_answered_as_the_leases_say(leases, time, data):
    book = address_book(data.draw(st.permutations(leases)), {})
    begins = sorted(lease.begin for lease in leases)
    claims = set()
    for lease in leases:
        end = lease.end
        if end is None:
            end = next((begin for begin in begins if begin > lease.begin), 2**62)
        if lease.begin <= time < end:
            claims.add(lease.device)
    expected = NOBODY if not claims else claims.pop() if len(claims) == 1 else CONTESTED
    assert book.at("10.0.0.5", np.array([time])).tolist() == [expected]
