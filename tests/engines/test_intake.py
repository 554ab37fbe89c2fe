"""What a user is promised while telemetry is read: names come back as given, and memory is not what bounds it."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenarios import Recorder, listener_relay

from relaywatch.engines import names, shards
from relaywatch.engines.intake import Intake
from relaywatch.engines.names import Names
from relaywatch.engines.records import FLOW, NO_UID, SIGNAL, VOLUME, AppKey
from relaywatch.engines.shards import ShardedTable
from relaywatch.model.destination_list import DestinationList

NOWHERE = DestinationList(frozenset(), ())


def dictionary(values: list[str | None]) -> pa.DictionaryArray:
    return pa.array(values, pa.string()).dictionary_encode()


@given(st.lists(st.lists(st.none() | st.text(), min_size=1, max_size=8), min_size=1, max_size=6), st.integers(1, 5))
def test_every_text_comes_back_from_memory_or_from_the_file(tmp_path_factory, columns, kept):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "KEPT_IN_MEMORY", kept)
        held = Names(tmp_path_factory.mktemp("names"))
        keys = [held.keys(dictionary(column)) for column in columns]
        held.close()
    texts = held.texts(np.concatenate(keys))
    for column, found in zip(columns, keys, strict=True):
        assert [texts.get(int(key)) for key in found] == column
        assert [key == 0 for key in found] == [text is None for text in column]


def test_a_slice_of_a_large_dictionary_is_read_by_its_own_rows(tmp_path):
    held = Names(tmp_path)
    part = dictionary([f"name {k}" for k in range(1_000)]).slice(700, 2)
    keys = held.keys(part)
    held.close()
    assert held.texts(keys) == {int(keys[0]): "name 700", int(keys[1]): "name 701"}


@pytest.mark.parametrize("kept", [10**9, 500, 0])
@pytest.mark.parametrize("dtype", [FLOW, VOLUME, SIGNAL])
def test_each_devices_records_are_in_one_shard_in_their_order(tmp_path, monkeypatch, dtype, kept):
    monkeypatch.setattr(shards, "KEPT_IN_MEMORY", kept)
    table = ShardedTable("records", dtype, tmp_path)
    given_records = np.zeros(300, dtype)
    given_records["device"] = np.random.default_rng(1).integers(0, 200, 300)
    given_records["start"] = np.arange(300)
    for part in np.array_split(given_records, 7):
        table.add(part)
    table.seal()
    read = [table.read(shard) for shard in range(shards.SHARDS)]
    assert table.spilled is (kept < 10**9)
    assert sum(map(len, read)) == table.rows == 300
    for device in range(200):
        (holding,) = [part for part in read if (part["device"] == device).any()] or [np.zeros(0, dtype)]
        expected = given_records["start"][given_records["device"] == device]
        assert holding["start"][holding["device"] == device].tolist() == expected.tolist()


def test_identities_are_those_of_device_package_and_uid(tmp_path):
    intake = Intake(tmp_path, NOWHERE)
    whos = [
        {"package": None, "uid": None},
        {"package": "a", "uid": None},
        {"package": None, "uid": 10_001},
        {"package": "a", "uid": 10_001},
        {"package": "a", "uid": 1_010_001},
        {"package": "a", "uid": 10_001, "device": "phone-2"},
    ]
    for who in (*whos, *whos[::-1]):
        app = Recorder(**who)
        app.flow(0.0, 1.0, [(0.0, 1, 1)], "192.0.2.1")
        for part in app.batches():
            intake.add(part)
    intake.seal()
    flows = np.concatenate([intake.flows.read(shard) for shard in range(shards.SHARDS)])
    keys = intake.registry.app_keys(np.unique(flows["app"]))
    assert set(keys.values()) == {
        AppKey(who.get("device", "phone-1"), who["package"] or "", NO_UID if who["uid"] is None else who["uid"])
        for who in whos
    }
    assert intake.registry.identified_apps == 5
    assert len(intake.registry.devices) == 2


def test_sources_are_ranked_by_name_whatever_was_read_first(tmp_path):
    intake = Intake(tmp_path, NOWHERE)
    for name in ("m", "z", "a"):
        app = Recorder(source=name)
        app.flow(0.0, 1.0, [(0.0, 1, 1)], "192.0.2.1")
        for part in app.batches():
            intake.add(part)
    assert intake.registry.source_names() == ["m", "z", "a"]
    assert intake.registry.source_ranks().tolist() == [1, 2, 0]


def test_rows_are_counted_by_table(tmp_path):
    intake = Intake(tmp_path, NOWHERE)
    app = listener_relay(np.random.default_rng(1), Recorder())
    for part in app.batches():
        intake.add(part)
    assert dict(intake.rows) == {
        "inventory": 1,
        "signals": 1,
        "flows": len(app.rows["flows"]),
        "volumes": len(app.rows["volumes"]),
    }


def test_inventory_rows_read_twice_are_kept_once(tmp_path):
    intake = Intake(tmp_path, NOWHERE)
    for part in Recorder(rows={"flows": [], "volumes": [], "rest": []}).batches() * 2:
        if part.table == "inventory":
            intake.add(part)
    assert intake.inventory.frame().height == 1
