"""A hunt over a lake: a first look at each partition, on all cores, then a judgement of the apps that have a case."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from relaywatch.detection.columns import Keys
from relaywatch.engines.contacted import HELD
from relaywatch.engines.cores import on_all_cores
from relaywatch.engines.installs import Installs, Packaged
from relaywatch.engines.intake import Intake
from relaywatch.engines.judging import Judged, app_name
from relaywatch.engines.lake_contacts import Parties, contacts_in
from relaywatch.engines.lake_progress import Progress
from relaywatch.engines.lake_sieve import Sifted, app_hashes, rows_of_apps, sift
from relaywatch.engines.local import LISTED_NOT_JUDGED, NO_BYTES, ONLY_COUNTED, Hunt, HuntResult, findings_of, judge
from relaywatch.engines.view import View, joined
from relaywatch.lake.lake import Lake
from relaywatch.lake.layout import day_number, shard_of
from relaywatch.model.errors import LakeError
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import IdentifierKind
from relaywatch.model.tables import Batch, TableName
from relaywatch.outputs.summary import HuntSummary, NotJudged, UnitRead

Place = tuple[date, int]
"""Day and shard."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a lake is hunted. days: None for all; devices: None for all."""

    days: frozenset[date] | None = None
    devices: frozenset[str] | None = None

    @property
    def told(self) -> str:
        """It as text, the same for the same selection."""
        days = None if self.days is None else sorted(day.isoformat() for day in self.days)
        return repr((days, None if self.devices is None else sorted(self.devices)))


def hunt_lake(lake: Lake, plan: Hunt, selection: Selection | None = None) -> HuntResult:
    """Hunt a lake, or some days and devices of it: what a hunt over the same rows as files finds.

    Raises LakeError where nothing is selected, or a file is missing or damaged.
    """
    started = time.monotonic()
    chosen = selection or Selection()
    places = _places(lake, chosen)
    if not places:
        raise _nothing(lake)
    with tempfile.TemporaryDirectory(prefix="relaywatch-") as folder:
        view = View(Intake(Path(folder), plan.settings.allowed_destinations), Quarantine(), formats=lake.sources())
        if _needs_joining(lake):
            _take_all(view, lake, places, chosen)
            joined(view)
            judged, counts = judge(view.intake, plan), Counter(view.intake.rows)
            findings = findings_of(judged, view, plan)
        else:
            progress = Progress(lake, plan, chosen.told)
            sifted = _sifted(lake, places, chosen, plan, progress)
            _take_cases(view, lake, sifted)
            joined(view)
            if not any(found.flows or found.volumes for found in sifted.values()):
                raise _nothing(lake)
            judged = _told(judge(view.intake, plan), sifted)
            counts = _counts(view, sifted)
            findings = findings_of(judged, view, plan, lambda wanted: _installs(lake, places, chosen, plan, wanted))
            progress.done()
        summary = _summary(view, lake, counts, judged)
    return HuntResult(findings, replace(summary, seconds=time.monotonic() - started))


def _nothing(lake: Lake) -> LakeError:
    return LakeError(f"{lake.folder}: holds no telemetry of these days and devices. See relaywatch lake show.")


def _places(lake: Lake, chosen: Selection) -> list[Place]:
    """The partitions of flows or volumes that are selected, rising."""
    shards = None if chosen.devices is None else {shard_of(device) for device in chosen.devices}
    every = {*lake.partitions("flows"), *lake.partitions("volumes")}
    return sorted(
        (day, shard)
        for day, shard in every
        if (chosen.days is None or day in chosen.days) and (shards is None or shard in shards)
    )


def _needs_joining(lake: Lake) -> bool:
    """Whether rows must be seen together before any is judged: of several sensors, or under several names."""
    several = len(set(lake.sources().values())) > 1
    return several or _names_several(lake.inventory()) or lake.has_first_seen()


def _names_several(inventory: pa.Table) -> bool:
    """Whether an identifier may bring records under another name: several devices bear it, or it passes on."""
    columns = ["device_uid", "identifier_kind", "identifier"]
    told = pl.DataFrame({name: pl.Series(inventory[name].cast(pa.string())) for name in columns}).drop_nulls().unique()
    passing = told["identifier_kind"].is_in(
        [str(IdentifierKind.IP), str(IdentifierKind.MAC), str(IdentifierKind.HOSTNAME)]
    )
    return bool(passing.any()) or told.select(columns[1:]).n_unique() < told.height


def _take_all(view: View, lake: Lake, places: list[Place], chosen: Selection) -> None:
    tables: tuple[TableName, ...] = ("flows", "volumes")
    for table in tables:
        for day, shard in places:
            for rows in lake.read(table, day, shard, devices=chosen.devices):
                view.intake.add(Batch(table, rows))
    for shard in lake.shards("signals"):
        for rows in lake.signals(shard, chosen.devices):
            view.intake.add(Batch("signals", rows))
    for rows in lake.inventory().to_batches():
        view.intake.add(Batch("inventory", rows))


def _sifted(lake: Lake, places: list[Place], chosen: Selection, plan: Hunt, progress: Progress) -> dict[Place, Sifted]:
    """The first look at every partition, those of an interrupted hunt aside."""
    plan.watcher.judging(len(places))
    found = {}

    def look(place: Place) -> Sifted:
        before = progress.look(*place)
        if before is not None:
            return before
        sifted = sift(lake, place[0], place[1], chosen.devices, plan)
        progress.keep(*place, sifted)
        return sifted

    for place, sifted in zip(places, on_all_cores(look, places), strict=True):
        found[place] = sifted
        plan.watcher.judged()
    return found


