"""The commands about telemetry itself: sources and export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from relaywatch.cli.shell import AsJson, Bar, Exit, Output, Paths, app, tell
from relaywatch.engines.survey import survey
from relaywatch.model.errors import SourceError
from relaywatch.model.quarantine import Quarantine
from relaywatch.outputs.account import hunt_account, quarantine_account, unread_account
from relaywatch.outputs.native import json_line
from relaywatch.outputs.sources_table import render_sources, source_records
from relaywatch.outputs.telemetry import ExportFormat, export
from relaywatch.sources.discovery import discover
from relaywatch.sources.reading import Reading


@app.command(name="sources")
def sources_command(
    paths: Paths,
    *,
    as_json: AsJson = False,
    device: Annotated[str, typer.Option(help="The device, for formats that do not name one")] = "",
) -> None:
    """Show what sources hold, what they can and cannot show, and how they fit together.

    Exit status: 0 all read, 2 unusable input, 3 some records could not be read.
    """
    with Bar(Console(stderr=True)) as bar:
        summary = survey(paths, device, bar)
    if as_json:
        for record in source_records(summary):
            sys.stdout.write(json_line(record))
    else:
        render_sources(summary, Output())
    for line in hunt_account(summary):
        tell(line)
    raise typer.Exit(Exit.PARTIAL if summary.quarantine.total else Exit.NOTHING_FOUND)


@app.command(name="export")
def export_command(
    paths: Paths,
    *,
    form: Annotated[ExportFormat, typer.Option("--to", help="Format to write")],
    folder: Annotated[Path, typer.Option("--out", help="Folder to write into")],
    device: Annotated[str, typer.Option(help="The device, for formats that do not name one")] = "",
) -> None:
    """Write telemetry in another format, as that format's tool would have recorded it.

    Exit status: 0 all written, 2 unusable input, 3 some records could not be read.
    """
    discovery = discover(paths)
    if not discovery.units:
        raise SourceError(paths[0], "holds no telemetry in a known format.", remedy="See docs/quick-start.md.")
    quarantine = Quarantine()
    reading = Reading(quarantine, device)
    written = export((batch for unit in discovery.units for batch in unit.read(reading)), form, folder)
    for path in written:
        typer.echo(path)
    unread = [(str(entry.path), entry.reason) for entry in discovery.unrecognised]
    for line in (*quarantine_account(quarantine), *unread_account(unread)):
        tell(line)
    raise typer.Exit(Exit.PARTIAL if quarantine.total else Exit.NOTHING_FOUND)
