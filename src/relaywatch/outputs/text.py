"""How values become text that is safe to show: one place for escaping, defanging, sizes, times and ratios.

Names of apps, hosts and files come from a suspect phone. Nothing here knows terminal or HTML; those add their own
quoting on top (rich Text, Jinja autoescape).
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from relaywatch.model.finding import AutonomousSystem, Finding, IndicatorMatch, SourceRecord, Topology, Verdict

VERDICT_TEXT: Final = {
    Verdict.RELAY: "relay",
    Verdict.SUSPECTED_RELAY: "suspected relay",
    Verdict.SANCTIONED_RELAY: "sanctioned relay",
    Verdict.INSUFFICIENT_TELEMETRY: "insufficient telemetry",
}
TOPOLOGY_TEXT: Final = {
    Topology.ACCEPTED: "accepted: clients connect to the device",
    Topology.BACK_CONNECT: "back-connect: the device dials out once per session",
    Topology.TUNNEL: "tunnel: sessions multiplexed over long-lived connections",
}

RELAY_PROBABILITY: Final = 0.95
"""As detection has it, which outputs do not import: a probability below it is a suspicion at most."""
CORE_EVIDENCE: Final = frozenset({"conserved bridges", "link mirrors targets"})
"""Names of the items whose value counts sessions and whose ratio is bounded by chance."""
EXPLAINING_EVIDENCE: Final = frozenset(
    {"destinations of this install only", "public-IP look-up", "proxyware indicator"}
)
"""Names of the items that may raise the probability and never the verdict."""
_TOLD_ELSEWHERE: Final = frozenset({"organisations", "reach into private networks", "proxyware indicator"})
"""Names of facts that have a line of their own beside the context."""
_OF_SESSIONS: Final = " of the bridged sessions "
_SHOWN_CHARACTERS: Final = 512
SHORT_ID: Final = 8
STEP_CHARACTERS: Final = 2000
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that can move the cursor, hide text or reverse its order (bidi overrides are Cf)."""


def printable(text: str, *, limit: int = _SHOWN_CHARACTERS) -> str:
    """Return `text` on one line, every control, format, bidi or unassigned character as a visible escape.

    limit: characters of the result; a longer text is cut and ends in an ellipsis.
    """
    head = text[: limit + 1]
    if not (head.isascii() and head.isprintable()):
        head = "".join(_visible(character) for character in head)
    return head if len(head) <= limit else head[: limit - 1] + "…"


def _visible(character: str) -> str:
    if unicodedata.category(character) not in _INVISIBLE:
        return character
    point = ord(character)
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def defang(name: str) -> str:
    """Write a host, address or prefix so that nothing makes it a link: example[.]com, 192.0.2[.]1, 2001:db8:[:]1."""
    mark = ":" if ":" in name else "."
    before, dot, after = name.rpartition(mark)
    return printable(f"{before}[{mark}]{after}" if dot else name)


def endpoint(address: str, port: int | None) -> str:
    """Return the defanged address with its port, IPv6 in brackets; the address alone where the port varies.

    An empty address is one that the source does not show.
    """
    shown = defang(address) if address else "address not seen"
    if port is None:
        return shown
    return f"[{shown}]:{port}" if ":" in address else f"{shown}:{port}"


def size(count: float) -> str:
    """Write bytes in decimal units with three significant digits: 84.1 MB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 999.5 or unit == "TB":
            break
        count /= 1000
    if unit == "B":
        return f"{count:.0f} B"
    return f"{count:.2f} {unit}" if count < 9.995 else f"{count:.1f} {unit}" if count < 99.95 else f"{count:.0f} {unit}"


def duration(span: timedelta) -> str:
    """Write a span in its two largest units: 36 min 12 s."""
    seconds = max(span.total_seconds(), 0.0)
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    parts = ((whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s"))
    first = next(index for index, (amount, _) in enumerate(parts) if amount)
    return " ".join(f"{amount} {unit}" for amount, unit in parts[first : first + 2] if amount)


def utc(moment: datetime) -> datetime:
    """Return the moment in UTC; without a zone it is taken as UTC, so that output never depends on the machine."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def instant(moment: datetime) -> str:
    """Write a time for people, UTC, to the second: 2026-03-03 14:02:11 UTC."""
    return f"{utc(moment):%Y-%m-%d %H:%M:%S} UTC"


def period(first: datetime, last: datetime) -> str:
    """Write two times for people; the day is said once where both share it."""
    first, last = utc(first), utc(last)
    end = f"{last:%H:%M:%S}" if first.date() == last.date() else f"{last:%Y-%m-%d %H:%M:%S}"
    return f"{first:%Y-%m-%d %H:%M:%S} to {end} UTC"


def percent(probability: float) -> str:
    """Write a probability in percent that never rounds to certainty: 99.9 % and not 100 %."""
    share = 100 * probability
    if 0 < share < 0.1:
        return "< 0.1 %"
    if 99.9 < share < 100:
        return "> 99.9 %"
    return f"{share:.0f} %" if 1 <= share <= 99 or share in (0, 100) else f"{share:.1f} %"


