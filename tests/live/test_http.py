"""HTTP: what is acknowledged is on disk, a repeat is harmless, and too much at once is refused, not lost."""

import contextlib
import gzip
import http.client
import io
import json
import socket
import threading

import pyarrow as pa
import pytest
from telemetry import ZEEK_HEAD, canonical_line, flows, zeek_line

from relaywatch.live.addresses import Address
from relaywatch.live.figures import Figures
from relaywatch.live.http_ingest import HttpInput
from relaywatch.live.inbox import Inbox
from relaywatch.live.positions import Positions
from relaywatch.live.taking import LiveError

LINES = "".join(canonical_line(number) for number in range(1, 11)).encode()


class Served:
    """A listening input whose inbox is emptied by hand, or by the engine of a watcher."""

    def __init__(self, *, limit_bytes=1 << 24, token="", at=None):
        self.inbox, self.positions = Inbox(limit_bytes), Positions()
        self.figures = Figures(at=10.0**12 if at is None else at, values={"aside_total": 3}, rows={"flows": 7})
        self.input = HttpInput(Address("127.0.0.1", 0, token), "", lambda: self.figures)

    def __enter__(self):
        self.input.start(self.inbox, self.positions)
        return self

    def __exit__(self, *_):
        for taken in self.inbox.close():
            taken.done(False)  # noqa: FBT003
        self.input.stop()

    def send(self, body=LINES, *, path="/v1/ingest", method="POST", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.input.port, timeout=10)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            text = answer.read().decode()
            return answer.status, dict(answer.getheaders()), json.loads(text) if text.startswith("{") else text
        finally:
            connection.close()

    def keep(self, timeout_s=5.0, *, on_disk=True):
        """Act as the engine once."""
        found = self.inbox.take(timeout_s)
        for taken in found:
            if on_disk:
                self.positions.move(taken.positions)
            taken.done(on_disk)
        return found

    def sent(self, *arguments, on_disk=True, **named):
        """Send while the engine takes."""
        answers = []
        sender = threading.Thread(target=lambda: answers.append(self.send(*arguments, **named)))
        sender.start()
        found = self.keep(on_disk=on_disk)
        sender.join(10)
        return answers[0], found


@pytest.fixture
def served():
    with Served() as it:
        yield it


def arrow(*batches):
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batches[0].rows.schema) as writer:
        for batch in batches:
            writer.write_batch(batch.rows)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("body", "form", "rows"),
    [
        (LINES, "canonical-ndjson", {"flows": 10}),
        (gzip.compress(LINES), "canonical-ndjson", {"flows": 10}),
        ((ZEEK_HEAD + zeek_line(1) + zeek_line(2)).encode(), "zeek-conn", {"flows": 2, "signals": 2}),
        (arrow(flows(1, 40), flows(41, 40)), "canonical-arrow", {"flows": 80}),
        (b"[" + LINES.replace(b"\n", b",")[:-1] + b"]", "canonical-ndjson", {"flows": 10}),
    ],
)
def test_lines_and_arrow_streams_are_taken(served, body, form, rows):
    (status, _, told), found = served.sent(body)
    assert (status, told) == (200, {"format": form, "rows": rows, "aside": 0})
    assert sum(batch.rows.num_rows for taken in found for batch in taken.batches) == sum(rows.values())


def test_nothing_is_acknowledged_before_it_is_on_disk(served):
    answers = []
    sender = threading.Thread(target=lambda: answers.append(served.send()))
    sender.start()
    (taken,) = served.inbox.take(5.0)
    sender.join(0.1)
    assert not answers
    taken.done(True)  # noqa: FBT003
    sender.join(10)
    assert answers[0][0] == 200


def test_what_never_comes_to_disk_is_refused(served):
    (status, headers, _), _ = served.sent(on_disk=False)
    assert (status, headers["retry-after"]) == (503, "1")


def test_a_repeated_key_is_taken_once_also_after_a_restart(served):
    assert served.sent(Idempotency_Key="a")[0][0] == 200
    assert served.send(Idempotency_Key="a")[2] == {"repeated": True}
    assert served.sent(Idempotency_Key="b")[0][0] == 200
    with Served() as again:
        again.input.stop()
        again.positions = Positions(served.positions.all())
        again.input.start(again.inbox, again.positions)
        assert again.send(Idempotency_Key="b")[2] == {"repeated": True}
        assert again.inbox.depth[0] == 0


def test_a_key_that_failed_may_come_again(served):
    assert served.sent(Idempotency_Key="a", on_disk=False)[0][0] == 503
    assert served.sent(Idempotency_Key="a")[0][2]["rows"] == {"flows": 10}


