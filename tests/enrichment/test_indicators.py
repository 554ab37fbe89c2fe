"""Names of proxyware: what matches, what does not, and a clear refusal of a file that cannot be used."""

from __future__ import annotations

import ipaddress
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.enrichment.indicators import (
    MOST_MATCHES,
    Indicator,
    Indicators,
    bundled_indicators,
    load_indicators,
)
from relaywatch.enrichment.loading import load_enrichment
from relaywatch.enrichment.public_ip import is_public_ip_service
from relaywatch.model.errors import EnrichmentError

ENTRY = """[[indicator]]
value = "gate.example.net"
kind = "domain"
family = "Example SDK"
source = "https://example.com/report"
licence = "CC0-1.0"
retrieved = 2026-03-01
"""


def entry(value: str, kind: str) -> Indicator:
    return Indicator.model_validate(
        {
            "value": value,
            "kind": kind,
            "family": "Example SDK",
            "source": "https://example.com/report",
            "licence": "CC0-1.0",
            "retrieved": date(2026, 3, 1),
        }
    )


HELD = Indicators.of(
    [entry("gate.example.net", "domain"), entry("com.example.earn", "package"), entry("io.example.sdk", "class")]
)


@pytest.mark.parametrize("name", ["gate.example.net", "a.b.gate.example.net", "GATE.example.NET."])
def test_domain_covers_itself_and_the_names_under_it(name):
    (match,) = HELD.matches([name], None, [])
    assert (match.value, match.matched, match.family) == ("gate.example.net", name, "Example SDK")
    assert (match.source, match.licence, match.retrieved) == ("https://example.com/report", "CC0-1.0", "2026-03-01")


@pytest.mark.parametrize("name", ["example.net", "notgate.example.net", "gate.example.net.evil.test", "", "a" * 70_000])
def test_domain_covers_nothing_else(name):
    assert HELD.matches([name], None, []) == []


@pytest.mark.parametrize(
    ("package", "hits"), [("com.example.earn", 1), ("com.example.earnest", 0), ("x", 0), (None, 0)]
)
def test_package_is_matched_whole(package, hits):
    assert len(HELD.matches([], package, [])) == hits


@pytest.mark.parametrize(
    ("component", "hits"),
    [("io.example.sdk", 1), ("io.example.sdk.Service", 1), ("io.example.sdks.Service", 0), ("", 0)],
)
def test_class_is_matched_with_the_package_that_it_is_in(component, hits):
    assert len(HELD.matches([], None, [component])) == hits


def test_text_of_any_length_is_no_class_and_costs_nothing():
    assert HELD.matches(["a." * 1_000_000], None, ["io.example.sdk" + ".a" * 1_000_000]) == []


def test_each_indicator_is_told_once_and_matches_are_bounded():
    assert len(HELD.matches(["gate.example.net", "b.gate.example.net"], None, [])) == 1
    many = Indicators.of(entry(f"gate{k}.example.net", "domain") for k in range(50))
    assert len(many.matches([f"gate{k}.example.net" for k in range(50)], None, [])) == MOST_MATCHES


@given(st.lists(st.text(max_size=300)), st.text(max_size=80), st.lists(st.text(max_size=80)))
def test_any_text_is_matched_without_an_error(names, package, components):
    assert bundled_indicators().matches(names, package, components) is not None


def test_bundled_names_say_source_and_licence_and_none_is_a_customers_side():
    held = bundled_indicators().by_kind
    assert all(entries for entries in held.values())
    for entries in held.values():
        for found in entries.values():
            assert found.source
            assert found.licence
    assert bundled_indicators().matches(["www.brightdata.com", "www.luminati.io"], "com.android.chrome", []) == []
    assert [m.family for m in bundled_indicators().matches(["zs1.proxyjs.brdtnet.com"], None, [])] == [
        "Bright Data (Luminati, Hola)"
    ]


def test_sites_own_file_comes_on_top_of_the_bundled_one(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(ENTRY)
    loaded = load_enrichment(None, path)
    assert loaded.systems is None
    found = loaded.indicators.matches(["gate.example.net", "proxyjs.brdtnet.com"], None, [])
    assert {match.family for match in found} == {"Example SDK", "Bright Data (Luminati, Hola)"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[indicator]\n", "write each indicator as"),
        ("[[other]]\n", "write each indicator as"),
        ("indicator = [1]\n", "write each indicator as"),
        ("[[indicator]\n", "not valid TOML"),
        (ENTRY.replace("licence", "license"), r"indicator 1 \('gate.example.net'\): key license: not known"),
        (ENTRY.replace('kind = "domain"\n', ""), "key kind: missing"),
        (ENTRY.replace('"domain"', '"port"'), "key kind: "),
        (ENTRY.replace("gate.example.net", "Gate.example.net"), "in lower case"),
        (ENTRY.replace("gate.example.net", "co.uk"), "public suffix"),
        (ENTRY.replace("gate.example.net", "10.0.0.0/8"), "no domain"),
        (ENTRY.replace('"domain"', '"class"').replace("gate.example.net", "No Class"), "no class name"),
        (ENTRY.replace("2026-03-01", '"yesterday"'), "key retrieved"),
        (ENTRY + ENTRY.replace('family = "Example SDK"', 'family = ""'), "indicator 2"),
    ],
)
def test_file_that_cannot_be_used_is_refused_with_the_place(tmp_path, content, said):
    path = tmp_path / "own.toml"
    path.write_text(content)
    with pytest.raises(EnrichmentError, match=said) as refusal:
        load_indicators(path)
    assert str(path) in str(refusal.value)


def test_the_example_of_the_page_can_be_used(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "enrichment.md").read_text(encoding="utf-8")
    path = tmp_path / "own.toml"
    path.write_text(page.split("```toml\n")[1].split("```")[0])
    assert load_indicators(path).matches(["a.gate.example.net"], None, [])


@given(st.binary(max_size=300))
def test_any_file_is_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content)
    try:
        load_indicators(path)
    except EnrichmentError as refusal:
        assert "any.toml" in str(refusal)


def test_absent_file_is_refused():
    with pytest.raises(EnrichmentError, match="cannot be opened"):
        load_indicators(Path("none.toml"))


@pytest.mark.parametrize("name", ["api.ipify.org", "ifconfig.me", "icanhazip.com", "ipv4.icanhazip.com", "ipinfo.io"])
def test_public_ip_services_are_known_by_name(name):
    assert is_public_ip_service(name)


@pytest.mark.parametrize("name", ["ipify.org.example", "amazonaws.com", "s3.amazonaws.com", "example.com", ""])
def test_other_names_are_no_public_ip_service(name):
    assert not is_public_ip_service(name)


@given(st.ip_addresses().map(str) | st.text(max_size=400))
def test_addresses_and_any_text_are_told_apart_without_an_error(text):
    try:
        assert not is_public_ip_service(str(ipaddress.ip_address(text)))
    except ValueError:
        assert is_public_ip_service(text) in {True, False}
