from __future__ import annotations

import json
import re
from functools import cache

import pytest
from golden_findings import EXAMPLES, EXPECTED, HUNTS, REPOSITORY, TODAY, found, hunt_examples

from relaywatch.engines import contacts
from relaywatch.enrichment.indicators import Indicator, Indicators
from relaywatch.enrichment.loading import Enrichment

RELAYS = {
    "T1048": "accepted",
    "T1270": "accepted",
    "T1531": "accepted",
    "T1604": "back_connect",
    "T1239": "back_connect",
    "T1419": "tunnel",
    "T1165": "tunnel",
    "T1866": "tunnel",
}
BENIGN = ("T1051", "T1126", "T1273", "T1312", "T1534", "T1606", "T1716", "T1791")
FLEET_RELAYS = {
    ("D4100", 10294): ("relay", "accepted"),
    ("D4108", 10376): ("suspected_relay", "tunnel"),
    ("D4108", 10218): ("relay", "accepted"),
}
PACKAGES = {row["package"] for rows in json.loads(EXPECTED.read_text(encoding="utf-8")).values() for row in rows}
OWN_LAPTOP = "com.luckyopen.recipes"


@cache
def traces():
    return {finding.device.uid: finding for finding in hunt_examples("traces").findings}


@pytest.mark.parametrize("name", HUNTS)
def test_the_findings_are_those_on_record(name):
    """Where a change is meant: python tests/golden/regenerate.py, and say in the commit why."""
    assert found(name) == json.loads(EXPECTED.read_text(encoding="utf-8"))[name]


@pytest.mark.parametrize("trace", RELAYS)
def test_every_relay_is_found_with_its_topology(trace):
    finding = traces()[trace]
    assert (finding.verdict, finding.topology) == ("relay", RELAYS[trace])


@pytest.mark.parametrize("trace", BENIGN)
def test_no_hard_negative_is_called_anything(trace):
    assert (EXAMPLES / "traces" / trace / "flows.csv").exists()
    assert trace not in traces()


def test_every_trace_is_either_a_relay_or_a_hard_negative_here():
    assert {path.name for path in (EXAMPLES / "traces").iterdir()} == {*RELAYS, *BENIGN}


def test_on_devices_with_many_apps_the_relaying_app_is_named_and_no_other():
    result = hunt_examples("fleet")
    assert result.summary.apps == 14
    verdicts = {(f.device.uid, f.app.uid): (f.verdict, f.topology) for f in result.findings}
    assert verdicts == FLEET_RELAYS


def _verdicts(enrichment):
    findings = hunt_examples("traces", "fleet", enrichment=enrichment).findings
    return {f.finding_id: (f.verdict, f.probability) for f in findings}


def test_without_look_ups_and_indicators_every_verdict_stands(monkeypatch):
    usual = _verdicts(None)
    monkeypatch.setattr(contacts, "is_public_ip_service", lambda _: False)
    assert {key: verdict for key, (verdict, _) in _verdicts(Enrichment(Indicators.of([]))).items()} == {
        key: verdict for key, (verdict, _) in usual.items()
    }


def test_were_every_name_a_look_up_and_an_indicator_no_verdict_would_change(monkeypatch):
    usual = _verdicts(None)
    about = {"family": "x", "source": "x", "licence": "x", "retrieved": TODAY.date()}
    tops = ("com", "org", "net", "io", "app", "dev", "example", "test", "info", "de", "tv")
    every = [Indicator.model_construct(value=top, kind="domain", **about) for top in tops]
    packages = {package for package in PACKAGES if package}
    every += [Indicator.model_construct(value=package, kind="package", **about) for package in packages]
    monkeypatch.setattr(contacts, "is_public_ip_service", lambda _: True)
    named = _verdicts(Enrichment(Indicators.of(every)))
    assert {key: verdict for key, (verdict, _) in named.items()} == {
        key: verdict for key, (verdict, _) in usual.items()
    }
    assert all(named[key][1] >= probability for key, (_, probability) in usual.items())


def test_a_documented_exception_sanctions_its_relay_and_no_other():
    before = {f.finding_id: f for f in hunt_examples("traces", "fleet").findings}
    after = {f.finding_id: f for f in hunt_examples("traces", "fleet", exceptions=True).findings}
    assert before.keys() == after.keys()
    for key, finding in after.items():
        own = finding.app.package == OWN_LAPTOP
        assert before[key].verdict in {"relay", "suspected_relay"}
        assert finding.verdict == ("sanctioned_relay" if own else before[key].verdict)
        assert (finding.exception is not None) == own
        assert finding.evidence == before[key].evidence


@pytest.mark.parametrize("name", HUNTS)
def test_the_examples_are_read_whole(name):
    summary = hunt_examples(name).summary
    assert summary.quarantine.total == 0
    assert summary.unrecognised == []


@pytest.mark.parametrize("name", HUNTS)
def test_findings_name_files_of_the_examples(name):
    sources = [source.source for finding in hunt_examples(name).findings for source in finding.sources]
    assert sources
    assert all((REPOSITORY / source).is_file() and source.startswith("examples/") for source in sources)


def test_the_examples_hold_no_labels_and_no_path_of_a_machine():
    own = re.compile(rb"/(?:home|root|tmp|usr|work|mnt|Users)/")
    files = [path for path in EXAMPLES.rglob("*") if path.is_file()]
    assert len(files) > 50
    assert [path for path in files if "truth" in path.name or own.search(path.read_bytes())] == []
    assert str(REPOSITORY).encode() not in b"".join(path.read_bytes() for path in files)
