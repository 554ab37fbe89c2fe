"""Finished flows and their seconds as canonical tables."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from relaywatch.model.schemas import TEXT, Direction, Observability, SignalKind
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.capture_columns import Label, Records
from relaywatch.sources.capture_decode import TCP, UDP
from relaywatch.sources.capture_framing import Application
from relaywatch.sources.capture_names import HostNames

SKEW_S: Final = 0.001
SECOND_US: Final = 1_000_000
DEVICES: Final = 100_000
"""Devices of one capture that get a CAPTURE signal; a made-up capture could name any number."""

_LABELS: Final = pa.array([None, "tls", "dns", "http", "quic"], pa.string())
_MAPPED: Final = 0xFFFF


@dataclass(slots=True)
class Rows:
    """Makes batches. device: the one device's name; empty where addresses name devices.

    addressed: whether packets have addresses; payload: how their payload is known.
    """

    path: Path
    device: str
    names: HostNames
    clock: str = "sensor"
    skew_s: float = SKEW_S
    addressed: bool = True
    payload: Observability = Observability.OBSERVED
    applications: dict[int, Application] = field(default_factory=dict)
    devices: set[str] = field(default_factory=set)

    def flows(self, records: Records) -> Batch:
        """FLOWS rows of finished flows."""
        rows = both_views(records)
        local, remote = _addresses(rows, "local"), _addresses(rows, "remote")
        device = self._device(local)
        self._notice(device)
        with_ports = np.isin(rows["protocol"], (TCP, UDP)) & ((rows["local_port"] > 0) | (rows["remote_port"] > 0))
        names, how = self._names(rows["flow_id"])
        outbound = rows["from_local"].astype(bool)
        return batch(
            "flows",
            {
                **self._common(device, rows),
                "flow_id": rows["flow_id"],
                "start_time": rows["start"],
                "end_time": rows["end"],
                "protocol_num": rows["protocol"],
                "direction_id": np.where(outbound, Direction.OUTBOUND, Direction.INBOUND).astype(np.uint8),
                "direction_observability": _observability(rows["observed"]),
                "local_ip": local if self.addressed else None,
                "local_port": pa.array(rows["local_port"], mask=~with_ports | self._absent(rows["local_port"])),
                "remote_ip": remote if self.addressed else None,
                "remote_port": pa.array(rows["remote_port"], mask=~with_ports | self._absent(rows["remote_port"])),
                "remote_hostname": names,
                "hostname_observability": how,
                "bytes_out": rows["bytes_out"],
                "bytes_in": rows["bytes_in"],
                "bytes_observability": int(self.payload),
                "wire_bytes_out": rows["wire_out"],
                "wire_bytes_in": rows["wire_in"],
                "packets_out": rows["packets_out"],
                "packets_in": rows["packets_in"],
                "established": _established(rows),
                "app_protocol": pa.DictionaryArray.from_arrays(_label_indices(rows["label"]), _LABELS),
            },
            length=len(rows),
        )

    def volumes(self, records: Records) -> Batch:
        """VOLUMES rows, one per flow and second that had packets."""
        rows = both_views(records)
        return batch(
            "volumes",
            {
                **self._common(self._device(_addresses(rows, "local")), rows),
                "flow_id": rows["flow_id"],
                "start_time": rows["second"] * SECOND_US,
                "duration_us": SECOND_US,
                "bytes_out": rows["bytes_out"],
                "bytes_in": rows["bytes_in"],
                "packets_out": rows["packets_out"],
                "packets_in": rows["packets_in"],
            },
            length=len(rows),
        )

    def captures(self, start_us: int, end_us: int) -> Batch:
        """SIGNALS rows: the time in which the capture watched each device."""
        devices = sorted(self.devices)
        return batch(
            "signals",
            {
                "device_uid": devices,
                "kind": int(SignalKind.CAPTURE),
                "start_time": np.full(len(devices), start_us),
                "end_time": np.full(len(devices), end_us),
                "observability": int(Observability.OBSERVED),
                "detail": "",
                "source": str(self.path),
                "position": 1,
                "clock": self.clock,
                "clock_skew_bound_s": self.skew_s,
            },
            length=len(devices),
        )

    def inventory(self) -> Batch:
        """INVENTORY rows: what PCAPdroid said of each uid. A trailer's name has 19 bytes at most, and no package."""
        known = [self.applications[uid] for uid in sorted(self.applications) if uid >= 0]
        uids = np.array([entry.uid for entry in known], np.int32)
        return batch(
            "inventory",
            {
                "device_uid": self.device,
                "android_package": [entry.package or None for entry in known],
                "android_uid": uids,
                "user_id": uids // 100_000,
                "app_label": [entry.label or None for entry in known],
                "source": str(self.path),
                "position": [entry.position for entry in known],
                "clock": self.clock,
                "clock_skew_bound_s": self.skew_s,
            },
            length=len(known),
        )

    def _absent(self, ports: NDArray[np.uint16]) -> NDArray[np.bool_]:
        """Whether each port is one that the source may have been told to leave out."""
        return np.asarray((ports == 0) & (not self.addressed), np.bool_)

    def _common(self, device: pa.Array, rows: Records) -> dict[str, Any]:
        return {
            "device_uid": device,
            "android_package": self._packages(rows["uid"]),
            "android_uid": pa.array(rows["uid"], mask=rows["uid"] < 0),
            "source": str(self.path),
            "position": rows["position"],
            "clock": self.clock,
            "clock_skew_bound_s": self.skew_s,
        }

    def _device(self, local: pa.DictionaryArray) -> pa.DictionaryArray:
        return _repeated(self.device, len(local)) if self.device else local

    def _notice(self, device: pa.DictionaryArray) -> None:
        if len(self.devices) < DEVICES:
            self.devices.update(device.unique().to_pylist())

    def _packages(self, uids: NDArray[np.int32]) -> pa.Array:
        distinct, places = np.unique(uids, return_inverse=True)
        entries = [self.applications.get(int(uid)) for uid in distinct]
        texts = pa.array([entry.package or None if entry else None for entry in entries], pa.string())
        return pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), texts)

    def _names(self, flows: NDArray[np.int64]) -> tuple[pa.Array, pa.Array]:
        taken = [self.names.take(flow) for flow in flows.tolist()]
        kinds = {True: Observability.OBSERVED, False: Observability.INFERRED}
        how = [int(kinds[observed]) if name else int(Observability.NOT_OBSERVABLE) for name, observed in taken]
        return pa.array([name for name, _ in taken], pa.string()).dictionary_encode(), pa.array(how, pa.uint8())


