"""How each number of the assurance report is obtained: what it means, and which part's command gives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from relaywatch.model.assurance import AssuranceReport
from relaywatch.outputs.assurance_text import PROMISED_RECALL, share
from relaywatch.outputs.text import printable

NOT_GIVEN: Final = "not recorded"


@dataclass(frozen=True, slots=True)
class Definition:
    """What a number means. part: key of the report's commands; number: its place in the list, from 1."""

    number: int
    name: str
    meaning: str
    part: str


_TEXTS: Final = {
    "devices": (
        "coverage",
        "Devices",
        "Distinct devices that any source or inventory names; a device under several names counts once.",
    ),
    "silent": ("coverage", "Silent devices", "Devices that an inventory names and no flow is seen of."),
    "app_windows": (
        "coverage",
        "App windows",
        "One app on one device in one window. Flows that no app is known for, and devices without flows, stand as one "
        "more.",
    ),
    "watched": (
        "coverage",
        "Watched",
        "Share of the time in which a source that shows connections watched the device: mean over devices and windows.",
    ),
    "provable": (
        "coverage",
        "Provable",
        "Share of app windows by whether a relay would have been shown. Yes is a promise that drills check; in part "
        "promises nothing; no: no relay verdict can come of it. Of any kind: the least of the three kinds' answers.",
    ),
    "disprovable": (
        "coverage",
        "Disprovable",
        "Share of app windows in which no finding means no relay: every kind is provable, all of the time, on every "
        "interface, and every flow has its app.",
    ),
    "gap": ("coverage", "Held back", "Share of app windows that the gap holds back, in whole or in part."),
    "units": ("coverage", "Units", "Files or folders that were read as the format."),
    "span": ("coverage", "Span", "Time of the first record, and from it to the last."),
    "blanks": (
        "coverage",
        "Gaps of a source",
        "Times in which a source says of itself that it was blind or lost records.",
    ),
    "records": (
        "coverage",
        "Records",
        "Records that the sources hold. Put aside: those damaged, with file, position and reason.",
    ),
    "clock": ("coverage", "Clock error", "Largest error that the clock can have, by what the records state."),
    "fed": ("coverage", "Fed", "Share of device windows in which a source gave what the row asks for."),
    "blind": (
        "coverage",
        "Blind",
        "Share of device windows that lack the field in part or in whole; the trend is by window.",
    ),
    "cost": (
        "drill",
        "Recall it costs",
        "Of relays played where the gap is open, the share called relay only with the gap given back, in points of "
        "percent, with its 95 % interval.",
    ),
    "played": ("drill", "Played", "Relays of the kind that were played into copies of the population's telemetry."),
    "trials": ("drill", "Trials", "Relays that the figure rests on."),
    "recall": (
        "drill",
        "Recall",
        "Share of played relays called relay, or sanctioned relay, with its 95 % interval. Where coverage says "
        f"provable, at least {share(PROMISED_RECALL)} is promised.",
    ),
    "flagged": ("drill", "Flagged", "Share of played relays called relay or suspected relay, with its 95 % interval."),
    "time": ("drill", "Time to verdict", "Median over relays found of the time of relaying, and of sessions begun."),
    "decoys": (
        "drill",
        "Decoys",
        "Share of decoys called relay, with its 95 % interval: the same traffic with nothing passed on.",
    ),
    "alarms": (
        "drill",
        "Alarms of the site's own",
        "Verdicts per app-day on the site's own telemetry, with the 95 % interval. Nobody knows what relays there, so "
        "it is an upper bound of false alarms, not known false ones.",
    ),
    "exceptions": (
        "exceptions",
        "Exceptions",
        "Documented permissions to relay, by their end on the day of the report, and the findings each covers.",
    ),
    "findings": (
        "findings",
        "Findings",
        "Relay episodes by verdict, after exceptions. The probability is that of a relay, given the evidence.",
    ),
}
DEFINITIONS: Final = {
    key: Definition(number, name, meaning, part)
    for number, (key, (part, name, meaning)) in enumerate(_TEXTS.items(), start=1)
}


def command(report: AssuranceReport, part: str) -> str:
    """Return the command that gives a part's numbers, or that it is not recorded."""
    return printable(report.commands[part], limit=1000) if report.commands.get(part) else NOT_GIVEN


def how(report: AssuranceReport, key: str) -> str:
    """Say in one text how a number was obtained: its definition, and the command."""
    definition = DEFINITIONS[key]
    return f"{definition.meaning} Command: {command(report, definition.part)}"
