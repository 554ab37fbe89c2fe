"""The labels of a trace: what each flow was, and which client leg fed which target leg.

Pairs are joined from what customers, gateway and origin each wrote down of a session. Where a program has one link only
there is one candidate (construction); where nothing was logged, time and bytes decide, and the pair says so (inferred).
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from relay_range.addresses import RESOLVER

STATEMENT: Final = (
    "Packets are real traffic of the named program in network namespaces; foreground/background, screen, interaction, "
    "package and uid in context.json are scripted."
)
INDEX: Final = (
    "trace", "scenario", "label", "tool", "topology", "evasion", "dur", "flows", "in", "out", "remotes", "tx_kB",
    "rx_kB", "pairs", "cov", "cons_dn", "cons_up", "req_ok", "req_bad", "group",
)  # fmt: skip
Flow = Mapping[str, Any]
Key = tuple[str, int, str, int]


@dataclass(frozen=True, slots=True)
class Relay:
    """What is known of the relay by construction. ports: where it listens; reverse: its links go to the gateways.

    mixed: the app has traffic of its own. any_udp: it takes datagrams on ports of its choice. none: no relay at all.
    """

    ports: frozenset[int] = frozenset()
    reverse: bool = False
    mixed: bool = False
    any_udp: bool = False
    none: bool = False


@dataclass(slots=True)
class Seen:
    """What the journals say, by session."""

    clients: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    links: dict[tuple[str, int], list[tuple[str, int]]] = field(default_factory=dict)
    origins: dict[str, list[Key]] = field(default_factory=dict)
    done: int = 0
    failed: int = 0


def gather(events: Iterable[Mapping[str, Any]]) -> Seen:
    """The journals' events by what they are joined on."""
    seen = Seen()
    for event in events:
        if event["side"] == "client":
            seen.clients.setdefault(event["session"], []).append(tuple(event["local"]))
        elif event["side"] == "gateway":
            seen.links[tuple(event["client"])] = [tuple(link[:2]) for link in event["links"]]
        elif event["side"] == "origin":
            peer, local = event["peer"], event["local"]
            # The port is the phone's; the address too, because nothing translates on the way.
            key = (event.get("proto", "tcp"), peer[1], local[0], local[1])
            seen.origins.setdefault(event["session"], []).append(key)
        elif event["side"] == "customers":
            seen.done, seen.failed = event["done"], event["failed"]
    return seen


def key(flow: Flow) -> Key:
    """What the origin can know of a flow."""
    return flow["proto"], flow["local_port"], flow["remote_ip"], flow["remote_port"]


def is_gateway(address: str) -> bool:
    """Whether an address is one of the gateways'."""
    first, second, third, _ = address.split(".")
    return (first, second) == ("198", "19") and int(third) >= 192


def role(flow: Flow, relay: Relay, sessions: Mapping[Key, str]) -> str:
    """What one flow was."""
    if relay.none:
        dns = flow["remote_ip"] == RESOLVER and flow["direction"] == "out"
        return "dns" if dns else "own"
    if flow["direction"] == "in":
        served = flow["local_port"] in relay.ports or (relay.any_udp and flow["proto"] == "udp")
        return "relay_in" if served else "other_in"
    if flow["remote_ip"] == RESOLVER and 53 not in relay.ports:
        return "dns" if relay.mixed else "relay_dns"
    if relay.reverse and is_gateway(flow["remote_ip"]):
        return "relay_tunnel"
    session = sessions.get(key(flow), "")
    if session.startswith("own:"):
        return "own"
    if session.startswith("c:") or not relay.mixed:
        return "relay_out"
    return "unattributed"


def pairs(flows: Sequence[Flow], roles: Mapping[int, str], seen: Seen) -> list[dict[str, Any]]:
    """Client legs and the target legs they fed, with the source of that knowledge."""
    inbound = {(f["remote_ip"], f["remote_port"]): f["flow_id"] for f in flows if roles[f["flow_id"]] == "relay_in"}
    tunnels = [f for f in flows if roles[f["flow_id"]] == "relay_tunnel"]
    by_port = {f["local_port"]: f["flow_id"] for f in tunnels}
    targets = {key(f): f["flow_id"] for f in flows if roles[f["flow_id"]] == "relay_out"}
    found: dict[tuple[int, int], str] = {}
    for session, keys in seen.origins.items():
        outs = [targets[k] for k in keys if k in targets]
        for client in seen.clients.get(session, []):
            if client in inbound:
                found.update({(inbound[client], out): "client-log+origin-log" for out in outs})
            for link in seen.links.get(client, []):
                if link[1] in by_port:
                    found.update({(by_port[link[1]], out): "gateway-log+origin-log" for out in outs})
    paired = {out for _, out in found}
    legs = [*tunnels, *(f for f in flows if roles[f["flow_id"]] == "relay_in")]
    for flow in flows:
        if roles[flow["flow_id"]] != "relay_out" or flow["flow_id"] in paired:
            continue
        if (match := nearest(flow, legs)) is not None:
            source = "construction-one-link" if len(legs) == 1 else "inferred-time+bytes"
            found[match, flow["flow_id"]] = source
    return [{"in_flow": one, "out_flow": other, "source": how} for (one, other), how in sorted(found.items())]


