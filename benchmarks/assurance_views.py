"""Checks coverage's answers against what detection achieves, through each source's eyes.

    python benchmarks/assurance_views.py LAB [LAB ...] [--episodes 40] [--only NAME] [--json]

LAB is a folder with traces/ and truth/. The traces are exported as each source would have recorded them; each export is
covered, hunted and drilled. Two promises are checked: where coverage says that a topology is provable, drills of it are
called relay in at least 0.95 of the cases; where it says that it is not, nothing is ever called a relay. Beside them
stand the labelled relays themselves: how many of those in windows of each answer were called relay. Status 1 where a
promise is broken.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from join_views import batches, composed, drawn, phone_side
from rich.console import Console
from rich.table import Table

from relaywatch.assurance.drill import Drilled, DrillPlan, drill
from relaywatch.detection.settings import Settings
from relaywatch.engines.local import Hunt
from relaywatch.evaluation.labels import LabelledApp, read_labels
from relaywatch.evaluation.views import VIEWS
from relaywatch.governance.exceptions import Exceptions
from relaywatch.model.estimates import proportion
from relaywatch.model.finding import Topology, Verdict
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import TABLES
from relaywatch.outputs.telemetry import ExportFormat, export
from relaywatch.sources.discovery import discover
from relaywatch.sources.reading import Reading

PROMISED = 0.95
WITHOUT_FLOWS = {
    ExportFormat.INVENTORY_CSV,
    ExportFormat.DHCP_LEASES,
    ExportFormat.NETSTATS_BINARY,
    ExportFormat.NETSTATS_TEXT,
    ExportFormat.USAGESTATS,
}
JOINED = "phone's logs and sockets + zeek"
SKEW_US = 2_000_000
APPS_A_PHONE = 3
Write = Callable[[Sequence[LabelledApp], Path], None]


@dataclass
class Result:
    """One view. drilled: played and called relay by topology and answer; real: the same of labelled relays.

    broken: promises that did not hold.
    """

    view: str
    drilled: dict[str, tuple[int, int]] = field(default_factory=dict)
    real: dict[str, tuple[int, int]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


def exported(form: ExportFormat) -> Write:
    """Write each trace in this format, a folder a trace."""

    def write(apps: Sequence[LabelledApp], folder: Path) -> None:
        for app in apps:
            parts = [part for unit in discover([app.folder]).units for part in unit.read(Reading(Quarantine()))]
            export(iter(parts), form, folder / app.name)

    return write


def joined(apps: Sequence[LabelledApp], folder: Path) -> None:
    """Write phones of three traces each, by what the phone shows and what a sensor shows, with two seconds between."""
    rng = random.Random(0)  # noqa: S311  a sample, no secret
    left = sorted(app.folder for app in apps)
    number = 0
    while left:
        traces = drawn(rng, left, APPS_A_PHONE)
        left = [trace for trace in left if trace not in traces]
        number += 1
        phone, place = f"phone-{number}", folder / f"phone-{number}"
        tables = composed(traces, phone, f"10.9.{number // 250}.{number % 250 + 1}")
        export(batches(tables, "flows"), ExportFormat.ZEEK, place / "sensor")
        phone_side(tables, SKEW_US, place / "phone", phone)


def poorer(place: int) -> Write:
    """Write all traces as one of the evaluation's views, in canonical tables."""

    def write(apps: Sequence[LabelledApp], folder: Path) -> None:
        held: dict[str, list[pa.RecordBatch]] = {}
        for unit in discover([app.folder for app in apps]).units:
            for part in unit.read(Reading(Quarantine())):
                held.setdefault(part.table, []).append(part.rows)
        tables = {name: pa.Table.from_batches(rows, TABLES[name]).unify_dictionaries() for name, rows in held.items()}
        for name, table in VIEWS[place].seen(tables).items():
            pq.write_table(table, folder / f"{name}.parquet")

    return write


