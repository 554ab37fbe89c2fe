"""What a hunt finds in the relay lab, trace by trace, beside its labels and two rules of one line.

Usage: python benchmarks/lab_table.py PATH_TO_LAB, with traces/, truth/, perhaps fleet/. Prints Markdown. This is
the only place that reads the labels, and it reads them after the hunt.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import polars as pl

from relaywatch.detection.settings import load
from relaywatch.engines.findings import SHOWN_BRIDGES
from relaywatch.engines.local import Hunt, hunt
from relaywatch.governance.exceptions import Exceptions
from relaywatch.model.finding import Finding

MANY_TUNNELS = 10
"""Links of one relay from which it is back-connect, a link a session, rather than a tunnel."""
NEXT_OUTBOUND_S = 0.5
ALARMS = ("relay", "suspected_relay")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Row:
    """One app: what it is, what the hunt said, and the scores of the three rules."""

    name: str
    scenario: str
    label: str
    expected: str
    finding: Finding | None
    bridged: str
    score: float
    hub: float
    asof: float

    @property
    def relays(self) -> bool:
        """Mechanically a relay, sanctioned or not."""
        return self.label != "benign"

    @property
    def verdict(self) -> str:
        """The hunt's verdict, or none."""
        return "none" if self.finding is None else self.finding.verdict.value


def judge_traces(lab: Path) -> list[Row]:
    """Hunt all traces at once; one row each."""
    found = {finding.device.uid: finding for finding in findings(lab / "traces")}
    rows = []
    for folder in sorted((lab / "traces").iterdir()):
        truth = json.loads((lab / "truth" / f"{folder.name}.json").read_text(encoding="utf-8"))
        flows = pl.read_csv(folder / "flows.csv")
        finding = found.get(folder.name)
        rows.append(
            Row(
                folder.name,
                truth["scenario"],
                truth["label"],
                expected_topology(truth),
                finding,
                bridge_quality(finding, truth, flow_ids(folder / "flows.csv")),
                -np.inf if finding is None else finding.score,
                hub_rule(flows, pl.read_parquet(folder / "bins.parquet")),
                asof_rule(flows),
            )
        )
    return rows


def judge_fleet(lab: Path) -> list[Row]:
    """Hunt the composed devices; one row an app. Pairs are not compared: flow numbers are new there."""
    fleet = lab / "fleet"
    found = {(finding.device.uid, finding.app.uid): finding for finding in findings(fleet)}
    flows, bins = pl.read_parquet(fleet / "flows.parquet"), pl.read_parquet(fleet / "bins.parquet")
    rows = []
    for app in json.loads((fleet / "truth.json").read_text(encoding="utf-8")):
        of_app = (pl.col("device") == app["device"]) & (pl.col("uid") == app["uid"])
        own, finding = flows.filter(of_app), found.get((app["device"], app["uid"]))
        relay = app["trace"].rpartition("+")[2]
        truth = json.loads((lab / "truth" / f"{relay}.json").read_text(encoding="utf-8"))
        rows.append(
            Row(
                f"{app['device']} {app['trace']}",
                app["scenario"],
                app["label"],
                expected_topology(truth),
                finding,
                "",
                -np.inf if finding is None else finding.score,
                hub_rule(own, bins.filter(of_app)),
                asof_rule(own),
            )
        )
    return rows


def findings(path: Path) -> list[Finding]:
    """Findings under default settings, without exceptions."""
    return hunt([path], Hunt(load(None, ()), Exceptions(()), datetime.now(UTC))).findings


def expected_topology(truth: dict[str, Any]) -> str:
    """How the label says that the client's sessions reach the device."""
    roles = truth["role_counts"]
    if roles.get("relay_in"):
        return "accepted"
    links = roles.get("relay_tunnel", 0)
    return "" if not links else "back_connect" if links >= MANY_TUNNELS else "tunnel"


def flow_ids(path: Path) -> dict[int, int]:
    """The flow of each line of a flow file."""
    with path.open(newline="", encoding="utf-8") as file:
        return {line: int(row["flow_id"]) for line, row in enumerate(csv.DictReader(file), 2)}


def bridge_quality(finding: Finding | None, truth: dict[str, Any], ids: dict[int, int]) -> str:
    """Bridges / true pairs, then share of listed bridges that are true pairs and of true pairs that are listed.

    A finding lists SHOWN_BRIDGES; of more bridges, the share of true pairs is not known.
    """
    pairs = {(pair["in_flow"], pair["out_flow"]) for pair in truth["pairs"]}
    if finding is None:
        return f"0 / {len(pairs)}" if pairs else ""
    listed = {
        (
            ids[finding.client_legs[bridge.client].record.position],
            ids[finding.target_legs[bridge.target].record.position],
        )
        for bridge in finding.bridge_list
    }
    right = len(listed & pairs)
    inferred = "*" if any(pair["source"].startswith("inferred") for pair in truth["pairs"]) else ""
    recall = f"{right / len(pairs):.2f}" if pairs and finding.bridges <= SHOWN_BRIDGES else "-"
    return f"{finding.bridges} / {len(pairs)}; {right / max(len(listed), 1):.2f}, {recall}{inferred}"


