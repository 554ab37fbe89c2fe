"""Signals around the flows: what was before the user's eyes, listeners and services, captures, gaps, look-ups."""

from __future__ import annotations

from typing import Final

import numpy as np

from relaywatch.detection.columns import Ints
from relaywatch.engines.records import taken
from relaywatch.model.compilation import compiled
from relaywatch.model.schemas import SignalKind
from relaywatch.simulation.drafts import FACT, LOOKUP, Drafts
from relaywatch.simulation.fleet import Fleet
from relaywatch.simulation.lateness import Lateness, arrival_of, gap_of, in_gap
from relaywatch.simulation.plan import APPS_A_PHONE, DAY_US, SECOND
from relaywatch.simulation.relaying import EARLY_US, Episodes

SCREEN_US: Final = (2 * SECOND, 5 * SECOND)
UI_US: Final = (1 * SECOND, 3 * SECOND)
"""How long before a bout screen and app are in front, and how long they stay after it."""
TOUCH_US: Final = SECOND // 2
STARTS_ONE_IN: Final = 8
SERVES_ONE_IN: Final = 20
"""Bouts in the background of which one begins with its process, and of which one has a service in front."""
LISTENS_ONE_IN: Final = 30
"""Apps of which one listens on ordinary errands while a bout lasts."""
ERRAND_PORT: Final = 5_000
_GAP: Final = int(SignalKind.LOGGING_GAP)


def of_bouts(bouts: Drafts, fleet: Fleet) -> Drafts:
    """What a watched device shows around bouts."""
    own = taken(bouts, np.flatnonzero(fleet.watched[bouts["pair"] // APPS_A_PHONE]))
    front, behind = own[own["front"] == 1], own[own["front"] == 0]
    pick = behind["start"] // SECOND
    starts, serves = behind[pick % STARTS_ONE_IN == 0], behind[pick % SERVES_ONE_IN == 0]
    listens = behind[fleet.app_of[behind["pair"]] % LISTENS_ONE_IN == 0]
    return np.concatenate(
        [
            _facts(front, SignalKind.SCREEN_ON, -SCREEN_US[0], SCREEN_US[1], own=False),
            _facts(front, SignalKind.FOREGROUND_UI, -UI_US[0], UI_US[1]),
            _instants(front, SignalKind.USER_INTERACTION, -TOUCH_US, own=False),
            _instants(starts, SignalKind.PROCESS_START, -TOUCH_US),
            _facts(serves, SignalKind.FOREGROUND_SERVICE, -UI_US[0], UI_US[1]),
            _facts(listens, SignalKind.LISTENER, 0, UI_US[1], port=ERRAND_PORT),
        ]
    )


def of_episodes(episodes: Episodes, fleet: Fleet) -> Drafts:
    """What a watched device shows of relays at work: a service in front, and a listener where sessions are accepted."""
    seen = episodes.rows(np.flatnonzero(fleet.watched[episodes.pair // APPS_A_PHONE]))
    service = np.zeros(len(seen.pair), FACT)
    service["device"], service["place"] = seen.pair // APPS_A_PHONE, seen.pair % APPS_A_PHONE
    service["start"], service["end"] = seen.begin - EARLY_US, seen.begin + seen.length
    service["arrival"], service["detail"] = service["end"], -1
    service["kind"] = SignalKind.FOREGROUND_SERVICE
    listener = service[seen.topology == 0]
    listener["kind"], listener["port"] = SignalKind.LISTENER, seen.port[seen.topology == 0]
    return np.concatenate([service, listener])


def of_lookups(drafts: Drafts, fleet: Fleet) -> Drafts:
    """The names that watched devices looked up."""
    shown = (drafts["kind"] == LOOKUP) & fleet.watched[drafts["pair"] // APPS_A_PHONE]
    own = taken(drafts, np.flatnonzero(shown))
    out = _instants(own, SignalKind.NAME_LOOKUP, 0)
    out["start"] = out["arrival"] = own["end"]
    out["detail"] = own["asked"]
    return out


def of_days(days: range, fleet: Fleet, faults: Lateness, watching: int) -> Drafts:
    """A capture of each watched device a day, and the gaps of all.

    watching: number of the text of captures; that of gaps follows.
    """
    watched = np.flatnonzero(fleet.watched)
    parts = [np.empty(0, FACT)]
    for day in days:
        capture = np.zeros(len(watched), FACT)
        capture["device"], capture["place"], capture["kind"] = watched, -1, SignalKind.CAPTURE
        capture["start"], capture["end"] = day * DAY_US, (day + 1) * DAY_US - 1
        capture["detail"] = watching
        begin, end = _gaps(day, faults, len(fleet.zone))
        silent = np.flatnonzero(end > 0)
        gap = np.zeros(len(silent), FACT)
        gap["device"], gap["place"], gap["kind"] = silent, -1, SignalKind.LOGGING_GAP
        gap["start"], gap["end"] = begin[silent] - fleet.skew[silent], end[silent] - fleet.skew[silent]
        gap["detail"] = watching + 1
        for part in (capture, gap):
            part["arrival"] = part["end"]
        parts += [capture, gap]
    return np.concatenate(parts)


def recorded(facts: Drafts, fleet: Fleet, faults: Lateness) -> Drafts:
    """The facts that are recorded, with the time at which they arrive."""
    return taken(facts, _arrived(facts, fleet.skew, faults))


@compiled
def _arrived(facts: Drafts, skew: Ints, faults: Lateness) -> Ints:
    kept = np.ones(len(facts), np.bool_)
    for k in range(len(facts)):
        device, at = facts["device"][k], facts["arrival"][k]
        facts["arrival"][k] = arrival_of(faults, device, at)
        kept[k] = facts["kind"][k] == _GAP or not in_gap(faults, device, at + skew[device], DAY_US)
    return np.flatnonzero(kept)


@compiled
def _gaps(day: int, faults: Lateness, devices: int) -> tuple[Ints, Ints]:
    begin, end = np.zeros(devices, np.int64), np.zeros(devices, np.int64)
    for device in range(devices):
        begin[device], end[device] = gap_of(faults, device, day, DAY_US)
    return begin, end


def _facts(bouts: Drafts, kind: SignalKind, before: int, after: int, *, own: bool = True, port: int = 0) -> Drafts:
    out = _instants(bouts, kind, before, own=own)
    out["end"] = out["arrival"] = bouts["end"] + after
    out["port"] = port
    return out


def _instants(rows: Drafts, kind: SignalKind, before: int, *, own: bool = True) -> Drafts:
    out = np.zeros(len(rows), FACT)
    out["start"] = out["arrival"] = np.maximum(rows["start"] + before, 0)
    out["end"], out["detail"], out["kind"] = -1, -1, kind
    out["device"] = rows["pair"] // APPS_A_PHONE
    out["place"] = rows["pair"] % APPS_A_PHONE if own else -1
    return out
