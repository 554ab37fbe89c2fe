"""What a user is promised of a finding: its numbers add up, its records can be found, and it says what it rests on."""

import io
from datetime import UTC, datetime

import numpy as np
import pytest
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
    own_traffic,
    tunnel_relay,
    without,
)

from relaywatch.attack.requirements import REQUIREMENTS
from relaywatch.detection.calibration import PRIOR_LOG_ODDS
from relaywatch.governance.exceptions import DocumentedException, Exceptions
from relaywatch.model.finding import Finding, Topology, Verdict
from relaywatch.model.schemas import SignalKind
from relaywatch.outputs.native import finding_object, read_ndjson, write_ndjson


def rng(seed: int = 31) -> np.random.Generator:
    return np.random.default_rng(seed)


def only(app: Recorder, **settings) -> Finding:
    (finding,) = found(app.batches(), **settings)
    return finding


def watched_listener() -> Recorder:
    app = listener_relay(rng(), Recorder())
    app.signal(SignalKind.VPN, 0.0)
    app.signal(SignalKind.FOREGROUND_UI, 0.0, 60.0)
    app.signal(SignalKind.USER_INTERACTION, 30.0)
    return app


def asking_listener() -> Recorder:
    app = listener_relay(rng(), Recorder())
    app.flow(0.5, 1.0, [(0.6, 300, 400)], "198.51.100.40", hostname="api.ipify.org")
    return app


