"""The commands about the lake: import, compact, show, hunt."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from relaywatch.cli.hunting import check_outputs, shown
from relaywatch.cli.planning import planned
from relaywatch.cli.shell import (
    AsJson,
    Asn,
    AsOcsf,
    Bar,
    ExceptionsFile,
    Exit,
    HtmlPage,
    Indicators,
    Output,
    Overrides,
    Paths,
    SettingsFile,
    app,
    tell,
)
from relaywatch.engines.lake_hunt import Selection, hunt_lake
from relaywatch.lake.compacting import compact
from relaywatch.lake.importing import ImportAccount, import_telemetry
from relaywatch.lake.lake import Lake
from relaywatch.lake.layout import SHARDS
from relaywatch.model.errors import RelaywatchError
from relaywatch.model.schemas import TABLES
from relaywatch.outputs.account import quarantine_account, unread_account
from relaywatch.outputs.native import json_line
from relaywatch.outputs.text import plural, printable, size

LakeFolder = Annotated[Path, typer.Option("--lake", help="Folder of the lake")]

lake_app = typer.Typer(
    help="Keep telemetry as sorted Parquet files by day and device, to be hunted and queried many times.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(lake_app, name="lake")


@lake_app.command(name="import")
def import_command(
    paths: Paths,
    *,
    folder: LakeFolder,
    as_json: AsJson = False,
    device: Annotated[str, typer.Option(help="The device, for formats that do not name one")] = "",
) -> None:
    """Read telemetry into a lake, which is made where there is none. A file whose content is in it is not read again.

    Exit status: 0 all in the lake, 2 unusable input or lake, 3 some records could not be read.
    """
    with _interruptible(folder), Bar(Console(stderr=True)) as bar:
        account = import_telemetry(paths, folder, device, bar)
    if as_json:
        sys.stdout.write(json_line(_import_record(account)))
    else:
        _tell_import(account, folder)
    for line in (
        *quarantine_account(account.quarantine),
        *unread_account([(str(entry.path), entry.reason) for entry in account.unrecognised]),
    ):
        tell(line)
    raise typer.Exit(Exit.PARTIAL if account.quarantine.total else Exit.NOTHING_FOUND)


def _import_record(account: ImportAccount) -> dict[str, Any]:
    return {
        "imported": [
            {"path": entry.path, "format": entry.format, "rows": entry.rows, "quarantined": entry.quarantined}
            for entry in account.imported
        ],
        "known": [str(path) for path in account.known],
        "files_written": account.files,
        "quarantined": account.quarantine.total,
    }


def _tell_import(account: ImportAccount, folder: Path) -> None:
    rows = {table: sum(entry.rows.get(table, 0) for entry in account.imported) for table in TABLES}
    told = ", ".join(f"{count:,} {table}" for table, count in rows.items() if count) or "no rows"
    typer.echo(
        f"{plural(len(account.imported), 'source file')} imported: {told}, in {plural(account.files, 'file')} "
        f"of {printable(str(folder))}"
    )
    if account.known:
        typer.echo(f"{plural(len(account.known), 'source file')} in the lake already, not read again")


@lake_app.command(name="compact")
def compact_command(*, folder: LakeFolder, as_json: AsJson = False) -> None:
    """Merge the files of several imports into one sorted file per day and shard, and drop rows that repeat exactly.

    Exit status: 0 compacted, 2 unusable lake.
    """
    with _interruptible(folder), Bar(Console(stderr=True)) as bar:
        account = compact(folder, bar)
    if as_json:
        record = {"merged": account.merged, "files_before": account.before, "files_after": account.after}
        sys.stdout.write(json_line({**record, "repeats_dropped": account.repeats}))
    else:
        typer.echo(
            f"{plural(account.merged, 'partition')} merged: {plural(account.before, 'file')} before, {account.after} "
            f"after; {plural(account.repeats, 'exact repeat')} dropped"
        )


@lake_app.command(name="show")
def show_command(*, folder: LakeFolder, as_json: AsJson = False) -> None:
    """Show what a lake holds: days, devices, rows, bytes, files to compact.

    Exit status: 0 shown, 2 unusable lake.
    """
    lake = Lake.open(folder)
    devices = 0
    with Bar(Console(stderr=True)) as bar:
        bar.counting(SHARDS)
        for names in lake.devices():
            devices += len(names)
            bar.read(1)
    record = _lake_record(lake, devices)
    if as_json:
        sys.stdout.write(json_line(record))
    else:
        _render(record)


def _lake_record(lake: Lake, devices: int) -> dict[str, Any]:
    sizes = lake.sizes()
    return {
        "lake": str(lake.folder),
        "days": [day.isoformat() for day in lake.days()],
        "devices": devices,
        "sources": len(lake.sources()),
        "imported": lake.imported,
        "quarantined": lake.quarantined,
        "to_compact": sum(table.to_merge for table in sizes.values()),
        "tables": {
            name: {
                "rows": table.rows,
                "bytes": table.size_bytes,
                "files": table.files,
                "to_compact": table.to_merge,
            }
            for name, table in sizes.items()
        },
    }


def _render(record: dict[str, Any]) -> None:
    days, output = record["days"], Output()
    span = f"{days[0]} to {days[-1]}, {plural(len(days), 'day')} with traffic" if days else "no day with traffic"
    output.print(escape(f"{printable(record['lake'])}: {span}, {plural(record['devices'], 'device')}"))
    output.print(
        f"{plural(record['imported'], 'source file')} imported, "
        f"{plural(record['quarantined'], 'damaged record')} put aside"
    )
    table = Table("table")
    for name in ("rows", "bytes", "files", "to compact"):
        table.add_column(name, justify="right")
    for name, held in record["tables"].items():
        table.add_row(name, f"{held['rows']:,}", size(held["bytes"]), f"{held['files']:,}", f"{held['to_compact']:,}")
    output.print(table)
    if record["to_compact"]:
        output.print(f"relaywatch lake compact merges {plural(record['to_compact'], 'file')}.")


@contextmanager
def _interruptible(folder: Path) -> Iterator[None]:
    """Tell what an interruption leaves: what was published before it stays."""
    try:
        yield
    except KeyboardInterrupt:
        tell(f"interrupted; {folder} is as the last published change left it. Run it again for the rest.")
        raise SystemExit(Exit.INTERRUPTED) from None


@lake_app.command(name="hunt")
def hunt_command(
    *,
    folder: LakeFolder,
    days: Annotated[
        list[str] | None, typer.Option("--day", metavar="YYYY-MM-DD", help="Only this UTC day; may be repeated")
    ] = None,
    devices: Annotated[list[str] | None, typer.Option("--device", help="Only this device; may be repeated")] = None,
    as_json: AsJson = False,
    as_ocsf: AsOcsf = False,
    html: HtmlPage = None,
    settings_file: SettingsFile = None,
    overrides: Overrides = None,
    exceptions_file: ExceptionsFile = None,
    asn: Asn = None,
    indicators: Indicators = None,
) -> None:
    """Find relays in a lake, or in some days and devices of it, of which only these are read.

    Exit status: 0 no finding, 1 findings, 2 unusable lake.
    """
    check_outputs(as_json=as_json, as_ocsf=as_ocsf, html=html)
    chosen = Selection(frozenset(map(_day, days)) if days else None, frozenset(devices) if devices else None)
    with Bar(Console(stderr=True)) as bar:
        plan = planned(settings_file, overrides, exceptions_file, asn, indicators, watcher=bar)
        lake = Lake.open(folder)
        for day in sorted((chosen.days or frozenset()) - set(lake.days())):
            tell(f"--day {day}: the lake has no traffic of this day. See relaywatch lake show.")
        result = hunt_lake(lake, plan, chosen)
    shown(result, as_json=as_json, as_ocsf=as_ocsf, html=html)


def _day(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()  # noqa: DTZ007  a day has no zone; the lake's are UTC
    except ValueError as fault:
        raise RelaywatchError(f"--day {text}: no such day. Give it as YYYY-MM-DD, as 2026-03-03.") from fault
