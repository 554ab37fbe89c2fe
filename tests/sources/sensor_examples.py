"""Flows that any sensor's format can carry, and what must come back of them."""

import pytest

from relaywatch.model.tables import batch

BEGIN = 1_772_528_400_000_000
DEVICE = "10.0.0.5"
KEPT = ("protocol_num", "direction_id", "local_ip", "local_port", "remote_ip", "remote_port")


def flows():
    """A dialled TCP flow, an accepted one and a UDP flow of one device."""
    columns = {
        "device_uid": DEVICE, "flow_id": [1, 2, 3], "protocol_num": [6, 6, 17], "direction_id": [2, 1, 2],
        "direction_observability": 1, "bytes_observability": 1, "source": "x", "position": [1, 2, 3], "clock": "sensor",
        "start_time": [BEGIN, BEGIN + 5_000_000, BEGIN + 9_000_000], "local_ip": DEVICE,
        "local_port": [40_001, 8899, 40_002],
        "end_time": [BEGIN + 4_000_000, BEGIN + 65_000_000, BEGIN + 9_500_000], "remote_port": [443, 51_000, 53],
        "remote_ip": ["203.0.113.9", "198.51.100.7", "203.0.113.53"], "bytes_out": [1000, 70_000, 60],
        "bytes_in": [50_000, 900, 120], "packets_out": [20, 60, 1], "packets_in": [40, 30, 1], "established": True,
        "wire_bytes_out": [1800, 72_400, 88], "wire_bytes_in": [51_600, 2_100, 148],
    }  # fmt: skip
    return batch("flows", columns, length=3)


def assert_same_flows(found, *, seconds=0.001, payload=True, device=DEVICE):
    """The flows came back: ends, direction, times within `seconds`, bytes."""
    written = sorted(flows().rows.to_pylist(), key=lambda row: row["local_port"])
    found = sorted(found, key=lambda row: row["local_port"])
    assert [[row[name] for name in KEPT] for row in found] == [[row[name] for name in KEPT] for row in written]
    for one, other in zip(found, written, strict=True):
        assert one["device_uid"] == device
        assert one["start_time"].timestamp() == pytest.approx(other["start_time"].timestamp(), abs=seconds)
        assert one["end_time"].timestamp() == pytest.approx(other["end_time"].timestamp(), abs=seconds)
        assert (one["wire_bytes_out"], one["wire_bytes_in"]) == (other["wire_bytes_out"], other["wire_bytes_in"])
        if payload:
            assert (one["bytes_out"], one["bytes_in"]) == (other["bytes_out"], other["bytes_in"])


def rows_of(batches, table="flows"):
    return [row for part in batches if part.table == table for row in part.rows.to_pylist()]
