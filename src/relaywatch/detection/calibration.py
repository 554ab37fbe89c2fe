"""Constants measured on labelled traffic: what real relays' legs look like, and what is assumed of others.

Measured on the relay lab, smoothed, and partly set by hand: `docs/detection.md` says what each is for, and
`docs/results.md` what comes of them.
"""

from __future__ import annotations

from typing import Final

import numpy as np

PAIR_EDGES: Final = np.array([-8.9, 0.0, 2.0, 4.0, 6.0, 8.0])
"""Upper edges of the grades of a pair's score; grade 0 is "no target leg in reach"."""
PAIR_RELAY: Final = np.array([0.06, 0.05, 0.05, 0.10, 0.16, 0.28, 0.30])
"""Frequency of each grade among the client legs of real relays."""
PAIR_NULL: Final = np.array([0.60, 0.25, 0.08, 0.04, 0.02, 0.008, 0.002])
"""Frequency of each grade assumed for independent legs."""
PAIR_NULL_WEIGHT: Final = 20.0
PAIR_BRIDGE_GRADE: Final = 3
"""A pair of this grade or better is called a bridge."""
PAIR_SURE_GRADE: Final = 4
"""A client side without FEWEST_BRIDGES pairs of this grade is not weighed further."""

MIRROR_GAPS: Final = np.array([0.03, 0.1, 0.3, 0.7])
"""Upper edges of the gap between what a link sends and a burst that it carries, natural log of the ratio."""
MIRROR_GRADES: Final = 7
"""Grades of a burst: 0 not carried, 1 in part, 2 carried with a wider gap, 3 to 6 carried within ever closer gaps."""
MIRROR_SIZES: Final = np.array([1_500.0, 15_000.0])
"""Bytes of a target burst that part small, middle and large bursts: small ones are mirrored by chance more often."""
MIRROR_RELAY: Final = np.array(
    [
        [0.05, 0.05, 0.55, 0.10, 0.10, 0.05, 0.10],
        [0.03, 0.03, 0.40, 0.15, 0.11, 0.08, 0.20],
        [0.03, 0.03, 0.18, 0.15, 0.17, 0.15, 0.29],
    ]
)
"""Frequency of each grade among relays' target bursts, a row a size class."""
MIRROR_NULL: Final = np.array(
    [
        [0.40, 0.10, 0.35, 0.08, 0.04, 0.02, 0.01],
        [0.60, 0.15, 0.15, 0.06, 0.02, 0.014, 0.006],
        [0.70, 0.15, 0.07, 0.05, 0.02, 0.007, 0.003],
    ]
)
MIRROR_NULL_WEIGHT: Final = 12.0
MIRROR_BRIDGE_GRADE: Final = 3
CARRIED_GRADE: Final = 2
FED_EDGES: Final = np.array([0.5, 0.75, 0.9, 0.97])
FED_RATIOS: Final = np.array([-12.0, -5.0, -2.0, 0.0, 0.5])
"""Log likelihood ratio of the share of a link's bytes that are sent while it is fed, by upper edge. Relays' links: 0.99
and more; chaff lowers it, so it weighs and does not gate."""
BALANCED: Final = 0.04
BALANCED_RATIO: Final = 3.0
"""Log likelihood ratio where all that a link sends equals all that it was fed, within this natural log of the ratio."""
SPARSE: Final = 0.35
UNBALANCED_RATIO: Final = -3.0
"""Log likelihood ratio where a link was fed less than this share of what it sends: framing adds 2.5 times at most."""

FEWEST_BRIDGES: Final = 3
"""Fewer bridged sessions than this are not worth a score: any app has two flows that look alike."""

PRIOR_LOG_ODDS: Final = float(np.log(1e-3))
"""Prior log odds that an app relays: one in a thousand, a round figure between app stores and infected fleets."""
