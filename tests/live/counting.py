"""A judgement that counts rows, by device and by source record, with a finding a device: for tests of the engine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from relaywatch.engines.kernel import Change, Status
from relaywatch.model.errors import RelaywatchError
from relaywatch.model.finding import App, Device, Finding, FirstResponse, Spread, Topology, Verdict
from relaywatch.model.tables import Batch

ATTACK = {
    "release": "x", "domain": "mobile-attack", "analytic_id": "AN1702", "analytic_stix_id": "x",
    "analytic_version": "1", "analytic_modified": "x", "analytic_digest": "x", "strategy_id": "x",
    "technique_id": "T1604", "technique_name": "x", "tactics": [], "log_sources": [],
}  # fmt: skip


class Counting:
    """A finding a device; its bridges are the rows counted. Rows met again are counted again: that is the point."""

    def __init__(self, folder: Path | None = None) -> None:
        del folder
        self.forms: set[str] = set()
        self.rows: Counter[str] = Counter()
        self.records: Counter[tuple[str, int]] = Counter()
        self.told: dict[str, int] = {}

    def feed(self, batch: Batch, form: str = "") -> None:
        self.forms.add(form)
        if batch.table != "flows":
            return
        self.rows.update(batch.rows.column("device_uid").cast(pa.string()).to_pylist())
        sources = batch.rows.column("source").cast(pa.string()).to_pylist()
        self.records.update(zip(sources, batch.rows.column("position").to_pylist(), strict=True))

    def changes(self, *, all_over: bool = False) -> list[Change]:
        news = [(device, count) for device, count in sorted(self.rows.items()) if self.told.get(device) != count]
        found = [Change(Status.UPDATED if d in self.told else Status.OPENED, finding(d, c)) for d, c in news]
        self.told.update(news)
        return found

    def drain(self) -> list[Change]:
        self.told.update(self.rows)
        return [Change(Status.CLOSED, finding(device, count)) for device, count in sorted(self.rows.items())]

    def take_late(self) -> list[Batch]:
        return []

    def taken(self) -> Counts:
        records = [[source, position, count] for (source, position), count in self.records.items()]
        return Counts(json.dumps({"version": 1, "rows": self.rows, "records": records, "told": self.told}))

    def load(self, folder: Path) -> None:
        state = json.loads((folder / "counts.json").read_text())
        if state["version"] != 1:
            raise RelaywatchError("counts of another version")
        self.rows, self.told = Counter(state["rows"]), state["told"]
        self.records = Counter({(source, position): count for source, position, count in state["records"]})

    def gauges(self) -> Mapping[str, float]:
        return {"active_pairs": len(self.rows), "late_records": 0}


@dataclass
class Counts:
    """The counts at one time."""

    text: str

    def write(self, folder: Path) -> None:
        (folder / "counts.json").write_text(self.text)


def finding(device: str, count: int) -> Finding:
    """A finding about a device that says how many rows were counted."""
    moment = datetime(2026, 3, 3, tzinfo=UTC)
    return Finding(
        finding_id=f"{device}-finding", verdict=Verdict.RELAY, probability=1, score=1, topology=Topology.ACCEPTED,
        device=Device(uid=device), app=App(), first_seen=moment, last_seen=moment, bridges=count, bytes_in=0,
        bytes_out=0, client_bytes_in=0, client_bytes_out=0, gateways=[], destinations=[],
        spread=Spread(destinations=0, prefixes=0, peak_concurrent=0), context=[], evidence=[], not_observable=[],
        client_legs=[], target_legs=[], bridge_list=[], balance=[], settings=[], attack=ATTACK,
        response=FirstResponse(preserve=[], ask=[], contain=[]), sources=[], producer="test",
    )  # fmt: skip
