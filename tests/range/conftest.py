"""The range is a folder of its own, not installed with relaywatch: its tests find it here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "range"))
