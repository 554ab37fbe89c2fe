"""Checkpoints: the judgement's whole state with the number of the spool's entry up to which it has taken everything.

Written into a folder of its own, synced, and renamed into place; the last two are kept.
"""

from __future__ import annotations

import json
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from relaywatch.live.durable import sync_folder, sync_tree
from relaywatch.live.judgement import State
from relaywatch.live.taking import LiveError, Position

KEPT: Final = 2
VERSION: Final = 1
_STATE, _KERNEL, _NEW = "state.json", "kernel", ".new-"
_NAME: Final = re.compile(r"\d{20}-\d{10}")
"""Entry and serial number: several checkpoints may have one entry."""
_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Stand:
    """What a checkpoint holds beside the judgement's state.

    entry: the last spool entry that is in it; journal: the journal's size in bytes; rows by table, and aside, in all.
    """

    entry: int = 0
    positions: Mapping[str, Position] = field(default_factory=dict)
    journal: int = 0
    rows: Mapping[str, int] = field(default_factory=dict)
    aside: int = 0


class Checkpoints:
    """The checkpoints of a state folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True, mode=0o700)
        self._folder = folder
        for left in folder.glob(f"{_NEW}*"):
            shutil.rmtree(left)

    def write(self, held: State, stand: Stand) -> int:
        """Keep the state; the number of the entry up to which the spool is needed no longer."""
        standing = self._standing()
        name = f"{stand.entry:020d}-{_serial(standing[-1]) + 1 if standing else 1:010d}"
        fresh = self._folder / f"{_NEW}{name}"
        kernel = fresh / _KERNEL
        kernel.mkdir(parents=True, mode=0o700)
        held.write(kernel)
        files = {str(path.relative_to(kernel)): _sum(path) for path in sorted(kernel.rglob("*")) if path.is_file()}
        state = json.dumps({"version": VERSION, "files": files, **asdict(stand)}, separators=(",", ":"))
        sealed = json.dumps({"crc32": zlib.crc32(state.encode()), "state": state})
        (fresh / _STATE).write_text(sealed, encoding="utf-8")
        sync_tree(fresh)
        fresh.rename(self._folder / name)
        sync_folder(self._folder)
        standing = self._standing()
        for old in standing[:-KEPT]:
            shutil.rmtree(old)
        return _entry(standing[-KEPT]) if len(standing) >= KEPT else 0

    def newest_sound(self) -> Iterator[tuple[Stand, Path]]:
        """The checkpoints that are whole, newest first: what stands, and the folder of the judgement's state.

        Raises LiveError where there are checkpoints and none is whole.
        """
        sound = 0
        for place in reversed(self._standing()):
            state = _sealed(place)
            if state is not None:
                sound += 1
                yield Stand(**{name: state[name] for name in Stand.__dataclass_fields__}), place / _KERNEL
        if self._standing() and not sound:
            raise LiveError(
                f"{self._folder}: no checkpoint is whole. Restore one, or begin again with an empty state folder."
            )

    def _standing(self) -> list[Path]:
        return sorted(path for path in self._folder.iterdir() if _NAME.fullmatch(path.name))


def _entry(place: Path) -> int:
    return int(place.name.partition("-")[0])


def _serial(place: Path) -> int:
    return int(place.name.partition("-")[2])


def _sealed(place: Path) -> dict[str, Any] | None:
    """The state, where it and all files of the judgement are as they were written."""
    try:
        sealed = json.loads((place / _STATE).read_text(encoding="utf-8"))
        text: str = sealed["state"]
        if zlib.crc32(text.encode()) != sealed["crc32"]:
            return None
        state: dict[str, Any] = json.loads(text)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if state.get("version") != VERSION:
        raise LiveError(f"{place}: a checkpoint of version {state.get('version')}, this reads {VERSION}.")
    try:
        whole = all(_sum(place / _KERNEL / name) == summed for name, summed in state.pop("files").items())
    except OSError:
        return None
    return state if whole else None


def _sum(path: Path) -> list[int]:
    """Size and CRC-32 of a file."""
    size = crc = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            size, crc = size + len(piece), zlib.crc32(piece, crc)
    return [size, crc]
