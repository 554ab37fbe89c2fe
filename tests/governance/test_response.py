"""First steps fit the finding: evidence first, the right people, and containment that can work."""

import json

import pytest

from relaywatch.governance.response import first_response
from relaywatch.model.finding import (
    App,
    Destination,
    Device,
    Endpoint,
    SourceSummary,
    Topology,
    User,
    Verdict,
)

GATEWAY = Endpoint(
    address="203.0.113.9", port=7010, hostname="gw.proxy.test", sessions=1, bytes_in=100_000, bytes_out=200_000
)


def destination(name="shop.test", *, private=False, lateral=False):
    return Destination(
        name=name,
        hostnames=[],
        addresses=[],
        ports=[443],
        bridges=1,
        bytes_in=1,
        bytes_out=1,
        private=private,
        lateral=lateral,
    )


def respond(**changes):
    parts = {
        "verdict": Verdict.RELAY,
        "topology": Topology.TUNNEL,
        "device": Device(uid="phone-1"),
        "app": App(package="com.earn.sdk", uid=10123, user_id=10),
        "user": User(),
        "listener_port": None,
        "gateways": [GATEWAY],
        "destinations": [destination()],
        "sources": [SourceSummary(source="capture.pcapng", format="pcap")],
    }
    return first_response(**parts | changes)


def text(steps):
    return "\n".join(steps)


def policy_changes(steps):
    return [json.loads(step[step.index("{") :])["changes"][0] for step in steps if "{" in step]


def test_evidence_is_kept_before_anything_else():
    preserve = respond().preserve
    assert "capture.pcapng" in preserve[0]
    assert "SHA-256" in preserve[0]
    assert "Do not restart phone-1 and do not uninstall" in preserve[1]
    assert "bug report" in preserve[2]


def test_many_files_are_summed_up():
    sources = [SourceSummary(source=f"{n}.pcap", format="pcap") for n in range(40)]
    assert "0.pcap, 1.pcap, 2.pcap, 3.pcap, 4.pcap and 35 more" in respond(sources=sources).preserve[0]


def test_user_owner_and_fleet_management_are_asked():
    ask = text(respond(user=User(name="Ana")).ask)
    assert "(Ana)" in ask
    assert "com.earn.sdk has an approved VPN" in ask


def test_app_is_stopped_with_its_data_before_it_is_removed():
    disable, block = policy_changes(respond().contain)
    assert disable == {"application": {"packageName": "com.earn.sdk", "disabled": True}, "updateMask": "disabled"}
    assert block["application"]["installType"] == "BLOCKED"


def test_policy_stays_valid_json_whatever_the_package_is_called():
    disable, _ = policy_changes(respond(app=App(package='a"}]; {')).contain)
    assert disable["application"]["packageName"] == 'a"}]; {'


@pytest.mark.parametrize(("user_id", "out_of_reach"), [(None, True), (0, True), (10, False)])
def test_personal_profile_out_of_reach_is_said_where_it_may_be_so(user_id, out_of_reach):
    contain = text(respond(app=App(package="com.earn.sdk", user_id=user_id)).contain)
    assert ("out of management's reach" in contain) is out_of_reach


@pytest.mark.parametrize("topology", [Topology.TUNNEL, Topology.BACK_CONNECT])
def test_dialled_gateways_are_blocked(topology):
    contain = text(respond(topology=topology).contain)
    assert "Block the gateway at the network's edge: 203.0.113.9:7010 (gw.proxy.test)." in contain


def test_gateway_of_ipv6_is_written_with_brackets():
    gateway = GATEWAY.model_copy(update={"address": "2001:db8::9", "hostname": None})
    assert "[2001:db8::9]:7010." in text(respond(gateways=[gateway]).contain)


def test_listener_is_closed_and_its_clients_named():
    client = Endpoint(address="198.51.100.4", port=None, sessions=3, bytes_in=1, bytes_out=1)
    response = respond(topology=Topology.ACCEPTED, listener_port=1080, gateways=[client])
    assert "TCP port 1080" in text(response.contain)
    assert "198.51.100.4" in text(response.contain)
    assert "edge" not in text(response.contain)
    assert "network it is on" in text(response.preserve)
    assert "the listening port" in text(respond(topology=Topology.ACCEPTED).contain)


def test_unknown_app_is_identified_first():
    response = respond(app=App(uid=10123))
    assert "Android uid 10123" in text(response.ask)
    assert "Identify the app before" in response.contain[-1]
    assert policy_changes(response.contain) == []
    assert "an unknown uid" in text(respond(app=App()).ask)


def test_reach_into_private_addresses_comes_first_and_is_called_lateral_movement():
    inside = destination("192.168.1.0/24", private=True, lateral=True)
    contain = respond(destinations=[destination(), inside]).contain
    assert "lateral movement" in contain[0]
    assert "192.168.1.0/24" in contain[0]
    assert "shop.test" not in contain[0]


def test_private_addresses_of_a_client_that_is_there_itself_are_no_lateral_movement():
    assert "lateral" not in text(respond(destinations=[destination("192.168.1.0/24", private=True)]).contain)


def test_suspicion_is_questioned_before_it_is_contained():
    response = respond(verdict=Verdict.SUSPECTED_RELAY)
    assert "Contain only after" in response.contain[0]
    assert "better source" in response.ask[-1]


def test_permitted_relay_is_left_alone():
    response = respond(verdict=Verdict.SANCTIONED_RELAY)
    assert response.contain == [
        "Nothing to contain: the relaying is permitted. Look again if destinations or volumes change."
    ]
    assert len(response.preserve) == 1


def test_missing_telemetry_is_got_before_anything_is_contained():
    (step,) = respond(verdict=Verdict.INSUFFICIENT_TELEMETRY).contain
    assert "get the missing telemetry first" in step


def test_every_case_has_steps():
    for verdict in Verdict:
        for topology in Topology:
            response = respond(verdict=verdict, topology=topology, gateways=[], destinations=[], sources=[])
            assert response.preserve
            assert response.ask
            assert response.contain
