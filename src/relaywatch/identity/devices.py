"""Which names mean the same device: names joined through identifiers, each link with its weight.

A serial number names one device; a MAC address may be drawn at random, and a host name may be given twice. Links are
taken strongest first and a link that would make one device of two serial numbers is refused. What is too weak to join
by is kept as a possibility with its weight, never resolved by guess.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from relaywatch.model.schemas import IdentifierKind

JOINED_FROM: Final = 0.9
"""Weight from which two names are one device."""
WEIGHTS: Final[Mapping[str, float]] = {
    IdentifierKind.SERIAL: 0.99,
    IdentifierKind.IMEI: 0.99,
    IdentifierKind.MDM_ID: 0.99,
    IdentifierKind.SENSOR_ID: 0.99,
    IdentifierKind.ANDROID_ID: 0.95,
    IdentifierKind.MAC: 0.9,
    IdentifierKind.HOSTNAME: 0.5,
}
"""How sure one shared identifier makes it that two names are one device: judgement. An Android id is drawn anew at a
factory reset; a burnt-in MAC can be cloned; host names repeat by default (a model's name). Addresses are not here: they
pass from device to device and are looked up by time (addresses)."""
RANDOM_MAC: Final = 0.5
"""Weight of a locally administered MAC (IEEE 802, second-lowest bit of octet one): Android draws one a network."""
MOST_NAMES: Final = 16
"""Names that share one identifier beyond which it is a default value, not an identifier."""
_PLACEHOLDERS: Final = frozenset({"", "0", "unknown", "none", "null", "n/a", "02:00:00:00:00:00", "00:00:00:00:00:00"})


class Identifier(NamedTuple):
    """One statement of a source: `device` (its own name for it) has this identifier."""

    device: str
    kind: str
    value: str


class Link(NamedTuple):
    """Two names that may mean one device; weight 0 to 1; through: the identifiers they share."""

    one: str
    other: str
    weight: float
    through: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Devices:
    """canonical: the name to use, by every other name; possible: links too weak, or refused, strongest first."""

    canonical: Mapping[str, str] = field(default_factory=dict)
    possible: Sequence[Link] = ()

    def of(self, name: str) -> str:
        """The device's name to use."""
        return self.canonical.get(name, name)


def resolve(identifiers: Iterable[Identifier], names: Iterable[str], preferred: Iterable[str] = ()) -> Devices:
    """Join names through identifiers they share. The result does not depend on the order of what is given.

    names: every name that records use; one that is itself an identifier ("mac:…", a serial) is joined by it.
    preferred: names to call a device by where it has several; else one that is no address or MAC, the first in order.
    """
    held = _holders(identifiers, names)
    links = sorted(_links(held), key=lambda link: (-link.weight, link.one, link.other))
    parts = _Parts(held)
    possible = [link for link in links if link.weight < JOINED_FROM or not parts.join(link.one, link.other)]
    liked = set(preferred)
    canonical = {}
    for group in parts.groups():
        best = min(group, key=lambda name: (name not in liked, _anonymous(name), name))
        canonical.update({name: best for name in group if name != best})
    apart = [link for link in possible if canonical.get(link.one, link.one) != canonical.get(link.other, link.other)]
    return Devices(canonical, tuple(apart))


def weight_of(kind: str, value: str) -> float:
    """How sure one shared identifier makes it that two names are one device, 0 to 1."""
    if kind == IdentifierKind.MAC and _random_mac(value):
        return RANDOM_MAC
    return WEIGHTS.get(kind, 0.0)


def _random_mac(value: str) -> bool:
    try:
        return bool(int(value[:2], 16) & 0b10)
    except ValueError:
        return True


def _anonymous(name: str) -> bool:
    """Whether a name says where a device was rather than which it is."""
    return name.startswith("mac:") or name.replace(".", "").isdigit() or name.count(":") > 1


def _holders(identifiers: Iterable[Identifier], names: Iterable[str]) -> dict[tuple[str, str], set[str]]:
    """Names by (kind, value), placeholders left out; a name that is an identifier's value holds it."""
    held: dict[tuple[str, str], set[str]] = defaultdict(set)
    by_value: dict[str, set[str]] = defaultdict(set)
    for device, kind, value in identifiers:
        text = value.strip()
        if kind in WEIGHTS and text.lower() not in _PLACEHOLDERS:
            held[kind, text].add(device)
            by_value[text].add(kind)
    for name in sorted(set(names)):
        value = name.removeprefix("mac:")
        for kind in by_value.get(value, ()):
            held[kind, value].add(name)
    return held


def _links(held: Mapping[tuple[str, str], set[str]]) -> list[Link]:
    """Pairs of names that share identifiers; several shared ones add up as independent chances to be wrong."""
    doubt: dict[tuple[str, str], float] = defaultdict(lambda: 1.0)
    through: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (kind, value), devices in sorted(held.items()):
        if len(devices) > MOST_NAMES:
            continue
        ordered = sorted(devices)
        for place, one in enumerate(ordered):
            for other in ordered[place + 1 :]:
                doubt[one, other] *= 1.0 - weight_of(kind, value)
                through[one, other].append(f"{kind} {value}")
    return [Link(one, other, 1.0 - left, tuple(through[one, other])) for (one, other), left in doubt.items()]


class _Parts:
    """Disjoint sets of names; two sets with different serial numbers are never joined."""

    def __init__(self, held: Mapping[tuple[str, str], set[str]]) -> None:
        self._parent = {name: name for devices in held.values() for name in devices}
        self._serials: dict[str, set[str]] = defaultdict(set)
        for (kind, value), devices in held.items():
            if kind == IdentifierKind.SERIAL:
                for name in devices:
                    self._serials[name].add(value)

    def join(self, one: str, other: str) -> bool:
        """Whether the two are one device now."""
        a, b = self._root(one), self._root(other)
        if a == b:
            return True
        if self._serials[a] and self._serials[b] and not self._serials[a] & self._serials[b]:
            return False
        self._parent[b] = a
        self._serials[a] |= self._serials[b]
        return True

    def groups(self) -> list[list[str]]:
        """The sets, each in order."""
        found: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self._parent):
            found[self._root(name)].append(name)
        return list(found.values())

    def _root(self, name: str) -> str:
        while self._parent[name] != name:
            self._parent[name] = self._parent[self._parent[name]]
            name = self._parent[name]
        return name
