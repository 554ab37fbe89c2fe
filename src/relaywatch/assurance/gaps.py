"""Every gap that keeps an answer from being a yes, and the sources that close gaps, each declared once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from relaywatch.engines.unseen import FIELDS
from relaywatch.model.assurance import Gap


def _field(name: str) -> Gap:
    """A gap that findings name too, in the same words."""
    field = FIELDS[name]
    return Gap(name=name, statement=field.reason, cost=field.cost, remedy=field.remedy)


GAPS: Final = {
    gap.name: gap
    for gap in (
        Gap(
            name="unwatched",
            statement="no source that shows connections watched the device, or the app's counters alone moved",
            cost="what its apps did is open",
            remedy="Android network logs by policy, or a sensor on the device's segment",
        ),
        Gap(
            name="pauses",
            statement="the sources that show connections watched the device for part of the window only",
            cost="what it did in between is open",
            remedy="run the same sources without pause",
        ),
        Gap(
            name="unattributed",
            statement="some of the device's connections belong to no known app",
            cost="a relay may be among them",
            remedy="Android network logs or socket tables of the same time",
        ),
        _field("app"),
        _field("bytes"),
        _field("direction"),
        Gap(
            name="address",
            statement="the source does not show the addresses of the other side",
            cost="clients and destinations cannot be told apart, so a relay is at most suspected",
            remedy="Android network logs of the same time, or a flow sensor",
        ),
        _field("hostname"),
        _field("volumes"),
        Gap(
            name="inbound",
            statement="the device's sources have shown no accepted session anywhere",
            cost="a relay that listens cannot be told from one that is not there",
            remedy="a sensor on the device's segment, root-mode capture, or a Perfetto packet trace",
        ),
        Gap(
            name="clock",
            statement="the clock of the records goes in steps of more than half of TimeWindow",
            cost="legs cannot be paired by their starts",
            remedy="a source with times to the second or finer",
        ),
        Gap(
            name="sampling",
            statement="the exporter samples packets, so sessions are missing and bytes are estimates",
            cost="legs and their targets are seen by luck only",
            remedy="export without sampling",
        ),
        Gap(
            name="logging_gap",
            statement="a source says that it lost records in the window",
            cost="what was lost may have been the relay",
            remedy="more frequent uploads, or a larger log buffer",
        ),
        Gap(
            name="interfaces",
            statement="nothing shows that all of the phone's traffic passed the sensors (Wi-Fi, cellular, VPN)",
            cost="a relay over another interface would not be seen",
            remedy="dumpsys netstats of the same time, to compare the phone's own counters with what was seen",
        ),
        Gap(
            name="profile",
            statement="the device has another Android user or work profile, of which no traffic is seen",
            cost="an app there may relay unseen",
            remedy="device-owner network logs, or a sensor on the device's segment",
        ),
        _field("listener"),
        _field("foreground"),
        _field("interaction"),
    )
}
"""By name, in the order in which they are told."""

EXPLAINING: Final = ("listener", "foreground", "interaction")
"""Gaps that no answer hangs on: context weighs, and never gates."""
ASKED: Final = tuple(name for name in GAPS if name not in EXPLAINING)


@dataclass(frozen=True, slots=True)
class Remedy:
    """A source that a site could add. cost: rank, 1 the cheapest; closes: gaps that are gone once it is there."""

    source: str
    cost: int
    closes: frozenset[str]


REMEDIES: Final = (
    Remedy("the same sources without pause", 1, frozenset({"pauses"})),
    Remedy("export without sampling", 1, frozenset({"sampling"})),
    Remedy("DNS and TLS logs beside the flows (Zeek dns.log, ssl.log)", 1, frozenset({"hostname"})),
    Remedy(
        "Android network logs by policy (usage logs or intrusion logs)",
        2,
        frozenset({"app", "unattributed", "address", "hostname"}),
    ),
    Remedy("more frequent uploads of the phone's logs", 2, frozenset({"logging_gap"})),
    Remedy("dumpsys netstats of the same days, by adb", 3, frozenset({"interfaces"})),
    Remedy("adb socket tables polled over the time (netstat, ss)", 3, frozenset({"app", "unattributed", "listener"})),
    Remedy("dumpsys usagestats of the same days, by adb", 3, frozenset({"foreground", "interaction"})),
    Remedy(
        "Zeek or Suricata on the device's segment",
        4,
        frozenset({"bytes", "direction", "inbound", "clock", "unwatched", "address", "hostname", "profile"}),
    ),
    Remedy(
        "PCAPdroid capture on the phone",
        5,
        frozenset(
            {"app", "unattributed", "bytes", "direction", "address", "hostname", "volumes", "clock", "unwatched"}
        ),
    ),
    Remedy(
        "a packet capture of the device's segment",
        6,
        frozenset({"bytes", "direction", "inbound", "address", "hostname", "volumes", "clock", "unwatched", "profile"}),
    ),
    Remedy(
        "PCAPdroid in root mode",
        7,
        frozenset(
            {
                "app",
                "unattributed",
                "bytes",
                "direction",
                "inbound",
                "address",
                "hostname",
                "volumes",
                "clock",
                "unwatched",
            }
        ),
    ),
)
"""Ranked by what a site must do for it: a setting, a policy, a visit with adb, a sensor, an app, a rooted phone."""


def remedies_for(gaps: Iterable[str]) -> tuple[str, ...]:
    """The cheapest source that closes all these gaps, or else the cheapest ones that together do.

    Each time the source that closes most for its rank is taken; gaps that no source closes are left out.
    """
    left = {name for name in gaps if any(name in remedy.closes for remedy in REMEDIES)}
    if not left:
        return ()
    whole = [remedy for remedy in REMEDIES if left <= remedy.closes]
    if whole:
        return (min(whole, key=lambda remedy: remedy.cost).source,)
    chosen = []
    while left:
        best = max(REMEDIES, key=lambda remedy: (len(remedy.closes & left) / remedy.cost, -remedy.cost))
        chosen.append(best)
        left -= best.closes
    return tuple(remedy.source for remedy in sorted(chosen, key=lambda remedy: remedy.cost))
