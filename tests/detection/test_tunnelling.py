"""What a user is promised of tunnels: a link that mirrors what other flows receive is found, with others beside it."""

import numpy as np
import pytest
from flow_columns import Flow, flow_columns, volume_columns

from relaywatch.detection.calibration import FEWEST_BRIDGES, MEASURED
from relaywatch.detection.columns import VolumeColumns
from relaywatch.detection.settings import Settings
from relaywatch.detection.tunnelling import MANNERS, Passing, explain, score_tunnelling, scratch, sendings_of

UPLINK = 4096.0
SURE = 11.6
"""Natural log evidence beyond one false alarm in 100,000 app-days."""

Seconds = list[tuple[float, float, float]]
"""A flow's volumes: begin in s, bytes out, bytes in."""


def evidence(flows: dict[int, Seconds], uplink: float = UPLINK) -> float:
    """Evidence of an app whose flows carry these volumes; flow 7 is the link in all scenarios here."""
    rows = sorted(flows.items(), key=lambda item: item[1][0][0])
    made = [Flow(v[0][0], v[-1][0] + 1.0, sum(p[1] for p in v), sum(p[2] for p in v), number) for number, v in rows]
    volumes = [(row, *part) for row, (_, parts) in enumerate(rows) for part in parts]
    return float(score_tunnelling(flow_columns(made), volume_columns(volumes), FEWEST_BRIDGES, uplink, MEASURED)[0])


def downloads(rng: np.random.Generator, count: int, every: float, begin: float = 20.0) -> dict[int, Seconds]:
    """Flows that overlap each other, each a request and an answer over some seconds."""
    flows: dict[int, Seconds] = {}
    for k in range(count):
        begin += rng.exponential(every)
        size, seconds = rng.lognormal(10.2, 1.0) + 2_000, int(rng.integers(1, 8))
        shares = rng.dirichlet(np.full(seconds, 2.0))
        second = int(begin)
        flows[100 + k] = [
            (float(second + j), 700.0 if j == 0 else 0.0, float(int(size * shares[j]))) for j in range(seconds)
        ]
    return flows


def mirror(rng: np.random.Generator, flows: dict[int, Seconds], delay: float = 0.4, framing: float = 1.03) -> Seconds:
    """What a link carries that passes on every answer within delay s, and heartbeats."""
    last = max(parts[-1][0] for parts in flows.values())
    seconds: dict[float, list[float]] = {float(beat): [25.0, 25.0] for beat in range(0, int(last) + 30, 30)}
    for parts in flows.values():
        for when, asked, answered in parts:
            held = seconds.setdefault(float(int(when + rng.uniform(0.0, delay))), [0.0, 0.0])
            held[0] += float(int(answered * framing))
            held[1] += asked
    return [(when, *seconds[when]) for when in sorted(seconds)]


def tunnel(
    seed: int, *, delay: float = 0.4, framing: float = 1.03, own: int = 0, every: float = 6.0
) -> dict[int, Seconds]:
    rng = np.random.default_rng(seed)
    targets = downloads(rng, 60, every)
    flows = targets | {7: mirror(rng, targets, delay, framing)}
    beside = downloads(rng, own, 400.0 / max(own, 1), begin=0.0)
    return flows | {number + 1_000: parts for number, parts in beside.items()}


class TestTunnels:
    @pytest.mark.parametrize("seed", range(3))
    def test_link_that_carries_sessions_side_by_side_is_found(self, seed):
        assert evidence(tunnel(seed, every=3.0)) > SURE

    @pytest.mark.parametrize("framing", [1.0, 1.1, 1.25, 1.4])
    def test_framing_does_not_hide_it(self, framing):
        assert evidence(tunnel(1, framing=framing)) > SURE

    @pytest.mark.parametrize("delay", [0.1, 1.0, 3.0, 5.0])
    def test_waiting_some_seconds_does_not_hide_it(self, delay):
        assert evidence(tunnel(2, delay=delay)) > SURE

    @pytest.mark.parametrize("own", [20, 60, 120])
    def test_the_apps_own_traffic_does_not_hide_it(self, own):
        assert evidence(tunnel(3, own=own)) > SURE

    @pytest.mark.parametrize("seed", range(3))
    def test_link_that_brings_what_others_upload_is_found(self, seed):
        flows = {n: [(when, in_, out) for when, out, in_ in parts] for n, parts in tunnel(seed, delay=0.0).items()}
        last = max(parts[-1][0] for parts in flows.values())
        early = {n: [(last - when, *rest) for when, *rest in reversed(parts)] for n, parts in flows.items()}
        assert evidence(early) > SURE

    @pytest.mark.parametrize("gateways", [2, 4, 8])
    def test_links_to_several_gateways_are_judged_together(self, gateways):
        flows, rng = tunnel(5), np.random.default_rng(5)
        link = flows.pop(7)
        for k in range(gateways):
            flows[5_000 + k] = []
        for when, out, in_ in link:
            for k, share in enumerate(rng.dirichlet(np.ones(gateways))):
                flows[5_000 + k].append((when, float(int(out * share)), float(int(in_ * share))))
        assert evidence(flows) > SURE

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("framing", [1.0, 1.36])
    def test_many_sessions_a_second_are_told_by_their_sum(self, seed, framing):
        rng = np.random.default_rng(seed)
        targets = {
            100 + k: [(float(at + j), 300.0, float(int(size / life))) for j in range(life)]
            for k in range(240)
            for at, life, size in [(int(rng.uniform(0, 116)), int(rng.integers(1, 4)), rng.lognormal(9.5, 1.0))]
        }
        assert evidence(targets | {7: mirror(rng, targets, 0.2, framing)}) > SURE

    def test_reconnecting_link_is_one_client_side(self):
        flows = tunnel(4)
        link = flows.pop(7)
        middle = len(link) // 2
        made = [
            Flow(p[0][0], p[-1][0] + 1.0, sum(x[1] for x in p), sum(x[2] for x in p), 7)
            for p in (link[:middle], link[middle:])
        ]
        made += [Flow(p[0][0], p[-1][0] + 1.0, sum(x[1] for x in p), sum(x[2] for x in p), n) for n, p in flows.items()]
        parts = [link[:middle], link[middle:], *flows.values()]
        order = np.argsort([flow.start for flow in made], kind="stable")
        volumes = [(row, *part) for row, k in enumerate(order) for part in parts[k]]
        found = score_tunnelling(flow_columns(made), volume_columns(volumes), FEWEST_BRIDGES, UPLINK, MEASURED)[0]
        assert found > SURE


