"""ATT&CK objects for people and machines: what is vendored, how releases differ from it, and what that touches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relaywatch.attack.drift import LISTED, Bearing, Change, Drift
from relaywatch.attack.provenance import canonical_digest, vendored_from
from relaywatch.attack.release import Release, subject
from relaywatch.outputs.text import plural, printable

VALUE_CHARACTERS: Final = 160
MOST_ROWS: Final = 200
_DASH: Final = "–"


def vendored_records(vendored: Release) -> Iterator[dict[str, Any]]:
    """One object a vendored ATT&CK object, in order of ATT&CK ids."""
    for stix_id in sorted(vendored.objects, key=lambda stix_id: (vendored.label(stix_id), stix_id)):
        stix = vendored.objects[stix_id]
        yield {
            "kind": "object",
            "release": vendored_from(stix_id),
            "id": vendored.label(stix_id),
            "name": stix.get("name") or subject(stix_id, (vendored,)),
            "stix_id": stix_id,
            "version": stix.get("x_mitre_version"),
            "modified": stix.get("modified"),
            "spec_version": stix.get("x_mitre_attack_spec_version"),
            "sha256": canonical_digest(stix),
        }


def drift_records(drifts: Sequence[Drift], settings: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """One object a release, a remark, an absent object, a change and a problem.

    settings: default by name of each setting that is a mutable element.
    """
    for drift in drifts:
        name, path = drift.release.name, drift.release.path
        of_release = {"release": name, "path": path}
        yield {
            "kind": "release",
            **of_release,
            "whole": drift.release.whole,
            "changes": len(drift.changes),
            "problems": len(drift.problems),
            "remarks": list(drift.release.remarks),
            "absent": list(drift.absent),
        }
        for change in drift.changes:
            yield {"kind": "change", **of_release, **_change_record(change, settings)}
        for problem in drift.problems:
            breach = {"id": problem.object, "field": problem.field, "reason": problem.reason}
            yield {"kind": "problem", **of_release, **breach}


def _change_record(change: Change, settings: Mapping[str, str]) -> dict[str, Any]:
    bearing = change.bearing
    return {
        "id": change.label,
        "stix_id": change.stix_id,
        "subject": change.subject,
        "field": change.field,
        "key": change.key,
        "before": change.before,
        "after": change.after,
        "settings": [
            {"name": name, "known": name in settings, "default": settings.get(name)} for name in bearing.settings
        ],
        "evidence": list(bearing.evidence),
        "telemetry": [
            {"table": need.table, "columns": list(need.columns), "kinds": list(need.kinds)}
            for need in bearing.telemetry
        ],
        "note": bearing.note,
    }


def render_vendored(vendored: Release, console: Console) -> None:
    """Print what is vendored, from which release, and its digests."""
    table = Table(title="Vendored ATT&CK objects (MITRE's, unchanged)", title_justify="left", box=SIMPLE_HEAD)
    for name in ("id", "name", "version", "release", "modified", "spec"):
        table.add_column(name, overflow="fold")
    table.add_column("STIX id, and SHA-256 of its canonical JSON", overflow="fold")
    for record in vendored_records(vendored):
        values = (record[name] for name in ("id", "name", "version", "release", "modified", "spec_version"))
        cells = [Text(printable(str(value or _DASH))) for value in values]
        table.add_row(*cells, Text(f"{record['stix_id']}\n{record['sha256']}"))
    console.print(table)


def render_drift(drifts: Sequence[Drift], settings: Mapping[str, str], console: Console) -> None:
    """Print each release's state, then every place that differs in one of them, side by side."""
    for drift in drifts:
        console.print(_headline(drift), end="")
    changes = [change for drift in drifts for change in drift.changes]
    if changes:
        console.print(_change_table(drifts, settings))
    for drift in drifts:
        if drift.problems:
            console.print(_problem_table(drift))


