"""What a user is promised of settings: declared once, checked, and every value's origin shown."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.attack.provenance import mutable_elements
from relaywatch.detection.settings import SETTINGS, Settings, describe, load, settings_markdown
from relaywatch.model.errors import SettingError

DIGEST = "ab" * 32


def settings_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_each_mutable_element_of_the_analytic_has_one_setting_and_no_other_claims_to_be_attacks():
    assert {s.name: s.description for s in SETTINGS if s.attack} == mutable_elements()
    assert len({s.name for s in SETTINGS}) == len({s.attribute for s in SETTINGS}) == len(SETTINGS)


def test_settings_beyond_attack_are_marked_as_ours():
    assert [s.name for s in SETTINGS if not s.attack] == [
        "RecentUserInteractionWindow",
        "FalseAlarmsPerAppDay",
        "FalseDiscoveryRate",
        "SuspicionThreshold",
    ]


def test_defaults():
    settings = load()
    assert settings.time_window_s == 10.0
    assert settings.allowed_app_list == ()
    assert settings.allowed_destination_list == ()
    assert settings.foreground_state_required is True
    assert settings.relay_session_threshold == 4
    assert settings.byte_symmetry_tolerance == 0.10
    assert settings.concurrent_destination_threshold == 14
    assert settings.uplink_bytes_threshold == 4096
    assert settings.recent_user_interaction_window_s == 60.0
    assert settings.false_alarms_per_app_day == 1e-5
    assert settings.suspicion_threshold == 0.5


def test_each_setting_says_what_it_means_and_why_its_default_is_so():
    for setting in SETTINGS:
        assert setting.description
        assert setting.reason.endswith(".")
        assert setting.default


def test_flag_wins_over_file_and_file_over_default_and_each_origin_is_shown(tmp_path):
    path = settings_file(tmp_path, "[settings]\nTimeWindow = 20\nRelaySessionThreshold = 9\n")
    uses = {use.name: use for use in describe(load(path, ["TimeWindow=30", "SuspicionThreshold=0.9"]))}
    assert (uses["TimeWindow"].value, uses["TimeWindow"].default) == ("30.0", "10.0")
    assert uses["TimeWindow"].origin == "flag --set"
    assert (uses["RelaySessionThreshold"].value, uses["RelaySessionThreshold"].origin) == ("9", f"file {path}")
    assert uses["SuspicionThreshold"].origin == "flag --set"
    assert uses["UplinkBytesThreshold"].origin == "default"
    assert [use.name for use in uses.values()] == [setting.name for setting in SETTINGS]


def test_value_given_in_code_is_not_called_a_default():
    settings = Settings(time_window_s=5)
    assert settings.origins["TimeWindow"] == "argument"
    assert settings.origins["UplinkBytesThreshold"] == "default"


def test_later_flag_of_the_same_setting_wins():
    assert load(None, ["TimeWindow=3", "TimeWindow=4"]).time_window_s == 4


def test_settings_cannot_be_changed_after_they_were_checked():
    with pytest.raises(ValueError, match="frozen"):
        load().time_window_s = -1


@pytest.mark.parametrize(
    ("written", "meant"), [("a.b,c.d", ("a.b", "c.d")), ("[a.b]", ("a.b",)), ("", ()), (" a.b , ", ("a.b",))]
)
def test_list_on_the_command_line_is_separated_by_commas(written, meant):
    assert load(None, [f"AllowedAppList={written}"]).allowed_app_list == meant


def test_app_is_allowed_by_package_or_by_package_and_signature():
    settings = load(None, [f"AllowedAppList=com.any,com.signed@{DIGEST.upper()}"])
    assert settings.allows_app("com.any", None)
    assert settings.allows_app("com.any", "00" * 32)
    assert settings.allows_app("com.signed", DIGEST)
    assert not settings.allows_app("com.signed", "00" * 32)
    assert not settings.allows_app("com.signed", None)
    assert not settings.allows_app(None, DIGEST)


def test_destinations_are_allowed_by_domain_and_prefix():
    allowed = load(None, ["AllowedDestinationList=corp.example, 10.0.0.0/8"]).allowed_destinations
    assert allowed.covers_name("vpn.corp.example")
    assert not allowed.covers_name("evilcorp.example")
    assert allowed.covers_address("10.1.2.3")
    assert not allowed.covers_address("11.1.2.3")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("TimeWindow=-1", ["flag --set", "TimeWindow", "-1", "above 0 to 3,600, s"]),
        ("TimeWindow=nan", ["TimeWindow", "finite"]),
        ("TimeWindow=soon", ["TimeWindow", "soon", "number"]),
        ("RelaySessionThreshold=2.5", ["RelaySessionThreshold", "whole number"]),
        ("ForegroundStateRequired=maybe", ["ForegroundStateRequired", "true or false"]),
        ("SuspicionThreshold=1", ["SuspicionThreshold", "below 1"]),
        ("AllowedAppList=a b", ["AllowedAppList", "package@signing_digest"]),
        ("AllowedAppList=a.b@abcd", ["AllowedAppList", "SHA-256"]),
        ("AllowedDestinationList=co.uk", ["AllowedDestinationList", "public suffix"]),
        ("AllowedDestinationList=10.0.0.1/8", ["AllowedDestinationList", "10.0.0.1/8", "host bits"]),
        ("TimeWindw=5", ["TimeWindw", "Did you mean TimeWindow?"]),
        ("timewindow=5", ["Did you mean TimeWindow?"]),
        ("Zzz=5", ["no setting 'Zzz'", "UplinkBytesThreshold"]),
        ("TimeWindow", ["Name=value"]),
    ],
)
def test_bad_flag_is_refused_with_setting_value_and_range(override, parts):
    with pytest.raises(SettingError) as refused:
        load(None, [override])
    for part in parts:
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[settings]\nTimeWindow = 0\n", ["TimeWindow = 0", "above 0"]),
        ("[settings]\nTimeWindow = true\n", ["TimeWindow = True", "a number is needed"]),
        ("[settings]\nAllowedAppList = [1]\n", ["AllowedAppList", "string"]),
        ("[settings]\nTimeWindo = 1\n", ["TimeWindo", "Did you mean TimeWindow?"]),
        ("TimeWindow = 1\n", ["'TimeWindow' is not known here", "[settings]"]),
        ("settings = 3\n", ["must be a table"]),
        ("[settings\n", ["not valid TOML", "line 1"]),
        ("x = " + "[" * 100_000, ["nested too deeply"]),
    ],
)
def test_bad_file_is_refused_with_its_name_and_the_place(tmp_path, text, parts):
    path = settings_file(tmp_path, text)
    with pytest.raises(SettingError) as refused:
        load(path)
    for part in [str(path), *parts]:
        assert part in str(refused.value)


def test_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(SettingError, match=r"nowhere\.toml: cannot be opened"):
        load(tmp_path / "nowhere.toml")


@given(st.sampled_from([s.name for s in SETTINGS]), st.text())
def test_any_value_is_either_taken_or_refused_with_the_settings_name(name, value):
    try:
        taken = load(None, [f"{name}={value}"])
    except SettingError as refused:
        assert name in str(refused)
    else:
        assert taken.origins[name] == "flag --set"


def test_described_values_can_be_given_back_as_a_file(tmp_path):
    first = load(
        None, ["TimeWindow=2.5", "AllowedAppList=a.b,c.d", "ForegroundStateRequired=no", "UplinkBytesThreshold=0"]
    )
    text = "[settings]\n" + "".join(f"{use.name} = {use.value}\n" for use in describe(first))
    second = load(settings_file(tmp_path, text))
    assert [use.value for use in describe(second)] == [use.value for use in describe(first)]


def test_page_of_settings_is_current():
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert page.read_text(encoding="utf-8") == settings_markdown()
