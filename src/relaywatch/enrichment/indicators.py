"""Indicators of proxyware: names that its makers use, each with its source and licence. They explain; never convict.

Consented SDKs share names with ordinary apps, domains rotate and packages are renamed: a match tells the analyst where
to look, and its absence tells nothing.
"""

from __future__ import annotations

import re
import reprlib
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from relaywatch.enrichment.hostnames import domains_above
from relaywatch.model.destination_list import DestinationList
from relaywatch.model.errors import EnrichmentError
from relaywatch.model.finding import IndicatorMatch
from relaywatch.model.toml_document import read_toml

Kind = Literal["domain", "package", "class"]
LONGEST_TEXT: Final = 300
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_TEXT)]
MOST_MATCHES: Final = 20
"""Matches listed for one app; an app that bears more names of proxyware is not described better by them."""
_DOTTED: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", re.ASCII)


class Indicator(BaseModel):
    """One name. kind: domain (covers names under it), package (an application id), class (a Java package or class)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: Text
    kind: Kind
    family: Text
    source: Text
    licence: Text
    retrieved: date = Field(strict=True)

    @model_validator(mode="after")
    def _well_formed(self) -> Indicator:
        if self.kind == "domain":
            if DestinationList.parse([self.value]).domains != {self.value}:
                raise ValueError(f"{self.value!r} is no domain in lower case such as example.com")
        elif not _DOTTED.fullmatch(self.value):
            raise ValueError(f"{self.value!r} is no {self.kind} name such as com.example.app")
        return self

    def match(self, seen: str) -> IndicatorMatch:
        """The match of this indicator with what was seen."""
        return IndicatorMatch(matched=seen, **self.model_dump(mode="json"))


@dataclass(frozen=True, slots=True)
class Indicators:
    """Indicators by kind and value; where two have both in common, the later one."""

    by_kind: dict[Kind, dict[str, Indicator]]

    @classmethod
    def of(cls, entries: Iterable[Indicator]) -> Indicators:
        """Sort the entries by kind."""
        by_kind: dict[Kind, dict[str, Indicator]] = {"domain": {}, "package": {}, "class": {}}
        for entry in entries:
            by_kind[entry.kind][entry.value] = entry
        return cls(by_kind)

    def extended(self, other: Indicators) -> Indicators:
        """These and the others, which win where both have the same kind and value."""
        return Indicators({kind: {**held, **other.by_kind[kind]} for kind, held in self.by_kind.items()})

    def matches(self, hostnames: Iterable[str], package: str | None, components: Iterable[str]) -> list[IndicatorMatch]:
        """The indicators that an app bears, each once with the first name that matches, in order; at most MOST_MATCHES.

        hostnames: names that the app contacts for itself; components: names of its classes.
        """
        found = [
            *self._named("domain", hostnames, domains_above),
            *self._named("package", [package] if package else [], lambda name: [name]),
            *self._named("class", components, _packages_above),
        ]
        return found[:MOST_MATCHES]

    def _named(self, kind: Kind, names: Iterable[str], above: Callable[[str], Iterable[str]]) -> list[IndicatorMatch]:
        held = self.by_kind[kind]
        found: dict[str, IndicatorMatch] = {}
        for name in sorted(set(names)):
            for value in above(name):
                if value in held:
                    found.setdefault(value, held[value].match(name))
        return [found[value] for value in sorted(found)]


def _packages_above(name: str) -> Iterable[str]:
    """The class or package itself and each Java package that it is in, the longest first; none of a longer text."""
    parts = name.split(".") if len(name) <= LONGEST_TEXT else []
    return (".".join(parts[:end]) for end in range(len(parts), 0, -1))


@cache
def bundled_indicators() -> Indicators:
    """The indicators of indicators.toml, which comes with relaywatch."""
    text = resources.files(__package__).joinpath("indicators.toml").read_text(encoding="utf-8")
    return Indicators.of(_entries(Path("indicators.toml"), tomllib.loads(text)))


def load_indicators(path: Path) -> Indicators:
    """A site's own indicators: a TOML file of [[indicator]] tables, each with every field of Indicator.

    Raises EnrichmentError with the file, the entry and the key that is wrong; one bad entry refuses the whole file.
    """
    return Indicators.of(_entries(path, read_toml(path, EnrichmentError)))


def _entries(path: Path, document: dict[str, Any]) -> list[Indicator]:
    tables = document.get("indicator", [])
    if set(document) - {"indicator"} or not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        raise EnrichmentError(f"{path}: write each indicator as [[indicator]], in double brackets, and nothing else.")
    return [_entry(path, number, table) for number, table in enumerate(tables, start=1)]


def _entry(path: Path, number: int, table: dict[str, Any]) -> Indicator:
    try:
        return Indicator.model_validate(table)
    except ValidationError as fault:
        # A misspelt key also makes its right name missing: the misspelling is what to mend.
        first = min(fault.errors(), key=lambda error: error["type"] != "extra_forbidden")
        key = str(first["loc"][0]) if first["loc"] else "value"
        reason = {
            "extra_forbidden": f"not known. Keys are: {', '.join(Indicator.model_fields)}",
            "missing": f"missing. Every indicator needs {', '.join(Indicator.model_fields)}",
        }.get(first["type"], first["msg"].removeprefix("Value error, ").rstrip("."))
        place = f"indicator {number}" + (f" ({reprlib.repr(table['value'])})" if "value" in table else "")
        raise EnrichmentError(f"{path}, {place}: key {key}: {reason}.") from fault
