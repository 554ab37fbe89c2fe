"""What a user is promised where telemetry lacks something: the same claim or a weaker one, never a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenarios import BENIGN, GATEWAY, RELAYS, Recorder, found, hunted, own_traffic, without

from relaywatch.model.finding import Finding, Verdict
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import TABLES, Direction, SignalKind
from relaywatch.model.tables import Batch
from relaywatch.sources.discovery import discover
from relaywatch.sources.reading import Reading

CLAIM = {
    None: 0,
    Verdict.INSUFFICIENT_TELEMETRY: 0,
    Verdict.SUSPECTED_RELAY: 1,
    Verdict.RELAY: 2,
    Verdict.SANCTIONED_RELAY: 2,
}
"""How much a verdict says of an app: that the telemetry does not suffice says nothing of it."""
SEEDS = st.integers(0, 2**32 - 1)
EXAMPLES = Path(__file__).parents[2] / "examples" / "traces"
SEEN = (SignalKind.LISTENER, SignalKind.FOREGROUND_UI, SignalKind.USER_INTERACTION, SignalKind.SCREEN_ON)

Telemetry = Sequence[Batch]


def frame_of(part: Batch) -> pl.DataFrame:
    frame = pl.from_arrow(pa.Table.from_batches([part.rows]))
    assert isinstance(frame, pl.DataFrame)
    return frame


def edited(batches: Telemetry, table: str, edit: Callable[[pl.DataFrame], pl.DataFrame]) -> list[Batch]:
    """The batches with the rows of one table as `edit` makes them; batches left without a row are not there."""
    after = []
    for part in batches:
        if part.table != table:
            after.append(part)
            continue
        rows = edit(frame_of(part)).to_arrow().cast(TABLES[table]).combine_chunks().to_batches()
        after += [Batch(part.table, piece) for piece in rows if len(piece)]
    return after


def unseen(batches: Telemetry, *columns: str) -> list[Batch]:
    """The batches without these columns in any table."""
    for table, schema in TABLES.items():
        if named := [name for name in columns if name in schema.names]:
            batches = without(batches, table, *named)
    return list(batches)


def without_bytes(batches: Telemetry, *columns: str) -> list[Batch]:
    """Flows with bytes in one direction at most, by a source that gives no volumes then."""
    return without(without(batches, "flows", *columns, "bytes_observability"), "volumes")


def unsignalled(batches: Telemetry, kind: SignalKind) -> list[Batch]:
    """As of sources that do not show this kind: no such signal, and no capture that says it would be shown."""
    spare = pl.col("detail").cast(pl.String).str.replace_all(kind.name, "")
    return edited(batches, "signals", lambda rows: rows.filter(pl.col("kind") != int(kind)).with_columns(spare))


def only(batches: Telemetry, table: str, keep: pl.Expr) -> list[Batch]:
    return edited(batches, table, lambda rows: rows.filter(keep.fill_null(value=False)))


def some(batches: Telemetry, table: str, seed: int) -> list[Batch]:
    """A part of the flows' rows only: what one of two interfaces carries."""
    return only(batches, table, pl.col("flow_id").hash(seed) % 2 == 0)


def ticks(name: str, every_s: int) -> pl.Expr:
    whole = pl.col(name).cast(pl.Int64) // (every_s * 1_000_000) * (every_s * 1_000_000)
    return whole.cast(pl.Datetime("us", "UTC")).alias(name)


def clocked(batches: Telemetry, every_s: int) -> list[Batch]:
    """Flows whose begin and end are known to so many seconds."""
    times = ticks("start_time", every_s), ticks("end_time", every_s)
    return edited(batches, "flows", lambda rows: rows.with_columns(*times))


def widened(batches: Telemetry, every_s: int) -> list[Batch]:
    """Volumes of intervals that long."""

    def summed(rows: pl.DataFrame) -> pl.DataFrame:
        wide = rows.with_columns(ticks("start_time", every_s), duration_us=pl.lit(every_s * 1_000_000, pl.Int64))
        counts = pl.col("bytes_out", "bytes_in").sum()
        rest = pl.exclude("bytes_out", "bytes_in").first()
        return wide.group_by("flow_id", "start_time", maintain_order=True).agg(counts, rest).select(rows.columns)

    return edited(batches, "volumes", summed)


INBOUND = pl.col("direction_id") == int(Direction.INBOUND)
CLIENT_SIDE = INBOUND | (pl.col("remote_ip").cast(pl.String) == GATEWAY)


class Loss(NamedTuple):
    """What telemetry can lack; named: the gaps that a finding must then tell of, where there is still a finding."""

    blinded: Callable[[Telemetry], list[Batch]]
    named: frozenset[str] = frozenset()


