"""Hunts with tables that were fitted without what is hunted: whole families of programs held out in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from relaywatch.detection.calibration import Tables
from relaywatch.evaluation.app_traffic import AppColumns
from relaywatch.evaluation.fitting import LabelledLegs, fit
from relaywatch.evaluation.verdicts import found_in
from relaywatch.model.finding import Finding

ORDINARY: Final = "ordinary programs"


@dataclass(frozen=True, slots=True)
class HeldOut:
    """tables: those fitted without each family; findings: the gravest of each app by its family's, by trace name."""

    tables: dict[str, Tables]
    findings: dict[str, Finding]


def evaluate_held_out(columns: Sequence[AppColumns], progress: Callable[[str], None]) -> HeldOut:
    """Hunt each family that relays with tables of all others, among all ordinary apps.

    A hunt asks for less evidence of few apps than of many (FalseDiscoveryRate), so no family is hunted by itself.
    Tables are of relays only, so ordinary programs are hunted at once, with those of all relays.
    """
    relaying = {own.app.family for own in columns if own.app.relays}
    families = {own.app.name: own.app.family if own.app.family in relaying else ORDINARY for own in columns}
    held_out = HeldOut({}, {})
    for family in sorted(set(families.values())):
        progress(f"hunting {family} with tables of all others")
        tables = tables_without(columns, family)
        wanted = [own.app for own in columns if families[own.app.name] == family]
        others = [own.app for own in columns if families[own.app.name] != family and not own.app.relays]
        found = found_in([app.folder for app in [*wanted, *others]], tables)
        held_out.findings.update({app.name: found[app.name] for app in wanted if app.name in found})
        held_out.tables.update({app.family: tables for app in wanted})
    return held_out


def tables_without(columns: Sequence[AppColumns], family: str) -> Tables:
    """Tables fitted on every relay that is not of the family."""
    return fit(
        LabelledLegs(own.app.program, own.flows, own.volumes, own.client_legs)
        for own in columns
        if own.app.relays and own.app.family != family
    )
