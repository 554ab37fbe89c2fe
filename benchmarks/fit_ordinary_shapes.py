"""Fits what ordinary apps of simulated fleets do to labelled benign traces: flows in their own order, look-ups.

    python benchmarks/fit_ordinary_shapes.py LAB [LAB ...] [--out src/relaywatch/simulation/ordinary.json]

LAB is a folder with traces/ and truth/. Of every benign scenario at most `--most` successive dialled flows are taken.
Programs that pass on what they receive, or accept sessions, by what they are for are left out: a simulated fleet says
which apps relay, and they would be a matter of opinion. No address, name or time of day is kept.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import polars as pl

from relaywatch.evaluation.labels import LabelledApp, read_labels

FEWEST = 8
QUIET_S = 5.0
STANDING_S = 60.0
STANDING_SHARE = 0.5
LOOKUP_PORTS = (53, 853, 5353)
LEFT_OUT = (
    *("rclone", "localtunnel", "bittorrent", "file-server", "sshd", "wireguard", "read-later", "iot-hub", "rtp"),
    "ntp",
)
"""Parts of the names of scenarios that are left out; time servers are asked by the system, not by apps."""


def carrying(app: LabelledApp) -> pl.DataFrame:
    """How many seconds of each flow carried payload."""
    seconds = pl.read_parquet(app.folder / "bins.parquet").filter(pl.col("tx_bytes") + pl.col("rx_bytes") > 0)
    return seconds.group_by(pl.col("flow_id").cast(pl.Int64)).agg(pl.len().cast(pl.Int64).alias("carrying"))


def flows_of(app: LabelledApp) -> pl.DataFrame:
    """The trace's dialled flows in order of their begin."""
    return (
        pl.read_csv(app.folder / "flows.csv", infer_schema_length=None)
        .filter(pl.col("direction") == "out")
        .join(carrying(app), on="flow_id", how="left")
        .sort("start", "flow_id")
    )


def shape_of(flows: pl.DataFrame, most: int) -> list[list[float]] | None:
    """A row a flow, its columns as the file names them; None where there are too few."""
    own = flows.filter(
        ~pl.col("remote_port").is_in(LOOKUP_PORTS) & (pl.col("tx_payload") > 0) & (pl.col("rx_payload") > 0)
    ).head(most)
    if own.height < FEWEST:
        return None
    least = max(STANDING_S, STANDING_SHARE * (flows["end"].max() - flows["start"].min()))
    life = pl.col("end") - pl.col("start")
    rows = own.select(
        pl.col("start").diff().fill_null(0.0).clip(0.0, QUIET_S).round(4),
        life.clip(0.001).round(4).alias("life"),
        "tx_payload",
        "rx_payload",
        (pl.col("remote_ip").rank("dense") - 1).cast(pl.Int64),
        (pl.col("proto") == "udp").cast(pl.Int64).alias("datagrams"),
        (life >= least).cast(pl.Int64).alias("stands"),
        "remote_port",
        pl.col("carrying").fill_null(1),
    )
    return [list(row) for row in rows.iter_rows()]


def lookups_of(flows: pl.DataFrame, most: int) -> list[list[float]]:
    """A row a name look-up that was answered: life (s), payload out and in (bytes)."""
    own = flows.filter((pl.col("remote_port") == 53) & (pl.col("rx_payload") > 0)).head(most)
    rows = own.select((pl.col("end") - pl.col("start")).clip(0.001).round(4), "tx_payload", "rx_payload")
    return [list(row) for row in rows.iter_rows()]


def main() -> None:
    """Fit, and write the file that simulated fleets read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labs", nargs="+", type=Path)
    parser.add_argument("--most", type=int, default=80)
    parser.add_argument("--out", type=Path, default=Path("src/relaywatch/simulation/ordinary.json"))
    options = parser.parse_args()
    benign = [app for app in read_labels(options.labs) if app.label == "benign"]
    programs: list[dict[str, Any]] = []
    lookups: list[list[float]] = []
    asked = flows = 0
    for app in sorted(benign, key=lambda app: (app.program, app.scenario)):
        if any(part in app.scenario for part in LEFT_OUT):
            continue
        dialled = flows_of(app)
        shape = shape_of(dialled, options.most)
        if shape is not None:
            programs.append({"program": app.program, "scenario": app.scenario, "flows": shape})
            lookups += lookups_of(dialled, 10)
            asked += dialled.filter(pl.col("remote_port") == 53).height
            flows += dialled.height
    document = {
        "made_by": "python benchmarks/fit_ordinary_shapes.py LAB",
        "flow": [
            "gap s",
            "life s",
            "bytes out",
            "bytes in",
            "remote",
            "datagrams",
            "stands",
            "remote port",
            "carrying s",
        ],
        "lookup": ["life s", "bytes out", "bytes in"],
        "programs": programs,
        "lookup_share": round(asked / flows, 4),
        "lookups": lookups,
    }
    options.out.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
    print({entry["scenario"]: len(entry["flows"]) for entry in programs}, len(lookups))


if __name__ == "__main__":
    main()
