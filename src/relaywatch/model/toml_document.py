"""Reads a TOML file that a user wrote; every fault becomes the caller's error with the file and the place in it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

from relaywatch.model.errors import RelaywatchError

LARGEST_DOCUMENT_BYTES: Final = 4 * 1024 * 1024
"""No settings or exceptions file of a real site comes near it; a wrong file given by mistake does."""


def read_toml(path: Path, error: type[RelaywatchError]) -> dict[str, Any]:
    """Tables and values of the TOML file at `path`.

    Raises `error` where the file cannot be opened, is larger than LARGEST_DOCUMENT_BYTES, is no UTF-8 or no TOML.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST_DOCUMENT_BYTES + 1)
    except OSError as fault:
        raise error(f"{path}: cannot be opened: {fault.strerror}.") from fault
    if len(content) > LARGEST_DOCUMENT_BYTES:
        raise error(f"{path}: larger than {LARGEST_DOCUMENT_BYTES} bytes. Is it the right file?")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as fault:
        raise error(f"{path}, byte {fault.start}: not UTF-8. Save the file as UTF-8 text.") from fault
    except tomllib.TOMLDecodeError as fault:
        raise error(f"{path}: not valid TOML: {fault}.") from fault
    except RecursionError as fault:
        raise error(f"{path}: nested too deeply.") from fault
