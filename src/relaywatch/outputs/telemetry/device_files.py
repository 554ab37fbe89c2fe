"""One file per device: names that a device cannot use to write anywhere else."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final
from urllib.parse import quote

LONGEST: Final = 120


def device_file(folder: Path, device: str, suffix: str) -> Path:
    """The device's file in `folder`: all but letters, digits, _ and - percent-encoded, long names hashed."""
    name = quote(device, safe="").replace(".", "%2E").replace("~", "%7E")
    if not name or len(name) > LONGEST:
        name = f"device-{hashlib.sha256(device.encode()).hexdigest()[:32]}"
    return folder / f"{name}{suffix}"
