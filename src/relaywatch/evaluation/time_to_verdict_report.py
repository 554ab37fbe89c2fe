"""Time to verdict as Markdown and JSON: each app's course, and medians by kind of relay."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, Final, NamedTuple

from relaywatch.evaluation.time_to_verdict import BAR_SECONDS, BAR_SESSIONS, Course, Step
from relaywatch.model.finding import Verdict

CALLED: Final = (Verdict.SUSPECTED_RELAY, Verdict.RELAY)
NEVER: Final = math.inf
FORMAT: Final = "relaywatch-time-to-verdict/1"


def as_json(found: Sequence[Course], step_s: int) -> dict[str, Any]:
    """All courses and their summary; seconds and sessions are null where there was no such verdict."""
    return {
        "format": FORMAT,
        "step_s": step_s,
        "bar": {"seconds": BAR_SECONDS, "sessions": BAR_SESSIONS},
        "summary": [
            row._asdict() | {"seconds": _or_none(row.seconds), "sessions": _or_none(row.sessions)}
            for row in summary(found)
        ],
        "apps": [_app_object(course) for course in found],
    }


def _app_object(course: Course) -> dict[str, Any]:
    app, last = course.app, course.steps[-1]
    labels = {name: getattr(app, name) for name in ("name", "label", "program", "scenario", "evasion", "topology")}
    verdicts = {
        str(verdict): {"first": _point(course.first(verdict)), "stays": _point(course.settled(verdict))}
        for verdict in CALLED
    }
    changes = [
        {"seconds": step.seconds, "sessions": step.sessions, "verdict": step.verdict} for step in course.changes()
    ]
    return {**labels, "seconds": last.seconds, "sessions": last.sessions, **verdicts, "changes": changes}


def _point(step: Step | None) -> dict[str, Any] | None:
    return None if step is None else {"seconds": step.seconds, "sessions": step.sessions}


def _or_none(value: float) -> float | None:
    return None if value == NEVER else value


class SummaryRow(NamedTuple):
    """One kind of relay and one verdict: when it stays, as medians (NEVER where most relays never get it)."""

    kind: str
    verdict: Verdict
    relays: int
    called: int
    in_time: int
    seconds: float
    sessions: float


def summary(found: Sequence[Course]) -> list[SummaryRow]:
    """By topology, evaded or not, and in all; a relay without the verdict counts as later than all others."""
    relays = [course for course in found if course.app.relays]
    kinds: dict[str, list[Course]] = {}
    for course in sorted(relays, key=lambda c: (c.app.topology, bool(c.app.evasion))):
        kinds.setdefault(f"{course.app.topology}{', evading' if course.app.evasion else ''}", []).append(course)
    kinds["not evading"] = [course for course in relays if not course.app.evasion]
    kinds["all relays"] = relays
    return [_summed(kind, own, verdict) for kind, own in kinds.items() if own for verdict in CALLED]


def _summed(kind: str, own: Sequence[Course], verdict: Verdict) -> SummaryRow:
    settled = [course.settled(verdict) for course in own]
    return SummaryRow(
        kind=kind,
        verdict=verdict,
        relays=len(own),
        called=sum(step is not None for step in settled),
        in_time=sum(course.in_time(verdict) for course in own),
        seconds=median(NEVER if step is None else step.seconds for step in settled),
        sessions=median(NEVER if step is None else float(step.sessions) for step in settled),
    )


def markdown(found: Sequence[Course], step_s: int) -> str:
    """The courses and their summary as Markdown tables."""
    return "\n".join([*_summary_lines(found, step_s), "", *_relay_lines(found), "", *_benign_lines(found)])


def _summary_lines(found: Sequence[Course], step_s: int) -> Iterator[str]:
    bar = f"{BAR_SECONDS:g} s or {BAR_SESSIONS} sessions"
    yield f"Cut every {step_s} s. In time: the verdict stays from {bar} on, whichever is later, or before."
    yield ""
    yield "| relays | verdict | count | called | in time | median seconds | median sessions |"
    yield "|---|---|---|---|---|---|---|"
    for row in summary(found):
        yield (
            f"| {row.kind} | {row.verdict} | {row.relays} | {row.called} | {row.in_time} "
            f"| {_number(row.seconds)} | {_number(row.sessions)} |"
        )


def _relay_lines(found: Sequence[Course]) -> Iterator[str]:
    yield "Seconds / sessions of relaying, when the verdict was first given and from when it stays."
    yield ""
    yield (
        "| trace | scenario | topology | evasion | sessions in s | suspected: first | stays | relay: first | stays "
        "| in time |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for course in found:
        app, last = course.app, course.steps[-1]
        if not app.relays:
            continue
        cells = [_cell(step) for v in CALLED for step in (course.first(v), course.settled(v))]
        kept = ", ".join(v.removesuffix("_relay") for v in CALLED if course.in_time(v)) or "no"
        yield (
            f"| {app.name} | {app.scenario} | {app.topology} | {app.evasion} | {last.sessions} in {last.seconds:.0f} "
            f"| {' | '.join(cells)} | {kept} |"
        )


def _benign_lines(found: Sequence[Course]) -> Iterator[str]:
    benign = [course for course in found if not course.app.relays]
    alarmed = [course for course in benign if course.first(Verdict.SUSPECTED_RELAY) is not None]
    looks = sum(len(course.steps) for course in benign)
    yield f"Apps that do not relay: {len(benign)}, looked at {looks} times; called at any moment: {len(alarmed)}."
    for course in alarmed:
        yield ""
        steps = ", ".join(f"{step.verdict or 'none'} from {step.seconds:.0f} s" for step in course.changes())
        yield f"- {course.app.name} ({course.app.scenario}): {steps}"


def _number(value: float) -> str:
    return "never" if value == NEVER else f"{value:.0f}"


def _cell(step: Step | None) -> str:
    """Seconds / sessions."""
    return "never" if step is None else f"{step.seconds:.0f} / {step.sessions}"
