"""What the times to verdict promise: no cut sees the future, the last one sees all, and bounds are kept as written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenarios import BEGIN_US, LISTENER_PORT, Recorder, found, listener_relay, own_traffic, tunnel_relay

from relaywatch.detection.settings import Settings
from relaywatch.evaluation.time_to_verdict import (
    MOST_MOMENTS,
    Course,
    Step,
    Tables,
    canonical_tables,
    courses,
    cuts,
    session_begins,
)
from relaywatch.evaluation.time_to_verdict_report import NEVER, as_json, markdown, summary
from relaywatch.model.errors import SourceError
from relaywatch.model.finding import Verdict
from relaywatch.model.schemas import SignalKind

SECOND = 1_000_000
RELAY, SUSPECTED = Verdict.RELAY, Verdict.SUSPECTED_RELAY


@dataclass(frozen=True)
class Labelled:
    """A labelled app as a lab tells it."""

    folder: Path = Path("trace")
    label: str = "relay"
    evasion: str = ""
    roles: Mapping[int, str] = field(default_factory=dict)
    pairs: frozenset[tuple[int, int]] = frozenset()
    program: str = "program"
    scenario: str = "scenario"

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def topology(self) -> str:
        return "accepted" if self.relays else ""

    @property
    def relays(self) -> bool:
        return self.label != "benign"


def recorded(folder: Path, app: Recorder) -> Path:
    """The app's telemetry as files that a hunt reads."""
    folder.mkdir()
    for name, frame in canonical_tables(app.batches()).items():
        if frame.height:
            frame.write_parquet(folder / f"{name}.parquet")
    return folder


def listener_pairs(app: Recorder) -> frozenset[tuple[int, int]]:
    """The pairs of a listener relay: it writes each target leg down just before its client leg."""
    numbers = [row["flow_id"] for row in app.rows["flows"] if row["local_port"] == LISTENER_PORT]
    return frozenset((number, number - 1) for number in numbers)


def tunnel() -> Tables:
    app = tunnel_relay(np.random.default_rng(5), Recorder(), sessions=25)
    app.signal(SignalKind.FOREGROUND_UI, 20.0, 90.0)
    app.signal(SignalKind.LISTENER, -30.0)
    return canonical_tables(app.batches())


TUNNEL = tunnel()


def cut_at(second: int) -> Tables:
    return cuts(TUNNEL, {"cut": BEGIN_US + second * SECOND})


def us(frame: pl.DataFrame, name: str) -> pl.Series:
    return frame[name].cast(pl.Int64) - BEGIN_US


