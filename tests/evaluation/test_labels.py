"""What reading labels promises: what is held out together, what counts as hard, and a clear word about bad labels."""

import pytest
from labelled import app, write_label

from relaywatch.evaluation.labels import read_labels
from relaywatch.model.errors import SourceError


def by_name(lab):
    return {app.name: app for app in read_labels([lab])}


def test_a_label_gives_roles_pairs_and_topology(tmp_path):
    pairs = [
        {"in_flow": 1, "out_flow": 2, "source": "gateway-log"},
        {"in_flow": 3, "out_flow": 4, "source": "inferred"},
    ]
    write_label(tmp_path, "T1", flow_roles={"1": "relay_in", "2": "relay_out"}, pairs=pairs)
    found = by_name(tmp_path)["T1"]
    assert found.roles == {1: "relay_in", 2: "relay_out"}
    assert found.pairs == {(1, 2), (3, 4)}
    assert (found.topology, found.relays, found.exact) == ("accepted", True, False)


@pytest.mark.parametrize(("links", "topology"), [(1, "tunnel"), (9, "tunnel"), (10, "back_connect"), (0, "")], ids=str)
def test_links_of_a_label_without_topology_tell_it(tmp_path, links, topology):
    write_label(tmp_path, "T1", flow_roles={str(flow): "relay_tunnel" for flow in range(links)})
    assert by_name(tmp_path)["T1"].topology == topology


def test_a_relay_inside_an_app_is_held_out_with_its_own_program(tmp_path):
    write_label(tmp_path, "T1", tool="microsocks 1.0.3", family="microsocks")
    write_label(tmp_path, "T2", tool="microsocks inside ad-heavy app", family="trojan", scenario="trojan-adgame")
    write_label(tmp_path, "T3", tool="ad-heavy app", family="trojan-free", label="benign")
    found = by_name(tmp_path)
    assert found["T2"].family == found["T1"].family == "microsocks"
    assert found["T3"].family == "trojan-free"


@pytest.mark.parametrize(
    ("other", "hidden"),
    [
        ({}, False),
        ({"scenario": "trojan-adgame-microsocks"}, True),
        ({"scenario": "ssh-R-lowslow-dev"}, True),
        ({"evasion": "padding"}, True),
        ({"scenario": "trojan-like", "label": "benign"}, False),
    ],
    ids=str,
)
def test_the_harder_half_is_of_relays_that_hide(other, hidden):
    assert app(**other).hidden is hidden


def test_what_the_range_notes_beside_its_evasions_is_none(tmp_path):
    write_label(tmp_path, "R1", evasion={"links": 4, "delay_s": 2.0})
    assert by_name(tmp_path)["R1"].evasion == "delay_s"


def test_a_folder_without_labels_is_said_to_be_none(tmp_path):
    with pytest.raises(SourceError, match="holds no truth"):
        read_labels([tmp_path])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"flow_roles": {"x": "own"}}'])
def test_a_label_that_cannot_be_read_is_named(tmp_path, text):
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "T7.json").write_text(text)
    with pytest.raises(SourceError, match="T7"):
        read_labels([tmp_path])


def test_two_labs_with_one_trace_name_are_refused(tmp_path):
    write_label(tmp_path / "a", "T1")
    write_label(tmp_path / "b", "T1")
    with pytest.raises(SourceError, match="that a has too"):
        read_labels([tmp_path / "a", tmp_path / "b"])
