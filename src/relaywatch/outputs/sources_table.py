"""Sources for people: what each holds, what it could and could not show, and how they fit together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relaywatch.outputs.summary import HuntSummary, JoinedSources, SourceView, UnitRead
from relaywatch.outputs.text import duration, plural, printable

MOST_ROWS: Final = 60
_RANK: Final = ("observed", "inferred", "partly", "absent")


def render_sources(summary: HuntSummary, console: Console) -> None:
    """Print what was read, what it shows, how it was joined, and what was left and why."""
    console.print(_headline(summary))
    if summary.units:
        console.print(_read_table(summary.units))
        console.print(_field_table(summary.units))
    console.print(_reasons("Records that soundly gave no row", _left(summary.units)), end="")
    console.print(*_join_parts(summary), sep="\n", end="")


def source_records(summary: HuntSummary) -> Iterator[dict[str, Any]]:
    """The same for machines: one object a source, a join and a device, then the sums."""
    for unit in summary.units:
        yield {"kind": "source", **_unit_record(unit)}
    for pair in summary.joins.pairs:
        yield {"kind": "join", **{name: getattr(pair, name) for name in JoinedSources.__slots__}}
    for name, others in summary.joins.devices.items():
        yield {"kind": "device", "device": name, "also": list(others)}
    for one, other, weight, through in summary.joins.possible:
        yield {"kind": "possible_device", "one": one, "other": other, "weight": weight, "through": through}
    yield {
        "kind": "sum",
        **_sums(summary.units),
        "devices": summary.devices,
        "apps": summary.apps,
        "rows": dict(summary.rows),
        "merged": summary.joins.merged,
        "attributed": dict(summary.joins.attributed),
        "translated": summary.joins.translated,
        "by_address": summary.joins.by_address,
        "contested_addresses": summary.joins.contested_addresses,
        "unrecognised": list(summary.unrecognised),
    }


def _unit_record(unit: UnitRead) -> dict[str, Any]:
    shows = unit.shows or SourceView({})
    return {
        "path": unit.path,
        "format": unit.format,
        "records": unit.met,
        "with_rows": unit.with_rows,
        "left": dict(unit.unused),
        "quarantined": unit.quarantined,
        "lost": unit.lost,
        "rows": unit.records,
        "first": None if shows.first is None else shows.first.isoformat(),
        "last": None if shows.last is None else shows.last.isoformat(),
        "fields": dict(shows.fields),
        "devices": shows.devices,
        "apps": shows.apps,
        "gaps": shows.gaps,
    }


def _sums(units: Sequence[UnitRead]) -> dict[str, int]:
    return {
        "records": sum(unit.met for unit in units),
        "with_rows": sum(unit.with_rows for unit in units),
        "left": sum(sum(unit.unused.values()) for unit in units),
        "quarantined": sum(unit.quarantined for unit in units),
        "lost": sum(unit.lost for unit in units),
    }


def _headline(summary: HuntSummary) -> Text:
    sums = _sums(summary.units)
    line = Text(
        f"{plural(len(summary.units), 'source')}, {plural(summary.devices, 'device')}, {plural(summary.apps, 'app')}: ",
        "bold",
    )
    line.append(
        f"{sums['records']:,} records = {sums['with_rows']:,} with rows + {sums['left']:,} left for a reason"
        f" + {sums['quarantined']:,} put aside"
    )
    if sums["lost"]:
        line.append(f" + {sums['lost']:,} lost", "bold red")
    return line


def _read_table(units: Sequence[UnitRead]) -> Table:
    """One row a source, under its format's name."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("source", overflow="fold", min_width=20)
    for name in ("records", "rows", "left", "put aside"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("from (UTC)", no_wrap=True)
    table.add_column("for", justify="right", no_wrap=True)
    form = ""
    for unit in sorted(units, key=lambda unit: unit.format)[:MOST_ROWS]:
        if unit.format != form:
            form = unit.format
            table.add_row(Text(printable(form), "bold"))
        shows = unit.shows or SourceView({})
        table.add_row(
            Text(f" {printable(unit.path)}"),
            f"{unit.met:,}",
            f"{unit.records:,}",
            f"{sum(unit.unused.values()):,}",
            Text(f"{unit.quarantined:,}", "yellow" if unit.quarantined else ""),
            "–" if shows.first is None else f"{shows.first:%Y-%m-%d %H:%M}",
            "–" if shows.first is None or shows.last is None else duration(shows.last - shows.first),
        )
    if len(units) > MOST_ROWS:
        table.add_row(f"{len(units) - MOST_ROWS:,} more (--json lists all)")
    return table


def _field_table(units: Sequence[UnitRead]) -> Table:
    """What each format shows, by the best of its files."""
    shown: dict[str, dict[str, str]] = {}
    gaps: Counter[str] = Counter()
    for unit in units:
        best = shown.setdefault(unit.format, {})
        view = unit.shows or SourceView({})
        gaps[unit.format] += view.gaps
        for name, seen in view.fields.items():
            best[name] = min(best.get(name, "absent"), seen, key=_RANK.index)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("format", "observed", "inferred", "in few rows", "not shown"):
        table.add_column(name, overflow="fold")
    table.add_column("gaps", justify="right", no_wrap=True)
    for form, fields in sorted(shown.items()):
        kinds = (", ".join(name for name, seen in fields.items() if seen == kind) or "–" for kind in _RANK)
        count = Text(f"{gaps[form]:,}", "yellow" if gaps[form] else "")
        table.add_row(Text(printable(form)), *kinds, count)
    return table


def _left(units: Sequence[UnitRead]) -> Mapping[str, int]:
    counts: Counter[str] = Counter()
    for unit in units:
        for reason, count in unit.unused.items():
            counts[f"{unit.format}: {reason}"] += count
    return counts


def _reasons(title: str, counts: Mapping[str, int]) -> Text:
    """A title and a line for each reason; nothing where there is none."""
    text = Text()
    if counts:
        text.append(f"{title}\n", "bold")
        for reason, count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:MOST_ROWS]:
            text.append(f"  {count:>10,}  {printable(reason)}\n")
    return text


