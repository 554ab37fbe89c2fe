"""What names and databases add to a finding, and what they never do: make one, or make it graver."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from mmdb_examples import database, holder
from scenarios import (
    BENIGN,
    GATEWAY,
    RELAYS,
    Recorder,
    back_connect_relay,
    cloud_copy,
    found,
    hunted,
    listener_relay,
    site,
    without,
)

from relaywatch.detection.context import LOOKUP_WINDOW_S, MOST_FOR_INDICATORS
from relaywatch.detection.settings import Settings
from relaywatch.engines import contacts
from relaywatch.enrichment.autonomous_systems import AutonomousSystems
from relaywatch.enrichment.indicators import Indicator, Indicators
from relaywatch.enrichment.loading import Enrichment
from relaywatch.model.finding import Finding, Verdict
from relaywatch.model.schemas import SignalKind
from relaywatch.outputs.ocsf import severity
from relaywatch.outputs.text import why_suspected

GATE = "zs1.proxyjs.brdtnet.com"
EARNER = "com.brd.earnrewards"


def rng(seed: int = 31) -> np.random.Generator:
    return np.random.default_rng(seed)


def only(app: Recorder, **settings: object) -> Finding:
    (finding,) = found(app.batches(), **settings)
    return finding


def item(finding: Finding, name: str):
    return next((item for item in finding.evidence if item.name == name), None)


def fact(finding: Finding, name: str):
    return next((fact for fact in finding.context if fact.name == name), None)


def ask(app: Recorder, when: float, name: str = "api.ipify.org") -> Recorder:
    app.flow(when, when + 0.4, [(when + 0.1, 300, 400)], "198.51.100.40", hostname=name)
    return app


class TestOrganisations:
    @pytest.fixture
    def systems(self, tmp_path) -> AutonomousSystems:
        path = tmp_path / "asn.mmdb"
        networks = {
            "198.18.0.0/16": holder(64496, "Example Hosting"),
            "198.19.0.0/16": holder(64497, "EXAMPLE hosting"),
            "203.0.113.0/24": holder(64499, "Gate Example"),
        }
        path.write_bytes(database(networks))
        return AutonomousSystems(path)

    def test_finding_counts_organisations_and_names_each_destinations_and_gateways(self, systems):
        app = back_connect_relay(rng(), Recorder())
        plain, (finding,) = only(app), hunted(app.batches(), enrichment=Enrichment(systems=systems)).findings
        assert finding.spread.organisations == 1
        assert {row.autonomous_systems[0].number for row in finding.destinations} <= {64496, 64497}
        assert [(g.address, g.autonomous_system.organisation) for g in finding.gateways] == [(GATEWAY, "Gate Example")]
        assert "organisation" not in {gap.field for gap in finding.not_observable}
        assert (finding.verdict, finding.score) == (plain.verdict, plain.score)

    def test_without_a_database_organisations_are_not_observable(self):
        finding = only(back_connect_relay(rng(), Recorder()))
        assert finding.spread.organisations is None
        assert not any(row.autonomous_systems for row in finding.destinations)
        assert {g.autonomous_system for g in finding.gateways} == {None}
        assert "organisation" in {gap.field for gap in finding.not_observable}
        assert fact(finding, "organisations").observability == "not_observable"


class TestPrivateTargets:
    def relayed_to(self, address: str, make: Callable = listener_relay, client: str | None = None) -> Finding:
        app = make(rng(), Recorder())
        for row in app.rows["flows"]:
            if row["remote_hostname"] == site(3)["hostname"]:
                row |= {"remote_ip": address, "remote_hostname": None, "hostname_observability": 0}
            elif client is not None and row["direction_id"] == 1:
                row["remote_ip"] = client
        return only(app)

    @pytest.mark.parametrize("make", [listener_relay, back_connect_relay])
    def test_private_target_of_an_outside_client_is_lateral_movement(self, make):
        finding = self.relayed_to("192.168.1.1", make)
        (inside,) = [row for row in finding.destinations if row.lateral]
        assert (inside.name, inside.private, finding.spread.lateral) == ("192.168.1.0/24", True, 1)
        assert "lateral movement" in fact(finding, "reach into private networks").statement
        assert "lateral movement" in finding.response.contain[0]
        assert severity(finding).name == "Critical"

    def test_client_of_the_same_private_network_reaches_nothing_that_it_could_not(self):
        finding = self.relayed_to("192.168.1.1", client="192.168.1.77")
        (inside,) = [row for row in finding.destinations if row.private]
        assert (inside.lateral, finding.spread.lateral) == (False, 0)
        assert fact(finding, "reach into private networks") is None
        assert "lateral" not in " ".join(finding.response.contain)
        assert severity(finding).name == "High"

    def test_client_of_another_private_network_is_from_outside(self):
        assert self.relayed_to("192.168.1.1", client="10.7.0.9").spread.lateral == 1

    def test_name_that_leads_into_the_private_network_is_lateral_too(self):
        app = listener_relay(rng(), Recorder())
        for row in app.rows["flows"]:
            if row["remote_hostname"] == site(3)["hostname"]:
                row["remote_ip"] = "192.168.1.1"
        assert [row.name for row in only(app).destinations if row.lateral] == ["site3.example"]


class TestLookUps:
    def test_look_up_beside_the_first_bridge_is_seen_with_its_record(self):
        finding = only(ask(listener_relay(rng(), Recorder()), 0.5))
        seen = item(finding, "public-IP look-up")
        assert (seen.value, seen.log_likelihood_ratio, seen.record_count) == (1.0, 0.5, 1)
        assert seen.log_sources == []

    def test_look_up_at_another_time_is_none(self):
        app = listener_relay(rng(), Recorder())
        last = max(row["end_time"] for row in app.rows["flows"]) / 1e6
        first = min(row["start_time"] for row in app.rows["flows"]) / 1e6
        finding = only(ask(app, last - first + 10 * LOOKUP_WINDOW_S))
        assert item(finding, "public-IP look-up") is None
        assert fact(finding, "public-IP look-up").value == 0.0

    def test_look_up_of_the_relays_client_is_not_the_apps(self):
        app = listener_relay(rng(), Recorder())
        for row in app.rows["flows"]:
            if row["remote_hostname"] == site(3)["hostname"]:
                row["remote_hostname"] = "api.ipify.org"
        finding = only(app)
        assert "ipify.org" in {row.name for row in finding.destinations}
        assert item(finding, "public-IP look-up") is None

    def test_without_names_look_ups_are_not_observable(self):
        app = ask(listener_relay(rng(), Recorder()), 0.5)
        (finding,) = found(without(app.batches(), "flows", "remote_hostname"))
        assert fact(finding, "public-IP look-up").value is None
        assert fact(finding, "proxyware indicator").value is None
        assert {"own_contacts", "hostname"} <= {gap.field for gap in finding.not_observable}


class TestIndicators:
    def test_contacted_name_package_and_class_are_told_with_source_and_licence(self):
        app = ask(listener_relay(rng(), Recorder(package=EARNER)), 0.5, GATE)
        app.signal(SignalKind.FOREGROUND_SERVICE, 0.0, None, detail="com.example/io.topvpn.vpn_api.svc")
        finding = only(app)
        assert {(match.kind, match.matched) for match in finding.indicators} == {
            ("domain", GATE),
            ("package", EARNER),
            ("class", "io.topvpn.vpn_api.svc"),
        }
        assert all(match.source and match.licence and match.retrieved for match in finding.indicators)
        seen = item(finding, "proxyware indicator")
        assert (seen.value, seen.log_likelihood_ratio, seen.record_count) == (3.0, MOST_FOR_INDICATORS, 1)

    def test_proxywares_site_that_the_relays_client_visits_is_no_indicator(self):
        app = listener_relay(rng(), Recorder())
        for row in app.rows["flows"]:
            if row["remote_hostname"] == site(3)["hostname"]:
                row["remote_hostname"] = GATE
        finding = only(app)
        assert finding.indicators == []
        assert fact(finding, "proxyware indicator").value == 0.0


NAMELESS = Enrichment(Indicators.of([]))
EVERY_APP = Enrichment(
    Indicators.of(
        Indicator(value=value, kind=kind, family="x", source="x", licence="x", retrieved=date(2026, 3, 1))
        for value, kind in [("com.example.app", "package"), *((f"own{k}.example", "domain") for k in range(80))]
    )
)


def told(app: Recorder, enrichment: Enrichment, threshold: float) -> list[tuple[Verdict, float]]:
    result = hunted(app.batches(), Settings(suspicion_threshold=threshold), enrichment=enrichment)
    return [(finding.verdict, finding.score) for finding in result.findings]


class TestLaws:
    @hypothesis_settings(max_examples=40)
    @given(st.sampled_from(sorted(BENIGN)), st.integers(0, 2**32 - 1))
    def test_an_app_that_is_no_relay_is_none_with_look_ups_and_proxywares_names(self, scenario, seed):
        app = BENIGN[scenario](rng(seed), Recorder(package=EARNER))
        for start in np.linspace(0.0, 600.0, 8).tolist():
            ask(ask(app, start), start, GATE)
        findings = found(app.batches())
        assert len(findings) <= (scenario == "cloud_copy")
        assert all(finding.verdict is not Verdict.RELAY for finding in findings)

    @hypothesis_settings(max_examples=40)
    @given(
        st.sampled_from(sorted({**BENIGN, **RELAYS})),
        st.integers(0, 2**32 - 1),
        st.floats(-12.0, 6.0).map(lambda log_odds: float(1.0 / (1.0 + np.exp(-log_odds)))),
    )
    def test_names_raise_the_probability_and_never_the_verdict_wherever_the_bar_is(self, scenario, seed, threshold):
        app = {**BENIGN, **RELAYS}[scenario](rng(seed), Recorder())
        plain = told(app, NAMELESS, threshold)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(contacts, "is_public_ip_service", lambda _: True)
            named = told(app, EVERY_APP, threshold)
        assert [verdict for verdict, _ in named] == [verdict for verdict, _ in plain]
        assert all(after > before for (_, after), (_, before) in zip(named, plain, strict=True))

    def test_a_suspicion_below_the_bar_is_not_lifted_over_it_by_names(self):
        app = cloud_copy(rng(), Recorder())
        (plain,) = hunted(app.batches(), enrichment=NAMELESS).findings
        bar = plain.probability + 1e-6
        assert told(app, NAMELESS, bar) == told(app, EVERY_APP, bar) == []


def test_a_suspicion_says_that_only_names_make_it_so_probable():
    (finding,) = hunted(cloud_copy(rng(), Recorder()).batches(), enrichment=EVERY_APP).findings
    kept = [item for item in finding.evidence if item.kind in {"context", "indicator"}]
    edge = finding.model_copy(update={"evidence": kept, "probability": 0.96, "score": 3.2, "not_observable": []})
    assert why_suspected(edge) == "without names and other installs the evidence gives less than 95 %"
