"""The commands that say what could be seen: coverage, drill, report, attack.

What only these commands need is imported when one of them runs: every other command starts without it.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console

from relaywatch.assurance.episodes import Evasion
from relaywatch.cli.planning import exceptions_of
from relaywatch.cli.shell import AsJson, Bar, Exit, Output, Overrides, Paths, SettingsFile, app, tell
from relaywatch.detection.settings import SETTINGS, Settings, load
from relaywatch.engines.local import Hunt
from relaywatch.governance.exceptions import Exceptions, statuses
from relaywatch.model.errors import RelaywatchError
from relaywatch.model.finding import Topology
from relaywatch.outputs.account import hunt_account
from relaywatch.outputs.native import json_line

if TYPE_CHECKING:
    from relaywatch.model.assurance import CoverageReport, DrillReport

Window = Annotated[str, typer.Option("--window", help="Length of the windows: a number and s, m, h or d")]
DeviceName = Annotated[str, typer.Option("--device", help="The device, for formats that do not name one")]
ExceptionsFile = Annotated[Path | None, typer.Option("--exceptions", help="TOML file of exceptions")]
Site = Annotated[str, typer.Option("--site", help="Whose telemetry it is, as headings and score files name it")]
_WINDOW: Final = re.compile(r"(\d{1,6})([smhd])")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
EXPIRING_DAYS: Final = 30
NO_HOST: Final = (
    "no relay was played: of every app with connections the hunt says something already, or there is none. "
    "Give telemetry of more apps; relaywatch coverage says what it could show."
)


def _window_s(text: str) -> float:
    """A window's length in s. Raises RelaywatchError where the text is none."""
    match = _WINDOW.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        raise RelaywatchError(f"--window {text}: write a number above 0 and s, m, h or d, such as 6h or 1d.")
    return int(match[1]) * _SECONDS[match[2]]


@app.command(name="coverage")
def coverage_command(
    paths: Paths,
    *,
    as_json: AsJson = False,
    as_ocsf: Annotated[
        bool,
        typer.Option("--ocsf", help="OCSF findings of insufficient data: populations that cannot be judged"),
    ] = False,
    window: Window = "1d",
    scores: Annotated[
        Path | None,
        typer.Option("--scores", help="Folder for DeTT&CT files, a Navigator layer, Summiting the Pyramid scores"),
    ] = None,
    site: Site = "site",
    exceptions_file: ExceptionsFile = None,
    settings_file: SettingsFile = None,
    overrides: Overrides = None,
    device: DeviceName = "",
) -> None:
    """Show what the telemetry could have shown: where a relay could be proved, and where its absence could.

    Exit status: 0 all read, 2 unusable input, 3 some records could not be read.
    """
    from relaywatch.assurance.coverage import coverage
    from relaywatch.outputs.coverage_table import coverage_records, render_coverage
    from relaywatch.outputs.ocsf_insufficient import write_insufficient

    if as_json and as_ocsf:
        raise typer.BadParameter("--json and --ocsf both write to standard output: choose one")
    window_s, settings = _window_s(window), load(settings_file, overrides or ())
    if scores is not None:
        _check_folder(scores)
    exceptions = exceptions_of(exceptions_file)
    with Bar(Console(stderr=True)) as bar:
        covered = coverage(paths, settings, window_s=window_s, device=device, watcher=bar)
    if as_ocsf:
        write_insufficient(covered.report, sys.stdout)
    elif as_json:
        for record in coverage_records(covered.report, covered.windows()):
            sys.stdout.write(json_line(record))
    else:
        render_coverage(covered.report, Output())
    if scores is not None:
        _write_scores(covered.report, None, settings, exceptions, site, scores)
    for line in hunt_account(covered.summary):
        tell(line)
    raise typer.Exit(Exit.PARTIAL if covered.summary.quarantine.total else Exit.NOTHING_FOUND)


def _write_scores(
    report: CoverageReport,
    drilled: DrillReport | None,
    settings: Settings,
    exceptions: Exceptions,
    site: str,
    folder: Path,
) -> None:
    from relaywatch.assurance.readiness import readiness
    from relaywatch.outputs.score_files import write_scores

    ready = readiness(report, drilled, settings, exceptions, datetime.now(UTC), site)
    robust = (ready.robustness, ready.bare, ready.lowered)
    for path in write_scores(ready.components, ready.scores, ready.scope, robust, ready.qualities, folder):
        tell(f"written: {path}")
    if ready.lowered:
        tell(ready.lowered)


def _check_folder(folder: Path) -> None:
    """Refuse a folder that can never be written into before the work, not after."""
    nearest = next((place for place in (folder, *folder.absolute().parents) if place.exists()), folder)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise RelaywatchError(
            f"{folder}: nothing can be written here: {nearest} is no folder that can be written into."
        )


def _command(name: str, paths: Sequence[Path], options: Mapping[str, object]) -> str:
    """A command as a shell takes it; options without a value are left out, those with several are repeated."""
    words = ["relaywatch", name, *map(str, paths)]
    for option, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            words += [] if one in (None, "") else [option, str(one)]
    return shlex.join(words)


