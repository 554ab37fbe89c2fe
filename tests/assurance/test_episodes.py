"""What is promised of drilled episodes: they pass on what they receive, hide as asked, and repeat exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaywatch.assurance.episodes import Episode, Evasion, Wanted, play, without_relaying
from relaywatch.model.finding import Topology
from relaywatch.model.relay_shapes import shapes

TOPOLOGIES = list(Topology)


def played(topology: Topology, seed: int = 1, sessions: int = 40, **further: object) -> Episode:
    return play(Wanted(topology, sessions, 600.0, **further), np.random.default_rng(seed))


@settings(max_examples=40)
@given(st.sampled_from(TOPOLOGIES), st.integers(0, 10_000), st.integers(4, 80))
def test_flows_are_the_sums_of_their_volumes(topology, seed, sessions):
    episode = played(topology, seed, sessions)
    for amount, volume in ((episode.sent, episode.volume_sent), (episode.received, episode.volume_received)):
        assert np.array_equal(np.bincount(episode.volume_flow, volume, len(amount)).astype(np.int64), amount)
    assert (episode.volume_sent >= 0).all()
    assert (episode.end >= episode.start).all()
    assert (~episode.client).sum() == len(episode.begins) == sessions


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_client_side_sends_what_the_target_side_receives(topology):
    for seed in range(20):
        episode = played(topology, seed)
        sent, received = episode.sent[episode.client].sum(), episode.received[~episode.client].sum()
        assert 0.95 <= sent / received <= 1.6


def test_a_decoy_passes_nothing_on():
    ratios = []
    for seed in range(20):
        decoy = without_relaying(Wanted(Topology.ACCEPTED, 40, 600.0), np.random.default_rng(seed))
        clients, targets = decoy.sent[decoy.client], decoy.received[~decoy.client]
        ratios.append(np.abs(np.log(clients / targets)).mean())
        assert np.array_equal(np.bincount(decoy.volume_flow, decoy.volume_sent, len(decoy.sent)), decoy.sent)
    assert min(ratios) > 0.3


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_one_seed_is_one_episode(topology):
    one, again, other = played(topology, 5), played(topology, 5), played(topology, 6)
    assert np.array_equal(one.start, again.start)
    assert one.name == again.name
    assert not np.array_equal(one.start, other.start)


def test_only_the_topology_with_a_listener_accepts():
    assert played(Topology.ACCEPTED).inbound.sum() == 40
    assert not played(Topology.BACK_CONNECT).inbound.any()
    assert played(Topology.TUNNEL).client.sum() <= max(shape.links for shape in shapes()[Topology.TUNNEL])


def test_size_scales_what_is_carried():
    small, large = played(Topology.TUNNEL, size=1.0), played(Topology.TUNNEL, size=3.0)
    assert large.received[~large.client].sum() == pytest.approx(3 * small.received[~small.client].sum(), rel=0.01)


def test_names_and_addresses_are_reserved_ones():
    episode = played(Topology.ACCEPTED)
    assert all(name.endswith(".example") for name in episode.name if name)
    assert all(address.startswith(("198.18.", "198.19.")) for address in episode.remote)


@pytest.mark.parametrize(
    ("evasion", "changed"),
    [
        (Evasion.PADDING, lambda plain, hidden: hidden.sent[0] > 1.1 * plain.sent[0]),
        (Evasion.COMPRESS, lambda plain, hidden: hidden.sent[0] < 0.95 * plain.sent[0]),
        (Evasion.CHAFF, lambda plain, hidden: (hidden.volume_flow == 0).sum() > (plain.volume_flow == 0).sum()),
        (Evasion.BATCH, lambda _, hidden: len(set(hidden.volume_second[hidden.volume_flow == 0] % 60)) <= 30),
        (Evasion.JITTER, lambda plain, hidden: len(hidden.volume_second) == len(plain.volume_second)),
        (Evasion.DELAY, lambda plain, hidden: hidden.end[0] > plain.end[0]),
    ],
)
def test_evasions_change_what_the_relay_sends_and_not_what_it_fetches(evasion, changed):
    plain = play(Wanted(Topology.TUNNEL, 40, 600.0), np.random.default_rng(3))
    hidden = play(Wanted(Topology.TUNNEL, 40, 600.0, 1.0, (evasion,)), np.random.default_rng(3))
    assert changed(plain, hidden)
    told = [list(zip(e.volume_second.tolist(), e.volume_sent.tolist(), strict=True)) for e in (plain, hidden)]
    assert told[0] != told[1]
    assert np.array_equal(plain.received[~plain.client], hidden.received[~hidden.client])


def test_shapes_are_of_real_programs_of_each_topology():
    assert {topology for topology, found in shapes().items() if found} == set(TOPOLOGIES)
    assert len({shape.program for shape in shapes()[Topology.ACCEPTED]}) >= 5
