"""The command that watches telemetry as it comes: watch."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from relaywatch.cli.planning import planned
from relaywatch.cli.shell import AsJson, ExceptionsFile, Exit, Overrides, SettingsFile, app, tell
from relaywatch.engines.kernel import DEVICE_LAG_S, LATENESS_S, WITHOUT_END, Patience
from relaywatch.engines.local import Hunt
from relaywatch.engines.state import StoredKernel
from relaywatch.live.addresses import http_address, kafka_topics, mqtt_subscription
from relaywatch.live.engine import Ears, Engine, Pace
from relaywatch.live.extras import with_extra
from relaywatch.live.figures import Figures, Latest
from relaywatch.live.files import Files, Looking
from relaywatch.live.inputs import Input
from relaywatch.live.journal import Event, standing
from relaywatch.live.judgement import Judgement
from relaywatch.live.standard_input import StandardInput
from relaywatch.model.errors import RelaywatchError
from relaywatch.outputs.native import json_line
from relaywatch.outputs.text import percent, printable

_PIPE: Final = Path("-")


@app.command(name="watch")
def watch_command(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Files or folders that grow; - is standard input", show_default=False),
    ] = None,
    *,
    state: Annotated[Path, typer.Option("--state", help="Folder for what must survive: spool, checkpoints, journal")],
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Take what is there, close all findings, and leave")
    ] = False,
    judge_every: Annotated[float, typer.Option(min=0.05, help="Pause between two judgings, s")] = 0.5,
    checkpoint_every: Annotated[float, typer.Option(min=0.05, help="Pause between two checkpoints, s")] = 60.0,
    http: Annotated[str, typer.Option("--http", metavar="HOST:PORT", help="Take telemetry by HTTP (extra live)")] = "",
    http_token_file: Annotated[
        Path | None, typer.Option(help="File with the token that HTTP clients must show")
    ] = None,
    kafka: Annotated[
        str, typer.Option("--kafka", metavar="BROKERS/TOPICS", help="Take telemetry from Kafka (extra kafka)")
    ] = "",
    kafka_config: Annotated[Path | None, typer.Option(help="File of further librdkafka settings, name=value")] = None,
    mqtt: Annotated[
        str, typer.Option("--mqtt", metavar="URL", help="Take telemetry by MQTT: mqtt[s]://HOST/TOPICS (extra mqtt)")
    ] = "",
    mqtt_password_file: Annotated[Path | None, typer.Option(help="File with the password for the MQTT broker")] = None,
    lateness: Annotated[
        float, typer.Option(min=0.0, help="How far the records of one device may be out of order, s of their own time")
    ] = LATENESS_S,
    device_lag: Annotated[
        float,
        typer.Option(min=0.0, help="How far a device may lie behind the fleet before its days close, s"),
    ] = DEVICE_LAG_S,
    settle: Annotated[
        float, typer.Option(min=0.0, help="A file of a format that is read whole is complete when unchanged so long, s")
    ] = 5.0,
    settings_file: SettingsFile = None,
    overrides: Overrides = None,
    exceptions_file: ExceptionsFile = None,
    device: Annotated[str, typer.Option(help="The device, for formats that do not name one")] = "",
    list_open: Annotated[bool, typer.Option("--list", help="Show the findings that are open, and leave")] = False,
    as_json: AsJson = False,
) -> None:
    """Find relays in telemetry as it comes; nothing is lost or counted twice, whatever happens to the process.

    Exit status: 0 nothing found, 1 findings are open or were told, 2 unusable input or state, 3 some records could not
    be read.
    """
    if list_open:
        raise typer.Exit(_list(state, as_json=as_json))
    if until_end and (http or kafka or mqtt):
        raise RelaywatchError("--until-end: telemetry from a network has no end. Give files, folders or -.")
    plan = planned(settings_file, overrides, exceptions_file, device=device)
    looking = Looking(device=device, settle_s=settle, until_end=until_end)
    inputs, latest = _inputs(paths or [], state, looking), Latest()
    if http:
        address = http_address(http, http_token_file)
        inputs.append(with_extra("http_ingest", "live", "--http").HttpInput(address, device, latest.figures))
    if kafka:
        topics = kafka_topics(kafka, kafka_config)
        inputs.append(with_extra("kafka", "kafka", "--kafka").KafkaInput(topics, device, tell))
    if mqtt:
        subscription = mqtt_subscription(mqtt, mqtt_password_file, state)
        inputs.append(with_extra("mqtt", "mqtt", "--mqtt").MqttInput(subscription, device, tell))
    if not inputs:
        raise RelaywatchError("nothing to watch. Give files, folders, - or another input; see docs/watch.md.")
    patience = WITHOUT_END if until_end else Patience(lateness, device_lag, time.time)
    pace = Pace(judge_every, checkpoint_every)
    events = _as_json if as_json else _as_lines
    with (
        _until_signal() as stop,
        _status_line() as shown,
        Engine(
            state,
            lambda folder: new_judgement(plan, folder, patience),
            pace,
            Ears(events, tell, (latest.hear, shown)),
        ) as engine,
    ):
        engine.run(inputs, stop, until_end=until_end)
        if until_end and not stop.is_set() and not engine.rows and not engine.aside:
            raise RelaywatchError("nothing that was given holds telemetry in a known format. See docs/sources.md.")
        if engine.aside:
            tell(f"{engine.aside} records could not be read; see {state / 'quarantine.ndjson'}")
        raise typer.Exit(_status(engine))


def new_judgement(plan: Hunt, folder: Path, patience: Patience) -> Judgement:
    """The judgement of the live engine over its folder. The one place that makes it."""
    return StoredKernel(plan, folder, patience)


def _inputs(paths: Sequence[Path], state: Path, looking: Looking) -> list[Input]:
    found: list[Input] = []
    if files := [path for path in paths if path != _PIPE]:
        for path in files:
            if state.resolve().is_relative_to(path.resolve()):
                raise RelaywatchError(f"{state}: the state folder lies in {path}, which is watched. Choose another.")
        found.append(Files(files, looking, tell))
    if _PIPE in paths:
        found.append(StandardInput(looking.device))
    return found


def _status(engine: Engine) -> Exit:
    if engine.aside:
        return Exit.PARTIAL
    return Exit.FINDINGS if engine.findings_open or engine.findings_told else Exit.NOTHING_FOUND


@contextmanager
def _until_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; the engine then finishes what it has in hand."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _as_json(events: Sequence[Event]) -> None:
    sys.stdout.writelines(event.line() for event in events)
    sys.stdout.flush()


def _as_lines(events: Sequence[Event]) -> None:
    sys.stdout.writelines(f"{_shown(event.time, event.status, event.finding)}\n" for event in events)
    sys.stdout.flush()


def _shown(time: str, status: str, finding: Mapping[str, Any]) -> str:
    """A finding's news in a line."""
    app_name = finding["app"]["package"] or finding["app"]["uid"] or "app not known"
    verdict = str(finding["verdict"]).replace("_", " ")
    text = (
        f"{time[:19]}Z {status:9} {verdict}: {app_name} on {finding['device']['uid']}, "
        f"{finding['bridges']} bridges, probability {percent(finding['probability'])}, {finding['finding_id'][:8]}"
    )
    return printable(text)


