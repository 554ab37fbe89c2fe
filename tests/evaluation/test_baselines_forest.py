import numpy as np
import pytest
from baseline_traffic import flow, packets, traffic

from relaywatch.evaluation.baselines.flow_statistics import FEATURES, _names, flow_statistics
from relaywatch.evaluation.baselines.random_forest import FlowForest, Sample, Target

NOON = 1_700_000_000.0


def features(flows, rows):
    found = flow_statistics(traffic(flows).flows, packets(rows))
    return [dict(zip(_names(), vector, strict=True)) for vector in found.vectors], found


def exchange(flow_id, rng, size, gap, count=20):
    """Requests and answers of about `size` bytes, about `gap` seconds apart."""
    times = NOON + np.cumsum(rng.exponential(gap, count))
    return [(flow_id, float(time), k % 2 == 0, int(rng.normal(size, size / 20))) for k, time in enumerate(times)]


def test_vector_by_hand():
    rows = [(1, NOON, True, 0), (1, NOON + 1, False, 0), (1, NOON + 2, True, 100), (1, NOON + 4, False, 300)]
    (one,), found = features([flow(1, NOON)], rows)
    assert found.vectors.shape == (1, FEATURES) == (1, 186)
    assert one["size_up_mean_2"] == 54 + 50
    assert one["size_up_max_64"] == 154
    assert one["size_down_std_2"] == 150
    assert one["size_all_min_4"] == 54
    assert one["gap_up_mean_2"] == 2.0
    assert one["gap_all_max_4"] == 2.0
    assert one["gap_all_mean_4"] == pytest.approx(4 / 3)
    # Two packets of each direction, and no third, so no rate; of all four, the first two and no more: 4 needs a fifth.
    assert one["bytes_up_2"] == one["packets_down_8"] == 0.0
    assert one["bytes_all_64"] == one["bytes_all_2"] == 108.0
    assert one["packets_all_2"] == 2.0
    # Before the second upstream packet neither side had sent: only the handshake counts.
    assert one["ratio_2"] == one["ratio_64"] == 0.5


def test_upstream_is_what_the_first_sender_sends():
    rows = [(1, NOON, False, 10), (1, NOON + 1, True, 500), (1, NOON + 2, False, 10), (1, NOON + 3, True, 500)]
    (one,), _ = features([flow(1, NOON, inbound=True)], rows)
    assert one["size_up_max_2"] == 64
    assert one["size_down_max_2"] == 554
    assert one["ratio_2"] == 11 / (11 + 501)


def test_only_first_packets_count():
    rows = [(1, NOON + k, k % 2 == 0, 10) for k in range(400)]
    late = [(1, NOON + 400 + k, True, 1400) for k in range(9)]
    (one,), _ = features([flow(1, NOON)], rows)
    (same,), _ = features([flow(1, NOON)], rows + late)
    assert one == same


def test_flow_with_one_packet_in_a_direction_has_no_vector():
    rows = [(1, NOON, True, 10), (1, NOON + 1, True, 10), (1, NOON + 2, False, 10)]
    _, found = features([flow(1, NOON)], rows)
    assert found.vectors.shape == (0, FEATURES)


def test_packets_at_one_instant_give_finite_numbers():
    _, found = features([flow(1, NOON)], [(1, NOON, k % 2 == 0, 0) for k in range(8)])
    assert np.isfinite(found.vectors).all()


def test_order_of_rows_does_not_matter():
    rng = np.random.default_rng(1)
    rows = exchange(1, rng, 500, 0.1) + exchange(2, rng, 50, 1.0)
    flows = [flow(1, NOON), flow(2, NOON)]
    _, found = features(flows, rows)
    turned = flow_statistics(traffic(flows[::-1]).flows, packets(rows).sample(fraction=1.0, shuffle=True, seed=5))
    assert found.flow_id.tolist() == turned.flow_id.tolist()
    np.testing.assert_allclose(found.vectors, turned.vectors, rtol=1e-9)


def sample(seed, relays):
    """An app with ten own flows, and ten relayed ones of other sizes where it relays."""
    rng = np.random.default_rng(seed)
    flows, rows, roles = [], [], {}
    for k in range(20 if relays else 10):
        relayed = k >= 10
        flows.append(flow(k, NOON))
        rows += exchange(k, rng, 900 if relayed else 90, 0.02 if relayed else 0.5)
        roles[k] = "relay_out" if relayed else "own"
    return Sample(flow_statistics(traffic(flows).flows, packets(rows)), roles)


def test_forest_tells_apart_what_it_was_shown():
    forest = FlowForest.fit(Target.RELAYED, [sample(1, relays=True), sample(2, relays=False)])
    unseen = sample(3, relays=True)
    scores = forest.flow_scores(unseen.statistics)
    assert (
        scores.filter(scores["flow_id"] >= 10)["score"].min()
        > 0.5
        > scores.filter(scores["flow_id"] < 10)["score"].max()
    )
    relay, benign = (forest.app_scores(sample(4, relays=relays).statistics) for relays in (True, False))
    assert relay.greatest > benign.greatest
    assert relay.mean > benign.mean


def test_tunnel_model_looks_for_client_legs_alone():
    without = FlowForest.fit(Target.TUNNEL, [sample(1, relays=True)])
    assert without.app_scores(sample(3, relays=True).statistics) == (0.0, 0.0)


def test_same_seed_same_scores():
    samples = [sample(1, relays=True), sample(2, relays=False)]
    one, other = (FlowForest.fit(Target.RELAYED, samples).flow_scores(samples[0].statistics) for _ in range(2))
    assert one.equals(other)


def test_app_without_vectors_scores_least():
    empty = flow_statistics(traffic([flow(1, NOON)]).flows, packets([]))
    assert FlowForest.fit(Target.RELAYED, [sample(1, relays=True)]).app_scores(empty) == (0.0, 0.0)
