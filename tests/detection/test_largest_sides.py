import numpy as np
from flow_columns import Flow, flow_columns

from relaywatch.detection.bridging import MOST_SIDES, largest_sides, score_bridging
from relaywatch.detection.calibration import FEWEST_BRIDGES, MEASURED
from relaywatch.detection.columns import group_of


def sent_by_side(flows):
    order, begins, ends, sent = largest_sides(group_of(flow_columns(flows), 0), 0.0)
    assert [len(order[a:b]) for a, b in zip(begins, ends, strict=True)] == [1] * len(begins)
    return sent.tolist()


def test_sides_that_send_most_are_tried_first_and_their_number_is_bounded():
    flows = [Flow(float(k), k + 1.0, float(k + 1), 10.0, 1_000 + k) for k in range(3 * MOST_SIDES)]
    assert sent_by_side(flows) == [float(3 * MOST_SIDES - k) for k in range(MOST_SIDES)]


def test_sides_that_send_nothing_or_nobody_knows_what_are_not_tried():
    assert sent_by_side([Flow(0.0, 1.0, 0.0, 9.0, 1), Flow(1.0, 2.0, -1.0, 9.0, 2), Flow(2.0, 3.0, 5.0, 9.0, 3)]) == [
        5.0
    ]


def test_apps_of_which_nothing_is_sent_give_no_evidence_at_any_threshold():
    flows = flow_columns([Flow(float(k), k + 1.0, 0.0, 0.0, k % 3) for k in range(20)])
    assert score_bridging(flows, 10.0, FEWEST_BRIDGES, 0.0, MEASURED).tolist() == [0.0]


def test_many_small_flows_before_a_session_do_not_crowd_out_its_target():
    rng = np.random.default_rng(3)
    flows = []
    for k in range(12):
        at, up, down = 30.0 * k, float(rng.integers(400, 2_000)), float(rng.lognormal(10, 1))
        flows.append(Flow(at, at + 2.0, down, up, 7, inbound=True))
        flows += [Flow(at + 0.01 + i * 1e-4, at + 0.02 + i * 1e-4, 1.0, 1.0, 2_000 + i) for i in range(300)]
        flows.append(Flow(at + 0.2, at + 1.9, up, down, 5_000 + k))
    ordered = sorted(flows, key=lambda flow: flow[0])
    assert score_bridging(flow_columns(ordered), 10.0, FEWEST_BRIDGES, 0.0, MEASURED)[0] > 11.5
