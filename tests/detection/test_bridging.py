"""What a user is promised of one-to-one bridges: conserved pairs are found in each topology, look-alikes are not."""

import numpy as np
import pytest
from flow_columns import Flow, flow_columns
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.detection.bridging import (
    EARLY_S,
    NO_MATCH,
    TOGETHER_S,
    conservation,
    own_grades,
    own_match,
    pair_score,
    score_bridging,
    sure_prospects,
)
from relaywatch.detection.calibration import FEWEST_BRIDGES, MEASURED, PAIR_EDGES, PAIR_SURE_GRADE
from relaywatch.detection.columns import OVERHEAD, group_of
from relaywatch.detection.sieving import may_have_case

WINDOW_S, UPLINK = 10.0, 4096.0
SURE = 11.6
"""Natural log evidence beyond one false alarm in 100,000 app-days."""

sizes = st.floats(2_000.0, 1e8)


def evidence(flows: list[Flow], window: float = WINDOW_S, uplink: float = UPLINK) -> float:
    return float(score_bridging(flow_columns(flows), window, FEWEST_BRIDGES, uplink, MEASURED)[0])


def web(rng: np.random.Generator, count: int) -> list[tuple[float, float]]:
    """Request and answer bytes."""
    return [(float(int(rng.lognormal(6.6, 0.5))), float(int(rng.lognormal(9.8, 1.1)) + 400)) for _ in range(count)]


def listener(rng: np.random.Generator, sessions: int = 14, lag: float = 0.2) -> list[Flow]:
    flows, at = [], 0.0
    for k, (asked, answered) in enumerate(web(rng, sessions)):
        at += 5.0 + rng.exponential(25.0)
        life = 1.0 + rng.exponential(4.0)
        flows.append(Flow(at, at + lag + life, answered, asked + 12, 7, inbound=True, port=1080))
        flows.append(Flow(at + lag, at + lag + life, asked, answered, 100 + k))
    return flows


def back_connect(rng: np.random.Generator, sessions: int = 14, waited: tuple[float, float] = (0.2, 0.2)) -> list[Flow]:
    flows, at = [], 300.0
    for k, (asked, answered) in enumerate(web(rng, sessions)):
        at += 5.0 + rng.exponential(25.0)
        life = 1.0 + rng.exponential(4.0)
        flows.append(Flow(at - rng.uniform(*waited), at + life + 0.05, answered * 1.01, asked * 1.01 + 30, 7))
        flows.append(Flow(at, at + life, asked, answered, 100 + k))
    return flows


def own(rng: np.random.Generator, count: int = 40) -> list[Flow]:
    starts = rng.uniform(0.0, 600.0, count)
    lives = rng.exponential(3.0, count) + 0.3
    pairs = zip(starts, lives, web(rng, count), strict=True)
    return [Flow(s, s + life, asked, answered, 500 + k % 6) for k, (s, life, (asked, answered)) in enumerate(pairs)]


RELAYS = {
    "listener": listener,
    "fresh links": back_connect,
    "pool of links": lambda rng: back_connect(rng, waited=(30.0, 250.0)),
}


def conserved(*counts):
    return conservation(*np.log(np.array(counts) + OVERHEAD).tolist())