@app.command(name="drill")
def drill_command(
    paths: Paths,
    *,
    as_json: AsJson = False,
    topologies: Annotated[
        list[Topology] | None, typer.Option("--topology", help="What to play; may be repeated; all where not given")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, max=100_000, help="Relays of each topology")] = 20,
    sessions: Annotated[int, typer.Option(min=4, max=10_000, help="Sessions of each relay")] = 40,
    seconds: Annotated[float, typer.Option(min=30, max=86_400, help="Time over which they begin")] = 600.0,
    size: Annotated[float, typer.Option(min=0.001, max=1_000, help="Factor of all session bytes")] = 1.0,
    evasions: Annotated[
        list[Evasion] | None, typer.Option("--evade", help="Play it hiding in this way too; may be repeated")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Another seed plays other relays")] = 0,
    window: Window = "1d",
    settings_file: SettingsFile = None,
    overrides: Overrides = None,
    device: DeviceName = "",
) -> None:
    """Play relays into copies of the site's apps, and measure how many are found and how soon.

    Needs the extra: pip install 'relaywatch[assurance]'. The telemetry is only read. Exit status: 0 drilled, 1 a
    promise of coverage is broken, 2 unusable input, 3 some records could not be read.
    """
    from relaywatch.outputs.assurance_text import broken
    from relaywatch.outputs.drill_table import drill_records, render_drill

    drill, drill_plan = _drilling()
    plan = drill_plan(
        topologies=tuple(topologies or Topology),
        episodes=episodes,
        sessions=sessions,
        seconds=seconds,
        size=size,
        evasions=tuple(evasions or ()),
        seed=seed,
    )
    settings, window_s = load(settings_file, overrides or ()), _window_s(window)
    with Bar(Console(stderr=True)) as bar:
        hunted = Hunt(settings, Exceptions(()), datetime.now(UTC), device, bar)
        drilled = drill(paths, hunted, plan, window_s)
    if as_json:
        for record in drill_records(drilled.report):
            sys.stdout.write(json_line(record))
    elif drilled.report.rows:
        render_drill(drilled.report, Output())
    for line in hunt_account(drilled.coverage.summary):
        tell(line)
    if not drilled.report.rows:
        raise RelaywatchError(NO_HOST)
    if drilled.coverage.summary.quarantine.total:
        raise typer.Exit(Exit.PARTIAL)
    raise typer.Exit(Exit.FINDINGS if any(map(broken, drilled.report.rows)) else Exit.NOTHING_FOUND)


def _drilling() -> tuple[Any, Any]:
    """Drill and DrillPlan, which need an extra. Raises RelaywatchError where it is not installed."""
    try:
        from relaywatch.assurance.drill import DrillPlan, drill
    except ModuleNotFoundError as missing:
        raise RelaywatchError(f"drills need {missing.name}: pip install 'relaywatch[assurance]'.") from missing
    return drill, DrillPlan


@app.command(name="report")
def report_command(
    paths: Paths,
    *,
    folder: Annotated[Path, typer.Option("--out", help="Folder for report.html, report.pdf, report.json, report.csv")],
    episodes: Annotated[
        int, typer.Option(min=0, max=100_000, help="Relays of each topology to drill; 0: no drill")
    ] = 20,
    evasions: Annotated[
        list[Evasion] | None, typer.Option("--evade", help="Drill it hiding in this way too; may be repeated")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Another seed plays other relays")] = 0,
    window: Window = "1d",
    site: Site = "site",
    exceptions_file: ExceptionsFile = None,
    settings_file: SettingsFile = None,
    overrides: Overrides = None,
    device: DeviceName = "",
) -> None:
    """Write the report for managers and auditors: what is watched, what is not, drills, exceptions, findings.

    Needs the extra: pip install 'relaywatch[assurance]'. Exit status: 0 written, 2 unusable input, 3 some records could
    not be read.
    """
    from relaywatch.model.assurance import AssuranceReport
    from relaywatch.outputs.assurance_files import write_report_files

    drill, drill_plan = _drilling()
    _check_folder(folder)
    settings, window_s, now = load(settings_file, overrides or ()), _window_s(window), datetime.now(UTC)
    exceptions = exceptions_of(exceptions_file)
    plan = drill_plan(episodes=episodes, evasions=tuple(evasions or ()), seed=seed)
    with Bar(Console(stderr=True)) as bar:
        hunted = Hunt(settings, exceptions, now, device, bar)
        drilled = drill(paths, hunted, plan, window_s)
    if episodes and not drilled.report.rows:
        tell(NO_HOST)
    common: dict[str, object] = {"--device": device, "--settings": settings_file, "--set": overrides}
    windowed = {**common, "--window": window}
    report = AssuranceReport(
        coverage=drilled.coverage.report,
        drill=drilled.report if drilled.report.rows else None,
        findings=drilled.findings,
        exceptions=statuses(exceptions, drilled.findings, now, EXPIRING_DAYS),
        site=site,
        made=now,
        commands={
            "coverage": _command("coverage", paths, windowed),
            "drill": _command(
                "drill", paths, {**windowed, "--episodes": episodes, "--seed": seed, "--evade": evasions}
            ),
            "findings": _command("hunt", paths, {**common, "--exceptions": exceptions_file}),
            "exceptions": "" if exceptions_file is None else f"the file {exceptions_file}",
        },
    )
    folder.mkdir(parents=True, exist_ok=True)
    for path in write_report_files(report, folder):
        typer.echo(path)
    _write_scores(report.coverage, report.drill, settings, exceptions, site, folder)
    for line in hunt_account(drilled.coverage.summary):
        tell(line)
    raise typer.Exit(Exit.PARTIAL if drilled.coverage.summary.quarantine.total else Exit.NOTHING_FOUND)


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
    from relaywatch.attack.drift import compare
    from relaywatch.attack.release import read_release, vendored_release
    from relaywatch.outputs.attack_table import drift_records, render_drift, render_vendored, vendored_records

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
