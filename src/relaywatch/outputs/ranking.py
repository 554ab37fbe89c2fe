"""What comes first, the same in every output: grave findings, strong bridges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from relaywatch.model.finding import Bridge, Finding, Verdict

_PLACE: Final = {verdict: place for place, verdict in enumerate(Verdict)}


def verdict_counts(findings: Iterable[Finding]) -> dict[Verdict, int]:
    """Count findings per verdict, every verdict present, gravest first."""
    counts = dict.fromkeys(Verdict, 0)
    for finding in findings:
        counts[finding.verdict] += 1
    return counts


def gravest_first(findings: Iterable[Finding]) -> list[Finding]:
    """Order findings by verdict, then probability, then id, so that the order never depends on the input's."""
    return sorted(findings, key=lambda item: (_PLACE[item.verdict], -item.probability, item.finding_id))


def strongest_bridges(finding: Finding, most: int) -> Sequence[Bridge]:
    """Return up to `most` bridges by likelihood ratio; those whose legs the finding does not list are left out."""
    clients, targets = len(finding.client_legs), len(finding.target_legs)
    known = (item for item in finding.bridge_list if 0 <= item.client < clients and 0 <= item.target < targets)
    return sorted(known, key=lambda item: (-item.log_likelihood_ratio, item.target, item.client))[:most]


def prior_log_odds(finding: Finding) -> float:
    """Return the log odds before the evidence: the score without its items."""
    return finding.score - sum(item.log_likelihood_ratio for item in finding.evidence)
