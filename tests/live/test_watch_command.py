"""The command: what it tells, how it ends, and what it says where something is missing."""

import io
import json
import os
import signal
import sys
import threading
from dataclasses import replace

import pyarrow as pa
import pytest
from counting import Counting
from telemetry import PCAPDROID_HEAD, ZEEK_HEAD, canonical_line, flows, pcapdroid_line, zeek_line

from relaywatch.cli import watching
from relaywatch.live.addresses import http_address, kafka_topics, mqtt_subscription
from relaywatch.live.standard_input import StandardInput
from relaywatch.live.taking import LiveError


@pytest.fixture(autouse=True)
def counting(monkeypatch):
    """The command's judgements, newest last."""
    made = []

    def fresh(*_):
        made.append(Counting())
        return made[-1]

    monkeypatch.setattr(watching, "new_judgement", fresh)
    return made


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_text("".join(canonical_line(number) for number in range(1, 31)))
    return path


def test_until_the_end(run, log, tmp_path):
    status, out, err = run("watch", log, "--state", tmp_path / "s", "--until-end", "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert (status, err) == (1, "")
    assert {(e["event"], e["finding"]["device"]["uid"], e["finding"]["bridges"]) for e in events} == {
        ("closed", f"phone-{number}", 10) for number in range(3)
    }
    status, out, _ = run("watch", "--state", tmp_path / "s", "--list")
    assert (status, out) == (0, "")


def test_lines_for_people_and_the_list_of_what_is_open(run, log, tmp_path, monkeypatch):
    monkeypatch.setattr(Counting, "drain", Counting.changes)
    status, out, _ = run("watch", log, "--state", tmp_path / "s", "--until-end")
    assert status == 1
    assert len(out.splitlines()) == 3
    assert "opened    relay: app not known on phone-0, 10 bridges, probability 100 %, phone-0-" in out
    status, listed, _ = run("watch", "--state", tmp_path / "s", "--list")
    assert status == 1
    assert listed == out


def test_a_finding_that_was_told_is_explained_from_the_state_folder_or_what_was_told(run, log, tmp_path):
    state, told = tmp_path / "s", tmp_path / "told.ndjson"
    told.write_text(run("watch", log, "--state", state, "--until-end", "--json")[1])
    for source in (state, state / "findings.ndjson", told):
        status, out, err = run("explain", "phone-1", "--from", source, "--json")
        assert status == 0
        assert json.loads(out)["bridges"] == 10
        assert err.startswith("relaywatch: closed at ")
        assert "revision 1" in err
    assert "phone-1" in run("explain", "phone-1", "--from", state)[1]


def test_a_journal_gives_the_newest_event_of_a_finding(run, log, tmp_path, monkeypatch):
    state = tmp_path / "s"
    run("watch", log, "--state", state, "--until-end")
    with log.open("a") as file:
        file.writelines(canonical_line(number) for number in range(31, 61))
    run("watch", log, "--state", state, "--until-end")
    _, out, err = run("explain", "phone-1", "--from", state, "--json")
    assert json.loads(out)["bridges"] == 20
    assert "revision 2" in err


@pytest.mark.parametrize(
    ("wanted", "place", "told"),
    [
        ("nothing", "s", "names 0 findings, not one. Findings here: phone-0-"),
        ("phone", "s", "names 3 findings"),
        ("phone-0", ".", "no journal here"),
        ("phone-0", "torn.ndjson", "line 1: no event of the journal"),
    ],
)
def test_what_a_journal_does_not_hold_is_told_in_a_line(run, log, tmp_path, wanted, place, told):
    run("watch", log, "--state", tmp_path / "s", "--until-end")
    (tmp_path / "torn.ndjson").write_text('{"event":"closed"}\n')
    status, out, err = run("explain", wanted, "--from", tmp_path / place)
    assert (status, out) == (2, "")
    assert told in err
    assert len(err.splitlines()) == 1


def test_records_that_could_not_be_read(run, log, tmp_path):
    with log.open("a") as file:
        file.write("{broken\n")
    status, _, err = run("watch", log, "--state", tmp_path / "s", "--until-end")
    assert status == 3
    assert "1 records could not be read" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_a_checkpoint(run, log, tmp_path, monkeypatch, number):
    heard = watching._as_lines

    def stop(events):
        heard(events)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(watching, "_as_lines", stop)
    status, out, err = run("watch", log, "--state", tmp_path / "s", "--judge-every", "0.05")
    assert (status, len(out.splitlines()), err) == (1, 3, "")
    assert list((tmp_path / "s" / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "nothing to watch"),
        (("/no/such/file", "--until-end"), "does not exist"),
        ((".",), "lies in ."),
        (("--http", "here"), "no address"),
        (("--http", "0.0.0.0:1"), "--http-token-file"),
        (("--kafka", "broker"), "no topic"),
        (("--mqtt", "broker"), "no address"),
        (("--http", "0", "--until-end"), "no end"),
        (("--kafka", "127.0.0.1:1/flows", "--until-end"), "no end"),
    ],
)
def test_mistakes_are_told_in_a_line(run, tmp_path, monkeypatch, options, told):
    monkeypatch.chdir(tmp_path)
    status, _, err = run("watch", *options, "--state", tmp_path / "s")
    assert status == 2
    assert told in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("option", "value", "module", "missing", "extra"),
    [
        ("--http", "0", "http_ingest", "uvicorn", "live"),
        ("--kafka", "broker/topic", "kafka", "confluent_kafka", "kafka"),
        ("--mqtt", "mqtt://broker/topic", "mqtt", "paho.mqtt.client", "mqtt"),
    ],
)
def test_a_missing_extra_is_told_with_the_command_that_installs_it(
    run, tmp_path, monkeypatch, option, value, module, missing, extra
):
    monkeypatch.delitem(sys.modules, f"relaywatch.live.{module}", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    status, _, err = run("watch", option, value, "--state", tmp_path / "s")
    assert status == 2
    assert f"pip install 'relaywatch[{extra}]'" in err


def test_the_status_line_says_how_it_keeps_up(watcher):
    figures = []
    engine = watcher.engine()
    object.__setattr__(engine, "_ears", replace(engine._ears, figures=(figures.append,)))
    with engine:
        engine.run([], threading.Event(), until_end=True)
    line = watching._figures_line(figures[-1])
    assert line.startswith("0 rows, 0/s, lag 0 s, waiting 0.0 MB, spool 0.0 MB, checkpoint 0 s ago (")
    assert line.endswith("0 findings open, 0 records aside")


def piped(watcher, content, *, pieces=1):
    """Standard input with this content; the engine as it was left."""
    reading, writing = os.pipe()

    def write():
        with os.fdopen(writing, "wb") as file:
            size = -(-len(content) // pieces)
            for at in range(0, len(content), size):
                file.write(content[at : at + size])
                file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        return watcher.watch(StandardInput("", reading))
    finally:
        writer.join(10)
        os.close(reading)


@pytest.mark.parametrize("pieces", [1, 7, 100])
@pytest.mark.parametrize(
    "text",
    [
        "".join(canonical_line(n) for n in range(1, 41)),
        ZEEK_HEAD + "".join(zeek_line(n) for n in range(40)),
        PCAPDROID_HEAD + "".join(pcapdroid_line(n) for n in range(40))[:-1],
    ],
    ids=["canonical", "zeek", "pcapdroid"],
)
def test_lines_from_a_pipe(watcher, text, pieces):
    engine = piped(watcher, text.encode(), pieces=pieces)
    assert (engine.rows["flows"], engine.aside) == (40, 0)
    assert len(watcher.counts.records) == 40
    assert watcher.counts.forms <= {"canonical-ndjson", "zeek-conn", "pcapdroid-csv"}


@pytest.mark.parametrize("cut", [0, 100])
def test_an_arrow_stream_from_a_pipe(watcher, cut):
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, flows(1, 1).rows.schema) as writer:
        for first in (1, 101, 201):
            writer.write_batch(flows(first, 100).rows)
    content = sink.getvalue()
    engine = piped(watcher, content[: len(content) - cut], pieces=9)
    assert (engine.rows["flows"], engine.aside) == ((300, 0) if not cut else (200, 1))


def test_a_pipe_of_no_known_format_is_told(watcher):
    with pytest.raises(LiveError, match="no known format cannot be read from a pipe"):
        piped(watcher, b"hello\n" * 10)


def test_a_second_pipe_has_records_of_its_own(watcher):
    text = (ZEEK_HEAD + zeek_line(1)).encode()
    piped(watcher, text)
    piped(watcher, text)
    assert set(watcher.counts.records) == {("stdin", 7), ("stdin#2", 7)}


def test_addresses(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    config = tmp_path / "config"
    config.write_text("# TLS\nsecurity.protocol = ssl\ngroup.id=mine\n")
    assert (http_address("8686", None).host, http_address("[::1]:1", secret).token) == ("127.0.0.1", "s3cret")
    topics = kafka_topics("a:1,b:2/x,y", config)
    assert (topics.brokers, topics.topics, topics.group) == ("a:1,b:2", ["x", "y"], "mine")
    assert topics.more == {"security.protocol": "ssl"}
    one = mqtt_subscription("mqtts://me@broker/a/%23", secret, tmp_path)
    assert (one.host, one.port, one.topics, one.user, one.password) == ("broker", 8883, "a/#", "me", "s3cret")
    assert one.client != mqtt_subscription("mqtts://me@broker/a", secret, tmp_path / "other").client
    with pytest.raises(LiveError, match="--mqtt-password-file"):
        mqtt_subscription("mqtt://me:word@broker/a", None, tmp_path)
