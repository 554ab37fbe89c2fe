"""Names become one device only through identifiers that tell devices apart; the rest stays a possibility."""

from hypothesis import given
from hypothesis import strategies as st

from relaywatch.identity.devices import JOINED_FROM, Identifier, resolve, weight_of

NAMES = st.sampled_from(["10.0.0.5", "mac:3c:22:fb:00:00:01", "SERIAL9", "android-1", "enterprises-7", "phone"])
KINDS = st.sampled_from(["serial", "imei", "mac", "hostname", "mdm_id", "android_id", "ip"])
IDENTIFIERS = st.builds(Identifier, NAMES, KINDS, st.sampled_from(["A", "B", "3c:22:fb:00:00:01", "0", ""]))


def test_a_serial_number_joins_and_the_phones_own_name_is_used():
    found = resolve(
        [Identifier("enterprises-7", "serial", "R58M"), Identifier("R58M", "serial", "R58M")],
        ["enterprises-7", "R58M"],
        preferred=["R58M"],
    )
    assert found.of("enterprises-7") == "R58M" == found.of("R58M")
    assert not found.possible


def test_a_lease_and_an_inventory_meet_at_the_mac():
    found = resolve([Identifier("phone", "mac", "3c:22:fb:00:00:01")], ["phone", "mac:3c:22:fb:00:00:01"])
    assert found.of("mac:3c:22:fb:00:00:01") == "phone"


def test_a_mac_drawn_at_random_is_a_possibility_with_its_weight():
    shared = "da:a1:19:00:00:01"
    found = resolve([Identifier("one", "mac", shared), Identifier("other", "mac", shared)], ["one", "other"])
    assert found.of("other") == "other"
    (link,) = found.possible
    assert (link.one, link.other, link.weight) == ("one", "other", weight_of("mac", shared))
    assert link.weight < JOINED_FROM
    assert link.through == (f"mac {shared}",)


def test_two_weak_identifiers_together_weigh_more_than_one():
    weak = [("mac", "da:a1:19:00:00:01"), ("hostname", "pixel"), ("android_id", "77")]
    stated = [Identifier(name, kind, value) for name in ("one", "other") for kind, value in weak]
    assert resolve(stated, []).of("other") == "one"


def test_different_serials_are_never_one_device():
    stated = [
        Identifier("one", "serial", "A"),
        Identifier("other", "serial", "B"),
        Identifier("one", "imei", "35"),
        Identifier("other", "imei", "35"),
    ]
    found = resolve(stated, [])
    assert found.of("one") != found.of("other")
    assert [link.through for link in found.possible] == [("imei 35",)]


def test_a_value_that_everybody_has_joins_nobody():
    for default in ("0", "unknown", "02:00:00:00:00:00"):
        stated = [Identifier(name, "serial", default) for name in ("one", "other")]
        assert not resolve(stated, []).canonical
    many = [Identifier(f"phone-{n}", "mdm_id", "shared") for n in range(40)]
    assert not resolve(many, []).canonical


@given(stated=st.lists(IDENTIFIERS, max_size=12), names=st.lists(NAMES, max_size=6), data=st.data())
def test_the_order_of_statements_changes_nothing(stated, names, data):
    again = resolve(data.draw(st.permutations(stated)), data.draw(st.permutations(names)))
    found = resolve(stated, names)
    assert (dict(again.canonical), list(again.possible)) == (dict(found.canonical), list(found.possible))
    assert all(found.of(name) not in found.canonical for name in names)  # a name in use stands for itself
