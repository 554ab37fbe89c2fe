"""What is promised of coverage in others' scores: what permissions rest on, and what drills show, decides them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from scenarios import DIGEST, NOW
from sites import batches_of, covered, phone

from relaywatch.assurance.readiness import readiness
from relaywatch.detection.settings import Settings
from relaywatch.governance.exceptions import DocumentedException, Exceptions
from relaywatch.model.assurance import DrillReport, DrillRow, Figure


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return covered(batches_of(phone(1)), tmp_path_factory.mktemp("site")).report


def permission(**further):
    entry = {
        "id": "a",
        "package": "com.x",
        "owner": "netops",
        "reason": "test",
        "expires": datetime(2027, 1, 1, tzinfo=UTC),
    }
    return Exceptions((DocumentedException(**(entry | further)),))


def ready(report, exceptions=None, drill=None, **settings):
    return readiness(report, drill, Settings(**settings), exceptions or Exceptions(()), NOW, "site")


def test_without_permissions_the_verdict_is_as_robust_as_its_evidence(report):
    found = ready(report)
    assert (str(found.robustness), found.lowered) == ("4H", "")


def test_a_permission_by_package_name_alone_lowers_it_to_a_name(report):
    found = ready(report, permission())
    assert str(found.robustness) == "1A"
    assert "1 of 1 permissions" in found.lowered


def test_a_digest_counts_where_signatures_are_seen(report):
    assert ready(report, permission(signing_digest=DIGEST)).robustness.level == 4
    unseen = report.model_copy(update={"feeds": [f.model_copy(update={"digests": False}) for f in report.feeds]})
    assert str(ready(unseen, permission(signing_digest=DIGEST)).robustness) == "1A"


def test_a_permission_that_ended_before_the_telemetry_excuses_nothing(report):
    assert ready(report, permission(expires=datetime(2001, 1, 1, tzinfo=UTC))).lowered == ""


def test_allowed_apps_count_as_permissions(report):
    assert str(ready(report, allowed_app_list=("com.x",)).robustness) == "1A"
    assert ready(report, allowed_app_list=(f"com.x@{DIGEST}",)).robustness.level == 4


def test_drills_stand_in_the_score_of_detection(report):
    row = DrillRow(
        topology="tunnel",
        population="all devices",
        provable="yes",
        played=10,
        relay=Figure(value=0.8, low=0.4, high=0.97, trials=10),
        flagged=Figure(value=1.0, low=0.7, high=1.0, trials=10),
        seconds=None,
        sessions=None,
    )
    none = Figure(value=None, low=0.0, high=None, trials=0)
    told = {"decoys": none, "site_alarms": none, "site_relays": none, "app_days": 0.0, "costs": {}}
    drill = DrillReport(seed=0, episodes=10, plan={}, rows=[row], producer="relaywatch", **told)
    assert "80% of drilled relays found" in ready(report, drill=drill).scores.detection[0].comment
    assert "drilled" not in ready(report).scores.detection[0].comment


def test_components_are_those_of_the_rows_with_what_fed_them(report):
    found = {part.component: part for part in ready(report).components}
    assert found["Network Traffic Content"].devices_share == 1.0
    assert found["Network Traffic Content"].products == ("canonical-parquet",)
    assert found["Application State"].fields_share == 1.0
