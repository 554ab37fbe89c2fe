"""Labelled apps: what a lab's or a range run's truth says of each trace."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from relaywatch.model.errors import SourceError

MANY_TUNNELS: Final = 10
"""Links of one relay from which it is back-connect, a link a session, where the label does not say."""
NO_EVASION: Final = frozenset({"own_traffic", "links", "gateways"})
"""What the range notes beside its evasions: an app's own traffic, and how many links there are."""
HARD: Final = ("evade-", "low-and-slow", "lowslow", "delay")
"""What names of hard scenarios hold, beside what their labels say of evasion."""


@dataclass(frozen=True, slots=True)
class LabelledApp:
    """One trace, which is one app, and its label.

    folder: flows.csv, bins.parquet, context.json and packets; label: relay, benign or sanctioned-relay; program: the
    tool; family: what is held out together; evasion, topology: empty where there is none; roles: by flow_id; pairs:
    (client, target) flow_ids; exact: whether no pair is inferred.
    """

    lab: str
    name: str
    folder: Path
    label: str
    program: str
    family: str
    scenario: str
    evasion: str
    topology: str
    roles: Mapping[int, str]
    pairs: frozenset[tuple[int, int]]
    exact: bool

    @property
    def relays(self) -> bool:
        """Mechanically a relay, sanctioned or not."""
        return self.label != "benign"

    @property
    def mixed(self) -> bool:
        """A relay inside an app with traffic of its own."""
        return self.relays and self.scenario.startswith("trojan")

    @property
    def hidden(self) -> bool:
        """The harder half of the relays: mixed, evading, delaying, or slow with few sessions."""
        named = any(part in self.scenario for part in HARD)
        return self.relays and (self.mixed or bool(self.evasion) or named)


def read_labels(labs: Sequence[Path]) -> list[LabelledApp]:
    """All labelled apps of the labs, by lab and name.

    Raises SourceError where a folder has no truth/*.json, a label cannot be read, or two labs name one trace.
    """
    apps: dict[str, LabelledApp] = {}
    for lab in labs:
        labels = sorted((lab / "truth").glob("*.json"))
        if not labels:
            raise SourceError(lab, "holds no truth/*.json.", remedy="Give a folder with traces/ and truth/.")
        for path in labels:
            try:
                app = _labelled(lab, path.stem, json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise SourceError(path, f"is no label ({error!r}).") from error
            if app.name in apps:
                raise SourceError(path, f"names a trace that {apps[app.name].lab} has too.", remedy="Give one of them.")
            apps[app.name] = app
    families = {app.family for app in apps.values()}
    return [replace(app, family=_kin(app, families)) for app in apps.values()]


def _kin(app: LabelledApp, families: Set[str]) -> str:
    """A relay's family by its program's name, where that names another's.

    Labels may count relays inside apps as a family of their own; held out so, their programs would be trained on.
    """
    words = app.program.replace(",", " ").split() if app.relays else []
    return next((word for word in words if word in families), app.family)


def _labelled(lab: Path, name: str, truth: Mapping[str, Any]) -> LabelledApp:
    roles = {int(flow): str(role) for flow, role in truth["flow_roles"].items()}
    evasion = truth.get("evasion") or {}
    return LabelledApp(
        lab=lab.name,
        name=name,
        folder=lab / "traces" / name,
        label=truth["label"],
        program=truth["tool"],
        family=truth.get("family") or truth["tool"],
        scenario=truth["scenario"],
        evasion=", ".join(kind for kind in evasion if kind not in NO_EVASION),
        topology="" if truth["label"] == "benign" else truth.get("topology") or topology_of(Counter(roles.values())),
        roles=roles,
        pairs=frozenset((pair["in_flow"], pair["out_flow"]) for pair in truth["pairs"]),
        exact=not any(str(pair["source"]).startswith("inferred") for pair in truth["pairs"]),
    )


def topology_of(roles: Counter[str]) -> str:
    """How the client's sessions reach the device, by the roles of the flows; empty where there is no client side."""
    if roles["relay_in"]:
        return "accepted"
    links = roles["relay_tunnel"]
    return "" if not links else "back_connect" if links >= MANY_TUNNELS else "tunnel"
