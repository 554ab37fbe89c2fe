"""How unrelated the destinations of an episode are. Explains, and tempers; never convicts.

Ordinary apps touch a median of 14 endpoints in five minutes (MAppGraph), so many destinations prove nothing. But a
relay serves whoever pays: many bridges to one and the same party look like an app's own copying between two services.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final

import numpy as np
from publicsuffixlist import PublicSuffixList

from relaywatch.detection.calibration import PRIOR_LOG_ODDS, STRONGEST_EVIDENCE
from relaywatch.detection.columns import Flags, Floats, Ints
from relaywatch.detection.context import Fact
from relaywatch.detection.items import Item

_PRIVATE: Final = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8")
) + tuple(ipaddress.ip_network(text) for text in ("fc00::/7", "fe80::/10", "::1/128"))
_MASKED: Final = {
    version: tuple((int(net.netmask), int(net.network_address)) for net in _PRIVATE if net.version == version)
    for version in (4, 6)
}
"""Mask and address of each private network, as numbers, by IP version."""
REMEMBERED: Final = 65_536
MOST_FOR_MANY: Final = 1.5
AGAINST_ONE: Final = 0.7
"""Share of the evidence that is taken back where it rests on one destination: of apps that pass on what they receive to
one party, most copy between two services."""
LEAST_BEYOND_ONE: Final = -PRIOR_LOG_ODDS
SHARE_BEYOND_ONE: Final = 0.1
"""Natural log evidence that must not rest on one destination: enough for even odds, and this share of all there is,
because an app that copies between two services has traffic of its own beside, of which some matches."""
FEWEST_INSTALLS: Final = 3
"""Devices with the app below which other installs say nothing: one other install is one person's habits."""
MOST_FOR_NOVEL: Final = 0.5
COPIED_SHARE: Final = 0.8
"""Share of the sessions that an app's own copying puts on one party, with its other traffic beside."""


@dataclass(frozen=True, slots=True)
class DestinationSpread:
    """parties: the registrable domain, or prefix, of each bridged target leg; peak: most parties open at one time.

    A leg whose name and address no source shows has the party "": nothing tells such destinations apart.

    main: the fewest parties that hold COPIED_SHARE of the sessions.
    """

    parties: tuple[str, ...]
    prefixes: int
    peak: int
    main: int

    @property
    def distinct(self) -> int:
        """Distinct parties."""
        return len(set(self.parties))


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()


