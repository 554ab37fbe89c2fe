"""How values become text that is safe to show: one place for escaping, defanging, sizes, times and ratios.

Names of apps, hosts and files come from a suspect phone. Nothing here knows terminal or HTML; those add their own
quoting on top (rich Text, Jinja autoescape).
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from relaywatch.model.finding import Finding, SourceRecord, Topology, Verdict

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

_SHOWN_CHARACTERS: Final = 512
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
    """Return the defanged address with its port, IPv6 in brackets; the address alone where the port varies."""
    shown = defang(address)
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


def factor(log_ratio: float) -> str:
    """Write a log likelihood ratio as what it multiplies the odds by: ×12.2, ×0.27, ×3.1e+08."""
    ratio = math.exp(min(max(log_ratio, -700.0), 700.0))
    return f"×{ratio:.1e}" if ratio >= 1e5 or ratio < 1e-3 else f"×{ratio:,.0f}" if ratio >= 100 else f"×{ratio:.3g}"


def amount(value: float | None, unit: str) -> str:
    """Write a measured value with its unit; empty where there is none."""
    if value is None:
        return ""
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
    return (
        f"{plural(spread.destinations, 'destination')} in {plural(spread.prefixes, 'network')}, "
        f"up to {spread.peak_concurrent} at one time"
    )


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


def first_step(finding: Finding) -> str:
    """Return the first of the plain first steps; empty where there is none."""
    steps: Sequence[str] = (*finding.response.preserve, *finding.response.ask, *finding.response.contain)
    return printable(steps[0]) if steps else ""
