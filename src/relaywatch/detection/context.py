"""Context and setup as odds: who was at the phone, what was prepared. Weighs, never gates.

The odds are judgements, not measurements: real proxyware relays while its user reads or calls (Include Security on
Bright SDK, 2026), so a foreground screen lowers the odds little, and its absence raises them little.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from relaywatch.detection.columns import Floats
from relaywatch.detection.items import Item
from relaywatch.detection.settings import Settings
from relaywatch.model.schemas import SignalKind


@dataclass(frozen=True, slots=True)
class Intervals:
    """Times of one kind of signal, s: begin and end; an instant ends when it begins."""

    begin: Floats
    end: Floats

    def holds(self, times: Floats, *, after_s: float = 0.0) -> Floats:
        """1 where a time lies in an interval that is prolonged by after_s, else 0."""
        order = np.argsort(self.begin)
        # Of the intervals that have begun, the one that ends last decides.
        lasts = np.append(-np.inf, np.maximum.accumulate(self.end[order]))
        begun = np.searchsorted(self.begin[order], times, "right")
        return np.asarray(times <= lasts[begun] + after_s, np.float64)


LOOKUP_WINDOW_S: Final = 60.0
"""Agents ask for their public address when they register and when they connect again; a minute covers slow links."""
FOR_LOOKUP: Final = 0.5
FOR_INDICATOR: Final = 0.5
FOR_FURTHER_INDICATOR: Final = 0.25
MOST_FOR_INDICATORS: Final = 1.0
"""Natural log odds. Names explain and do not convict: together they make a relay at most 4.5 times likelier."""

NEVER = Intervals(np.empty(0), np.empty(0))


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known around an episode. observable: kinds that the telemetry would have shown had they happened."""

    observable: frozenset[SignalKind]
    app: dict[SignalKind, Intervals] = field(default_factory=dict)
    device: dict[SignalKind, Intervals] = field(default_factory=dict)
    listening: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact of context; value None where it cannot be observed."""

    name: str
    value: float | None
    unit: str
    statement: str


def context_facts(around: Surroundings, times: Floats, settings: Settings) -> list[Fact]:
    """Shares of the bridged sessions (which began at `times`, s) in each state of app and user."""
    window = settings.recent_user_interaction_window_s
    states = (
        ("foreground UI", SignalKind.FOREGROUND_UI, around.app, 0.0, "began while the app was on screen"),
        (
            "foreground service",
            SignalKind.FOREGROUND_SERVICE,
            around.app,
            0.0,
            "began while its foreground service ran",
        ),
        ("screen on", SignalKind.SCREEN_ON, around.device, 0.0, "began with the screen on"),
        ("keyguard locked", SignalKind.KEYGUARD_LOCKED, around.device, 0.0, "began with the phone locked"),
        (
            "recent interaction",
            SignalKind.USER_INTERACTION,
            around.app,
            window,
            f"began within {window:g} s of an interaction with the app",
        ),
    )
    facts = []
    for name, kind, place, after, words in states:
        if kind in around.observable:
            share = float(place.get(kind, NEVER).holds(times, after_s=after).mean())
            facts.append(Fact(name, share, "share of sessions", f"{share:.0%} of the bridged sessions {words}"))
        else:
            facts.append(Fact(name, None, "share of sessions", f"{name}: not observable in this telemetry"))
    return facts


def context_items(facts: list[Fact], settings: Settings) -> list[Item]:
    """Odds from the app's and the user's state; none where ForegroundStateRequired is off or nothing was observable."""
    if not settings.foreground_state_required:
        return []
    values = {fact.name: fact.value for fact in facts}
    items = []
    screen, touched = values["foreground UI"], values["recent interaction"]
    if screen is not None:
        items.append(
            Item(
                "context",
                "background",
                f"{1 - screen:.0%} of the bridged sessions began in the background",
                1 - screen,
                "share of sessions",
                0.7 - 1.2 * screen,
                "apps' own traffic, of which most is in the foreground",
                ("ForegroundStateRequired",),
                signals=(SignalKind.FOREGROUND_UI,),
            )
        )
    if touched is not None:
        items.append(
            Item(
                "context",
                "no recent interaction",
                f"{1 - touched:.0%} of the bridged sessions began without a recent interaction",
                1 - touched,
                "share of sessions",
                0.7 - 1.2 * touched,
                "traffic that a user's taps set off",
                ("RecentUserInteractionWindow", "ForegroundStateRequired"),
                signals=(SignalKind.USER_INTERACTION,),
            )
        )
    return items


def setup_items(around: Surroundings, listener_port: int | None) -> list[Item]:
    """Odds from what the app set up: a listener on the relay's port, a VPN, a raw socket or a proxy setting."""
    items = []
    if listener_port is not None and listener_port in around.listening:
        items.append(
            Item(
                "setup",
                "listener",
                f"The app listens on port {listener_port}, where the sessions arrive",
                float(listener_port),
                "port",
                0.5,
                "apps that accept connections for themselves",
                signals=(SignalKind.LISTENER,),
            )
        )
    prepared = [
        kind for kind in (SignalKind.VPN, SignalKind.RAW_SOCKET, SignalKind.PROXY_SETTING) if kind in around.app
    ]
    if prepared:
        seen = ", ".join(kind.name.lower().replace("_", " ") for kind in prepared)
        null = "apps that set up a VPN or proxy for their own user"
        seen = f"Seen on the app: {seen}"
        items.append(Item("setup", "vpn or proxy setting", seen, None, "", 0.5, null, signals=tuple(prepared)))
    return items


