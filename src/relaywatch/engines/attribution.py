"""Flows of a device that no record of the phone matches: laid to an app by what else the phone said, or left open.

An accepted session is the app's that listened on its port; a connection is the app's that had just looked its address
up, or the only one that dials that address at all. Each is inferred. Where two apps fit, neither is chosen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from relaywatch.detection.columns import Flags
from relaywatch.engines.names import text_keys
from relaywatch.engines.records import APP_INFERRED, Records, Registry
from relaywatch.model.schemas import Direction, SignalKind

SLACK_US: Final = 60_000_000
"""How long before its first and after its last sight a listener is taken to have been there: between two polls."""
LOOKUP_HOLDS_US: Final = 3_600_000_000
"""How long an answered address explains connections to it: most answers live an hour at the most."""
ANSWERED_US: Final = 250_000
"""How far a name look-up's event may be from its packets: logged at the answer, on a clock of its own."""
NEAREST: Final = 256
"""Look-ups around a name server's flow that are asked whose they are."""
APART_US: Final = 5_000
"""Another app's look-up so little later than the nearest one may be the flow's as well: events are stamped in ms."""
FEWEST_ANSWERS: Final = 10
BY_LISTENER: Final = "the app listens on the local port"
BY_LOOKUP: Final = "only this app had looked the address up"
BY_ANSWER: Final = "this app had a name answered as the look-up ended"
BY_ENDPOINT: Final = "only this app dials the address"
SEVERAL: Final = "left open: several apps fit"
NOBODY: Final = "left open: the phone's sources say nothing of it"
LOOKUP_PORT: Final = 53
OWN_LOOKUP: Final = "left open: a name look-up, which the system makes for apps"


class Attributed(NamedTuple):
    """Flows without an app, by how they came to one or why they did not."""

    reasons: Counter[str]


def attribute(
    flows: Records,
    hidden: Flags,
    kept: Flags,
    signals: Records,
    texts: Mapping[int, str],
    registry: Registry,
    ahead: float,
) -> Attributed:
    """Give the hidden (app not known), kept flows of one device an app where exactly one fits; changes both.

    signals: SIGNAL records of the device; texts: details of its name look-ups by key; ahead: s that the clock of the
    phone's sources is ahead of that of the flows.
    """
    reasons: Counter[str] = Counter()
    if not (hidden & kept).any() or not (_apps_known(signals, registry) or (~hidden).any()):
        return Attributed(reasons)
    named = signals[~registry.anonymous(signals["app"])] if len(signals) else signals
    named["start"] -= round(ahead * 1e6)
    named["end"] -= np.where(named["end"] >= 0, round(ahead * 1e6), 0)
    for reason, candidates in (
        (BY_LISTENER, _by_listener(flows, hidden & kept, named)),
        (BY_LOOKUP, _by_lookup(flows, hidden & kept, named, texts)),
        (BY_ANSWER, _by_answer(flows, hidden & kept, named)),
        (BY_ENDPOINT, _by_endpoint(flows, hidden, kept)),
    ):
        reasons.update(_take(flows, hidden, candidates, reason))
    open_rows = hidden & kept
    lookups = open_rows & (flows["remote_port"] == LOOKUP_PORT)
    reasons.update({OWN_LOOKUP: int(lookups.sum()), NOBODY: int((open_rows & ~lookups).sum()) - reasons[SEVERAL]})
    return Attributed(+reasons)


def _apps_known(signals: Records, registry: Registry) -> bool:
    return bool(len(signals)) and not registry.anonymous(signals["app"]).all()


def _take(flows: Records, hidden: Flags, candidates: pl.DataFrame, reason: str) -> Counter[str]:
    """Lay flows with one candidate (columns row, app) to it."""
    by_row = candidates.group_by("row").agg(pl.col("app").n_unique().alias("apps"), pl.col("app").min())
    single = by_row.filter(pl.col("apps") == 1)
    rows = single["row"].to_numpy()
    flows["app"][rows] = single["app"].to_numpy()
    flows["seen"][rows] |= np.uint8(APP_INFERRED)
    hidden[rows] = False
    counted = Counter({reason: len(rows)})
    if reason == BY_ENDPOINT:
        counted[SEVERAL] = by_row.height - single.height
    return counted


