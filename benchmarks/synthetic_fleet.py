"""Writes canonical flows of a synthetic fleet as Parquet, unsorted: bulk for speed, not a test of detection quality.

A device's apps each talk in short bouts through one day; flow sizes are log-normal. A few (device, app) pairs relay:
half by accepting sessions, half by dialling a gateway back once a session, each followed by a target leg with the same
bytes, directions swapped. Seeded and exact.

    python benchmarks/synthetic_fleet.py FOLDER --flows 10000000 --devices 2000
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

APPS_PER_DEVICE = 20
RELAYING = 0.005
SESSIONS = 200
DAY_US = 86_400 * 1_000_000
START_US = 1_767_225_600 * 1_000_000
CHUNK = 1_000_000
NAMES = 60_000
SCHEMA = pa.schema(
    [
        ("device_uid", pa.dictionary(pa.int32(), pa.string())),
        ("android_package", pa.dictionary(pa.int32(), pa.string())),
        ("android_uid", pa.int32()),
        ("flow_id", pa.int64()),
        ("start_time", pa.timestamp("us", tz="UTC")),
        ("end_time", pa.timestamp("us", tz="UTC")),
        ("protocol_num", pa.uint8()),
        ("direction_id", pa.uint8()),
        ("direction_observability", pa.uint8()),
        ("local_port", pa.uint16()),
        ("remote_ip", pa.dictionary(pa.int32(), pa.string())),
        ("remote_port", pa.uint16()),
        ("remote_hostname", pa.dictionary(pa.int32(), pa.string())),
        ("hostname_observability", pa.uint8()),
        ("bytes_out", pa.int64()),
        ("bytes_in", pa.int64()),
        ("bytes_observability", pa.uint8()),
        ("source", pa.dictionary(pa.int32(), pa.string())),
        ("position", pa.int64()),
        ("clock", pa.dictionary(pa.int32(), pa.string())),
    ]
)
Columns = dict[str, np.ndarray]


def relaying_pairs(devices: int, seed: int) -> np.ndarray:
    """Numbers (device * APPS_PER_DEVICE + app) of the pairs that relay."""
    pairs = devices * APPS_PER_DEVICE
    return np.sort(np.random.default_rng(seed).choice(pairs, max(2, int(pairs * RELAYING)), replace=False))


def ordinary(count: int, devices: int, rng: np.random.Generator) -> Columns:
    """Flows of apps that talk for themselves, in bouts of about ten flows."""
    bouts = max(1, count // 10)
    bout = np.sort(rng.integers(0, bouts, count))
    pair = rng.integers(0, devices * APPS_PER_DEVICE, bouts)[bout]
    start = (rng.integers(0, DAY_US, bouts)[bout] + rng.exponential(2e6, count)).astype(np.int64)
    remote = (pair % APPS_PER_DEVICE * 97 + rng.zipf(1.6, count) * 131) % NAMES
    received = rng.lognormal(9.0, 1.8, count).astype(np.int64) + 100
    sent = rng.lognormal(6.8, 1.0, count).astype(np.int64) + 60
    return {
        "pair": pair,
        "start": start,
        "life": (rng.lognormal(0.5, 1.2, count) * 1e6).astype(np.int64),
        "inbound": np.zeros(count, bool),
        "local_port": rng.integers(32_768, 60_999, count),
        "remote": remote,
        "remote_port": np.full(count, 443),
        "bytes_out": sent,
        "bytes_in": received,
    }


def relayed(pairs: np.ndarray, rng: np.random.Generator) -> Columns:
    """Client legs and their target legs, SESSIONS of each for every relaying pair."""
    pair = np.repeat(pairs, SESSIONS)
    count = len(pair)
    accepted = pair % 2 == 0
    start = rng.integers(0, DAY_US - 60_000_000, count)
    life = (rng.lognormal(0.8, 1.0, count) * 1e6).astype(np.int64)
    up = rng.lognormal(6.8, 0.8, count).astype(np.int64) + 60
    down = rng.lognormal(9.5, 1.5, count).astype(np.int64) + 100
    framing = rng.uniform(1.0, 1.03, count)
    gateway = NAMES - 1 - pair % 50
    client = {
        "pair": pair,
        "start": start,
        "life": life + 200_000,
        "inbound": accepted,
        "local_port": np.where(accepted, 1080, rng.integers(32_768, 60_999, count)),
        "remote": np.where(accepted, NAMES - 100 - rng.integers(0, 40, count), gateway),
        "remote_port": np.where(accepted, rng.integers(32_768, 60_999, count), 8443),
        "bytes_out": (down * framing).astype(np.int64),
        "bytes_in": (up * framing).astype(np.int64) + 20,
    }
    target = client | {
        "start": start + rng.integers(50_000, 400_000, count),
        "life": life,
        "inbound": np.zeros(count, bool),
        "local_port": rng.integers(32_768, 60_999, count),
        "remote": rng.integers(0, NAMES - 200, count),
        "remote_port": np.full(count, 443),
        "bytes_out": up,
        "bytes_in": down,
    }
    return {name: np.concatenate([client[name], target[name]]) for name in client}


def write_fleet(path: Path, flows: int, devices: int, seed: int = 1) -> None:
    """Write `flows` flows of `devices` devices to one Parquet file, in no order."""
    rng = np.random.default_rng(seed)
    relays = relayed(relaying_pairs(devices, seed), rng)
    extra = len(relays["pair"])
    chunks = max(1, -(-flows // CHUNK))
    share = np.array_split(rng.permutation(extra), chunks)
    texts = {
        "device_uid": pa.array([f"phone-{number:06d}" for number in range(devices)]),
        "android_package": pa.array([f"org.example.app{number:02d}" for number in range(APPS_PER_DEVICE)]),
        "remote_ip": pa.array([f"192.0.{k // 250}.{k % 250}" for k in range(NAMES)]),
        "remote_hostname": pa.array([f"h{k}.site{k // 3}.example" for k in range(NAMES)]),
    }
    written = 0
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for k in range(chunks):
            own = {name: values[share[k]] for name, values in relays.items()}
            size = min(CHUNK, flows - written)
            plain = ordinary(max(1, size - len(own["pair"])), devices, rng)
            columns = {name: np.concatenate([plain[name], own[name]]) for name in plain}
            order = rng.permutation(len(columns["pair"]))
            rows = _rows({name: values[order] for name, values in columns.items()}, texts, written)
            writer.write_batch(rows, row_group_size=CHUNK)
            written += rows.num_rows


def _rows(columns: Columns, texts: dict[str, pa.Array], first: int) -> pa.RecordBatch:
    count = len(columns["pair"])
    start = START_US + columns["start"]
    number = np.arange(first, first + count)
    app = columns["pair"] % APPS_PER_DEVICE

    def text(name: str, codes: np.ndarray) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), texts[name])

    def constant(value: str) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([value]))

    ones = np.ones(count, np.uint8)
    values = {
        "device_uid": text("device_uid", columns["pair"] // APPS_PER_DEVICE),
        "android_package": text("android_package", app),
        "android_uid": pa.array((10_100 + app).astype(np.int32)),
        "flow_id": pa.array(number),
        "start_time": pa.array(start).cast(SCHEMA.field("start_time").type),
        "end_time": pa.array(start + columns["life"]).cast(SCHEMA.field("end_time").type),
        "protocol_num": pa.array(np.full(count, 6, np.uint8)),
        "direction_id": pa.array(np.where(columns["inbound"], 1, 2).astype(np.uint8)),
        "direction_observability": pa.array(ones),
        "local_port": pa.array(columns["local_port"].astype(np.uint16)),
        "remote_ip": text("remote_ip", columns["remote"]),
        "remote_port": pa.array(columns["remote_port"].astype(np.uint16)),
        "remote_hostname": text("remote_hostname", columns["remote"]),
        "hostname_observability": pa.array(ones),
        "bytes_out": pa.array(columns["bytes_out"]),
        "bytes_in": pa.array(columns["bytes_in"]),
        "bytes_observability": pa.array(ones),
        "source": constant("synthetic-fleet"),
        "position": pa.array(number + 1),
        "clock": constant("device"),
    }
    return pa.RecordBatch.from_arrays(list(values.values()), schema=SCHEMA)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--flows", type=int, default=10_000_000)
    parser.add_argument("--devices", type=int, default=2_000)
    parser.add_argument("--relays", action="store_true", help="print which device and app relay, write nothing")
    arguments = parser.parse_args()
    if arguments.relays:
        for pair in relaying_pairs(arguments.devices, 1).tolist():
            print(f"phone-{pair // APPS_PER_DEVICE:06d}", f"org.example.app{pair % APPS_PER_DEVICE:02d}")
        sys.exit()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    write_fleet(arguments.folder / "flows.parquet", arguments.flows, arguments.devices)
