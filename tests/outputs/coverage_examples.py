"""A site's telemetry coverage, as outputs take it."""

from dataclasses import replace
from datetime import date

from relaywatch.attack.provenance import attack_provenance
from relaywatch.outputs.coverage_scores import ComponentCoverage, Score
from relaywatch.outputs.dettect import Scope, TechniqueScores

ATTACK = attack_provenance(set())
SCOPE = Scope("Field phones", "Managed phones", date(2026, 11, 1), retention_days=90.0, notes="Measured by relaywatch")
SCORES = TechniqueScores(
    detection=(Score(date(2026, 10, 1), 1, "hunted by hand"), Score(date(2026, 11, 1), 3, "flows joined to apps")),
    visibility=(Score(date(2026, 11, 1), 4, "all four components"),),
    detection_comment="Relays on cellular networks are seen by the phone alone",
)

COVERAGE = ComponentCoverage(
    component="Network Traffic Flow",
    devices_share=0.8,
    fields_share=1.0,
    delay_s=300.0,
    consistency_share=0.9,
    retention_days=90.0,
    products=("Zeek", "PCAPdroid"),
    first_seen=date(2026, 9, 1),
    clock_error_s=2.0,
)
COVERAGES = tuple(
    replace(COVERAGE, component=name)
    for name in (
        "OS API Execution",
        "Application Permission",
        "Network Traffic Flow",
        "Network Traffic Content",
        "Application State",
    )
)


def without(*components: str) -> list[ComponentCoverage]:
    """The coverages, with these components on no device."""
    return [replace(one, devices_share=0.0) if one.component in components else one for one in COVERAGES]
