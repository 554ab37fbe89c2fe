"""Fixed-width records that an engine holds and spills, made from canonical batches.

Text is replaced by numbers: who it is about by a code from the registry, addresses and names by a hash whose text is
kept apart (engines.names). So a record is 88 bytes, whatever the names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from relaywatch.engines.names import REMEMBERED, Names
from relaywatch.model.errors import RelaywatchError
from relaywatch.model.schemas import Observability
from relaywatch.model.tables import Batch

Records = npt.NDArray[np.void]
AppCodes = npt.NDArray[np.uint32]

WORD: Final = 8


def _padded(fields: list[tuple[str, str]]) -> np.dtype[np.void]:
    """A record of these fields, filled up to a multiple of WORD, so that records can be moved as words."""
    spare = -np.dtype(fields).itemsize % WORD
    return np.dtype([*fields, ("spare", f"V{spare}")]) if spare else np.dtype(fields)


FLOW: Final = _padded(
    [
        ("device", "u4"),
        ("app", "u4"),
        ("start", "i8"),
        ("end", "i8"),
        ("bytes_out", "i8"),
        ("bytes_in", "i8"),
        ("flow_id", "i8"),
        ("position", "i8"),
        ("remote", "u8"),
        ("name", "u8"),
        ("source", "u4"),
        ("local_port", "u2"),
        ("remote_port", "u2"),
        ("protocol", "u1"),
        ("direction", "u1"),
        ("seen", "u1"),
    ]
)
"""A flow: times in us since epoch, -1 where not known; bytes -1 where not known; seen: SEEN_* bits."""
VOLUME: Final = _padded(
    [
        ("device", "u4"),
        ("app", "u4"),
        ("source", "u4"),
        ("flow_id", "i8"),
        ("start", "i8"),
        ("duration", "i8"),
        ("bytes_out", "i8"),
        ("bytes_in", "i8"),
    ]
)
SIGNAL: Final = _padded(
    [
        ("device", "u4"),
        ("app", "u4"),
        ("start", "i8"),
        ("end", "i8"),
        ("position", "i8"),
        ("detail", "u8"),
        ("source", "u4"),
        ("local_port", "u2"),
        ("kind", "u1"),
        ("observability", "u1"),
    ]
)
SEEN_DIRECTION: Final = 1
SEEN_BYTES: Final = 2
SEEN_NAME: Final = 4
FIRST_SEEN: Final = 8
"""The flow's start is when it was first seen open."""
APP_MATCHED: Final = 16
"""The flow's app is that of another source's record of the same connection."""
APP_INFERRED: Final = 32
"""No record says the flow's app: exactly one fits."""
NOT_KNOWN: Final = -1
NO_UID: Final = -(2**31)
NO_APP: Final = ""
_NOT_MET: Final = np.uint32(2**32 - 1)
_WIDEST_TABLE: Final = 4_000_000
_DEVICE_BITS: Final = np.uint64(40)
_PACKAGE_BITS: Final = np.uint64(20)
_LOW: Final = (1 << 20) - 1
_MOST_DEVICES: Final = (1 << 24) - 1
"""An app's key: device code above 40 bits, package code above 20 (a million of each), uid code below."""


class AppKey(NamedTuple):
    """Who a record is about: one app identity on one device. Package empty and uid NO_UID where not known."""

    device: str
    package: str
    uid: int


class Codes(Protocol):
    """What a judgement asks of the codes in records: a Registry answers it, and whoever gave codes by other means."""

    def source_ranks(self) -> npt.NDArray[np.int64]:
        """Place of each source among all, by code."""
        ...

    def anonymous(self, codes: npt.NDArray[np.uint32], /) -> npt.NDArray[np.bool_]:
        """Whether neither package nor uid is known, by app code."""
        ...


