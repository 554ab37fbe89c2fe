"""What ordinary apps do: bouts of flows as real programs made them, with their look-ups.

A bout has the gaps and remotes of a run of successive flows of one program. What each carries, and how long, is that of
any flow of the program, drawn whole and varied a little (a smoothed bootstrap), the bytes also by a factor of the app
and of the bout: what coincided by chance in a recorded run would otherwise coincide again in each of its copies.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from relaywatch.detection.columns import Floats, Ints
from relaywatch.model.compilation import compiled
from relaywatch.simulation.chance import State, mixed, normals, share_of, uniform
from relaywatch.simulation.day import PART_US, PARTS
from relaywatch.simulation.drafts import BOUT, DRAFT, FAILED, LOOKUP, ORDINARY, Drafts
from relaywatch.simulation.fleet import COMMON, PROGRAMS_AN_APP, RESOLVERS, Fleet, drawn
from relaywatch.simulation.plan import APPS_A_PHONE

SMOOTHING: Final = 0.2
BOUT_SCALE: Final = 0.15
"""Deviations of the natural log of what a flow's life and bytes, and a bout's bytes, are multiplied by."""
BOUT_TAIL: Final = -0.7
LEAST_BOUT: Final = 1.5
MOST_BOUT: Final = 100
"""Flows of a bout: LEAST_BOUT over a power of chance, so that few bouts are long."""
FRONT_SHARE: Final = 0.35
COMMON_SHARE: Final = 0.1
FAILED_SHARE: Final = 0.01
STANDS_S: Final = (60.0, 14_400.0)
"""How long a flow stands that stood for a whole trace: equally likely in each octave."""
_HOUR_PARTS: Final = PARTS // 24
_SECOND: Final = 1e6
_REMOTES: Final = 256
"""Room for the remotes of one program."""


@compiled
def ordinary(
    state: State, first: int, count: int, begin: int, end: int, use: Floats, fleet: Fleet
) -> tuple[Drafts, Drafts]:
    """Exactly `count` drafts of bouts that begin in [begin, end), numbered from `first`, and the bouts.

    use: of a phone in each part of its day, 0 to 1. Volumes and arrival are those of records without faults.
    """
    out, bouts = np.empty(count, DRAFT), np.empty(count, BOUT)
    met = np.full(_REMOTES, -1, np.int64)
    done = made = 0
    while done < count:
        at, device = _begun(state, begin, end, use, fleet)
        profile = fleet.profile[device]
        place = drawn(state, fleet.place_chance[profile], fleet.place_instead[profile])
        pair = device * APPS_A_PHONE + place
        bouts["start"][made], bouts["pair"][made] = at, pair
        bouts["front"][made] = uniform(state) < FRONT_SHARE
        length = min(MOST_BOUT, int(LEAST_BOUT * (1.0 - uniform(state)) ** BOUT_TAIL))
        done, bouts["end"][made] = _bout(state, out, done, first, made, at, length, pair, met, fleet)
        made += 1
    return out, bouts[:made]


@compiled
def _begun(state: State, begin: int, end: int, use: Floats, fleet: Fleet) -> tuple[int, int]:
    """When a bout begins, and on which device: one that is in use then."""
    while True:
        at = begin + int(uniform(state) * (end - begin))
        device = drawn(state, fleet.chance, fleet.instead)
        part = (at // PART_US + fleet.zone[device] * _HOUR_PARTS) % PARTS
        if uniform(state) < use[part]:
            return at, device


@compiled
def _bout(
    state: State,
    out: Drafts,
    done: int,
    first: int,
    number: int,
    at: int,
    length: int,
    pair: int,
    met: Ints,
    fleet: Fleet,
) -> tuple[int, int]:
    """Write one bout's drafts behind `done`, as far as there is room; how many there are then, and when it ends."""
    app = fleet.app_of[pair]
    shapes = fleet.programs
    program = fleet.app_program[app, int(uniform(state) ** 2 * PROGRAMS_AN_APP)]
    lowest, highest = shapes.bounds[program], shapes.bounds[program + 1]
    row = lowest + int(uniform(state) * (highest - lowest))
    key = mixed(state[0])
    scale = fleet.app_scale[app] * np.exp(BOUT_SCALE * normals(state)[0])
    time, until = float(at), float(at)
    for k in range(length):
        flow = shapes.flows[row]
        if k:
            time += flow[0] * _SECOND
        remote = _remote(share_of(key, int(flow[4])), share_of(key, _REMOTES + int(flow[4])), app, fleet)
        if met[int(flow[4])] != number:
            met[int(flow[4])] = number
            if done < len(out) and uniform(state) < shapes.lookup_share:
                time = _lookup(state, out, done, first, time, pair, remote, fleet)
                done += 1
        if done == len(out):
            break
        like = shapes.flows[lowest + int(uniform(state) * (highest - lowest))]
        until = max(until, _flow(state, out, done, like, scale, time))
        out["flow"][done], out["pair"][done], out["remote"][done] = first + done, pair, remote
        done += 1
        row = row + 1 if row + 1 < highest else lowest
    return done, int(max(until, time))


