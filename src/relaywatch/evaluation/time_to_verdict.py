"""Time to verdict: after how many seconds and sessions of relaying each labelled app is called what it is.

The telemetry of an app is cut at moments a few seconds apart, each cut showing what a sensor would have shown by then,
and every cut is hunted as a device of its own. Moments are whole seconds, so that intervals of one second never
straddle one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple, Protocol, cast

import polars as pl
import pyarrow as pa

from relaywatch.detection.settings import Settings
from relaywatch.engines.local import Hunt, hunt
from relaywatch.governance.exceptions import Exceptions
from relaywatch.model.errors import SourceError
from relaywatch.model.finding import Finding, Verdict
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import TABLES, Observability
from relaywatch.model.tables import Batch
from relaywatch.sources.discovery import discover
from relaywatch.sources.reading import Reading

SECOND_US: Final = 1_000_000
STEP_S: Final = 5
MOST_MOMENTS: Final = 400
"""Cuts of one app; a longer trace is cut at longer steps."""
APPS_A_HUNT: Final = 16
BAR_SECONDS: Final = 60.0
BAR_SESSIONS: Final = 10
"""A verdict is in time where either has not passed: 60 s of relaying or 10 sessions, whichever is later."""
_GRAVITY: Final[Mapping[Verdict | None, int]] = {
    None: 0,
    Verdict.INSUFFICIENT_TELEMETRY: 1,
    Verdict.SUSPECTED_RELAY: 2,
    Verdict.RELAY: 3,
    Verdict.SANCTIONED_RELAY: 3,
}
Tables = dict[str, pl.DataFrame]


class LabelledApp(Protocol):
    """What is asked of an app's labels, whoever reads them.

    folder: its telemetry; relays: mechanically a relay, sanctioned or not; evasion, topology: empty where none;
    roles: by flow_id, of which relay_out is a relayed target leg; pairs: flow_ids of client and target legs.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def folder(self) -> Path: ...  # noqa: D102
    @property
    def label(self) -> str: ...  # noqa: D102
    @property
    def program(self) -> str: ...  # noqa: D102
    @property
    def scenario(self) -> str: ...  # noqa: D102
    @property
    def evasion(self) -> str: ...  # noqa: D102
    @property
    def topology(self) -> str: ...  # noqa: D102
    @property
    def roles(self) -> Mapping[int, str]: ...  # noqa: D102
    @property
    def pairs(self) -> Set[tuple[int, int]]: ...  # noqa: D102
    @property
    def relays(self) -> bool: ...  # noqa: D102


class Step(NamedTuple):
    """What the hunt said at one moment.

    seconds: since the first relayed session began, or the first flow of an app that does not relay; sessions: relayed
    ones begun by then.
    """

    seconds: float
    sessions: int
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class Course:
    """How one app's verdict went: steps in order of time, the last one with all of its telemetry."""

    app: LabelledApp
    steps: tuple[Step, ...]

    def first(self, verdict: Verdict) -> Step | None:
        """The first step with this verdict or a graver one."""
        return next((step for step in self.steps if _GRAVITY[step.verdict] >= _GRAVITY[verdict]), None)

    def settled(self, verdict: Verdict) -> Step | None:
        """The first step from which on this verdict or a graver one stays."""
        found = None
        for step in reversed(self.steps):
            if _GRAVITY[step.verdict] < _GRAVITY[verdict]:
                break
            found = step
        return found

    def in_time(self, verdict: Verdict) -> bool:
        """Whether the verdict stays from BAR_SECONDS or BAR_SESSIONS on, whichever is later, or before."""
        step = self.settled(verdict)
        return step is not None and (step.seconds <= BAR_SECONDS or step.sessions <= BAR_SESSIONS)

    def changes(self) -> Iterator[Step]:
        """The steps at which the verdict is another one than before."""
        before = None
        for step in self.steps:
            if step.verdict is not before:
                yield step
            before = step.verdict


