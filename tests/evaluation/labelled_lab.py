"""A tiny labelled lab, written from scratch: a SOCKS relay, a tunnel, and two ordinary apps."""

import json
from pathlib import Path

import numpy as np
import polars as pl

START = 1_700_000_000.0
HEADER = {"proto": "tcp", "local_ip": "10.0.0.23", "hostname_src": "sni", "syn_seen": 1, "established": 1}
FLAGS = {"fin": 1, "rst": 0, "first_data_dir": "tx", "retrans_bytes": 0}


def write_lab(folder: Path, relays: int = 2, benign: int = 3) -> Path:
    """A lab with so many relays, accepting and dialling in turn, and so many ordinary apps, a family each."""
    for k in range(relays):
        _write(folder, f"L{k}", f"relay-{k}", "relay", *_relay(np.random.default_rng(k), tunnel=k % 2 == 1))
    for k in range(benign):
        flows, seconds = _browsing(np.random.default_rng(100 + k))
        roles = {str(flow["flow_id"]): "own" for flow in flows}
        _write(folder, f"N{k}", f"benign-{k}", "benign", flows, seconds, roles, [])
    return folder


def _write(folder, name, program, label, flows, seconds, roles, pairs):
    trace = folder / "traces" / name
    trace.mkdir(parents=True)
    pl.DataFrame(sorted(flows, key=lambda flow: flow["start"])).write_csv(trace / "flows.csv")
    pl.DataFrame(seconds, schema=["flow_id", "sec", "tx_bytes", "rx_bytes", "tx_pkts", "rx_pkts"], orient="row").cast(
        {"flow_id": pl.Int32, "sec": pl.Int64}
    ).write_parquet(trace / "bins.parquet")
    context = {"trace": name, "package": f"com.example.{name.lower()}", "uid": 10_100, "trace_start": START}
    context |= {"trace_end": START + 400.0, "foreground": [], "screen_on": [], "interaction": [], "listeners": []}
    (trace / "context.json").write_text(json.dumps(context))
    truth = folder / "truth"
    truth.mkdir(exist_ok=True)
    record = {"trace": name, "label": label, "tool": program, "family": program, "scenario": program}
    record |= {"flow_roles": roles, "pairs": [{"in_flow": a, "out_flow": b, "source": "exact"} for a, b in pairs]}
    (truth / f"{name}.json").write_text(json.dumps(record))


def _flow(number, begin, end, remote, out, in_, *, inbound=False, hostname=""):
    sizes = {"tx_payload": out, "rx_payload": in_, "tx_ip": out + 400, "rx_ip": in_ + 400}
    counts = {"tx_pkts": 9, "rx_pkts": 9, "tx_data_pkts": 5, "rx_data_pkts": 5}
    ends = {"local_port": 1080 if inbound else 40_000 + number, "remote_ip": remote, "remote_port": 443}
    where = {"direction": "in" if inbound else "out", "hostname": hostname}
    times = {"flow_id": number, "start": START + begin, "end": START + end}
    return times | HEADER | ends | where | sizes | counts | FLAGS


def _session(rng, begin):
    life = int(rng.integers(1, 4))
    parts = [(int(begin) + j, int(rng.lognormal(9.5, 1.0))) for j in range(life)]
    return parts, 300 + int(rng.integers(0, 500))


def _browsing(rng):
    flows, seconds = [], []
    for k in range(40):
        begin = float(rng.uniform(0, 380))
        parts, asked = _session(rng, begin)
        flows.append(
            _flow(k, begin, parts[-1][0] + 1.5, f"192.0.2.{k % 7}", asked, _sum(parts), hostname=f"www{k % 7}.test")
        )
        seconds += [(k, int(START) + at, asked if at == parts[0][0] else 0, size, 3, 3) for at, size in parts]
    return flows, seconds


def _relay(rng, *, tunnel):
    flows, seconds, pairs, roles = [], [], [], {}
    link: dict[int, list[int]] = {}
    for k in range(40):
        begin = 5.0 + 9.0 * k + float(rng.uniform(0, 3))
        parts, asked = _session(rng, begin)
        number, end = 100 + k, parts[-1][0] + 1.5
        flows.append(
            _flow(number, begin + 0.1, end, f"198.51.100.{k}", asked, _sum(parts), hostname=f"shop{k}.example")
        )
        roles[str(number)] = "relay_out"
        for at, size in parts:
            up = asked if at == parts[0][0] else 0
            seconds.append((number, int(START) + at, up, size, 3, 3))
            link.setdefault(at, [0, 0])
            link[at] = [link[at][0] + size, link[at][1] + up]
        if not tunnel:
            flows.append(_flow(k, begin, end, f"203.0.113.{k % 5}", _sum(parts) + 20, asked + 20, inbound=True))
            seconds += [(k, int(START) + at, size, asked if at == parts[0][0] else 0, 3, 3) for at, size in parts]
            roles[str(k)] = "relay_in"
        pairs.append((0 if tunnel else k, number))
    if tunnel:
        sent, got = sum(s for s, _ in link.values()), sum(g for _, g in link.values())
        flows.append(_flow(0, 0.0, 399.0, "203.0.113.9", sent, got, hostname="gateway.test"))
        seconds += [(0, int(START) + at, int(1.02 * s), g, 3, 3) for at, (s, g) in sorted(link.items())]
        roles["0"] = "relay_tunnel"
    return flows, seconds, roles, pairs


def _sum(parts):
    return sum(size for _, size in parts)
