"""Twins: copies of one app of one device, under names of their own, with a relay episode laid into them.

Nothing that was read is changed: a twin's records are copies, its device's name begins with "drill:", and its drilled
records name a source that does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from relaywatch.assurance.episodes import SECOND, Episode
from relaywatch.assurance.eyes import Eyes, Marks, Seen, eyes_of
from relaywatch.engines.records import NO_APP, NO_UID, Records, Registry
from relaywatch.engines.shards import SHARDS
from relaywatch.engines.view import View
from relaywatch.model.assurance import Answer
from relaywatch.model.finding import Topology
from relaywatch.model.schemas import SignalKind

MARK: Final = "drill:"
"""What every drilled device's and source's name begins with."""
RESTORED_APP: Final = "drill.restored"
"""Package under which flows go that no app is known for, where their app is given back."""


class Host(NamedTuple):
    """An app that a relay is played into, in one window (begin to end, us since epoch).

    device, app: codes of the registry; population: its device's group; answers: what coverage says there, by topology;
    gaps: those open there that a drill can give back.
    """

    device: int
    app: int
    begin_us: int
    end_us: int
    name: str
    package: str | None
    uid: int | None
    population: str
    answers: Mapping[str, Answer]
    gaps: frozenset[str]


class Scene(NamedTuple):
    """One device in one window as its sources show it: its records, when it is seen there, and how its sources see."""

    flows: Records
    volumes: Records
    signals: Records
    first_us: int
    last_us: int
    eyes: Eyes


@dataclass(frozen=True, slots=True)
class Twin:
    """One copy with an episode in it.

    seed: of what its sources show of the episode; evasion: how the relay hides, empty where it does not; decoy: nothing
    is passed on; restored: gaps that were given back to the episode.
    """

    host: Host
    topology: Topology
    episode: Episode
    begin_us: int
    marks: Marks
    flows: Records
    volumes: Records
    signals: Records
    seed: np.random.SeedSequence
    evasion: str = ""
    decoy: bool = False
    restored: frozenset[str] = frozenset()


def mark_of(registry: Registry, seed: int) -> str:
    """What the names of a drill's devices and source begin with: MARK and the seed, and more where these are taken."""
    mark = f"{MARK}{seed}"
    while mark in registry.sources or any(name.startswith(f"{mark}:") for name in registry.devices):
        mark += "'"
    return mark


def scene_of(view: View, host: Host, accepting: frozenset[str]) -> Scene | None:
    """The host's device in the host's window; None where none of its connections is seen there.

    accepting: formats that show accepted sessions.
    """
    shard, intake = host.device % SHARDS, view.intake
    parts = [table.read(shard) for table in (intake.flows, intake.volumes, intake.signals)]
    flows, volumes, signals = (_within(part[part["device"] == host.device], host) for part in parts)
    if not len(flows):
        return None
    names = intake.registry.source_names()
    formats = {view.formats[names[code]] for code in np.unique(flows["source"]).tolist()}
    details = intake.names.texts(np.unique(signals["detail"][signals["kind"] == SignalKind.CAPTURE]))
    hidden = intake.registry.anonymous(flows["app"])
    eyes = eyes_of(flows, volumes, hidden, sorted(details.values()), accepts=bool(formats & accepting))
    if eyes is None:
        return None
    first, last = int(flows["start"].min()), int(max(flows["start"].max(), flows["end"].max()))
    return Scene(flows, volumes, signals, max(first, host.begin_us), min(last, host.end_us), eyes)


def _within(records: Records, host: Host) -> Records:
    """The records that overlap the host's window; a signal without an end goes on."""
    kind = records.dtype.names or ()
    if "duration" in kind:
        end = records["start"] + records["duration"]
    else:
        end = np.where(records["end"] >= records["start"], records["end"], records["start"])
        if "kind" in kind:
            end = np.where(records["end"] >= records["start"], end, host.end_us)
    kept: Records = records[(records["start"] < host.end_us) & (end >= host.begin_us)]
    return kept


def marks_of(host: Host, registry: Registry, mark: str, number: int, restored: frozenset[str]) -> Marks:
    """Codes of a twin's own names. mark: mark_of; number: of the twin among all of the drill."""
    device = f"{mark}:{number}:{host.name}"
    package = host.package or NO_APP
    if "app" in restored and host.package is None and host.uid is None:
        package = RESTORED_APP
    app = registry.app_code(device, package, NO_UID if host.uid is None else host.uid)
    nobody = registry.app_code(device, NO_APP, NO_UID)
    return Marks(registry.device_code(device), app, nobody, registry.sources[mark])


def laid(twin: Twin, scene: Scene, shown: Seen) -> Twin:
    """The twin with its host's own records and what its sources show of the episode."""
    own = [scene.flows[scene.flows["app"] == twin.host.app], scene.volumes[scene.volumes["app"] == twin.host.app]]
    flows, volumes, signals = (_renamed(part, twin) for part in (*own, scene.signals))
    return replace(
        twin,
        flows=np.concatenate([flows, shown.flows]),
        volumes=np.concatenate([volumes, shown.volumes]),
        signals=signals,
    )


def _renamed(records: Records, twin: Twin) -> Records:
    """A copy under the twin's names."""
    copy = records.copy()
    copy["app"] = np.where(copy["app"] == twin.host.app, twin.marks.app, copy["app"])
    copy["device"] = twin.marks.device
    return copy


def as_of(twin: Twin, sessions: int) -> tuple[Twin, float]:
    """The twin as its sources had written it when so many sessions had begun, and the s that had passed by then.

    A flow's record is written when the flow ends, or when it begins where the source never tells an end; of a flow with
    volumes, what they hold by then is there before.
    """
    begins = np.sort(twin.episode.begins)
    seconds = float(np.ceil(begins[min(sessions, len(begins)) - 1])) + 1.0
    until = twin.begin_us + int(seconds) * SECOND
    volumes = twin.volumes[twin.volumes["start"] + twin.volumes["duration"] <= until]
    flows = twin.flows[twin.flows["start"] < until].copy()
    open_ = flows["end"] >= until
    held = _held(flows, volumes)
    measured = held["sent"].is_not_null().to_numpy()
    for name, column in (("bytes_out", "sent"), ("bytes_in", "received")):
        flows[name] = np.where(open_ & measured, held[column].fill_null(0).to_numpy(), flows[name])
    flows["end"] = np.where(open_, until, flows["end"])
    signals = twin.signals[twin.signals["start"] < until]
    return replace(twin, flows=flows[~open_ | measured], volumes=volumes, signals=signals), seconds


def ended_after(twin: Twin) -> float:
    """Seconds from the episode's begin until its last flow is over."""
    return float(np.ceil(twin.episode.end.max()))


def _held(flows: Records, volumes: Records) -> pl.DataFrame:
    """Bytes that each flow's volumes hold, a row a flow; null where it has none."""
    sums = (
        pl.DataFrame({name: volumes[name] for name in ("source", "flow_id", "bytes_out", "bytes_in")})
        .group_by("source", "flow_id")
        .agg(pl.col("bytes_out").sum().alias("sent"), pl.col("bytes_in").sum().alias("received"))
    )
    asked = pl.DataFrame({"source": flows["source"], "flow_id": flows["flow_id"]})
    return asked.join(sums, on=["source", "flow_id"], how="left", maintain_order="left")
