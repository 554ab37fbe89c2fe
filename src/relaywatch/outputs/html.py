"""The report: findings as one self-contained HTML page that loads nothing, runs nothing, and prints.

Every text goes through `printable` (as Jinja's finalize) and then autoescape; hosts are defanged. The same findings
give the same bytes: the page holds no clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from jinja2 import Environment

from relaywatch.model.finding import Evidence, Finding, Topology, Verdict
from relaywatch.outputs import charts, text
from relaywatch.outputs.pages import page_environment, write_page
from relaywatch.outputs.ranking import gravest_first, prior_log_odds, verdict_counts
from relaywatch.outputs.summary import HuntSummary

SHOWN_DESTINATIONS: Final = 10
SHOWN_FINDINGS: Final = 200
"""Findings on one page (about 9 MB), gravest first; the page says how many more there are."""
SHOWN_SOURCES: Final = 200


def render_report(findings: Sequence[Finding], summary: HuntSummary) -> str:
    """Return the page as text. Findings stand gravest first, then by probability."""
    ordered = gravest_first(findings)
    shown = ordered[:SHOWN_FINDINGS]
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            findings=shown,
            left_out=len(ordered) - len(shown),
            counts=verdict_counts(ordered),
            summary=summary,
            producers=sorted({item.producer for item in ordered}),
            first=min((text.utc(item.first_seen) for item in ordered), default=None),
            last=max((text.utc(item.last_seen) for item in ordered), default=None),
            Verdict=Verdict,
            Topology=Topology,
            shown_destinations=SHOWN_DESTINATIONS,
            shown_sources=SHOWN_SOURCES,
        )
    )


def write_report(findings: Sequence[Finding], summary: HuntSummary, path: Path) -> None:
    """Write the page to `path`. Raises RelaywatchError where that cannot be written."""
    write_page(path, render_report(findings, summary))


@cache
def _environment() -> Environment:
    environment = page_environment()
    names = (
        "defang",
        "endpoint",
        "size",
        "instant",
        "period",
        "percent",
        "signed",
        "factor",
        "amount",
        "plural",
        "where",
    )
    environment.filters.update({name: getattr(text, name) for name in names})
    environment.filters["duration"] = text.duration
    environment.globals.update(
        app_title=text.app_title,
        sentence=text.sentence,
        first_step=text.first_step,
        step_text=text.step,
        why_suspected=text.why_suspected,
        lateral_movement=text.lateral_movement,
        systems=text.systems,
        indicator=text.indicator,
        short_id=text.short_id,
        fleet=text.fleet,
        verdict_text=text.VERDICT_TEXT,
        topology_text=text.TOPOLOGY_TEXT,
        timeline=charts.timeline,
        balance=charts.balance,
        diverging=_diverging,
        prior=prior_log_odds,
    )
    return environment


def _diverging(item: Evidence, finding: Finding) -> tuple[float, float]:
    """Return left edge and width of an item's bar, axis -100 to 100; the finding's largest item fills its side."""
    largest = max((abs(each.log_likelihood_ratio) for each in finding.evidence), default=0) or 1
    share = item.log_likelihood_ratio / largest
    length = round(100 * share, 1) if math.isfinite(share) else 0.0
    return (min(length, 0.0), max(abs(length), 1.0))
