"""What a user is promised of destinations: parties are counted, not addresses; they temper, and never convict."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.detection.spread import (
    AGAINST_ONE,
    MOST_FOR_MANY,
    DestinationSpread,
    is_private,
    lateral_fact,
    organisations_fact,
    party,
    prefix,
    reached_from_outside,
    spread_item,
    spread_of,
)


def spread(*names: str, sessions: list[int] | None = None, spans: list[tuple[float, float]] | None = None):
    times = np.array(spans or [(k, k + 0.5) for k in range(len(names))], float).T
    counts = np.array(sessions or [1] * len(names), np.int64)
    return spread_of([f"www.{name}" for name in names], ["192.0.2.1"] * len(names), *times, counts)


def test_destinations_without_name_and_address_are_one_and_the_statement_says_so():
    spread = spread_of([None] * 3, ["", "", "198.51.100.9"], np.zeros(3), np.ones(3), np.ones(3, np.int64))
    assert (spread.distinct, spread.parties.count("")) == (2, 2)
    item = spread_item(spread, 8, None)
    assert "2 bridges go to addresses that no source shows" in item.statement


@pytest.mark.parametrize(
    ("hostname", "address", "expected"),
    [
        ("cdn.eu.shop.example", "192.0.2.1", "shop.example"),
        ("WWW.Shop.Example.", "192.0.2.1", "shop.example"),
        ("a.b.co.uk", "192.0.2.1", "b.co.uk"),
        ("co.uk", "192.0.2.1", "192.0.2.0/24"),
        (None, "192.0.2.77", "192.0.2.0/24"),
        (None, "2001:db8:7:8::1", "2001:db8:7::/48"),
        (None, "", ""),
        (None, "not an address", "not an address"),
    ],
)
def test_party_is_the_registrable_domain_or_else_the_prefix(hostname, address, expected):
    assert party(hostname, address) == expected


@given(st.text(max_size=300), st.text(max_size=60))
def test_any_text_has_a_party(hostname, address):
    assert isinstance(party(hostname, address), str)
    assert isinstance(prefix(address), str)
    assert isinstance(is_private(address), bool)


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.3.4", "100.64.0.9", "fe80::1", "fd00::5", "127.0.0.1"])
def test_own_network_is_private(address):
    assert is_private(address)


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "11.0.0.1", ""])
def test_the_internet_is_not_private(address):
    assert not is_private(address)


def test_peak_counts_parties_open_at_one_time():
    seen = spread("a.example", "b.example", "a.example", "c.example", spans=[(0, 10), (2, 4), (3, 9), (4, 5)])
    assert (seen.distinct, seen.peak, seen.prefixes) == (3, 3, 1)
    assert spread("a.example", "a.example", spans=[(0, 10), (1, 10)]).peak == 1


def test_flow_without_a_known_end_counts_where_it_begins():
    assert spread("a.example", "b.example", spans=[(5, 5), (5, 5)]).peak == 2


@pytest.mark.parametrize(("sessions", "main"), [([10], 1), ([8, 1, 1], 1), ([7, 2, 1], 2), ([1] * 10, 8)])
def test_main_parties_hold_four_fifths_of_the_sessions(sessions, main):
    names = [f"p{k}.example" for k in range(len(sessions))]
    assert spread(*names, sessions=sessions).main == main


def test_parties_are_unrelated_destinations_and_many_at_a_time_speak_for_a_relay():
    few, many = (spread(*(f"p{k}.example" for k in range(n)), spans=[(0, 9)] * n) for n in (5, 20))
    assert (
        0 < spread_item(few, 14, (9.0, 20.0)).log_ratio < spread_item(many, 14, (9.0, 20.0)).log_ratio == MOST_FOR_MANY
    )
    assert spread_item(many, 20, (9.0, 20.0)).log_ratio < spread_item(many, 19, (9.0, 20.0)).log_ratio


@given(st.integers(1, 10_000))
def test_sessions_that_reach_one_party_speak_against_and_so_does_evidence_that_rests_on_one(sessions):
    one = spread_item(spread("a.example", sessions=[sessions]), 14, (9.0, 20.0)).log_ratio
    two = spread("a.example", "b.example", sessions=[sessions, sessions])
    assert -AGAINST_ONE * 20.0 == one < 0 <= spread_item(two, 14, (9.0, 20.0)).log_ratio
    for left in ((6.8, 20.0), (9.0, 91.0)):
        assert spread_item(two, 14, left).log_ratio == -AGAINST_ONE * min(left[1], 25.0)


@given(st.integers(1, 500), st.integers(0, 500), st.integers(1, 500))
def test_destinations_alone_never_outweigh_the_prior(distinct, peak, main):
    parties = tuple(f"p{k}.example" for k in range(distinct))
    item = spread_item(DestinationSpread(parties, 1, peak, min(main, distinct)), 14, (9.0, 20.0))
    assert -AGAINST_ONE * 20.0 <= item.log_ratio <= MOST_FOR_MANY


@pytest.mark.parametrize(
    ("target", "client", "outside"),
    [
        ("192.168.1.1", "192.0.2.9", True),
        ("192.168.1.1", "192.168.1.200", False),
        ("192.168.1.1", "192.168.43.5", True),
        ("192.168.1.1", "100.64.3.4", True),
        ("127.0.0.1", "192.168.1.200", True),
        ("fd00:1::5", "fd00:1::9", False),
        ("::ffff:192.168.1.1", "192.168.1.7", False),
        ("198.51.100.1", "192.0.2.9", False),
        ("192.168.1.1", "", True),
    ],
)
def test_private_network_is_reached_from_outside_unless_the_client_is_in_it(target, client, outside):
    assert reached_from_outside([target], [client]).tolist() == [outside]


def test_facts_that_move_no_odds_say_how_many():
    assert organisations_fact(None).value is None
    assert "1 organisation" in organisations_fact(1).statement
    assert "7 organisations" in organisations_fact(7).statement
    assert "3 private destinations: lateral movement" in lateral_fact(3).statement


def test_one_destination_says_nothing_where_clients_on_public_addresses_opened_the_sessions():
    one = DestinationSpread(("a.example",) * 40, 1, 1, 1)
    assert spread_item(one, 14, (0.0, 20.0)).log_ratio < 0.0
    assert spread_item(one, 14, (0.0, 20.0), from_outside=True).log_ratio == 0.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(-1, 5)), min_size=1, max_size=25))
def test_peak_is_the_most_parties_open_at_any_begin_whatever_their_order(legs):
    names = [f"{who}.example" for who, _, _ in legs]
    seen = spread(*names, spans=[(begin, begin + length) for _, begin, length in legs])
    # A leg that ends before it begins is open at its begin.
    spans = [(who, begin, begin + max(length, 0)) for who, begin, length in legs]
    assert seen.peak == max(len({who for who, a, b in spans if a <= moment <= b}) for _, moment, _ in spans)
