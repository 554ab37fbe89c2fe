"""The commands. Thin: they read options, call an engine, and hand the result to an output."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from typer.core import TyperGroup

from relaywatch import __version__
from relaywatch.attack.drift import compare
from relaywatch.attack.release import read_release, vendored_release
from relaywatch.detection.settings import SETTINGS, Settings, describe, load
from relaywatch.engines.local import Hunt, HuntResult, hunt
from relaywatch.engines.survey import survey
from relaywatch.enrichment.loading import load_enrichment
from relaywatch.governance.exceptions import Exceptions, load_exceptions
from relaywatch.model.errors import RelaywatchError, SourceError
from relaywatch.model.finding import Finding
from relaywatch.model.quarantine import Quarantine
from relaywatch.outputs.account import hunt_account, quarantine_account, unread_account
from relaywatch.outputs.attack_table import drift_records, render_drift, render_vendored, vendored_records
from relaywatch.outputs.explanation import explain
from relaywatch.outputs.html import write_report
from relaywatch.outputs.native import json_line, read_ndjson, write_ndjson
from relaywatch.outputs.ocsf import write_ocsf
from relaywatch.outputs.sources_table import render_sources, source_records
from relaywatch.outputs.telemetry import ExportFormat, export
from relaywatch.outputs.terminal import render
from relaywatch.outputs.text import printable
from relaywatch.sources.discovery import discover
from relaywatch.sources.reading import Reading


class Exit(IntEnum):
    """Exit status of every command."""

    NOTHING_FOUND = 0
    FINDINGS = 1
    UNUSABLE = 2
    PARTIAL = 3
    DEFECT = 70
    INTERRUPTED = 130
    READER_GONE = 141


class _Commands(TyperGroup):
    """Commands that tell a user's mistake themselves: typer would end a broken pipe as if there were findings."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  typer's own signature
        with _plain_errors():
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()


SHORTEST_ID: Final = 4
LONGEST_MESSAGE: Final = 4_000
app = typer.Typer(
    cls=_Commands,
    help="Find Android apps that relay other people's traffic, in telemetry you already have.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Paths = Annotated[list[Path], typer.Argument(help="Files or folders; formats are told by content", show_default=False)]
SettingsFile = Annotated[Path | None, typer.Option("--settings", help="TOML file with a [settings] table")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="One setting, Name=value; may be repeated")]
AsJson = Annotated[bool, typer.Option("--json", help="NDJSON on standard output")]


class _Output(Console):
    """Standard output, whose reader may go away: rich would end as if there were findings."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class _Bar:
    """Progress on standard error, where that is a terminal."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def reading(self, total_bytes: int) -> None:
        self._task = self._progress.add_task("Reading", total=total_bytes)

    def read(self, stored_bytes: int) -> None:
        if self._task is not None:
            self._progress.advance(self._task, stored_bytes)

    def judging(self, shards: int) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._progress.columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._task = self._progress.add_task("Judging", total=shards)

    def judged(self) -> None:
        self.read(1)


