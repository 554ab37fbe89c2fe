"""What to simulate: how many phones, flows and days, which share relays, and what goes wrong with the records."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime
from typing import Final, NamedTuple

from relaywatch.model.errors import SettingError

SECOND: Final = 1_000_000
DAY_US: Final = 86_400 * SECOND
APPS_A_PHONE: Final = 30
MOST_DEVICES: Final = 2_000_000
MOST_FLOWS: Final = 100_000_000_000
MOST_DAYS: Final = 366


class Fault(NamedTuple):
    """How often something goes wrong (a share, 0 to 1), and how far at most (s)."""

    rate: float
    bound_s: float


NO_SKEW: Final = Fault(0.0, 300.0)
NONE_LATE: Final = Fault(0.0, 900.0)
NO_DUPLICATES: Final = Fault(0.0, 600.0)
NO_GAPS: Final = Fault(0.0, 14_400.0)


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong with the records of a fleet.

    skew: a device's clock is off, by at most the bound. late: all that a device records within half of the bound
    arrives together, at most the bound later. duplicates: a flow's record comes again, at most the bound later.
    gaps: a device is silent for some time of a day, at most the bound; a LOGGING_GAP says when.
    """

    skew: Fault = NO_SKEW
    late: Fault = NONE_LATE
    duplicates: Fault = NO_DUPLICATES
    gaps: Fault = NO_GAPS

    def __post_init__(self) -> None:
        for name, fault in self.by_name().items():
            if not 0.0 <= fault.rate <= 1.0:
                raise SettingError(f"fault {name}: a rate of {fault.rate:g} is no share. Give one from 0 to 1.")
            if not 1.0 <= fault.bound_s <= 43_200.0:
                raise SettingError(f"fault {name}: a bound of {fault.bound_s:g} s. Give one from 1 to 43200 s.")

    def by_name(self) -> dict[str, Fault]:
        """Each fault by its name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True, slots=True)
class Plan:
    """One fleet: the same plan always gives the same rows.

    flows: distinct flows in all, look-ups and relayed legs among them. begin: first day, from midnight UTC. relays:
    share of the (device, app) pairs that relay; above 0 at least one does. volumes, signals: shares of the devices
    whose flows have volumes, and of those whose context is seen. hot: the first device has about 100 times the flows of
    others.
    shuffled: flows in no order of time, instead of the order in which records arrive.

    Raises SettingError where a value is out of its range.
    """

    devices: int
    flows: int
    days: int = 1
    seed: int = 0
    begin: date = date(2026, 1, 1)
    relays: float = 0.002
    volumes: float = 0.0
    signals: float = 0.2
    inventory: bool = True
    hot: bool = False
    shuffled: bool = False
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("devices", self.devices, 1, MOST_DEVICES),
            ("flows", self.flows, 1, MOST_FLOWS),
            ("days", self.days, 1, MOST_DAYS),
            ("seed", self.seed, 0, 2**63 - 1),
        ):
            if not least <= value <= most:
                raise SettingError(f"{name}: {value} is out of range. Give a whole number from {least} to {most}.")
        for name in ("relays", "volumes", "signals"):
            share = getattr(self, name)
            if not 0.0 <= share <= 1.0:
                raise SettingError(f"{name}: {share:g} is no share. Give a number from 0 to 1.")
        if not 1971 <= self.begin.year <= 2200:  # what INSTANT and every reader can hold
            raise SettingError(f"start: {self.begin.isoformat()} is out of range. Give a day from 1971 to 2200.")

    @property
    def begin_us(self) -> int:
        """Midnight UTC of the first day, us since epoch."""
        return int(datetime(self.begin.year, self.begin.month, self.begin.day, tzinfo=UTC).timestamp()) * SECOND

    @property
    def length_us(self) -> int:
        """How long flows begin."""
        return self.days * DAY_US

    @property
    def relaying_pairs(self) -> int:
        """How many (device, app) pairs relay."""
        pairs = self.devices * APPS_A_PHONE
        return max(1, math.floor(pairs * self.relays)) if self.relays > 0.0 else 0

    def described(self) -> dict[str, object]:
        """The plan by its options' names."""
        faults = {name: {"rate": one.rate, "bound_s": one.bound_s} for name, one in self.faults.by_name().items()}
        plain = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("begin", "faults")}
        return {**plain, "start": self.begin.isoformat(), "faults": faults}
