"""What a user is promised of the order of records: one flow counts once, the fullest record of it, with its volumes."""

from collections.abc import Sequence

import numpy as np
import pytest

from relaywatch.detection.columns import INBOUND_KEY
from relaywatch.engines.arrangement import Arranged, arrange
from relaywatch.engines.records import FLOW, VOLUME, Records
from relaywatch.model.schemas import Direction

SECOND = 1_000_000
RANKS = np.arange(8)
PLAIN = {"device": 1, "app": 5, "remote": 77, "remote_port": 443, "local_port": 40_000, "protocol": 6, "direction": 2}


def records(dtype: np.dtype, rows: Sequence[dict[str, int]]) -> Records:
    out = np.zeros(len(rows), dtype)
    for k, row in enumerate(rows):
        for name, value in row.items():
            out[name][k] = value
    return out


def flow(start_s: float, **further: int) -> dict[str, int]:
    start = round(start_s * SECOND)
    return {**PLAIN, "start": start, "end": start + SECOND, "bytes_out": 10, "bytes_in": 20} | further


def volume(flow_id: int, start_s: int, **further: int) -> dict[str, int]:
    base = {"app": 5, "flow_id": flow_id, "start": start_s * SECOND, "duration": SECOND, "bytes_out": 3, "bytes_in": 4}
    return base | further


def arranged(flows: list[dict[str, int]], volumes: Sequence[dict[str, int]] = ()) -> Arranged:
    return arrange(records(FLOW, flows), records(VOLUME, volumes), RANKS)


def test_nothing_is_arranged_to_nothing():
    result = arranged([])
    assert result.flows.offsets.tolist() == [0]
    assert (len(result.records), result.duplicates, result.unmatched) == (0, 0, 0)


def test_each_apps_flows_stand_together_by_start_from_its_own_origin():
    result = arranged([flow(100.25, app=9), flow(7.5), flow(3.25), flow(101.0, app=9)])
    assert result.apps.tolist() == [5, 9]
    assert result.flows.offsets.tolist() == [0, 2, 4]
    assert result.origins.tolist() == [3 * SECOND, 100 * SECOND]
    assert result.flows.start.tolist() == [0.25, 4.5, 0.25, 1.0]


@pytest.mark.parametrize("end", [-1, 0, 4 * SECOND])
def test_end_that_is_not_known_or_before_the_start_is_the_start(end):
    assert arranged([flow(5.5, end=end)]).flows.end.tolist() == [0.5]


def test_unknown_bytes_stay_unknown():
    result = arranged([flow(1, bytes_out=-1, bytes_in=-1)])
    assert (result.flows.bytes_out.tolist(), result.flows.bytes_in.tolist()) == ([-1.0], [-1.0])


def test_one_flow_in_two_exports_counts_once_and_the_fullest_record_stays():
    cut = flow(1, bytes_in=5, source=1, position=2)
    blind = flow(1, bytes_in=-1, end=-1, source=2, position=3)
    for order in ([flow(1), cut, blind], [blind, cut, flow(1)], [cut, flow(1), blind]):
        result = arranged(order)
        assert (len(result.records), result.duplicates) == (1, 2)
        assert result.records["bytes_in"].tolist() == [20]


@pytest.mark.parametrize(
    "other", [{"remote": 78}, {"remote_port": 80}, {"local_port": 9}, {"protocol": 17}, {"app": 6}]
)
def test_flows_that_differ_are_two(other):
    assert arranged([flow(1), flow(1, **other)]).duplicates == 0


def test_flows_without_a_local_port_are_two_unless_they_are_the_same_record():
    first, second = (flow(1, local_port=0, flow_id=k, position=k) for k in (1, 2))
    result = arranged([first, second, second, first])
    assert (len(result.records), result.duplicates) == (2, 2)
    # Overlapping exports of one log number an event alike.
    assert arranged([first, first | {"source": 1}]).duplicates == 1
    assert arranged([first, second | {"source": 1}]).duplicates == 0


def test_volumes_follow_their_flow_and_those_without_one_are_counted():
    flows = [flow(1, flow_id=1), flow(2, flow_id=2), flow(2, flow_id=1, source=1, local_port=9)]
    volumes = [volume(2, 3), volume(1, 5), volume(1, 4), volume(1, 6, source=1), volume(9, 1), volume(1, 1, source=2)]
    result = arranged(flows, volumes)
    ids = result.records["flow_id"][result.volumes.flow], result.records["source"][result.volumes.flow]
    seen = sorted(zip(*(column.tolist() for column in ids), (result.volumes.time + 1).tolist(), strict=True))
    assert seen == [(1, 0, 4.0), (1, 0, 5.0), (1, 1, 6.0), (2, 0, 3.0)]
    assert result.unmatched == 2
    assert result.volumes.offsets.tolist() == [0, 4]


def test_a_volume_read_twice_counts_once_and_another_of_the_same_second_stays():
    volumes = [volume(1, 4), volume(1, 4, bytes_in=9), volume(1, 4), volume(1, 4, duration=5), volume(1, 5)]
    result = arranged([flow(1, flow_id=1)], volumes)
    assert sorted(result.volumes.bytes_in.tolist()) == [4.0, 4.0, 4.0, 9.0]
    assert sorted(result.volumes.time.tolist()) == [3.0, 3.0, 3.0, 4.0]


def test_times_too_far_apart_for_one_key_are_sorted_all_the_same():
    far = 2**62
    result = arranged([flow(1, start=far, end=far, app=k) for k in (3, 1, 2)] + [flow(2, app=k) for k in (2, 1)])
    assert result.apps.tolist() == [1, 1, 2, 2, 3]
    assert result.flows.offsets.tolist() == [0, 1, 2, 3, 4, 5]


def test_lookups_and_accepted_flows_are_marked():
    inbound = int(Direction.INBOUND)
    ports = [flow(k, remote_port=port) for k, port in enumerate((53, 853, 5353, 443))]
    result = arranged([*ports, flow(9, remote_port=53, direction=inbound, local_port=1080)])
    assert result.flows.lookup.tolist() == [True, True, True, False, False]
    assert result.flows.inbound.tolist() == [False] * 4 + [True]
    assert (result.flows.side[4] & INBOUND_KEY) != 0
    assert result.flows.side[4] & np.uint64(0xFFFF) == 1080
    assert (result.flows.side[:4] & INBOUND_KEY == 0).all()
