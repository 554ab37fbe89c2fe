"""First response: plain steps from the parts of a finding. Knows no telemetry, and orders nothing: it advises.

The steps for managed phones follow the Android Management API, `enterprises.policies.modifyPolicyApplications` and its
ApplicationPolicy (installType, disabled). Text from the telemetry stands in them as it came; outputs escape it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Final

from relaywatch.model.finding import (
    App,
    Destination,
    Device,
    Endpoint,
    ExceptionUse,
    FirstResponse,
    SourceSummary,
    Topology,
    User,
    Verdict,
)

NAMED_ITEMS: Final = 5
"""Files, gateways and destinations named in one step; the finding has them all."""


def first_response(
    *,
    verdict: Verdict,
    topology: Topology,
    device: Device,
    app: App,
    user: User,
    listener_port: int | None,
    gateways: Sequence[Endpoint],
    destinations: Sequence[Destination],
    sources: Sequence[SourceSummary],
    exception: ExceptionUse | None = None,
) -> FirstResponse:
    """Advise what to preserve, whom to ask and how to contain, from a finding's parts of the same names.

    exception: the exception that covers the finding, or covered it until it expired.
    """
    return FirstResponse(
        preserve=_preserve(verdict, topology, device, app, sources),
        ask=_ask(verdict, device, app, user, exception),
        contain=_contain(verdict, topology, app, listener_port, gateways, destinations, exception),
    )


def _preserve(
    verdict: Verdict, topology: Topology, device: Device, app: App, sources: Sequence[SourceSummary]
) -> list[str]:
    steps = [f"Keep {_listed(s.source for s in sources)} unchanged and write down the SHA-256 of each file."]
    if verdict is Verdict.SANCTIONED_RELAY:
        return steps
    steps.append(
        f"Do not restart {device.uid} and do not uninstall the app yet: open connections, listeners and the app's data "
        "would be gone."
    )
    steps.append(
        "Take a bug report (adb bugreport): it holds the sockets, the running services and the installed packages."
    )
    if topology is Topology.ACCEPTED:
        steps.append(
            "Note the phone's addresses and the network it is on: the listener can be reached only from there."
        )
    if app.package is not None:
        steps.append(
            f"Pull the installed package of {app.package} (adb shell pm path, then adb pull) and keep its SHA-256 and "
            "signing certificate."
        )
    return steps


def _ask(verdict: Verdict, device: Device, app: App, user: User, exception: ExceptionUse | None) -> list[str]:
    if exception is not None and exception.active:
        return [f"{exception.owner}: whether exception {exception.id} still describes what the app does."]
    steps = [
        f"The person who uses the phone{f' ({user.name})' if user.name else ''}: what the app is for, who installed it "
        "and when, and whether it pays or asks for a share of the connection."
    ]
    if exception is not None:
        steps.append(
            f"{exception.owner}: exception {exception.id} expired on {exception.expires:%Y-%m-%d}; whether the need is "
            "still there."
        )
    if app.package is None:
        steps.append(
            f"Fleet management: which packages run under {_identity(app)} on {device.uid}; the telemetry does not name "
            "the app (adb shell pm list packages -U, or a sensor that attributes traffic to apps)."
        )
    else:
        steps.append(
            f"Fleet management: whether {app.package} has an approved VPN, tunnelling, browser or remote-access role, "
            "and on how many other phones it is installed."
        )
    if verdict is Verdict.SUSPECTED_RELAY:
        steps.append(
            "The sensors' owner: whether a better source can be had before acting; see what was not observable."
        )
    return steps


def _contain(
    verdict: Verdict,
    topology: Topology,
    app: App,
    listener_port: int | None,
    gateways: Sequence[Endpoint],
    destinations: Sequence[Destination],
    exception: ExceptionUse | None,
) -> list[str]:
    if verdict is Verdict.SANCTIONED_RELAY:
        until = f" until {exception.expires:%Y-%m-%d}" if exception is not None else ""
        return [
            f"Nothing to contain{until}: the relaying is permitted. Look again if destinations or volumes change.",
            *_private(destinations),
        ]
    if verdict is Verdict.INSUFFICIENT_TELEMETRY:
        return ["Nothing to contain on this evidence: get the missing telemetry first; see what was not observable."]
    steps = [*_private(destinations)]
    if verdict is Verdict.SUSPECTED_RELAY:
        steps.append("Contain only after the questions are answered, or where the phone reaches what it must not.")
    steps += _network(topology, listener_port, gateways)
    steps += _management(app)
    return steps


def _private(destinations: Sequence[Destination]) -> list[str]:
    """What a client that comes from the same private network reaches there is no reach into it, and is left out."""
    inside = [destination.name for destination in destinations if destination.lateral]
    if not inside:
        return []
    return [
        f"The relay's client reached into private addresses from outside ({_listed(inside)}): treat it as lateral "
        "movement into the user's own network. Cut the phone off from that network now and look at the hosts that it "
        "reached, their remote access and debugging ports (adb) first."
    ]


def _network(topology: Topology, listener_port: int | None, gateways: Sequence[Endpoint]) -> list[str]:
    if topology is Topology.ACCEPTED:
        port = f"TCP port {listener_port}" if listener_port is not None else "the listening port"
        return [
            f"Block inbound connections to the phone on {port} where its network allows it; the clients were "
            f"{_listed(gateway.address for gateway in gateways)}."
        ]
    return [
        f"Block the gateway at the network's edge: {_listed(map(_endpoint, gateways))}. It stops the relay only on "
        "that network, and gateways change: it does not replace stopping the app."
    ]


def _management(app: App) -> list[str]:
    if app.package is None:
        return [
            "Identify the app before using the phone's management: it acts on packages, and only "
            f"{_identity(app)} is known."
        ]
    steps = [
        "Stop the app and keep its data with the phone's management, in a policy that only this phone has (Android "
        f"Management API, policies.modifyPolicyApplications): {_policy_change(app.package, {'disabled': True})}",
        "When the evidence is safe, remove the app from the fleet: "
        f"{_policy_change(app.package, {'installType': 'BLOCKED'})}",
    ]
    if app.user_id is None or app.user_id == 0:
        steps.append(
            "If the phone is the person's own with a work profile, its personal profile (Android user 0) is out of "
            "management's reach: ask the person to uninstall the app, and hold back company access until it is gone."
        )
    return steps


def _policy_change(package: str, fields: dict[str, object]) -> str:
    change = {"application": {"packageName": package, **fields}, "updateMask": ",".join(fields)}
    return json.dumps({"changes": [change]})


def _identity(app: App) -> str:
    return f"Android uid {app.uid}" if app.uid is not None else "an unknown uid"


def _endpoint(gateway: Endpoint) -> str:
    host = f"[{gateway.address}]" if ":" in gateway.address else gateway.address
    address = host if gateway.port is None else f"{host}:{gateway.port}"
    return f"{address} ({gateway.hostname})" if gateway.hostname else address


def _listed(items: Iterable[str]) -> str:
    names = list(dict.fromkeys(items))
    more = len(names) - NAMED_ITEMS
    shown = ", ".join(names[:NAMED_ITEMS]) or "none named"
    return f"{shown} and {more} more" if more > 0 else shown