def lookups_near(lookups: Floats, moments: Floats) -> int:
    """How many of the look-ups lie within LOOKUP_WINDOW_S of one of the moments; all in s."""
    ordered = np.sort(moments)
    first = np.searchsorted(ordered, lookups - LOOKUP_WINDOW_S, "left")
    return int((first < np.searchsorted(ordered, lookups + LOOKUP_WINDOW_S, "right")).sum())


def lookup_fact(near: int | None) -> Fact:
    """Public-IP look-ups near the first bridge or a link's connect; None where the app's contacts carry no names."""
    name, unit = "public-IP look-up", "look-ups"
    if near is None:
        return Fact(name, None, unit, f"{name}: not observable in this telemetry")
    count = f"{near or 'No'} public-IP look-up{'s' if near != 1 else ''}"
    place = f"within {LOOKUP_WINDOW_S:g} s of the first bridge or a link's connect"
    return Fact(name, float(near), unit, f"{count} {place}")


def lookup_items(fact: Fact) -> list[Item]:
    """Odds from public-IP look-ups; none where there was none or none could be seen."""
    if not fact.value:
        return []
    null = "ordinary apps ask for their public address too, to tell the country"
    return [Item("setup", fact.name, fact.statement, fact.value, fact.unit, FOR_LOOKUP, null, explains=True)]


def indicator_fact(matches: int | None) -> Fact:
    """How many indicators of proxyware the app bears; None where neither a match nor names were seen."""
    name, unit = "proxyware indicator", "indicators"
    if matches is None:
        return Fact(name, None, unit, f"{name}: not observable in this telemetry")
    count = f"{matches or 'No'} proxyware indicator{'s' if matches != 1 else ''}"
    return Fact(name, float(matches), unit, f"{count} among the app's names and own contacts")


def indicator_items(fact: Fact) -> list[Item]:
    """Odds from indicators, MOST_FOR_INDICATORS at most; none where there is none."""
    if not fact.value:
        return []
    ratio = min(MOST_FOR_INDICATORS, FOR_INDICATOR + FOR_FURTHER_INDICATOR * (fact.value - 1.0))
    null = "consented SDKs share names with ordinary apps"
    return [Item("indicator", fact.name, fact.statement, fact.value, fact.unit, ratio, null, explains=True)]
