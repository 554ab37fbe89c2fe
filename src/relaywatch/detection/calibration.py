"""Constants measured on labelled traffic: what real relays' legs look like, and what is assumed of others.

Measured on the relay lab, smoothed, and partly set by hand: `docs/detection.md` says what each is for, and
`docs/results.md` what comes of them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from relaywatch.detection.columns import Floats

PAIR_EDGES: Final = np.array([-8.9, 0.0, 2.0, 4.0, 6.0, 8.0])
"""Upper edges of the grades of a pair's score; grade 0 is "no target leg in reach"."""
PAIR_BROAD: Final = np.array([0.06, 0.05, 0.05, 0.10, 0.16, 0.28, 0.30])
"""Frequency of each grade believed of the client legs of a relay that nobody has measured."""
PAIR_NULL: Final = np.array([0.60, 0.25, 0.08, 0.04, 0.02, 0.008, 0.002])
"""Frequency of each grade assumed for independent legs."""
PAIR_NULL_WEIGHT: Final = 20.0
PAIR_BRIDGE_GRADE: Final = 3
"""A pair of this grade or better is called a bridge."""
PAIR_SURE_GRADE: Final = 4
"""A client side without FEWEST_BRIDGES pairs of this grade is not weighed further."""

ACCOUNT_EDGES: Final = np.array([0.05, 0.1, 0.2, 0.35, 0.6, 0.9])
"""Upper edges of the share of a sending that no set of flows accounts for."""
ACCOUNT_GRADES: Final = 7
"""Grades of a sending: 0 nothing accounts for it, then ever closer accounts."""
ACCOUNT_SIZES: Final = np.array([1_500.0, 3.0])
"""Bytes below which a sending is small, and seconds below which a larger one is short."""
ACCOUNT_BROAD: Final = np.array(
    [
        [0.10, 0.10, 0.15, 0.15, 0.15, 0.15, 0.20],
        [0.05, 0.04, 0.08, 0.13, 0.18, 0.17, 0.35],
        [0.04, 0.04, 0.08, 0.15, 0.22, 0.22, 0.25],
    ]
)
"""Frequency of each grade believed of the sendings of a link that nobody has measured, a row a size class: small,
short, longer."""
ACCOUNT_NULL: Final = np.array(
    [
        [0.60, 0.15, 0.10, 0.07, 0.04, 0.02, 0.02],
        [0.65, 0.15, 0.10, 0.05, 0.03, 0.012, 0.008],
        [0.62, 0.20, 0.10, 0.05, 0.02, 0.007, 0.003],
    ]
)
"""Frequency of each grade assumed for links that relay nothing."""
ACCOUNT_NULL_WEIGHT: Final = 12.0
ACCOUNT_BRIDGE_GRADE: Final = 3
"""A sending of this grade or better is called accounted for, and the flows that account for it bridged."""


class Tables(NamedTuple):
    """What is measured of relays, and may be measured anew: frequency of each grade of pairs and of sendings.

    pair_relay: one value a grade; account_relay: a row a size class, a column a grade; each sums to 1.
    """

    pair_relay: Floats
    account_relay: Floats


MEASURED: Final = Tables(
    np.array([0.032, 0.033, 0.031, 0.062, 0.095, 0.255, 0.492]),
    np.array(
        [
            [0.189, 0.083, 0.125, 0.125, 0.151, 0.143, 0.184],
            [0.042, 0.031, 0.052, 0.083, 0.114, 0.134, 0.544],
            [0.022, 0.021, 0.050, 0.096, 0.142, 0.170, 0.499],
        ]
    ),
)
"""The tables that ship: measured on all labelled relays, half mixed with the broad ones (`evaluation/fitting.py`)."""

FEWEST_BRIDGES: Final = 3
"""Fewer bridged sessions than this are not worth a score: any app has two flows that look alike."""

PRIOR_LOG_ODDS: Final = float(np.log(1e-3))
"""Prior log odds that an app relays: one in a thousand, a round figure between app stores and infected fleets."""
STRONGEST_EVIDENCE: Final = 25.0
"""Natural log evidence beyond which more bridges add no more belief: legs are not wholly independent."""
