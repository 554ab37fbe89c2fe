"""Files that grow: however they grow, are rotated or cut, each line gives its row once."""

import gzip
import os
import threading
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from telemetry import (
    PCAPDROID_HEAD,
    ZEEK_HEAD,
    canonical_line,
    flows,
    pcapdroid_line,
    suricata_line,
    zeek_line,
)

from relaywatch.live.decoding import decoded, recognised
from relaywatch.live.files import Files, Looking
from relaywatch.live.inbox import Inbox
from relaywatch.live.positions import Positions
from relaywatch.live.taking import LiveError

TEXTS = {
    "canonical-ndjson": "".join(canonical_line(n) for n in range(1, 40)),
    "zeek-conn": ZEEK_HEAD + "".join(zeek_line(n) for n in range(20)) + "#close\t1\n" + ZEEK_HEAD + zeek_line(77),
    "suricata-eve": "".join(suricata_line(n) for n in range(1, 20)),
    "pcapdroid-csv": PCAPDROID_HEAD + "".join(pcapdroid_line(n) for n in range(20)),
}


def flow_rows(batches):
    """The flows as a table of text, in order of record."""
    rows = [batch.rows for batch in batches if batch.table == "flows"]
    return pa.Table.from_batches(rows).unify_dictionaries().sort_by("position").to_pylist() if rows else []


class Grower:
    """Looks at files by hand, with what was handed over; `again` is a restart from the positions handed over."""

    def __init__(self, *paths, settle_s=0.0):
        self.paths, self.settle_s = paths, settle_s
        self.positions, self.batches, self.aside = Positions(), [], 0
        self.messages = []
        self.again()

    def again(self):
        self.inbox = Inbox()
        self.files = Files(self.paths, Looking(settle_s=self.settle_s), self.messages.append)
        self.files.begin(self.inbox, Positions(self.positions.all()))

    def look(self, *, last=False):
        while self.files.look(last=last):
            pass
        while self.inbox.depth[0]:
            for taken in self.inbox.take(0.0):
                self.batches += taken.batches
                self.positions.move(taken.positions)
                self.aside += taken.aside_total
        return self

    @property
    def records(self):
        return Counter((row["source"], row["position"]) for row in flow_rows(self.batches))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(sorted(TEXTS)),
    cuts=st.lists(st.floats(0, 1), max_size=12),
    restarts=st.sets(st.integers(0, 12)),
    ended=st.booleans(),
)
def test_any_growth_gives_the_rows_of_the_whole_file(tmp_path_factory, form, cuts, restarts, ended):
    path = tmp_path_factory.mktemp("growing") / "a.log"
    content = TEXTS[form].encode()
    content = content if ended else content[:-1]
    grower = Grower(path, settle_s=60)
    at = 0
    for number, cut in enumerate([*sorted(int(share * len(content)) for share in cuts), len(content)]):
        with path.open("ab") as file:
            file.write(content[at:cut])
        at = cut
        grower.look()
        if number in restarts:
            grower.again()
    grower.look(last=True)
    with path.open("rb") as stream:
        assert recognised(content, "x") == form
        whole = decoded(form, str(path), stream, "")
    assert flow_rows(grower.batches) == flow_rows(whole.batches)
    assert grower.aside == whole.aside_total == 0


@pytest.mark.parametrize("in_folder", [True, False])
@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("how", ["rename", "copy"])
def test_rotation_loses_nothing_and_doubles_nothing(tmp_path, how, in_folder, restart):
    log, old = tmp_path / "conn.log", tmp_path / "conn.log.1"
    log.write_text(ZEEK_HEAD + "".join(zeek_line(n) for n in range(10)))
    grower = Grower(tmp_path if in_folder else log).look()
    with log.open("a") as file:
        file.write("".join(zeek_line(n) for n in range(10, 15)))
    if how == "rename":
        log.rename(old)
        log.write_text(ZEEK_HEAD)
    else:
        old.write_bytes(log.read_bytes())
        os.truncate(log, 0)
    if restart:
        grower.again()
    if how == "copy":
        grower.look()
    with log.open("a") as file:
        file.write((ZEEK_HEAD if how == "copy" else "") + "".join(zeek_line(n) for n in range(20, 33)))
    grower.look().look()
    assert set(grower.records.values()) == {1}
    assert len(grower.records) == 15 + 13
    assert {source for source, _ in grower.records} == {str(log), f"{log}#2"}


def test_a_copy_of_a_file_that_goes_on_is_not_read(tmp_path):
    log = tmp_path / "a.log"
    log.write_text(TEXTS["canonical-ndjson"])
    grower = Grower(tmp_path).look()
    (tmp_path / "b.log").write_text(log.read_text())
    with log.open("a") as file:
        file.write(canonical_line(99))
    grower.look().look()
    assert len(flow_rows(grower.batches)) == 40