def _take_cases(view: View, lake: Lake, sifted: Mapping[Place, Sifted]) -> None:
    """Take in all rows of the apps that have a case, and what is known of their devices."""
    tables: tuple[TableName, ...] = ("flows", "volumes")
    own = {place: frozenset(key.device for key in found.cases) for place, found in sifted.items() if found.cases}
    devices = frozenset[str]().union(*own.values())

    def batches(asked: tuple[TableName, Place]) -> list[Batch]:
        table, place = asked
        return [
            Batch(table, rows_of_apps(rows, sifted[place].cases))
            for rows in lake.read(table, *place, devices=own[place])
        ]

    for taken in on_all_cores(batches, [(table, place) for place in own for table in tables]):
        for batch in taken:
            view.intake.add(batch)
    for shard in sorted({shard_of(device) for device in devices} & set(lake.shards("signals"))):
        for rows in lake.signals(shard, devices):
            view.intake.add(Batch("signals", rows))
    known = lake.inventory()
    own_rows = pc.is_in(known["device_uid"].cast(pa.string()), pa.array(sorted(devices), pa.string()))
    for rows in known.filter(own_rows).to_batches():
        view.intake.add(Batch("inventory", rows))


def _told(judged: Judged, sifted: Mapping[Place, Sifted]) -> Judged:
    """What was judged, with the counts of the first look: the second saw the apps with a case only."""
    apps: Counter[int] = Counter()
    for (day, _), found in sifted.items():
        apps[day_number(day)] += found.judged
    return replace(
        judged,
        apps=apps,
        not_judged=[*_silent(sifted), *_only_counted(sifted)],
        duplicates=sum(found.duplicates for found in sifted.values()),
        unmatched=sum(found.unmatched for found in sifted.values()),
    )


def _silent(sifted: Mapping[Place, Sifted]) -> Iterator[NotJudged]:
    """Apps that carried bytes both ways on no day."""
    days = Counter(key for found in sifted.values() for key in found.silent)
    hashes = app_hashes(list(days))
    met = np.concatenate([np.empty(0, np.uint64), *(part for found in sifted.values() for part in found.apps)])
    times = Counter(met[np.isin(met, hashes)].tolist())
    for (key, count), hashed in zip(days.items(), hashes.tolist(), strict=True):
        if times[hashed] == count:
            yield NotJudged(key.device, app_name(key), NO_BYTES)


def _only_counted(sifted: Mapping[Place, Sifted]) -> Iterator[NotJudged]:
    """Apps of which no day has flows."""
    keys = sorted({key for found in sifted.values() for key in found.counted})
    met = np.concatenate([np.empty(0, np.uint64), *(part for found in sifted.values() for part in found.apps)])
    for key, seen in zip(keys, np.isin(app_hashes(keys), met).tolist(), strict=True):
        if not seen:
            yield NotJudged(key.device, app_name(key), ONLY_COUNTED)


def _counts(view: View, sifted: Mapping[Place, Sifted]) -> Counter[str]:
    """Rows looked at, by table."""
    rows = Counter(view.intake.rows)
    rows["flows"] = sum(found.flows for found in sifted.values())
    rows["volumes"] = sum(found.volumes for found in sifted.values())
    view.devices = _distinct([part for found in sifted.values() for part in found.devices])
    view.apps = _distinct([part for found in sifted.values() for part in found.apps])
    return rows


def _distinct(parts: list[Keys]) -> int:
    return len(np.unique(np.concatenate(parts))) if parts else 0


def _installs(
    lake: Lake, places: list[Place], chosen: Selection, plan: Hunt, wanted: Mapping[Packaged, set[str]]
) -> Installs:
    """What installs contact of the wanted parties, looked up in the lake."""
    installs, parties = Installs(wanted), Parties()
    days, flows = {day for day, _ in wanted}, set(lake.partitions("flows"))
    asked = [place for place in places if place in flows and day_number(place[0]) in days]

    def look(place: Place) -> tuple[pl.DataFrame, pl.DataFrame]:
        packages = [package for day, package in wanted if day == day_number(place[0])]
        return contacts_in(lake, place, chosen.devices, packages, plan.settings.allowed_destinations)

    held: list[pl.DataFrame] = []
    for number, (counted, ends) in enumerate(on_all_cores(look, asked), 1):
        for day, package, devices in counted.iter_rows():
            installs.installed((day, package), devices)
        held.append(ends)
        if sum(map(len, held)) > HELD or number == len(asked):
            installs.contacted(parties.of(pl.concat(held)))
            held = []
    return installs


def _summary(view: View, lake: Lake, counts: Mapping[str, int], judged: Judged) -> HuntSummary:
    rows = sum(counts.values())
    return HuntSummary(
        rows=dict(counts),
        units=[UnitRead(path=str(lake.folder), format="lake", records=rows, quarantined=0, met=rows, with_rows=rows)],
        devices=view.devices,
        apps=view.apps,
        quarantine=view.quarantine,
        joins=view.summary,
        not_judged=sorted(judged.not_judged)[:LISTED_NOT_JUDGED],
        not_judged_in_all=len(judged.not_judged),
        duplicate_flows=judged.duplicates,
        unused_volumes=judged.unmatched,
    )
