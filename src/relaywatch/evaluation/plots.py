"""The evaluation's curves as SVG: whole apps, pairs of legs, and whether probabilities mean what they say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from relaywatch.detection.columns import Flags, Floats
from relaywatch.evaluation.bridges import FALSE_POSITIVE_RATES
from relaywatch.evaluation.comparison import OURS
from relaywatch.evaluation.reliability import ReliabilityResult
from relaywatch.evaluation.run import Evaluation

OURS_WIDTH: Final = 2.5
OTHERS_WIDTH: Final = 1.0


def write_plots(result: Evaluation, folder: Path) -> list[Path]:
    """roc.svg, bridge_roc.svg and reliability.svg in the folder; the same evaluation gives the same files."""
    mpl.rcParams["svg.hashsalt"] = "relaywatch"
    return [
        _saved(_apps(result.curves, result.relays), folder / "roc.svg"),
        _saved(_pairs(result.pair_curves, result.pair_rates), folder / "bridge_roc.svg"),
        _saved(_reliability(result.reliability), folder / "reliability.svg"),
    ]


def _saved(figure: Figure, path: Path) -> Path:
    figure.savefig(path, metadata={"Date": None})
    return path


def _axes(title: str, across: str, up: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=across, ylabel=up)
    return figure, axes


def _width(rule: str) -> float:
    return OURS_WIDTH if rule.startswith(OURS) else OTHERS_WIDTH


def _apps(curves: Mapping[str, Floats], relays: Flags) -> Figure:
    figure, axes = _axes(
        "Whole apps, families held out", "benign apps at or above the score", "relays at or above the score"
    )
    for rule, scores in curves.items():
        false, true, _ = roc_curve(relays, scores)
        axes.plot(false, true, label=rule, linewidth=_width(rule))
    axes.legend(fontsize="x-small", loc="lower right")
    return figure


def _pairs(curves: Mapping[str, Floats], rates: Floats) -> Figure:
    figure, axes = _axes(
        "Pairs of legs, families held out", "share of all other pairs above the score", "share of true pairs above it"
    )
    for rate in FALSE_POSITIVE_RATES:
        axes.axvline(rate, color="lightgrey", linewidth=OTHERS_WIDTH)
    for rule, found in curves.items():
        axes.plot(rates, found, label=rule, linewidth=_width(rule))
    axes.set(xscale="log", ylim=(0.0, 1.02))
    axes.legend(fontsize="x-small", loc="center right")
    return figure


def _reliability(result: ReliabilityResult) -> Figure:
    figure, axes = _axes("Reliability, on apps and merged apps", "probability said", "share that relays")
    observed = [group.observed for group in result.groups]
    reach = [[own.value - own.low for own in observed], [own.high - own.value for own in observed]]
    axes.plot([0, 1], [0, 1], color="grey", linewidth=OTHERS_WIDTH)
    said = [group.expected for group in result.groups]
    axes.errorbar(said, [own.value for own in observed], yerr=reach, marker="o", capsize=3)
    return figure
