"""Labelled apps and a small lab on disk, as tests need them."""

import json
from pathlib import Path

from relaywatch.evaluation.labels import LabelledApp

EXAMPLES = Path(__file__).parents[2] / "examples" / "traces"


def app(name="T1", **other):
    """A labelled app; a microsocks with nothing in it unless said otherwise."""
    return LabelledApp(
        **{
            "lab": "lab",
            "name": name,
            "folder": Path(name),
            "label": "relay",
            "program": "microsocks",
            "family": "microsocks",
            "scenario": "microsocks-scrape",
            "evasion": "",
            "topology": "accepted",
            "roles": {},
            "pairs": frozenset(),
            "exact": True,
        }
        | other
    )


def write_label(lab, name, **other):
    """LAB/truth/NAME.json."""
    (lab / "truth").mkdir(parents=True, exist_ok=True)
    truth = {
        "label": "relay",
        "tool": "microsocks",
        "scenario": "microsocks-scrape",
        "flow_roles": {},
        "pairs": [],
    } | other
    (lab / "truth" / f"{name}.json").write_text(json.dumps(truth))
