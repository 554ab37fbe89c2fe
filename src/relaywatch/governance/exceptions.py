"""Documented exceptions: who permits which app to relay, why, and until when.

An exception is a person's decision, with an owner, a reason and an end. It changes a finding's verdict and hides
nothing: the evidence stays. Pure but for reading the file; the clock is the caller's.
"""

from __future__ import annotations

import difflib
import reprlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from relaywatch.governance.response import first_response
from relaywatch.model.assurance import ExceptionState, ExceptionStatus
from relaywatch.model.destination_list import DestinationList
from relaywatch.model.errors import ExceptionFileError
from relaywatch.model.finding import App, Destination, ExceptionUse, Finding, Verdict
from relaywatch.model.toml_document import read_toml

COVERABLE: Final = frozenset({Verdict.RELAY, Verdict.SUSPECTED_RELAY})

PACKAGE_ALONE: Final = "Matched by package name alone, which any app can take; add the signing digest to the exception."
DIGEST_UNCHECKED: Final = (
    "The telemetry does not show the app's signing digest, so that of the exception was not checked."
)
EXPIRED_SINCE: Final = "The exception covers this past episode; it has expired since and covers no later one."


def _plain_digest(digest: str) -> str:
    plain = digest.replace(":", "").lower()
    if len(plain) != 64 or not set(plain) <= set("0123456789abcdef"):
        raise ValueError("a signing digest is a SHA-256, 64 hexadecimal digits")
    return plain


def _moment(value: object) -> object:
    """Read a bare date as its last instant and a time without a zone as UTC."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime.combine(value, time.max, UTC)
    raise ValueError("write a date such as 2027-03-01, without quotes")


def _destinations(entries: tuple[str, ...]) -> tuple[str, ...]:
    DestinationList.parse(entries)
    return entries


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class DocumentedException(BaseModel):
    """One permission to relay. Every limit that is given must hold; one that is not given limits nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Text
    package: Text
    signing_digest: Annotated[str, AfterValidator(_plain_digest)] | None = None
    device_group: Text | None = None
    devices: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    destinations: Annotated[tuple[Text, ...], Field(min_length=1), AfterValidator(_destinations)] | None = None
    owner: Text
    reason: Text
    expires: Annotated[datetime, BeforeValidator(_moment)]

    def describes(self, finding: Finding) -> bool:
        """Whether app, device and every bridged destination are within the exception, its end left aside."""
        return (
            finding.app.package == self.package
            and self.signing_digest in (None, finding.app.signing_digest or self.signing_digest)
            and self.device_group in (None, finding.device.group)
            and (self.devices is None or finding.device.uid in self.devices)
            and self._permits(finding)
        )

    def _permits(self, finding: Finding) -> bool:
        if self.destinations is None:
            return True
        # A finding lists only so many destinations: one that it leaves out may lie anywhere.
        if not finding.destinations or finding.spread.destinations > len(finding.destinations):
            return False
        permitted = DestinationList.parse(self.destinations)
        return all(_within(destination, permitted) for destination in finding.destinations)

    def warnings(self, app: App) -> list[str]:
        """Say what weakens the match with this app."""
        if self.signing_digest is None:
            return [PACKAGE_ALONE]
        return [] if app.signing_digest is not None else [DIGEST_UNCHECKED]


def _within(destination: Destination, permitted: DestinationList) -> bool:
    """Whether all of a destination is permitted; a list that was cut for display cannot show that."""
    if permitted.covers_name(destination.name):
        return True
    return _all(permitted.covers_address, destination.addresses, destination.address_count) or _all(
        permitted.covers_name, destination.hostnames, destination.hostname_count
    )


def _all(covers: Callable[[str], bool], listed: list[str], count: int) -> bool:
    return 0 < count <= len(listed) and all(map(covers, listed))


@dataclass(frozen=True, slots=True)
class Exceptions:
    """The exceptions of one site, ids unique."""

    entries: tuple[DocumentedException, ...] = ()