EXAMPLES = {
    "asking": asking_listener,
    "listener": watched_listener,
    "back_connect": lambda: back_connect_relay(rng(), Recorder()),
    "tunnel": lambda: own_traffic(rng(32), tunnel_relay(rng(), Recorder())),
    "cloud_copy": lambda: cloud_copy(rng(), Recorder()),
    "no volumes": lambda: tunnel_relay(rng(), Recorder(see_volumes=False)),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_score_is_the_prior_and_every_item_added_up(example):
    finding = only(EXAMPLES[example]())
    added = PRIOR_LOG_ODDS + sum(item.log_likelihood_ratio for item in finding.evidence)
    assert finding.score == pytest.approx(added)
    assert finding.probability == pytest.approx(1 / (1 + np.exp(-min(finding.score, 20.0))))


@pytest.mark.parametrize("example", EXAMPLES)
def test_finding_is_written_and_read_back_as_it_was(example):
    finding = only(EXAMPLES[example]())
    text = io.StringIO()
    write_ndjson([finding], text)
    (again,) = read_ndjson(io.StringIO(text.getvalue()))
    assert again == finding
    assert finding_object(again) == finding_object(finding)


@pytest.mark.parametrize("example", EXAMPLES)
def test_ids_and_everything_else_are_the_same_on_every_run(example):
    first, second = only(EXAMPLES[example]()), only(EXAMPLES[example]())
    assert finding_object(first) == finding_object(second)
    assert len(first.finding_id) == 32


def test_ids_differ_by_device_and_app_and_not_by_what_was_found():
    apps = [Recorder(), Recorder(device="phone-2"), Recorder(package="com.other"), Recorder(uid=10_151)]
    ids = {only(listener_relay(rng(), app)).finding_id for app in apps} | {
        only(listener_relay(rng(1), Recorder())).finding_id
    }
    assert len(ids) == 4


@pytest.mark.parametrize("example", EXAMPLES)
def test_sides_add_up_to_what_is_listed(example):
    finding = only(EXAMPLES[example]())
    assert finding.bridges == len(finding.bridge_list) == len(finding.target_legs)
    assert sum(row.bridges for row in finding.destinations) == finding.bridges
    assert sum(row.bytes_in for row in finding.destinations) == finding.bytes_in
    assert sum(leg.bytes_in for leg in finding.target_legs) == finding.bytes_in
    assert sum(row.bytes_out for row in finding.gateways) == finding.client_bytes_out
    assert len(finding.destinations) == finding.spread.destinations
    for bridge in finding.bridge_list:
        assert bridge.client < len(finding.client_legs)
        assert bridge.target < len(finding.target_legs)
    assert finding.first_seen == min(leg.start for leg in finding.target_legs)
    assert finding.first_seen <= finding.last_seen


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_leg_and_item_names_records_that_exist(example):
    app = EXAMPLES[example]()
    finding = only(app)
    rows = {row["position"]: row for row in app.rows["flows"]}
    for leg in [*finding.client_legs, *finding.target_legs]:
        row = rows[leg.record.position]
        assert leg.record.source == finding.sources[0].source
        assert (leg.address, leg.bytes_in, leg.bytes_out) == (row["remote_ip"], row["bytes_in"], row["bytes_out"])
        assert leg.start.timestamp() * 1e6 == pytest.approx(row["start_time"], abs=1)
    assert all(item.record_count >= len(item.records) for item in finding.evidence)
    assert all(item.records for item in finding.evidence if item.kind != "context")
    assert [(s.source, s.format) for s in finding.sources] == [("phone-1/com.example.app.capture", "given")]


def test_accepted_sessions_are_told_with_their_clients_and_port():
    finding = only(watched_listener())
    assert (finding.verdict, finding.topology, finding.listener_port) == (Verdict.RELAY, Topology.ACCEPTED, 8899)
    assert {row.address for row in finding.gateways} == {f"192.0.2.{k}" for k in range(1, 6)}
    assert {row.port for row in finding.gateways} == {None}
    assert all(0.0 < bridge.lag_s < 3.0 for bridge in finding.bridge_list)
    assert all(bridge.downstream_ratio == pytest.approx(1.0, abs=0.02) for bridge in finding.bridge_list)


def test_dialled_links_are_told_with_their_gateway_and_port():
    finding = only(EXAMPLES["back_connect"]())
    assert (finding.verdict, finding.topology, finding.listener_port) == (Verdict.RELAY, Topology.BACK_CONNECT, None)
    assert [(row.address, row.port, row.sessions) for row in finding.gateways] == [(GATEWAY, 7_000, 14)]


def test_tunnel_is_told_with_its_link_and_without_the_apps_own_destinations():
    finding = only(EXAMPLES["tunnel"]())
    assert (finding.verdict, finding.topology) == (Verdict.RELAY, Topology.TUNNEL)
    assert [row.address for row in finding.gateways] == [GATEWAY]
    relayed = {f"site{k}.example" for k in range(25)}
    reached = sum(row.bridges for row in finding.destinations if row.name in relayed)
    assert reached >= 0.85 * finding.bridges


def test_balance_holds_every_byte_of_both_sides():
    finding = only(EXAMPLES["tunnel"]())
    assert sum(point.target_in for point in finding.balance) == finding.bytes_in
    assert sum(point.client_out for point in finding.balance) == finding.client_bytes_out
    assert {point.time.microsecond for point in finding.balance} == {0}


def test_copying_between_two_services_is_suspected_at_most_and_claims_no_fan_out():
    finding = only(EXAMPLES["cloud_copy"]())
    assert finding.verdict is Verdict.SUSPECTED_RELAY
    spread = next(item for item in finding.evidence if item.name == "unrelated destinations")
    assert spread.log_likelihood_ratio < 0
    assert spread.log_sources == []
    assert "DC0078" not in {row.data_component for row in finding.attack.log_sources if row.satisfied}


def test_all_rows_of_the_analytic_can_be_satisfied_by_one_finding():
    rows = {row.data_component: row.satisfied for row in only(watched_listener()).attack.log_sources}
    assert rows == {"DC0021": True, "DC0114": True, "DC0078": True, "DC0085": True}


def test_evidence_that_satisfies_each_row_really_occurs_and_nothing_undeclared_does():
    seen = {item.name for example in EXAMPLES.values() for item in only(example()).evidence}
    declared = {name for requirement in REQUIREMENTS for name in requirement.evidence}
    assert seen <= declared
    for requirement in REQUIREMENTS:
        assert seen & set(requirement.evidence), requirement.data_component


def test_row_is_satisfied_only_by_its_own_evidence():
    plain = back_connect_relay(rng(), Recorder(package=None))
    rows = {row.data_component: row.satisfied for row in only(plain).attack.log_sources}
    assert rows == {"DC0021": False, "DC0114": False, "DC0078": True, "DC0085": True}


def test_person_app_and_signature_come_from_the_inventory():
    finding = only(watched_listener())
    assert (finding.user.name, finding.app.label, finding.app.signing_digest) == ("A. Holder", "Example", "5a" * 32)
    missing = {gap.field for gap in finding.not_observable}
    assert missing == {"organisation", "other_installs"}
    bare = found(without(watched_listener().batches(), "inventory"))[0]
    assert {gap.field for gap in bare.not_observable} == missing | {"signing_digest", "user"}


def test_capture_that_would_have_shown_a_state_makes_its_absence_a_fact():
    app = listener_relay(rng(), Recorder())
    silent = {fact.name: fact.value for fact in only(app).context}
    app.signal(SignalKind.CAPTURE, 0.0, None, detail="FOREGROUND_UI KEYGUARD_LOCKED")
    told = {fact.name: fact.value for fact in only(app).context}
    assert (silent["foreground UI"], silent["keyguard locked"]) == (None, None)
    assert (told["foreground UI"], told["keyguard locked"], told["screen on"]) == (0.0, 0.0, None)


def test_documented_exception_sanctions_the_relay():
    entry = DocumentedException.model_validate(
        {
            "id": "E-1",
            "package": "com.example.app",
            "owner": "IT",
            "reason": "test",
            "expires": datetime(2027, 1, 1, tzinfo=UTC),
        }
    )
    (finding,) = hunted(watched_listener().batches(), exceptions=Exceptions((entry,))).findings
    assert finding.verdict is Verdict.SANCTIONED_RELAY
    assert (finding.exception.id, finding.exception.active) == ("E-1", True)


def test_gravest_and_most_certain_findings_come_first():
    batches = [
        *cloud_copy(rng(), Recorder(device="a")).batches(),
        *tunnel_relay(rng(), Recorder(device="b", see_volumes=False)).batches(),
        *back_connect_relay(rng(), Recorder(device="c")).batches(),
        *watched_and_named("d").batches(),
    ]
    assert [f.device.uid for f in found(batches)] == ["d", "c", "a", "b"]


def watched_and_named(device: str) -> Recorder:
    app = listener_relay(rng(), Recorder(device=device))
    app.signal(SignalKind.CAPTURE, 0.0, None, detail="FOREGROUND_UI")
    return app


def test_lists_of_a_finding_are_bounded_and_its_counts_are_not(monkeypatch):
    from relaywatch.engines import findings

    whole = only(watched_listener())
    monkeypatch.setattr(findings, "SHOWN_BRIDGES", 5)
    monkeypatch.setattr(findings, "SHOWN_REMOTES", 3)
    finding = only(watched_listener())
    assert (len(finding.bridge_list), len(finding.target_legs), len(finding.destinations)) == (5, 5, 3)
    assert len(finding.gateways) == 3
    assert (finding.bridges, finding.bytes_in) == (whole.bridges, whole.bytes_in)
    assert finding.spread == whole.spread
    strongest = sorted((b.log_likelihood_ratio for b in whole.bridge_list), reverse=True)[:5]
    assert sorted((b.log_likelihood_ratio for b in finding.bridge_list), reverse=True) == strongest


def test_destination_counts_the_names_and_addresses_that_it_does_not_list(monkeypatch):
    from relaywatch.engines import findings

    whole = only(watched_listener())
    monkeypatch.setattr(findings, "SHOWN_NAMES", 0)
    cut = only(watched_listener())
    assert not any(row.hostnames or row.addresses for row in cut.destinations)
    counts = [(len(row.hostnames), len(row.addresses)) for row in whole.destinations]
    assert [(row.hostname_count, row.address_count) for row in cut.destinations] == counts
    assert max(counts) > (0, 0)


def test_destinations_in_the_devices_own_network_are_kept_and_marked(monkeypatch):
    from relaywatch.engines import findings

    app = listener_relay(rng(), Recorder())
    for row in app.rows["flows"]:
        if row["remote_hostname"] == "www.site3.example":
            row |= {"remote_ip": "192.168.1.1", "remote_hostname": None, "hostname_observability": 0}
    monkeypatch.setattr(findings, "SHOWN_REMOTES", 2)
    assert "192.168.1.0/24" in {row.name for row in only(app).destinations if row.private}


@pytest.mark.parametrize("scenario", ["own_traffic", "backup", "in_and_out"])
def test_apps_that_are_none_give_no_finding(scenario):
    for seed in range(5):
        assert found(BENIGN[scenario](rng(seed), Recorder()).batches()) == []


@pytest.mark.parametrize("topology", RELAYS)
def test_each_topology_is_found_among_the_apps_own_traffic(topology):
    for seed in range(3):
        app = own_traffic(rng(100 + seed), RELAYS[topology](rng(seed), Recorder()))
        assert only(app).verdict is Verdict.RELAY


def test_nothing_to_judge_is_no_error():
    assert hunted([]).findings == []
    empty = [type(part)(part.table, part.rows.slice(0, 0)) for part in watched_listener().batches()]
    assert hunted(empty).findings == []


def test_times_at_the_edges_of_what_can_be_written_are_no_error():
    app = listener_relay(rng(), Recorder())
    for number, row in enumerate(app.rows["flows"]):
        if number % 3 == 0:
            row["end_time"] = 0
    app.rows["flows"][0]["start_time"] = 0
    app.rows["flows"][1]["end_time"] = 253_402_300_799_000_000
    result = hunted(app.batches())
    assert all(finding.first_seen <= finding.last_seen for finding in result.findings)
    assert all(leg.end is None or leg.start <= leg.end for f in result.findings for leg in f.target_legs)
