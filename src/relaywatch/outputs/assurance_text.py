"""How coverage and drills become words and short figures, the same in terminal and report. Knows neither."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from relaywatch.model.assurance import (
    ALL_DEVICES,
    Answer,
    CoverageReport,
    DrillRow,
    Figure,
    Gap,
    GapShare,
    PopulationCoverage,
    Shares,
    TrendPoint,
)
from relaywatch.outputs.text import duration, plural, printable, utc

PROMISED_RECALL: Final = 0.95
"""Share of relays that `provable: yes` promises to show; drills check it."""
TOPOLOGIES: Final = {"accepted": "accepted", "back_connect": "back-connect", "tunnel": "tunnel"}
NOT_OBSERVED: Final = (
    "Where absence cannot be shown, an app without a finding is “not observed”: that is never the same as clean."
)
SITE_ALARMS: Final = (
    "These are verdicts on the site's own telemetry, of which nobody knows what relays: an upper bound of false "
    "alarms, not known false ones."
)
LONGEST_NAME: Final = 80
"""Characters of a name within a sentence."""
DAY_S: Final = 86_400.0
_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_WIDEST_TREND: Final = 16


@dataclass(frozen=True, slots=True)
class GroupCoverage:
    """One group over all of its windows; shares are means over its app windows."""

    group: str
    windows: int
    devices: int
    app_windows: int
    watched: float
    provable: dict[str, Shares]
    disprovable: Shares
    gaps: list[GapShare]
    remedies: list[str]


def grouped(populations: Sequence[PopulationCoverage]) -> list[GroupCoverage]:
    """Return each group over its windows, in the order of the report."""
    by_group: dict[str, list[PopulationCoverage]] = defaultdict(list)
    for population in populations:
        by_group[population.group].append(population)
    return [_group(name, rows) for name, rows in by_group.items()]


def _group(name: str, rows: Sequence[PopulationCoverage]) -> GroupCoverage:
    held: dict[str, float] = defaultdict(float)
    wanted: dict[str, int] = defaultdict(int)
    total = sum(row.app_windows for row in rows) or 1
    for row in rows:
        for gap in row.gaps:
            held[gap.name] += gap.share * row.app_windows / total
        for source in row.remedies:
            wanted[source] += row.app_windows
    gaps = [GapShare(name=gap, share=min(share, 1.0)) for gap, share in held.items()]
    return GroupCoverage(
        group=name,
        windows=len(rows),
        devices=max(row.devices for row in rows),
        app_windows=sum(row.app_windows for row in rows),
        watched=sum(row.watched * row.devices for row in rows) / (sum(row.devices for row in rows) or 1),
        provable={
            topology: _mean([(row.provable[topology], row.app_windows) for row in rows])
            for topology in rows[0].provable
        },
        disprovable=_mean([(row.disprovable, row.app_windows) for row in rows]),
        gaps=sorted(gaps, key=lambda gap: (-gap.share, gap.name)),
        remedies=sorted(wanted, key=lambda source: -wanted[source]),
    )


def _mean(weighted: Sequence[tuple[Shares, int]]) -> Shares:
    total = sum(weight for _, weight in weighted)
    parts = {
        answer.value: sum(getattr(shares, answer.value) * weight for shares, weight in weighted) / (total or 1)
        for answer in Answer
    }
    return Shares(**parts)


def whole_fleet(report: CoverageReport) -> GroupCoverage | None:
    """Return what holds of every device together; None where nothing was watched."""
    if not report.populations:
        return None
    together = [population for population in report.populations if population.group == ALL_DEVICES]
    return _group(ALL_DEVICES, together or report.populations)


def separate_groups(populations: Sequence[PopulationCoverage]) -> list[PopulationCoverage]:
    """Return the populations that hold each device once: the groups, or all devices where there are none."""
    several = len({population.group for population in populations}) > 1
    return [population for population in populations if not (several and population.group == ALL_DEVICES)]


def share(value: float) -> str:
    """Write a share in percent that never rounds to none or to all: 62 %, < 1 %, > 99 %."""
    return f"{share_number(value)} %"


def share_number(value: float) -> str:
    """Write a share in whole percent without the sign."""
    if 0.0 < value < 0.005:
        return "< 1"
    if 0.995 < value < 1.0:
        return "> 99"
    return f"{100 * max(0.0, value):.0f}"


def answers(shares: Shares) -> str:
    """Write the answers that occur, each with its share: yes 62 %, in part 30 %, no 8 %."""
    named = ((answer_word(answer), float(getattr(shares, answer.value))) for answer in Answer)
    return ", ".join(f"{word} {share(value)}" for word, value in named if value > 0.0)


def answer_word(answer: str) -> str:
    """Write an answer as a word: in_part as in part."""
    return printable(answer.replace("_", " "))


def topology_word(name: str) -> str:
    """Write a topology as people do: back-connect."""
    return TOPOLOGIES.get(name, printable(name.replace("_", " "), limit=LONGEST_NAME))


def gap_words(name: str, gaps: Iterable[Gap]) -> str:
    """Return what a gap's name means; the name itself where the report does not say."""
    return next((printable(gap.statement) for gap in gaps if gap.name == name), printable(name.replace("_", " ")))


