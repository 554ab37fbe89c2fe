"""Splits labelled traffic into what a phone and what a sensor would see, joins it back, and counts what is right.

    python benchmarks/join_views.py LAB [--devices 40] [--apps 5] [--skew 2.0] [--seed 0] [--json]

LAB is a folder with traces/. Each device is `--apps` traces laid over each other at one address. The phone's side is
written as intrusion logs (connects, name look-ups), socket tables polled every five seconds, usagestats, netstats
files, package list and getprop; the sensor's as Zeek logs without app. The phone's clock is `--skew` seconds ahead.
Printed: the share of the sensor's flows that get the right app, how often the joined view's verdicts are those of
Zeek's rows with the app in them, and which apps they differ for.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from relaywatch.detection.settings import Settings
from relaywatch.engines import shards
from relaywatch.engines.local import Hunt, hunt
from relaywatch.engines.view import Unwatched, read_view
from relaywatch.governance.exceptions import Exceptions
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import TABLES, Direction, SignalKind
from relaywatch.model.tables import Batch
from relaywatch.outputs.telemetry import ExportFormat, export
from relaywatch.sources.discovery import discover
from relaywatch.sources.lab import LabTrace
from relaywatch.sources.reading import Reading

PHONE, ADDRESS = "phone-1", "10.9.8.7"
LOOKUP_PORT = 53
NAMED_WITHIN_US = 5_000_000
BEFORE_SYN_US = 20_000
"""How long before its packet on the wire a connect is logged, at the most; drawn evenly."""
Tables = dict[str, pl.DataFrame]


@dataclass
class Counts:
    """What came out. wrong: flows without the right app, by what they are."""

    flows: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    skews: list[float] = field(default_factory=list)
    different: list[str] = field(default_factory=list)


def composed(traces: Sequence[Path], phone: str = PHONE, address: str = ADDRESS) -> Tables:
    """The traces as apps of one phone at one address, all begun together."""
    parts: dict[str, list[pl.DataFrame]] = {name: [] for name in TABLES}
    begin, offset = None, 0
    for trace in traces:
        read = _tables(trace)
        first = read["flows"]["start_time"].min()
        begin = first if begin is None else begin
        for name, table in read.items():
            moved = [(pl.col(c) + (begin - first)).alias(c) for c in ("start_time", "end_time") if c in table.columns]
            numbered = [(pl.col("flow_id") + offset).alias("flow_id")] if "flow_id" in table.columns else []
            here = [pl.lit(address).alias("local_ip")] if name == "flows" else []
            parts[name].append(table.with_columns(pl.lit(phone).alias("device_uid"), *moved, *numbered, *here))
        offset += int(read["flows"]["flow_id"].to_numpy().max()) + 1
    return {name: pl.concat(tables) for name, tables in parts.items() if tables}


def drawn(rng: random.Random, traces: Sequence[Path], apps: int) -> list[Path]:
    """Traces at random of which no two have one uid or accept sessions on one port, as apps of one phone do not."""
    chosen: list[Path] = []
    ports: set[int] = set()
    uids: set[int] = set()
    for trace in rng.sample(traces, len(traces)):
        flows = pl.read_csv(trace / "flows.csv", columns=["direction", "local_port"], infer_schema_length=None)
        own = set(flows.filter(pl.col("direction") == "in")["local_port"].to_list())
        uid = json.loads((trace / "context.json").read_text(encoding="utf-8"))["uid"]
        if len(chosen) < apps and not own & ports and uid not in uids:
            chosen.append(trace)
            ports |= own
            uids.add(uid)
    return chosen


def _tables(trace: Path) -> Tables:
    held: dict[str, list[pa.RecordBatch]] = {}
    for part in LabTrace().read(trace, Reading(Quarantine())):
        held.setdefault(part.table, []).append(part.rows)
    frames = {name: pl.from_arrow(pa.Table.from_batches(rows)) for name, rows in held.items()}
    return {name: table.with_columns(pl.col(pl.Categorical).cast(pl.String)) for name, table in frames.items()}


def batches(tables: Tables, *names: str) -> Iterator[Batch]:
    """The tables as batches."""
    for name in names:
        if name in tables and tables[name].height:
            yield Batch(name, tables[name].to_arrow().cast(TABLES[name]).combine_chunks().to_batches()[0])


def phone_side(tables: Tables, skew_us: int, folder: Path, phone: str = PHONE) -> None:
    """Write what the phone shows, by its own clock."""
    shown = dict(tables)
    shown["signals"] = pl.concat([tables["signals"], lookups(tables["flows"], tables["signals"])])
    ahead = pl.duration(microseconds=skew_us)
    early = np.random.default_rng(0).integers(-BEFORE_SYN_US, 0, tables["flows"].height)
    dialled = pl.col("start_time") + pl.Series(early).cast(pl.Duration("us"))
    shown["flows"] = tables["flows"].with_columns(dialled.alias("start_time"))
    for name, table in shown.items():
        moved = [(pl.col(c) + ahead).alias(c) for c in ("start_time", "end_time") if c in table.columns]
        shown[name] = table.with_columns(moved)
    logs = folder / "intrusion_logs"
    export(batches(shown, "flows", "signals"), ExportFormat.INTRUSION_LOGS, logs)
    export(batches(shown, "flows", "signals"), ExportFormat.SOCKET_POLLS, folder)
    export(batches(shown, "signals"), ExportFormat.USAGESTATS, folder)
    export(batches(shown, "flows", "volumes", "signals"), ExportFormat.NETSTATS_BINARY, folder)
    (folder / "getprop.txt").write_text(f"[ro.serialno]: [{phone}]\n[persist.sys.timezone]: [UTC]\n")
    apps = tables["flows"].select("android_package", "android_uid").unique().drop_nulls().sort("android_uid")
    (folder / "packages.txt").write_text("".join(f"package:{name} uid:{uid}\n" for name, uid in apps.iter_rows()))


def lookups(flows: pl.DataFrame, like: pl.DataFrame) -> pl.DataFrame:
    """Name look-ups as getaddrinfo() reports them: at the end of each flow to a name server, with what came after."""
    asked = flows.filter(pl.col("remote_port") == LOOKUP_PORT).select(
        "device_uid", "android_package", "android_uid", pl.col("end_time").fill_null(pl.col("start_time")).alias("at"),
        "source", "position", "clock", "clock_skew_bound_s",
    ).sort("at")  # fmt: skip
    named = flows.filter(pl.col("remote_hostname").is_not_null() & (pl.col("direction_id") == int(Direction.OUTBOUND)))
    named = named.select("android_package", pl.col("start_time").alias("at"), "remote_hostname", "remote_ip").sort("at")
    told = asked.join_asof(
        named,
        on="at",
        by="android_package",
        strategy="forward",
        tolerance=f"{NAMED_WITHIN_US}us",
        check_sortedness=False,
    )
    detail = pl.concat_str(
        pl.col("remote_hostname").fill_null("unknown.invalid"), pl.col("remote_ip"), separator=" ", ignore_nulls=True
    )
    whole = told.with_columns(
        pl.lit(int(SignalKind.NAME_LOOKUP), pl.UInt8).alias("kind"), pl.col("at").alias("start_time"),
        pl.lit(None, pl.Datetime("us", "UTC")).alias("end_time"), pl.lit(1, pl.UInt8).alias("observability"),
        pl.lit(None, pl.UInt16).alias("local_port"), detail.alias("detail"),
    )  # fmt: skip
    return whole.select(like.columns)


def measure(tables: Tables, skew_us: int, name: str, folder: Path, counts: Counts) -> None:
    """One device: export both sides, join, compare; name: of the device, for what differs."""
    export(batches(tables, "flows"), ExportFormat.ZEEK, folder / "sensor")
    phone_side(tables, skew_us, folder / "phone")
    export(batches(tables, "flows", "signals", "inventory"), ExportFormat.PARQUET, folder / "whole")
    joined = [folder / "sensor", folder / "phone"]
    _attribution(joined, tables["flows"], folder, counts)
    seen, whole = _verdicts(joined), _verdicts([folder / "whole"])
    for app in sorted(tables["flows"]["android_package"].unique().to_list()):
        pair = seen.get(app, "none"), whole.get(app, "none")
        counts.verdicts[pair] += 1
        if pair[0] != pair[1]:
            counts.different.append(f"{name}, {app}: {' / '.join(pair)}")
    counts.verdicts["joined, unknown app", "-"] += sum(app is None for app in seen)


def _verdicts(paths: Sequence[Path]) -> dict[str | None, str]:
    result = hunt(paths, Hunt(Settings(), Exceptions(()), datetime.now(UTC)))
    return {finding.app.package: finding.verdict.value for finding in result.findings}


def _attribution(paths: Sequence[Path], truth: pl.DataFrame, folder: Path, counts: Counts) -> None:
    """Compare the app of each of the sensor's flows with the truth, by what the sensor knows of the flow."""
    work = folder / "work"
    work.mkdir()
    view = read_view(discover(paths).units, work, "", Unwatched(), Settings().allowed_destinations)
    records = np.concatenate([view.intake.flows.read(shard) for shard in range(shards.SHARDS)])
    apps = view.intake.registry.app_keys(np.unique(records["app"]))
    sources = view.intake.registry.source_names()
    sensed = records[[sources[code].endswith("conn.log") for code in records["source"].tolist()]]
    counts.skews += [pair.skew_s for pair in view.summary.pairs if pair.skew_s is not None]
    key = ("start", "local_port", "remote_port", "protocol")
    known = dict(zip(zip(*(sensed[name].tolist() for name in key), strict=True), sensed["app"].tolist(), strict=True))
    columns = truth.select(
        pl.col("start_time").dt.epoch("us"),
        "local_port",
        "remote_port",
        "protocol_num",
        "android_package",
        "direction_id",
    )
    for *place, package, direction in columns.iter_rows():
        kind = "name look-ups" if place[2] == LOOKUP_PORT else "all others"
        found = known.get(tuple(place))
        counts.flows[kind] += 1
        if found is not None and apps[found].package == package:
            counts.right[kind] += 1
        else:
            state = "not in the view" if found is None else "another app" if apps[found].package else "no app"
            counts.wrong[f"{kind}, protocol {place[3]}, {Direction(direction).name.lower()}: {state}"] += 1


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lab", type=Path)
    parser.add_argument("--devices", type=int, default=40)
    parser.add_argument("--apps", type=int, default=5)
    parser.add_argument("--skew", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rng = random.Random(options.seed)  # noqa: S311  a sample, no secret
    traces = sorted(path for path in (options.lab / "traces").iterdir() if (path / "flows.csv").is_file())
    counts = Counts()
    for number in range(options.devices):
        sys.stderr.write(f"\rdevice {number + 1} of {options.devices}")
        with tempfile.TemporaryDirectory() as folder:
            chosen = drawn(rng, traces, options.apps)
            name = f"device {number + 1} ({' '.join(trace.name for trace in chosen)})"
            measure(composed(chosen), round(options.skew * 1e6), name, Path(folder), counts)
    sys.stderr.write("\n")
    report(counts, as_json=options.json)


def report(counts: Counts, *, as_json: bool) -> None:
    """Print what was counted."""
    flows, right = counts.flows.total(), counts.right.total()
    same = sum(count for (joined, whole), count in counts.verdicts.items() if joined == whole)
    compared = sum(count for (_, whole), count in counts.verdicts.items() if whole != "-")
    result = {
        "flows": flows,
        "right_app": right / flows,
        "by_kind": {kind: [counts.right[kind], count] for kind, count in sorted(counts.flows.items())},
        "wrong": dict(counts.wrong.most_common()),
        "same_verdict": same / compared,
        "verdicts": {f"{joined} / {whole}": count for (joined, whole), count in counts.verdicts.most_common()},
        "different": counts.different,
        "skew_s": {"least": min(counts.skews), "most": max(counts.skews)} if counts.skews else None,
    }
    if as_json:
        print(json.dumps(result))
        return
    print(f"right app: {right:,} of {flows:,} flows ({right / flows:.4f})")
    for kind, (hits, count) in result["by_kind"].items():
        print(f"  {kind}: {hits:,} of {count:,} ({hits / count:.4f})")
    for what, count in counts.wrong.most_common():
        print(f"  not right: {count:,} {what}")
    print(f"verdicts of the joined view / of the whole one: the same for {same} of {compared} apps")
    for pair, count in result["verdicts"].items():
        print(f"  {count:4d}  {pair}")
    for line in counts.different:
        print(f"  different: {line}")
    print(f"skew found: {result['skew_s']}")


if __name__ == "__main__":
    main()
