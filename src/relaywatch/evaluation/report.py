"""The evaluation as Markdown and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from relaywatch.evaluation.ablation import AblationRow
from relaywatch.evaluation.bridges import FALSE_POSITIVE_RATES, BridgeRow
from relaywatch.evaluation.comparison import RuleRow
from relaywatch.evaluation.flow_level import FlowRow
from relaywatch.evaluation.reliability import ReliabilityResult
from relaywatch.evaluation.run import Evaluation
from relaywatch.evaluation.verdicts import NOTHING, AppResult
from relaywatch.evaluation.views import ViewRow
from relaywatch.model.estimates import Estimate
from relaywatch.model.finding import Verdict

EVALUATION_VERSION: Final = "1.0.0"
VERDICTS: Final = (*(verdict.value for verdict in Verdict if verdict is not Verdict.SANCTIONED_RELAY), NOTHING)
Cell = str | int | float | Estimate | None


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A Markdown table; estimates with their 95 % intervals."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _cell(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:.3g}"
    return str(cell).replace("|", "\\|")


def markdown(result: Evaluation) -> str:
    """The whole evaluation, a section each."""
    parts = ["# Evaluation", f"On {_listed(result.labs)}. Not judged, without a flow: {_listed(result.without_flows)}."]
    parts.append(_apps("Held out: tables fitted without the app's family", result.held_out))
    parts += [_apps("In sample: the tables that ship", result.shipped), _views(result.views)]
    parts += ["## Rules on the same apps and split", _rules(result.rules)]
    parts += [
        "## Pairs of legs, with volumes",
        _pairs(result.pairs),
        "## Pairs of legs, totals only",
        _pairs(result.totals),
        "## Pairs of legs by scenario, with volumes",
        _pairs(result.pairs_of_scenarios),
        "## Pairs of legs by rule",
        _pairs(result.pairs_of_rules),
    ]
    parts += ["## Single flows", _flows(result.flows), "## What each evidence adds", _ablation(result.ablation)]
    parts.append(_reliability(result.reliability))
    return "\n\n".join(parts) + "\n"


def _apps(title: str, apps: AppResult) -> str:
    figures = table(
        ("figure", "value (95 % interval)"),
        [
            ("relays, benign apps", f"{apps.relays}, {apps.benign}"),
            ("recall, called relay", apps.recall_relay),
            ("recall, called relay or suspected", apps.recall_flagged),
            ("benign apps called relay", apps.false_relay),
            ("benign apps called relay or suspected", apps.false_flagged),
            (f"false relays per app-day, of {apps.app_days:.2f} app-days", apps.false_relay_per_app_day),
            ("the same, relay or suspected", apps.false_flagged_per_app_day),
            ("area under the ROC curve, by families", apps.area),
            ("recall above every benign app", apps.recall_without_alarms),
        ],
    )
    rows = table(
        ("relays by", "apps", *VERDICTS, "topology right"),
        [(row.group, row.apps, *(row.verdicts[name] for name in VERDICTS), row.topology_right) for row in apps.rows],
    )
    return (
        f"## {title}\n\n{figures}\n\nMissed: {_listed(apps.missed)}.\n\nFalse alarms: {_listed(apps.false)}.\n\n{rows}"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _views(rows: Sequence[ViewRow]) -> str:
    """What cannot prove a relay is marked: there, a relay verdict would be a wrong claim."""
    head = ("telemetry", "apps", "number", "called relay or suspected", *VERDICTS, "of another topology")
    cells: list[tuple[Cell, ...]] = []
    for row in rows:
        name = row.telemetry if row.proves else f"{row.telemetry} (cannot prove)"
        for kind, counts in (("relays", row.relays), ("benign", row.benign)):
            recall, other = (row.recall, row.other_topology) if kind == "relays" else (None, None)
            cells.append((name, kind, counts.total(), recall, *(counts[verdict] for verdict in VERDICTS), other))
    return "## By kind of telemetry\n\n" + table(head, cells)


def _rules(rows: Sequence[RuleRow]) -> str:
    head = (
        "rule",
        "AUC",
        "recall above every benign app",
        "recall, families held out",
        "of relays that do not hide",
        "of hidden ones",
        "false alarms",
    )
    return table(head, [(r.rule, r.area, r.hindsight, r.recall, r.of_open, r.of_hidden, r.false_alarms) for r in rows])


def _pairs(rows: Sequence[BridgeRow]) -> str:
    rates = [f"TPR at FPR {rate:g}" for rate in FALSE_POSITIVE_RATES]
    head = ("relays", "true pairs", *rates, f"median of traces, at {FALSE_POSITIVE_RATES[0]:g}")
    return table(head, [(row.group, row.pairs, *row.found, row.median) for row in rows])


def _flows(rows: Sequence[FlowRow]) -> str:
    head = ("rule", "flows sought", "flows judged", "precision", "recall", "F1", "FPR")
    return table(head, [(r.rule, r.sought, r.flows, r.precision, r.recall, r.f1, r.false_positive_rate) for r in rows])


def _ablation(rows: Sequence[AblationRow]) -> str:
    head = ("left out", "relays at the bar", "benign at the bar", "recall above every benign app")
    return table(head, [(r.left_out, r.relays, r.benign, r.hindsight) for r in rows])


def _reliability(result: ReliabilityResult) -> str:
    groups = table(
        ("probability", "apps", "relays", "mean said", "observed", "observed if 1 in 1,000 relays"),
        [(g.label, g.apps, g.relays, g.expected, g.observed, g.weighted) for g in result.groups],
    )
    merged = table(
        ("merged", "apps", *VERDICTS),
        [(kind, sum(c.values()), *(c[name] for name in VERDICTS)) for kind, c in result.merged.items()],
    )
    return (
        f"## Programs merged into one app\n\n{merged}\n\n## Reliability, on apps and merged apps\n\n{groups}\n\n"
        f"Brier score {result.brier:.4f}, expected calibration error {result.calibration_error:.4f}; if one app in "
        f"1,000 relays, {result.brier_weighted:.5f} and {result.calibration_error_weighted:.5f}."
    )


def as_json(result: Evaluation) -> str:
    """The whole evaluation as JSON, with `evaluation_version`; figures that are no numbers are null."""
    return json.dumps({"evaluation_version": EVALUATION_VERSION, **_plain(result)}, indent=1, allow_nan=False)


def _plain(value: Any) -> Any:  # noqa: ANN401  any part of the result
    if isinstance(value, Estimate):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