def signed(log_ratio: float) -> str:
    """Write a log likelihood ratio with its sign and a real minus."""
    return f"{log_ratio:+.2f}".replace("-", "−")


def odds(log_odds: float) -> float:
    """Return the odds of natural log odds, bounded so that no sum of evidence overflows; NaN stays NaN."""
    return math.exp(min(max(log_odds, -700.0), 700.0))


def factor(log_ratio: float) -> str:
    """Write a log likelihood ratio as what it multiplies the odds by: ×12.2, ×0.27, ×3.1e+08."""
    ratio = odds(log_ratio)
    return f"×{ratio:.1e}" if ratio >= 1e5 or ratio < 1e-3 else f"×{ratio:,.0f}" if ratio >= 100 else f"×{ratio:.3g}"


def amount(value: float | None, unit: str) -> str:
    """Write a measured value with its unit; empty where there is none."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite" if value > 0 else "−infinite"
    if unit == "bytes":
        return size(value)
    if unit == "share":
        return f"{100 * value:.3g} %"
    shown = f"{value:,.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:.4g}"
    return f"{shown} {printable(unit)}".rstrip()


def plural(count: int, one: str, many: str = "") -> str:
    """Write a count with its noun: 1 relay, 3 relays."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def where(record: SourceRecord) -> str:
    """Write a source record as file:position."""
    return f"{printable(record.source)}:{record.position}"


def app_name(finding: Finding) -> str:
    """Name the app as the telemetry does: label and package, package, uid, or unknown."""
    title, package = app_title(finding), finding.app.package
    return f"{title} ({printable(package)})" if package and finding.app.label else title


def app_title(finding: Finding) -> str:
    """Return the app's label, else its package, else its uid, else unknown."""
    app = finding.app
    uid = f"uid {app.uid}" if app.uid is not None else "unknown app"
    return printable(app.label, limit=60) if app.label else printable(app.package) if app.package else uid


def unrelatedness(finding: Finding) -> str:
    """Say how far the destinations are from each other, in a phrase."""
    spread = finding.spread
    held = f" of {plural(spread.organisations, 'organisation')}" if spread.organisations is not None else ""
    return (
        f"{plural(spread.destinations, 'destination')} in {plural(spread.prefixes, 'network')}{held}, "
        f"up to {spread.peak_concurrent} at one time"
    )


def lateral_movement(finding: Finding) -> str:
    """Say, as surely as the verdict allows, that a client from outside reached private addresses; empty if none did."""
    count = finding.spread.lateral or sum(row.lateral for row in finding.destinations)
    reached = {
        Verdict.SUSPECTED_RELAY: "probably reached",
        Verdict.INSUFFICIENT_TELEMETRY: "may have reached",
    }.get(finding.verdict, "reached")
    into = f"a client from outside {reached} {plural(count, 'private destination')}"
    return f"{into}: lateral movement into the user's own network" if count else ""


def system(owner: AutonomousSystem) -> str:
    """Write an autonomous system: AS64496 Example Hosting."""
    number = f"AS{owner.number}" if owner.number is not None else ""
    return f"{number} {printable(owner.organisation or '')}".strip()


def systems(owners: Sequence[AutonomousSystem], most: int) -> str:
    """Write the first autonomous systems, and how many more there are; empty where none is known."""
    more = len(owners) - most
    return ", ".join(map(system, owners[:most])) + (f" and {more} more" if more > 0 else "")


def indicator(match: IndicatorMatch) -> str:
    """Write a match with what it matched, whose it is, its source and its licence; domains defanged."""
    name = defang(match.matched) if match.kind == "domain" else printable(match.matched)
    origin = printable(f"{match.source}, licence: {match.licence}, read {match.retrieved}")
    return f"{name}, {printable(match.kind)} of {printable(match.family)} ({origin})"


def sentence(finding: Finding) -> str:
    """Put the finding in one sentence: who carried what for whom."""
    accepted = finding.topology is Topology.ACCEPTED
    sides = (
        f"for {plural(len(finding.gateways), 'client')}"
        if accepted
        else f"through {plural(len(finding.gateways), 'gateway')}"
    )
    verb = {
        Verdict.RELAY: "carried",
        Verdict.SUSPECTED_RELAY: "probably carried",
        Verdict.SANCTIONED_RELAY: "carried, under a documented exception,",
        Verdict.INSUFFICIENT_TELEMETRY: "may have carried",
    }[finding.verdict]
    return (
        f"In {duration(finding.last_seen - finding.first_seen)} this app {verb} {plural(finding.bridges, 'session')} "
        f"{sides} to {plural(finding.spread.destinations, 'destination')}: "
        f"{size(finding.bytes_out)} out to them and {size(finding.bytes_in)} back."
    )


def short_id(finding: Finding) -> str:
    """Return the first characters of the finding's id, enough for `relaywatch explain`."""
    return printable(finding.finding_id[:SHORT_ID])


