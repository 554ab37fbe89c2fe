"""The journal of findings: what was told of each, in order, once; a crash never tells a thing twice.

A line is {"event", "revision", "time", "finding"}. Events equal to the last one of their finding are not written again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from relaywatch.engines.kernel import Change, Status
from relaywatch.live.durable import Lines
from relaywatch.live.taking import LiveError
from relaywatch.model.finding import Finding
from relaywatch.outputs.native import json_line

NAME: Final = "findings.ndjson"
_OPEN: Final = (Status.OPENED, Status.UPDATED)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the journal. text: the finding as JSON, made once for all who write it."""

    status: Status
    revision: int
    time: str
    text: str

    @property
    def finding(self) -> Mapping[str, Any]:
        """The finding as an object of JSON."""
        found: Mapping[str, Any] = json.loads(self.text)
        return found

    def line(self) -> str:
        """The event as it is written, and told as JSON."""
        head = json.dumps({"event": self.status, "revision": self.revision, "time": self.time}, separators=(",", ":"))
        return f'{head[:-1]},"finding":{self.text}}}\n'


@dataclass(frozen=True, slots=True)
class _Last:
    """The newest event of a finding: what it said, in short, and where it stands."""

    status: Status
    revision: int
    digest: bytes
    offset: int


class Journal:
    """findings.ndjson of a state folder."""

    def __init__(self, folder: Path, *, known_size: int) -> None:
        """known_size: the journal's size at the checkpoint from which the judgement goes on.

        Raises LiveError where a line cannot be read.
        """
        self._path = folder / NAME
        self._lines = Lines(self._path)
        self._last: dict[str, _Last] = {}
        self._since: dict[str, _Last | None] = {}
        for offset, record in _records(self._path):
            key = str(record["finding"]["finding_id"])
            if offset >= known_size and key not in self._since:
                self._since[key] = self._last.get(key)
            status, revision = Status(record["event"]), int(record["revision"])
            self._last[key] = _Last(status, revision, _digest(_text(record["finding"])), offset)

    @property
    def size_bytes(self) -> int:
        """Bytes of the journal."""
        return self._lines.size

    @property
    def open(self) -> int:
        """Findings that are open."""
        return sum(last.status in _OPEN for last in self._last.values())

    def write(self, changes: Iterable[Change]) -> list[Event]:
        """Write what is new among the changes; the events, on disk."""
        return self._append(
            (Status(change.status), change.finding.finding_id, _text(change.finding)) for change in changes
        )

    def resume(self, changes: Sequence[Change]) -> list[Event]:
        """Write the first changes after a crash, and take back what was told since the checkpoint and no longer holds.

        The judgement tells each finding that is not as it was at the checkpoint. So a finding that the journal has
        an event of since then, and the judgement none, is as it was at the checkpoint: not there, or in its old state.
        """
        events = self.write(changes)
        told = {change.finding.finding_id for change in changes}
        back = []
        for key, before in self._since.items():
            if key in told:
                continue
            if before is None:
                back.append((Status.WITHDRAWN, key, self._finding(self._last[key].offset)))
            else:
                status = Status.UPDATED if before.status == Status.OPENED else before.status
                back.append((status, key, self._finding(before.offset)))
        self._since = {}
        return events + self._append(back)

    def close(self) -> None:
        """Nothing more is written."""
        self._lines.close()

    def _append(self, news: Iterable[tuple[Status, str, str]]) -> list[Event]:
        """Write what is new. news: status, finding's id, finding as JSON."""
        events: list[Event] = []
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        text: list[str] = []
        at = self._lines.size
        for given, key, finding in news:
            digest = _digest(finding)
            last = self._last.get(key)
            status = Status.UPDATED if given == Status.OPENED and last is not None and _is_open(last) else given
            if last is not None and last.digest == digest and (last.status == status or _same(last.status, status)):
                continue
            event = Event(status, last.revision + 1 if last else 1, now, finding)
            line = event.line()
            self._last[key] = _Last(status, event.revision, digest, at)
            at += len(line)
            text.append(line)
            events.append(event)
        if text:
            self._lines.append("".join(text))
        return events

    def _finding(self, offset: int) -> str:
        with self._path.open("rb") as file:
            file.seek(offset)
            return _text(json.loads(file.readline())["finding"])


def _is_open(last: _Last) -> bool:
    return last.status in _OPEN


def _same(one: Status, other: Status) -> bool:
    """An update that changes nothing of a finding says what its opening said."""
    return {one, other} == {Status.OPENED, Status.UPDATED}


def _text(finding: Finding | dict[str, Any]) -> str:
    return json_line(finding).rstrip("\n")


def _digest(finding: str) -> bytes:
    return blake2b(finding.encode(), digest_size=16).digest()


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The journal's records, each with the byte at which it begins; a torn last line is left out."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
                if not {"event", "revision", "finding"} <= record.keys() or "finding_id" not in record["finding"]:
                    raise ValueError("not an event")  # noqa: TRY301 - the one place that knows the line
                Status(record["event"])
            except (ValueError, AttributeError, TypeError, RecursionError) as fault:
                raise LiveError(
                    f"{path}, line {number}: no event of the journal ({fault}). Restore the file."
                ) from fault
            yield offset, record
            offset += len(line)


def newest(path: Path) -> dict[str, dict[str, Any]]:
    """The newest event of each finding by its id, in the order of their opening. Reads only."""
    held: dict[str, dict[str, Any]] = {}
    for _, record in _records(path):
        key = str(record["finding"]["finding_id"])
        if key in held and held[key]["event"] not in _OPEN:
            del held[key]
        held[key] = record
    return held


def standing(folder: Path) -> list[dict[str, Any]]:
    """The newest event of each finding that is open, in the order of their opening. Reads only."""
    return [record for record in newest(journal_in(folder)).values() if record["event"] in _OPEN]


def journal_in(folder: Path) -> Path:
    """The journal of a state folder. Raises LiveError where there is none."""
    path = folder / NAME
    if not path.exists():
        raise LiveError(f"{folder}: no journal here. Give the state folder of a watcher.")
    return path
