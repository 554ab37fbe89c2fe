"""The finding: one relay episode of one app on one device, with everything a responder needs to judge it.

The pydantic models are the documented schema: `docs/finding.schema.json` is generated from them.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

FINDING_SCHEMA_VERSION: Final = "1.1.0"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Verdict(StrEnum):
    """What is claimed of the app in this episode."""

    RELAY = "relay"
    SUSPECTED_RELAY = "suspected_relay"
    SANCTIONED_RELAY = "sanctioned_relay"
    INSUFFICIENT_TELEMETRY = "insufficient_telemetry"


class Topology(StrEnum):
    """How the relay's client reaches the device."""

    ACCEPTED = "accepted"
    BACK_CONNECT = "back_connect"
    TUNNEL = "tunnel"


class Device(_Record):
    """The phone (OCSF device)."""

    uid: str
    group: str | None = None


class App(_Record):
    """One Android application identity on the device; null parts are not known from the telemetry."""

    package: str | None = None
    uid: int | None = None
    user_id: int | None = None
    signing_digest: str | None = None
    label: str | None = None


class User(_Record):
    """The device's person."""

    name: str | None = None


class SourceRecord(_Record):
    """Where a value comes from: file and line, record or packet number."""

    source: str
    position: int


class AutonomousSystem(_Record):
    """Who announces an address (RFC 4271), as a local database has it."""

    number: int | None = Field(None, description="AS number (RFC 6793)")
    organisation: str | None = None


class Endpoint(_Record):
    """A client-side remote: a gateway that the device dialled, or a client that it accepted."""

    address: str
    port: int | None = Field(None, description="Remote port of a gateway; null for clients, whose ports vary")
    hostname: str | None = None
    sessions: int = Field(description="Client legs with this remote")
    bytes_in: int
    bytes_out: int
    autonomous_system: AutonomousSystem | None = Field(None, description="Null where no database knows it")


class Destination(_Record):
    """A party that the relay's client reached through the device."""

    name: str = Field(description="Registrable domain by the public suffix list, else the address prefix")
    hostnames: list[str] = Field(description="The first few, in order")
    hostname_count: int = Field(description="Distinct host names, of which hostnames may hold fewer")
    addresses: list[str] = Field(description="The first few, in order")
    address_count: int = Field(description="Distinct addresses, of which addresses may hold fewer")
    ports: list[int]
    bridges: int
    bytes_in: int
    bytes_out: int
    private: bool = Field(description="All addresses are in a private range")
    lateral: bool = Field(description="In a private range, and reached for a client from outside that network")
    autonomous_systems: list[AutonomousSystem] = Field(
        default_factory=list, description="Of the addresses, the first few, in order; empty where none is known"
    )

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, data: Any) -> Any:  # noqa: ANN401  pydantic's own signature
        """Findings written before there were counts have what their lists hold; private was lateral then."""
        if not isinstance(data, dict) or data.keys() >= {"lateral", "hostname_count", "address_count"}:
            return data
        lists = {"hostname_count": data.get("hostnames"), "address_count": data.get("addresses")}
        counts = {name: len(held) for name, held in lists.items() if isinstance(held, list)}
        return {"lateral": data.get("private", False)} | counts | data


class Spread(_Record):
    """How unrelated the destinations are."""

    destinations: int = Field(description="Distinct registrable domains or prefixes")
    prefixes: int = Field(description="Distinct /24 or /48 address prefixes")
    peak_concurrent: int = Field(description="Most destinations open at one time")
    organisations: int | None = Field(
        None, description="Distinct organisations that announce the addresses; null where no database knows any"
    )
    only_here: float | None = Field(
        None, description="Share of public destinations that no other install contacts; null below three devices"
    )
    lateral: int = Field(0, description="Private destinations reached for a client from outside their network")


class IndicatorMatch(_Record):
    """A name that makers of proxyware use and the app bears or contacts: explains, never convicts."""

    value: str
    kind: str = Field(description="domain, package or class")
    family: str
    matched: str = Field(description="The name as the telemetry has it")
    source: str = Field(description="Where the indicator is from")
    licence: str = Field(description="Licence of that source")
    retrieved: str = Field(description="Day on which the source was read, ISO 8601")


class SettingUse(_Record):
    """One setting as it stood when the finding was made."""

    name: str
    value: str
    default: str
    origin: str = Field(description="default, or the file or flag that set it")
    attack: bool = Field(description="A mutable element of AN1702; false: relaywatch's own extension")