def fleet(devices: int, apps: int) -> str:
    """Say among what a hunt looked; flows without app identity have devices and no apps."""
    on = f"on {plural(devices, 'device')}"
    return f"{on}, apps unknown" if devices and not apps else f"in {plural(apps, 'app')} {on}"


def context_line(finding: Finding) -> str:
    """Put the context in one line; what is said of the same sessions, or is not observable, is named once.

    What has a line of its own, or was looked for and not there, is left out.
    """
    shares, others, unseen = [], [], []
    for fact in finding.context:
        share, of_sessions, state = fact.statement.partition(_OF_SESSIONS)
        if fact.name in _TOLD_ELSEWHERE:
            continue
        if fact.observability == "not_observable":
            unseen.append(printable(fact.name.replace("_", " ")))
        elif of_sessions:
            shares.append(printable(f"{share} {state}"))
        elif fact.value != 0.0:
            others.append(printable(fact.statement))
    parts = [
        f"of the bridged sessions {', '.join(shares)}" if shares else "",
        *others,
        f"not observable: {', '.join(unseen)}" if unseen else "",
    ]
    return "; ".join(part for part in parts if part)


def why_suspected(finding: Finding) -> str:
    """Say why a suspected relay is not called a relay; empty for every other verdict."""
    if finding.verdict is not Verdict.SUSPECTED_RELAY:
        return ""
    gaps = {gap.field for gap in finding.not_observable}
    reasons = ["no app identity"] if "app" in gaps else []
    reasons += _doubts(finding)
    if reasons:
        return "; ".join(reasons)
    if finding.probability < RELAY_PROBABILITY:
        return f"the evidence together gives less than {percent(RELAY_PROBABILITY)}"
    if _rests_on_names(finding):
        return f"without names and other installs the evidence gives less than {percent(RELAY_PROBABILITY)}"
    if "hostname" in gaps:
        return "most destinations carry no name, so one party cannot be told from many"
    if "direction" in gaps:
        return "who opened the connections is not shown"
    # Estimated bytes do not keep a finding from being a relay, missing ones do: a reason only where there is no other.
    return "bytes are estimated or missing" if "bytes" in gaps else "too few sessions within ByteSymmetryTolerance"


def _rests_on_names(finding: Finding) -> bool:
    """Whether the probability is that of a relay only with items that may not raise the verdict."""
    ratios = [item.log_likelihood_ratio for item in finding.evidence if item.name in EXPLAINING_EVIDENCE]
    raised = sum(ratio for ratio in ratios if ratio > 0.0)
    return raised > 0.0 and odds(finding.score - raised) < RELAY_PROBABILITY / (1.0 - RELAY_PROBABILITY)


def _doubts(finding: Finding) -> Iterator[str]:
    """What speaks against the evidence itself: one destination, few sessions, or less than chance could give."""
    if any(item.kind == "spread" and item.log_likelihood_ratio < 0 for item in finding.evidence):
        yield "the evidence rests on one destination"
    core = [item for item in finding.evidence if item.name in CORE_EVIDENCE]
    sessions = max((item.value for item in core if item.value is not None), default=None)
    fewest = _setting(finding, "RelaySessionThreshold")
    if sessions is not None and fewest is not None and sessions < fewest:
        yield f"{amount(sessions, '')} sessions, fewer than RelaySessionThreshold ({amount(fewest, '')})"
    bar = finding.evidence_bar
    strength = sum(item.log_likelihood_ratio for item in core)
    if core and bar is not None and strength < bar:
        alone = -math.log(_setting(finding, "FalseAlarmsPerAppDay") or 1.0)
        named = "FalseAlarmsPerAppDay" if bar <= alone else "FalseDiscoveryRate over all apps hunted"
        yield f"evidence {signed(strength)} is below the bar {signed(bar)} ({named})"


def _setting(finding: Finding, name: str) -> float | None:
    """Return the setting's number as it stood; None where the finding has none."""
    for use in finding.settings:
        if use.name == name:
            try:
                value = json.loads(use.value)
            except (ValueError, RecursionError):
                return None
            return float(value) if isinstance(value, int | float) else None
    return None


def step(text: str, finding: Finding) -> str:
    """Return a first-response step with the finding's addresses, hosts and prefixes defanged."""
    names = {row.name for row in finding.destinations}
    for remote in finding.gateways:
        names |= {remote.address, remote.hostname or ""}
    named = sorted((name for name in names if name and name in text), key=len, reverse=True)
    if not named:
        return printable(text, limit=STEP_CHARACTERS)
    pattern = r"(?<![\w.])(?:" + "|".join(map(re.escape, named)) + r")(?!\w)"
    return printable(re.sub(pattern, lambda match: defang(match[0]), text), limit=STEP_CHARACTERS)


def first_step(finding: Finding) -> str:
    """Return the first of the plain first steps; empty where there is none."""
    steps: Sequence[str] = (*finding.response.preserve, *finding.response.ask, *finding.response.contain)
    return step(steps[0], finding) if steps else ""
