"""The one judgement: evidence added up, and what may be claimed of it with the telemetry at hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from relaywatch.detection.calibration import PRIOR_LOG_ODDS, STRONGEST_EVIDENCE
from relaywatch.detection.columns import Floats
from relaywatch.detection.episode import Episode, Manner
from relaywatch.detection.items import Item
from relaywatch.detection.settings import Settings
from relaywatch.detection.totals import FedLink
from relaywatch.model.finding import Verdict

LARGEST_LOG_ODDS: Final = 20.0
"""Odds beyond this are not told apart: no model is right that often."""
RELAY_PROBABILITY: Final = 0.95
MIRRORED_LOG_RATIO: Final = 3.0
FED_LOG_RATIO: Final = 1.5
"""Of totals that mirror each other, and of totals that only allow a tunnel: judgements, not measurements."""


@dataclass(frozen=True, slots=True)
class Provable:
    """What the telemetry could show of this app: without any of these a relay can at most be suspected.

    app: who sent the flow; bytes: both directions of every leg; direction: who opened every leg; names: whether the
    destinations are one party or many (not asked of sessions that strangers opened).
    """

    app: bool
    bytes: bool
    direction: bool
    names: bool

    def __bool__(self) -> bool:
        return self.app and self.bytes and self.direction and self.names


@dataclass(frozen=True, slots=True)
class Judgement:
    """verdict, probability and their sum of evidence (prior log odds plus every item's log ratio)."""

    verdict: Verdict | None
    probability: float
    score: float


def bridging_item(episode: Episode, conserved: int) -> Item:
    """Evidence that legs are bridged beyond chance. conserved: bridges within ByteSymmetryTolerance."""
    count = len(episode.bridges.target)
    manner = episode.manner
    if manner is not None:
        passes = "brings" if manner.uploads else "sends"
        return Item(
            kind="tunnelling",
            name="link mirrors targets",
            statement=f"{manner.accounted:.0%} of what the client side {passes} is accounted for, second by second, by "
            f"{episode.sessions} sessions on {count} target legs, each taken whole, {_held(manner)}, at "
            f"{manner.framing:g} bytes for each byte carried",
            value=float(episode.sessions),
            unit="sessions",
            log_ratio=min(episode.log_evidence, STRONGEST_EVIDENCE),
            null="the same sendings moved in time around the app's own activity, and with their sizes exchanged",
            settings=("RelaySessionThreshold", "UplinkBytesThreshold"),
            core=True,
        )
    return Item(
        kind="bridging",
        name="conserved bridges",
        statement=f"{count} of {len(episode.legs)} client legs have a target leg that took what they brought and "
        f"brought what they took; {conserved} within the byte tolerance",
        value=float(count),
        unit="bridges",
        log_ratio=min(episode.log_evidence, STRONGEST_EVIDENCE),
        null="the same client legs moved in time around the app's own activity, and with their bytes exchanged",
        settings=("TimeWindow", "ByteSymmetryTolerance", "RelaySessionThreshold", "UplinkBytesThreshold"),
        core=True,
    )


def _held(manner: Manner) -> str:
    """How long the link may have held back what it relays."""
    latest = manner.window_s - 1.0 + manner.lag_s
    return f"held back for {manner.lag_s:g} to {latest:g} s" if manner.lag_s else f"held back for up to {latest:g} s"


def conserved(downstream: Floats, bytes_in: Floats, tolerance: float, added: float) -> int:
    """Bridges whose client side sent back what the target sent, within `tolerance` and `added` bytes a session."""
    allowed = tolerance + added / np.maximum(bytes_in, 1.0)
    return int((np.abs(downstream - 1.0) <= allowed).sum())


def judge(items: Sequence[Item], sessions: int, provable: Provable, settings: Settings, bar: float) -> Judgement:
    """Add up the evidence of one episode; verdict None where it is not worth a report.

    bar: natural log evidence that a relay verdict asks for (relay_bar), of core evidence by itself: spread, setup and
    context may lower it to suspected, and never make up for it. Sessions that reach one party, or evidence that rests
    on one, are bridged beyond chance also where an app copies between two services: they stay suspected.
    """
    score = PRIOR_LOG_ODDS + sum(item.log_ratio for item in items)
    probability = 1.0 / (1.0 + math.exp(-max(-LARGEST_LOG_ODDS, min(LARGEST_LOG_ODDS, score))))
    bridged = sum(item.log_ratio for item in items if item.core)
    beyond_chance = bridged >= bar
    if probability < settings.suspicion_threshold:
        return Judgement(None, probability, score)
    copied = any(item.kind == "spread" and item.log_ratio < 0.0 for item in items)
    if (
        beyond_chance
        and not copied
        and provable
        and probability >= RELAY_PROBABILITY
        and sessions >= settings.relay_session_threshold
    ):
        return Judgement(Verdict.RELAY, probability, score)
    return Judgement(Verdict.SUSPECTED_RELAY, probability, score)


def totals_item(link: FedLink) -> Item:
    """Evidence of totals that mirror, or allow, a tunnel: speaks for a closer look, decides nothing."""
    meaning = "its total mirrors theirs" if link.mirrors else "they could have fed it, beside the app's own traffic"
    return Item(
        kind="tunnelling",
        name="link mirrors targets",
        statement=f"{len(link.targets)} flows within the client side's life received {link.ratio:.2f} times its bytes "
        f"sent: {meaning}; totals only",
        value=link.ratio,
        unit="bytes received over bytes sent",
        log_ratio=MIRRORED_LOG_RATIO if link.mirrors else FED_LOG_RATIO,
        null="totals of unrelated flows: few apps' links send more than they receive and have that much beside them",
        settings=(),
    )


def role_item(package: str) -> Item:
    """The app has no approved role as a proxy: AN1702's policy row. Decides nothing by itself."""
    return Item(
        kind="context",
        name="no approved role",
        statement=f"{package} is not in AllowedAppList",
        value=None,
        unit="",
        log_ratio=0.0,
        null="apps that a site allows to tunnel",
        settings=("AllowedAppList",),
    )