class TestCuts:
    @settings(max_examples=40)
    @given(second=st.integers(0, 400))
    def test_nothing_after_the_moment_is_shown(self, second):
        shown = cut_at(second)
        limit = second * SECOND
        assert (us(shown["flows"], "start_time") < limit).all()
        assert (us(shown["flows"], "end_time") <= limit).all()
        assert (us(shown["flows"], "end_time") >= us(shown["flows"], "start_time")).all()
        assert (us(shown["volumes"], "start_time") + shown["volumes"]["duration_us"] <= limit).all()
        assert (us(shown["signals"], "start_time") < limit).all()
        assert (us(shown["signals"], "end_time").drop_nulls() < limit).all()

    @settings(max_examples=40)
    @given(second=st.integers(1, 400))
    def test_what_was_sent_by_then_is_what_the_volumes_say(self, second):
        shown = cut_at(second)
        for name in ("bytes_out", "bytes_in"):
            held = shown["volumes"].group_by("flow_id").agg(pl.col(name).sum().alias("held"))
            flows = shown["flows"].join(held, on="flow_id", how="left").with_columns(pl.col("held").fill_null(0))
            is_open = us(flows, "end_time") < us(TUNNEL["flows"].join(flows, on="flow_id", how="semi"), "end_time")
            still_open = flows.filter(is_open)
            assert still_open[name].to_list() == still_open["held"].to_list()

    @settings(max_examples=20)
    @given(earlier=st.integers(0, 400), later=st.integers(0, 400))
    def test_what_was_seen_stays_seen(self, earlier, later):
        earlier, later = sorted((earlier, later))
        before, after = cut_at(earlier)["flows"], cut_at(later)["flows"]
        both = before.join(after, on="flow_id", how="left", suffix="_after")
        for name in ("start_time", "end_time", "bytes_out", "bytes_in"):
            assert (both[name] <= both[f"{name}_after"]).all()

    def test_after_the_last_flow_all_is_there(self):
        shown = cut_at(10_000)
        own = ("device_uid", "android_package", "source")
        for name in ("flows", "volumes", "signals", "inventory"):
            assert shown[name].drop(own).equals(TUNNEL[name].drop(own))

    def test_each_cut_is_a_device_an_app_and_a_source_of_its_own(self):
        shown = cuts(TUNNEL, {"a": BEGIN_US + 50 * SECOND, "b": BEGIN_US + 90 * SECOND})
        for name in ("device_uid", "android_package", "source"):
            assert shown["flows"][name].unique().sort().to_list() == [
                f"{TUNNEL['flows'][name][0]}@{mark}" for mark in "ab"
            ]

    def test_a_name_in_the_first_bytes_is_not_known_before_they_are_sent(self):
        app = Recorder()
        app.flow(1.0, 30.0, [(10.0, 500, 0), (20.0, 0, 9_000)], "198.18.0.10", hostname="www.site1.example")
        tables = canonical_tables(app.batches())
        names = [
            cuts(tables, {"cut": BEGIN_US + second * SECOND})["flows"]["remote_hostname"][0] for second in (5, 15, 40)
        ]
        assert names == [None, "www.site1.example", "www.site1.example"]

    def test_without_volumes_the_bytes_of_an_open_flow_are_not_known(self):
        app = Recorder(see_volumes=False)
        app.flow(1.0, 30.0, [(10.0, 500, 700)], "198.18.0.10")
        app.flow(2.0, 4.0, [(3.0, 50, 70)], "198.18.0.10")
        shown = cuts(canonical_tables(app.batches()), {"cut": BEGIN_US + 20 * SECOND})["flows"]
        assert shown.select("bytes_out", "bytes_in").rows() == [(None, None), (50, 70)]
        assert shown["end_time"].is_null().to_list() == [True, False]


class TestSessions:
    def test_a_session_begins_when_both_legs_are_there(self):
        app = Labelled(pairs=frozenset({(1, 2), (3, 4)}))
        assert session_begins(app, {1: 10, 2: 12, 3: 30, 4: 25}) == (12, 30)

    def test_a_target_over_several_links_is_one_session(self):
        app = Labelled(pairs=frozenset({(1, 9), (2, 9)}))
        assert session_begins(app, {1: 0, 2: 50, 9: 20}) == (20,)

    def test_without_pairs_the_roles_tell(self):
        app = Labelled(roles={1: "relay_tunnel", 2: "relay_out", 3: "own", 4: "relay_out"})
        assert session_begins(app, {1: 0, 2: 7, 3: 8, 4: 5}) == (5, 7)

    def test_an_app_that_does_not_relay_has_none(self):
        assert session_begins(Labelled(label="benign", roles={1: "own"}), {1: 0}) == ()