def load_exceptions(path: Path) -> Exceptions:
    """Exceptions of a TOML file of [[exception]] tables.

    Raises ExceptionFileError with the file, the entry and the key that is wrong. One bad entry refuses the whole file:
    a half-read file would raise alarms on what is permitted.
    """
    document = read_toml(path, ExceptionFileError)
    for table in document:
        if table != "exception":
            raise ExceptionFileError(f"{path}: {table!r} is not known here. Write each exception as [[exception]].")
    tables = document.get("exception", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ExceptionFileError(f"{path}: write each exception as [[exception]], in double brackets.")
    entries: dict[str, DocumentedException] = {}
    for number, table in enumerate(tables, start=1):
        entry = _entry(path, number, table)
        if entry.id in entries:
            raise ExceptionFileError(
                f"{path}, {_place(number, table)}: key id: used before. Give each exception its own id."
            )
        entries[entry.id] = entry
    return Exceptions(tuple(entries.values()))


def _entry(path: Path, number: int, table: dict[str, Any]) -> DocumentedException:
    try:
        return DocumentedException.model_validate(table)
    except ValidationError as fault:
        # A misspelt key also makes its right name missing: the misspelling is what to mend.
        first = min(fault.errors(), key=lambda error: error["type"] != "extra_forbidden")
        key = str(first["loc"][0])
        raise ExceptionFileError(
            f"{path}, {_place(number, table)}: key {key}: {_reason(first['type'], key, first['msg'])}"
        ) from fault


def _place(number: int, table: dict[str, Any]) -> str:
    return f"exception {number} ({reprlib.repr(table['id'])})" if "id" in table else f"exception {number}"


def _reason(kind: str, key: str, message: str) -> str:
    if kind == "missing":
        return "missing. Every exception needs id, package, owner, reason and expires."
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(key, DocumentedException.model_fields, n=1)
        return (
            f"not known. Did you mean {near[0]}?"
            if near
            else f"not known. Keys are: {', '.join(DocumentedException.model_fields)}."
        )
    return message.removeprefix("Value error, ").rstrip(".") + "."


def apply(finding: Finding, exceptions: Exceptions, now: datetime) -> Finding:
    """Return the finding as the exceptions leave it.

    A relay or suspected relay that an exception describes becomes a sanctioned relay if the episode ended by the
    exception's expiry; past that, the verdict stays and the expired exception is attached. Expiry is judged against
    the episode and not against `now`, so that a hunt over old telemetry gives the same verdict whenever it is run;
    `now` (aware) decides only whether to warn that the exception has expired since.
    Of several, an active one wins, then one without warnings, then the one that lasts longest, then the first by id.
    """
    if finding.verdict not in COVERABLE:
        return finding
    uses = [_use(entry, finding, now) for entry in exceptions.entries if entry.describes(finding)]
    if not uses:
        return finding
    use = min(uses, key=lambda u: (not u.active, bool(u.warning), -u.expires.timestamp(), u.id))
    verdict = Verdict.SANCTIONED_RELAY if use.active else finding.verdict
    response = first_response(
        verdict=verdict,
        topology=finding.topology,
        device=finding.device,
        app=finding.app,
        user=finding.user,
        listener_port=finding.listener_port,
        gateways=finding.gateways,
        destinations=finding.destinations,
        sources=finding.sources,
        exception=use,
    )
    return finding.model_copy(update={"verdict": verdict, "exception": use, "response": response})


def _use(entry: DocumentedException, finding: Finding, now: datetime) -> ExceptionUse:
    active = finding.last_seen <= entry.expires
    warnings = entry.warnings(finding.app)
    if active and now > entry.expires:
        warnings.append(EXPIRED_SINCE)
    return ExceptionUse(
        id=entry.id,
        owner=entry.owner,
        reason=entry.reason,
        expires=entry.expires,
        active=active,
        warning=" ".join(warnings),
    )


def statuses(
    exceptions: Exceptions, findings: Sequence[Finding], now: datetime, expiring_days: int
) -> list[ExceptionStatus]:
    """Every exception as it stands at `now` (aware), the first to expire first, with how many findings it covers."""
    used = Counter(finding.exception.id for finding in findings if finding.exception is not None)
    found = []
    for entry in sorted(exceptions.entries, key=lambda entry: (entry.expires, entry.id)):
        left = entry.expires - now
        state = ExceptionState.EXPIRED if left < timedelta(0) else ExceptionState.IN_FORCE
        if timedelta(0) <= left <= timedelta(days=expiring_days):
            state = ExceptionState.EXPIRING
        found.append(
            ExceptionStatus(
                id=entry.id,
                owner=entry.owner,
                reason=entry.reason,
                expires=entry.expires,
                state=state,
                covers=used[entry.id],
            )
        )
    return found
