"""Drills: relays played into twins of a site's apps, judged beside the site's own telemetry in one pass.

Each twin is judged as the hunt judges: the same kernels, the same settings, and a bar as if it were one more app there.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from relaywatch import __version__
from relaywatch.assurance.answers import OK
from relaywatch.assurance.blind_spots import with_costs
from relaywatch.assurance.coverage import DAY_S, Coverage, coverage_of
from relaywatch.assurance.episodes import SECOND, Evasion, Wanted, play, without_relaying
from relaywatch.assurance.eyes import RESTORED, Marks, seen
from relaywatch.assurance.scores import (
    Outcome,
    decoy_share,
    drill_rows,
    evasion_rows,
    gap_costs,
    population_alarms,
)
from relaywatch.assurance.twins import Host, Scene, Twin, as_of, ended_after, laid, mark_of, marks_of, scene_of
from relaywatch.assurance.watching import Span
from relaywatch.detection.discovery import relay_bar
from relaywatch.engines.cases import Case
from relaywatch.engines.findings import Directory, draft_of
from relaywatch.engines.judging import Judged, judge_part
from relaywatch.engines.local import Hunt, directory_of, findings_of, inventory_of, judge
from relaywatch.engines.names import text_keys
from relaywatch.engines.records import FLOW, SIGNAL, VOLUME
from relaywatch.engines.survey import summary_of
from relaywatch.engines.view import View, read_view
from relaywatch.enrichment.loading import Enrichment
from relaywatch.model.assurance import ALL_DEVICES, NO_GROUP, Answer, DrillReport, PopulationAlarms
from relaywatch.model.errors import SourceError
from relaywatch.model.finding import Finding, Topology, Verdict
from relaywatch.sources.discovery import discover

SHORTEST_S: Final = 60.0
"""An episode is laid into at least so much time, though its host was seen for less."""
MOMENTS: Final = (4, 6, 8, 10, 12, 16, 20, 25, 30, 40, 60, 100, 200, 500)
"""Sessions after which a verdict is asked for, when the time to a verdict is sought."""
AT_ONCE: Final = 64
"""Hosts whose twins are held and judged together."""
PLAYED, SEEN = 1, 2
"""What a twin's random numbers are for: its episode, and what its sources show of it."""
_TOPOLOGIES: Final = tuple(Topology)


@dataclass(frozen=True, slots=True)
class DrillPlan:
    """What to drill. episodes: of each topology; sessions, seconds, size: of each episode (episodes.Wanted).

    evasions: each is played on its own besides. seed: drills with one seed on one telemetry are the same.
    """

    topologies: tuple[Topology, ...] = _TOPOLOGIES
    episodes: int = 20
    sessions: int = 40
    seconds: float = 600.0
    size: float = 1.0
    evasions: tuple[Evasion, ...] = ()
    seed: int = 0

    def described(self) -> dict[str, str]:
        """The plan by its options' names."""
        return {
            "topology": ", ".join(topology.value for topology in self.topologies),
            "episodes": str(self.episodes),
            "sessions": str(self.sessions),
            "seconds": f"{self.seconds:g}",
            "size": f"{self.size:g}",
            "evasion": ", ".join(self.evasions) or "none",
        }


@dataclass(frozen=True, slots=True)
class Drilled:
    """A drill's report, the coverage of the same telemetry, and the hunt's findings in it."""

    report: DrillReport
    coverage: Coverage
    findings: Sequence[Finding]


def drill(paths: Sequence[Path], plan: Hunt, wanted: DrillPlan, window_s: float = DAY_S) -> Drilled:
    """Play the drill into the telemetry under the paths, and judge both in one pass.

    Where no app can be a host nothing is played, and the report has no rows. Raises SourceError where nothing can be
    read.
    """
    found, started = discover(paths), time.monotonic()
    if not found.units:
        first = paths[0] if paths else ""
        raise SourceError(first, "holds no telemetry in a known format.", remedy="See docs/sources.md.")
    with tempfile.TemporaryDirectory(prefix="relaywatch-") as folder:
        allowed = plan.settings.allowed_destinations
        view = read_view(found.units, Path(folder), plan.device, plan.watcher, allowed, profiled=True)
        covered = coverage_of(view, plan.settings, window_s, summary_of(view, found, started))
        judged = judge(view.intake, plan)
        findings = findings_of(judged, view, plan)
        hosts = _hosts(covered, findings)
        stage = _Stage(view, plan, judged, wanted, covered)
        outcomes = stage.played(hosts) if hosts.height else []
    report = _report(outcomes, covered, findings, wanted)
    spots = with_costs(covered.report.blind_spots, report.costs)
    told = replace(covered, report=covered.report.model_copy(update={"blind_spots": spots}))
    return Drilled(report, told, findings)