LOSSES = {
    "bytes received": Loss(lambda b: without_bytes(b, "bytes_in"), frozenset({"bytes"})),
    "bytes sent": Loss(lambda b: without_bytes(b, "bytes_out"), frozenset({"bytes"})),
    "bytes received of flows": Loss(
        lambda b: without(b, "flows", "bytes_in", "bytes_observability"), frozenset({"bytes"})
    ),
    "bytes sent of flows": Loss(
        lambda b: without(b, "flows", "bytes_out", "bytes_observability"), frozenset({"bytes"})
    ),
    "payload bytes": Loss(lambda b: without(b, "flows", "bytes_observability"), frozenset({"bytes"})),
    "volumes": Loss(lambda b: without(b, "volumes"), frozenset({"volumes"})),
    "volumes of 2 s": Loss(lambda b: widened(b, 2)),
    "volumes of 10 s": Loss(lambda b: widened(b, 10), frozenset({"volumes"})),
    "volumes of 60 s": Loss(lambda b: widened(b, 60), frozenset({"volumes"})),
    "volumes of one interface": Loss(lambda b: some(b, "volumes", 1)),
    "volumes of the client side": Loss(lambda b: only(b, "volumes", pl.col("flow_id") % 2 == 0)),
    "directions": Loss(
        lambda b: without(b, "flows", "direction_id", "direction_observability"), frozenset({"direction"})
    ),
    "package": Loss(lambda b: unseen(b, "android_package")),
    "uid": Loss(lambda b: unseen(b, "android_uid")),
    "app": Loss(lambda b: unseen(b, "android_package", "android_uid"), frozenset({"app"})),
    "ends": Loss(lambda b: without(b, "flows", "end_time")),
    "names": Loss(lambda b: without(b, "flows", "remote_hostname", "hostname_observability"), frozenset({"hostname"})),
    "addresses": Loss(lambda b: without(b, "flows", "remote_ip")),
    "ports": Loss(lambda b: without(b, "flows", "local_port", "remote_port")),
    "inventory": Loss(lambda b: without(b, "inventory"), frozenset({"signing_digest", "user"})),
    "signals": Loss(lambda b: without(b, "signals"), frozenset({"listener", "foreground", "interaction"})),
    "listeners": Loss(lambda b: unsignalled(b, SignalKind.LISTENER), frozenset({"listener"})),
    "foreground": Loss(lambda b: unsignalled(b, SignalKind.FOREGROUND_UI), frozenset({"foreground"})),
    "interaction": Loss(lambda b: unsignalled(b, SignalKind.USER_INTERACTION), frozenset({"interaction"})),
    "screen": Loss(lambda b: unsignalled(b, SignalKind.SCREEN_ON)),
    "VPN": Loss(lambda b: unsignalled(b, SignalKind.VPN)),
    "captures": Loss(lambda b: only(b, "signals", pl.col("kind") != int(SignalKind.CAPTURE))),
    "accepted flows": Loss(lambda b: only(b, "flows", ~INBOUND)),
    "dialled flows": Loss(lambda b: only(b, "flows", INBOUND)),
    "client legs": Loss(lambda b: only(b, "flows", ~CLIENT_SIDE)),
    "target legs": Loss(lambda b: only(b, "flows", CLIENT_SIDE)),
    "one interface": Loss(lambda b: some(b, "flows", 1)),
    "the other interface": Loss(lambda b: some(b, "flows", 7)),
    "clock to 1 s": Loss(lambda b: clocked(b, 1)),
    "clock to 10 s": Loss(lambda b: clocked(b, 10)),
    "clock to 60 s": Loss(lambda b: clocked(b, 60)),
}
UNPROVABLE = frozenset(
    {
        "bytes received",
        "bytes sent",
        "bytes received of flows",
        "bytes sent of flows",
        "app",
        "directions",
        "dialled flows",
        "target legs",
    }
)
"""Losses after which no telemetry can prove a relay."""
TOPOLOGY_KEPT = frozenset(LOSSES) - {"one interface", "the other interface"}
"""Losses after which a relay is called by its own topology. Of half of its links another may look the likelier."""
EXAMPLES_BLINDED = ("bytes received of flows", "volumes", "volumes of 10 s", "directions", "app", "ends", "names")


def watched(app: Recorder) -> Recorder:
    """The app's telemetry with its context, by sources that say what they would have shown."""
    for begin in (10.0, 95.0, 200.0):
        app.signal(SignalKind.FOREGROUND_UI, begin, begin + 12.5)
        app.signal(SignalKind.USER_INTERACTION, begin + 1.0)
        app.signal(SignalKind.SCREEN_ON, begin - 1.0, begin + 20.0)
    app.signal(SignalKind.VPN, -5.0)
    app.signal(SignalKind.CAPTURE, -60.0, detail=" ".join(kind.name for kind in SEEN))
    return app


def gravest(findings: Iterable[Finding]) -> dict[str, Finding]:
    """Of each device the finding that claims most."""
    by_device: dict[str, Finding] = {}
    for finding in sorted(findings, key=claim):
        by_device[finding.device.uid] = finding
    return by_device


def claim(finding: Finding | None) -> int:
    return CLAIM[None if finding is None else finding.verdict]


