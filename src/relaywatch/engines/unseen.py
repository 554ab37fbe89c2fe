"""What the telemetry of a case could not show, what that costs, and which source would show it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from relaywatch.model.finding import NotObservable
from relaywatch.model.schemas import SignalKind

FIELDS: Final = {
    "app": NotObservable(
        field="app",
        reason="the source sees packets or flows, not the app that made them",
        cost="the relay can be laid to the device only, so it is at most suspected",
        remedy="PCAPdroid or Android network logs of the same time, or the bug report's socket tables",
    ),
    "bytes": NotObservable(
        field="bytes",
        reason="payload bytes are not in the record; they are estimated from wire bytes and packets, or missing",
        cost="conservation is tested with a wider tolerance, or not at all",
        remedy="a packet capture, or a flow sensor that reports payload (Zeek)",
    ),
    "end": NotObservable(
        field="end",
        reason="some connections have no end in the records",
        cost="legs that end together cannot be matched, so waiting links to a gateway may be missed",
        remedy="a flow sensor or capture that runs until the connections are closed",
    ),
    "volumes": NotObservable(
        field="volumes",
        reason="the source gives totals per flow, not bytes per interval",
        cost="a tunnel that carries many sessions cannot be told from chance",
        remedy="a packet capture on the phone (PCAPdroid PCAP instead of CSV)",
    ),
    "direction": NotObservable(
        field="direction",
        reason="the source does not show who opened the connection; direction is inferred",
        cost="accepted sessions may look like dialled ones; where nothing tells who opened them, a relay is at most "
        "suspected",
        remedy="root-mode capture, a sensor on the device's segment, or socket tables",
    ),
    "hostname": NotObservable(
        field="hostname",
        reason="most destinations carry no name",
        cost="one party cannot be told from many, so dialled relays are at most suspected",
        remedy="DNS or TLS logs beside the flows",
    ),
    "listener": NotObservable(
        field="listener",
        reason="the source does not list listening sockets",
        cost="setup before relaying cannot be shown",
        remedy="bug report or adb socket tables (netstat, ss)",
    ),
    "foreground": NotObservable(
        field="foreground",
        reason="the source does not show which app is on screen",
        cost="whether the app relayed in the background is open",
        remedy="dumpsys usagestats of the same day",
    ),
    "interaction": NotObservable(
        field="interaction",
        reason="the source does not show taps or the keyguard",
        cost="whether a person drove the traffic is open",
        remedy="dumpsys usagestats, or Android security logs (keyguard)",
    ),
    "organisation": NotObservable(
        field="organisation",
        reason="no database of autonomous systems was given, or it knows none of the addresses",
        cost="how many organisations the destinations belong to is open",
        remedy="hunt --asn FILE, a database in MaxMind's format such as GeoLite2-ASN",
    ),
    "other_installs": NotObservable(
        field="other_installs",
        reason="fewer than three devices of this hunt have the app, or its package is not known",
        cost="whether its other installs contact the same destinations is open",
        remedy="one hunt over the telemetry of more phones that have the app",
    ),
    "own_contacts": NotObservable(
        field="own_contacts",
        reason="most of the app's connections carry no name",
        cost="public-IP look-ups and domains of proxyware cannot be told",
        remedy="DNS or TLS logs beside the flows",
    ),
    "signing_digest": NotObservable(
        field="signing_digest",
        reason="the inventory of the app's signature is not in the telemetry",
        cost="an exception or indictment rests on the package name, which anyone can take",
        remedy="MDM application report, AndroidQF packages.json or dumpsys package",
    ),
    "user": NotObservable(
        field="user",
        reason="the source does not name the device's person",
        cost="whom to ask must be found by the device",
        remedy="MDM inventory",
    ),
}
"""Every gap a finding can name, declared once."""


def not_observable(missing: Iterable[str], observable: frozenset[SignalKind]) -> list[NotObservable]:
    """The gaps: those named in `missing`, and the signals that no source would have shown."""
    gaps = list(missing)
    needed = {
        "listener": {SignalKind.LISTENER},
        "foreground": {SignalKind.FOREGROUND_UI},
        "interaction": {SignalKind.USER_INTERACTION, SignalKind.KEYGUARD_LOCKED},
    }
    gaps += [name for name, kinds in needed.items() if not kinds & observable]
    return [FIELDS[name] for name in FIELDS if name in gaps]