def both_views(records: Records) -> Records:
    """Rows, and those between two local ends once more as the other end's, under the next flow_id."""
    other = records[records["mirrored"].astype(bool)].copy()
    if not len(other):
        return records
    names = other.dtype.names or ()
    for one in names:
        for mine, theirs in (("local_", "remote_"), ("_out", "_in")):
            pair = one.replace(mine, theirs) if mine in one else ""
            if pair in names:
                other[one], other[pair] = other[pair].copy(), other[one].copy()
    other["flow_id"] += 1
    if "from_local" in names:
        other["from_local"] = 1 - other["from_local"]
    return np.concatenate([records, other])


def _repeated(text: str, length: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), length), pa.array([text], pa.string()))


def _addresses(rows: Records, end: str) -> pa.DictionaryArray:
    """Addresses as text (RFC 5952), IPv4 in dotted form."""
    pairs = np.empty(len(rows), np.dtype([("high", "u8"), ("low", "u8")]))
    pairs["high"], pairs["low"] = rows[f"{end}_high"], rows[f"{end}_low"]
    distinct, places = np.unique(pairs, return_inverse=True)
    texts = [address_text(high, low) for high, low in distinct.tolist()]
    return pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), pa.array(texts, pa.string())).cast(TEXT)


def address_text(high: int, low: int) -> str:
    """Write an address of two 64-bit halves as text."""
    if high == 0 and low >> 32 == _MAPPED:
        return socket.inet_ntop(socket.AF_INET, (low & 0xFFFFFFFF).to_bytes(4, "big"))
    return socket.inet_ntop(socket.AF_INET6, high.to_bytes(8, "big") + low.to_bytes(8, "big"))


def _observability(observed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.where(observed, Observability.OBSERVED, Observability.INFERRED).astype(np.uint8)


def _label_indices(labels: NDArray[np.uint8]) -> pa.Array:
    return pa.array(labels.astype(np.int32), mask=labels == Label.NONE)


def _established(rows: Records) -> pa.Array:
    """Tell acceptance. True: SYN-ACK, or payload both ways. False: TCP seen from its SYN, without. Null: not seen."""
    answered = rows["accepted"].astype(bool) | ((rows["bytes_out"] > 0) & (rows["bytes_in"] > 0))
    refused = (rows["protocol"] == TCP) & rows["observed"].astype(bool) & ~answered
    return pa.array(answered, mask=~(answered | refused))