def nearest(flow: Flow, legs: Sequence[Flow]) -> int | None:
    """The leg, open at the flow's start, whose bytes are nearest to the flow's, swapped."""
    open_then = [leg for leg in legs if leg["start"] - 1 <= flow["start"] <= leg["end"] + 1]
    if not open_then:
        return None

    def distance(leg: Flow) -> int:
        return int(abs(leg["tx_payload"] - flow["rx_payload"]) + abs(leg["rx_payload"] - flow["tx_payload"]))

    return int(min(open_then, key=distance)["flow_id"])


def conservation(flows: Sequence[Flow], roles: Mapping[int, str]) -> dict[str, list[float]] | None:
    """Payload of the target legs beside that of the client legs, down and up, and their ratio."""
    outs = [f for f in flows if roles[f["flow_id"]] == "relay_out"]
    ins = [f for f in flows if roles[f["flow_id"]] in ("relay_in", "relay_tunnel")]
    if not outs or not ins:
        return None
    down = sum(f["rx_payload"] for f in outs), sum(f["tx_payload"] for f in ins)
    up = sum(f["rx_payload"] for f in ins), sum(f["tx_payload"] for f in outs)
    return {
        "downstream: out.rx -> in.tx": [*down, round(down[1] / max(down[0], 1), 3)],
        "upstream: in.rx -> out.tx": [*up, round(up[1] / max(up[0], 1), 3)],
    }


def document(
    declared: Mapping[str, Any], relay: Relay, flows: Sequence[Flow], events: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """The label of one trace. declared: trace, label, tool, scenario, family, topology, evasion and the like."""
    seen = gather(events)
    sessions = {k: session for session, keys in seen.origins.items() for k in keys}
    roles = {f["flow_id"]: role(f, relay, sessions) for f in flows}
    found = [] if relay.none else pairs(flows, roles, seen)
    outs = {f["flow_id"] for f in flows if roles[f["flow_id"]] == "relay_out" and f["proto"] == "tcp"}
    covered = len({pair["out_flow"] for pair in found} & outs)
    gateways = sorted({f["remote_ip"] for f in flows if roles[f["flow_id"]] == "relay_tunnel"})
    return {
        **declared,
        "statement": STATEMENT,
        "listener_ports_of_relay": sorted(relay.ports),
        "gateways": gateways,
        "flow_roles": {str(number): name for number, name in roles.items()},
        "role_counts": dict(Counter(roles.values())),
        "pairs": found,
        "pair_coverage_of_relay_out_tcp": round(covered / len(outs), 3) if outs else None,
        "byte_conservation_payload": conservation(flows, roles),
        "customer_requests": {"ok": seen.done, "failed": seen.failed},
    }


def index_row(truth: Mapping[str, Any], flows: Sequence[Flow]) -> dict[str, Any]:
    """The trace's line of index.csv."""
    ratios = [values[2] for values in (truth["byte_conservation_payload"] or {}).values()] or ["", ""]
    return {
        "trace": truth["trace"],
        "scenario": truth["scenario"],
        "label": truth["label"],
        "tool": truth["tool"],
        "topology": truth["topology"],
        "evasion": ";".join(f"{name}={value}" for name, value in truth["evasion"].items()),
        "dur": round(truth["duration_s"]),
        "flows": len(flows),
        "in": sum(f["direction"] == "in" for f in flows),
        "out": sum(f["direction"] == "out" for f in flows),
        "remotes": len({f["remote_ip"] for f in flows}),
        "tx_kB": sum(f["tx_payload"] for f in flows) // 1000,
        "rx_kB": sum(f["rx_payload"] for f in flows) // 1000,
        "pairs": len(truth["pairs"]),
        "cov": truth["pair_coverage_of_relay_out_tcp"],
        "cons_dn": ratios[0],
        "cons_up": ratios[1],
        "req_ok": truth["customer_requests"]["ok"],
        "req_bad": truth["customer_requests"]["failed"],
        "group": truth["group"],
    }


def write(folder: Path, truth: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    """Write one trace's label and put its line into index.csv, in the place of an earlier one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{truth['trace']}.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    index = folder / "index.csv"
    rows: list[Mapping[str, Any]] = []
    if index.is_file():
        with index.open(newline="", encoding="utf-8") as stream:
            rows = [old for old in csv.DictReader(stream) if old["trace"] != row["trace"]]
    rows = sorted([*rows, row], key=lambda entry: str(entry["trace"]))
    with index.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, INDEX, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
