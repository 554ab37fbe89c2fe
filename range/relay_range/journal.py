"""What each side of a scenario saw of a session: JSON lines that the labels are joined from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

Address = tuple[str, int]


class Journal:
    """Appends events to one process's own file."""

    def __init__(self, path: str) -> None:
        self._file: TextIO = Path(path).open("a", buffering=1, encoding="utf-8")  # noqa: SIM115 - open for a life

    def event(self, side: str, **seen: Any) -> None:  # noqa: ANN401 - JSON values
        """Write one event. side: client, gateway, origin or app."""
        self._file.write(json.dumps({"side": side, **seen}) + "\n")


def events(folder: Path) -> list[dict[str, Any]]:
    """All events of a scenario; a line cut off at the end is left out."""
    found = []
    for path in sorted(folder.glob("*.journal")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:  # the process was stopped while writing
                continue
    return found
