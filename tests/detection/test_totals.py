"""What a user is promised where only totals are known: a link that could have been fed is named, never convicted."""

import numpy as np
import pytest
from flow_columns import Flow, flow_columns

from relaywatch.detection.calibration import FEWEST_BRIDGES, MEASURED
from relaywatch.detection.sieving import may_have_case
from relaywatch.detection.totals import fed_link, score_totals
from relaywatch.detection.verdict import totals_item

UPLINK = 4096.0


def downloads(count: int = 12, size: float = 50_000.0) -> list[Flow]:
    return [Flow(10.0 + 5 * k, 13.0 + 5 * k, 700.0, size, 100 + k) for k in range(count)]


def link(sent: float, received: float = 9_000.0, end: float = 200.0) -> Flow:
    return Flow(0.0, end, sent, received, 7)


def fed(flows: list[Flow], uplink: float = UPLINK) -> bool:
    columns = flow_columns(flows)
    found = bool(score_totals(columns, uplink)[0])
    assert may_have_case(columns, 10.0, FEWEST_BRIDGES, uplink, MEASURED)[0] >= found
    return found


def test_link_that_sends_what_others_receive_is_named_with_them():
    columns = flow_columns([link(610_000.0), *downloads()])
    assert score_totals(columns, UPLINK).tolist() == [True]
    found = fed_link(columns, 0, UPLINK)
    assert (found.legs.tolist(), found.targets.tolist()) == ([0], list(range(1, 13)))
    assert found.ratio == pytest.approx(600_000 / 610_000)
    assert found.mirrors


@pytest.mark.parametrize(
    "flows",
    [
        [link(9_000.0, 610_000.0), *downloads()],
        [link(2_000_000.0), *downloads()],
        [link(610_000.0, end=20.0), *downloads()],
        [link(60_000.0), *downloads(size=4_000.0)],
        [link(610_000.0), *(flow._replace(remote=100 + k % 2) for k, flow in enumerate(downloads()))],
        [link(610_000.0), *(flow._replace(lookup=True) for flow in downloads())],
        [link(610_000.0), *(flow._replace(bytes_in=-1.0) for flow in downloads())],
        downloads(),
    ],
    ids=["receives", "sends more", "too short", "too little", "two parties", "lookups", "no bytes", "no link"],
)
def test_link_that_could_not_have_been_fed_is_not_named(flows):
    assert not fed(flows)


def test_uplink_threshold_bounds_it():
    flows = [link(610_000.0), *downloads()]
    assert fed(flows, 610_000.0)
    assert not fed(flows, 610_001.0)


def test_totals_speak_for_a_closer_look_and_no_more():
    columns = flow_columns([link(610_000.0), *downloads()])
    item = totals_item(fed_link(columns, 0, UPLINK))
    assert item.kind == "tunnelling"
    assert "totals only" in item.statement
    assert 0 < item.log_ratio < np.log(1e3)
