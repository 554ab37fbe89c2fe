from __future__ import annotations

import codecs
import gzip
import zlib

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaywatch.model.errors import SourceError
from relaywatch.sources import compression
from relaywatch.sources.compression import open_content, read_head


def stored(content: bytes, how: str) -> bytes:
    if how == "gzip":
        return gzip.compress(content)
    if how == "zstd":
        return pa.compress(content, codec="zstd", asbytes=True)
    return content


def read_to_damage(path, size=1000):
    taken = b""
    with open_content(path) as stream:
        try:
            while part := stream.read(size):
                taken += part
        except SourceError as damage:
            return taken, damage
    return taken, None


@given(
    content=st.binary(max_size=5000).filter(lambda c: not c.startswith((b"\x1f\x8b", b"\x28\xb5"))),
    how=st.sampled_from(["plain", "gzip", "zstd"]),
    size=st.integers(1, 3000),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_content_is_the_same_however_it_is_stored(tmp_path, content, how, size):
    path = tmp_path / "file"
    path.write_bytes(stored(content, how))
    seen = []
    with open_content(path, seen.append, json_as_lines=False) as stream:
        parts = iter(lambda: stream.read(size), b"")
        assert b"".join(parts) == content.removeprefix(codecs.BOM_UTF8)
    assert sum(seen) == path.stat().st_size


def test_joined_gzip_members_and_zero_padding_are_one_content(tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(b"one\n") + bytes(512) + gzip.compress(b"two\n") + bytes(3))
    assert read_to_damage(path) == (b"one\ntwo\n", None)


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_a_cut_file_gives_what_came_before_then_says_where_it_ends(tmp_path, how):
    content = b"".join(b"line %d\n" % n for n in range(200_000))
    whole = stored(content, how)
    path = tmp_path / "cut"
    path.write_bytes(whole[: len(whole) // 2])
    taken, damage = read_to_damage(path)
    assert damage is not None
    assert f"byte {len(taken)} " in damage.position
    assert len(taken) > len(content) // 10
    assert content.startswith(taken)


@given(
    flips=st.lists(st.tuples(st.integers(0, 400), st.integers(1, 255)), min_size=1, max_size=4),
    how=st.sampled_from(["gzip", "zstd"]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_compression_is_a_source_error_and_nothing_else(tmp_path, flips, how):
    data = bytearray(stored(bytes(range(256)) * 3, how))
    for at, value in flips:
        data[at % len(data)] ^= value
    path = tmp_path / "damaged"
    path.write_bytes(data)
    read_to_damage(path)
    read_head(path)


def test_a_decompression_bomb_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(compression, "FREE_BYTES", 1 << 20)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(32 << 20)))
    taken, damage = read_to_damage(path, 1 << 20)
    assert damage is not None
    assert "decompression bomb" in damage.reason
    assert len(taken) < 32 << 20


def test_lines_can_be_read_one_by_one(tmp_path):
    path = tmp_path / "lines.gz"
    path.write_bytes(gzip.compress(b"one\ntwo\nthree"))
    with open_content(path) as stream:
        assert stream.readline() == b"one\n"
        assert stream.read() == b"two\nthree"


def test_what_is_no_regular_file_is_refused(tmp_path):
    with pytest.raises(SourceError, match="not a regular file"):
        open_content(tmp_path)
    with pytest.raises(SourceError, match="cannot be opened"):
        open_content(tmp_path / "missing")


def test_a_head_is_the_start_of_the_content(tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(b"#fields\tts"))
    assert read_head(path, 7).content == b"#fields"
    path.write_bytes(b"\x1f\x8b" + zlib.compress(b"x"))
    assert read_head(path).content == b""
