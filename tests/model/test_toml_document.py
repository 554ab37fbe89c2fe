"""A TOML file that a user wrote is read, or refused as the caller's own error with the file and the place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.model.errors import ExceptionFileError, SettingError
from relaywatch.model.toml_document import LARGEST_DOCUMENT_BYTES, read_toml


def test_tables_and_values_are_read(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text('[settings]\nTimeWindow = 10\nname = "ü"\n', encoding="utf-8")
    assert read_toml(path, SettingError) == {"settings": {"TimeWindow": 10, "name": "ü"}}


@pytest.mark.parametrize("error", [SettingError, ExceptionFileError])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a = 1\nb = \n", "line 2"),
        (b"a = \xff", "byte 4: not UTF-8"),
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b"#" * (LARGEST_DOCUMENT_BYTES + 1), "larger than"),
    ],
)
def test_fault_is_the_callers_error_with_file_and_place(tmp_path, error, content, reason):
    path = tmp_path / "site.toml"
    path.write_bytes(content)
    with pytest.raises(error, match=reason) as refused:
        read_toml(path, error)
    assert str(path) in str(refused.value)


def test_folder_and_missing_file_cannot_be_opened(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere.toml"):
        with pytest.raises(SettingError, match="cannot be opened"):
            read_toml(path, SettingError)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content)
    try:
        assert isinstance(read_toml(path, SettingError), dict)
    except SettingError as refused:
        assert str(path) in str(refused)