def _list(state: Path, *, as_json: bool) -> Exit:
    records = standing(state)
    for record in records:
        line = json_line(record) if as_json else _shown(record["time"], record["event"], record["finding"]) + "\n"
        sys.stdout.write(line)
    if not records:
        tell(f"no finding is open; {state / 'findings.ndjson'} has what was told")
    return Exit.FINDINGS if records else Exit.NOTHING_FOUND


@contextmanager
def _status_line() -> Iterator[Callable[[Figures], None]]:
    """Shows figures in a line that is rewritten, where standard error is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with Live(Text("starting"), console=console, auto_refresh=False, transient=True) as line:
        yield lambda figures: line.update(Text(_figures_line(figures)), refresh=True)


def _figures_line(figures: Figures) -> str:
    values = figures.values
    return (
        f"{sum(figures.rows.values()):,} rows, {values['rows_per_second']:,.0f}/s, lag {values['lag_seconds']:,.0f} s, "
        f"waiting {values['queue_bytes'] / 1e6:,.1f} MB, spool {values['spool_bytes'] / 1e6:,.1f} MB, "
        f"checkpoint {values['checkpoint_age_seconds']:,.0f} s ago ({values['checkpoint_duration_seconds']:.2f} s), "
        f"{values['findings_open']:.0f} findings open, {values['aside_total']:.0f} records aside"
    )
