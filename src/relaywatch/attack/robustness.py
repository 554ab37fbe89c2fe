"""How hard AN1702's evidence is to evade, and how good its telemetry is, after Summiting the Pyramid.

Source: center-for-threat-informed-defense/summiting-the-pyramid, v4: docs/detection-ttv/combiningobservables.rst (the
algebra), docs/levels (levels and columns), docs/data-readiness/telemetry-quality.rst (the telemetry's metrics). The
project has no mobile technique: which level and score an observable gets here is our judgement, with its reason.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from relaywatch.attack.requirements import REQUIREMENTS


class Column(StrEnum):
    """Where an observable is seen. Within the host A, U, K and on the network P, H, from weak to strong."""

    APPLICATION = "A"
    USER_MODE = "U"
    KERNEL_MODE = "K"
    PAYLOAD = "P"
    HEADER = "H"


_RANK: Final = {
    Column.APPLICATION: 0,
    Column.PAYLOAD: 0,
    Column.USER_MODE: 1,
    Column.HEADER: 2,
    Column.KERNEL_MODE: 2,
}


@dataclass(frozen=True, slots=True)
class Robustness:
    """A level with its column, and which observable decides it.

    level: 1 ephemeral, 2 core to tools that an adversary brings, 3 core to tools that are there, 4 core to some
    implementations of the technique, 5 core to the technique.
    """

    level: int
    column: Column
    decided_by: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.level <= 5:
            raise ValueError("levels are from 1 to 5")

    def __str__(self) -> str:
        return f"{self.level}{self.column}"

    @property
    def strength(self) -> tuple[int, int]:
        """Order of robustness: level first, then column."""
        return self.level, _RANK[self.column]


def all_of(first: Robustness, *others: Robustness) -> Robustness:
    """R(A AND B) = MIN: who evades one evades all. Of equals the first."""
    return min((first, *others), key=lambda robustness: robustness.strength)


def any_of(first: Robustness, *others: Robustness) -> Robustness:
    """R(A OR B) = MAX: who evades must evade each. Of equals the first."""
    return max((first, *others), key=lambda robustness: robustness.strength)


def none_of(robustness: Robustness) -> Robustness:
    """R(NOT A) = R(A): a filter is as hard to slip into as what it looks at is to fake."""
    return robustness


OBSERVABLES: Final = {
    "conserved bridges": Robustness(4, Column.HEADER, "conserved bridges"),
    "link mirrors targets": Robustness(4, Column.HEADER, "link mirrors targets"),
    "unrelated destinations": Robustness(4, Column.HEADER, "unrelated destinations"),
    "listener": Robustness(4, Column.KERNEL_MODE, "listener"),
    "vpn or proxy setting": Robustness(3, Column.USER_MODE, "vpn or proxy setting"),
    "background": Robustness(3, Column.USER_MODE, "background"),
    "no recent interaction": Robustness(3, Column.USER_MODE, "no recent interaction"),
    "no approved role": Robustness(1, Column.APPLICATION, "no approved role"),
    "destinations of this install only": Robustness(1, Column.HEADER, "destinations of this install only"),
    "public-IP look-up": Robustness(1, Column.PAYLOAD, "public-IP look-up"),
    "proxyware indicator": Robustness(1, Column.APPLICATION, "proxyware indicator"),
}
"""Robustness of each item of evidence. A relay must send on what it receives, which flow headers show: 4 and not 5,
because padding, delay and batching weaken it. A listener is core to accepted relays only, and stands in the kernel's
socket table. VPN, proxy and app state are the system's, and a relay can do without them. Names, domains and packages
are changed in a minute."""

KEYS: Final = {
    "package": Robustness(1, Column.APPLICATION, "package"),
    "destinations": Robustness(1, Column.HEADER, "destinations"),
    "devices": Robustness(1, Column.APPLICATION, "devices"),
    "device_group": Robustness(1, Column.APPLICATION, "device_group"),
    "installer": Robustness(3, Column.USER_MODE, "installer"),
    "managed_role": Robustness(3, Column.USER_MODE, "managed_role"),
    "signing_digest": Robustness(4, Column.USER_MODE, "signing_digest"),
}
"""Robustness of what an allow-list entry can be keyed by. A package or domain is anyone's to take. A limit to devices
says where an entry holds and not who may use it: on those devices the package is enough. The installer and the managed
role are set by the system; a signature needs the signer's key, or the permitted app itself to relay."""

DECIDING: Final = ("conserved bridges", "link mirrors targets")
"""Evidence of which a relay verdict asks for one; all else only weighs, so it neither adds nor takes robustness."""