def _hosts(covered: Coverage, findings: Sequence[Finding]) -> pl.DataFrame:
    """Apps with connections in some window, of which the hunt says nothing, in an order that is always the same."""
    if covered.answers.is_empty():
        return covered.answers
    alarmed = pl.DataFrame(
        [(found.device.uid, found.app.package, found.app.uid) for found in findings],
        schema={"name": pl.String, "package": pl.String, "uid": pl.Int64},
        orient="row",
    ).unique()
    rows = covered.answers.filter((pl.col("flows_app") > 0) & pl.col("device").is_not_null())
    quiet = rows.join(alarmed, on=["name", "package", "uid"], how="anti", nulls_equal=True)
    return quiet.sort("name", "package", "uid", "window", nulls_last=True)


def _host(row: Mapping[str, Any], span: Span) -> Host:
    return Host(
        device=row["device"],
        app=row["app"],
        begin_us=span.begin(row["window"]),
        end_us=span.end(row["window"]),
        name=row["name"],
        package=row["package"],
        uid=row["uid"],
        population=row["group"] or NO_GROUP,
        answers={topology.value: list(Answer)[row[topology.value]] for topology in _TOPOLOGIES},
        gaps=frozenset(name for name in RESTORED if row[f"gap_{name}"] > OK),
    )


