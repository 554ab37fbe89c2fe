"""Which records mean the same app: a package known here, a uid known there.

Android's sandbox is the uid, so a uid with one package is that package. Packages that share a uid, and a package that
several Android users have, stay apart: the candidates are kept, not one of them chosen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

UIDS_A_USER: Final = 100_000
"""AOSP android.os.UserHandle.PER_USER_RANGE: uid = user id * 100000 + app id."""
FIRST_APP_ID: Final = 10_000
"""AOSP android.os.Process.FIRST_APPLICATION_UID: lower ids are the system's."""


@dataclass(frozen=True, slots=True)
class Apps:
    """One device's packages by uid and uids by package, as its sources state them together."""

    packages: Mapping[int, frozenset[str]]
    uids: Mapping[str, frozenset[int]]

    def complete(self, package: str, uid: int | None) -> tuple[str, int | None]:
        """The identity with its missing part, where that can only be one."""
        if package and uid is None:
            known = self.uids.get(package, frozenset())
            return package, next(iter(known)) if len(known) == 1 else None
        if uid is not None and not package:
            names = self.candidates(uid)
            return next(iter(names)) if len(names) == 1 else "", uid
        return package, uid

    def candidates(self, uid: int) -> frozenset[str]:
        """Packages that run under the uid; those of the same app id where this user's are not stated."""
        return self.packages.get(uid) or self.packages.get(uid % UIDS_A_USER, frozenset())


def apps_of(stated: Iterable[tuple[str, int]]) -> Apps:
    """The apps of one device from (package, uid) pairs stated together by any source."""
    packages: dict[int, set[str]] = defaultdict(set)
    uids: dict[str, set[int]] = defaultdict(set)
    for package, uid in stated:
        packages[uid].add(package)
        uids[package].add(uid)
    return Apps({u: frozenset(p) for u, p in packages.items()}, {p: frozenset(u) for p, u in uids.items()})
