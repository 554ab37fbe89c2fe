"""The commands that say what could be seen: coverage, drill, report, attack."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from relaywatch.attack.drift import compare
from relaywatch.attack.release import read_release, vendored_release
from relaywatch.cli.shell import AsJson, Exit, Output, app
from relaywatch.detection.settings import SETTINGS
from relaywatch.outputs.attack_table import drift_records, render_drift, render_vendored, vendored_records
from relaywatch.outputs.native import json_line


@app.command(name="attack")
def attack_command(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Releases of ATT&CK: STIX bundles, or folders of STIX objects", show_default=False),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show the vendored ATT&CK objects; with releases, how these differ and what of relaywatch that touches.

    Exit status: 0 no drift, 1 drift, 2 unusable input.
    """
    vendored = vendored_release()
    drifts = [compare(vendored, read_release(path)) for path in paths or ()]
    elements = {setting.name: setting.default for setting in SETTINGS if setting.attack}
    if as_json:
        for record in drift_records(drifts, elements) if drifts else vendored_records(vendored):
            sys.stdout.write(json_line(record))
    elif drifts:
        render_drift(drifts, elements, Output())
    else:
        render_vendored(vendored, Output())
    raise typer.Exit(Exit.FINDINGS if any(drift.changes for drift in drifts) else Exit.NOTHING_FOUND)