def _by_listener(flows: Records, asked: Flags, signals: Records) -> pl.DataFrame:
    """Apps that listened on the local port of an accepted flow, or of a UDP flow, at its time."""
    listeners = signals[(signals["kind"] == SignalKind.LISTENER) & (signals["local_port"] > 0)]
    rows = np.flatnonzero(asked & ((flows["direction"] == Direction.INBOUND) | (flows["protocol"] == 17)))
    own = pl.DataFrame({"row": rows, "port": flows["local_port"][rows], "time": flows["start"][rows]})
    until = np.where(listeners["end"] >= listeners["start"], listeners["end"] + SLACK_US, np.iinfo(np.int64).max)
    held = pl.DataFrame(
        {
            "app": listeners["app"],
            "port": listeners["local_port"],
            "since": listeners["start"] - SLACK_US,
            "until": until,
        }
    ).unique()
    return (
        own.join(held, on="port")
        .filter(pl.col("time").is_between(pl.col("since"), pl.col("until")))
        .select("row", "app")
    )


def _by_lookup(flows: Records, asked: Flags, signals: Records, texts: Mapping[int, str]) -> pl.DataFrame:
    """Apps that had the flow's address answered within LOOKUP_HOLDS_US before it."""
    lookups = signals[signals["kind"] == SignalKind.NAME_LOOKUP]
    rows = np.flatnonzero(asked & (flows["direction"] != Direction.INBOUND) & (flows["remote_port"] != LOOKUP_PORT))
    if not len(lookups) or not len(rows):
        return _NONE
    answers = [
        (address_key, app, time)
        for app, time, key in zip(
            lookups["app"].tolist(), lookups["start"].tolist(), lookups["detail"].tolist(), strict=True
        )
        for address_key in address_keys(texts.get(key, ""))
    ]
    held = pl.DataFrame(answers, schema={"remote": pl.UInt64, "app": pl.UInt32, "since": pl.Int64}, orient="row")
    own = pl.DataFrame({"row": rows, "remote": flows["remote"][rows], "time": flows["start"][rows]})
    age = pl.col("time") - pl.col("since")
    # Clocks may disagree by a few seconds, so that the answer seems to come after the connection.
    return own.join(held, on="remote").filter(age.is_between(-5_000_000, LOOKUP_HOLDS_US)).select("row", "app").unique()


def _by_answer(flows: Records, asked: Flags, signals: Records) -> pl.DataFrame:
    """The app whose name was answered when a flow to a name server ended, if no other app's was at about that time."""
    lookups = np.sort(signals[signals["kind"] == SignalKind.NAME_LOOKUP], order=["start", "app"])
    rows = np.flatnonzero(asked & (flows["direction"] != Direction.INBOUND) & (flows["remote_port"] == LOOKUP_PORT))
    ended = np.maximum(flows["end"][rows], flows["start"][rows])
    first = np.searchsorted(lookups["start"], ended - ANSWERED_US)
    last = np.searchsorted(lookups["start"], ended + ANSWERED_US, side="right")
    counts = np.minimum(last - first, NEAREST)
    of = np.repeat(np.arange(len(rows)), counts)
    place = np.repeat(first, counts) + np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    after = lookups["start"][place] - ended[of]
    apart = np.abs(after - _usual(after))
    found = pl.DataFrame({"row": rows[of], "app": lookups["app"][place], "apart": apart})
    nearest = found.group_by("row", "app").agg(pl.col("apart").min())
    best = pl.col("apart").min().over("row")
    return nearest.filter(pl.col("apart") <= pl.max_horizontal(best + APART_US, best * 3)).select("row", "app")


def _usual(after: npt.NDArray[np.int64]) -> int:
    """Where the times, us, between look-ups and their packets pile up: finer than connects show the offset."""
    ordered = np.sort(after)
    if len(ordered) < FEWEST_ANSWERS:
        return 0
    counts = np.searchsorted(ordered, ordered + APART_US, side="right") - np.arange(len(ordered))
    best = int(counts.argmax())
    return int(np.median(ordered[best : best + counts[best]]))


def address_keys(detail: str) -> list[int]:
    """Keys (engines.names) of the addresses in a name look-up's detail: "host address address"."""
    addresses = detail.split(" ")[1:]
    return [int(key) for key in text_keys(pl.Series(addresses, dtype=pl.String))]


def _by_endpoint(flows: Records, hidden: Flags, kept: Flags) -> pl.DataFrame:
    """The apps of the device's other flows to the same address."""
    dialled = (flows["direction"] != Direction.INBOUND) & (flows["remote"] != 0) & (flows["remote_port"] != LOOKUP_PORT)
    rows = np.flatnonzero(hidden & kept & dialled)
    known = np.flatnonzero(~hidden & kept & (flows["direction"] != Direction.INBOUND))
    own = pl.DataFrame({"row": rows, "remote": flows["remote"][rows]})
    held = pl.DataFrame({"app": flows["app"][known], "remote": flows["remote"][known]}).unique()
    return own.join(held, on="remote").select("row", "app")


_NONE: Final = pl.DataFrame(schema={"row": pl.Int64, "app": pl.UInt32})
