import math

import numpy as np
import polars as pl
import pytest
from baseline_traffic import flow, packets, traffic
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.evaluation.baselines import asof_join, beacon, byte_balance, fan_out, hub, long_connection
from relaywatch.evaluation.baselines.registry import baselines
from relaywatch.evaluation.baselines.stepping_stone import RATIO, accepted_and_dialled, dialled_both, stones

NOON = 1_700_000_000.0


def listed(pairs):
    return [(client, target, round(score, 3)) for client, target, score in pairs.iter_rows()]


class TestAsofJoin:
    def test_accepted_connection_goes_with_the_next_dialled_one(self):
        app = traffic([flow(1, NOON, inbound=True), flow(2, NOON + 0.2), flow(3, NOON + 0.3)])
        assert listed(asof_join.next_dialled(app)) == [(1, 2, -0.2)]

    def test_half_a_second_is_too_late_and_before_is_too_early(self):
        app = traffic([flow(1, NOON, inbound=True), flow(2, NOON + 0.5), flow(3, NOON - 0.1)])
        assert asof_join.next_dialled(app).is_empty()

    def test_name_lookup_does_not_hide_the_connection_after_it(self):
        lookup = flow(2, NOON + 0.01, protocol="udp", remote_port=53)
        app = traffic([flow(1, NOON, inbound=True), lookup, flow(3, NOON + 0.2)])
        assert listed(asof_join.next_dialled(app)) == [(1, 3, -0.2)]

    @pytest.mark.parametrize(
        ("other", "count"),
        [
            ({"bytes_out": 95.0, "bytes_in": 4900.0}, 1),
            ({"bytes_out": 85.0, "bytes_in": 4900.0}, 0),
            ({"bytes_out": 95.0, "bytes_in": 5600.0}, 0),
            ({"bytes_out": 4900.0, "bytes_in": 95.0}, 0),
            ({"bytes_out": 95.0, "bytes_in": None}, 0),
        ],
    )
    def test_bytes_agree_within_a_tenth_with_directions_swapped(self, other, count):
        client = flow(1, NOON, inbound=True, bytes_in=100.0, bytes_out=5000.0)
        app = traffic([client, flow(2, NOON + 0.1, **other)])
        assert asof_join.COUNT_BY_BYTES.app_score(app) == count
        assert asof_join.COUNT_BY_TIME.app_score(app) == 1

    def test_share_is_of_accepted_connections_and_never_of_one_alone(self):
        app = traffic([flow(1, NOON, inbound=True), flow(2, NOON + 0.1), flow(3, NOON + 9, inbound=True)])
        assert asof_join.SHARE_BY_TIME.app_score(app) == pytest.approx(1 / 3)


