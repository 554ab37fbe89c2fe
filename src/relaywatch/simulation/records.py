"""From drafts to canonical rows: texts once for all batches, numbers by a kernel, buffers as Arrow has them."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from relaywatch.detection.columns import Flags, Ints
from relaywatch.model.compilation import compiled
from relaywatch.model.schemas import TABLES, Direction, Observability, SignalKind
from relaywatch.model.tables import Batch, TableName
from relaywatch.simulation.chance import bits_of, key_of
from relaywatch.simulation.drafts import ACCEPTED, FAILED, LOOKUP, Drafts
from relaywatch.simulation.fleet import (
    CATALOGUE,
    CLIENTS,
    COMMON,
    GATEWAYS,
    RESOLVERS,
    SITES,
    Codes,
    Fleet,
)
from relaywatch.simulation.plan import APPS_A_PHONE, SECOND, Plan
from relaywatch.simulation.volumes import Seconds

SOURCE: Final = "synthetic fleet by relaywatch simulate"
CLOCK: Final = "device"
PROTOCOLS: Final = ("TLS", "QUIC", "DNS", "HTTP", "NTP", "SOCKS")
_TLS, _QUIC, _DNS, _HTTP, _NTP, _SOCKS = range(6)
WATCHING: Final = " ".join(
    kind.name
    for kind in (
        SignalKind.LISTENER,
        SignalKind.FOREGROUND_UI,
        SignalKind.FOREGROUND_SERVICE,
        SignalKind.SCREEN_ON,
        SignalKind.USER_INTERACTION,
        SignalKind.PROCESS_START,
        SignalKind.NAME_LOOKUP,
    )
)
SILENT: Final = "simulated: nothing was recorded"
HOSTS: Final = ("api", "cdn", "img", "push", "log", "auth", "media", "ads")
V6_IN_TEN: Final = 3
NAMELESS_IN_TEN: Final = 1
"""Of ten endpoints so many have an IPv6 address; of ten dialled flows so many do not show the name."""
V4_BLOCK: Final = 1 << 17
"""Addresses in 198.18.0.0/15, the range for benchmarks (RFC 2544)."""
TCP, UDP = 6, 17
SEGMENT: Final = 1_400
_TCP_V4, _UDP_V4, _V6_MORE = 40, 28, 20
INBOUND: Final = int(Direction.INBOUND)
OUTBOUND: Final = int(Direction.OUTBOUND)
_HIDDEN: Final = 51
_TEN: Final = np.uint64(10)
_NAMELESS: Final = np.uint64(NAMELESS_IN_TEN)


class Texts(NamedTuple):
    """Dictionaries that all batches share.

    local: IPv4 addresses of all devices, then IPv6; remote: by remote's number; name: of the remotes before the
    nameless ones; asked: what a look-up says, by the remote's number, then WATCHING and SILENT; v6: whether a remote's
    address is one.
    """

    device: pa.Array
    package: pa.Array
    local: pa.Array
    remote: pa.Array
    name: pa.Array
    asked: pa.Array
    v6: Flags


def texts_of(plan: Plan, fleet: Fleet) -> Texts:
    """The texts of a fleet."""
    remotes = fleet.remotes
    app = np.repeat(np.arange(CATALOGUE), remotes.app_count).tolist()
    place = (np.arange(remotes.common) - np.repeat(remotes.app_first, remotes.app_count)).tolist()
    names = [f"{HOSTS[k % len(HOSTS)]}{k // len(HOSTS)}.app{a:03d}.example" for a, k in zip(app, place, strict=True)]
    names += [f"{HOSTS[-1]}{k}.common.example" for k in range(COMMON)]
    names += [f"www.site{k:05d}.example" for k in range(SITES)]
    v6 = np.arange(remotes.ends) * 7 % 10 < V6_IN_TEN
    v6[remotes.clients :] = False
    addresses = [_address(k, six) for k, six in enumerate(v6[: remotes.clients].tolist())]
    asked = [f"{name} {address}" for name, address in zip(names, addresses, strict=True)]
    addresses += [f"{('198.51.100', '203.0.113')[k % 2]}.{k // 2 + 1}" for k in range(CLIENTS)]
    addresses += [f"192.0.2.{k + 1}" for k in range(GATEWAYS)]
    addresses += [f"198.18.0.{53 + k}" for k in range(RESOLVERS)]
    device = pl.int_range(plan.devices, eager=True)
    number = device.cast(pl.String).str.zfill(7)
    return Texts(
        _strings("phone-" + number),
        pa.array([f"org.example.app{k:03d}" for k in range(CATALOGUE)], pa.string()),
        _strings(pl.concat([_local_v4(device + 1), _local_v6(device + 1)])),
        pa.array(addresses, pa.string()),
        pa.array(names, pa.string()),
        pa.array([*asked, WATCHING, SILENT], pa.string()),
        v6,
    )


def _strings(texts: pl.Series) -> pa.Array:
    return texts.to_arrow().cast(pa.string())


def _address(number: int, six: bool) -> str:  # noqa: FBT001  which of two families
    if six:
        return f"2001:db8::{number + 256:x}"
    at = (number + 256) % V4_BLOCK
    return f"198.{18 + (at >> 16)}.{at >> 8 & 255}.{at & 255}"


def _local_v4(number: pl.Series) -> pl.Series:
    parts = [(number // 65_536), (number // 256 % 256), (number % 256)]
    texts = [part.cast(pl.String) for part in parts]
    return "10." + texts[0] + "." + texts[1] + "." + texts[2]


def _local_v6(number: pl.Series) -> pl.Series:
    """Addresses in 2001:db8:ffff::/48, in canonical text."""
    texts = [f"{value >> 16:x}:{value & 65_535:x}" if value >> 16 else f"{value:x}" for value in number.to_list()]
    return "2001:db8:ffff::" + pl.Series(texts, dtype=pl.String)


class _Columns(NamedTuple):
    """Columns of flows that a kernel fills."""

    device: Codes
    package: Codes
    uid: Codes
    flow_id: Ints
    start: Ints
    end: Ints
    protocol: npt.NDArray[np.uint8]
    direction: npt.NDArray[np.uint8]
    local: Codes
    name: Codes
    wire_out: Ints
    wire_in: Ints
    packets_out: Ints
    packets_in: Ints
    established: npt.NDArray[np.bool_]
    app_protocol: Codes
    position: Ints


class Writer:
    """Makes canonical batches of one fleet."""

    def __init__(self, plan: Plan, fleet: Fleet) -> None:
        self._fleet, self._texts, self._begin = fleet, texts_of(plan, fleet), plan.begin_us
        fault = plan.faults.skew
        self._skew_bound = fault.bound_s if fault.rate > 0.0 else 0.0
        self._one = {text: pa.array([text], pa.string()) for text in (SOURCE, CLOCK)}
        self._protocols = pa.array(PROTOCOLS, pa.string())
        self._hidden = key_of(plan.seed, _HIDDEN)
        self._positions: dict[str, int] = dict.fromkeys(TABLES, 0)

    @property
    def texts(self) -> Texts:
        """The dictionaries."""
        return self._texts

    def flows(self, drafts: Drafts) -> Batch:
        """A row each; pieces of links, which are no flows, must not be among them."""
        rows, texts, fleet = len(drafts), self._texts, self._fleet
        filled = _Columns(
            *_filled(drafts, fleet, texts.v6, self._begin, len(texts.device), len(texts.name), self._hidden)
        )
        named = filled.name >= 0
        ones = np.full(rows, int(Observability.OBSERVED), np.uint8)
        return _batch(
            "flows",
            rows,
            {
                **self._who(filled.device, filled.package, filled.uid),
                "flow_id": filled.flow_id,
                "start_time": filled.start,
                "end_time": filled.end,
                "protocol_num": filled.protocol,
                "direction_id": filled.direction,
                "direction_observability": ones,
                "local_ip": (filled.local, texts.local, None),
                "local_port": drafts["local_port"],
                "remote_ip": (drafts["remote"], texts.remote, None),
                "remote_port": drafts["remote_port"],
                "remote_hostname": (filled.name, texts.name, named),
                "hostname_observability": (ones, None, named),
                "bytes_out": drafts["bytes_out"],
                "bytes_in": drafts["bytes_in"],
                "bytes_observability": ones,
                "wire_bytes_out": filled.wire_out,
                "wire_bytes_in": filled.wire_in,
                "packets_out": filled.packets_out,
                "packets_in": filled.packets_in,
                "established": filled.established,
                "app_protocol": (filled.app_protocol, self._protocols, None),
                **self._provenance(rows, filled.position),
            },
        )

    def volumes(self, seconds: Seconds) -> Batch:
        """A row each, of a second."""
        rows, fleet = len(seconds.flow), self._fleet
        device = seconds.pair // APPS_A_PHONE
        return _batch(
            "volumes",
            rows,
            {
                **self._who(device, fleet.app_of[seconds.pair], _uid(fleet, seconds.pair)),
                "flow_id": seconds.flow,
                "start_time": seconds.start + self._begin,
                "duration_us": np.full(rows, SECOND, np.int64),
                "bytes_out": seconds.bytes_out,
                "bytes_in": seconds.bytes_in,
                **self._provenance(rows, self._numbered("volumes", rows)),
            },
        )

    def signals(self, facts: Drafts) -> Batch:
        """A row each."""
        rows, fleet = len(facts), self._fleet
        own = facts["place"] >= 0
        pair = facts["device"] * APPS_A_PHONE + np.maximum(facts["place"], 0)
        skew = fleet.skew[facts["device"]] + self._begin
        return _batch(
            "signals",
            rows,
            {
                **self._who(facts["device"], fleet.app_of[pair], _uid(fleet, pair), own),
                "kind": facts["kind"],
                "start_time": facts["start"] + skew,
                "end_time": (facts["end"] + skew, None, facts["end"] >= 0),
                "observability": np.full(rows, int(Observability.OBSERVED), np.uint8),
                "local_port": (facts["port"].astype(np.uint16), None, facts["port"] > 0),
                "detail": (facts["detail"], self._texts.asked, facts["detail"] >= 0),
                **self._provenance(rows, self._numbered("signals", rows)),
            },
        )

    def inventory(self, devices: range) -> Batch:
        """A row a device with its serial number, then a row an app on it."""
        each = APPS_A_PHONE + 1
        rows = len(devices) * each
        device = np.repeat(np.arange(devices.start, devices.stop), each)
        place = np.tile(np.arange(-1, APPS_A_PHONE), len(devices))
        own = place >= 0
        pair = device * APPS_A_PHONE + np.maximum(place, 0)
        app = self._fleet.app_of[pair]
        labels = pa.array([f"Example App {k}" for k in range(CATALOGUE)], pa.string())
        serials = pa.array([f"SIM{k:09d}" for k in devices], pa.string())
        groups = pa.array(["synthetic"], pa.string())
        return _batch(
            "inventory",
            rows,
            {
                **self._who(device, app, _uid(self._fleet, pair), own),
                "user_id": np.zeros(rows, np.int32),
                "device_group": (np.zeros(rows, np.int32), groups, None),
                "app_label": (app, labels, own),
                "installer": (np.zeros(rows, np.int32), pa.array(["com.android.vending"], pa.string()), own),
                "identifier_kind": (np.zeros(rows, np.int32), pa.array(["serial"], pa.string()), ~own),
                "identifier": (device - devices.start, serials, ~own),
                **self._provenance(rows, self._numbered("inventory", rows)),
            },
        )

    def _who(
        self, device: npt.NDArray[Any], app: npt.NDArray[Any], uid: npt.NDArray[Any], own: Flags | None = None
    ) -> dict[str, Any]:
        return {
            "device_uid": (device, self._texts.device, None),
            "android_package": (app, self._texts.package, own),
            "android_uid": (uid, None, own),
        }

    def _provenance(self, rows: int, position: Ints) -> dict[str, Any]:
        nothing = np.zeros(rows, np.int32)
        return {
            "source": (nothing, self._one[SOURCE], None),
            "position": position,
            "clock": (nothing, self._one[CLOCK], None),
            "clock_skew_bound_s": np.full(rows, self._skew_bound, np.float32),
        }

    def _numbered(self, table: TableName, rows: int) -> Ints:
        """Numbers of the table's next rows, from 1."""
        first = self._positions[table] + 1
        self._positions[table] += rows
        return np.arange(first, first + rows)


