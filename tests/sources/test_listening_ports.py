from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaywatch.sources.listening_ports import EPHEMERAL_PORTS, accepted, fewest_remotes

SCHEMA = {
    "protocol_num": pl.UInt8,
    "local_ip": pl.String,
    "local_port": pl.UInt16,
    "remote_ip": pl.String,
    "remote_port": pl.UInt16,
}


def judged(*connections):
    return accepted(pl.DataFrame(connections, schema=SCHEMA, orient="row")).to_list()


def sessions(*clients, port=1080, protocol=6, local="10.0.0.5"):
    return [(protocol, local, port, address, remote_port) for address, remote_port in clients]


CLIENTS = (("198.51.100.7", 50001), ("198.51.100.7", 50007), ("203.0.113.9", 40000))


def test_a_port_that_several_clients_share_is_a_listener():
    assert judged(*sessions(*CLIENTS)) == [True] * 3


def test_connections_beside_a_listener_stay_dialled():
    dialled = [(6, "10.0.0.5", 40000 + at, "192.0.2.1", 443) for at in range(3)]
    assert judged(*dialled, *sessions(*CLIENTS)) == [False] * 3 + [True] * 3


@pytest.mark.parametrize(
    "connections",
    [
        sessions(*CLIENTS[:2]),
        sessions(*CLIENTS, protocol=17),
        sessions(("192.0.2.1", 443), ("192.0.2.2", 443), ("192.0.2.3", 443)),
        sessions(("192.0.2.1", 5228), ("192.0.2.2", 5228), ("192.0.2.3", 5228)),
        sessions(*[CLIENTS[0]] * 5),
        sessions(*CLIENTS, ("192.0.2.3", 443)),
        [*sessions(*CLIENTS[:2]), *sessions(CLIENTS[2], local="10.0.0.6")],
        sessions(("198.51.100.7", None), ("198.51.100.8", None), ("198.51.100.9", None)),
    ],
    ids=["two remotes", "UDP", "servers", "one service", "one remote", "also a server", "two addresses", "no ports"],
)
def test_anything_less_is_no_listener(connections):
    assert not any(judged(*connections))


def test_no_connections_are_no_listeners():
    assert judged() == []


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 20_000))
@settings(max_examples=25, deadline=None)
def test_ephemeral_ports_that_repeat_by_chance_are_no_listeners(seed, count):
    frame = pl.select(row=pl.int_range(count)).with_columns(
        protocol_num=pl.lit(6, pl.UInt8),
        local_ip=pl.lit("10.0.0.5"),
        local_port=(pl.col("row").hash(seed) % EPHEMERAL_PORTS + 37_000).cast(pl.UInt16),
        remote_ip=pl.format("198.51.100.{}", pl.col("row") % 250),
        remote_port=(pl.col("row").hash(seed + 1) % 60_000 + 1_024).cast(pl.UInt16),
    )
    # Chance is bounded, not abolished: at most one port of a list.
    assert accepted(frame).sum() <= fewest_remotes(count)


def test_a_busy_listener_stands_out_of_many_connections():
    dialled = [(6, "10.0.0.5", 37_000 + at, "192.0.2.1", 6_881 + at) for at in range(EPHEMERAL_PORTS)]
    found = judged(*dialled, *sessions(*[("198.51.100.7", 50_000 + at) for at in range(50)]))
    assert sum(found) == 50


@given(few=st.integers(0, 10**7), more=st.integers(0, 10**7))
def test_the_more_connections_the_more_remotes_are_asked_for(few, more):
    low, high = sorted((few, more))
    assert 3 <= fewest_remotes(low) <= fewest_remotes(high)