class TestSteppingStone:
    def keystrokes(self, lag, times, target_times=None):
        """A session of small requests, each sent on `lag` seconds later."""
        onward = times if target_times is None else target_times
        return packets(
            [(1, time, False, 50) for time in times] + [(2, time + lag, True, 50) for time in onward],
        )

    def app(self, **target):
        return traffic([flow(1, NOON, inbound=True), flow(2, NOON, **target)])

    def test_connections_whose_silences_end_together_are_a_stone(self):
        found = stones(accepted_and_dialled, self.keystrokes(0.03, [NOON + k for k in range(5)]), self.app())
        assert listed(found) == [(1, 2, 1.0)]

    def test_coincidences_need_not_be_all(self):
        times = [NOON + k for k in range(8)]
        found = stones(
            accepted_and_dialled, self.keystrokes(0.03, times, [*times[:4], *(t + 0.4 for t in times[4:])]), self.app()
        )
        assert listed(found) == [(1, 2, 1.0)]  # The best time counts: Zeek reports a stone once and for all.

    @pytest.mark.parametrize("lag", [0.081, -0.081])
    def test_more_than_80_ms_apart_is_no_coincidence(self, lag):
        assert stones(accepted_and_dialled, self.keystrokes(lag, [NOON + k for k in range(5)]), self.app()).is_empty()

    def test_zeek_does_not_ask_which_connection_resumed_first(self):
        found = stones(accepted_and_dialled, self.keystrokes(-0.03, [NOON + k for k in range(5)]), self.app())
        assert listed(found) == [(1, 2, 1.0)]

    def test_two_coincidences_are_one_in_a_row_and_too_few(self):
        found = stones(accepted_and_dialled, self.keystrokes(0.03, [NOON, NOON + 1]), self.app())
        assert listed(found) == [(1, 2, 0.0)]
        assert found["score"].max() < RATIO

    def test_data_within_half_a_second_ends_no_silence(self):
        found = stones(accepted_and_dialled, self.keystrokes(0.03, [NOON + 0.4 * k for k in range(9)]), self.app())
        assert listed(found) == [(1, 2, 0.0)]

    def test_answers_coming_back_count_for_the_same_pair(self):
        there = [(1, NOON + k, False, 9) for k in range(2)] + [(2, NOON + k + 0.01, True, 9) for k in range(2)]
        back = [(2, NOON + k + 0.3, False, 9) for k in range(2)] + [(1, NOON + k + 0.31, True, 9) for k in range(2)]
        assert listed(stones(accepted_and_dialled, packets(there + back), self.app())) == [(1, 2, 1.0)]

    def test_two_dialled_connections_are_a_stone_only_by_the_wider_rule(self):
        app = traffic([flow(1, NOON), flow(2, NOON)])
        seen = self.keystrokes(0.03, [NOON + k for k in range(5)])
        assert stones(accepted_and_dialled, seen, app).is_empty()
        assert listed(stones(dialled_both, seen, app)) == [(1, 2, 1.0), (2, 1, 1.0)]

    @pytest.mark.parametrize("target", [{"remote": "192.0.2.1", "remote_port": 50_001}, {"local_port": 1080}])
    def test_connections_with_a_common_endpoint_are_passed_over(self, target):
        seen = self.keystrokes(0.03, [NOON + k for k in range(5)])
        assert stones(accepted_and_dialled, seen, self.app(**target)).is_empty()

    def test_datagrams_are_no_connection(self):
        seen = self.keystrokes(0.03, [NOON + k for k in range(5)])
        assert stones(accepted_and_dialled, seen, self.app(protocol="udp")).is_empty()

    def test_packets_without_payload_do_not_count(self):
        seen = self.keystrokes(0.03, [NOON + k for k in range(5)]).with_columns(payload=pl.lit(0, pl.Int64))
        assert stones(accepted_and_dialled, seen, self.app()).is_empty()

    def test_whole_seconds_serve_where_there_are_no_packets(self):
        volumes = [(1, int(NOON) + 2 * k, 0.0, 50.0) for k in range(5)] + [
            (2, int(NOON) + 2 * k, 50.0, 0.0) for k in range(5)
        ]
        app = traffic([flow(1, NOON, inbound=True), flow(2, NOON)], volumes)
        assert listed(stones(accepted_and_dialled, None, app)) == [(1, 2, 1.0)]


class TestHub:
    def test_party_that_is_sent_what_all_others_send_scores_one(self):
        amounts = [500.0, 0.0, 900.0, 100.0, 0.0, 2000.0]
        volumes = [(1, 100 + k, amount, 0.0) for k, amount in enumerate(amounts)]
        volumes += [(2 + k % 3, 100 + k, 0.0, amount) for k, amount in enumerate(amounts)]
        assert hub.hub(traffic([flow(k, NOON) for k in (1, 2, 3, 4)], volumes)) == pytest.approx(1.0)

    def test_sums_of_the_definition(self):
        rng = np.random.default_rng(3)
        sent, received = rng.exponential(1e6, (4, 50)), rng.exponential(1e6, (4, 50))
        volumes = [(k, 7 + s, sent[k, s], received[k, s]) for k in range(4) for s in range(50)]
        others = received.sum(axis=0) - received
        expected = max(
            np.corrcoef(a, b)[0, 1] * min(a.sum(), b.sum()) / max(a.sum(), b.sum())
            for a, b in zip(sent, others, strict=True)
        )
        assert hub.hub(traffic([flow(k, NOON) for k in range(4)], volumes)) == pytest.approx(expected)

    @pytest.mark.parametrize("volumes", [[], [(1, 5, 100.0, 0.0), (2, 5, 0.0, 100.0)]])
    def test_where_nothing_varies_there_is_no_correlation(self, volumes):
        assert hub.hub(traffic([flow(1, NOON), flow(2, NOON)], volumes)) == 0.0


