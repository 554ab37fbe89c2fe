"""What a user is promised of settings: each mutable element changes what it says it changes, and findings say so."""

import re

import numpy as np
import pytest
from scenarios import DIGEST, GATEWAY, Recorder, back_connect_relay, found, listener_relay, tunnel_relay

from relaywatch.detection.settings import Settings
from relaywatch.model.finding import Evidence, Finding, Verdict
from relaywatch.model.schemas import SignalKind


def listener(*, see_volumes: bool = False) -> list:
    app = listener_relay(np.random.default_rng(21), Recorder(see_volumes=see_volumes))
    app.signal(SignalKind.FOREGROUND_UI, 0.0, 60.0)
    return app.batches()


def item(finding: Finding, name: str) -> Evidence:
    return next(evidence for evidence in finding.evidence if evidence.name == name)


def within_tolerance(**settings) -> int:
    app = back_connect_relay(np.random.default_rng(22), Recorder(see_volumes=False))
    (finding,) = found(app.batches(), **settings)
    return int(re.search(r"(\d+) within the byte tolerance", item(finding, "conserved bridges").statement)[1])


def test_time_window_bounds_the_lag_of_a_pair():
    (finding,) = found(listener())
    assert finding.verdict is Verdict.RELAY
    (blind,) = found(listener(), time_window_s=0.001)
    assert blind.verdict is Verdict.INSUFFICIENT_TELEMETRY
    assert blind.evidence[0].name != "conserved bridges"


@pytest.mark.parametrize(("threshold", "verdict"), [(14, Verdict.RELAY), (15, Verdict.SUSPECTED_RELAY)])
def test_relay_session_threshold_bounds_what_may_be_called_a_relay(threshold, verdict):
    (finding,) = found(listener(), relay_session_threshold=threshold)
    assert (finding.bridges, finding.verdict) == (14, verdict)


@pytest.mark.parametrize("see_volumes", [False, True])
def test_uplink_bytes_threshold_bounds_what_is_weighed(see_volumes):
    (finding,) = found(listener(see_volumes=see_volumes))
    sent = finding.client_bytes_out
    assert found(listener(see_volumes=see_volumes), uplink_bytes_threshold=sent)
    assert found(listener(see_volumes=see_volumes), uplink_bytes_threshold=sent + 1) == []


@pytest.mark.parametrize(
    ("entry", "verdict"),
    [
        ("com.example.app", Verdict.SANCTIONED_RELAY),
        (f"com.example.app@{DIGEST}", Verdict.SANCTIONED_RELAY),
        (f"com.example.app@{'00' * 32}", Verdict.RELAY),
        ("com.example", Verdict.RELAY),
    ],
)
def test_allowed_app_is_sanctioned_and_only_under_its_own_signature(entry, verdict):
    (finding,) = found(listener(), allowed_app_list=(entry,))
    assert finding.verdict is verdict
    sanctioned = verdict is Verdict.SANCTIONED_RELAY
    assert ("no approved role" in {evidence.name for evidence in finding.evidence}) is not sanctioned
    satisfied = {row.data_component for row in finding.attack.log_sources if row.satisfied}
    assert ("DC0114" in satisfied) is not sanctioned


def test_allowed_app_by_signature_is_not_sanctioned_where_no_signature_was_seen():
    app = listener_relay(np.random.default_rng(21), Recorder())
    (finding,) = found(app.batches(inventory=False), allowed_app_list=(f"com.example.app@{DIGEST}",))
    assert finding.verdict is Verdict.RELAY


def test_bridges_to_allowed_destinations_are_not_counted():
    everywhere = tuple(f"site{k}.example" for k in range(14))
    assert found(listener(), allowed_destination_list=everywhere) == []
    (finding,) = found(listener(), allowed_destination_list=everywhere[:5])
    assert finding.bridges == 9
    assert found(listener(), allowed_destination_list=("198.18.0.0/15",)) == []


def test_allowed_destinations_hide_no_accepted_session():
    (plain,), (listed,) = found(listener()), found(listener(), allowed_destination_list=("192.0.2.0/24",))
    assert (listed.verdict, listed.bridges, listed.score) == (plain.verdict, plain.bridges, plain.score)


def test_allowed_gateway_hides_its_links():
    app = back_connect_relay(np.random.default_rng(23), Recorder())
    assert found(app.batches(), allowed_destination_list=(f"{GATEWAY}/32",)) == []


def test_state_of_the_app_is_evidence_only_where_it_is_required():
    (required,), (free,) = found(listener()), found(listener(), foreground_state_required=False)
    assert "background" in {evidence.name for evidence in required.evidence}
    assert "background" not in {evidence.name for evidence in free.evidence}
    assert required.score != free.score
    assert free.context == required.context


def test_recent_interaction_lasts_as_long_as_its_window():
    def untouched(window: float) -> float:
        app = listener_relay(np.random.default_rng(21), Recorder())
        app.signal(SignalKind.USER_INTERACTION, 0.0)
        (finding,) = found(app.batches(), recent_user_interaction_window_s=window)
        return item(finding, "no recent interaction").value

    assert untouched(1.0) == 1.0
    assert 0.0 < untouched(100.0) < 1.0
    assert untouched(10_000.0) == 0.0


def test_tolerance_decides_which_bridges_are_called_conserved():
    none, some, every = (within_tolerance(byte_symmetry_tolerance=t) for t in (0.0, 0.008, 0.5))
    assert none < some < every == 14


def test_concurrent_destinations_beyond_the_threshold_speak_for_a_relay():
    batches = tunnel_relay(np.random.default_rng(24), Recorder(), sessions=90).batches()
    (finding,) = found(batches)
    peak = finding.spread.peak_concurrent
    (below,), (above,) = (found(batches, concurrent_destination_threshold=t) for t in (peak, peak - 1))
    ratios = [item(f, "unrelated destinations").log_likelihood_ratio for f in (below, above)]
    assert ratios[1] - ratios[0] == pytest.approx(0.75)


def test_false_alarm_rate_bounds_what_may_be_called_a_relay():
    few = listener_relay(np.random.default_rng(21), Recorder(see_volumes=False), sessions=5).batches()
    (usual,), (strict,) = found(few), found(few, false_alarms_per_app_day=1e-30)
    assert (usual.verdict, strict.verdict) == (Verdict.RELAY, Verdict.SUSPECTED_RELAY)


def test_suspicion_threshold_bounds_what_is_reported():
    batches = listener()
    (finding,) = found(batches, suspicion_threshold=0.99)
    assert finding.probability > 0.99
    without_app = Recorder(package=None, uid=None, see_volumes=False)
    listener_relay(np.random.default_rng(25), without_app, sessions=4)
    (weak,) = found(without_app.batches(inventory=False))
    assert found(without_app.batches(inventory=False), suspicion_threshold=(1 + weak.probability) / 2) == []


def test_every_finding_carries_each_setting_with_its_origin():
    (finding,) = found(listener(), time_window_s=9.0)
    uses = {use.name: (use.value, use.origin, use.attack) for use in finding.settings}
    assert uses["TimeWindow"] == ("9.0", "argument", True)
    assert uses["UplinkBytesThreshold"] == ("4096", "default", True)
    assert set(uses) == set(Settings().origins)
    assert {name for evidence in finding.evidence for name in evidence.settings} <= set(uses)