def test_lines_of_one_source_are_numbered_on(served):
    body = (ZEEK_HEAD + zeek_line(1)).encode()
    positions = []
    for _ in range(3):
        _, found = served.sent(body, path="/v1/ingest?source=sensor-1")
        positions += found[0].batches[0].rows["position"].to_pylist()
    assert positions == [7, 14, 21]
    assert dict(served.positions.of("http")) == {"sensor-1": {"lines": 21}}


def test_a_full_queue_refuses_and_takes_again_once_there_is_room():
    with Served(limit_bytes=1) as served:
        answers = []
        sender = threading.Thread(target=lambda: answers.append(served.send()))
        sender.start()
        while not served.inbox.depth[0]:
            pass
        status, headers, _ = served.send()
        assert (status, headers["retry-after"]) == (503, "1")
        served.keep()
        sender.join(10)
        assert answers[0][0] == 200
        assert served.sent()[0][0] == 200


def test_a_watcher_counts_what_it_acknowledged_once_over_a_restart(watcher):
    for life in range(2):
        served, stop = Served(), threading.Event()
        with watcher.engine() as engine:
            running = threading.Thread(target=engine.run, args=([served.input], stop))
            running.start()
            while not served.input.port:
                stop.wait(0.005)
            for key in ("a", "b", "a", f"life-{life}"):
                assert served.send(Idempotency_Key=key)[0] == 200
            stop.set()
            running.join(20)
    assert served.input.counts["repeated"] == 3
    assert watcher.counts.records == dict.fromkeys((("made", number) for number in range(1, 11)), 4)


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (400, {"body": b""}),
        (400, {"path": "/v1/ingest?source=../../etc"}),
        (400, {"Idempotency_Key": "a b"}),
        (400, {"body": gzip.compress(LINES)[:-9]}),
        (404, {"path": "/v2/ingest"}),
        (405, {"method": "PUT"}),
        (413, {"Content_Length": str(1 << 40)}),
        (415, {"body": b"hello\n"}),
    ],
)
def test_what_cannot_be_taken_is_refused_with_a_reason(served, status, request_):
    answered, _, told = served.send(**request_)
    assert answered == status
    assert told
    assert served.inbox.depth[0] == 0


def test_a_body_that_unpacks_to_too_much_is_refused(served, monkeypatch):
    monkeypatch.setattr("relaywatch.live.channels.CONTENT_BYTES", 1000)
    assert served.send(gzip.compress(LINES * 10))[0] == 413


def test_damaged_lines_are_told_to_the_sender(served):
    (status, _, told), _ = served.sent(LINES + b"{broken\n")
    assert (status, told["aside"]) == (200, 1)


def test_connections_that_say_nothing_do_not_keep_others_out(monkeypatch):
    monkeypatch.setattr("relaywatch.live.http_ingest.HEAD_S", 0.05)
    monkeypatch.setattr("relaywatch.live.http_ingest.CONNECTIONS", 3)
    with Served() as served, contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", served.input.port), 10)) for _ in range(4)]
        silent[0].sendall(b"POST /v1/ingest HTTP/1.1\r\nHost: x\r\n")
        assert [one.recv(1) for one in silent] == [b""] * 4
        assert served.sent()[0][0] == 200


def test_a_token_keeps_others_out():
    with Served(token="secret") as served:  # noqa: S106 - a test's
        assert served.send()[0] == 401
        assert served.send(Authorization="Bearer wrong")[0] == 401
        assert served.send(path="/metrics", method="GET")[0] == 401
        assert served.send(path="/healthz", method="GET")[0] == 200
        assert served.sent(Authorization="Bearer secret")[0][0] == 200


def test_an_address_that_others_reach_needs_a_token():
    with pytest.raises(LiveError, match="--http-token-file"):
        HttpInput(Address("0.0.0.0", 0), "", Figures)  # noqa: S104 - what must be refused


def test_an_address_in_use_is_told(served, watcher):
    other = HttpInput(Address("127.0.0.1", served.input.port), "", Figures)
    with pytest.raises(LiveError, match="cannot listen"):
        watcher.watch(other)


def test_health_and_metrics():
    with Served() as served:
        assert served.send(path="/healthz", method="GET")[::2] == (200, "ok\n")
        text = served.send(path="/metrics", method="GET")[2]
        assert 'relaywatch_rows_total{table="flows"} 7\n' in text
        assert "# TYPE relaywatch_aside_total counter\nrelaywatch_aside_total 3\n" in text
        served.figures = Figures(at=-1000.0)
        assert served.send(path="/healthz", method="GET")[0] == 503
