"""Context and setup as odds: who was at the phone, what was prepared. Weighs, never gates.

The odds are judgements, not measurements: real proxyware relays while its user reads or calls (Include Security on
Bright SDK, 2026), so a foreground screen lowers the odds little, and its absence raises them little.
"""

from __future__ import annotations

from dataclasses import dataclass, field

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