class TestConservation:
    @given(sizes, sizes)
    def test_what_is_passed_on_speaks_for_a_bridge_at_any_scale(self, asked, answered):
        assert conserved(answered, asked, asked, answered) > 4.0

    @given(st.floats(2e5, 1e6), st.floats(2e5, 1e6), st.floats(0.2, 5.0), st.floats(1.0, 1e3))
    def test_only_ratios_matter_once_bytes_are_many(self, asked, answered, gain, scale):
        plain = conserved(answered * gain, asked, asked, answered)
        scaled = conserved(answered * gain * scale, asked * scale, asked * scale, answered * scale)
        assert scaled == pytest.approx(plain, abs=0.15)

    @given(sizes, st.floats(4.0, 1e3))
    def test_directions_are_swapped(self, asked, more):
        answered = asked * more
        passed_on = conserved(answered, asked, asked, answered)
        same_direction = conserved(asked, answered, asked, answered)
        assert passed_on > same_direction + 4.0

    @given(sizes, st.floats(1.2, 50.0))
    def test_too_much_and_too_little_count_alike(self, size, factor):
        more = conserved(size * factor, 1e5, 1e5, size)
        less = conserved(size, 1e5, 1e5, size * factor)
        assert more == pytest.approx(less, abs=0.7)

    @given(sizes, st.floats(1.02, 20.0), st.floats(1.1, 5.0))
    def test_further_from_balance_never_speaks_more_for_a_bridge(self, size, factor, further):
        near = conserved(size * factor, 1e5, 1e5, size)
        assert conserved(size * factor * further, 1e5, 1e5, size) <= near + 1e-9

    @given(st.floats(0.1, 0.5))
    def test_tolerance_widens_as_bytes_shrink(self, deviation):
        def lost(size: float) -> float:
            return conserved(size, 1e5, 1e5, size) - conserved(size * (1 + deviation), 1e5, 1e5, size)

        losses = [lost(size) for size in (300.0, 3_000.0, 30_000.0, 3e6)]
        assert losses == sorted(losses)
        assert losses[0] < losses[-1] / 2

    def test_small_and_empty_exchanges_prove_little(self):
        assert conserved(60.0, 60.0, 60.0, 60.0) < conserved(6e4, 6e4, 6e4, 6e4) / 2
        assert conserved(0.0, 0.0, 0.0, 0.0) < np.log(4.01)


class TestRelays:
    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("topology", RELAYS)
    def test_each_topology_is_found(self, topology, seed):
        assert evidence(RELAYS[topology](np.random.default_rng(seed))) > SURE

    @pytest.mark.parametrize("topology", RELAYS)
    def test_the_apps_own_traffic_does_not_hide_it(self, topology):
        rng = np.random.default_rng(5)
        assert evidence(RELAYS[topology](rng) + own(rng)) > SURE

    def test_frames_around_what_is_passed_on_do_not_hide_it(self):
        framed = [
            f._replace(bytes_out=f.bytes_out * 1.08) if f.remote == 7 else f for f in RELAYS["fresh links"](rng())
        ]
        assert evidence(framed) > SURE

    def test_sessions_beyond_the_time_window_are_no_pairs(self):
        flows = listener(rng(), lag=8.0)
        assert evidence(flows, window=10.0) > SURE
        assert evidence(flows, window=4.0) == 0.0

    def test_pool_of_links_that_ends_with_its_sessions_is_found_with_any_window(self):
        assert evidence(RELAYS["pool of links"](rng()), window=0.001) > SURE

    def test_fewer_sent_than_the_uplink_threshold_is_not_weighed(self):
        flows = listener(rng())
        sent = sum(f.bytes_out for f in flows if f.inbound)
        assert evidence(flows, uplink=sent) > SURE
        assert evidence(flows, uplink=sent + 1) == 0.0

    def test_fewer_bridges_than_worth_a_score_give_none(self):
        flows = listener(rng(), sessions=FEWEST_BRIDGES - 1)
        assert evidence([*flows, *own(rng(), 10)], uplink=0.0) == 0.0


class TestOthers:
    @pytest.mark.parametrize("seed", range(8))
    def test_flows_in_and_flows_out_that_have_nothing_to_do_with_each_other_are_none(self, seed):
        rng = np.random.default_rng(seed)
        served = [Flow(f.start, f.end, f.bytes_in, f.bytes_out, 7, inbound=True, port=1080) for f in own(rng, 60)]
        assert evidence(served + own(rng, 60)) < 3.0

    @pytest.mark.parametrize("seed", range(4))
    def test_bytes_dealt_to_other_sessions_are_no_relay(self, seed):
        rng = np.random.default_rng(seed)
        flows = listener(rng, 30)
        clients, others = [f for f in flows if f.inbound], [f for f in flows if not f.inbound]
        dealt = rng.permutation(len(clients))
        moved = [
            f._replace(bytes_out=clients[k].bytes_out, bytes_in=clients[k].bytes_in)
            for f, k in zip(clients, dealt, strict=True)
        ]
        assert evidence(moved + others) < 3.0

    def test_accepted_flows_alone_are_none(self):
        assert evidence([f for f in listener(rng()) if f.inbound]) == 0.0

    def test_legs_without_byte_counts_are_none(self):
        blind = [f._replace(bytes_out=-1.0, bytes_in=-1.0) for f in listener(rng())]
        assert evidence(blind, uplink=0.0) == 0.0

    def test_targets_without_byte_counts_are_none(self):
        blind = [f if f.inbound else f._replace(bytes_out=-1.0, bytes_in=-1.0) for f in listener(rng())]
        assert evidence(blind) == 0.0

    def test_name_lookups_are_no_targets(self):
        flows = [f if f.inbound else f._replace(lookup=True, protocol=17) for f in listener(rng())]
        assert evidence(flows) == 0.0


