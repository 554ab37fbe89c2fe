"""Who there is: phones, the apps on them, how much each does, what its programs do, and whom it talks to."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from relaywatch.detection.columns import Flags, Floats, Ints
from relaywatch.model.compilation import compiled
from relaywatch.simulation.chance import State, stream_of, uniform
from relaywatch.simulation.day import ZONES
from relaywatch.simulation.plan import APPS_A_PHONE, Plan

Codes = npt.NDArray[np.int32]

CATALOGUE: Final = 240
"""Apps that phones can have."""
EVERYWHERE: Final = 6
"""Apps that every phone has."""
PROGRAMS_AN_APP: Final = 3
PROFILES: Final = 64
"""Ways in which a phone's use is shared between its apps."""
APP_SPREAD: Final = 1.5
DEVICE_SPREAD: Final = 0.8
APP_SCALE: Final = 0.5
"""Deviations of the natural log of what an app does, what a phone does, and an app's bytes (as in the null fleet)."""
HOT_FACTOR: Final = 100.0
FEWEST_ENDPOINTS: Final = 3
MOST_ENDPOINTS: Final = 300
COMMON: Final = 40
"""Endpoints that all apps share: advertisers, analytics, clouds."""
SITES: Final = 20_000
"""Sites that clients of relays visit."""
CLIENTS: Final = 508
GATEWAYS: Final = 254
RESOLVERS: Final = 2
_FLEET, _SEEN = 1, 2


class Programs(NamedTuple):
    """What real programs did (ordinary.json): flows row by row, program k's are rows bounds[k] to bounds[k + 1].

    flows: gap s, life s, bytes out, bytes in, remote, datagrams, stands, remote port, carrying s; lookups: life s,
    bytes out, bytes in; lookup_share: probability of a look-up before a remote's first flow in a bout.
    """

    flows: Floats
    bounds: Ints
    lookups: Floats
    lookup_share: float


class Remotes(NamedTuple):
    """Numbers of remote ends: those of apps come first, then what all share, sites, and ends without a name."""

    app_first: Ints
    app_count: Ints
    common: int
    sites: int
    clients: int
    gateways: int
    resolvers: int
    ends: int


class Fleet(NamedTuple):
    """The fleet as kernels see it. A pair (device, app) has the number device * APPS_A_PHONE + place of the app.

    app_of: of each pair, number in the catalogue; zone: hours ahead of UTC; chance, instead: alias tables of devices
    by how much they do; place_chance, place_instead: of a profile's apps; app_program: PROGRAMS_AN_APP of each app;
    app_scale: factor of its bytes; uid_base: of each device, its first app's uid; fine: devices whose flows have
    volumes; watched: devices whose context is seen; skew: us by which a device's clock is ahead.
    """

    app_of: npt.NDArray[np.int16]
    zone: Ints
    chance: Floats
    instead: Ints
    profile: Ints
    place_chance: Floats
    place_instead: Ints
    app_program: Ints
    app_scale: Floats
    uid_base: Ints
    fine: Flags
    watched: Flags
    skew: Ints
    remotes: Remotes
    programs: Programs


@cache
def programs() -> Programs:
    """The fitted programs."""
    text = resources.files(__package__).joinpath("ordinary.json").read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    parts = [np.array(entry["flows"], np.float64) for entry in document["programs"]]
    share = document["lookup_share"]
    return Programs(
        np.concatenate(parts),
        np.cumsum([0, *map(len, parts)]).astype(np.int64),
        np.array(document["lookups"], np.float64),
        min(1.0, share / (1.0 - share)),  # of all flows, look-ups among them, to those that something was asked for
    )


