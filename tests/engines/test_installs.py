"""What other installs of an app contact: exact up to a bound, in any order, unknown where few devices have it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scenarios import Recorder, found, hunted, listener_relay, own_traffic, site

from relaywatch.detection.spread import FEWEST_INSTALLS, MOST_FOR_NOVEL, OtherInstalls, novelty_fact, novelty_items
from relaywatch.engines import contacted, installs
from relaywatch.engines.installs import Installs, Packaged
from relaywatch.model.finding import Verdict

APP, OTHER = (20_000, "com.example.app"), (20_000, "com.other")
CONTACTS = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 30).map(lambda k: f"p{k}.example")), max_size=80)


def filled(wanted: set[str], contacts: list[tuple[str, str]]) -> Installs:
    held = Installs({APP: wanted})
    for part in "ab", "cd":
        own = [contact for contact in contacts if contact[0] in part]
        held.installed(APP, len({device for device, _ in own}))
        held.contacted(rows_of(APP, own))
    return held


def rows_of(package: Packaged, contacts: list[tuple[str, str]]) -> pl.DataFrame:
    rows = [(*package, who, device, device) for device, who in contacts]
    texts = dict.fromkeys(("package", "party", "first", "last"), pl.String)
    return pl.DataFrame(rows, {"day": pl.Int32, **texts}, orient="row")


@given(CONTACTS, st.sets(st.integers(0, 30).map(lambda k: f"p{k}.example")))
def test_counts_are_those_of_whole_sets(contacts, wanted):
    told = filled(wanted, contacts).beside(APP, "a", wanted)
    others = {who for device, who in contacts if device != "a"}
    assert told == OtherInstalls(len({device for device, _ in contacts}), len(wanted), len(wanted - others))


@given(CONTACTS, st.randoms())
def test_order_does_not_matter_also_beyond_the_bound(contacts, random):
    wanted = {f"p{k}.example" for k in range(31)}
    shuffled = contacts[:]
    random.shuffle(shuffled)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(installs, "MOST_PARTIES", 7)
        told = [filled(wanted, order).beside(APP, "a", wanted) for order in (contacts, shuffled)]
    assert told[0] == told[1]
    assert told[0].compared == 7


def test_packages_that_nobody_asked_for_are_unknown():
    held = filled({"p1.example"}, [("a", "p1.example"), ("b", "p1.example"), ("c", "p2.example")])
    held.installed(OTHER, 1)
    held.contacted(rows_of(OTHER, [("a", "p1.example")]))
    assert held.beside(OTHER, "a", ["p1.example"]).share is None


@given(st.integers(0, 10), st.integers(0, 500), st.data())
def test_other_installs_move_the_odds_modestly_and_only_where_known(devices, compared, data):
    told = OtherInstalls(devices, compared, data.draw(st.integers(0, compared)))
    items, fact = novelty_items(told), novelty_fact(told)
    known = devices >= FEWEST_INSTALLS and compared > 0
    assert (fact.value is not None) == known == bool(items)
    for item in items:
        assert abs(item.log_ratio) < MOST_FOR_NOVEL
        assert item.explains


def fleet(devices: int, shared: int, *, package: str | None = APP[1]) -> list[Recorder]:
    """A relay on phone-1; on the others the same app contacts the first `shared` of the sites that it reached."""
    phones = [listener_relay(np.random.default_rng(5), Recorder(device="phone-1", package=package))]
    reached = sorted({row["remote_hostname"] for row in phones[0].rows["flows"] if row["remote_hostname"]})
    for number in range(2, devices + 1):
        phone = Recorder(device=f"phone-{number}", package=package)
        for k, name in enumerate(reached[:shared]):
            phone.flow(k, k + 0.5, [(k + 0.1, 300, 4_000)], f"203.0.113.{k}", hostname=f"other.{name}")
        phones.append(own_traffic(np.random.default_rng(number), phone, 12))
    return phones


def reached_by_relay(findings) -> tuple[int, float | None]:
    (finding,) = [finding for finding in findings if finding.device.uid == "phone-1"]
    assert finding.verdict is Verdict.RELAY
    return finding.spread.destinations, finding.spread.only_here


def hunt_of(phones: list[Recorder]):
    return found([part for phone in phones for part in phone.batches()])


@pytest.mark.parametrize("shared", [0, 2])
def test_share_of_destinations_that_only_this_install_contacts(shared, monkeypatch):
    phones = fleet(4, shared)
    own = {row["remote_hostname"] for phone in phones[1:] for row in phone.rows["flows"]}
    own = {".".join(name.split(".")[-2:]) for name in own}
    (finding,) = [finding for finding in hunt_of(phones) if finding.device.uid == "phone-1"]
    names = {row.name for row in finding.destinations}
    assert finding.spread.only_here == pytest.approx(len(names - own) / len(names))
    monkeypatch.setattr(contacted, "HELD", 1)
    assert hunt_of(phones)[0].spread.only_here == finding.spread.only_here


@pytest.mark.parametrize(("devices", "package"), [(1, APP[1]), (2, APP[1]), (4, None)])
def test_share_is_not_observable_on_few_devices_or_without_a_package(devices, package):
    (finding,) = [f for f in hunt_of(fleet(devices, 2, package=package)) if f.device.uid == "phone-1"]
    assert finding.spread.only_here is None
    assert "other_installs" in {gap.field for gap in finding.not_observable}
    (fact,) = [fact for fact in finding.context if fact.name == "destinations of this install only"]
    assert (fact.value, fact.observability) == (None, "not_observable")
    assert "destinations of this install only" not in {item.name for item in finding.evidence}


@hypothesis_settings(max_examples=6)
@given(st.permutations(range(5)))
def test_order_of_phones_changes_nothing(order):
    phones = fleet(5, 3)
    assert hunt_of([phones[k] for k in order]) == hunt_of(phones)


@hypothesis_settings(max_examples=8)
@given(devices=st.integers(1, 6), shared=st.integers(0, 8))
def test_other_installs_never_raise_a_verdict(devices, shared):
    alone = hunt_of(fleet(1, 0))[0].verdict
    assert [finding.verdict for finding in hunt_of(fleet(devices, shared))] == [alone]


def test_private_destinations_are_not_compared():
    phones = fleet(4, 0)
    for row in phones[0].rows["flows"]:
        if row["remote_hostname"] == site(3)["hostname"]:
            row |= {"remote_ip": "192.168.1.1", "remote_hostname": None, "hostname_observability": 0}
    result = hunted([part for phone in phones for part in phone.batches()])
    (finding,) = [finding for finding in result.findings if finding.device.uid == "phone-1"]
    public = [row for row in finding.destinations if not row.private]
    (fact,) = [fact for fact in finding.context if fact.name == "destinations of this install only"]
    assert len(public) < len(finding.destinations)
    assert f"of {len(public)} destinations" in fact.statement
