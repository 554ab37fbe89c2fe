"""Fits the shapes of drilled and simulated relays to labelled ones: sizes, durations, lags, framing, bytes in time.

    python benchmarks/fit_drill_shapes.py RANGE [RANGE ...] [--out src/relaywatch/model/relay_shapes.json]

RANGE is a folder with traces/ and truth/ as range/run writes it. Only relays that do not hide, with ten sessions or
more, are taken; each scenario counts alike, with at most `--most` of its sessions. No address, name or time is kept.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from relaywatch.evaluation.labels import LabelledApp, read_labels

FEWEST = 10
PARTS = 10
LONG_S = 2.0
TOPOLOGIES = ("accepted", "back_connect", "tunnel")


def flows_of(app: LabelledApp) -> pl.DataFrame:
    """The trace's flows: flow_id, start, end in s, payload up and down in bytes."""
    return pl.read_csv(app.folder / "flows.csv", infer_schema_length=None).select(
        "flow_id", "start", "end", pl.col("tx_payload").alias("up"), pl.col("rx_payload").alias("down")
    )


def sessions_of(app: LabelledApp) -> pl.DataFrame:
    """A row a session: what the target leg carried, and its client leg where that is its own."""
    flows = flows_of(app)
    pairs = pl.DataFrame(sorted(app.pairs), schema={"client": pl.Int64, "target": pl.Int64}, orient="row")
    targets = flows.select(pl.all().name.prefix("t_"))
    clients = flows.select(pl.all().name.prefix("c_"))
    return (
        pairs.unique("target", keep="first", maintain_order=True)
        .join(targets, left_on="target", right_on="t_flow_id")
        .join(clients, left_on="client", right_on="c_flow_id")
        .filter((pl.col("t_up") > 0) & (pl.col("t_down") > 0))
        .sort("t_start")
    )


def shape_of(app: LabelledApp, most: int) -> dict[str, Any] | None:
    """What one relay's sessions look like; None where there are too few."""
    rows = sessions_of(app)
    if rows.height < FEWEST:
        return None
    own = rows.gather_every(max(1, rows.height // most)).head(most)
    duration = (own["t_end"] - own["t_start"]).clip(0.0)
    begun = float(rows["t_start"].to_numpy()[-1] - rows["t_start"].to_numpy()[0])
    shape: dict[str, Any] = {"program": app.program, "scenario": app.scenario, "rate": round(rows.height / begun, 4)}
    if app.topology == "tunnel":
        links = flows_of(app).filter(pl.col("flow_id").is_in(sorted({client for client, _ in app.pairs})))
        shape["links"] = links.height
        shape["framing_down"] = round(float(links["up"].sum() / rows["t_down"].sum()), 4)
        shape["framing_up"] = round(float(links["down"].sum() / rows["t_up"].sum()), 4)
        columns = [own["t_up"], own["t_down"], duration]
    else:
        if rows["client"].n_unique() < rows.height:
            return None
        lag, after = own["t_start"] - own["c_start"], own["c_end"] - own["t_end"]
        columns = [own["t_up"], own["t_down"], duration, lag, own["c_down"], own["c_up"], after]
    shape["sessions"] = [[round(float(value), 4) for value in row] for row in zip(*columns, strict=True)]
    return shape


def profile_of(apps: list[LabelledApp]) -> list[float]:
    """Mean share of what long target legs received by each tenth of their time, cumulated."""
    curves = []
    for app in apps:
        targets = {target for _, target in app.pairs}
        flows = pl.read_csv(app.folder / "flows.csv", infer_schema_length=None).filter(
            pl.col("flow_id").is_in(sorted(targets)) & (pl.col("end") - pl.col("start") > LONG_S)
        )
        bins = pl.read_parquet(app.folder / "bins.parquet").with_columns(pl.col("flow_id", "sec").cast(pl.Int64))
        for flow, start, end in flows.select("flow_id", "start", "end").iter_rows():
            own = bins.filter(pl.col("flow_id") == flow)
            total = own["rx_bytes"].sum()
            if total:
                at = np.clip((own["sec"].to_numpy() + 0.5 - start) / (end - start), 0.0, 1.0)
                share = np.bincount((at * PARTS).astype(int).clip(0, PARTS - 1), own["rx_bytes"].to_numpy(), PARTS)
                curves.append(np.cumsum(share) / total)
    return [round(float(value), 4) for value in np.mean(curves, axis=0)]


def main() -> None:
    """Fit, and write the file that drills read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labs", nargs="+", type=Path)
    parser.add_argument("--most", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("src/relaywatch/model/relay_shapes.json"))
    options = parser.parse_args()
    plain = [app for app in read_labels(options.labs) if app.label == "relay" and not app.hidden]
    fitted = {name: [] for name in TOPOLOGIES}
    used = []
    for app in sorted(plain, key=lambda app: (app.program, app.scenario)):
        shape = shape_of(app, options.most) if app.topology in fitted else None
        if shape is not None:
            fitted[app.topology].append(shape)
            used.append(app)
    document = {
        "made_by": "python benchmarks/fit_drill_shapes.py RANGE",
        "session": ["bytes up", "bytes down", "duration s", "lag s", "client bytes up", "client bytes down", "after s"],
        "received_by_tenth": profile_of(used),
        "topologies": fitted,
    }
    options.out.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
    print({name: [(shape["scenario"], len(shape["sessions"])) for shape in shapes] for name, shapes in fitted.items()})


if __name__ == "__main__":
    main()