def fleet_of(plan: Plan) -> Fleet:
    """The fleet of a plan; memory follows the number of (device, app) pairs."""
    rng = np.random.default_rng(np.random.SeedSequence(plan.seed, spawn_key=(_FLEET,)))
    done = programs()
    remotes = _remotes(rng)
    places = np.exp(APP_SPREAD * rng.standard_normal((PROFILES, APPS_A_PHONE)))
    tables = [alias_of(weights / weights.sum()) for weights in places]
    scales = np.exp(APP_SCALE * rng.standard_normal(CATALOGUE))
    chosen = rng.integers(0, len(done.bounds) - 1, (CATALOGUE, PROGRAMS_AN_APP))
    popular = 1.0 / (1.0 + np.arange(CATALOGUE))
    activity = np.exp(DEVICE_SPREAD * rng.standard_normal(plan.devices))
    if plan.hot:
        activity[0] = HOT_FACTOR * activity.mean()
    chance, instead = alias_of(activity / activity.sum())
    hours, parts = np.array([zone for zone, _ in ZONES]), np.array([part for _, part in ZONES])
    fault = plan.faults.skew
    off = np.rint(rng.uniform(-fault.bound_s, fault.bound_s, plan.devices) * 1e6).astype(np.int64)
    seen = np.random.default_rng(np.random.SeedSequence(plan.seed, spawn_key=(_SEEN,)))
    return Fleet(
        app_of=_installed(stream_of(plan.seed, _FLEET, 1), plan.devices, *alias_of(popular / popular.sum())),
        zone=rng.choice(hours, plan.devices, p=parts).astype(np.int64),
        chance=chance,
        instead=instead,
        profile=rng.integers(0, PROFILES, plan.devices),
        place_chance=np.array([table[0] for table in tables]),
        place_instead=np.array([table[1] for table in tables]),
        app_program=chosen,
        app_scale=scales,
        uid_base=10_100 + rng.integers(0, 400, plan.devices),
        fine=seen.random(plan.devices) < plan.volumes,
        watched=seen.random(plan.devices) < plan.signals,
        skew=np.where(rng.random(plan.devices) < fault.rate, off, 0),
        remotes=remotes,
        programs=done,
    )


def _remotes(rng: np.random.Generator) -> Remotes:
    spread = np.log(MOST_ENDPOINTS / FEWEST_ENDPOINTS)
    count = np.rint(FEWEST_ENDPOINTS * np.exp(spread * rng.random(CATALOGUE) ** 2)).astype(np.int64)
    first = np.cumsum(count) - count
    common = int(count.sum())
    sites = common + COMMON
    clients = sites + SITES
    gateways = clients + CLIENTS
    resolvers = gateways + GATEWAYS
    return Remotes(first, count, common, sites, clients, gateways, resolvers, resolvers + RESOLVERS)


@compiled
def alias_of(weights: Floats) -> tuple[Floats, Ints]:
    """Alias table of weights that add up to 1 (Walker 1977, Vose 1991): chance to keep each entry, and whom else."""
    count = len(weights)
    chance, instead = weights * count, np.arange(count)
    small, large = np.empty(count, np.int64), np.empty(count, np.int64)
    smalls = larges = 0
    for k in range(count):
        if chance[k] < 1.0:
            small[smalls] = k
            smalls += 1
        else:
            large[larges] = k
            larges += 1
    while smalls and larges:
        smalls -= 1
        few, much = small[smalls], large[larges - 1]
        instead[few] = much
        chance[much] -= 1.0 - chance[few]
        if chance[much] < 1.0:
            larges -= 1
            small[smalls] = much
            smalls += 1
    return chance, instead


@compiled
def drawn(state: State, chance: Floats, instead: Ints) -> int:
    """An entry of an alias table."""
    at = uniform(state) * len(chance)
    entry = int(at)
    return entry if at - entry < chance[entry] else instead[entry]


@compiled
def _installed(state: State, devices: int, chance: Floats, instead: Ints) -> npt.NDArray[np.int16]:
    """The apps of each device, all different; popular apps are on many."""
    out = np.empty(devices * APPS_A_PHONE, np.int16)
    owner = np.full(len(chance), -1, np.int64)
    for device in range(devices):
        for place in range(APPS_A_PHONE):
            app = place if place < EVERYWHERE else drawn(state, chance, instead)
            while owner[app] == device:
                app = drawn(state, chance, instead)
            owner[app] = device
            out[device * APPS_A_PHONE + place] = app
    return out