def filter_robustness(entries: Iterable[Collection[str]]) -> Robustness | None:
    """Robustness of NOT (entry OR entry ...); None where there is no entry.

    entries: for each exception or allow-list entry the keys that are really checked, names as in KEYS. An entry asks
    for all of its keys, so NOT (A AND B) = NOT A OR NOT B takes the strongest key; any entry excuses a relay, so the
    weakest entry decides. Raises KeyError for a key that is not known, ValueError for an entry without keys.
    """
    excused = []
    for keys in entries:
        if not keys:
            raise ValueError("an entry without keys excuses everything")
        excused.append(any_of(*(none_of(KEYS[key]) for key in sorted(keys))))
    return all_of(*excused) if excused else None


def analytic_robustness(evidence: Collection[str], entries: Iterable[Collection[str]]) -> Robustness | None:
    """Robustness of the relay verdict: (bridges OR mirrored link) AND NOT allow-listed; None where neither can be had.

    evidence: `Evidence.name` values that the telemetry at hand can give. entries: as in `filter_robustness`. An
    allow-list keyed by package name alone makes the whole of it as weak as a name.
    """
    core = [OBSERVABLES[name] for name in DECIDING if name in evidence]
    if not core:
        return None
    excused = filter_robustness(entries)
    return any_of(*core) if excused is None else all_of(any_of(*core), excused)


@dataclass(frozen=True, slots=True)
class TelemetryQuality:
    """Quality of one telemetry source for T1604: fidelity from 1 to 4, the others from 1 to 5, more is better.

    noise is inverted: 5 is little noise. Cost, which the source leaves to each site, is left out.
    """

    fidelity: int
    noise: int
    timeliness: int
    context: int
    coverage: int
    robustness: int

    def __post_init__(self) -> None:
        others = (self.noise, self.timeliness, self.context, self.coverage, self.robustness)
        if not 1 <= self.fidelity <= 4 or not all(1 <= value <= 5 for value in others):
            raise ValueError("fidelity is from 1 to 4, the other metrics from 1 to 5")

    @property
    def total(self) -> int:
        """Sum of the metrics, from 6 to 29: ranks sources against each other and means nothing by itself."""
        return self.fidelity + self.noise + self.timeliness + self.context + self.coverage + self.robustness


@dataclass(frozen=True, slots=True)
class Judged:
    """What of a data component's quality does not depend on the site: fidelity, noise, context, and why."""

    fidelity: int
    noise: int
    context: int
    why: str


JUDGED: Final = {
    "DC0085": Judged(3, 2, 5, "both directions' bytes and times of each flow pair its legs; most flows are benign"),
    "DC0078": Judged(2, 1, 3, "ends, spans and counts; an activity chain at most without bytes; the most rows of all"),
    "DC0021": Judged(3, 4, 2, "listener, VPN and proxy by app; setting up is no relaying; few rows a day"),
    "DC0114": Judged(3, 5, 2, "package, signature and installer of each app; changes seldom, says nothing of traffic"),
    "DC0123": Judged(2, 3, 2, "whether a person was using the app; explains traffic, shows none"),
}
"""Our scores of each data component's telemetry, by the rubrics of telemetry-quality.rst."""

_DELAYS_S: Final = (60.0, 900.0, 3_600.0, 86_400.0)
_COVERAGE_BANDS: Final = (0.2, 0.4, 0.6, 0.8)


def timeliness(delay_s: float) -> int:
    """Within a minute 5, 15 minutes 4, an hour 3, a day 2, later 1. delay_s: seconds until an event can be read."""
    return 5 - sum(delay_s > bound for bound in _DELAYS_S)


def coverage(share: float) -> int:
    """Below 20 % 1, 40 % 2, 60 % 3, 80 % 4, from there 5. share: of the technique's implementations that it shows."""
    return 1 + sum(share >= bound for bound in _COVERAGE_BANDS)


@functools.cache
def component_robustness(data_component: str) -> Robustness:
    """The most robust evidence that the component's telemetry gives. Raises KeyError for one that gives none."""
    names = [name for need in REQUIREMENTS if need.data_component == data_component for name in need.evidence]
    if not names:
        raise KeyError(f"{data_component} gives no evidence")
    return any_of(*(OBSERVABLES[name] for name in names))


def telemetry_quality(data_component: str, delay_s: float, implementations_share: float) -> TelemetryQuality:
    """Quality of a component's telemetry at a site.

    implementations_share: of accepted, back-connect and tunnelled relays, the share that it can show there, in [0, 1].
    Raises KeyError for a component that is not judged.
    """
    judged = JUDGED[data_component]
    return TelemetryQuality(
        fidelity=judged.fidelity,
        noise=judged.noise,
        timeliness=timeliness(delay_s),
        context=judged.context,
        coverage=coverage(implementations_share),
        robustness=component_robustness(data_component).level,
    )