def _headline(drift: Drift) -> Text:
    release, objects = drift.release, len({change.stix_id for change in drift.changes})
    text = Text(f"{printable(release.name)}", "bold").append(f"  {printable(release.path)}\n  ", "not bold")
    state = f"{plural(len(drift.changes), 'change')} in {plural(objects, 'object')}" if objects else "no drift"
    text.append(state, "yellow" if objects else "green").append(f", {plural(len(drift.problems), 'problem')}\n")
    for remark in release.remarks:
        text.append(f"  {printable(remark)}\n")
    if drift.absent:
        text.append(f"  only a part of a release; not in it: {printable('; '.join(drift.absent), limit=2_000)}\n")
    return text


def _change_table(drifts: Sequence[Drift], settings: Mapping[str, str]) -> Table:
    """One row a place; a release that says there what we have shows =."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_lines=True)
    for name in ("where", "vendored", *(printable(drift.release.name) for drift in drifts), "what it touches"):
        table.add_column(name, overflow="fold")
    rows = _side_by_side(drifts)
    for (what, field, key), (before, afters, bearing) in list(rows.items())[:MOST_ROWS]:
        place = f"{field}: {key}" if key else field or "the object"
        where = Text(printable(what), "bold").append(f"\n{printable(place)}", "not bold")
        values = (_value(afters[number]) if number in afters else Text("=") for number in range(len(drifts)))
        table.add_row(where, _value(before), *values, _touches(bearing, settings))
    if len(rows) > MOST_ROWS:
        table.add_row(f"{len(rows) - MOST_ROWS:,} more (--json lists all)")
    return table


_Row = tuple[object, dict[int, object], Bearing]


def _side_by_side(drifts: Sequence[Drift]) -> dict[tuple[str, str, str], _Row]:
    """By place: the vendored value, and the values of the releases that differ, by their number."""
    rows: dict[tuple[str, str, str], _Row] = {}
    for number, drift in enumerate(drifts):
        for change in _condensed(drift.changes):
            place = (change.subject, change.field, change.key)
            rows.setdefault(place, (change.before, {}, change.bearing))[1][number] = change.after
    return dict(sorted(rows.items()))


def _condensed(changes: Sequence[Change]) -> Iterator[Change]:
    """The changes, with those of log sources that no analytic of DET0631 cites counted by component."""
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[str, Change] = {}
    for change in changes:
        if change.field != "x_mitre_log_sources" or change.bearing.evidence:
            yield change
            continue
        first.setdefault(change.stix_id, change)
        counts[change.stix_id, "more" if change.after == LISTED else "fewer"] += 1
    for stix_id, change in first.items():
        said = ", ".join(f"{counts[stix_id, way]} {way}" for way in ("more", "fewer") if counts[stix_id, way])
        yield Change(stix_id, change.label, change.subject, change.field, "not cited", None, said, change.bearing)


def _value(value: object) -> Text:
    return Text(_DASH if value is None else printable(str(value), limit=VALUE_CHARACTERS))


def _touches(bearing: Bearing, settings: Mapping[str, str]) -> Text:
    text = Text()
    ours = [name for name in bearing.settings if name in settings]
    missing = [printable(name) for name in bearing.settings if name not in settings]
    tables = dict.fromkeys(need.table for need in bearing.telemetry)
    if missing:
        text.append(f"no setting here for {', '.join(missing)}\n", "bold red")
    for title, names in (("settings", ours), ("evidence", bearing.evidence), ("telemetry", tables)):
        if names:
            text.append(f"{title}: {', '.join(names)}\n")
    text.append(printable(bearing.note), "dim")
    text.rstrip()
    return text


def _problem_table(drift: Drift) -> Table:
    title = f"Not as ATT&CK's data model says: {printable(drift.release.name)}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("object", "field", "problem"):
        table.add_column(name, overflow="fold")
    for problem in drift.problems[:MOST_ROWS]:
        table.add_row(*(Text(printable(part)) for part in (problem.object, problem.field, problem.reason)))
    if len(drift.problems) > MOST_ROWS:
        table.add_row(f"{len(drift.problems) - MOST_ROWS:,} more (--json lists all)")
    return table
