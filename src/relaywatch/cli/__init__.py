"""The commands. Thin: they read options, call an engine, and hand the result to an output."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Annotated

import typer

from relaywatch import __version__
from relaywatch.cli import assurance, fleet, hunting, lake, measuring, simulating, telemetry, watching
from relaywatch.cli.shell import Exit, app, tell

__all__ = [
    "Exit",
    "app",
    "assurance",
    "fleet",
    "hunting",
    "lake",
    "main",
    "measuring",
    "simulating",
    "telemetry",
    "watching",
]


@app.callback(invoke_without_command=True)
def _version(*, version: Annotated[bool, typer.Option("--version", help="Show the version and leave")] = False) -> None:
    if version:
        typer.echo(f"relaywatch {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line. A defect of relaywatch ends with a status of its own, never with that of findings."""
    try:
        app()
    except Exception as defect:
        place = traceback.extract_tb(defect.__traceback__)[-1]
        where = f"{Path(place.filename).name}, line {place.lineno}"
        tell(f"internal error: {type(defect).__name__}: {defect} ({where}); please report it")
        raise SystemExit(Exit.DEFECT) from None
