"""The command that makes fleets that never were: simulate."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from relaywatch.cli.shell import AsJson, app, tell
from relaywatch.model.errors import RelaywatchError, SettingError
from relaywatch.model.tables import Batch
from relaywatch.outputs.native import json_line
from relaywatch.simulation.plan import Faults, Plan
from relaywatch.simulation.stream import Simulation
from relaywatch.simulation.writing import Form, write_fleet, write_stream, write_truth

STANDARD_OUTPUT: Final = "-"


@app.command(name="simulate")
def simulate_command(
    out: Annotated[str, typer.Argument(help="Folder to write into, or - for standard output", show_default=False)],
    *,
    devices: Annotated[int, typer.Option(help="Phones")],
    flows: Annotated[int, typer.Option(help="Distinct flows in all; 0: as --flows-a-day says")] = 0,
    flows_a_day: Annotated[int, typer.Option(help="Flows of a device and day on average, instead of --flows")] = 0,
    days: Annotated[int, typer.Option(help="Days")] = 1,
    start: Annotated[str, typer.Option(help="First day, from midnight UTC")] = "2026-01-01",
    seed: Annotated[int, typer.Option(help="Another seed gives another fleet")] = 0,
    relays: Annotated[
        float, typer.Option(help="Share of (device, app) pairs that relay; above 0 at least one")
    ] = 0.002,
    volumes: Annotated[float, typer.Option(help="Share of devices whose flows have volumes by the second")] = 0.0,
    signals: Annotated[float, typer.Option(help="Share of devices whose context is seen")] = 0.2,
    inventory: Annotated[bool, typer.Option(help="Write the inventory of devices and apps")] = True,
    faults: Annotated[
        list[str] | None,
        typer.Option(help="NAME=RATE or NAME=RATE:SECONDS, of skew, late, duplicates, gaps; may be repeated"),
    ] = None,
    hot: Annotated[bool, typer.Option("--hot", help="The first device has 100 times the flows of others")] = False,
    shuffled: Annotated[bool, typer.Option("--shuffled", help="Flows in no order of time")] = False,
    form: Annotated[Form, typer.Option("--to", help="Format to write")] = Form.PARQUET,
    truth: Annotated[
        Path | None, typer.Option(help="Folder for truth.json and truth.parquet, with - as output")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a synthetic fleet of phones, some of whose apps relay, for trying out and measuring speed.

    Everything is seeded: the same options give the same rows. It says nothing of detection quality. Exit status: 0
    written, 2 unusable options or output.
    """
    plan = Plan(
        devices=devices,
        flows=_flows(flows, flows_a_day, devices, days),
        days=days,
        seed=seed,
        begin=_day(start),
        relays=relays,
        volumes=volumes,
        signals=signals,
        inventory=inventory,
        hot=hot,
        shuffled=shuffled,
        faults=_faults(faults or ()),
    )
    if out == STANDARD_OUTPUT and as_json:
        raise typer.BadParameter("--json and the output - both write to standard output: choose one")
    if out != STANDARD_OUTPUT and truth is not None:
        raise typer.BadParameter("--truth goes with - as output; a folder holds the truth itself")
    simulation = Simulation(plan)
    with _progress() as bar:
        task = bar.add_task("Simulating flows", total=_flows_in_all(plan))

        def told(batch: Batch) -> None:
            if batch.table == "flows":
                bar.advance(task, batch.rows.num_rows)

        if out == STANDARD_OUTPUT:
            write_stream(simulation, form, sys.stdout.buffer, told)
            written = write_truth(simulation, truth) if truth is not None else []
        else:
            written = write_fleet(simulation, form, Path(out), told)
    _account(simulation, written, as_json=as_json)


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _account(simulation: Simulation, written: Sequence[Path], *, as_json: bool) -> None:
    relays = simulation.truth().select("device_uid", "android_package").n_unique()
    counts = simulation.account.counted()
    if as_json:
        files = [str(path) for path in written]
        record = {"synthetic": True, "plan": simulation.plan.described(), "written": counts, "relays": relays}
        sys.stdout.write(json_line({**record, "files": files}))
        return
    for path in written:
        tell(f"written: {path}")
    tell(
        f"synthetic: {counts['flows']} flows of {simulation.plan.devices} devices ({counts['repeated']} repeated, "
        f"{counts['late']} late, {counts['missing']} missing in gaps), {counts['volumes']} volumes, "
        f"{counts['signals']} signals, {counts['inventory']} inventory rows; {relays} apps relay"
    )


def _flows_in_all(plan: Plan) -> int:
    """About how many records of flows there will be, repetitions among them."""
    return round(plan.flows * (1.0 + plan.faults.duplicates.rate))


def _flows(flows: int, a_day: int, devices: int, days: int) -> int:
    """Flows in all. Raises SettingError where neither or both of the two ways to say so are used."""
    if (flows == 0) == (a_day == 0):
        raise SettingError("flows: give one of --flows (in all) and --flows-a-day (of each device).")
    return flows or a_day * devices * days


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as fault:
        raise SettingError(f"--start {text}: is no day. Write it as 2026-01-31.") from fault


def _faults(texts: Sequence[str]) -> Faults:
    """Faults as the option names them. Raises RelaywatchError for a name or number that is none."""
    faults = Faults()
    for text in texts:
        for part in text.split(","):
            name, _, rest = part.strip().partition("=")
            known = faults.by_name()
            if name not in known:
                raise RelaywatchError(f"--faults {part}: {name!r} is no fault. Choose of {', '.join(known)}.")
            rate, _, bound = rest.partition(":")
            try:
                fault = known[name]._replace(rate=float(rate))
                fault = fault._replace(bound_s=float(bound)) if bound else fault
            except ValueError as error:
                raise RelaywatchError(f"--faults {part}: write {name}=RATE or {name}=RATE:SECONDS.") from error
            faults = replace(faults, **{name: fault})
    return faults
