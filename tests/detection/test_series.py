import numpy as np
import pytest
from flow_columns import Flow, flow_columns, volume_columns

from relaywatch.detection.calibration import FEWEST_BRIDGES
from relaywatch.detection.series import balance_ratio, follows, score_sums
from relaywatch.detection.settings import Settings

BAR = -np.log(Settings().false_alarms_per_app_day)


def busy(seed, seconds=120, framing=1.0):
    """A link that carries so many sessions at once that their bursts merge, and the flows that feed it."""
    rng = np.random.default_rng(seed)
    flows, link = [], np.zeros((2, seconds + 8))
    for k in range(2 * seconds):
        at, life = rng.uniform(0.0, seconds - 4.0), int(rng.integers(1, 4))
        up, down = rng.lognormal(6.5, 0.5), rng.lognormal(9.5, 1.0)
        flows.append((at, at + life, up, down, 100 + k, [(int(at) + j, up / life, down / life) for j in range(life)]))
        for j in range(life):
            link[0, int(at) + j] += framing * down / life
            link[1, int(at) + j] += framing * up / life
    parts = [(second, *link[:, second]) for second in range(seconds)]
    flows.append((0.0, float(seconds), link[0].sum(), link[1].sum(), 7, parts))
    return flows


def evidence(flows):
    rows = sorted(flows, key=lambda flow: flow[0])
    volumes = [(row, float(at), out, in_) for row, flow in enumerate(rows) for at, out, in_ in flow[5]]
    return float(
        score_sums(flow_columns([Flow(*flow[:5]) for flow in rows]), volume_columns(volumes), FEWEST_BRIDGES, 4_096.0)[
            0
        ]
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("framing", [1.0, 1.36])
def test_link_of_many_sessions_at_once_follows_their_sum_whatever_its_framing(seed, framing):
    assert evidence(busy(seed, framing=framing)) > BAR


@pytest.mark.parametrize("seed", range(8))
def test_link_whose_seconds_are_shuffled_follows_nothing(seed):
    flows = busy(seed)
    link = flows.pop()
    moved = np.random.default_rng(seed).permutation(len(link[5]))
    flows.append((*link[:5], [(link[5][k][0], *link[5][j][1:]) for k, j in enumerate(moved)]))
    assert evidence(flows) < BAR / 2


def test_short_and_single_flows_are_not_judged_as_series():
    assert evidence(busy(1, seconds=20)) == 0.0
    assert evidence(busy(1)[-1:]) == 0.0


def test_series_that_do_not_change_follow_nothing():
    assert follows(np.ones(90), np.random.default_rng(1).lognormal(9, 1, 90)) < 0.0


def test_balance_speaks_against_links_that_send_much_more_or_less_than_they_are_fed():
    near, far, further = balance_ratio(1.3), balance_ratio(2.0), balance_ratio(0.1)
    assert further < far < 0.0 < near