def test_a_packed_rotated_file_is_not_read_twice_and_its_rest_is_read(tmp_path):
    log = tmp_path / "conn.log"
    log.write_text(ZEEK_HEAD + "".join(zeek_line(n) for n in range(10)))
    grower = Grower(tmp_path).look()
    with log.open("a") as file:
        file.write(zeek_line(10))
    (tmp_path / "conn.log.1.gz").write_bytes(gzip.compress(log.read_bytes()))
    log.unlink()
    grower.again()
    grower.look().look()
    assert len(grower.records) == sum(grower.records.values()) == 11


def test_what_is_written_to_a_renamed_file_is_still_taken(tmp_path):
    log = tmp_path / "a.log"
    with log.open("w") as writer:
        writer.write(canonical_line(1))
        writer.flush()
        grower = Grower(log, settle_s=60).look()
        log.rename(tmp_path / "a.old")
        grower.look()
        writer.write(canonical_line(2))
        writer.flush()
        grower.look()
    assert [row["position"] for row in flow_rows(grower.batches)] == [1, 2]


def test_a_file_of_a_format_read_whole_is_read_once_it_is_complete(tmp_path):
    path = tmp_path / "flows.parquet"
    whole = tmp_path / ".whole"
    pq.write_table(pa.Table.from_batches([flows(1, 500).rows]), whole)
    path.write_bytes(whole.read_bytes()[:900])
    grower = Grower(tmp_path, settle_s=60).look()
    assert not grower.batches
    path.write_bytes(whole.read_bytes())
    grower.settle_s = 0
    grower.again()
    grower.look().look()
    assert len(flow_rows(grower.batches)) == 500
    grower.again()
    grower.look()
    assert len(flow_rows(grower.batches)) == 500
    path.write_bytes(whole.read_bytes() + b"more")
    grower.look()
    assert "changed after it was read" in grower.messages[-1]
    assert len(flow_rows(grower.batches)) == 500


def test_damaged_lines_are_put_aside_with_their_numbers(tmp_path, watcher):
    path = tmp_path / "a.ndjson"
    path.write_text(canonical_line(1) + "{no json\n" + canonical_line(3))
    engine = watcher.watch(watcher.files(path))
    assert (engine.aside, engine.rows["flows"], watcher.counts.forms) == (1, 2, {"canonical-ndjson"})
    assert '"line 2"' in (watcher.state / "quarantine.ndjson").read_text()
    engine = watcher.watch(watcher.files(path))
    assert len((watcher.state / "quarantine.ndjson").read_text().splitlines()) == 1


def test_a_line_without_end_costs_bounded_memory_and_is_put_aside_once(tmp_path, monkeypatch):
    monkeypatch.setattr("relaywatch.live.file_taking.PIECE_BYTES", 1000)
    monkeypatch.setattr("relaywatch.live.file_taking.LINE_BYTES", 2000)
    path = tmp_path / "a.ndjson"
    path.write_text(canonical_line(1) + "x" * 9000 + "\n" + canonical_line(3))
    grower = Grower(path).look()
    assert grower.aside == 1
    assert len(flow_rows(grower.batches)) == 2


def test_links_and_hidden_files_are_nobodys(tmp_path):
    (tmp_path / ".hidden").write_text(canonical_line(1))
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.write_text(canonical_line(1))
    (tmp_path / "link").symlink_to(outside)
    os.mkfifo(tmp_path / "pipe")
    assert not Grower(tmp_path).look(last=True).batches


def test_a_given_link_is_followed_and_a_missing_file_is_waited_for(tmp_path, watcher):
    log, link = tmp_path / "a.ndjson", tmp_path / "link"
    link.symlink_to(log)
    grower = Grower(link).look()
    assert not grower.batches
    log.write_text(canonical_line(1))
    assert len(flow_rows(grower.look().batches)) == 1


def test_files_that_are_gone_are_forgotten_first_and_those_there_never(tmp_path, monkeypatch):
    monkeypatch.setattr("relaywatch.live.file_taking.MOST", 3)
    grower = Grower(tmp_path)
    for number in range(1, 7):
        (tmp_path / f"{number}.ndjson").write_text(canonical_line(number))
        grower.look()
        if number < 5:
            (tmp_path / f"{number}.ndjson").rename(tmp_path.parent / f"{tmp_path.name}-{number}")
            grower.look()
    assert len(dict(grower.positions.of("file"))) == 3
    grower.again()
    assert len(flow_rows(grower.look().batches)) == 6
    (tmp_path / "7.ndjson").write_text(canonical_line(7))
    grower.look()
    (tmp_path / "8.ndjson").write_text(canonical_line(8))
    with pytest.raises(LiveError, match="more than 3 files to remember"):
        grower.look()


def test_a_full_queue_makes_files_wait(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_text("".join(canonical_line(n) for n in range(1, 50)))
    inbox = Inbox(limit_bytes=1)
    files = Files([path], Looking(until_end=True), lambda _: None)
    (tmp_path / "b.ndjson").write_text(canonical_line(1))
    files = Files([path, tmp_path / "b.ndjson"], Looking(until_end=True), lambda _: None)
    files.start(inbox, Positions())
    assert len(inbox.take(5.0)) == 1
    assert len(inbox.take(5.0)) == 1
    finished = threading.Event()
    threading.Thread(target=lambda: (files.stop(), finished.set())).start()
    assert finished.wait(5)
