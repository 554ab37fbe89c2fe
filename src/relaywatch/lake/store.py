"""The lake as a folder: what is in it, who may write, and how a change takes effect at once or not at all.

A change writes its files under the staging folder, moves them to their places, and then replaces sources.json, which
lists every file of the lake: only that makes them part of it. What is in a table's folder and not listed is what an
interrupted change left; the next one removes it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from relaywatch import __version__
from relaywatch.lake.layout import ORDER, SHARDS, VERSION, Partition
from relaywatch.model.errors import LakeError

ABOUT: Final = "lake.json"
MANIFEST: Final = "sources.json"
STAGING: Final = ".staging"
LOCK: Final = ".lock"
LARGEST_MANIFEST_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of the lake. path: within it; repeats: rows that are exactly the row before."""

    path: str
    rows: int
    size_bytes: int
    repeats: int

    @property
    def partition(self) -> Partition:
        """Where it lies. Raises LakeError where its path is none of a lake."""
        partition = Partition.holding(self.path)
        if partition is None:
            raise LakeError(f"{self.path}: no file of a lake is called so.")
        return partition


@dataclass(frozen=True, slots=True)
class Imported:
    """One file or folder that was read into the lake. rows: by table; digest: SHA-256 of its content."""

    path: str
    format: str
    size_bytes: int
    digest: str
    rows: dict[str, int]
    quarantined: int


@dataclass(slots=True)
class Manifest:
    """All that is in a lake. change: number of the last one; sources: format by source name."""

    change: int = 0
    sources: dict[str, str] = field(default_factory=dict)
    imported: list[Imported] = field(default_factory=list)
    files: list[StoredFile] = field(default_factory=list)

    def partitions(self) -> dict[Partition, list[StoredFile]]:
        """The files of each partition, partitions in order."""
        parts: dict[Partition, list[StoredFile]] = defaultdict(list)
        for file in self.files:
            parts[file.partition].append(file)
        return dict(sorted(parts.items(), key=lambda part: part[0].folder))


def read_manifest(folder: Path) -> Manifest:
    """What is in the lake. Raises LakeError where `folder` is no lake, or one of a later layout, or damaged."""
    about = _document(folder, ABOUT)
    version, shards = about.get("version"), about.get("shards")
    if isinstance(version, int) and version > VERSION:
        raise LakeError(
            f"{folder}: a lake of layout {version}; this relaywatch knows layouts up to {VERSION}. Update relaywatch."
        )
    if version != VERSION or shards != SHARDS:
        raise LakeError(f"{folder / ABOUT}: says neither a known layout nor {SHARDS} shards. It was changed by hand.")
    stored = _document(folder, MANIFEST)
    try:
        manifest = Manifest(
            change=int(stored["change"]),
            sources={str(name): str(form) for name, form in stored["sources"].items()},
            imported=[Imported(**entry) for entry in stored["imported"]],
            files=[StoredFile(**entry) for entry in stored["files"]],
        )
        manifest.partitions()
    except (KeyError, TypeError, ValueError, AttributeError, LakeError) as fault:
        raise LakeError(f"{folder / MANIFEST}: damaged ({fault}). Restore it, or import into a new lake.") from fault
    return manifest