def courses(apps: Sequence[LabelledApp], settings: Settings, step_s: int = STEP_S) -> list[Course]:
    """The course of every app, in order; step_s: whole seconds between two cuts.

    Relays are cut from their first relayed session on, other apps from their first flow on. Raises SourceError where a
    trace cannot be read or has no flow.
    """
    found: list[Course] = []
    for k in range(0, len(apps), APPS_A_HUNT):
        found += _hunted(apps[k : k + APPS_A_HUNT], settings, step_s)
    return found


def cuts(tables: Tables, moments: Mapping[str, int]) -> Tables:
    """Canonical tables as they stood at each moment (name to us since epoch, whole seconds), one device a moment.

    Flows begun by then are there; of those still open, the bytes that their volumes show, until the last of these.
    Signals that last longer have no end yet. A cut has device, package and source names of its own (the old one, @, the
    moment's name): hunts compare the installs of a package, and a cut is no other install.
    """
    at = pl.DataFrame(
        {"mark": list(moments), "at": list(moments.values())}, schema={"mark": pl.String, "at": pl.Int64}
    ).with_columns(_instant(pl.col("at")))
    volumes = tables["volumes"].join(at, how="cross").filter(_volume_end() <= pl.col("at"))
    flows = tables["flows"].join(at, how="cross").filter(pl.col("start_time") < pl.col("at"))
    signals = tables["signals"].join(at, how="cross").filter(pl.col("start_time") < pl.col("at"))
    ended = pl.when(pl.col("end_time") < pl.col("at")).then(pl.col("end_time"))
    shown = {
        "flows": _so_far(flows, volumes, seen=tables["volumes"].height > 0),
        "volumes": volumes,
        "signals": signals.with_columns(ended.alias("end_time")),
        "inventory": tables["inventory"].join(at, how="cross"),
    }
    return {name: _marked(frame).select(tables[name].columns) for name, frame in shown.items()}


def canonical_tables(batches: Iterable[Batch]) -> Tables:
    """The batches as one frame a canonical table; text is plain text."""
    rows: dict[str, list[pa.RecordBatch]] = {name: [] for name in TABLES}
    for part in batches:
        rows[part.table].append(part.rows)
    frames = {name: pl.from_arrow(pa.Table.from_batches(rows[name], schema)) for name, schema in TABLES.items()}
    return {name: cast("pl.DataFrame", frame).cast({pl.Categorical: pl.String}) for name, frame in frames.items()}


def _so_far(flows: pl.DataFrame, volumes: pl.DataFrame, *, seen: bool) -> pl.DataFrame:
    """The flows with what is known of the open ones; seen: whether the telemetry has volumes at all.

    A name that comes from the flow's own first bytes is not known before the device sent some.
    """
    counts = ("bytes_out", "bytes_in", "packets_out", "packets_in")
    held = volumes.group_by("mark", "source", "flow_id").agg(
        *(pl.col(name).sum().alias(f"{name}_held") for name in counts), _volume_end().max().alias("last")
    )
    is_open = pl.col("end_time").is_null() | (pl.col("end_time") >= pl.col("at"))
    unread = is_open & (pl.col("hostname_observability") == Observability.OBSERVED) & (pl.col("bytes_out") == 0)
    so_far = [
        pl.when(~is_open | pl.col(name).is_null())
        .then(pl.col(name))
        .otherwise(pl.col(f"{name}_held").fill_null(0) if seen else None)
        .alias(name)
        for name in counts
    ]
    last = pl.max_horizontal("last", "start_time") if seen else pl.lit(None)
    return (
        flows.join(held, on=["mark", "source", "flow_id"], how="left", maintain_order="left")
        .with_columns(
            *so_far,
            *(pl.when(~is_open).then(pl.col(name)).alias(name) for name in ("wire_bytes_out", "wire_bytes_in")),
        )
        .with_columns(
            *(
                pl.when(~unread.fill_null(value=False)).then(pl.col(name)).alias(name)
                for name in ("remote_hostname", "hostname_observability")
            ),
            pl.when(is_open).then(last).otherwise(pl.col("end_time")).alias("end_time"),
        )
    )


