"""The wire: nothing leaves, packets of one pair keep their order, and a slow radio delays and then drops."""

import itertools
import random
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from relay_range import addresses
from relay_range.wire import QUEUE_S, Radio, Wire, space_of


def radio(rate=1e6, jitter=0.001, loss=0.0):
    return Radio(rate, 0.01, jitter, loss)


def packet(source, target, size=100):
    return bytes(12) + ip_address(source).packed + ip_address(target).packed + bytes(size - 20)


@given(st.ip_addresses(v=4))
def test_only_the_ranges_own_addresses_lead_anywhere(address):
    allowed = address.packed[:2] in (b"\xc6\x12", b"\xc6\x13") or address.packed[:3] == b"\x0a\x07\x00"
    assert space_of(address.packed, 7) is None or allowed


def test_each_space_gets_the_addresses_that_it_answers_for():
    for space in addresses.SPACES:
        for block in addresses.blocks(space, 7):
            first = ip_address(block.partition("/")[0])
            assert space_of(first.packed, 7) == space


@given(st.lists(st.floats(0, 0.01), min_size=2, max_size=40), st.integers(0, 99))
def test_packets_between_two_addresses_never_overtake(gaps, seed):
    wire = Wire({}, 7, radio(jitter=0.02), radio(), None, random.Random(seed))  # noqa: S311
    now, arrivals = 0.0, []
    for gap in gaps:
        now += gap
        arrivals.append(wire.due(now, addresses.PHONE, addresses.INTERNET, packet("10.7.0.23", "198.18.3.4")))
    assert arrivals == sorted(arrivals)
    assert all(due >= 0.01 + addresses.path_delay_s("10.7.0.23", "198.18.3.4") for due in arrivals)


def test_a_radio_takes_a_packets_time_for_a_packet_and_drops_what_would_wait_too_long():
    slow, chance = radio(rate=10_000, jitter=1e-9), random.Random(1)  # noqa: S311
    arrivals = [slow.arrival(0.0, 1000, chance) for _ in range(10)]
    through = [due for due in arrivals if due is not None]
    assert len(through) == int(QUEUE_S / 0.1) + 1
    assert all(later - earlier > 0.0999 for earlier, later in itertools.pairwise(through))


def test_a_radio_that_loses_everything_delivers_nothing():
    assert radio(loss=1.0).arrival(0.0, 100, random.Random(1)) is None  # noqa: S311