class TestRita:
    @pytest.mark.parametrize(
        ("hours", "score"),
        [(0.99, 0.0), (1.0, 0.2), (2.5, 0.3), (4.0, 0.4), (8.0, 0.6), (10.0, 0.7), (12.0, 0.8), (99.0, 0.8)],
    )
    def test_long_connection_buckets(self, hours, score):
        app = traffic([flow(1, NOON, end=NOON + hours * 3600.0)])
        assert long_connection.long_connection(app) == pytest.approx(score)

    def test_durations_add_up_by_host_name_and_accepted_ones_do_not_count(self):
        half = {"hostname": "a.example", "end": NOON + 7200.0}
        app = traffic([flow(1, NOON, **half), flow(2, NOON, **half), flow(3, NOON, inbound=True, end=NOON + 1e6)])
        assert long_connection.longest_hours(app) == pytest.approx(4.0)

    def test_perfect_beacon_all_day_scores_one(self):
        app = traffic([flow(k, NOON + 300.0 * k, remote="192.0.2.9") for k in range(288)])
        assert beacon.beacon(app) == 1.0

    def test_accepted_connections_and_few_starts_are_no_beacon(self):
        every = [flow(k, NOON + 300.0 * k, remote="192.0.2.9", inbound=True) for k in range(20)]
        few = [flow(100 + k, NOON + 300.0 * k, remote="192.0.2.8") for k in range(3)]
        assert beacon.beacon(traffic(every + few)) == 0.0

    def test_one_destination_by_hand(self):
        seconds = np.array([0, 60, 120, 180, 300, 2400], np.int64)
        # Gaps 60 60 60 120 2100: quartiles 60, 60, 1110, so no skew; MAD 0. Sizes alike. Parts of 100 s with flows:
        # 4 of 24, fewer than 6, so no persistence. Counts 2 2 0 1 ... 1 spread more than their mean: no evenness.
        assert beacon.beacon_score(seconds, np.full(6, 500.0), 0, 2400) == 0.5

    def test_bowley_skewness_by_halves(self):
        assert beacon.bowley(np.array([0.0, 10.0, 20.0, 30.0, 100.0])) == pytest.approx((5 + 65 - 40) / 60)
        assert beacon.bowley(np.array([1.0, 2.0, 9.0])) == 0.0

    def test_two_levels_leave_one_part_out(self):
        assert beacon.two_levels(np.array([5] * 8 + [50] * 4 + [20] + [0] * 11)) == 1.0
        assert beacon.two_levels(np.array([5] * 8 + [0] * 16)) == 0.0

    def test_persistence_counts_a_run_around_the_end(self):
        parts = np.array([1] * 4 + [0] * 17 + [1] * 3)
        assert beacon.persistence(parts, 0.1) == pytest.approx(0.584)


def test_byte_balance_by_hand():
    app = traffic([flow(1, NOON, bytes_out=300.0, bytes_in=None), flow(2, NOON, bytes_out=0.0, bytes_in=100.0)])
    assert byte_balance.balance(app) == pytest.approx(0.5 * math.log(401.0))


def test_fan_out_counts_parties_of_one_window():
    app = traffic([flow(1, NOON), flow(1001, NOON + 1), flow(2, NOON + 299.9), flow(3, NOON + 300.0)])
    assert fan_out.fan_out(app) == 2.0


FLOWS = st.lists(
    st.builds(
        lambda start, inbound, party, lookup, sent, received: {
            "start": NOON + start,
            "inbound": inbound,
            "remote": f"192.0.2.{party}",
            "remote_port": 53 if lookup else 443,
            "bytes_out": sent,
            "bytes_in": received,
        },
        st.floats(0, 400).map(lambda t: round(t, 2)),
        st.booleans(),
        st.integers(0, 3),
        st.booleans(),
        st.none() | st.integers(0, 10_000).map(float),
        st.none() | st.integers(0, 10_000).map(float),
    ),
    max_size=12,
)


@given(
    FLOWS,
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 9), st.integers(0, 999), st.integers(0, 999))),
    st.randoms(),
)
def test_no_score_depends_on_the_order_of_rows_or_is_no_number(flows, seconds, random):
    rows = [
        flow(k, row["start"], **{key: value for key, value in row.items() if key != "start"})
        for k, row in enumerate(flows)
    ]
    volumes = [(k, int(NOON) + s, float(a), float(b)) for k, s, a, b in seconds if k < len(rows)]
    seen = [(k, NOON + s + a / 999, b % 2 == 0, a) for k, s, a, b in seconds if k < len(rows)]
    shuffled = [random.sample(part, len(part)) for part in (rows, volumes, seen)]
    for first, second in zip(baselines(packets(seen)), baselines(packets(shuffled[2])), strict=True):
        app, turned = traffic(rows, volumes), traffic(*shuffled[:2])
        assert first.app_score(app) == pytest.approx(second.app_score(turned))
        assert not math.isnan(first.app_score(app))
        if first.pair_scores and second.pair_scores:
            assert listed(first.pair_scores(app)) == listed(second.pair_scores(turned))


def test_names_are_distinct_and_the_same_with_and_without_packets():
    names = [baseline.name for baseline in baselines()]
    assert len(set(names)) == len(names)
    assert names == [baseline.name for baseline in baselines(packets([(1, NOON, True, 1)]))]


def test_app_without_traffic_scores_least():
    for baseline in baselines():
        assert baseline.app_score(traffic([])) <= 0.0
