from __future__ import annotations

import os
import pickle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit_reads import read_paths

from relaywatch.model.errors import SourceError
from relaywatch.sources.discovery import DEEPEST, discover

CSV = (
    b"IPProto,SrcIP,SrcPort,DstIp,DstPort,UID,App,PackageName,Proto,Status,Info,"
    b"BytesSent,BytesRcvd,PktsSent,PktsRcvd,FirstSeen,LastSeen\n"
    b"6,10.215.173.1,40000,198.51.100.7,443,10123,Maps,com.example.maps,TLS,Closed,example.com,"
    b"1000,5000,10,12,2024-10-05T12:00:00.123Z,2024-10-05T12:00:05.000Z\n"
)


def test_folders_are_walked_in_name_order_and_formats_found_by_content(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "phone.txt").write_bytes(CSV)
    (tmp_path / "a.dat").write_bytes(CSV)
    (tmp_path / "notes.csv").write_text("hello\n")
    (tmp_path / ".hidden.csv").write_bytes(CSV)
    found = discover([tmp_path])
    assert [(unit.path.name, unit.reader_name) for unit in found.units] == [
        ("a.dat", "pcapdroid-csv"),
        ("phone.txt", "pcapdroid-csv"),
    ]
    assert [(skipped.path.name, skipped.reason) for skipped in found.unrecognised] == [
        ("notes.csv", "of no known format")
    ]
    assert found.units[0].size_bytes == len(CSV)


def test_a_file_given_twice_is_read_once(tmp_path):
    file = tmp_path / "phone.csv"
    file.write_bytes(CSV)
    rows, _ = read_paths(file, tmp_path, tmp_path / ".." / tmp_path.name / "phone.csv")
    assert len(rows["flows"]) == 1


def test_links_in_a_folder_are_not_followed(tmp_path):
    outside = tmp_path / "outside.csv"
    outside.write_bytes(CSV)
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "link.csv").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    found = discover([folder])
    assert found.units == ()
    assert {skipped.path.name for skipped in found.unrecognised} == {"link.csv", "loop"}


def test_pipes_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert [s.reason for s in discover([tmp_path]).unrecognised] == ["not a regular file"]
    with pytest.raises(SourceError, match="not a regular file"):
        discover([tmp_path / "pipe"])


def test_the_depth_is_bounded(tmp_path):
    deep = tmp_path
    for _ in range(DEEPEST + 1):
        deep = deep / "d"
        deep.mkdir()
    (deep / "phone.csv").write_bytes(CSV)
    found = discover([tmp_path])
    assert found.units == ()
    assert f"more than {DEEPEST} folders deep" in found.unrecognised[0].reason


def test_a_given_file_of_no_known_format_names_the_known_ones(tmp_path):
    file = tmp_path / "photo.jpg"
    file.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(SourceError, match="pcapdroid-csv") as error:
        discover([file])
    assert str(file) in str(error.value)


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        discover([tmp_path / "missing"])


def test_a_unit_can_be_sent_to_another_process(tmp_path):
    (tmp_path / "phone.csv").write_bytes(CSV)
    (unit,) = discover([tmp_path]).units
    assert pickle.loads(pickle.dumps(unit)) == unit  # noqa: S301 - our own bytes


@given(content=st.binary(max_size=300) | st.binary(max_size=200).map(lambda tail: CSV + tail))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_in_a_folder_are_read_or_listed(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    found = discover([tmp_path])
    assert len(found.units) + len(found.unrecognised) == 1
    read_paths(tmp_path)