class TestOthers:
    @pytest.mark.parametrize("seed", range(6))
    def test_even_backup_beside_downloads_is_none(self, seed):
        flows = downloads(np.random.default_rng(seed), 60, 6.0)
        assert evidence(flows | {7: [(float(s), 25_000.0, 300.0) for s in range(500)]}) < 3.0

    @pytest.mark.parametrize("seed", range(6))
    def test_uploads_of_the_apps_own_beside_downloads_are_none(self, seed):
        rng = np.random.default_rng(seed)
        uploads = mirror(rng, downloads(rng, 60, 6.0))
        assert evidence(downloads(rng, 60, 6.0) | {7: uploads}) < 3.0

    @pytest.mark.parametrize("seed", range(6))
    def test_mirrored_bytes_at_other_times_stay_below_the_bar(self, seed):
        flows = tunnel(seed)
        link = flows[7]
        moved = np.random.default_rng(seed).permutation(len(link))
        flows[7] = [(link[k][0], *link[j][1:]) for k, j in enumerate(moved)]
        assert evidence(flows) < -np.log(Settings().false_alarms_per_app_day)

    def test_less_sent_than_the_uplink_threshold_is_not_weighed(self):
        flows = tunnel(1)
        assert evidence(flows, uplink=sum(part[1] for part in flows[7]) + 1.0) == 0.0

    def test_no_volumes_give_none(self):
        flows = flow_columns([Flow(0.0, 9.0, 1e6, 1e3, 7), *(Flow(k, k + 1.0, 1e2, 1e5, 100 + k) for k in range(9))])
        empty = VolumeColumns(np.zeros(2, np.int64), np.empty(0, np.int64), *np.empty((3, 0)))
        assert score_tunnelling(flows, empty, FEWEST_BRIDGES, UPLINK, MEASURED).tolist() == [0.0]


def passing(*rows: tuple[float, int, float]) -> Passing:
    """Bytes by (second, flow)."""
    return Passing(
        *(np.array(column, kind) for column, kind in zip(zip(*rows, strict=True), (float, int, float), strict=True))
    )


class TestSendings:
    def test_silence_parts_them_and_small_ones_are_left_out(self):
        sendings = sendings_of(passing((0, 0, 400), (2, 0, 100), (9, 0, 20), (20, 0, 900)), 10.0)
        assert sendings.begin.tolist() == [0.0, 20.0]
        assert sendings.end.tolist() == [2.0, 20.0]
        assert sendings.amount.tolist() == [500.0, 900.0]

    def test_long_ones_are_cut(self):
        sendings = sendings_of(passing(*((second, 0, 1_000.0) for second in range(25))), 10.0)
        assert sendings.begin.tolist() == [0.0, 10.0, 20.0]

    def test_the_flows_that_sum_to_one_account_for_it_and_others_do_not_matter(self):
        link = passing((10, 0, 3_060.0), (11, 0, 2_040.0))
        beside = passing((10, 1, 3_000.0), (10, 3, 90_000.0), (11, 2, 2_000.0), (11, 3, 90_000.0))
        room = scratch()
        unexplained, weighed = explain(link, beside, 10.0, 11.0, MANNERS[0], 0.0, 1.0, room)
        assert unexplained < 1e-6
        assert set(room.flow[:weighed][room.chosen[:weighed]].tolist()) == {1, 2}

    def test_nothing_accounts_for_an_upload_of_the_apps_own(self):
        unexplained, _ = explain(
            passing((10, 0, 5_000.0)), passing((10, 1, 90_000.0)), 10.0, 10.0, MANNERS[0], 0.0, 1.0, scratch()
        )
        assert unexplained == 1.0
