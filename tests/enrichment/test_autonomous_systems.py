"""Owners of addresses: what a database says, and a clear refusal of one that cannot be used."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from mmdb_examples import MARKER, database, fanned_out, holder, nested

from relaywatch.enrichment.autonomous_systems import LONGEST_ORGANISATION, AutonomousSystems
from relaywatch.model.errors import EnrichmentError

NETWORKS = {
    "192.0.2.0/24": holder(64496, "Example Hosting"),
    "198.51.100.0/25": {"asn": "AS64497", "as_name": "Other Example"},
    "203.0.113.0/24": {"autonomous_system_number": 64498},
}
CITIES = {f"{first}.0.0.0/8": {"city": {"names": {"en": "Somewhere"}}} for first in range(1, 224)}


def opened(tmp_path: Path, content: bytes) -> AutonomousSystems:
    path = tmp_path / "asn.mmdb"
    path.write_bytes(content)
    return AutonomousSystems(path)


def told(systems: AutonomousSystems, address: str) -> tuple[int | None, str | None] | None:
    found = systems.of(address)
    return None if found is None else (found.number, found.organisation)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.77", (64496, "Example Hosting")),
        ("::ffff:192.0.2.77", (64496, "Example Hosting")),
        ("198.51.100.1", (64497, "Other Example")),
        ("203.0.113.9", (64498, None)),
        ("198.51.100.200", None),
        ("2001:db8::1", None),
        ("no address", None),
        ("", None),
    ],
)
def test_address_has_the_owner_that_the_database_says(tmp_path, address, expected):
    assert told(opened(tmp_path, database(NETWORKS)), address) == expected


def test_addresses_of_both_versions_are_found_where_the_database_holds_both(tmp_path):
    held: Mapping[str, object] = {**NETWORKS, "2001:db8::/32": holder(64499, "Six Example")}
    systems = opened(tmp_path, database(held, version=6))
    assert told(systems, "2001:db8:1::5") == (64499, "Six Example")
    assert told(systems, "192.0.2.1") == (64496, "Example Hosting")


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"autonomous_system_number": 2**40, "autonomous_system_organization": "  A  "}, (None, "A")),
        ({"asn": "AS" + "9" * 250, "as_name": "B"}, (None, "B")),
        ({"asn": "ASx", "as_name": ["no text"]}, None),
        ({"autonomous_system_number": 1, "autonomous_system_organization": "o" * 250}, (1, "o" * LONGEST_ORGANISATION)),
        ("no map", None),
    ],
    ids=["number too large", "endless number", "odd types", "long name", "no map"],
)
def test_values_that_can_be_no_owner_are_unknown_and_long_ones_are_cut(tmp_path, record, expected):
    networks = {"192.0.2.0/24": record, "198.51.100.0/24": holder(64496, "Example Hosting")}
    assert told(opened(tmp_path, database(networks)), "192.0.2.1") == expected


def test_database_of_another_kind_is_refused_before_the_hunt(tmp_path):
    with pytest.raises(EnrichmentError, match=r"asn\.mmdb: its records hold no autonomous systems \(type 'City'\)"):
        opened(tmp_path, database(CITIES, kind="City"))


@pytest.mark.parametrize("content", [b"", b"not a database", MARKER, MARKER + b"\xff" * 40, database(NETWORKS)[:-30]])
def test_what_is_no_database_is_refused_with_what_to_give(tmp_path, content):
    with pytest.raises(EnrichmentError, match=r"asn\.mmdb: .*Give a database of autonomous systems"):
        opened(tmp_path, content)


def test_absent_file_and_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.mmdb", tmp_path):
        with pytest.raises(EnrichmentError, match="there is no such file"):
            AutonomousSystems(path)


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    own = builtins.__import__

    def importing(name, *rest):
        if name == "maxminddb":
            raise ImportError(name)
        return own(name, *rest)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(EnrichmentError, match=r"pip install 'relaywatch\[asn\]'"):
        opened(tmp_path, database(NETWORKS))


@hypothesis_settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_anywhere_gives_an_owner_none_or_the_error_and_nothing_else(tmp_path, data):
    content = bytearray(database(NETWORKS))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        systems = opened(tmp_path, bytes(content))
        for address in ("192.0.2.77", "198.51.100.1", "203.0.113.9", "8.8.8.8"):
            systems.of(address)
    except EnrichmentError as refusal:
        assert "asn.mmdb" in str(refusal)


@pytest.mark.parametrize("record", [nested(100_000), fanned_out(30), b"\x38\x00\x00\x00\x00"])
def test_records_that_nest_multiply_or_point_at_themselves_are_refused(tmp_path, record):
    with pytest.raises(EnrichmentError, match="damaged at"):
        opened(tmp_path, database({"0.0.0.0/1": record, "128.0.0.0/1": record}))