def views() -> dict[str, Write]:
    """Every view by name."""
    whole = {form.value: exported(form) for form in ExportFormat if form not in WITHOUT_FLOWS}
    return whole | {JOINED: joined} | {f"canonical, {view.name}": poorer(k) for k, view in enumerate(VIEWS) if k}


def judged(name: str, drilled: Drilled, apps: Sequence[LabelledApp]) -> Result:
    """What held of one view."""
    result = Result(name)
    for row in drilled.report.rows:
        called = round((row.relay.value or 0.0) * row.played)
        result.drilled[f"{row.topology} {row.provable}"] = (row.played, called)
        if row.provable == "yes" and called < PROMISED * row.played:
            result.broken.append(f"{row.topology}: provable, yet {called} of {row.played} drills found")
        if row.provable == "no" and called:
            result.broken.append(f"{row.topology}: not provable, yet {called} drills called relay")
    answers: dict[tuple[str, str], list[str]] = {}
    own: dict[tuple[str, str | None, int | None, str], set[str]] = {}
    for window in drilled.coverage.windows():
        for topology in Topology:
            said = getattr(window.provable, topology.value).value
            answers.setdefault((window.device, topology.value), []).append(said)
            own.setdefault((window.device, window.package, window.uid, topology.value), set()).add(said)
    relays = [found for found in drilled.findings if found.verdict is Verdict.RELAY]
    called = {found.device.uid for found in relays}
    for found in relays:
        if own.get((found.device.uid, found.app.package, found.app.uid, found.topology.value), {"no"}) == {"no"}:
            result.broken.append(f"{found.device.uid}: {found.topology.value} not provable, yet called relay")
    counts: Counter[tuple[str, bool]] = Counter()
    for app in apps:
        if app.relays and name != JOINED:
            said = answers.get((app.name, app.topology), ["no"])
            counts[f"{app.topology} {min(said, key=['yes', 'in_part', 'no'].index)}", app.name in called] += 1
    for key in sorted({key for key, _ in counts}):
        result.real[key] = (counts[key, True] + counts[key, False], counts[key, True])
    return result


def run(name: str, write: Write, apps: Sequence[LabelledApp], episodes: int) -> Result:
    """Export, then cover, hunt and drill."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "telemetry"
        folder.mkdir()
        write(apps, folder)
        plan = Hunt(Settings(), Exceptions(()), datetime.now(UTC))
        return judged(name, drill([folder], plan, DrillPlan(episodes=episodes)), apps)


def report(results: Sequence[Result], console: Console) -> None:
    """A row a view and answer, then the promises."""
    table = Table("view", "topology, provable", title="Drills and labelled relays called relay", title_justify="left")
    for name in ("drills", "called", "share (95 %)", "labelled relays", "called"):
        table.add_column(name, justify="right")
    for result in results:
        for key in sorted({*result.drilled, *result.real}):
            (played, called), (known, found) = result.drilled.get(key, (0, 0)), result.real.get(key, (0, 0))
            share = str(proportion(called, played)) if played else "-"
            table.add_row(result.view, key, str(played), str(called), share, str(known), str(found))
    console.print(table)
    kept: Counter[str] = Counter()
    for result in results:
        for key, (played, called) in result.drilled.items():
            kept[f"{key.split()[1]} played"] += played
            kept[f"{key.split()[1]} called"] += called
    for answer in ("yes", "in_part", "no"):
        console.print(
            f"provable {answer}: {kept[f'{answer} called']} of {kept[f'{answer} played']} drills called relay"
        )
    for result in results:
        for promise in result.broken:
            console.print(f"broken: {result.view}: {promise}")


def main() -> None:
    """Check every view."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labs", nargs="+", type=Path)
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    apps = read_labels(options.labs)
    results = []
    for name, write in views().items():
        if options.only in name:
            print(name, file=sys.stderr)
            results.append(run(name, write, apps, options.episodes))
    if options.json:
        for result in results:
            print(json.dumps(asdict(result)))
    else:
        report(results, Console(width=150))
    sys.exit(1 if any(result.broken for result in results) else 0)


if __name__ == "__main__":
    main()
