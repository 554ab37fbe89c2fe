"""Who had an address when: leases, assignments and the addresses that phones state themselves.

A lease that two devices claim for one time answers for neither: the flow keeps its address as its device.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

NOBODY: Final = -1
CONTESTED: Final = -2
_NEVER: Final = 2**62
STATED_SLACK_US: Final = 600_000_000
"""How long before and after a phone used an address it is taken to have held it, where no lease says so: ten minutes,
well inside the shortest usual lease."""


class Assignment(NamedTuple):
    """`device` had `address` from `begin` to `end`, us since epoch; None: not bounded."""

    address: str
    device: int
    begin: int | None
    end: int | None


@dataclass(slots=True)
class AddressBook:
    """Assignments by address, for look-up by time. Devices are codes, of which `canonical` makes one per device."""

    _spans: dict[str, tuple[Ints, Ints]] = field(default_factory=dict)

    @property
    def addresses(self) -> frozenset[str]:
        """The addresses that anybody had."""
        return frozenset(self._spans)

    def at(self, address: str, times: npt.NDArray[Any]) -> Ints:
        """Device code for each time (us since epoch); NOBODY, or CONTESTED where several claim it."""
        cuts, holders = self._spans[address]
        return holders[np.searchsorted(cuts, times, side="right")]


def address_book(assignments: Iterable[Assignment], canonical: Mapping[int, int]) -> AddressBook:
    """The book of the assignments; a lease without an end lasts until the address's next lease begins."""
    by_address: dict[str, set[tuple[int, int | None, int]]] = defaultdict(set)
    for address, device, begin, end in assignments:
        by_address[address].add((begin or 0, end, canonical.get(device, device)))
    return AddressBook({address: _spans(claims) for address, claims in by_address.items()})


def _spans(claims: set[tuple[int, int | None, int]]) -> tuple[Ints, Ints]:
    """Times at which the holder changes, and the holder before, between and after them."""
    ordered = sorted(claims, key=lambda claim: (claim[0], -1 if claim[1] is None else claim[1], claim[2]))
    begins = [begin for begin, _, _ in ordered]
    closed = []
    for place, (begin, end, device) in enumerate(ordered):
        later = next((b for b in begins[place + 1 :] if b > begin), _NEVER)
        closed.append((begin, later if end is None else end, device))
    cuts = sorted({edge for begin, end, _ in closed for edge in (begin, end)})
    changes: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for begin, end, device in closed:
        if begin < end:
            changes[begin].append((device, 1))
            changes[end].append((device, -1))
    counts: dict[int, int] = defaultdict(int)
    holders = [NOBODY]
    for cut in cuts:
        for device, change in changes[cut]:
            counts[device] += change
        present = [device for device, count in counts.items() if count > 0]
        holders.append(NOBODY if not present else present[0] if len(present) == 1 else CONTESTED)
    return np.array(cuts, np.int64), np.array(holders, np.int64)