class TestCourse:
    def course(self, *verdicts: Verdict | None, apart: float = 20.0, sessions: int = 4, **further: str) -> Course:
        steps = [Step(apart * (k + 1), sessions * (k + 1), verdict) for k, verdict in enumerate(verdicts)]
        return Course(Labelled(**further), tuple(steps))

    def test_first_is_not_settled_where_the_verdict_goes_again(self):
        course = self.course(None, SUSPECTED, None, SUSPECTED, RELAY)
        assert (course.first(SUSPECTED).seconds, course.settled(SUSPECTED).seconds) == (40.0, 80.0)
        assert course.first(RELAY).sessions == course.settled(RELAY).sessions == 20
        assert [step.verdict for step in course.changes()] == [SUSPECTED, None, SUSPECTED, RELAY]

    def test_a_verdict_that_is_gone_in_the_end_is_never_settled(self):
        course = self.course(RELAY, RELAY, SUSPECTED)
        assert course.first(RELAY) is not None
        assert course.settled(RELAY) is None
        assert course.settled(SUSPECTED).seconds == 20.0

    def test_insufficient_telemetry_is_no_suspicion(self):
        assert self.course(Verdict.INSUFFICIENT_TELEMETRY).first(SUSPECTED) is None

    @pytest.mark.parametrize(
        ("apart", "sessions", "in_time"), [(30.0, 50, True), (300.0, 5, True), (61.0, 11, False), (60.0, 11, True)]
    )
    def test_in_time_is_the_later_of_seconds_and_sessions(self, apart, sessions, in_time):
        steps = (Step(apart, sessions, SUSPECTED),)
        assert Course(Labelled(), steps).in_time(SUSPECTED) is in_time

    def test_relays_that_are_never_called_count_as_latest(self):
        rows = summary([self.course(RELAY), self.course(None), self.course(None)])
        row = next(row for row in rows if row.kind == "all relays" and row.verdict is RELAY)
        assert (row.relays, row.called, row.in_time, row.seconds) == (3, 1, 1, NEVER)

    def test_evading_relays_have_rows_of_their_own(self):
        kinds = {row.kind for row in summary([self.course(RELAY), self.course(None, evasion="delay")])}
        assert kinds == {"accepted", "accepted, evading", "not evading", "all relays"}

    def test_apps_that_do_not_relay_are_told_wherever_they_were_called(self):
        found_ = [self.course(None, SUSPECTED, None, label="benign"), self.course(None, label="benign")]
        text = markdown(found_, 5)
        assert "do not relay: 2, looked at 4 times; called at any moment: 1." in text
        assert "suspected_relay from 40 s, none from 60 s" in text

    def test_json_has_null_where_there_was_no_verdict(self):
        document = json.loads(json.dumps(as_json([self.course(None)], 5), allow_nan=False))
        assert document["apps"][0]["relay"] == {"first": None, "stays": None}
        assert {row["seconds"] for row in document["summary"]} == {None}


@pytest.fixture(scope="module")
def hunted(tmp_path_factory) -> list[Course]:
    lab = tmp_path_factory.mktemp("lab")
    relay = listener_relay(np.random.default_rng(1), Recorder(), sessions=12)
    other = own_traffic(np.random.default_rng(2), Recorder(package="com.example.news"), flows=20, until=120.0)
    apps = [
        Labelled(recorded(lab / "relay", relay), pairs=listener_pairs(relay)),
        Labelled(recorded(lab / "news", other), "benign"),
    ]
    assert [finding.verdict for finding in found(relay.batches())] == [RELAY]
    return courses(apps, Settings(), step_s=20)


class TestHunts:
    def test_a_relay_is_called_after_some_of_its_sessions(self, hunted):
        relay = hunted[0]
        called, last = relay.settled(RELAY), relay.steps[-1]
        assert 0 < called.sessions < last.sessions == 12
        assert relay.steps[0].verdict is None or relay.steps[0].sessions > 0

    def test_the_last_step_is_what_a_hunt_over_all_says(self, hunted):
        assert [course.steps[-1].verdict for course in hunted] == [RELAY, None]

    def test_steps_are_equal_and_sessions_only_grow(self, hunted):
        for course in hunted:
            apart = np.diff([step.seconds for step in course.steps])
            assert np.allclose(apart, 20.0)
            assert (np.diff([step.sessions for step in course.steps]) >= 0).all()

    def test_an_app_cut_alone_goes_as_among_others(self, hunted):
        (alone,) = courses([hunted[0].app], Settings(), step_s=20)
        assert alone == hunted[0]

    def test_a_long_trace_is_cut_at_longer_steps(self, tmp_path):
        app = Recorder()
        for day in range(3):
            app.flow(day * 86_400.0, day * 86_400.0 + 5.0, [(day * 86_400.0 + 1.0, 500, 500)], "198.18.0.10")
        (course,) = courses([Labelled(recorded(tmp_path / "long", app), "benign")], Settings(), step_s=5)
        assert len(course.steps) <= MOST_MOMENTS
        assert course.steps[-1].seconds >= 2 * 86_400.0

    def test_a_trace_without_flows_is_refused(self, tmp_path):
        folder = recorded(tmp_path / "empty", Recorder(rows={"flows": [], "volumes": [], "rest": []}))
        with pytest.raises(SourceError, match="has no flow"):
            courses([Labelled(folder)], Settings())
