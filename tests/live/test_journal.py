"""The journal: each finding's news once, whatever is said again; what no longer holds after a crash is taken back."""

import json

import pytest
from counting import finding

from relaywatch.engines.kernel import Change, Status
from relaywatch.live.journal import Journal, standing
from relaywatch.live.taking import LiveError

OPENED, UPDATED, CLOSED = Status.OPENED, Status.UPDATED, Status.CLOSED


def written(folder):
    lines = (folder / "findings.ndjson").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [(r["event"], r["revision"], r["finding"]["device"]["uid"], r["finding"]["bridges"]) for r in records]


def journal(folder, known=0):
    return Journal(folder, known_size=known)


def test_what_was_said_last_of_a_finding_is_not_written_again(tmp_path):
    told = journal(tmp_path)
    told.write([Change(OPENED, finding("a", 1)), Change(OPENED, finding("b", 1))])
    told.write([Change(UPDATED, finding("a", 2))])
    told.close()
    again = journal(tmp_path)
    again.write([Change(OPENED, finding("a", 2)), Change(UPDATED, finding("b", 1)), Change(CLOSED, finding("b", 1))])
    again.write([Change(CLOSED, finding("b", 1))])
    again.close()
    assert written(tmp_path) == [
        ("opened", 1, "a", 1),
        ("opened", 1, "b", 1),
        ("updated", 2, "a", 2),
        ("closed", 2, "b", 1),
    ]
    assert [record["finding"]["device"]["uid"] for record in standing(tmp_path)] == ["a"]


@pytest.mark.parametrize("cut", [1, 5, 40, 400])
def test_a_torn_last_line_is_cut_and_written_again(tmp_path, cut):
    told = journal(tmp_path)
    told.write([Change(OPENED, finding("a", 1))])
    told.write([Change(OPENED, finding("b", 1))])
    told.close()
    path = tmp_path / "findings.ndjson"
    path.write_bytes(path.read_bytes()[:-cut])
    assert len(standing(tmp_path)) == 1
    again = journal(tmp_path)
    again.resume([Change(OPENED, finding("a", 1)), Change(OPENED, finding("b", 1))])
    again.close()
    assert written(tmp_path) == [("opened", 1, "a", 1), ("opened", 1, "b", 1)]


def test_what_was_told_after_the_checkpoint_and_is_not_told_again_is_taken_back(tmp_path):
    told = journal(tmp_path)
    told.write([Change(OPENED, finding("old", 1))])
    known = told.size_bytes
    told.write([Change(UPDATED, finding("old", 2)), Change(OPENED, finding("new", 1)), Change(OPENED, finding("c", 1))])
    told.close()
    again = journal(tmp_path, known)
    again.resume([Change(OPENED, finding("c", 1))])
    again.close()
    assert written(tmp_path)[4:] == [("updated", 3, "old", 1), ("withdrawn", 2, "new", 1)]


def test_a_line_that_is_no_event_is_told(tmp_path):
    (tmp_path / "findings.ndjson").write_text('{"event":"opened"}\n')
    with pytest.raises(LiveError, match="line 1: no event of the journal"):
        journal(tmp_path)


def test_a_folder_without_a_journal_is_told(tmp_path):
    with pytest.raises(LiveError, match="no journal here"):
        standing(tmp_path)
