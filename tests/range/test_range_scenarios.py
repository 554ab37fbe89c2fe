"""The declared table: enough of every kind, nothing named twice, everything startable, workloads repeatable."""

import ipaddress

import pytest
from relay_range import addresses
from relay_range.__main__ import chosen
from relay_range.apps import APPS
from relay_range.customers import plan
from relay_range.evasion import Evasion
from relay_range.programs import PROGRAMS
from relay_range.scenarios import (
    ACCEPTED,
    BACK_CONNECT,
    BENIGN,
    HOLDOUT,
    MAIN,
    NETWORKS,
    NONE,
    RELAY,
    SCENARIOS,
    TUNNEL,
    context,
)
from relay_range.spaces import RangeError


def test_names_are_unique_and_everything_named_is_declared():
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
    for scenario in SCENARIOS:
        assert scenario.program in PROGRAMS
        assert scenario.network in NETWORKS
        assert not scenario.evasion.own_traffic or scenario.evasion.own_traffic in APPS
        assert (scenario.topology == NONE) == (scenario.label == BENIGN)


def test_relays_of_ten_programs_over_three_topologies_and_ordinary_apps_of_twelve_kinds():
    relays = [scenario for scenario in SCENARIOS if scenario.label == RELAY]
    assert {scenario.topology for scenario in relays} == {ACCEPTED, TUNNEL, BACK_CONNECT}
    assert len({scenario.program for scenario in relays}) >= 10
    assert len({scenario.program for scenario in SCENARIOS if scenario.label == BENIGN}) >= 12


def test_the_hold_out_has_ten_relays_and_twelve_ordinary_apps_of_programs_that_are_nowhere_else():
    held = [scenario for scenario in SCENARIOS if scenario.group == HOLDOUT]
    assert {scenario.name.partition("-")[0] for scenario in held} == {"holdout"}
    assert not {one.program for one in held} & {one.program for one in SCENARIOS if one.group == MAIN}
    relays = [scenario for scenario in held if scenario.label == RELAY]
    assert {scenario.topology for scenario in relays} == {ACCEPTED, TUNNEL, BACK_CONNECT}
    assert len({scenario.family for scenario in relays}) >= 10
    assert len({scenario.family for scenario in held if scenario.label == BENIGN}) >= 12


def test_the_hold_out_runs_only_when_it_is_asked_for():
    assert {scenario.group for scenario in chosen("")} == {MAIN}
    assert {scenario.group for scenario in chosen("", group=HOLDOUT)} == {HOLDOUT}
    assert set(chosen("", group="all")) == set(SCENARIOS)


@pytest.mark.parametrize(
    "name", ["delay_s", "jitter_s", "padding", "chaff_bytes_s", "batch_s", "compress", "rechunk", "links", "gateways",
             "active_only", "own_traffic"],
)  # fmt: skip
def test_every_evasion_is_tried_by_some_scenario(name):
    assert any(getattr(scenario.evasion, name) != getattr(Evasion(), name) for scenario in SCENARIOS)


def test_every_address_is_of_the_benchmark_or_the_private_block():
    allowed = [ipaddress.ip_network(block) for block in ("198.18.0.0/15", "10.0.0.0/8")]
    given = [addresses.address_of(f"{n}.{zone}") for n in range(300) for zone in ("example", "gw.test")]
    given += [addresses.customer_address(n) for n in range(50)] + [addresses.peer_address(n) for n in range(50)]
    given += [addresses.phone_address(9), addresses.lan_peer(9, 40), addresses.RESOLVER]
    assert all(any(ipaddress.ip_address(one) in block for block in allowed) for one in given)
    for space in addresses.SPACES:
        for block in addresses.blocks(space, 9):
            assert any(ipaddress.ip_network(block).subnet_of(wide) for wide in allowed)


def test_delays_are_the_same_both_ways_and_depend_on_the_networks_alone():
    there = addresses.path_delay_s("10.1.0.23", "198.18.7.9")
    assert there == addresses.path_delay_s("198.18.7.200", "10.1.0.23")
    assert 0.004 <= there <= 0.06


@pytest.mark.parametrize(
    "workload", ["scrape", "video", "upload", "slow", "mixed", "low-and-slow", "heavy", "kept", "hop", "varied"]
)
def test_the_same_seed_plans_the_same_sessions_within_the_time(workload):
    planned = plan(workload, 300, 5, [])
    assert planned == plan(workload, 300, 5, [])
    assert planned != plan(workload, 300, 6, [])
    assert planned
    assert all(0 <= start <= 300 for start, _ in planned)


def test_a_relay_that_works_while_the_user_is_active_has_no_session_outside():
    (window,) = context("mix", 0.0, 90.0)["foreground"]
    planned = plan("scrape", 90, 5, [tuple(window)])
    assert planned
    assert all(window[0] <= start <= window[1] for start, _ in planned)
    assert len(planned) < len(plan("scrape", 90, 5, []))


def test_scenarios_are_chosen_by_the_beginning_of_their_names():
    assert {one.name for one in chosen("ssh-dynamic-video,cast")} == {"ssh-dynamic-video", "cast-receiver"}
    assert {one.name for one in chosen("holdout-syncthing")} == {"holdout-syncthing"}
    assert not any(one.name.startswith("evade") for one in chosen("", "evade"))
    with pytest.raises(RangeError, match="no scenario is named nothing-such"):
        chosen("nothing-such")
