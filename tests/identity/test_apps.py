"""A uid with one package is that package; what can be two things stays open."""

from relaywatch.identity.apps import apps_of


def test_what_is_missing_is_completed_where_it_can_only_be_one():
    apps = apps_of([("com.a", 10_001), ("com.b", 10_002)])
    assert apps.complete("", 10_001) == ("com.a", 10_001)
    assert apps.complete("com.b", None) == ("com.b", 10_002)
    assert apps.complete("com.c", None) == ("com.c", None)
    assert apps.complete("", 10_009) == ("", 10_009)
    assert apps.complete("com.b", 10_001) == ("com.b", 10_001)  # what a source states together is never changed


def test_packages_that_share_a_uid_are_candidates():
    apps = apps_of([("com.a", 10_001), ("com.a.helper", 10_001)])
    assert apps.complete("", 10_001) == ("", 10_001)
    assert apps.candidates(10_001) == {"com.a", "com.a.helper"}


def test_a_package_of_two_users_stays_open_and_their_uids_do_not():
    apps = apps_of([("com.a", 10_001), ("com.a", 1_010_001)])
    assert apps.complete("com.a", None) == ("com.a", None)
    assert apps.complete("", 1_010_001) == ("com.a", 1_010_001)


def test_another_users_uid_is_named_by_its_app_id():
    assert apps_of([("com.a", 10_001)]).complete("", 1_010_001) == ("com.a", 1_010_001)