class _Stage:
    """Where twins are made and judged: the view, the hunt's plan and what it judged, and the drill's plan."""

    def __init__(self, view: View, plan: Hunt, judged: Judged, wanted: DrillPlan, covered: Coverage) -> None:
        self._view, self._plan, self._judged, self._wanted, self._covered = view, plan, judged, wanted, covered
        self._registry = view.intake.registry
        self._mark = mark_of(self._registry, wanted.seed)
        self._registry.sources[self._mark] = len(self._registry.sources)
        view.formats[self._mark] = "drill"
        self._inventory = inventory_of(view)
        self._texts: dict[int, str] = {}
        self._scenes: dict[tuple[int, int], Scene | None] = {}
        self._made = 0

    def played(self, hosts: pl.DataFrame) -> list[Outcome]:
        """The outcomes of all relays, decoys and evasions, and of missed relays with gaps given back."""
        outcomes: list[Outcome] = []
        for place, topology in enumerate(_TOPOLOGIES):
            if topology in self._wanted.topologies:
                chosen = _chosen(hosts.height, self._wanted.episodes, self._seed(place))
                for first in range(0, len(chosen), AT_ONCE):
                    part = list(enumerate(chosen[first : first + AT_ONCE], first))
                    outcomes += self._outcomes(list(self._cast(hosts, part, place)))
        return outcomes

    def _seed(self, *numbers: int) -> np.random.SeedSequence:
        """A seed of its own for each purpose."""
        return np.random.SeedSequence(self._wanted.seed, spawn_key=numbers)

    def _outcomes(self, twins: Sequence[Twin]) -> list[Outcome]:
        """What becomes of some twins; nothing of them is kept."""
        verdicts = self._verdicts(twins)
        outcomes = [_outcome(twin, verdict) for twin, verdict in zip(twins, verdicts, strict=True)]
        called = [k for k, one in enumerate(outcomes) if one.plain and one.verdict is Verdict.RELAY]
        for k, (seconds, sessions) in zip(called, self._times([twins[k] for k in called]), strict=True):
            outcomes[k] = outcomes[k]._replace(seconds=seconds, sessions=sessions)
        missed = [k for k, one in enumerate(outcomes) if one.plain and one.verdict is not Verdict.RELAY]
        given = [self._restored(twins[k], gaps) for k in missed for gaps in _given_back(twins[k].host.gaps)]
        outcomes += [_outcome(twin, one) for twin, one in zip(given, self._verdicts(given), strict=True)]
        self._texts, self._scenes = {}, {}
        return outcomes

    def _cast(self, hosts: pl.DataFrame, chosen: Sequence[tuple[int, int]], place: int) -> Iterator[Twin]:
        """Twins of one topology: relays that do not hide, decoys, and one for each evasion.

        chosen: number of the episode and row of its host; place: of the topology.
        """
        asked = Wanted(_TOPOLOGIES[place], self._wanted.sessions, self._wanted.seconds, self._wanted.size)
        kinds = [("", False, asked), ("", True, asked)]
        kinds += [(way.value, False, asked._replace(evasions=(way,))) for way in self._wanted.evasions]
        for number, row in chosen:
            host = _host(hosts.row(row, named=True), self._covered.needed_span)
            for evasion, decoy, own in kinds:
                twin = self._twin(host, own, (place, number), decoy=decoy)
                if twin is not None:
                    yield replace(twin, evasion=evasion)

    def _twin(self, host: Host, wanted: Wanted, numbers: tuple[int, int], *, decoy: bool) -> Twin | None:
        """The host's copy with an episode in it; None where nothing of its device's connections is seen."""
        scene = self._scene(host)
        if scene is None:
            return None
        rng = np.random.default_rng(self._seed(*numbers, PLAYED))
        begin, seconds = _placed(scene, wanted.seconds, rng)
        asked = wanted._replace(seconds=seconds)
        episode = without_relaying(asked, rng) if decoy else play(asked, rng)
        nothing = (np.empty(0, FLOW), np.empty(0, VOLUME), np.empty(0, SIGNAL))
        seed = self._seed(*numbers, SEEN)
        twin = Twin(host, wanted.topology, episode, begin, self._marks(host), *nothing, seed, decoy=decoy)
        return self._laid(twin, scene)

    def _laid(self, twin: Twin, scene: Scene) -> Twin:
        """The twin with its host's records and its episode as its sources show it: the same for the same seed."""
        texts = [*twin.episode.remote, *twin.episode.name]
        self._texts.update(zip(text_keys(pl.Series(texts, dtype=pl.String)).tolist(), texts, strict=True))
        rng = np.random.default_rng(twin.seed)
        return laid(twin, scene, seen(twin.episode, twin.begin_us, scene.eyes, twin.marks, rng, twin.restored))

    def _restored(self, twin: Twin, gaps: frozenset[str]) -> Twin:
        """The same twin, its episode shown in the same way but for these gaps, which are given back."""
        scene = self._scene(twin.host)
        if scene is None:
            raise ValueError("a twin has a scene")
        return self._laid(replace(twin, marks=self._marks(twin.host, gaps), restored=gaps), scene)

    def _marks(self, host: Host, restored: frozenset[str] = frozenset()) -> Marks:
        self._made += 1
        return marks_of(host, self._registry, self._mark, self._made, restored)

    def _scene(self, host: Host) -> Scene | None:
        key = host.device, host.begin_us
        if key not in self._scenes:
            self._scenes[key] = scene_of(self._view, host, self._covered.inbound_formats)
        return self._scenes[key]

    def _verdicts(self, twins: Sequence[Twin]) -> list[Verdict | None]:
        """Each twin's verdict; texts are looked up once for all of them."""
        cases = [self._case(twin) for twin in twins]
        directory = self._directory([case for case in cases if case is not None], twins)
        return [None if case is None else self._verdict(case, directory) for case in cases]

    def _case(self, twin: Twin) -> Case | None:
        """What the hunt looks at closely of the twin; of its app, or else of what no app is known for."""
        if not len(twin.flows):
            return None
        part = judge_part(
            twin.flows, twin.volumes, twin.signals, self._registry, self._plan.settings, self._plan.tables
        )
        found = {case.app: case for case in sorted(part.cases(), key=lambda case: case.log_evidence)}
        return found.get(twin.marks.app) or found.get(twin.marks.nobody)

    def _directory(self, cases: Sequence[Case], twins: Sequence[Twin]) -> Directory:
        """Names for the twins' records; what an inventory says of a host it says of its twin."""
        inventory = {}
        for twin in twins:
            name = self._registry.device_name(twin.marks.device)
            for package in ("", twin.host.package or ""):
                if (twin.host.name, package) in self._inventory:
                    inventory[name, package] = self._inventory[twin.host.name, package]
        own = directory_of(cases, self._view, inventory, {}, Enrichment())
        return replace(own, texts={**own.texts, **self._texts})

    def _verdict(self, case: Case, directory: Directory) -> Verdict | None:
        own = [] if case.episode is None else [case.episode.log_evidence]
        evidence = np.concatenate([self._judged.evidence(case.day), np.array(own, np.float64)])
        bar = relay_bar(evidence, self._judged.apps[case.day] + 1, self._plan.settings)
        draft = draft_of(case, replace(directory, bars={case.day: bar}), self._plan.settings)
        return None if draft is None else draft.judged(draft.items()).verdict

    def _times(self, twins: Sequence[Twin]) -> list[tuple[float, int]]:
        """Seconds and sessions after which each twin is called a relay: by halving, as verdicts come to stay.

        The last moment is the end of the episode, at which each of them is.
        """
        moments = [[*(n for n in MOMENTS if n < len(twin.episode.begins)), len(twin.episode.begins)] for twin in twins]
        spans = [(0, len(own)) for own in moments]
        while any(low < high for low, high in spans):
            asked = [(k, (low + high) // 2) for k, (low, high) in enumerate(spans) if low < high]
            parts = [as_of(twins[k], moments[k][middle])[0] for k, middle in asked]
            for (k, middle), verdict in zip(asked, self._verdicts(parts), strict=True):
                low, high = spans[k]
                spans[k] = (low, middle) if verdict is Verdict.RELAY else (middle + 1, high)
        return [_reached(twin, own, low) for twin, own, (low, _) in zip(twins, moments, spans, strict=True)]


def _reached(twin: Twin, moments: Sequence[int], place: int) -> tuple[float, int]:
    """Seconds and sessions of a moment; behind the last one, of the episode's end."""
    if place == len(moments):
        return ended_after(twin), len(twin.episode.begins)
    return as_of(twin, moments[place])[1], moments[place]


def _given_back(gaps: frozenset[str]) -> list[frozenset[str]]:
    """Each gap by itself, and all of them together where there are several."""
    single = [frozenset({gap}) for gap in sorted(gaps)]
    return [*single, gaps] if len(single) > 1 else single


def _outcome(twin: Twin, verdict: Verdict | None) -> Outcome:
    return Outcome(
        topology=twin.topology,
        population=twin.host.population,
        provable=twin.host.answers[twin.topology.value].value,
        verdict=verdict,
        evasion=twin.evasion,
        decoy=twin.decoy,
        gaps=twin.host.gaps,
        restored=twin.restored,
    )


def _placed(scene: Scene, seconds: float, rng: np.random.Generator) -> tuple[int, float]:
    """When an episode begins, whole seconds in us, and its length in s: within the time in which its host is seen."""
    room = max((scene.last_us - scene.first_us) / SECOND, SHORTEST_S)
    length = min(seconds, room)
    return int(scene.first_us // SECOND + rng.uniform(0.0, room - length)) * SECOND, length


def _chosen(hosts: int, wanted: int, seed: np.random.SeedSequence) -> list[int]:
    """So many hosts, each as likely, none again before all were, in order: one device after another."""
    rng, rounds = np.random.default_rng(seed), -(-wanted // hosts)
    drawn = [rng.permutation(hosts) for _ in range(rounds)]
    return [int(k) for k in np.sort(np.concatenate([np.empty(0, np.int64), *drawn])[:wanted])]


def _report(
    outcomes: Sequence[Outcome], covered: Coverage, findings: Sequence[Finding], wanted: DrillPlan
) -> DrillReport:
    own = population_alarms(ALL_DEVICES, [finding.verdict for finding in findings], covered.app_days)
    return DrillReport(
        seed=wanted.seed,
        episodes=sum(one.plain for one in outcomes),
        plan=wanted.described(),
        rows=drill_rows(outcomes),
        evaded=evasion_rows(outcomes),
        decoys=decoy_share(outcomes),
        site_alarms=own.alarms,
        site_relays=own.relays,
        app_days=own.app_days,
        alarms=_alarms(covered, findings),
        costs=gap_costs(outcomes),
        producer=f"relaywatch {__version__}",
    )


def _alarms(covered: Coverage, findings: Sequence[Finding]) -> list[PopulationAlarms]:
    """Alarms of the site's own telemetry by population; none where there is only one."""
    days = covered.app_days_by_population()
    if len(days) < 2:
        return []
    of = {finding.finding_id: finding.device.group or NO_GROUP for finding in findings}
    return [
        population_alarms(name, [one.verdict for one in findings if of[one.finding_id] == name], own)
        for name, own in sorted(days.items())
    ]
