"""After how many seconds and sessions of relaying each labelled app is called a relay.

Usage: python benchmarks/time_to_verdict.py LAB [LAB ...] [--step SECONDS] [--json FILE]. A LAB has traces/ and truth/,
as the relay lab and runs of the range have. Prints Markdown. Labels are read to know when relaying began, never by the
hunt.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relaywatch.detection.settings import Settings
from relaywatch.evaluation.time_to_verdict import STEP_S, courses
from relaywatch.evaluation.time_to_verdict_report import as_json, markdown
from relaywatch.model.errors import SourceError

MANY_TUNNELS = 10
"""Links of one relay from which it is back-connect, a link a session, where the label does not say."""
NO_EVASION = {"own_traffic"}
"""What the range notes beside its evasions."""


@dataclass(frozen=True, slots=True)
class LabelledTrace:
    """One trace and what its label says of it; as evaluation.time_to_verdict asks."""

    name: str
    folder: Path
    label: str
    program: str
    scenario: str
    evasion: str
    topology: str
    roles: Mapping[int, str]
    pairs: frozenset[tuple[int, int]]

    @property
    def relays(self) -> bool:
        """Mechanically a relay, sanctioned or not."""
        return self.label != "benign"


def read_labels(lab: Path) -> Iterator[LabelledTrace]:
    """The labelled traces of a lab, by name. Raises SourceError where there is none, or a label cannot be read."""
    labels = sorted((lab / "truth").glob("*.json"))
    if not labels:
        raise SourceError(lab, "holds no truth/*.json.", remedy="Give a folder with traces/ and truth/.")
    for path in labels:
        try:
            yield labelled(lab / "traces" / path.stem, json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SourceError(path, f"is no label ({error!r}).") from error


def labelled(folder: Path, truth: Mapping[str, Any]) -> LabelledTrace:
    """A trace with its label."""
    roles = {int(flow): str(role) for flow, role in truth["flow_roles"].items()}
    return LabelledTrace(
        name=folder.name,
        folder=folder,
        label=truth["label"],
        program=truth["tool"],
        scenario=truth["scenario"],
        evasion=", ".join(name for name in truth.get("evasion") or {} if name not in NO_EVASION),
        topology=truth.get("topology") or topology_of(Counter(roles.values())),
        roles=roles,
        pairs=frozenset((pair["in_flow"], pair["out_flow"]) for pair in truth["pairs"]),
    )


def topology_of(roles: Counter[str]) -> str:
    """How the client's sessions reach the device, by the roles of the flows; empty where there is no client side."""
    if roles["relay_in"]:
        return "accepted"
    links = roles["relay_tunnel"]
    return "" if not links else "back_connect" if links >= MANY_TUNNELS else "tunnel"


def main() -> int:
    """Print the tables; 2 where a lab cannot be read."""
    parser = argparse.ArgumentParser(description="Time to verdict on labelled traces.")
    parser.add_argument("labs", nargs="+", type=Path)
    parser.add_argument("--step", type=int, default=STEP_S, help=f"whole seconds between two cuts (default {STEP_S})")
    parser.add_argument("--json", type=Path, help="write all courses to this file too")
    given = parser.parse_args()
    if given.step < 1:
        parser.error("--step must be at least 1.")
    try:
        apps = [app for lab in given.labs for app in read_labels(lab)]
        found = courses(apps, Settings(), given.step)
    except SourceError as error:
        print(error, file=sys.stderr)
        return 2
    if given.json is not None:
        given.json.write_text(json.dumps(as_json(found, given.step), indent=1, allow_nan=False), encoding="utf-8")
    print(markdown(found, given.step))
    return 0


if __name__ == "__main__":
    sys.exit(main())
