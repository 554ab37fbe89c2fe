"""The commands that run on Spark: hunt, stream, conclude."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from relaywatch.cli.hunting import remember
from relaywatch.cli.planning import planned
from relaywatch.cli.shell import (
    AsJson,
    Asn,
    ExceptionsFile,
    Exit,
    Indicators,
    Output,
    Overrides,
    SettingsFile,
    app,
    tell,
)
from relaywatch.lake.lake import Lake
from relaywatch.model.errors import RelaywatchError
from relaywatch.outputs.terminal import WIDEST, panel
from relaywatch.outputs.text import plural

if TYPE_CHECKING:
    from relaywatch.fleet.hunting import FleetResult

_PATTERN: Final = frozenset("*?[{")
"""Characters by which Spark looks for files of many names."""
Master = Annotated[
    str | None, typer.Option(help="Spark's master, as local[2] or spark://HOST:7077; spark-submit gives its own")
]
Conf = Annotated[list[str] | None, typer.Option("--conf", help="Spark's setting, KEY=VALUE; may be repeated")]
OutFolder = Annotated[str, typer.Option("--out", help="Folder of the stream: its checkpoint and what it judged")]
ShardCount = Annotated[int, typer.Option("--shards", min=1, help="Parts of the stream's state; fixed at its start")]
Lag = Annotated[float, typer.Option("--lag", min=0.0, help="Hours after its end at which a day is judged")]

spark_app = typer.Typer(
    help="Hunt a fleet on PySpark: the findings of a hunt of files, from Parquet, a lake or a stream.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(spark_app, name="spark")


@spark_app.command(name="hunt")
def hunt_command(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Canonical Parquet, any path that Spark reads", show_default=False)
    ] = None,
    *,
    lake: Annotated[
        Path | None, typer.Option("--lake", help="A lake, instead of paths; on a shared file system")
    ] = None,
    master: Master = None,
    conf: Conf = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="Tasks that judge; otherwise adaptive execution decides")
    ] = None,
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
    overrides: Overrides = None,
    exceptions_file: ExceptionsFile = None,
    asn: Asn = None,
    indicators: Indicators = None,
) -> None:
    """Find relays in a fleet's telemetry.

    Exit status: 0 no finding, 1 findings, 2 unusable input, 3 some rows could not be read (findings or not).
    """
    if bool(paths) == (lake is not None):
        raise typer.BadParameter("give either paths or --lake")
    plan = planned(settings_file, overrides, exceptions_file, asn, indicators)
    _check(*paths or ())
    formats = set() if lake is None else set(Lake.open(lake).sources().values())
    spark = _session(master, conf)
    from relaywatch.fleet.hunting import hunt
    from relaywatch.fleet.lakes import hunt_lake
    from relaywatch.fleet.session import fleet_at

    if lake is not None:
        if len(formats) > 1:
            tell(f"not joined: the lake's {len(formats)} formats are judged as they are; relaywatch hunt joins them")
        result = hunt_lake(spark, lake, plan)
    else:
        result = hunt(spark, fleet_at(spark, paths or ()), plan, partitions)
    _give(result, as_json=as_json)


@spark_app.command(name="stream")
def stream_command(
    *,
    out: OutFolder,
    flows: Annotated[str, typer.Option(help="Folder into which Parquet files of flows come, or a topic with --kafka")],
    volumes: Annotated[str | None, typer.Option(help="The same for volumes; fixed at the stream's start")] = None,
    kafka: Annotated[str | None, typer.Option(help="Kafka's servers, HOST:PORT,...; then flows is a topic")] = None,
    master: Master = None,
    conf: Conf = None,
    shards: ShardCount = 64,
    lag_h: Lag = 24.0,
    once: Annotated[bool, typer.Option("--once", help="End when all that is there now is taken in")] = False,
    drain: Annotated[bool, typer.Option("--drain", help="As --once; then judge every day that is still open")] = False,
    settings_file: SettingsFile = None,
    overrides: Overrides = None,
) -> None:
    """Judge a stream of telemetry: each day when it is over. Goes on where it was when it is started again.

    `relaywatch spark conclude` makes findings of what it judged. Exit status: 0 ended, 2 unusable input.
    """
    plan = planned(settings_file, overrides)
    for folder in (flows, volumes) if not kafka else ():
        if folder is not None and "://" not in folder and not Path(folder).is_dir():
            raise RelaywatchError(f"{folder}: is no folder. Make it, and let Parquet files come into it.")
    spark = _session(master, conf)
    from relaywatch.fleet.session import files_of, topic_of
    from relaywatch.fleet.streaming import Stream, end, start

    read = partial(topic_of, spark, kafka) if kafka else partial(files_of, spark)
    place = Stream(out, shards, lag_h * 3_600.0)
    for last in (False, True) if drain else (False,):
        if last:
            end(spark, place)
        intervals = None if volumes is None else read(volumes, "volumes")
        query = start(spark, read(flows, "flows"), intervals, plan, place, once=once or drain)
        query.awaitTermination()


@spark_app.command(name="conclude")
def conclude_command(
    *,
    out: OutFolder,
    signals: Annotated[str | None, typer.Option(help="Canonical Parquet of signals: the cases' context")] = None,
    inventory: Annotated[str | None, typer.Option(help="Canonical Parquet of the inventory")] = None,
    master: Master = None,
    conf: Conf = None,
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
    overrides: Overrides = None,
    exceptions_file: ExceptionsFile = None,
    asn: Asn = None,
    indicators: Indicators = None,
) -> None:
    """Give the findings of all days that a stream has judged.

    Exit status: 0 no finding, 1 findings, 2 unusable input, 3 some rows could not be read (findings or not).
    """
    plan = planned(settings_file, overrides, exceptions_file, asn, indicators)
    _check(out, signals, inventory)
    spark = _session(master, conf)
    from relaywatch.fleet.session import read
    from relaywatch.fleet.streaming import Stream, conclude_stream

    tables = (None if path is None else read(spark, [path]) for path in (signals, inventory))
    _give(conclude_stream(spark, Stream(out), plan, *tables), as_json=as_json)


def _session(master: str | None, conf: Sequence[str] | None) -> Any:  # noqa: ANN401  a SparkSession, where there is one
    settled = {}
    for entry in conf or ():
        name, sign, value = entry.partition("=")
        if not sign:
            raise typer.BadParameter(f"--conf {entry}: not KEY=VALUE")
        settled[name] = value
    try:
        from relaywatch.fleet.session import session
    except ImportError as error:
        raise RelaywatchError(f"{error.name} is not installed. Run pip install 'relaywatch[spark]'.") from error
    return session(master, settled)


def _check(*paths: str | None) -> None:
    """Refuse paths of this machine that are not there before Spark starts; others only Spark can ask for."""
    for path in paths:
        if path is not None and not set(path) & _PATTERN and "://" not in path and not Path(path).exists():
            raise RelaywatchError(f"{path}: does not exist. Check the path.")


def _give(result: FleetResult, *, as_json: bool) -> None:
    """Tell findings and what was left out, and leave."""
    account = result.account
    remember(result.findings.lines())
    if as_json:
        sys.stdout.writelines(result.findings.lines())
    else:
        _render(result)
    left_out = {
        "not judged, which is not the same as clean": (
            account.silent + account.counted,
            "day of an app",
            "days of apps",
        ),
        "put aside, as it does not fit the schema": (account.unfit, "row", "rows"),
        "late, of days that were judged already, kept with the stream": (account.late, "row", "rows"),
    }
    for what, (count, one, many) in left_out.items():
        if count:
            tell(f"{what}: {plural(count, one, many)}")
    if account.unfit:
        raise typer.Exit(Exit.PARTIAL)
    raise typer.Exit(Exit.FINDINGS if result.findings else Exit.NOTHING_FOUND)


def _render(result: FleetResult) -> None:
    account, output = result.account, Output()
    for finding in result.findings:
        output.print(panel(finding, width=min(output.width, WIDEST)))
    app_days = plural(sum(account.judged.values()), "day of an app", "days of apps")
    rows = ", ".join(f"{count:,} {table}" for table, count in account.rows.items())
    output.print(f"{plural(len(result.findings), 'finding')} in {app_days}; {rows}, in {account.seconds:.1f} s")
    output.print(
        f"{plural(account.duplicates, 'record')} of flows that another record shows too, counted once; "
        f"{plural(account.unused, 'volume')} without its flow, or longer than tunnels can be judged by"
    )