def after_each_loss(app: Recorder) -> tuple[Finding | None, dict[str, Finding | None]]:
    """The finding of the whole telemetry, and that after each loss: one hunt, each on a phone and an app of its own."""
    parts = []
    for number, name in enumerate(["", *LOSSES]):
        copy = replace(app, device=f"phone-{number}", package=f"com.example.app{number}")
        parts += LOSSES[name].blinded(copy.batches()) if name else copy.batches()
    by_device = gravest(found(parts))
    whole, *after = (by_device.get(f"phone-{number}") for number in range(len(LOSSES) + 1))
    return whole, dict(zip(LOSSES, after, strict=True))


def built(scenario: str, seed: int, own: int) -> Recorder:
    rng = np.random.default_rng(seed)
    app = (RELAYS | BENIGN)[scenario](rng, Recorder())
    return watched(own_traffic(rng, app, own) if own else app)


def unnamed(name: str, finding: Finding | None) -> frozenset[str]:
    """The gaps that the finding should tell of after this loss, and does not."""
    return LOSSES[name].named - {gap.field for gap in finding.not_observable} if finding else frozenset()


class TestRelays:
    @pytest.mark.parametrize("scenario", RELAYS)
    @settings(max_examples=3)
    @given(seed=SEEDS, own=st.sampled_from([0, 25]))
    def test_a_loss_weakens_the_claim_or_leaves_it_and_is_told(self, scenario, seed, own):
        whole, after = after_each_loss(built(scenario, seed, own))
        assert whole is not None
        assert {name for name, finding in after.items() if claim(finding) > claim(whole)} == set()
        assert {name: gaps for name, finding in after.items() if (gaps := unnamed(name, finding))} == {}
        relays = {name: finding for name, finding in after.items() if claim(finding) == CLAIM[Verdict.RELAY]}
        assert {name for name in TOPOLOGY_KEPT & set(relays) if relays[name].topology != whole.topology} == set()
        assert set(relays).isdisjoint(UNPROVABLE)

    @settings(max_examples=8)
    @given(scenario=st.sampled_from(sorted(RELAYS)), seed=SEEDS, half=SEEDS)
    def test_half_of_the_flows_are_half_of_the_claim_at_most(self, scenario, seed, half):
        batches = built(scenario, seed, 10).batches()
        (whole,), seen = found(batches), found(some(batches, "flows", half))
        for finding in seen:
            assert claim(finding) <= claim(whole)
            assert finding.bridges <= whole.bridges

    @pytest.mark.parametrize("scenario", RELAYS)
    @pytest.mark.parametrize("name", ["bytes received", "bytes sent", "bytes sent of flows"])
    def test_an_app_without_bytes_in_one_direction_is_told_as_not_judged(self, scenario, name):
        result = hunted(LOSSES[name].blinded(built(scenario, 3, 10).batches()))
        assert result.findings == []
        assert [entry.app for entry in result.summary.not_judged] == ["com.example.app"]


class TestOthers:
    @pytest.mark.parametrize("scenario", BENIGN)
    @settings(max_examples=3)
    @given(seed=SEEDS, own=st.sampled_from([0, 25]))
    def test_an_app_that_is_none_is_claimed_no_more_after_a_loss(self, scenario, seed, own):
        whole, after = after_each_loss(built(scenario, seed, own))
        stronger = {name for name, finding in after.items() if claim(finding) > claim(whole)}
        assert stronger == set()
        assert {name: gaps for name, finding in after.items() if (gaps := unnamed(name, finding))} == {}

    @settings(max_examples=12)
    @given(scenario=st.sampled_from(sorted(BENIGN)), seed=SEEDS, half=SEEDS, every_s=st.sampled_from([0, 1, 7, 30]))
    def test_no_part_of_its_flows_by_no_clock_makes_it_a_relay(self, scenario, seed, half, every_s):
        seen = some(built(scenario, seed, 25).batches(), "flows", half)
        for finding in found(clocked(seen, every_s) if every_s else seen):
            assert claim(finding) < CLAIM[Verdict.RELAY]


class TestExamples:
    """The same of the bundled traces, whose programs are real."""

    @pytest.mark.parametrize("name", EXAMPLES_BLINDED)
    def test_a_loss_weakens_the_claim_or_leaves_it_and_is_told(self, name):
        whole, after = gravest(found(examples())), gravest(found(LOSSES[name].blinded(examples())))
        assert {device for device, finding in after.items() if claim(finding) > claim(whole.get(device))} == set()
        assert {device: gaps for device, finding in after.items() if (gaps := unnamed(name, finding))} == {}
        relays = {device for device, finding in after.items() if claim(finding) == CLAIM[Verdict.RELAY]}
        if name in TOPOLOGY_KEPT:
            assert {device for device in relays if after[device].topology != whole[device].topology} == set()
        assert not relays or name not in UNPROVABLE


@cache
def examples() -> tuple[Batch, ...]:
    return tuple(part for unit in discover([EXAMPLES]).units for part in unit.read(Reading(Quarantine())))