@app.command(name="hunt")
def hunt_command(
    paths: Paths,
    *,
    as_json: AsJson = False,
    as_ocsf: Annotated[
        bool, typer.Option("--ocsf", help="OCSF Detection Findings as NDJSON on standard output")
    ] = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write one self-contained page")] = None,
    settings_file: SettingsFile = None,
    overrides: Overrides = None,
    exceptions_file: Annotated[Path | None, typer.Option("--exceptions", help="TOML file of exceptions")] = None,
    asn: Annotated[
        Path | None, typer.Option("--asn", help="Database of autonomous systems in MaxMind's format")
    ] = None,
    indicators: Annotated[
        Path | None, typer.Option("--indicators", help="TOML file of the site's own proxyware indicators")
    ] = None,
    device: Annotated[str, typer.Option(help="The device, for formats that do not name one")] = "",
) -> None:
    """Find relays in telemetry.

    Exit status: 0 no finding, 1 findings, 2 unusable input, 3 some records could not be read (findings or not).
    """
    if as_json and as_ocsf:
        raise typer.BadParameter("--json and --ocsf both write to standard output: choose one")
    if html is not None:
        _check_page(html)
    settings = load(settings_file, overrides or ())
    exceptions = load_exceptions(exceptions_file) if exceptions_file else Exceptions(())
    enrichment = load_enrichment(asn, indicators)
    with _Bar(Console(stderr=True)) as bar:
        result = hunt(paths, Hunt(settings, exceptions, datetime.now(UTC), device, bar, enrichment))
    _remember(result.findings)
    if as_json:
        write_ndjson(result.findings, sys.stdout)
    elif as_ocsf:
        write_ocsf(result.findings, sys.stdout)
    else:
        render(result.findings, result.summary, _Output())
    for line in hunt_account(result.summary):
        _tell(line)
    if html is not None:
        write_report(result.findings, result.summary, html)
    raise typer.Exit(_status(result))


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
        Path | None, typer.Option("--from", help="File written by hunt --json; otherwise the last hunt's findings")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show every number behind a verdict."""
    path = source or _last_hunt()
    if not path.exists():
        raise RelaywatchError(f"{path}: there are no findings here. Run relaywatch hunt first, or give --from FILE.")
    try:
        with path.open(encoding="utf-8") as stream:
            found = _chosen(finding, list(read_ndjson(stream)), path)
    except UnicodeDecodeError as fault:
        raise RelaywatchError(f"{path}: not UTF-8. Give a file that relaywatch hunt --json wrote.") from fault
    if as_json:
        write_ndjson([found], sys.stdout)
    else:
        explain(found, _Output())


def _chosen(wanted: str, findings: list[Finding], path: Path) -> Finding:
    known = ", ".join(finding.finding_id[:8] for finding in findings[:20]) or "none"
    if len(wanted) < SHORTEST_ID:
        raise RelaywatchError(
            f"{path}: {wanted!r} is too short for an id: give at least {SHORTEST_ID} characters. "
            f"Findings here: {known}."
        )
    matches = [finding for finding in findings if finding.finding_id.startswith(wanted.lower())]
    if len(matches) != 1:
        raise RelaywatchError(f"{path}: {wanted!r} names {len(matches)} findings, not one. Findings here: {known}.")
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
    _Output().print(_settings_table(settings))


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
    with _Bar(Console(stderr=True)) as bar:
        summary = survey(paths, device, bar)
    if as_json:
        for record in source_records(summary):
            sys.stdout.write(json_line(record))
    else:
        render_sources(summary, _Output())
    for line in hunt_account(summary):
        _tell(line)
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
        _tell(line)
    raise typer.Exit(Exit.PARTIAL if quarantine.total else Exit.NOTHING_FOUND)


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
        render_drift(drifts, elements, _Output())
    else:
        render_vendored(vendored, _Output())
    raise typer.Exit(Exit.FINDINGS if any(drift.changes for drift in drifts) else Exit.NOTHING_FOUND)


@app.command(name="evaluate")
def evaluate_command(
    labs: Annotated[list[Path], typer.Argument(help="Folders with traces/ and truth/", show_default=False)],
    *,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for evaluation.md, evaluation.json and the plots")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the detection on labelled traffic, beside published rules, with whole families of programs held out.

    Needs the extra: pip install 'relaywatch[evaluate]'. Exit status: 0 done, 2 unusable input.
    """
    try:
        from relaywatch.evaluation.plots import write_plots
        from relaywatch.evaluation.report import as_json as result_json
        from relaywatch.evaluation.report import markdown
        from relaywatch.evaluation.run import evaluate
    except ModuleNotFoundError as missing:
        raise RelaywatchError(f"evaluate needs {missing.name}: pip install 'relaywatch[evaluate]'.") from missing
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)  # before the work, so that a wrong path costs nothing
    with Console(stderr=True).status("Evaluating") as status:
        result = evaluate(labs, lambda step: status.update(f"Evaluating: {printable(step)}"))
    text, document = markdown(result), result_json(result)
    if folder is not None:
        (folder / "evaluation.md").write_text(text, encoding="utf-8")
        (folder / "evaluation.json").write_text(document, encoding="utf-8")
        write_plots(result, folder)
    if as_json:
        sys.stdout.write(document + "\n")
    else:
        _Output().print(Markdown(text))


@app.callback(invoke_without_command=True)
def _version(*, version: Annotated[bool, typer.Option("--version", help="Show the version and leave")] = False) -> None:
    if version:
        typer.echo(f"relaywatch {__version__}")
        raise typer.Exit


def _last_hunt() -> Path:
    """Where the last hunt's findings are kept for explain (XDG Base Directory, state)."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "relaywatch" / "last-hunt.ndjson"


def _remember(findings: list[Finding]) -> None:
    """Keep the findings for explain; a hunt does not fail because they cannot be kept."""
    path = _last_hunt()
    text = io.StringIO()
    write_ndjson(findings, text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(text.getvalue(), encoding="utf-8")
        fresh.replace(path)
    except OSError as fault:
        Console(stderr=True).print(f"findings are not kept for explain: {escape(str(fault))}", style="yellow")


@contextmanager
def _plain_errors() -> Iterator[None]:
    """A user's mistake is told in a line, never as a traceback."""
    try:
        yield
    except RelaywatchError as error:
        _tell(str(error))
        raise SystemExit(Exit.UNUSABLE) from None
    except KeyboardInterrupt:
        _tell("interrupted; nothing was kept")
        raise SystemExit(Exit.INTERRUPTED) from None
    except OSError as error:
        if error.filename is None:
            # Standard output is gone or full: what it still holds must not fail again when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise SystemExit(Exit.READER_GONE) from None
        _tell(f"{error.filename or 'output'}: {error.strerror or error}.")
        raise SystemExit(Exit.UNUSABLE) from None
    except SystemError as error:
        if not isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            raise
        # An interrupt that meets a compiled kernel comes out of it in this dress.
        _tell("interrupted; nothing was kept")
        raise SystemExit(Exit.INTERRUPTED) from None


def _tell(message: str) -> None:
    """A line on standard error; file names in it come from a suspect phone."""
    sys.stderr.write(f"relaywatch: {printable(message, limit=LONGEST_MESSAGE)}\n")


def main() -> None:
    """Run the command line. A defect of relaywatch ends with a status of its own, never with that of findings."""
    try:
        app()
    except Exception as defect:
        place = traceback.extract_tb(defect.__traceback__)[-1]
        where = f"{Path(place.filename).name}, line {place.lineno}"
        _tell(f"internal error: {type(defect).__name__}: {defect} ({where}); please report it")
        raise SystemExit(Exit.DEFECT) from None