def _join_parts(summary: HuntSummary) -> Iterator[Table | Text]:
    joins = summary.joins
    if joins.pairs:
        yield _pair_table(joins.pairs)
    if joins.attributed:
        yield _reasons("Flows that no record of the phone matches, by how an app was found", joins.attributed)
    if joins.devices:
        lines = (
            f"  {printable(name)} is also {', '.join(map(printable, also))}\n" for name, also in joins.devices.items()
        )
        yield Text("One device under several names\n", "bold").append("".join(list(lines)[:MOST_ROWS]), "not bold")
    if joins.translated:
        yield Text(f"{joins.translated:,} flows seen outside a translator (NAT), brought inside by its log\n")
    if joins.by_address or joins.contested_addresses:
        yield Text(
            f"{joins.by_address:,} records laid to a device by who had the address at the time; "
            f"{joins.contested_addresses:,} left, because several devices claim the address then\n"
        )
    if joins.possible:
        links = (
            f"  {printable(a)} ~ {printable(b)}: {weight:.2f}, {printable(how)}\n"
            for a, b, weight, how in joins.possible
        )
        yield Text("Perhaps one device, and not joined\n", "bold").append("".join(list(links)[:MOST_ROWS]), "not bold")


def _pair_table(pairs: Sequence[JoinedSources]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title="Joined", title_justify="left")
    for name in ("device", "records of", "matched into"):
        table.add_column(name, overflow="fold")
    for name in ("records", "matched", "contested"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("clock ahead by", justify="right")
    table.add_column("not matched, and why", overflow="fold")
    for pair in pairs[:MOST_ROWS]:
        why = "; ".join(f"{count:,}: {reason}" for reason, count in pair.unmatched.items())
        table.add_row(
            *(Text(printable(name)) for name in (pair.device, pair.one, pair.other)),
            f"{pair.records:,}",
            f"{pair.matched:,}",
            f"{pair.contested:,}",
            "not shown" if pair.skew_s is None else f"{pair.skew_s:+.2f} s ± {pair.spread_s:.2f}",
            Text(why or "–"),
        )
    return table
