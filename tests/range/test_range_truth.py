"""Labels: roles follow from who dialled whom, and pairs from what the sides of a session wrote down."""

import csv
import json

from relay_range.truth import Relay, document, index_row, write

PHONE, GATEWAY, ORIGIN, RESOLVER = "10.1.0.23", "198.19.200.7", "198.18.4.5", "198.18.0.53"
DECLARED = {
    "trace": "R1", "label": "relay", "tool": "t", "scenario": "s", "topology": "tunnel", "evasion": {"links": 2},
    "duration_s": 60.0, "group": "holdout",
}  # fmt: skip


def flow(number, local_port, remote, port, direction="out", proto="tcp", tx=100, rx=1000, start=0.0, end=60.0):
    return {
        "flow_id": number, "proto": proto, "local_ip": PHONE, "local_port": local_port, "remote_ip": remote,
        "remote_port": port, "direction": direction, "tx_payload": tx, "rx_payload": rx, "start": start, "end": end,
    }  # fmt: skip


def origin(session, port, proto="tcp"):
    return {"side": "origin", "session": session, "peer": [PHONE, port], "local": [ORIGIN, 443], "proto": proto}


def test_an_accepted_session_is_paired_with_the_connection_that_carried_its_request():
    flows = [
        flow(0, 1080, "198.19.3.3", 5001, "in"), flow(1, 1080, "198.19.3.3", 5002, "in"),
        flow(2, 7001, ORIGIN, 443), flow(3, 7002, ORIGIN, 443), flow(4, 9, RESOLVER, 53, proto="udp"),
        flow(5, 2222, "198.19.3.3", 5003, "in"),
    ]  # fmt: skip
    told = [
        {"side": "client", "session": "c:0", "local": ["198.19.3.3", 5001]}, origin("c:0", 7002),
        {"side": "client", "session": "c:1", "local": ["198.19.3.3", 5002]}, origin("c:1", 7001),
        {"side": "customers", "done": 2, "failed": 1},
    ]  # fmt: skip
    label = document(DECLARED, Relay(frozenset({1080})), flows, told)
    roles = ["relay_in", "relay_in", "relay_out", "relay_out", "relay_dns", "other_in"]
    assert list(label["flow_roles"].values()) == roles
    assert [(pair["in_flow"], pair["out_flow"]) for pair in label["pairs"]] == [(0, 3), (1, 2)]
    assert {pair["source"] for pair in label["pairs"]} == {"client-log+origin-log"}
    assert label["customer_requests"] == {"ok": 2, "failed": 1}
    assert label["pair_coverage_of_relay_out_tcp"] == 1.0


def test_a_session_over_several_links_is_paired_with_each_of_them():
    flows = [flow(0, 6001, GATEWAY, 443), flow(1, 6002, GATEWAY, 443), flow(2, 7001, ORIGIN, 443)]
    client = ["198.19.3.3", 5001]
    told = [
        {"side": "client", "session": "c:0", "local": client}, origin("c:0", 7001),
        {"side": "gateway", "client": client, "links": [[PHONE, 6001], [PHONE, 6002]]},
    ]  # fmt: skip
    label = document(DECLARED, Relay(reverse=True), flows, told)
    assert [(pair["in_flow"], pair["out_flow"]) for pair in label["pairs"]] == [(0, 2), (1, 2)]
    assert label["gateways"] == [GATEWAY]


def test_where_nothing_was_logged_the_only_link_is_the_leg_and_of_several_the_nearest_in_bytes():
    out = flow(2, 7001, ORIGIN, 443, tx=500, rx=40_000)
    one = document(DECLARED, Relay(reverse=True), [flow(0, 6001, GATEWAY, 22), out], [])
    assert one["pairs"] == [{"in_flow": 0, "out_flow": 2, "source": "construction-one-link"}]
    links = [flow(0, 6001, GATEWAY, 22, tx=100, rx=90), flow(1, 6002, GATEWAY, 22, tx=40_500, rx=600)]
    many = document(DECLARED, Relay(reverse=True), [*links, out], [])
    assert many["pairs"] == [{"in_flow": 1, "out_flow": 2, "source": "inferred-time+bytes"}]


def test_the_apps_own_traffic_is_told_from_what_it_relays():
    flows = [
        flow(0, 6001, GATEWAY, 443),
        flow(1, 7001, ORIGIN, 443),
        flow(2, 7002, ORIGIN, 443),
        flow(3, 8, ORIGIN, 80),
    ]
    told = [origin("own:4", 7001), origin("c:0", 7002)]
    label = document(DECLARED, Relay(reverse=True, mixed=True), flows, told)
    assert list(label["flow_roles"].values()) == ["relay_tunnel", "own", "relay_out", "unattributed"]


def test_an_ordinary_app_has_no_pairs_though_it_accepts_and_fetches():
    flows = [flow(0, 8009, "10.1.0.50", 4000, "in"), flow(1, 7001, ORIGIN, 443), flow(2, 9, RESOLVER, 53, proto="udp")]
    label = document(DECLARED, Relay(none=True), flows, [origin("own:1", 7001)])
    assert list(label["flow_roles"].values()) == ["own", "own", "dns"]
    assert label["pairs"] == []
    assert label["byte_conservation_payload"] is None


def test_a_trace_run_again_takes_its_old_place_in_the_index(tmp_path):
    flows = [flow(0, 6001, GATEWAY, 22, tx=900, rx=90), flow(1, 7001, ORIGIN, 443, tx=80, rx=800)]
    label = document(DECLARED, Relay(reverse=True), flows, [])
    for name in ("R2", "R1", "R2"):
        named = {**label, "trace": name}
        write(tmp_path, named, index_row(named, flows))
    with (tmp_path / "index.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["trace"] for row in rows] == ["R1", "R2"]
    assert (rows[0]["pairs"], rows[0]["cons_dn"], rows[0]["evasion"]) == ("1", "1.125", "links=2")
    assert rows[0]["group"] == "holdout"
    assert json.loads((tmp_path / "R2.json").read_text())["pairs"] == label["pairs"]