class Evidence(_Record):
    """One item that moved the odds."""

    kind: str = Field(description="bridging, tunnelling, timing, spread, novelty, setup, indicator, context")
    name: str
    statement: str = Field(description="What was measured, in a sentence")
    value: float | None = None
    unit: str = ""
    log_likelihood_ratio: float = Field(description="Natural log; above 0 speaks for a relay")
    null: str = Field("", description="What the value was judged against")
    settings: list[str] = Field(default_factory=list, description="Names of the settings that were used")
    log_sources: list[str] = Field(
        default_factory=list, description="AN1702 log-source rows satisfied: DC0021, DC0114, DC0078, DC0085"
    )
    records: list[SourceRecord] = Field(default_factory=list, description="Source records, the first few")
    record_count: int = 0


class Leg(_Record):
    """One flow as a side of a bridge."""

    address: str
    port: int | None
    hostname: str | None = None
    protocol: str
    start: datetime
    end: datetime | None
    bytes_in: int
    bytes_out: int
    record: SourceRecord


class Bridge(_Record):
    """One client leg, or slice of a tunnel, and the target leg that it feeds."""

    client: int = Field(description="Index into client_legs")
    target: int = Field(description="Index into target_legs")
    lag_s: float = Field(description="Seconds from the client leg's start (or its request) to the target leg's start")
    upstream_ratio: float | None = Field(description="Bytes sent to the target over bytes received from the client")
    downstream_ratio: float | None = Field(description="Bytes sent to the client over bytes received from the target")
    log_likelihood_ratio: float


class BalancePoint(_Record):
    """Bytes in one interval: what came from one side and what left on the other."""

    time: datetime
    client_in: int
    target_out: int
    target_in: int
    client_out: int


class ContextFact(_Record):
    """One fact of context; value null where it cannot be observed."""

    name: str
    value: float | None
    unit: str
    statement: str
    observability: str = Field(description="observed, inferred or not_observable")


class NotObservable(_Record):
    """A field that the telemetry could not show, and what that costs."""

    field: str
    reason: str
    cost: str = Field(description="What cannot be claimed without it")
    remedy: str = Field(description="The cheapest source that would show it")


class LogSource(_Record):
    """One of AN1702's log-source rows and whether this finding satisfies it."""

    data_component: str
    data_component_name: str
    name: str
    channel: str
    satisfied: bool


class Attack(_Record):
    """Which ATT&CK objects the finding implements, exactly."""

    release: str
    domain: str
    analytic_id: str
    analytic_stix_id: str
    analytic_version: str
    analytic_modified: str
    analytic_digest: str = Field(description="SHA-256 of the vendored analytic's canonical JSON")
    strategy_id: str
    technique_id: str
    technique_name: str
    tactics: list[str]
    log_sources: list[LogSource]


class ExceptionUse(_Record):
    """The documented exception that covers this finding, or covered it until it expired."""

    id: str
    owner: str
    reason: str
    expires: datetime
    active: bool
    warning: str = ""


class FirstResponse(_Record):
    """Plain first steps."""

    preserve: list[str]
    ask: list[str]
    contain: list[str]


class SourceSummary(_Record):
    """One file (or folder) that the finding rests on."""

    source: str
    format: str


class Finding(_Record):
    """One relay episode. Byte directions are the device's own, on the target side."""

    schema_version: str = FINDING_SCHEMA_VERSION
    finding_id: str
    verdict: Verdict
    probability: float = Field(ge=0, le=1)
    score: float = Field(description="Sum of the evidence's log likelihood ratios and the prior log odds")
    topology: Topology
    device: Device
    app: App
    user: User = User()
    first_seen: datetime
    last_seen: datetime
    bridges: int
    bytes_in: int = Field(description="Received from destinations on bridged target legs")
    bytes_out: int = Field(description="Sent to destinations on bridged target legs")
    client_bytes_in: int = Field(description="Received from the relay's client side on the client legs")
    client_bytes_out: int = Field(description="Sent to the relay's client side on the client legs")
    listener_port: int | None = Field(None, description="Local port of the accepted sessions")
    gateways: list[Endpoint] = Field(description="Remotes of the client legs: gateways dialled, or clients accepted")
    destinations: list[Destination]
    spread: Spread
    context: list[ContextFact]
    indicators: list[IndicatorMatch] = Field(default_factory=list, description="The first few")
    evidence: list[Evidence]
    evidence_bar: float | None = Field(
        default=None,
        description="Core evidence that a relay verdict asks for, natural log: by the false-alarm rate of one app "
        "or, in a large fleet, by the false discovery rate",
    )
    not_observable: list[NotObservable]
    client_legs: list[Leg] = Field(description="The strongest bridges' client legs; bounded")
    target_legs: list[Leg]
    bridge_list: list[Bridge]
    balance: list[BalancePoint]
    settings: list[SettingUse]
    attack: Attack
    exception: ExceptionUse | None = None
    response: FirstResponse
    sources: list[SourceSummary]
    producer: str = Field(description="relaywatch and its version")
