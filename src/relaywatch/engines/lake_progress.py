"""What a hunt of a lake has looked at so far, kept in the lake until the hunt is done: an interrupted one goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import date
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from relaywatch import __version__
from relaywatch.detection.settings import describe
from relaywatch.engines.lake_sieve import Sifted
from relaywatch.engines.local import Hunt
from relaywatch.engines.records import AppKey
from relaywatch.lake.lake import Lake

FOLDER: Final = ".hunts"
_COUNTS: Final = ("judged", "flows", "volumes", "duplicates", "unmatched")
_KEYS: Final = ("cases", "silent", "counted")
_HASHES: Final = ("apps", "devices")
_META: Final = b"relaywatch.sifted"


class Progress:
    """The looks at partitions that one hunt has taken; the same hunt of the same lake finds them again."""

    def __init__(self, lake: Lake, plan: Hunt, selection: str) -> None:
        """selection: the days and devices that are hunted, as text. A lake that cannot be written keeps nothing."""
        asked = [__version__, lake.digest, selection, *(each.model_dump_json() for each in describe(plan.settings))]
        digest = blake2b("\n".join(asked).encode(), digest_size=16).hexdigest()
        self._folder: Path | None = lake.folder / FOLDER / digest
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            self._folder = None

    def look(self, day: date, shard: int) -> Sifted | None:
        """What an earlier run saw of a partition; None where it did not come so far, or what it wrote is damaged."""
        if self._folder is None:
            return None
        try:
            return _read(self._path(self._folder, day, shard).read_bytes())
        except (OSError, pa.ArrowInvalid, ValueError, KeyError):
            return None

    def keep(self, day: date, shard: int, sifted: Sifted) -> None:
        """Keep what was seen of a partition; a disk that is full is no reason to end a hunt."""
        if self._folder is None:
            return
        path = self._path(self._folder, day, shard)
        try:
            path.with_suffix(".new").write_bytes(_written(sifted))
            path.with_suffix(".new").rename(path)
        except OSError:
            path.with_suffix(".new").unlink(missing_ok=True)

    def done(self) -> None:
        """The hunt is over."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @staticmethod
    def _path(folder: Path, day: date, shard: int) -> Path:
        return folder / f"{day.isoformat()}-{shard:02d}.arrows"


def _rows(sifted: Sifted) -> Iterator[tuple[str, str | None, str | None, int | None, int | None]]:
    for kind in _KEYS:
        for key in sorted(getattr(sifted, kind)):
            yield kind, key.device, key.package, key.uid, None


def _written(sifted: Sifted) -> bytes:
    keys = list(_rows(sifted))
    hashes = [np.concatenate([np.empty(0, np.uint64), *getattr(sifted, kind)]) for kind in _HASHES]
    numbers = np.concatenate(hashes)
    kinds = [*(row[0] for row in keys), *np.repeat(_HASHES, [len(each) for each in hashes]).tolist()]
    nothing = [None] * len(numbers)
    table = pa.table(
        {
            "kind": pa.array(kinds, pa.string()).dictionary_encode(),
            "device": pa.array([*(row[1] for row in keys), *nothing], pa.string()),
            "package": pa.array([*(row[2] for row in keys), *nothing], pa.string()),
            "uid": pa.array([*(row[3] for row in keys), *nothing], pa.int64()),
            "number": pa.concat_arrays([pa.nulls(len(keys), pa.uint64()), pa.array(numbers, pa.uint64())]),
        }
    )
    counts = json.dumps({name: getattr(sifted, name) for name in _COUNTS})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.with_metadata({_META: counts})) as out:
        out.write_table(table.replace_schema_metadata({_META: counts}))
    return bytes(sink.getvalue())


def _read(content: bytes) -> Sifted:
    with pa.ipc.open_stream(content) as reader:
        table = reader.read_all()
    found = Sifted(**json.loads(table.schema.metadata[_META]))
    kinds = table["kind"].cast(pa.string())
    for kind in _KEYS:
        own = table.filter(pc.equal(kinds, kind)).select(["device", "package", "uid"])
        getattr(found, kind).update(AppKey(**row) for row in own.to_pylist())
    for kind in _HASHES:
        getattr(found, kind).append(table.filter(pc.equal(kinds, kind))["number"].to_numpy())
    return found