def _marked(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(
        pl.concat_str([name, "mark"], separator="@").alias(name) for name in ("device_uid", "android_package", "source")
    )


def _volume_end() -> pl.Expr:
    return pl.col("start_time") + pl.duration(microseconds=pl.col("duration_us"))


def _instant(us: pl.Expr) -> pl.Expr:
    return us.cast(pl.Datetime("us", "UTC"))


@dataclass(frozen=True, slots=True)
class _Cutting:
    """One app's telemetry and where it is cut. begin: us since epoch from which seconds count; sessions: begins, us."""

    app: LabelledApp
    tables: Tables
    begin: int
    sessions: tuple[int, ...]
    moments: tuple[int, ...]


def _hunted(apps: Sequence[LabelledApp], settings: Settings, step_s: int) -> list[Course]:
    """The courses of some apps, by one hunt over all their cuts."""
    plans = [_cutting(app, step_s) for app in apps]
    with tempfile.TemporaryDirectory(prefix="relaywatch-") as folder:
        for number, plan in enumerate(plans):
            moments = {f"{number}@{k}": at for k, at in enumerate(plan.moments)}
            for name, frame in cuts(plan.tables, moments).items():
                if frame.height:
                    frame.write_parquet(Path(folder, f"{number}-{name}.parquet"))
        found = hunt([Path(folder)], Hunt(settings, Exceptions(()), datetime.now(UTC))).findings
    gravest: dict[str, Verdict] = {}
    for finding in found:
        mark = _mark_of(finding)
        gravest[mark] = max(gravest.get(mark, finding.verdict), finding.verdict, key=_GRAVITY.__getitem__)
    return [
        Course(
            plan.app,
            tuple(
                Step(
                    (at - plan.begin) / SECOND_US,
                    sum(begun < at for begun in plan.sessions),
                    gravest.get(f"{number}@{k}"),
                )
                for k, at in enumerate(plan.moments)
            ),
        )
        for number, plan in enumerate(plans)
    ]


def _mark_of(finding: Finding) -> str:
    return "@".join(finding.device.uid.rsplit("@", 2)[1:])


def _cutting(app: LabelledApp, step_s: int) -> _Cutting:
    quarantine = Quarantine()
    units = discover([app.folder]).units
    tables = canonical_tables(part for unit in units for part in unit.read(Reading(quarantine)))
    flows = tables["flows"].with_columns(pl.col("start_time", "end_time").cast(pl.Int64))
    if not flows.height:
        raise SourceError(app.folder, "has no flow.", remedy="Leave the trace out, or record it again.")
    sessions = session_begins(app, dict(flows.select("flow_id", "start_time").iter_rows()))
    begin = sessions[0] if sessions else int(cast("int", flows["start_time"].min()))
    ends = pl.concat(
        [flows["start_time"], flows["end_time"], tables["volumes"].select(_volume_end())["start_time"].cast(pl.Int64)]
    )
    return _Cutting(app, tables, begin, sessions, _moments(begin, int(cast("int", ends.max())), step_s))


def session_begins(app: LabelledApp, starts: Mapping[int, int]) -> tuple[int, ...]:
    """When each relayed session began, in order: its target leg and one of the client legs it is paired with are there.

    starts: by flow_id, in any unit, which the answer has too. A target leg paired with several links is one session;
    where no pair is labelled, each flow of role relay_out is one.
    """
    begun: dict[int, int] = {}
    for client, target in app.pairs:
        if client in starts and target in starts:
            both = max(starts[client], starts[target])
            begun[target] = min(begun.get(target, both), both)
    if not app.pairs:
        begun = {flow: starts[flow] for flow, role in app.roles.items() if role == "relay_out" and flow in starts}
    return tuple(sorted(begun.values()))


def _moments(begin: int, last: int, step_s: int) -> tuple[int, ...]:
    """Whole seconds after `begin`, at equal steps, the last one after `last` (all us since epoch)."""
    first = -(-begin // SECOND_US)
    whole = last // SECOND_US + 1 - first
    step = max(step_s, -(-whole // MOST_MOMENTS))
    return tuple((first + step * k) * SECOND_US for k in range(1, max(1, -(-whole // step)) + 1))