class TextCodes(dict[str, int]):
    """Codes of texts, in the order in which they are met."""

    def __init__(self) -> None:
        super().__init__()
        self._recent: list[tuple[pa.Array, npt.NDArray[np.uint32]]] = []

    def coded(self, column: pa.DictionaryArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
        """Each row's place in the column's values, null after the last; and of each place that is used the code.

        Values are met where a row has them; null is met as the empty text.
        """
        values = column.dictionary
        places = pc.fill_null(column.indices, len(values)).to_numpy(zero_copy_only=False).astype(np.int64)
        table = self._table(values)
        for place in np.unique(places[table[places] == _NOT_MET]).tolist():
            text = values[place].as_py() if place < len(values) else None
            table[place] = self.setdefault(text or "", len(self))
        return places, table

    def _table(self, values: pa.Array) -> npt.NDArray[np.uint32]:
        """The codes of these values as far as they were met; batches of one source share their values."""
        for seen, table in self._recent:
            if seen.equals(values):
                return table
        table = np.full(len(values) + 1, _NOT_MET, np.uint32)
        self._recent = [(values, table), *self._recent[: REMEMBERED - 1]]
        return table


class Registry:
    """AppCodes of the devices, apps and sources met so far; grows with them, never with the number of records."""

    def __init__(self) -> None:
        self.devices, self.sources, self.packages = TextCodes(), TextCodes(), TextCodes()
        self.uids: dict[int, int] = {}
        self._names: list[str] = []
        self._keys = np.empty(0, np.uint64)
        self._codes = np.empty(0, np.uint32)
        self._key_of = np.empty(0, np.uint64)
        """Keys by app code."""

    def source_names(self) -> list[str]:
        """Source names by code."""
        return list(self.sources)

    def source_ranks(self) -> npt.NDArray[np.int64]:
        """Place of each source's name among all, by code: an order that does not depend on what was read first."""
        ranks = np.empty(len(self.sources), np.int64)
        ranks[np.argsort(np.array(self.source_names(), object), kind="stable")] = np.arange(len(ranks))
        return ranks

    def app_codes(
        self, devices: npt.NDArray[np.uint32], packages: npt.NDArray[np.uint32], uids: npt.NDArray[np.uint32]
    ) -> npt.NDArray[np.uint32]:
        """AppCodes of app identities, given row by row as codes of `devices`, `packages` and `uids`.

        Raises RelaywatchError where there are more of them than a key has room for.
        """
        if max(len(self.packages), len(self.uids)) > _LOW or len(self.devices) > _MOST_DEVICES:
            raise RelaywatchError(f"more than {_LOW:,} packages or uids, or {_MOST_DEVICES:,} devices: hunt in parts.")
        device, package, uid = (codes.astype(np.uint64) for codes in (devices, packages, uids))
        keys = (device << _DEVICE_BITS) | (package << _PACKAGE_BITS) | uid
        place = np.searchsorted(self._keys, keys)
        new = np.unique(keys[self._keys[np.minimum(place, len(self._keys) - 1)] != keys]) if len(self._keys) else keys
        if len(new):
            fresh = np.unique(new)
            codes = len(self._codes) + np.arange(len(fresh), dtype=np.uint32)
            where = np.searchsorted(self._keys, fresh)
            self._keys, self._codes = np.insert(self._keys, where, fresh), np.insert(self._codes, where, codes)
            self._key_of = np.append(self._key_of, fresh)
            place = np.searchsorted(self._keys, keys)
        return np.asarray(self._codes[place], np.uint32)

    def app_keys(self, codes: npt.NDArray[np.uint32]) -> dict[int, AppKey]:
        """The identities behind some codes."""
        devices, packages, uids = list(self.devices), list(self.packages), list(self.uids)
        rows = np.flatnonzero(np.isin(self._codes, codes))
        found = {}
        for key, code in zip(self._keys[rows].tolist(), self._codes[rows].tolist(), strict=True):
            package, uid = (key >> int(_PACKAGE_BITS)) & _LOW, key & _LOW
            found[code] = AppKey(devices[key >> int(_DEVICE_BITS)], packages[package], uids[uid])
        return found

    def device_code(self, name: str) -> int:
        """The device's code; a device met for the first time gets one."""
        return self.devices.setdefault(name, len(self.devices))

    def app_code(self, device: str, package: str, uid: int) -> int:
        """The code of one app identity."""
        parts = (
            self.device_code(device),
            self.packages.setdefault(package, len(self.packages)),
            self.uids.setdefault(uid, len(self.uids)),
        )
        return int(self.app_codes(*(np.array([part], np.uint32) for part in parts))[0])

    def all_apps(self) -> list[AppKey]:
        """Every app identity met."""
        return list(self.app_keys(self._codes).values())

    def incomplete_apps(self) -> bool:
        """Whether of some app only the package or only the uid is known."""
        packages, uids = self.app_parts(self._codes)
        unnamed = packages == self.packages.get(NO_APP, _LOW)
        return bool((unnamed != (uids == self.uids.get(NO_UID, _LOW))).any())

    def codes(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
        """Keys of the app identities, ascending, and their codes."""
        return self._keys, self._codes

    def restore(
        self, names: Mapping[str, Sequence[str]], uids: Sequence[int], keys: npt.NDArray[np.uint64], codes: AppCodes
    ) -> None:
        """Take what another registry held: its devices, sources, packages and uids in order, and what `codes` gave."""
        for kind in ("devices", "sources", "packages"):
            getattr(self, kind).update({name: code for code, name in enumerate(names[kind])})
        self.uids.update({uid: code for code, uid in enumerate(uids)})
        self._keys, self._codes = keys, codes
        self._key_of = np.zeros(len(codes), np.uint64)
        self._key_of[codes] = keys

    def device_name(self, code: int) -> str:
        """The device's name by its code."""
        return self._device_names()[code]

    def _device_names(self) -> list[str]:
        if len(self._names) != len(self.devices):
            self._names = list(self.devices)
        return self._names

    def app_parts(self, codes: npt.NDArray[np.uint32]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        """Package and uid codes of app codes."""
        keys, low = self._key_of[codes], np.uint64(_LOW)
        return ((keys >> _PACKAGE_BITS) & low).astype(np.uint32), (keys & low).astype(np.uint32)

    def app_devices(self, codes: AppCodes) -> AppCodes:
        """Device codes of app codes."""
        return np.asarray(self._key_of[codes] >> _DEVICE_BITS, np.uint32)

    def anonymous(self, codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
        """Whether neither package nor uid is known, by app code."""
        packages, uids = self.app_parts(codes)
        nobody = self.packages.get(NO_APP, _LOW), self.uids.get(NO_UID, _LOW)
        return np.asarray((packages == nobody[0]) & (uids == nobody[1]))

    @property
    def apps(self) -> int:
        """App identities met; their codes lie below."""
        return len(self._codes)

    @property
    def identified_apps(self) -> int:
        """App identities met whose package or uid is known."""
        nobody = np.uint64((self.packages.get(NO_APP, _LOW) << int(_PACKAGE_BITS)) | self.uids.get(NO_UID, _LOW))
        return int(((self._keys & np.uint64((1 << int(_DEVICE_BITS)) - 1)) != nobody).sum())


def taken(records: Records, rows: npt.NDArray[np.int64]) -> Records:
    """The records at `rows`: as records[rows], several times faster."""
    words = records.view(np.uint64).reshape(len(records), records.dtype.itemsize // WORD)
    return np.take(words, rows, axis=0).view(records.dtype).reshape(len(rows))


def flow_records(batch: Batch, registry: Registry, names: Names) -> Records:
    """FLOW records of a batch of flows; registers devices, apps, sources, addresses and host names."""
    rows = batch.rows
    out = np.zeros(rows.num_rows, FLOW)
    out["device"], out["app"] = _who(rows, registry)
    out["source"] = _coded(rows["source"], registry.sources)
    out["start"] = _numbers(rows["start_time"])
    out["end"] = _numbers(rows["end_time"])
    for name in ("bytes_out", "bytes_in", "flow_id", "position"):
        out[name] = _numbers(rows[name])
    out["remote"] = names.keys(rows["remote_ip"])
    out["name"] = names.keys(rows["remote_hostname"])
    for name in ("local_port", "remote_port"):
        out[name] = _numbers(rows[name], missing=0)
    out["protocol"], out["direction"] = _numbers(rows["protocol_num"]), _numbers(rows["direction_id"])
    out["seen"] = (
        SEEN_DIRECTION * (_numbers(rows["direction_observability"], missing=0) == 1)
        + SEEN_BYTES * (_numbers(rows["bytes_observability"], missing=0) == 1)
        + SEEN_NAME * (_numbers(rows["hostname_observability"], missing=0) == 1)
        + FIRST_SEEN * (_numbers(rows["start_observability"], missing=0) == Observability.INFERRED)
    )
    return out


def volume_records(batch: Batch, registry: Registry) -> Records:
    """VOLUME records of a batch of volumes."""
    rows = batch.rows
    out = np.zeros(rows.num_rows, VOLUME)
    out["device"], out["app"] = _who(rows, registry)
    out["source"] = _coded(rows["source"], registry.sources)
    out["start"] = _numbers(rows["start_time"])
    out["duration"] = _numbers(rows["duration_us"])
    for name in ("flow_id", "bytes_out", "bytes_in"):
        out[name] = _numbers(rows[name])
    return out


def signal_records(batch: Batch, registry: Registry, names: Names) -> Records:
    """SIGNAL records of a batch of signals."""
    rows = batch.rows
    out = np.zeros(rows.num_rows, SIGNAL)
    out["device"], out["app"] = _who(rows, registry)
    out["source"] = _coded(rows["source"], registry.sources)
    out["start"], out["end"] = _numbers(rows["start_time"]), _numbers(rows["end_time"])
    out["position"] = _numbers(rows["position"])
    out["detail"] = names.keys(rows["detail"])
    out["local_port"] = _numbers(rows["local_port"], missing=0)
    out["kind"], out["observability"] = _numbers(rows["kind"]), _numbers(rows["observability"])
    return out


def _numbers(column: pa.Array, *, missing: int = NOT_KNOWN) -> npt.NDArray[Any]:
    """The column as integers, nulls as `missing`."""
    if pa.types.is_timestamp(column.type):
        column = column.view(pa.int64())
    if column.null_count:
        column = pc.fill_null(column.cast(pa.int64()), missing)
    result: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return result


def _dictionary(column: pa.DictionaryArray) -> tuple[npt.NDArray[np.int64], list[str | None]]:
    """AppCodes into the column's values; null is the code after the last."""
    values = column.dictionary.to_pylist()
    codes = pc.fill_null(column.indices, len(values)).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, [*values, None]


def _coded(column: pa.DictionaryArray, codes: TextCodes) -> npt.NDArray[np.uint32]:
    """The column's values as codes; new values are added. Null is coded as the empty text."""
    places, table = codes.coded(column)
    return table[places]


def _who(rows: pa.RecordBatch, registry: Registry) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Device and app codes of each row."""
    device, device_codes = registry.devices.coded(rows["device_uid"])
    package, package_codes = registry.packages.coded(rows["android_package"])
    uids = _numbers(rows["android_uid"], missing=NO_UID).astype(np.int64)
    distinct = np.sort(pl.Series(uids).unique().to_numpy())
    uid = np.searchsorted(distinct, uids) if len(distinct) > 1 else np.zeros(len(uids), np.int64)
    combined = (device * len(package_codes) + package) * len(distinct) + uid
    met, inverse = _factorise(combined, len(device_codes) * len(package_codes) * len(distinct))
    pair, met_uid = np.divmod(met, len(distinct))
    met_device, met_package = np.divmod(pair, len(package_codes))
    uid_codes = np.array([registry.uids.setdefault(n, len(registry.uids)) for n in distinct.tolist()], np.uint32)
    apps = registry.app_codes(device_codes[met_device], package_codes[met_package], uid_codes[met_uid])
    return device_codes[device], apps[inverse]


def combined_codes(
    one: pa.DictionaryArray, other: pa.DictionaryArray
) -> tuple[npt.NDArray[np.int64], list[str | None], list[str | None]]:
    """Pairs of two text columns: by row, place in one's values * len(other's values) + place there; both's values."""
    first, firsts = _dictionary(one)
    second, seconds = _dictionary(other)
    return first * len(seconds) + second, firsts, seconds


def _factorise(codes: npt.NDArray[np.int64], size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Distinct codes below `size`, and each row's place among them; by table where that is small, else by sorting."""
    if size > max(_WIDEST_TABLE, 4 * len(codes)):
        met, inverse = np.unique(codes, return_inverse=True)
        return met, inverse
    present = np.zeros(size, bool)
    present[codes] = True
    met = np.flatnonzero(present)
    place = np.zeros(size, np.int64)
    place[met] = np.arange(len(met))
    return met, place[codes]
