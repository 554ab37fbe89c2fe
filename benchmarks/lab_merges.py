"""Hunts every lab relay merged with every benign program, and every two benign ones: trojanised apps, and chance.

    python benchmarks/lab_merges.py PATH_TO_LAB

Two traces are laid over each other from their begin on, as one app on one device, with the context of the benign one.
Labels are read only after the hunt. Nothing ran together, so the merged programs did not compete for one radio; two
periodic programs may be in step here as they would rarely be elsewhere.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from relaywatch.detection.settings import load
from relaywatch.engines.local import Hunt, hunt
from relaywatch.governance.exceptions import Exceptions
from relaywatch.model.finding import Finding, Verdict


def write_merged(first: Path, second: Path, folder: Path) -> None:
    """Write a trace folder that lays the second trace over the first; the context is the second's."""
    folder.mkdir()
    flows, bins, offset = [], [], 0
    start = json.loads((second / "context.json").read_text())["trace_start"]
    for trace in (first, second):
        shift = math.floor(start - json.loads((trace / "context.json").read_text())["trace_start"])
        table = pl.read_csv(trace / "flows.csv", infer_schema_length=None)
        flows.append(
            table.with_columns(
                pl.col("flow_id") + offset,
                pl.col("start") + shift,
                pl.col("end") + shift,
                *(pl.col(name).cast(pl.String) for name in ("hostname", "hostname_src")),
            )
        )
        volumes = pl.read_parquet(trace / "bins.parquet")
        bins.append(
            volumes.with_columns(pl.col("flow_id").cast(pl.Int64) + offset, pl.col("sec").cast(pl.Int64) + shift)
        )
        offset += int(table["flow_id"].max() or 0) + 1
    pl.concat(flows).sort("start").write_csv(folder / "flows.csv")
    pl.concat(bins).write_parquet(folder / "bins.parquet")
    (folder / "context.json").write_bytes((second / "context.json").read_bytes())


def expected(roles: Counter[str]) -> str:
    """Topology that the labels' roles say."""
    if roles["relay_in"]:
        return "accepted"
    return "back_connect" if roles["relay_tunnel"] > 9 else "tunnel"


def report(pairs: list[tuple[str, str]], found: dict[str, Finding], truth: dict[str, dict[str, object]]) -> None:
    """Print the two tables and what was missed or mistaken."""
    rows: dict[str, Counter[str]] = {"relay in a benign app": Counter(), "two benign programs": Counter()}
    missed: Counter[str] = Counter()
    mistaken = []
    for first, second in pairs:
        finding = found.get(f"{first}-{second}")
        verdict = finding.verdict.value if finding else "none"
        if truth[first]["label"] == "benign":
            rows["two benign programs"][verdict] += 1
            if verdict != "none":
                mistaken.append(f"{verdict}: {truth[first]['scenario']} with {truth[second]['scenario']}")
            continue
        rows["relay in a benign app"][verdict] += 1
        topology = expected(Counter(truth[first]["flow_roles"].values()))  # type: ignore[attr-defined]
        rows["relay in a benign app"]["wrong topology"] += bool(finding and finding.topology != topology)
        if verdict != "relay":
            missed[f"{verdict}: {truth[first]['scenario']}"] += 1
    columns = [*(verdict.value for verdict in Verdict), "none", "wrong topology"]
    print("| merged | pairs | " + " | ".join(columns) + " |")
    print("|---|---|" + "---|" * len(columns))
    for name, counts in rows.items():
        total = sum(counts[column] for column in columns[:-1])
        print(f"| {name} | {total} | " + " | ".join(str(counts[column]) for column in columns) + " |")
    print("\nNot called relay:\n" + "\n".join(f"- {name}: {count}" for name, count in missed.most_common()))
    print("\nBenign, but called something:\n" + "\n".join(f"- {line}" for line in sorted(mistaken)))


def main() -> None:
    """Merge, hunt, compare."""
    lab = Path(sys.argv[1])
    truth = {path.stem: json.loads(path.read_text()) for path in sorted((lab / "truth").glob("*.json"))}
    relays = [name for name, record in truth.items() if record["label"] != "benign"]
    benign = [name for name, record in truth.items() if record["label"] == "benign"]
    pairs = [*itertools.product(relays, benign), *itertools.combinations(benign, 2)]
    with tempfile.TemporaryDirectory() as folder:
        for first, second in pairs:
            write_merged(lab / "traces" / first, lab / "traces" / second, Path(folder) / f"{first}-{second}")
        result = hunt([Path(folder)], Hunt(load(), Exceptions(()), datetime.now(UTC)))
    report(pairs, {finding.device.uid: finding for finding in result.findings}, truth)


if __name__ == "__main__":
    main()
