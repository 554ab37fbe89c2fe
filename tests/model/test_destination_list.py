"""Destinations that a user names cover what they say and nothing more."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.model.destination_list import DestinationList

LABELS = st.text("abcxyz019", min_size=1, max_size=8)


def test_domain_covers_itself_and_the_names_under_it():
    listed = DestinationList.parse(["Corp.Example."])
    assert listed.covers_name("corp.example")
    assert listed.covers_name("A.B.CORP.example.")
    assert not listed.covers_name("notcorp.example")
    assert not listed.covers_name("corp.example.evil.test")
    assert not listed.covers_name("")


def test_text_longer_than_any_host_name_is_covered_by_nothing():
    listed = DestinationList.parse(["corp.example"])
    assert listed.covers_name("a." * 120 + "corp.example")
    assert not listed.covers_name("a." * 121 + "corp.example")


def test_international_domain_is_listed_by_its_ascii_form():
    assert DestinationList.parse(["bücher.example"]).covers_name("www.xn--bcher-kva.example")


def test_prefix_covers_addresses_of_its_family_only():
    listed = DestinationList.parse(["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"])
    assert listed.covers_address("10.255.0.1")
    assert listed.covers_address("::ffff:10.0.0.1")
    assert listed.covers_address("2001:db8::1")
    assert listed.covers_address("192.0.2.7")
    assert not listed.covers_address("192.0.2.8")
    assert not listed.covers_address("not an address")


@pytest.mark.parametrize(
    "entry",
    ["", "com", "co.uk", "github.io", "a b.example", "-a.example", "10.0.0.1/8", "10.0.0.300", "1::2::3", "x/8"],
)
def test_entry_that_is_no_destination_is_refused_by_name(entry):
    with pytest.raises(ValueError, match=r"is no address prefix|neither a domain|public suffix") as refused:
        DestinationList.parse(["corp.example", entry])
    assert repr(entry) in str(refused.value)


def test_empty_list_covers_nothing():
    listed = DestinationList.parse([])
    assert not listed
    assert not listed.covers_name("corp.example")
    assert not listed.covers_address("10.0.0.1")


@given(st.lists(LABELS, min_size=1, max_size=5))
def test_names_under_a_domain_are_covered_whatever_stands_before_it(labels):
    listed = DestinationList.parse(["corp.example"])
    assert listed.covers_name(".".join([*labels, "corp", "example"]))
    assert not listed.covers_name("-".join([*labels, "corp.example"]))


@given(st.text(max_size=300))
def test_any_text_is_answered(text):
    listed = DestinationList.parse(["corp.example", "10.0.0.0/8"])
    assert isinstance(listed.covers_name(text), bool)
    assert isinstance(listed.covers_address(text), bool)


@given(st.text(max_size=40))
def test_any_entry_is_listed_or_refused(text):
    try:
        listed = DestinationList.parse([text])
    except ValueError as refused:
        assert repr(text) in str(refused)
    else:
        assert len(listed.domains) + len(listed.networks) == 1


@given(st.ip_addresses())
def test_single_address_covers_itself(address):
    listed = DestinationList.parse([str(ipaddress.ip_network(address))])
    mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped
    assert listed.covers_address(str(address)) or mapped
