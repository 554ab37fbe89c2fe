"""Inputs that need libraries beyond those that every install has."""

from __future__ import annotations

import importlib
from types import ModuleType

from relaywatch.live.taking import LiveError


def with_extra(module: str, extra: str, what: str) -> ModuleType:
    """The module of this room. Raises LiveError with the command that installs what it needs, where that is missing."""
    try:
        return importlib.import_module(f"relaywatch.live.{module}")
    except ModuleNotFoundError as fault:
        if (fault.name or "").startswith("relaywatch"):
            raise
        raise LiveError(
            f"{what} needs {fault.name}, which is not installed. Install it: pip install 'relaywatch[{extra}]'"
        ) from fault
