"""The commands that find and explain relays: hunt, explain, settings."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

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
from relaywatch.detection.settings import SETTINGS, Settings, describe, load
from relaywatch.engines.local import HuntResult, hunt
from relaywatch.live.journal import journal_in, newest
from relaywatch.model.errors import RelaywatchError
from relaywatch.model.finding import Finding
from relaywatch.outputs.account import hunt_account
from relaywatch.outputs.native import json_line, read_ndjson, write_ndjson
from relaywatch.outputs.terminal import render

SHORTEST_ID: Final = 4
_EVENT: Final = b'{"event":'
"""How each line of a watcher's journal begins."""


@app.command(name="hunt")
def hunt_command(
    paths: Paths,
    *,
    as_json: AsJson = False,
    as_ocsf: AsOcsf = False,
    html: HtmlPage = None,
    settings_file: SettingsFile = None,
    overrides: Overrides = None,
    exceptions_file: ExceptionsFile = None,
    asn: Asn = None,
    indicators: Indicators = None,
    device: Annotated[str, typer.Option(help="The device, for formats that do not name one")] = "",
) -> None:
    """Find relays in telemetry.

    Exit status: 0 no finding, 1 findings, 2 unusable input, 3 some records could not be read (findings or not).
    """
    check_outputs(as_json=as_json, as_ocsf=as_ocsf, html=html)
    with Bar(Console(stderr=True)) as bar:
        plan = planned(settings_file, overrides, exceptions_file, asn, indicators, device=device, watcher=bar)
        result = hunt(paths, plan)
    shown(result, as_json=as_json, as_ocsf=as_ocsf, html=html)


def shown(result: HuntResult, *, as_json: bool, as_ocsf: bool, html: Path | None) -> NoReturn:
    """Write what a hunt found, remember it for `explain`, and leave with its status."""
    remember(result.findings.lines())
    if as_json:
        sys.stdout.writelines(result.findings.lines())
    elif as_ocsf:
        from relaywatch.outputs.ocsf import write_ocsf  # the library of OCSF's objects is slow to load

        write_ocsf(result.findings, sys.stdout)
    else:
        render(result.findings, result.summary, Output())
    for line in hunt_account(result.summary):
        tell(line)
    if html is not None:
        from relaywatch.outputs.html import write_report

        write_report(result.findings, result.summary, html)
    raise typer.Exit(_status(result))


def check_outputs(*, as_json: bool, as_ocsf: bool, html: Path | None) -> None:
    """Refuse outputs that cannot be before hours of reading, not after."""
    if as_json and as_ocsf:
        raise typer.BadParameter("--json and --ocsf both write to standard output: choose one")
    if html is not None:
        _check_page(html)


def _check_page(path: Path) -> None:
    """Refuse a page that can never be written before hours of reading, not after."""
    if path.is_dir():
        raise RelaywatchError(f"{path}: the report cannot be written: this is a folder. Give a file's path.")
    if not path.parent.is_dir():
        raise RelaywatchError(
            f"{path}: the report cannot be written: {path.parent} is no folder. Make it, or choose another path."
        )


def _status(result: HuntResult) -> Exit:
    if result.summary.quarantine.total:
        return Exit.PARTIAL
    return Exit.FINDINGS if result.findings else Exit.NOTHING_FOUND


@app.command(name="explain")
def explain_command(
    finding: Annotated[str, typer.Argument(help="A finding's id, or its first characters", show_default=False)],
    *,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="File written by hunt --json, or a watcher's state folder; otherwise the last hunt's findings",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show every number behind a verdict."""
    from relaywatch.outputs.explanation import explain

    found = _told(finding, source) if source and _is_journal(source) else _hunted(finding, source or _last_hunt())
    if as_json:
        write_ndjson([found], sys.stdout)
    else:
        explain(found, Output())


def _is_journal(path: Path) -> bool:
    """A watcher's state folder, or what it told, by content."""
    if path.is_dir():
        return True
    if not path.exists():
        return False
    with path.open("rb") as file:
        return file.read(len(_EVENT)) == _EVENT


def _told(wanted: str, source: Path) -> Finding:
    """A finding as a watcher told it last; where it stands goes to standard error."""
    path = journal_in(source) if source.is_dir() else source
    events = newest(path)
    event = events[_chosen(wanted, list(events), path)]
    tell(f"{event['event']} at {str(event['time'])[:19]}Z, revision {event['revision']} of the finding")
    (found,) = read_ndjson(io.StringIO(json_line(event["finding"])))
    return found


def _hunted(wanted: str, path: Path) -> Finding:
    if not path.exists():
        raise RelaywatchError(f"{path}: there are no findings here. Run relaywatch hunt first, or give --from FILE.")
    try:
        with path.open(encoding="utf-8") as stream:
            findings = list(read_ndjson(stream))
    except UnicodeDecodeError as fault:
        raise RelaywatchError(f"{path}: not UTF-8. Give a file that relaywatch hunt --json wrote.") from fault
    identity = _chosen(wanted, [finding.finding_id for finding in findings], path)
    return next(finding for finding in findings if finding.finding_id == identity)


def _chosen(wanted: str, identities: list[str], path: Path) -> str:
    known = ", ".join(identity[:8] for identity in identities[:20]) or "none"
    if len(wanted) < SHORTEST_ID:
        raise RelaywatchError(
            f"{path}: {wanted!r} is too short for an id: give at least {SHORTEST_ID} characters. "
            f"Findings here: {known}."
        )
    matches = [identity for identity in identities if identity.startswith(wanted.lower())]
    if len(matches) != 1:
        raise RelaywatchError(
            f"{path}: {wanted!r} names {len(matches)} findings, not one. Findings here: {known}. "
            "For others give --from: a file of findings, or a watcher's state folder."
        )
    return matches[0]


@app.command(name="settings")
def settings_command(
    *, settings_file: SettingsFile = None, overrides: Overrides = None, as_json: AsJson = False
) -> None:
    """Show every setting: value, default, where it comes from, and why the default is what it is."""
    settings = load(settings_file, overrides or ())
    if as_json:
        for use in describe(settings):
            sys.stdout.write(json_line(use.model_dump()))
        return
    Output().print(_settings_table(settings))


def _settings_table(settings: Settings) -> Table:
    table = Table(title="Settings: mutable elements of AN1702, then relaywatch's own", show_lines=True)
    for name in ("setting", "value", "default", "origin", "what it is, and why the default"):
        table.add_column(name, overflow="fold")
    for declared, use in zip(SETTINGS, describe(settings), strict=True):
        name = declared.name if declared.attack else f"{declared.name} (ours)"
        unit = f" {declared.unit}" if declared.unit else ""
        table.add_row(
            name,
            escape(use.value + unit),
            escape(use.default),
            escape(use.origin),
            escape(f"{declared.description}. {declared.reason}"),
        )
    return table


def _last_hunt() -> Path:
    """Where the last hunt's findings are kept for explain (XDG Base Directory, state)."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "relaywatch" / "last-hunt.ndjson"


def remember(lines: Iterable[str]) -> None:
    """Keep the findings' lines for explain; a hunt does not fail because they cannot be kept."""
    path = _last_hunt()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as stream:
            stream.writelines(lines)
        fresh.replace(path)
    except OSError as fault:
        Console(stderr=True).print(f"findings are not kept for explain: {escape(str(fault))}", style="yellow")