def _uid(fleet: Fleet, pair: npt.NDArray[Any]) -> npt.NDArray[Any]:
    uid: npt.NDArray[Any] = fleet.uid_base[pair // APPS_A_PHONE] + pair % APPS_A_PHONE
    return uid


def _batch(table: TableName, rows: int, columns: dict[str, Any]) -> Batch:
    """A batch of columns: an array each, or an array, its dictionary and which rows are known; others are null."""
    schema = TABLES[table]
    arrays = [
        pa.nulls(rows, field.type) if field.name not in columns else _array(columns[field.name], field.type, rows)
        for field in schema
    ]
    return Batch(table, pa.RecordBatch.from_arrays(arrays, schema=schema))


def _array(column: Any, kind: pa.DataType, rows: int) -> pa.Array:  # noqa: ANN401  as _batch takes it
    values, texts, known = column if isinstance(column, tuple) else (column, None, None)
    valid = None if known is None else pa.py_buffer(np.packbits(known, bitorder="little"))
    if texts is not None:
        indices = pa.Array.from_buffers(pa.int32(), rows, [valid, pa.py_buffer(np.ascontiguousarray(values, np.int32))])
        return pa.DictionaryArray.from_arrays(indices, texts, safe=False)
    if pa.types.is_boolean(kind):
        plain = np.packbits(values, bitorder="little")
    else:
        stored = np.int64 if pa.types.is_timestamp(kind) else kind.to_pandas_dtype()
        plain = np.ascontiguousarray(values, stored)
    return pa.Array.from_buffers(kind, rows, [valid, pa.py_buffer(plain)])


@compiled
def _filled(
    drafts: Drafts, fleet: Fleet, v6: Flags, begin: int, devices: int, named: int, hidden: np.uint64
) -> tuple[Any, ...]:
    """_Columns of the drafts. devices, named: how many there are; hidden: key of which flows show no name."""
    rows = len(drafts)
    device, package, uid = np.empty(rows, np.int32), np.empty(rows, np.int32), np.empty(rows, np.int32)
    flow_id, start, end = np.empty(rows, np.int64), np.empty(rows, np.int64), np.empty(rows, np.int64)
    protocol, direction = np.empty(rows, np.uint8), np.empty(rows, np.uint8)
    local, name, label = np.empty(rows, np.int32), np.empty(rows, np.int32), np.empty(rows, np.int32)
    wire_out, wire_in = np.empty(rows, np.int64), np.empty(rows, np.int64)
    packets_out, packets_in = np.empty(rows, np.int64), np.empty(rows, np.int64)
    established, position = np.empty(rows, np.bool_), np.empty(rows, np.int64)
    for k in range(rows):
        pair, kind, remote = drafts["pair"][k], drafts["kind"][k], drafts["remote"][k]
        datagrams, flow = drafts["datagrams"][k] > 0, drafts["flow"][k]
        owner = pair // APPS_A_PHONE
        device[k], package[k], uid[k] = owner, fleet.app_of[pair], fleet.uid_base[owner] + pair % APPS_A_PHONE
        flow_id[k], position[k] = flow, flow + 1
        start[k] = begin + drafts["start"][k] + fleet.skew[owner]
        end[k] = begin + drafts["end"][k] + fleet.skew[owner]
        protocol[k] = UDP if datagrams else TCP
        direction[k] = INBOUND if kind == ACCEPTED else OUTBOUND
        local[k] = owner + devices * v6[remote]
        shows = remote < named and not datagrams and kind != FAILED and bits_of(hidden, flow) % _TEN >= _NAMELESS
        name[k] = remote if shows else -1
        label[k] = _label(kind, drafts["remote_port"][k], datagrams)
        header = (_UDP_V4 if datagrams else _TCP_V4) + _V6_MORE * v6[remote]
        sent, received = drafts["bytes_out"][k], drafts["bytes_in"][k]
        out, into = -(-sent // SEGMENT), -(-received // SEGMENT)
        if not datagrams:  # opening and end, and an acknowledgement for every other segment
            out, into = out + 3 + into // 2, (into + 2 + out // 2) if kind != FAILED else 0
        packets_out[k], packets_in[k] = out, into
        wire_out[k], wire_in[k] = sent + out * header, received + into * header
        established[k] = kind != FAILED
    return (
        device,
        package,
        uid,
        flow_id,
        start,
        end,
        protocol,
        direction,
        local,
        name,
        wire_out,
        wire_in,
        packets_out,
        packets_in,
        established,
        label,
        position,
    )


@compiled
def _label(kind: int, port: int, datagrams: bool) -> int:  # noqa: FBT001  a kernel
    """What a source would call it."""
    if kind == LOOKUP:
        return _DNS
    if port == 123:
        return _NTP
    if kind == ACCEPTED:
        return _SOCKS
    if port == 80:
        return _HTTP
    return _QUIC if datagrams else _TLS
