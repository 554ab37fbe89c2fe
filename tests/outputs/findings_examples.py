"""Example findings, one per topology, as a hunt would make them: drawn from a fixed seed, the same on every run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random

from relaywatch.model.finding import (
    App,
    Attack,
    BalancePoint,
    Bridge,
    ContextFact,
    Destination,
    Device,
    Endpoint,
    Evidence,
    ExceptionUse,
    Finding,
    FirstResponse,
    Leg,
    LogSource,
    NotObservable,
    SettingUse,
    SourceRecord,
    SourceSummary,
    Spread,
    Topology,
    User,
    Verdict,
)
from relaywatch.model.quarantine import Quarantine
from relaywatch.outputs.summary import HuntSummary, NotJudged, UnitRead

BEGIN = datetime(2026, 3, 3, 14, 2, 11, 204_113, tzinfo=UTC)
PRIOR = -7.6

ATTACK = Attack(
    release="19.1",
    domain="mobile-attack",
    analytic_id="AN1702",
    analytic_stix_id="x-mitre-analytic--cb78ff0f-6f8a-41a8-a199-4660a0addec9",
    analytic_version="1.1",
    analytic_modified="2026-05-12T16:30:18.382Z",
    analytic_digest="5d1f" * 16,
    strategy_id="DET0631",
    technique_id="T1604",
    technique_name="Proxy Through Victim",
    tactics=["defense-evasion"],
    log_sources=[
        LogSource(
            data_component="DC0021",
            data_component_name="OS API Execution",
            name="MobileEDR:telemetry",
            channel="Application initializes proxy-capable or raw-socket networking constructs",
            satisfied=False,
        ),
        LogSource(
            data_component="DC0114",
            data_component_name="Application Permission",
            name="android:MDMLog",
            channel="Managed app without approved VPN role exhibits proxy-like traffic handling",
            satisfied=True,
        ),
        LogSource(
            data_component="DC0078",
            data_component_name="Network Traffic Flow",
            name="NSM:Flow",
            channel="App-attributed traffic exhibits multi-destination fan-out or sustained session bridging",
            satisfied=True,
        ),
        LogSource(
            data_component="DC0085",
            data_component_name="Network Traffic Content",
            name="NSM:Flow",
            channel="Device shows correlated inbound session establishment followed by outbound connections",
            satisfied=True,
        ),
    ],
)

SETTINGS = [
    SettingUse(name="TimeWindow", value="30 s", default="30 s", origin="default", attack=True),
    SettingUse(name="ForegroundStateRequired", value="false", default="false", origin="default", attack=True),
    SettingUse(name="RelaySessionThreshold", value="3", default="3", origin="default", attack=True),
    SettingUse(name="ByteSymmetryTolerance", value="0.15", default="0.2", origin="site.toml", attack=True),
    SettingUse(name="ConcurrentDestinationThreshold", value="12", default="12", origin="default", attack=True),
    SettingUse(name="UplinkBytesThreshold", value="100 kB", default="100 kB", origin="default", attack=True),
    SettingUse(name="RecentUserInteractionWindow", value="300 s", default="300 s", origin="default", attack=False),
]

RESPONSE = FirstResponse(
    preserve=[
        "Keep the source files and take a bug report before anything restarts the app.",
        "Keep a copy of the APK.",
    ],
    ask=["Ask the device's user when and from where the app was installed.", "Ask whether it pays for bandwidth."],
    contain=["Block the app by policy: set its installType to BLOCKED.", "Block the gateway at the network's edge."],
)

SITES = [
    "example.com",
    "example.net",
    "example.org",
    "shop.example",
    "market.example",
    "bank.example",
    "tickets.example",
    "mail.example",
    "video.example",
    "travel.example",
    "sneakers.example",
    "search.example",
    "social.example",
    "games.example",
    "news.example",
    "forum.example",
    "pay.example",
    "maps.example",
    "weather.example",
    "jobs.example",
    "homes.example",
    "cars.example",
]


def _evidence(
    kind: str, name: str, statement: str, ratio: float, *, value: float | None, unit: str, **more: object
) -> Evidence:
    return Evidence(
        kind=kind,
        name=name,
        statement=statement,
        value=value,
        unit=unit,
        log_likelihood_ratio=ratio,
        **more,  # type: ignore[arg-type]
    )


def _legs(topology: Topology, random: Random, sessions: int, source: str) -> tuple[list[Leg], list[Leg], list[Bridge]]:
    """Client legs, target legs and bridges of `sessions` relayed sessions."""
    clients: list[Leg] = []
    targets: list[Leg] = []
    bridges: list[Bridge] = []
    clock = BEGIN
    if topology is Topology.TUNNEL:
        ends = (timedelta(minutes=21), timedelta(minutes=37))
        begins = (timedelta(0), timedelta(minutes=21, seconds=9))
        clients = [
            Leg(
                address="198.51.100.23",
                port=443,
                hostname="edge7.gateway.example",
                protocol="tcp",
                start=BEGIN + a,
                end=BEGIN + b,
                bytes_in=18_400_000,
                bytes_out=96_300_000,
                record=SourceRecord(source=source, position=11 + 900 * n),
            )
            for n, (a, b) in enumerate(zip(begins, ends, strict=True))
        ]
    for number in range(sessions):
        clock += timedelta(seconds=random.expovariate(sessions / 2100))
        lag = random.lognormvariate(-2.6, 0.5)
        length = timedelta(seconds=random.lognormvariate(2.4, 0.9))
        up, down = int(random.lognormvariate(8.6, 1.0)), int(random.lognormvariate(11.6, 1.3))
        name = SITES[int(random.paretovariate(0.7) - 1) % len(SITES)]
        start = clock + timedelta(seconds=lag)
        targets.append(
            Leg(
                address=f"203.0.113.{SITES.index(name) * 9 + 4}",
                port=443,
                hostname=f"www.{name}",
                protocol="tcp",
                start=start,
                end=start + length,
                bytes_in=down,
                bytes_out=up,
                record=SourceRecord(source=source, position=40 + 3 * number),
            )
        )
        if topology is not Topology.TUNNEL:
            accepted = topology is Topology.ACCEPTED
            clients.append(
                Leg(
                    address=f"192.0.2.{random.choice((17, 88, 140))}" if accepted else "198.51.100.71",
                    port=None if accepted else 8081,
                    hostname=None if accepted else "super.node.example",
                    protocol="tcp",
                    start=clock,
                    end=start + length + timedelta(seconds=0.4),
                    bytes_in=int(up * 1.03) + 90,
                    bytes_out=int(down * 1.01),
                    record=SourceRecord(source=source, position=39 + 3 * number),
                )
            )
        client = int(clock > clients[0].end) if topology is Topology.TUNNEL and clients[0].end else number
        bridges.append(
            Bridge(
                client=client,
                target=number,
                lag_s=round(lag, 4),
                upstream_ratio=round(random.gauss(0.97, 0.01), 3),
                downstream_ratio=None if number % 17 == 16 else round(random.gauss(1.01, 0.01), 3),
                log_likelihood_ratio=round(max(random.gauss(4.2, 2.0), 0.2), 3),
            )
        )
    return clients, targets, bridges


def _destinations(targets: Sequence[Leg]) -> list[Destination]:
    by_name: dict[str, list[Leg]] = {}
    for leg in targets:
        by_name.setdefault((leg.hostname or leg.address).removeprefix("www."), []).append(leg)
    rows = [
        Destination(
            name=name,
            hostnames=sorted({leg.hostname for leg in legs if leg.hostname}),
            addresses=sorted({leg.address for leg in legs}),
            ports=[443],
            bridges=len(legs),
            bytes_in=sum(leg.bytes_in for leg in legs),
            bytes_out=sum(leg.bytes_out for leg in legs),
            private=False,
        )
        for name, legs in by_name.items()
    ]
    return sorted(rows, key=lambda row: (-row.bridges, row.name))


def _balance(targets: Sequence[Leg], random: Random) -> list[BalancePoint]:
    points = []
    last = max(leg.start for leg in targets)
    for minute in range(int((last - BEGIN) / timedelta(minutes=1)) + 1):
        low = BEGIN + timedelta(minutes=minute)
        here = [leg for leg in targets if low <= leg.start < low + timedelta(minutes=1)]
        up, down = sum(leg.bytes_out for leg in here), sum(leg.bytes_in for leg in here)
        points.append(
            BalancePoint(
                time=low,
                client_in=int(up * random.gauss(1.05, 0.02)) + 400,
                target_out=up,
                target_in=down,
                client_out=int(down * random.gauss(1.02, 0.02)) + 300,
            )
        )
    return points


def example(topology: Topology, *, verdict: Verdict = Verdict.RELAY, sessions: int = 84, seed: int = 7) -> Finding:
    """A finding of `topology` with `sessions` bridges; verdict and probability as asked, the score to match."""
    random = Random(f"{topology}{seed}")  # noqa: S311 (example data)
    source = {"accepted": "eve.json", "back_connect": "pcapdroid.csv", "tunnel": "edge/conn.log"}[topology]
    clients, targets, bridges = _legs(topology, random, sessions, source)
    destinations = _destinations(targets)
    records = [SourceRecord(source=source, position=40 + 3 * n) for n in range(5)]
    evidence = [
        _evidence(
            "bridging",
            "start_lag",
            f"{sessions} target legs start within 0.2 s of a client leg's start",
            9.84,
            value=0.074,
            unit="s median",
            null="Lags after shifting the client legs 200 times within the app-day",
            settings=["TimeWindow"],
            log_sources=["DC0085"],
            records=records,
            record_count=sessions * 2,
        ),
        _evidence(
            "bridging",
            "volume_conservation",
            "What came from one side left on the other, both ways",
            6.31,
            value=0.97,
            unit="ratio",
            null="Byte ratios of unrelated legs of the same app",
            settings=["ByteSymmetryTolerance"],
            log_sources=["DC0085"],
            records=records[:3],
            record_count=sessions * 2,
        ),
        _evidence(
            "spread",
            "concurrent_destinations",
            f"{len(destinations)} unrelated destinations, 9 of them open at one time",
            2.14,
            value=9,
            unit="destinations",
            null="Peaks of the population's other apps",
            log_sources=["DC0078"],
            settings=["ConcurrentDestinationThreshold"],
            records=records[:2],
            record_count=sessions,
        ),
        _evidence(
            "setup",
            "role",
            "The app has no approved VPN, browser or remote-access role",
            0.69,
            value=None,
            unit="",
            null="Share of relaying apps with a role",
            log_sources=["DC0114"],
        ),
        _evidence(
            "context",
            "user_interaction",
            "The user touched the app 41 s before the first session",
            -1.12,
            value=41,
            unit="s",
            null="Share of relay episodes that follow an interaction",
            settings=["RecentUserInteractionWindow"],
        ),
    ]
    target_score = {Verdict.RELAY: 6.9, Verdict.SUSPECTED_RELAY: 1.7, Verdict.SANCTIONED_RELAY: 5.2}.get(verdict, 0.3)
    prior = target_score - sum(item.log_likelihood_ratio for item in evidence)
    return Finding(
        finding_id={"accepted": "rw-7c01f2a95be4", "back_connect": "rw-19d3b7c2e640", "tunnel": "rw-e5a40c8812fd"}[
            topology
        ],
        verdict=verdict,
        probability={Verdict.RELAY: 0.999, Verdict.SUSPECTED_RELAY: 0.8455, Verdict.SANCTIONED_RELAY: 0.9945}.get(
            verdict, 0.5744
        ),
        score=round(prior + sum(item.log_likelihood_ratio for item in evidence), 6),
        topology=topology,
        device=Device(
            uid={"accepted": "a54-0117", "back_connect": "pixel-8-field-22", "tunnel": "tab-warehouse-3"}[topology],
            group="field",
        ),
        app=App(
            package={
                "accepted": "com.example.filecast",
                "back_connect": "com.example.freevpn.boost",
                "tunnel": "com.example.earnapp",
            }[topology],
            uid=10_231,
            user_id=0,
            signing_digest="ab" * 32,
            label={"accepted": "File Cast", "back_connect": "Boost VPN", "tunnel": "Easy Earn"}[topology],
        ),
        user=User(name="m.okafor" if topology is not Topology.TUNNEL else None),
        first_seen=min(leg.start for leg in clients),
        last_seen=max(leg.end for leg in (*clients, *targets) if leg.end),
        bridges=sessions,
        bytes_in=sum(leg.bytes_in for leg in targets),
        bytes_out=sum(leg.bytes_out for leg in targets),
        client_bytes_in=int(sum(leg.bytes_out for leg in targets) * 1.04),
        client_bytes_out=int(sum(leg.bytes_in for leg in targets) * 1.02),
        listener_port=1080 if topology is Topology.ACCEPTED else None,
        gateways=_gateways(clients),
        destinations=destinations,
        spread=Spread(destinations=len(destinations), prefixes=len(destinations), peak_concurrent=9),
        context=[
            ContextFact(
                name="foreground_ui",
                value=0.03,
                unit="share",
                statement="In the foreground for 3 % of the episode",
                observability="observed",
            ),
            ContextFact(
                name="user_interaction",
                value=41,
                unit="s",
                statement="Last user interaction 41 s before the first session",
                observability="inferred",
            ),
            ContextFact(
                name="screen_on",
                value=None,
                unit="",
                statement="Screen state not known",
                observability="not_observable",
            ),
        ],
        evidence=evidence,
        not_observable=[
            NotObservable(
                field="listener",
                reason="A flow sensor sees no socket table",
                cost="The listener cannot be tied to the app's code",
                remedy="A bug report taken while the app runs",
            ),
            NotObservable(
                field="api_calls",
                reason="No EDR telemetry in the input",
                cost="AN1702's DC0021 row stays open",
                remedy="An EDR with socket hooks",
            ),
        ],
        client_legs=clients,
        target_legs=targets,
        bridge_list=bridges,
        balance=_balance(targets, random),
        settings=SETTINGS,
        attack=ATTACK,
        exception=_exception() if verdict is Verdict.SANCTIONED_RELAY else None,
        response=RESPONSE,
        sources=[
            SourceSummary(
                source=source,
                format={"eve.json": "suricata-eve", "pcapdroid.csv": "pcapdroid-csv"}.get(source, "zeek-conn"),
            )
        ],
        producer="relaywatch 0.1.0",
    )


def _exception() -> ExceptionUse:
    return ExceptionUse(
        id="EX-12",
        owner="network team",
        reason="Field file transfer",
        expires=datetime(2026, 9, 30, tzinfo=UTC),
        active=True,
    )


def _gateways(clients: Sequence[Leg]) -> list[Endpoint]:
    by_remote: dict[str, list[Leg]] = {}
    for leg in clients:
        by_remote.setdefault(leg.address, []).append(leg)
    return [
        Endpoint(
            address=address,
            port=legs[0].port,
            hostname=legs[0].hostname,
            sessions=len(legs),
            bytes_in=sum(leg.bytes_in for leg in legs),
            bytes_out=sum(leg.bytes_out for leg in legs),
        )
        for address, legs in sorted(by_remote.items(), key=lambda item: -len(item[1]))
    ]


def examples() -> list[Finding]:
    """One finding per topology: a relay, a suspected one and a sanctioned one."""
    return [
        example(Topology.TUNNEL, sessions=214),
        example(Topology.BACK_CONNECT, verdict=Verdict.SUSPECTED_RELAY, sessions=46),
        example(Topology.ACCEPTED, verdict=Verdict.SANCTIONED_RELAY, sessions=31),
    ]


HOSTILE = "<script>alert(1)</script>[red]x[/red]\x1b]0;owned\x07\u202egnp.exe\n=cmd|' /C calc'!A0"


def hostile() -> Finding:
    """A finding whose every name tries to break out of the output that shows it."""
    plain = example(Topology.BACK_CONNECT, sessions=3)
    return plain.model_copy(
        update={
            "app": plain.app.model_copy(update={"package": HOSTILE, "label": HOSTILE}),
            "device": Device(uid=HOSTILE, group=HOSTILE),
            "user": User(name=HOSTILE),
            "destinations": [
                row.model_copy(update={"name": HOSTILE, "hostnames": [HOSTILE]}) for row in plain.destinations
            ],
            "gateways": [row.model_copy(update={"hostname": HOSTILE}) for row in plain.gateways],
            "target_legs": [leg.model_copy(update={"hostname": HOSTILE}) for leg in plain.target_legs],
            "sources": [SourceSummary(source=HOSTILE, format=HOSTILE)],
            "finding_id": HOSTILE,
        }
    )


def example_summary() -> HuntSummary:
    """What the hunt behind the examples read."""
    quarantine = Quarantine()
    quarantine.add("eve.json", "line 7", "not JSON: Expecting value")
    return HuntSummary(
        rows={"flows": 48_211, "volumes": 9_120, "signals": 311, "inventory": 42},
        units=[
            UnitRead("edge/conn.log", "zeek-conn", 31_040, 0),
            UnitRead("eve.json", "suricata-eve", 20_002, 1),
            UnitRead("pcapdroid.csv", "pcapdroid-csv", 6_642, 0),
        ],
        devices=4,
        apps=61,
        quarantine=quarantine,
        unrecognised=["notes.docx"],
        seconds=3.2,
        not_judged=[NotJudged("a54-0117", "com.example.mail", "no byte counts in its flows")],
    )
