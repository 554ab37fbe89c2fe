"""Rewrites expected.json from the examples: python tests/golden/regenerate.py, then read the difference in git."""

from __future__ import annotations

import json

from golden_findings import EXPECTED, HUNTS, found

if __name__ == "__main__":
    EXPECTED.write_text(json.dumps({name: found(name) for name in HUNTS}, indent=1) + "\n", encoding="utf-8")