def _document(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        if path.stat().st_size > LARGEST_MANIFEST_BYTES:
            raise LakeError(f"{path}: larger than {LARGEST_MANIFEST_BYTES} bytes. Is this a lake?")
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as fault:
        raise LakeError(
            f"{folder}: no lake (it has no {name}). Make one with relaywatch lake import PATHS --lake {folder}."
        ) from fault
    except OSError as fault:
        raise LakeError(f"{path}: cannot be read: {fault.strerror or fault}.") from fault
    except (ValueError, RecursionError) as fault:
        raise LakeError(f"{path}: damaged ({fault}). Restore it, or import into a new lake.") from fault
    if not isinstance(document, dict):
        raise LakeError(f"{path}: damaged (no JSON object). Restore it, or import into a new lake.")
    return document


@dataclass(slots=True)
class Store:
    """A lake that this process alone may change."""

    folder: Path
    manifest: Manifest

    def fresh(self, partition: Partition, number: int) -> str:
        """Path within the lake of a file that the next change will bring; number: its number in its partition."""
        return f"{partition.folder}/{self.manifest.change + 1:08d}-{number:04d}.parquet"

    def staged(self, path: str) -> Path:
        """Where that file is written before it is published."""
        return self.folder / STAGING / path

    def publish(
        self,
        files: Sequence[StoredFile],
        *,
        without: Sequence[StoredFile] = (),
        imported: Sequence[Imported] = (),
        sources: dict[str, str] | None = None,
    ) -> None:
        """Make staged files part of the lake, and those `without` no part of it, at once or not at all."""
        for file in files:
            place = self.folder / file.path
            place.parent.mkdir(parents=True, exist_ok=True)
            self.staged(file.path).replace(place)
        # Once for all: a lake of many days has thousands of files, and to sync each takes longer than to write it.
        os.sync()
        gone = {file.path for file in without}
        old = self.manifest
        fresh = Manifest(
            change=old.change + 1,
            sources={**(sources or {}), **old.sources},
            imported=[*old.imported, *imported],
            files=[*(file for file in old.files if file.path not in gone), *files],
        )
        _write(self.folder / MANIFEST, asdict(fresh))
        self.manifest = fresh
        for path in gone:
            (self.folder / path).unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove what an interrupted change left; no file of other names."""
        shutil.rmtree(self.folder / STAGING, ignore_errors=True)
        listed = {file.path for file in self.manifest.files}
        for table in ORDER:
            for path in list((self.folder / table).rglob("*.parquet")):
                name = path.relative_to(self.folder).as_posix()
                if name not in listed and Partition.holding(name) is not None:
                    path.unlink()


@contextmanager
def changing(folder: Path, *, create: bool) -> Iterator[Store]:
    """The lake at `folder` for one process that changes it. create: make it where there is none.

    Raises LakeError where it is no lake, cannot be written, is being changed by another process, or the disk is full.
    """
    try:
        if create:
            _prepare(folder)
        manifest = read_manifest(folder)
        with (folder / LOCK).open("w") as lock:
            _locked(lock.fileno(), folder)
            # What another process published while this one came to the lock.
            store = Store(folder, read_manifest(folder) if manifest else manifest)
            store.clean()
            try:
                yield store
            finally:
                shutil.rmtree(folder / STAGING, ignore_errors=True)
    except (OSError, pa.ArrowException) as fault:
        reason = getattr(fault, "strerror", None) or str(fault)
        raise LakeError(
            f"{folder}: cannot be written: {reason}. What was in the lake still is; when this is mended, run it again."
        ) from fault


def _locked(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as fault:
        raise LakeError(f"{folder}: another import or compaction is at work here. Wait until it has ended.") from fault


def _prepare(folder: Path) -> None:
    """Make an empty lake of a new or empty folder; leave a lake as it is."""
    if folder.exists() and not folder.is_dir():
        raise LakeError(f"{folder}: a lake is a folder, and this is a file. Give another path.")
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / ABOUT).exists():
        return
    others = {entry.name for entry in folder.iterdir()} - {MANIFEST, f"{MANIFEST}.new", f"{ABOUT}.new"}
    if others:
        raise LakeError(f"{folder}: neither a lake nor empty. Give the path of a lake, or of a folder to be made.")
    # In this order: a lake without its list of files must never look like an empty one.
    _write(folder / MANIFEST, asdict(Manifest()))
    _write(folder / ABOUT, {"version": VERSION, "shards": SHARDS, "made_by": f"relaywatch {__version__}"})


def _write(path: Path, document: dict[str, Any]) -> None:
    """Replace a document at once."""
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("w", encoding="utf-8") as stream:
        json.dump(document, stream, ensure_ascii=True, separators=(",", ":"))
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(path)
    # The new name is on the disk too before anything that the old document lists is removed.
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