@given(st.randoms(use_true_random=False))
def test_order_of_flows_that_start_together_does_not_matter(random):
    flows = [f._replace(start=float(int(f.start))) for f in listener(rng()) + own(rng(), 15)]
    shuffled = random.sample(flows, len(flows))
    assert evidence(shuffled) == pytest.approx(evidence(flows), abs=1e-9)


def rng() -> np.random.Generator:
    return np.random.default_rng(1604)


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_pairs_ruled_out_unscored_are_never_the_best(seed, inbound):
    rng = np.random.default_rng(seed)
    rows = [
        Flow(
            start=float(rng.uniform(0, 30)),
            end=float(rng.uniform(30, 60)),
            bytes_out=float(rng.lognormal(6, 2)),
            bytes_in=float(rng.lognormal(7, 2)),
            inbound=bool(inbound and k % 4 == 0),
            remote=int(rng.integers(1, 6)),
        )
        for k in range(40)
    ]
    columns = flow_columns(rows)
    group = group_of(columns, 0)
    legs = np.flatnonzero(group.side == group.side[0])
    found = own_match(group, legs, legs, WINDOW_S)[0]
    for leg, best in zip(legs.tolist(), found.tolist(), strict=True):
        near = np.abs(group.end - group.end[leg]) <= TOGETHER_S if not group.inbound[leg] else np.zeros(40, bool)
        soon = (group.start >= group.start[leg] - EARLY_S) & (group.start <= group.start[leg] + WINDOW_S)
        every = [pair_score(group, leg, row, WINDOW_S) for row in np.flatnonzero(near | soon).tolist()]
        assert best == max([NO_MATCH, *every])


@pytest.mark.parametrize("relay", RELAYS.values())
def test_a_group_that_is_passed_over_unscored_has_no_evidence(relay):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        flows = relay(rng) if seed % 2 else [Flow(*row) for row in _unrelated(rng)]
        columns = flow_columns(flows)
        may = bool(may_have_case(columns, WINDOW_S, FEWEST_BRIDGES, UPLINK, MEASURED)[0])
        assert may or evidence(flows) == 0.0
        assert may == (seed % 2 == 1)


def test_every_sure_pair_is_among_the_prospects_and_grades_are_those_of_the_best_scores():
    for seed in range(24):
        rng = np.random.default_rng(seed)
        relay = list(RELAYS.values())[seed % 3](rng)
        mixed = [*relay, *own(rng), *(Flow(*row) for row in _unrelated(rng))]
        datagrams = [flow._replace(protocol=17) if seed % 4 == 3 else flow for flow in mixed]
        group = group_of(flow_columns(datagrams), 0)
        legs = np.arange(len(group.start))
        donors = np.roll(legs, seed // 12)
        scores = own_match(group, legs, donors, WINDOW_S)[0]
        if seed < 12:
            assert sure_prospects(group, WINDOW_S)[scores >= PAIR_EDGES[PAIR_SURE_GRADE - 1]].all()
        grades = np.bincount(np.searchsorted(PAIR_EDGES, scores, "right"), minlength=len(PAIR_EDGES) + 1)
        assert own_grades(group, legs, donors, WINDOW_S).tolist() == grades.tolist()


def _unrelated(rng: np.random.Generator) -> list[tuple[float, float, float, float, int]]:
    """Flows of an app that talks for itself."""
    starts = np.sort(rng.uniform(0, 900, 60)).tolist()
    return [
        (at, at + 2.0, float(rng.lognormal(6, 1)), float(rng.lognormal(9, 1)), int(rng.integers(5))) for at in starts
    ]