@lru_cache(REMEMBERED)
def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address, an IPv4 one that is mapped into IPv6 as IPv4; None where the text is none."""
    if not (":" in address or address[-1:].isdigit()):
        return None  # most host names, at a tenth of the time that a failed reading takes
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


@lru_cache(REMEMBERED)
def party(hostname: str | None, address: str) -> str:
    """The registrable domain by the public suffix list, or the address prefix where no name is known."""
    if hostname and _parsed(hostname) is None:
        domain = _suffixes().privatesuffix(hostname.rstrip(".").lower())
        if domain:
            return str(domain)
    return prefix(address)


@lru_cache(REMEMBERED)
def prefix(address: str) -> str:
    """The /24 or /48 prefix of an address; the text itself where it is none."""
    parsed = _parsed(address)
    if parsed is None:
        return address
    if parsed.version == 4:
        return f"{str(parsed).rpartition('.')[0]}.0/24"
    return str(ipaddress.ip_network((parsed, 48), strict=False))


@lru_cache(REMEMBERED)
def is_private(address: str) -> bool:
    """Whether the address lies in a private, shared, link-local or loopback range."""
    parsed = _parsed(address)
    if parsed is None:
        return False
    number = int(parsed)
    return any(number & mask == network for mask, network in _MASKED[parsed.version])


def reached_from_outside(targets: Sequence[str], clients: Sequence[str]) -> Flags:
    """Whether each bridge took its client into a private network that the client does not come from itself.

    targets, clients: addresses, one of each a bridge. A client in the same /24, or /48, has no need of a relay there.
    """
    pairs = zip(targets, clients, strict=True)
    return np.array([is_private(t) and prefix(t) != prefix(c) for t, c in pairs], np.bool_)


def spread_of(
    hostnames: Sequence[str | None], addresses: Sequence[str], start: Floats, end: Floats, sessions: Ints
) -> DestinationSpread:
    """Spread of the bridged target legs, one entry each; times in s; sessions: those that each leg stands for."""
    parties = tuple(party(name, address) for name, address in zip(hostnames, addresses, strict=True))
    prefixes = len({prefix(address) for address in addresses})
    return DestinationSpread(parties, prefixes, _peak(parties, start, end), _main(parties, sessions))


def _main(parties: Sequence[str], sessions: Ints) -> int:
    """The fewest parties that hold COPIED_SHARE of the sessions."""
    held: Counter[str] = Counter()
    for who, count in zip(parties, sessions.tolist(), strict=True):
        held[who] += count
    running = np.cumsum([count for _, count in held.most_common()])
    return int(np.searchsorted(running, COPIED_SHARE * running[-1])) + 1 if len(running) else 0


def _peak(parties: Sequence[str], start: Floats, end: Floats) -> int:
    """Most distinct parties with an open target leg at one time."""
    codes: dict[str, int] = {}
    who = np.array([codes.setdefault(name, len(codes)) for name in parties] * 2, np.int64)
    time = np.concatenate([start, np.maximum(end, start)])
    step = np.repeat([1, -1], len(parties))
    order = np.lexsort((-step, time, who))
    # Every party ends with no leg open, so the running sum over all of them is each one's own.
    open_legs = np.cumsum(step[order])
    # Only a party's first leg that opens, and its last one that closes, change how many parties are open.
    turns = order[open_legs == (step[order] > 0)]
    turns = turns[np.lexsort((-step[turns], time[turns]))]
    return int(np.cumsum(step[turns]).max(initial=0))


def spread_item(
    spread: DestinationSpread,
    threshold: int,
    beyond_one: tuple[float, float] | None,
    *,
    from_outside: bool = False,
) -> Item:
    """Evidence from the spread of the bridged sessions.

    threshold: ConcurrentDestinationThreshold; beyond_one: natural log evidence that is left without the destination
    that gives most of it, and with all of them; None where there is no such evidence to leave out of; from_outside:
    clients on public addresses opened the sessions. An app that copies between two services opens both sides itself,
    so one destination then speaks for nothing: a forwarder has one.
    """
    distinct = spread.distinct
    rests_on_one, left = False, ""
    if beyond_one is not None:
        rests_on_one = beyond_one[0] < max(LEAST_BEYOND_ONE, SHARE_BEYOND_ONE * beyond_one[1])
        left = f"; without the strongest of them log evidence {beyond_one[0]:.1f} of {beyond_one[1]:.1f} is left"
    if (spread.main == 1 or rests_on_one) and not from_outside:
        whole = STRONGEST_EVIDENCE if beyond_one is None else min(max(beyond_one[1], 0.1), STRONGEST_EVIDENCE)
        ratio = -AGAINST_ONE * whole
    else:
        many = min(MOST_FOR_MANY / 2, 0.1 * max(0, distinct - 2))
        ratio = many + (MOST_FOR_MANY / 2 if spread.peak > threshold else 0.0)
    unseen = spread.parties.count("")
    if unseen:
        left += f"; {unseen} bridges go to addresses that no source shows, which count as one destination"
    return Item(
        kind="spread",
        name="unrelated destinations",
        statement=f"Bridged sessions reach {distinct} unrelated destination{'s' if distinct != 1 else ''}, "
        f"at most {spread.peak} at one time; {spread.main} of them hold{'s' if spread.main == 1 else ''} "
        f"{COPIED_SHARE:.0%} of the sessions{left}",
        value=float(distinct),
        unit="destinations",
        log_ratio=ratio,
        null="ordinary apps touch a median of 14 endpoints in five minutes; copying between two services touches one",
        settings=("ConcurrentDestinationThreshold",),
    )


def organisations_fact(organisations: int | None) -> Fact:
    """How many organisations announce the destinations' addresses; None where no database knows any.

    It moves no odds: one hosting company holds many unrelated parties, and one party has many names.
    """
    name, unit = "organisations", "organisations"
    if organisations is None:
        return Fact(name, None, unit, "organisations: not observable without a database of autonomous systems")
    holders = "1 organisation" if organisations == 1 else f"{organisations} organisations"
    return Fact(name, float(organisations), unit, f"The destinations' addresses belong to {holders}")


def lateral_fact(destinations: int) -> Fact:
    """How many private destinations a client from outside their network reached. Grave; says nothing of the odds."""
    count = f"{destinations} private destination{'s' if destinations != 1 else ''}"
    statement = f"Bridges lead from outside to {count}: lateral movement into the user's own network"
    return Fact("reach into private networks", float(destinations), "destinations", statement)


@dataclass(frozen=True, slots=True)
class OtherInstalls:
    """Of `compared` bridged public destinations, how many no other of the `devices` that have the app contacts."""

    devices: int
    compared: int
    only_here: int

    @property
    def share(self) -> float | None:
        """Share that only this install contacts; None where too few devices have the app, or nothing is compared."""
        known = self.devices >= FEWEST_INSTALLS and self.compared > 0
        return self.only_here / self.compared if known else None


def novelty_fact(installs: OtherInstalls) -> Fact:
    """Share of the bridged destinations that no other install of the app contacts."""
    name, unit = "destinations of this install only", "share of destinations"
    if installs.share is None:
        return Fact(name, None, unit, f"{name}: not observable with the app on fewer than {FEWEST_INSTALLS} devices")
    return Fact(name, installs.share, unit, _novelty(installs))


def _novelty(installs: OtherInstalls) -> str:
    return (
        f"{installs.only_here} of {installs.compared} destinations are contacted by no other of the "
        f"{installs.devices} devices with this app"
    )


def novelty_items(installs: OtherInstalls) -> list[Item]:
    """Evidence from other installs, within MOST_FOR_NOVEL either way; none where it cannot be observed.

    The share is taken as (only here + 1) / (compared + 2), so that few destinations say little (rule of succession).
    """
    if installs.share is None:
        return []
    expected = (installs.only_here + 1) / (installs.compared + 2)
    return [
        Item(
            kind="novelty",
            name="destinations of this install only",
            statement=_novelty(installs),
            value=installs.share,
            unit="share of destinations",
            log_ratio=MOST_FOR_NOVEL * (2.0 * expected - 1.0),
            null="installs of one app mostly contact the same services; of a browser or mail app each contacts its own",
            explains=True,
        )
    ]
