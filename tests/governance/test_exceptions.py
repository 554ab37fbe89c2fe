"""A documented exception permits exactly what it says, until its end, and hides nothing."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.attack.provenance import attack_provenance
from relaywatch.governance.exceptions import (
    DIGEST_UNCHECKED,
    EXPIRED_SINCE,
    PACKAGE_ALONE,
    DocumentedException,
    Exceptions,
    apply,
    load_exceptions,
)
from relaywatch.governance.response import first_response
from relaywatch.model.errors import ExceptionFileError
from relaywatch.model.finding import App, Destination, Device, Finding, Spread, Topology, User, Verdict

SEEN = datetime(2026, 11, 3, 12, 0, tzinfo=UTC)
NOW = datetime(2026, 11, 4, tzinfo=UTC)
DIGEST = "ab" * 32
OTHER_DIGEST = "cd" * 32

FULL = f"""
[[exception]]
id = "EX-2026-014"
package = "com.corp.tether"
signing_digest = "{DIGEST}"
device_group = "field"
devices = ["phone-1", "phone-2"]
destinations = ["corp.example", "10.0.0.0/8"]
owner = "netops@corp.example"
reason = "Field laptops go online through the phone."
expires = 2027-03-01
"""


def destination(name="corp.example", hostnames=(), addresses=(), **counts):
    return Destination(
        **counts,
        name=name,
        hostnames=list(hostnames),
        addresses=list(addresses),
        ports=[443],
        bridges=2,
        bytes_in=10,
        bytes_out=20,
        private=False,
    )


def finding(
    *,
    verdict=Verdict.RELAY,
    package="com.corp.tether",
    digest=DIGEST,
    uid="phone-1",
    group="field",
    destinations=None,
    distinct=1,
    last_seen=SEEN,
):
    parts = {
        "verdict": verdict,
        "topology": Topology.TUNNEL,
        "device": Device(uid=uid, group=group),
        "app": App(package=package, signing_digest=digest),
        "user": User(),
        "listener_port": None,
        "gateways": [],
        "destinations": [destination()] if destinations is None else destinations,
        "sources": [],
    }
    return Finding(
        **parts,
        finding_id="f-1",
        probability=0.99,
        score=4.5,
        first_seen=last_seen - timedelta(hours=1),
        last_seen=last_seen,
        bridges=2,
        bytes_in=10,
        bytes_out=20,
        client_bytes_in=20,
        client_bytes_out=10,
        spread=Spread(destinations=distinct, prefixes=1, peak_concurrent=1),
        context=[],
        evidence=[],
        not_observable=[],
        client_legs=[],
        target_legs=[],
        bridge_list=[],
        balance=[],
        settings=[],
        attack=attack_provenance(set()),
        response=first_response(**parts),
        producer="relaywatch test",
    )


def permission(**changes):
    entry = {
        "id": "EX-1",
        "package": "com.corp.tether",
        "signing_digest": DIGEST,
        "owner": "netops@corp.example",
        "reason": "Field laptops.",
        "expires": date(2027, 3, 1),
    }
    return DocumentedException.model_validate(entry | changes)


def applied(seen, *entries, now=NOW):
    return apply(seen, Exceptions(entries), now)


def exception_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "exceptions.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("verdict", [Verdict.RELAY, Verdict.SUSPECTED_RELAY])
def test_covered_relay_is_sanctioned_with_owner_reason_and_end_and_keeps_its_evidence(verdict):
    seen = finding(verdict=verdict)
    result = applied(seen, permission())
    assert result.verdict is Verdict.SANCTIONED_RELAY
    assert result.exception.model_dump() == {
        "id": "EX-1",
        "owner": "netops@corp.example",
        "reason": "Field laptops.",
        "expires": datetime(2027, 3, 1, 23, 59, 59, 999999, tzinfo=UTC),
        "active": True,
        "warning": "",
    }
    changed = {"verdict", "exception", "response"}
    assert result.model_dump(exclude=changed) == seen.model_dump(exclude=changed)
    assert "Nothing to contain until 2027-03-01" in result.response.contain[0]


def test_expired_exception_leaves_the_verdict_and_is_attached():
    result = applied(finding(), permission(expires=date(2026, 11, 2)))
    assert result.verdict is Verdict.RELAY
    assert result.exception.active is False
    assert result.exception.warning == ""
    assert any("EX-1 expired on 2026-11-02" in step for step in result.response.ask)


def test_exception_ends_with_its_last_day():
    last_moment = datetime(2027, 3, 1, 23, 59, 59, tzinfo=UTC)
    assert applied(finding(last_seen=last_moment), permission()).verdict is Verdict.SANCTIONED_RELAY
    assert applied(finding(last_seen=last_moment + timedelta(seconds=1)), permission()).verdict is Verdict.RELAY


def test_exception_with_a_time_ends_at_that_time():
    entry = permission(expires=SEEN)
    assert applied(finding(last_seen=SEEN), entry).verdict is Verdict.SANCTIONED_RELAY
    assert applied(finding(last_seen=SEEN + timedelta(seconds=1)), entry).verdict is Verdict.RELAY


def test_time_without_a_zone_is_utc():
    assert permission(expires=datetime(2027, 3, 1, 8)).expires == datetime(2027, 3, 1, 8, tzinfo=UTC)  # noqa: DTZ001


def test_old_telemetry_gives_the_same_verdict_later_with_a_warning():
    late = applied(finding(), permission(), now=datetime(2030, 1, 1, tzinfo=UTC))
    assert late.verdict is Verdict.SANCTIONED_RELAY
    assert late.exception.warning == EXPIRED_SINCE


def test_match_by_package_name_alone_is_accepted_with_a_warning():
    result = applied(finding(), permission(signing_digest=None))
    assert result.verdict is Verdict.SANCTIONED_RELAY
    assert result.exception.warning == PACKAGE_ALONE


def test_digest_that_the_telemetry_does_not_show_is_warned_of():
    result = applied(finding(digest=None), permission())
    assert result.verdict is Verdict.SANCTIONED_RELAY
    assert result.exception.warning == DIGEST_UNCHECKED


@pytest.mark.parametrize(
    ("seen", "limits"),
    [
        ({"digest": OTHER_DIGEST}, {}),
        ({"package": "com.other"}, {}),
        ({"package": None}, {}),
        ({"uid": "phone-3"}, {"devices": ["phone-1"]}),
        ({"group": "office"}, {"device_group": "field"}),
        ({"group": None}, {"device_group": "field"}),
        ({"destinations": [destination(), destination("bank.test")]}, {"destinations": ["corp.example"]}),
        ({"destinations": []}, {"destinations": ["corp.example"]}),
        (
            {"destinations": [destination("10.1.2.0/24", addresses=["10.1.2.3", "11.1.2.3"])]},
            {"destinations": ["10.0.0.0/8"]},
        ),
        (
            {"destinations": [destination("corp.example", hostnames=["a.vpn.corp.example", "www.corp.example"])]},
            {"destinations": ["vpn.corp.example"]},
        ),
        (
            {"destinations": [destination("10.1.2.0/24", addresses=["10.1.2.3"], address_count=2)]},
            {"destinations": ["10.0.0.0/8"]},
        ),
        (
            {"destinations": [destination("corp.example", hostnames=["a.vpn.corp.example"], hostname_count=2)]},
            {"destinations": ["vpn.corp.example"]},
        ),
        ({"distinct": 2}, {"destinations": ["corp.example"]}),
    ],
)
def test_what_lies_outside_any_limit_is_not_covered(seen, limits):
    original = finding(**seen)
    assert applied(original, permission(**limits)) == original


@pytest.mark.parametrize(
    ("seen", "limits"),
    [
        ({}, {"devices": ["phone-1"], "device_group": "field"}),
        (
            {"destinations": [destination("corp.example", hostnames=["a.corp.example"])]},
            {"destinations": ["corp.example"]},
        ),
        (
            {"destinations": [destination("corp.example", hostnames=["a.vpn.corp.example"])]},
            {"destinations": ["vpn.corp.example"]},
        ),
        ({"destinations": [destination("10.1.2.0/24", addresses=["10.1.2.3"])]}, {"destinations": ["10.0.0.0/8"]}),
        ({"distinct": 2}, {}),
        (
            {"destinations": [destination("corp.example", ["a.corp.example"], ["192.0.2.1"], hostname_count=99)]},
            {"destinations": ["corp.example"]},
        ),
        (
            {"destinations": [destination("corp.example", ["a.vpn.corp.example"], ["192.0.2.1"], address_count=99)]},
            {"destinations": ["vpn.corp.example"]},
        ),
        (
            {"destinations": [destination("corp.example", ["a.corp.example"], ["10.1.2.3"], hostname_count=99)]},
            {"destinations": ["10.0.0.0/8"]},
        ),
        (
            {"destinations": [destination(), destination("10.1.2.0/24", addresses=["10.1.2.3"])]},
            {"destinations": ["corp.example", "10.0.0.0/8"]},
        ),
    ],
)
def test_what_lies_within_every_limit_is_covered(seen, limits):
    assert applied(finding(**seen), permission(**limits)).verdict is Verdict.SANCTIONED_RELAY


def test_insufficient_telemetry_is_not_excused():
    seen = finding(verdict=Verdict.INSUFFICIENT_TELEMETRY)
    assert applied(seen, permission()) == seen


def test_active_exception_wins_over_expired_and_checked_over_unchecked():
    result = applied(
        finding(),
        permission(id="old", expires=date(2026, 1, 1)),
        permission(id="loose", signing_digest=None, expires=date(2029, 1, 1)),
        permission(id="short", expires=date(2026, 12, 1)),
        permission(id="long", expires=date(2027, 12, 1)),
    )
    assert result.exception.id == "long"


DATES = st.dates(min_value=date(2020, 1, 1), max_value=date(2035, 1, 1))
ENTRIES = st.lists(
    st.builds(
        permission,
        id=st.text(min_size=1, max_size=4).filter(str.strip),
        package=st.sampled_from(["com.corp.tether", "com.other"]),
        signing_digest=st.sampled_from([None, DIGEST, OTHER_DIGEST]),
        expires=DATES,
        device_group=st.sampled_from([None, "field", "office"]),
    ),
    max_size=4,
)


@given(ENTRIES, st.sampled_from(list(Verdict)))
def test_finding_is_sanctioned_exactly_where_an_active_exception_describes_it(entries, verdict):
    seen = finding(verdict=verdict)
    result = applied(seen, *entries)
    active = [e for e in entries if e.describes(seen) and seen.last_seen <= e.expires]
    relaying = verdict in (Verdict.RELAY, Verdict.SUSPECTED_RELAY)
    if relaying and active:
        assert result.verdict is Verdict.SANCTIONED_RELAY
    else:
        assert result.verdict is verdict
    assert applied(result, *entries) == result


@given(ENTRIES, st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2040, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_verdict_does_not_depend_on_the_day_of_the_hunt_nor_on_the_order_of_exceptions(entries, now):
    result = applied(finding(), *entries, now=now)
    assert result.verdict is applied(finding(), *entries).verdict
    assert result == applied(finding(), *reversed(entries), now=now) or len({e.id for e in entries}) < len(entries)


def test_file_of_exceptions_is_read_whole(tmp_path):
    (entry,) = load_exceptions(exception_file(tmp_path, FULL)).entries
    assert entry.id == "EX-2026-014"
    assert entry.signing_digest == DIGEST
    assert entry.devices == ("phone-1", "phone-2")
    assert entry.destinations == ("corp.example", "10.0.0.0/8")
    assert entry.expires == datetime(2027, 3, 1, 23, 59, 59, 999999, tzinfo=UTC)


def test_file_without_exceptions_permits_nothing(tmp_path):
    assert load_exceptions(exception_file(tmp_path, "# none yet\n")) == Exceptions()


def test_digest_may_be_written_as_tools_print_it(tmp_path):
    printed = ":".join(["AB"] * 32)
    text = FULL.replace(DIGEST, printed)
    assert load_exceptions(exception_file(tmp_path, text)).entries[0].signing_digest == DIGEST


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (FULL.replace('owner = "netops@corp.example"', ""), ["exception 1 ('EX-2026-014')", "key owner: missing"]),
        (FULL.replace("netops@corp.example", " "), ["key owner"]),
        (FULL.replace('id = "EX-2026-014"', ""), ["exception 1: key id: missing"]),
        (FULL.replace("expires = 2027-03-01", 'expires = "soon"'), ["key expires", "2027-03-01, without quotes"]),
        (FULL.replace("expires = 2027-03-01", "expires = 07:30:00"), ["key expires", "2027-03-01"]),
        (FULL.replace("expires", "expiers"), ["expiers", "Did you mean expires?"]),
        (FULL + 'zzzz = "x"', ["key zzzz: not known. Keys are: id, package"]),
        (FULL.replace(DIGEST, "abcd"), ["key signing_digest", "64 hexadecimal digits"]),
        (FULL.replace("corp.example", "co.uk"), ["key destinations", "public suffix"]),
        (FULL.replace('["phone-1", "phone-2"]', "[]"), ["key devices"]),
        (FULL + FULL, ["exception 2 ('EX-2026-014')", "key id: used before"]),
        ("[exception]\nid = 'x'\n", ["[[exception]], in double brackets"]),
        ("[[exceptions]]\nid = 'x'\n", ["'exceptions' is not known here"]),
        ("[[exception]]\nid = \n", ["not valid TOML", "line 2"]),
    ],
)
def test_bad_file_is_refused_with_file_entry_and_key(tmp_path, text, parts):
    path = exception_file(tmp_path, text)
    with pytest.raises(ExceptionFileError) as refused:
        load_exceptions(path)
    for part in [str(path), *parts]:
        assert part in str(refused.value)


def test_file_that_is_no_text_is_refused_with_the_byte(tmp_path):
    path = tmp_path / "exceptions.toml"
    path.write_bytes(b"# \xff\n")
    with pytest.raises(ExceptionFileError, match=r"exceptions\.toml, byte 2: not UTF-8"):
        load_exceptions(path)


def test_huge_file_is_refused_without_being_parsed(tmp_path):
    path = tmp_path / "exceptions.toml"
    path.write_bytes(b"#" * (4 * 1024 * 1024 + 1))
    with pytest.raises(ExceptionFileError, match="larger than 4194304 bytes"):
        load_exceptions(path)


@given(st.text())
def test_any_text_is_read_or_refused_with_the_files_name(tmp_path_factory, text):
    path = exception_file(tmp_path_factory.getbasetemp(), text)
    try:
        assert load_exceptions(path) == Exceptions()
    except ExceptionFileError as refused:
        assert str(path) in str(refused)


VALUES = st.recursive(
    st.one_of(st.text(max_size=5), st.integers(), st.booleans(), st.dates(), st.floats()),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from([*DocumentedException.model_fields, "self", "x"]), VALUES))
def test_any_entry_is_taken_or_refused_by_its_key(entry):
    try:
        DocumentedException.model_validate(entry)
    except ValueError as refused:
        assert any(key in str(refused) for key in [*entry, "id", "package", "owner", "reason", "expires"])
    else:
        assert {"id", "package", "owner", "reason", "expires"} <= set(entry)
