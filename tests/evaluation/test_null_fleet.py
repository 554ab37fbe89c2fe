"""What the null fleet promises: bouts as recorded, days as real ones, each app-day by itself, and alarms that count."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaywatch.detection.settings import Settings
from relaywatch.evaluation.null_fleet import FLOWS_A_DAY, Fleet, build, plan_day
from relaywatch.evaluation.null_fleet_days import BUCKET_S, Days, read_days
from relaywatch.evaluation.null_fleet_hunt import combined, hunt_days
from relaywatch.evaluation.null_fleet_report import alarms, as_json, markdown, strongest_of, tail
from relaywatch.evaluation.null_fleet_sessions import SECOND, read_bouts
from relaywatch.model.errors import SourceError

T0 = 1_700_000_000
LABEL = {"scenario": "poll", "tool": "curl", "family": "curl", "flow_roles": {}, "pairs": []}
NETSTATS = "device,uid,set,net_type,bucket_start_s,bucket_s,rx_bytes,tx_bytes"


def flow(number, start, end, *, sent=100, received=100, **other):
    """One flow of a trace, times in s after its begin."""
    return {
        "flow_id": number,
        "start": T0 + start,
        "end": T0 + end,
        "proto": "tcp",
        "local_ip": "10.0.0.23",
        "local_port": 40_000 + number,
        "remote_ip": f"198.51.100.{number % 200}",
        "remote_port": 443,
        "direction": "out",
        "hostname": f"host{number}.example",
        "hostname_src": "sni",
        "tx_payload": sent,
        "rx_payload": received,
        "tx_ip": sent,
        "rx_ip": received,
        "tx_pkts": 1,
        "rx_pkts": 1,
        "syn_seen": 1,
        "established": 1,
    } | other


def trace(folder, flows, volumes):
    """A trace folder. volumes: (flow, second, sent, received)."""
    folder.mkdir(parents=True)
    pl.DataFrame(flows).write_csv(folder / "flows.csv")
    (folder / "context.json").write_text(json.dumps({"package": "org.example", "uid": 10_001}))
    names = ("flow_id", "sec", "tx_bytes", "rx_bytes")
    rows = [dict(zip(names, (f, T0 + s, out, into), strict=True)) for f, s, out, into in volumes]
    schema = dict.fromkeys((*names, "tx_pkts", "rx_pkts"), pl.Int64)
    pl.DataFrame([row | {"tx_pkts": 1, "rx_pkts": 1} for row in rows], schema).write_parquet(folder / "bins.parquet")
    return folder


def days_of(*parts):
    """uid-days. Each: a list of (slot, foreground, bytes)."""
    flat = [part for day in parts for part in day]
    return Days(
        np.cumsum([0, *(len(day) for day in parts)]),
        np.array([slot for slot, _, _ in flat]),
        np.array([seen for _, seen, _ in flat]),
        np.array([float(amount) for _, _, amount in flat]),
    )


@pytest.fixture
def two_programs(tmp_path):
    """A poller with six bouts of three flows each, and a push app with a standing link and two fetches."""
    polls = [
        flow(3 * k + j, 20 * k + 0.25 * j, 20 * k + 2 + j, sent=200 + k, received=4_000 + k)
        for k in range(6)
        for j in range(3)
    ]
    poll_volumes = [(f["flow_id"], int(f["start"] - T0), f["tx_payload"], f["rx_payload"]) for f in polls]
    push = [
        flow(0, 0, 100, sent=40, received=400),
        flow(1, 30.5, 32, sent=300, received=9_000),
        flow(2, 90.5, 92, sent=300, received=9_000),
    ]
    push_volumes = [(0, 0, 10, 100), (0, 30, 10, 100), (0, 60, 10, 100), (0, 90, 10, 100)]
    push_volumes += [(1, 30, 300, 9_000), (2, 90, 300, 9_000)]
    return read_bouts([trace(tmp_path / "poll", polls, poll_volumes), trace(tmp_path / "push", push, push_volumes)])


def test_a_bout_lasts_from_silence_to_silence_with_its_flows_as_they_were(two_programs):
    polls = two_programs.frame.filter(pl.col("trace") == 0)
    assert polls["flows"].to_list() == [3] * 6
    first = two_programs.pieces.filter(pl.col("bout") == 0)
    assert first["start"].to_list() == [0, 250_000, 500_000]
    assert first["end"].to_list() == [2 * SECOND, 3 * SECOND, 4 * SECOND]
    assert polls["amount"].to_list() == [3 * (4_200 + 2 * k) for k in range(6)]


def test_a_standing_link_has_a_piece_in_each_bout_with_what_it_carried_there(two_programs):
    push = two_programs.frame.filter(pl.col("trace") == 1)
    assert push["flows"].to_list() == [1, 2, 1, 2]
    pieces = two_programs.pieces.filter(pl.col("trace") == 1, pl.col("standing"))
    assert pieces["flow"].n_unique() == 1
    assert pieces.select("bytes_out", "bytes_in").rows() == [(10, 100)] * 4


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.integers(0, 200), st.lists(st.integers(0, 90), min_size=1, max_size=6, unique=True)),
        min_size=1,
        max_size=12,
    )
)
def test_cutting_loses_and_repeats_nothing_and_never_cuts_a_flow(tmp_path_factory, drawn):
    flows, volumes = [], []
    for number, (start, offsets) in enumerate(drawn):
        seconds = sorted(start + offset for offset in offsets)
        flows.append(flow(number, seconds[0], seconds[-1] + 1, sent=7 * len(seconds), received=5 * len(seconds)))
        volumes += [(number, second, 7, 5) for second in seconds]
    bouts = read_bouts([trace(tmp_path_factory.mktemp("lab") / "T", flows, volumes)])
    assert bouts.volumes.height == len(volumes)
    assert bouts.pieces["bytes_out"].sum() == 7 * len(volumes)
    assert bouts.frame["amount"].sum() == 12 * len(volumes)
    whole = bouts.pieces.filter(~pl.col("standing"))
    assert whole["flow"].is_unique().all()
    assert bouts.pieces["start"].min() >= 0
    assert set(bouts.pieces["flow"].to_list()) == set(range(len(flows)))
    owner = np.repeat(np.arange(bouts.pieces.height), np.diff(bouts.volume_bounds))
    second = bouts.volumes["second"].to_numpy()
    start = bouts.pieces["start"].to_numpy()[owner] // SECOND
    assert (second >= start).all()
    assert (second < bouts.frame["length_s"].to_numpy()[bouts.pieces["bout"].to_numpy()[owner]]).all()


def test_traces_that_cannot_be_drawn_from_are_named(tmp_path):
    with pytest.raises(SourceError, match="no benign trace"):
        read_bouts([])
    empty = trace(tmp_path / "T", [flow(0, 0, 1)], [])
    (empty / "flows.csv").write_text((empty / "flows.csv").read_text().splitlines()[0] + "\n")
    with pytest.raises(SourceError, match="holds no flows"):
        read_bouts([empty])


def test_days_are_an_apps_buckets_of_one_utc_day(tmp_path):
    path = tmp_path / "buckets.csv"
    rows = [
        "a,10100,0,wifi,86400,7200,100,50",
        "a,10100,0,mobile,86400,7200,30,20",
        "a,10100,1,wifi,100800,7200,5,5",
        "a,10100,0,wifi,172800,7200,1,1",
        "a,1000,0,wifi,86400,7200,9999,9999",
        "a,10101,0,wifi,86400,7200,0,0",
    ]
    path.write_text("\n".join([NETSTATS, *rows, ""]))
    days = read_days(path)
    assert days.bounds.tolist() == [0, 2, 3]
    assert days.slot.tolist() == [0, 2, 0]
    assert days.foreground.tolist() == [False, True, False]
    assert days.totals().tolist() == [210.0, 2.0]


@pytest.mark.parametrize("content", ["", "device,uid\na,1\n", NETSTATS + "\na,1000,0,wifi,0,7200,1,1\n"])
def test_buckets_that_cannot_be_used_are_refused(tmp_path, content):
    path = tmp_path / "buckets.csv"
    path.write_text(content)
    with pytest.raises(SourceError, match=r"buckets\.csv"):
        read_days(path)


@pytest.fixture
def fleet(two_programs):
    return Fleet(
        two_programs, days_of([(3, False, 40_000), (7, True, 40_000)], [(0, True, 500_000)], [(11, False, 900)]), 5
    )


def rows(part):
    return pl.from_arrow(part.rows)


def test_an_app_day_is_the_same_whatever_is_made_beside_it(fleet):
    together, alone = build(fleet, range(40)), build(fleet, [17])
    for name in ("flows", "volumes", "signals"):
        ours, own = rows(getattr(together, name)), rows(getattr(alone, name))
        ours = ours.filter(pl.col("android_package").cast(pl.String) == own["android_package"].cast(pl.String)[0])
        ignored = ["position"] if name != "flows" else []
        assert ours.drop(ignored).equals(own.drop(ignored))
    assert not rows(build(Fleet(fleet.bouts, fleet.days, 6), [17]).flows).equals(rows(alone.flows))


def test_no_bout_is_used_twice_and_each_lies_in_an_active_part_of_the_day(fleet):
    for number in range(60):
        plan = plan_day(fleet, number)
        assert len(set(plan.bout.tolist())) == len(plan.bout) > 0
        slots = dict(zip(fleet.days.slot, fleet.days.foreground, strict=True))
        for begin, seen in zip(plan.begin // BUCKET_S, plan.foreground, strict=True):
            assert slots.get(begin, slots.get(begin - 1)) == seen


def test_one_program_does_one_bout_after_another(fleet):
    for number in range(60):
        plan = plan_day(fleet, number)
        owner = fleet.bouts.frame["trace"].to_numpy()[plan.bout]
        for program in set(owner.tolist()):
            own = np.flatnonzero(owner == program)
            own = own[np.argsort(plan.begin[own])]
            ends = plan.begin[own] + fleet.bouts.frame["length_s"].to_numpy()[plan.bout[own]]
            assert (plan.begin[own][1:] > ends[:-1]).all()


def test_times_within_a_bout_are_as_recorded_and_bytes_share_one_factor(fleet):
    number = next(n for n in range(100) if (plan_day(fleet, n).bout < 6).sum() >= 2)
    plan, tables = plan_day(fleet, number), build(fleet, [number])
    flows = rows(tables.flows).filter(pl.col("source").cast(pl.String) == "poll").sort("start_time")
    begins = flows["start_time"].dt.timestamp("us").to_numpy().reshape(-1, 3)
    assert (np.diff(begins, axis=1) == 250_000).all()
    polls = np.flatnonzero(plan.bout < 6)
    polls = polls[np.argsort(plan.begin[polls])]
    sent = flows["bytes_out"].to_numpy().reshape(-1, 3)
    assert sent.tolist() == [[round((200 + plan.bout[k]) * plan.scale[k])] * 3 for k in polls]


def test_a_standing_link_is_one_flow_of_the_day_and_volumes_find_their_flow(fleet):
    number = next(n for n in range(200) if (plan_day(fleet, n).bout >= 6).sum() >= 3)
    tables = build(fleet, [number])
    flows, volumes = rows(tables.flows), rows(tables.volumes)
    links = flows.filter(pl.col("local_port") == 40_000, pl.col("source").cast(pl.String) == "push")
    assert links.height == 1
    carried = volumes.filter(pl.col("flow_id") == links["flow_id"][0])
    assert carried["bytes_in"].sum() == links["bytes_in"][0]
    first, last = carried["start_time"].min(), carried["start_time"].max()
    assert links["start_time"][0] <= first <= last < links["end_time"][0]
    assert set(volumes["flow_id"]) <= set(flows["flow_id"])
    assert flows["flow_id"].is_unique().all()
    assert (flows["flow_id"] // FLOWS_A_DAY == number).all()


def test_a_fleet_of_relays_would_be_called_so(tmp_path):
    """The measure can fail: bouts of a relay raise alarms, and the tail tells of them."""
    flows, volumes = [], []
    rng = np.random.default_rng(0)
    for k in range(30):
        at, up, down = 7 * k + rng.random(), int(rng.integers(300, 9_000)), int(rng.integers(2_000, 90_000))
        leg = {"direction": "in", "local_port": 1080, "remote_port": 50_000 + k, "remote_ip": "198.51.100.250"}
        flows.append(flow(2 * k, at, at + 2, sent=down, received=up, **leg))
        flows.append(flow(2 * k + 1, at + 0.1, at + 1.9, sent=up, received=down))
        volumes += [(2 * k, int(at), down, up), (2 * k + 1, int(at), up, down)]
    bouts = read_bouts([trace(tmp_path / "R", flows, volumes)])
    fleet = Fleet(bouts, days_of([(2, False, 60_000_000), (9, True, 60_000_000)]), 1)
    hunted = combined([hunt_days(fleet, [0], Settings()), hunt_days(fleet, [1, 2], Settings())])
    assert hunted.days["number"].to_list() == [0, 1, 2]
    assert hunted.days["verdict"].to_list() == ["relay"] * 3
    assert [each.found.value for each in tail(strongest_of(hunted.days))] == [3] * 5
    (strongest, *_) = alarms(hunted, fleet, ["relay program"], 1.0)
    assert strongest.clients.most_common(1)[0][0] == "relay program"
    assert "| relay | 3 |" in markdown(hunted, fleet, ["relay program"], [], Settings())
    assert "0 app-days:" in markdown(hunted, fleet, ["relay program"], ["relay"], Settings())
    assert json.loads(json.dumps(as_json(hunted, fleet, ["relay program"])))["verdicts"] == {"relay": 3}


def test_programs_are_also_left_out_by_the_beginning_of_their_name(fleet):
    hunted = hunt_days(fleet, range(40), Settings())
    alone = sum(set(fleet.bouts.frame["trace"].to_numpy()[plan_day(fleet, n).bout]) == {0} for n in range(40))
    assert 0 < alone < 40
    told = markdown(hunted, fleet, ["poll (A)", "push (B)"], ["push"], Settings())
    assert f"Without app-days that draw from push (B), {alone} app-days:" in told
    assert told.count("| relay | 0 | 0 |") == 2


def test_every_app_day_is_scored_also_those_without_evidence(fleet):
    hunted = hunt_days(fleet, range(10), Settings())
    assert hunted.days["number"].to_list() == list(range(10))
    assert hunted.days.select(pl.col("flows", "bytes", "pairs", "links").is_not_null().all()).row(0) == (True,) * 4
    flows = rows(build(fleet, range(10)).flows)
    assert hunted.days["flows"].sum() == flows.height
    assert hunted.days["bytes"].sum() == flows["bytes_out"].sum() + flows["bytes_in"].sum()


def test_the_tail_counts_what_reaches_each_bar_and_what_markov_allows():
    counts = tail(pl.Series([0.0] * 96 + [math.log(10.0), math.log(1e3), 11.0, 30.0]))
    assert [each.found.value for each in counts] == [4, 3, 3, 2, 1]
    assert counts[-1].found.high == pytest.approx(5.572, abs=5e-4)
    assert [each.allowed for each in counts] == pytest.approx([10.0, 1.0, 0.1, 0.01, 0.001])


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs the benchmark on a lab with one benign trace; gives its exit status."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import null_fleet

    lab, buckets = tmp_path / "lab", tmp_path / "buckets.csv"
    trace(lab / "traces" / "T1", [flow(0, 0, 2)], [(0, 0, 100, 100)])
    (lab / "truth").mkdir()
    (lab / "truth" / "T1.json").write_text(json.dumps(LABEL | {"label": "benign"}))
    buckets.write_text(NETSTATS + "\na,10100,0,wifi,86400,7200,100,50\n")

    def run(*arguments):
        monkeypatch.setattr(
            sys, "argv", ["null_fleet.py", "--lab", str(lab), "--netstats", str(buckets), *map(str, arguments)]
        )
        return null_fleet.main()

    return run


def test_the_benchmark_reports_and_writes_the_whole_tail(command, tmp_path, capsys):
    assert command("--app-days", 3, "--workers", 1, "--json", tmp_path / "null.json") == 0
    told = capsys.readouterr().out
    assert "3 app-days (seed 1) of 1 bouts of 1 benign traces" in told
    assert "| relay | 0 | 0 | 0 to 1.2 |" in told
    assert "GiB" in told
    assert len(json.loads((tmp_path / "null.json").read_text())["tail"]) == 5


def test_the_benchmark_writes_one_app_day_for_a_hunt(command, tmp_path, capsys):
    assert command("--only", 3, "--out", tmp_path / "out") == 0
    assert "org.example.app0000003" in capsys.readouterr().out
    assert pl.read_parquet(tmp_path / "out" / "flows.parquet").height == 1


def test_the_benchmark_says_what_it_cannot_use(command, tmp_path, capsys):
    (tmp_path / "lab" / "truth" / "T1.json").write_text(json.dumps(LABEL | {"label": "relay"}))
    assert command() == 2
    assert "no benign trace" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        command("--only", 3)