def figure(value: Figure) -> str:
    """Write a share with its 95 % interval: 97 % (94 to 99)."""
    if value.value is None:
        return "not measured"
    return f"{share(value.value)} ({interval(value)})"


def interval(value: Figure) -> str:
    """Write a share's 95 % interval in percent without the sign: 94 to 99."""
    return f"{share_number(value.low)} to {share_number(1.0 if value.high is None else value.high)}"


def rate(value: Figure) -> str:
    """Write a rate with its 95 % interval: 0.012 (0.004 to 0.03)."""
    if value.value is None:
        return "not measured"
    high = "no bound" if value.high is None else _two_digits(value.high)
    return f"{_two_digits(value.value)} ({_two_digits(value.low)} to {high})"


def app_days(days: float) -> str:
    """Write an exposure: 9,800.0 app-days, 0.29 app-days."""
    return f"{f'{days:,.1f}' if days >= 10 else f'{days:.2g}'} app-days"


def _two_digits(value: float) -> str:
    """Two digits that count, and never an exponent for what is above one."""
    return f"{value:.2g}" if value < 100 else f"{float(f'{value:.2g}'):,.0f}"


def recall_cost(value: Figure | None) -> str:
    """Write recall lost, in points of percent with a sign; a dash where no drill says."""
    if value is None or value.value is None:
        return "–"
    return (
        f"{_points(value.value)} points ({_points(value.low)} to {_points(1.0 if value.high is None else value.high)})"
    )


def _points(value: float) -> str:
    return f"{100 * value:.0f}".replace("-0", "0").replace("-", "−")


def broken(row: DrillRow) -> bool:
    """Whether coverage promised that such a relay is shown, and the drill's whole interval is below the promise."""
    high = row.relay.high
    return row.provable == Answer.YES and row.relay.value is not None and high is not None and high < PROMISED_RECALL


def drill_outcome(row: DrillRow) -> str:
    """Say whether a drill kept the promise: kept, in doubt (below it, perhaps by chance), broken, none, not played."""
    if row.relay.value is None:
        return "not played"
    if row.provable != Answer.YES:
        return "no promise"
    if broken(row):
        return "promise broken"
    return "promise kept" if row.relay.value >= PROMISED_RECALL else "promise in doubt"


def broken_promise(row: DrillRow) -> str:
    """Put a broken promise in one sentence."""
    where = printable(row.population, limit=LONGEST_NAME)
    return (
        f"Promise broken: {topology_word(row.topology)} relays in {where} were said to be provable, and "
        f"{figure(row.relay)} of {plural(row.played, 'played relay')} were found; "
        f"{share(PROMISED_RECALL)} is promised."
    )


def spark(trend: Sequence[TrendPoint]) -> str:
    """Draw shares as block characters, oldest first; empty for fewer than two windows."""
    if len(trend) < 2:
        return ""
    shares = thinned([point.share for point in trend], _WIDEST_TREND)
    return "".join(_BLOCKS[min(int(min(max(value, 0.0), 1.0) * len(_BLOCKS)), len(_BLOCKS) - 1)] for value in shares)


def thinned(values: Sequence[float], most: int) -> list[float]:
    """Return at most `most` values, each the mean of a stretch; first and last stretch are kept."""
    if len(values) <= most:
        return list(values)
    edges = [len(values) * k // most for k in range(most + 1)]
    return [sum(values[low:high]) / (high - low) for low, high in pairwise(edges)]


def course(trend: Sequence[TrendPoint]) -> str:
    """Say how a share went from the first window to the last: 10 % → 60 %, steady; empty for one window."""
    if len(trend) < 2:
        return ""
    first, last = trend[0].share, trend[-1].share
    if abs(last - first) < 0.005:
        return "steady"
    return f"{share(first)} → {share(last)}"


def window_name(start: datetime, window_s: float) -> str:
    """Write a window by its day, with its begin where windows are no whole days."""
    return f"{utc(start):%Y-%m-%d}" if window_s % DAY_S == 0.0 else f"{utc(start):%Y-%m-%d %H:%M}"


def window_length(report: CoverageReport) -> str:
    """Write how long a window is."""
    return duration(timedelta(seconds=report.window_s))


def seconds(value: float | None) -> str:
    """Write seconds for people; a dash where there are none."""
    return "–" if value is None else duration(timedelta(seconds=value))