def hub_rule(flows: pl.DataFrame, bins: pl.DataFrame) -> float:
    """Best over remotes: correlation of what goes to it with what comes from all others, times their conservation."""
    named = bins.join(flows.select("flow_id", "remote_ip"), on="flow_id")
    if named.is_empty():
        return 0.0
    remotes, seconds = named["remote_ip"].unique().sort(), named["sec"].to_numpy()
    place = remotes.search_sorted(named["remote_ip"]).to_numpy()
    at = seconds - seconds.min()
    sent, received = (np.zeros((len(remotes), int(at.max()) + 1)) for _ in range(2))
    np.add.at(sent, (place, at), named["tx_bytes"].to_numpy())
    np.add.at(received, (place, at), named["rx_bytes"].to_numpy())
    others = received.sum(axis=0) - received
    most = np.maximum(sent.sum(axis=1), others.sum(axis=1))
    conserved = np.minimum(sent.sum(axis=1), others.sum(axis=1)) / np.maximum(most, 1.0)
    return float(max(correlation(a, b) * c for a, b, c in zip(sent, others, conserved, strict=True)))


def correlation(a: Floats, b: Floats) -> float:
    """Pearson's, 0 where either does not vary."""
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else 0.0


def asof_rule(flows: pl.DataFrame) -> float:
    """Accepted connections with an outbound one that starts within NEXT_OUTBOUND_S after, name lookups aside."""
    inbound = flows.filter(pl.col("direction") == "in").select("start").to_arrow()
    outbound = flows.filter(pl.col("direction") == "out", pl.col("remote_port") != 53).select("start").to_arrow()
    with duckdb.connect() as database:
        database.register("accepted", inbound)
        database.register("dialled", outbound)
        count = database.execute(
            "SELECT count(*) FROM accepted ASOF JOIN dialled ON dialled.start >= accepted.start "
            "WHERE dialled.start - accepted.start < ?",
            [NEXT_OUTBOUND_S],
        ).fetchone()
    return float(count[0]) if count else 0.0


def area_under_curve(scores: Floats, relays: npt.NDArray[np.bool_]) -> float:
    """Probability that a relay scores above a benign app, ties half: by ranks (Mann and Whitney)."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]
    positive, negative = int(relays.sum()), int((~relays).sum())
    return float((ranks[relays].sum() - positive * (positive + 1) / 2) / (positive * negative))


def recall_without_alarms(scores: Floats, relays: npt.NDArray[np.bool_]) -> float:
    """Share of relays that score above every benign app."""
    return float((scores[relays] > scores[~relays].max()).mean())


def print_rows(rows: list[Row]) -> None:
    """One line an app."""
    print(
        "| trace | scenario | label | verdict | topology: expected / found | probability | log evidence "
        "| bridges / true pairs; precision, recall | hub rule | ASOF join |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        found = row.finding
        topology = "" if found is None and not row.expected else f"{row.expected} / {found.topology if found else ''}"
        probability = "" if found is None else f"{found.probability:.3f}"
        evidence = "" if found is None else f"{found.evidence[0].log_likelihood_ratio:.1f}"
        print(
            f"| {row.name} | {row.scenario} | {row.label} | {row.verdict} | {topology} | {probability} | {evidence} "
            f"| {row.bridged} | {row.hub:.2f} | {row.asof:.0f} |"
        )


def print_summary(rows: list[Row]) -> None:
    """Found, missed and false, by topology; and the three rules' separation of relays from the rest."""
    print("\n| topology | relays | relay | suspected | insufficient | none | topology right |")
    print("|---|---|---|---|---|---|---|")
    for topology in ("accepted", "back_connect", "tunnel"):
        own = [row for row in rows if row.relays and row.expected == topology]
        verdicts = Counter(row.verdict for row in own)
        right = sum(1 for row in own if row.finding is not None and row.finding.topology == topology)
        print(
            f"| {topology} | {len(own)} | {verdicts['relay']} | {verdicts['suspected_relay']} "
            f"| {verdicts['insufficient_telemetry']} | {verdicts['none']} | {right} |"
        )
    benign = [row for row in rows if not row.relays]
    false = [row.name for row in benign if row.verdict in ALARMS]
    missed = [row.name for row in rows if row.relays and row.verdict not in ALARMS]
    print(f"\nFalse alarms: {len(false)} of {len(benign)} benign apps ({', '.join(false) or 'none'}).")
    print(f"Missed: {len(missed)} of {len(rows) - len(benign)} relays ({', '.join(missed) or 'none'}).")
    relays = np.array([row.relays for row in rows])
    print("\n| rule | AUC | recall without false alarms |\n|---|---|---|")
    for name, scores in (
        ("relaywatch (score of the finding)", [row.score for row in rows]),
        ("one-line hub rule", [row.hub for row in rows]),
        ("ASOF join of inbound to next outbound", [row.asof for row in rows]),
    ):
        values = np.array(scores)
        area, recall = area_under_curve(values, relays), recall_without_alarms(values, relays)
        print(f"| {name} | {area:.3f} | {recall:.2f} |")


def main() -> None:
    """Print both tables."""
    lab = Path(sys.argv[1])
    parts = [("Traces", judge_traces(lab))]
    if (lab / "fleet").exists():
        parts.append(("Composed devices", judge_fleet(lab)))
    for title, rows in parts:
        print(f"\n## {title}\n")
        print_rows(rows)
        print_summary(rows)


if __name__ == "__main__":
    main()
