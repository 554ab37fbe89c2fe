"""All enrichment of one hunt, loaded before anything is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from relaywatch.enrichment.autonomous_systems import AutonomousSystems
from relaywatch.enrichment.indicators import Indicators, bundled_indicators, load_indicators


@dataclass(frozen=True, slots=True)
class Enrichment:
    """systems: None where no database was given."""

    indicators: Indicators = field(default_factory=bundled_indicators)
    systems: AutonomousSystems | None = None


def load_enrichment(asn: Path | None, indicators: Path | None) -> Enrichment:
    """Enrichment from a database of autonomous systems and a site's own indicators, which come on top of the bundled.

    Raises EnrichmentError where a file is given and cannot be used.
    """
    held = bundled_indicators()
    return Enrichment(
        held if indicators is None else held.extended(load_indicators(indicators)),
        None if asn is None else AutonomousSystems(asn),
    )