@compiled
def _remote(which: float, common: float, app: int, fleet: Fleet) -> int:
    """A remote of the app, the first ones far more often; now and then one that all apps share."""
    if common < COMMON_SHARE:
        return int(fleet.remotes.common + int(COMMON**which) - 1)
    count = fleet.remotes.app_count[app]
    return int(fleet.remotes.app_first[app] + int(float(count) ** which) - 1)


@compiled
def _flow(state: State, out: Drafts, row: int, flow: Floats, scale: float, time: float) -> float:
    """Write what one flow carries and when; its end."""
    one, two = normals(state)
    three, _ = normals(state)
    life = flow[1] * np.exp(SMOOTHING * one)
    if flow[6] > 0.0:
        life = STANDS_S[0] * (STANDS_S[1] / STANDS_S[0]) ** uniform(state)
    sent, received = flow[2] * scale * np.exp(SMOOTHING * two), flow[3] * scale * np.exp(SMOOTHING * three)
    kind = ORDINARY
    if flow[5] == 0.0 and uniform(state) < FAILED_SHARE:
        kind, sent, received, life = FAILED, 0.0, 0.0, min(life, 3.0)
    end = float(time + life * _SECOND)
    _written(out, row, int(time), int(end), int(sent), int(received), kind)
    out["idle"][row] = int(min(end, time + (flow[8] - uniform(state)) * _SECOND))  # open for longer than it carries
    out["datagrams"][row], out["remote_port"][row] = flow[5], flow[7]
    out["local_port"][row] = 32_768 + int(uniform(state) * 28_000)
    out["asked"][row] = -1
    return end


@compiled
def _lookup(state: State, out: Drafts, row: int, first: int, time: float, pair: int, asked: int, fleet: Fleet) -> float:
    """Write the look-up of a remote's name; when it is answered."""
    lookups = fleet.programs.lookups
    like = lookups[int(uniform(state) * len(lookups))]
    end = float(time + like[0] * _SECOND * np.exp(SMOOTHING * normals(state)[0]))
    _written(out, row, int(time), int(end), int(like[1]), int(like[2]), LOOKUP)
    out["datagrams"][row], out["remote_port"][row] = 1, 53
    out["local_port"][row] = 32_768 + int(uniform(state) * 28_000)
    out["flow"][row], out["pair"][row] = first + row, pair
    out["remote"][row] = fleet.remotes.resolvers + pair // APPS_A_PHONE % RESOLVERS
    out["asked"][row] = asked
    return end


@compiled
def _written(out: Drafts, row: int, start: int, end: int, sent: int, received: int, kind: int) -> None:
    out["start"][row] = out["busy"][row] = start
    out["end"][row] = out["idle"][row] = out["arrival"][row] = end
    out["bytes_out"][row], out["bytes_in"][row] = sent, received
    out["kind"][row] = kind
