"""What an app contacts for itself, by name: public-IP look-ups and names of proxyware. Bridged targets are others'."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from relaywatch.detection.columns import Ints
from relaywatch.engines.cases import Case
from relaywatch.engines.records import Records
from relaywatch.enrichment.indicators import Indicators
from relaywatch.enrichment.public_ip import is_public_ip_service
from relaywatch.model.finding import IndicatorMatch
from relaywatch.model.schemas import Direction

NAMED_SHARE = 0.5
"""Share of flows with a host name below which names count as not observable."""


@dataclass(frozen=True, slots=True)
class Contacts:
    """names_seen: whether flows mostly carry names; lookups, indicated: FLOW records of look-ups and of matches."""

    names_seen: bool
    lookups: Records
    indicators: list[IndicatorMatch]
    indicated: Records


def contacts_of(
    case: Case, bridged: Ints, package: str | None, texts: Mapping[int, str], indicators: Indicators
) -> Contacts:
    """The app's own contacts. bridged: rows of target legs, which the relay's client chose and not the app."""
    dialled = case.flows["direction"] != Direction.INBOUND
    named = dialled & (case.flows["name"] != 0)
    own = named.copy()
    own[bridged] = False
    names = {int(key): texts.get(int(key), "") for key in np.unique(case.flows["name"][own])}
    matches = indicators.matches([*names.values()], package, _components(case, texts))
    matched = {match.matched for match in matches if match.kind == "domain"}

    def rows(keys: list[int]) -> Records:
        found: Records = case.flows[own & np.isin(case.flows["name"], np.array(keys, np.uint64))]
        return found

    return Contacts(
        names_seen=bool(named.sum() >= NAMED_SHARE * max(dialled.sum(), 1)),
        lookups=rows([key for key, name in names.items() if is_public_ip_service(name)]),
        indicators=matches,
        indicated=rows([key for key, name in names.items() if name in matched]),
    )


def _components(case: Case, texts: Mapping[int, str]) -> Iterator[str]:
    """Names of classes, or whatever else is written as they are, in the details of the app's signals."""
    own = case.signals["detail"][case.signals["app"] == case.app]
    for key in np.unique(own):
        yield from re.split(r"[\s/:,]+", texts.get(int(key), ""))
