"""A phone's netstats: as the files that Android keeps of it, and as dumpsys prints it.

Synthetic: written from AOSP's formats (NetworkStatsCollection and its dump), of what the given rows hold. Which network
bytes went over is not known: they are laid to one network, which is named synthetic.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import polars as pl

from relaywatch.model.tables import Batch
from relaywatch.outputs.telemetry.device_files import device_file
from relaywatch.outputs.telemetry.uid_buckets import uid_buckets

NETWORK: Final = "synthetic"
_SETS: Final = {
    "background": (0, "DEFAULT"), "foreground": (1, "FOREGROUND"), "vpn_in": (1001, "DBG_VPN_IN"),
    "vpn_out": (1002, "DBG_VPN_OUT"),
}  # fmt: skip
_COUNTS: Final = ("bytes_in", "packets_in", "bytes_out", "packets_out")
_COLLECTION_VERSION: Final = 16
_IDENTITY_VERSION: Final = 7
_HISTORY_VERSION: Final = 3
_WIFI: Final = 1
_ANY_RADIO: Final = -1


def write_netstats_binary(batches: Iterable[Batch], folder: Path) -> list[Path]:
    """`synthetic-<device>/uid.<start ms>-<end ms>` per device: one collection of its uids' histories."""
    written = []
    for device, buckets in _devices(batches):
        plain = device_file(folder, device, "")
        inner = plain.with_name(f"synthetic-{plain.name}")
        inner.mkdir(exist_ok=True)
        for old in inner.glob("uid.*-*"):
            old.unlink()
        end = (buckets["start_time"] + buckets["duration_us"]).to_numpy().max()
        path = inner / f"uid.{buckets['start_time'].to_numpy().min() // 1000}-{end // 1000}"
        path.write_bytes(_collection(buckets))
        written.append(path)
    return written


def write_netstats_text(batches: Iterable[Batch], folder: Path) -> list[Path]:
    """`synthetic-<device>-netstats.txt` per device: the uids' part of `dumpsys netstats --uid`."""
    written = []
    for device, buckets in _devices(batches):
        plain = device_file(folder, device, "-netstats.txt")
        path = plain.with_name(f"synthetic-{plain.name}")
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.write("# synthetic dumpsys netstats\nActive interfaces:\nUID stats:\n")
            file.writelines(f"{line}\n" for line in _dumped(buckets))
        written.append(path)
    return written


def _devices(batches: Iterable[Batch]) -> Iterator[tuple[str, pl.DataFrame]]:
    """Each device's buckets, of sets that netstats has."""
    known = uid_buckets(batches).filter(pl.col("android_set").is_in(list(_SETS)))
    for (device,), buckets in known.group_by("device_uid", maintain_order=True):
        yield str(device), buckets


def _histories(buckets: pl.DataFrame) -> Iterator[tuple[int, str, int, pl.DataFrame]]:
    """The uid, set and bucket length, us, of each history, and its buckets."""
    for (uid, kind, length), rows in buckets.group_by("android_uid", "android_set", "duration_us", maintain_order=True):
        yield int(uid), str(kind), int(length), rows


def _dumped(buckets: pl.DataFrame) -> Iterator[str]:
    identity = f'{{type={_WIFI}, ratType=COMBINED, wifiNetworkKey="{NETWORK}", metered=false, defaultNetwork=true}}'
    for uid, kind, length, rows in _histories(buckets):
        yield f"  ident=[{identity}] uid={uid} set={_SETS[kind][1]} tag=0x0"
        yield f"    NetworkStatsHistory: bucketDuration={length // 1_000_000}"
        for start, *counts in rows.select("start_time", *_COUNTS).iter_rows():
            received, packets_in, sent, packets_out = counts
            yield f"      st={start // 1_000_000} rb={received} rp={packets_in} tb={sent} tp={packets_out} op=0"


def _collection(buckets: pl.DataFrame) -> bytes:
    histories = [
        struct.pack(">iii", uid, _SETS[kind][0], 0) + _history(length, rows)
        for uid, kind, length, rows in _histories(buckets)
    ]
    head = struct.pack(">4sii", b"ANET", _COLLECTION_VERSION, 1)
    return b"".join((head, _identities(), struct.pack(">i", len(histories)), *histories))


def _identities() -> bytes:
    """The one network: no subscriber, its name, neither roaming nor metered, the default; no OEM's, no subscription."""
    name, flags = NETWORK.encode(), (False, False, True)
    begin = struct.pack(">iiii", _IDENTITY_VERSION, 1, _WIFI, _ANY_RADIO)
    return begin + struct.pack(f">BBH{len(name)}s???ii", 0, 1, len(name), name, *flags, 0, -1)


def _history(length: int, rows: pl.DataFrame) -> bytes:
    """One history; how long the radio was active and apps' own operations are not known, and written as none."""
    none = [0] * rows.height
    starts = (rows["start_time"] // 1000).to_list()
    columns = (starts, none, *(rows[name].to_list() for name in _COUNTS), none)
    return struct.pack(">iq", _HISTORY_VERSION, length // 1000) + b"".join(map(_var_longs, columns))


def _var_longs(values: list[int]) -> bytes:
    """An array: its length, then each number in seven bits a byte, the lowest first."""
    made = bytearray(struct.pack(">i", len(values)))
    for value in values:
        rest = value
        while rest > 0x7F:
            made.append(rest & 0x7F | 0x80)
            rest >>= 7
        made.append(rest)
    return bytes(made)
