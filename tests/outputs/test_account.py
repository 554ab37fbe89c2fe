"""What was left out is told in a few plain lines that nothing from a suspect phone can bend."""

from relaywatch.model.quarantine import Quarantine
from relaywatch.outputs.account import hunt_account, quarantine_account, unread_account
from relaywatch.outputs.summary import HuntSummary, NotJudged


def damage(count: int, source: str = "conn.log", reason: str = "no time") -> Quarantine:
    quarantine = Quarantine()
    for number in range(count):
        quarantine.add(source, f"line {number + 1}", reason)
    return quarantine


def test_nothing_left_out_is_nothing_said():
    assert hunt_account(HuntSummary()) == []


def test_everything_left_out_is_told():
    summary = HuntSummary(
        quarantine=damage(1),
        unrecognised=["notes.txt: of no known format"],
        not_judged=[NotJudged("phone-1", "com.example", "no flow has byte counts")] * 2,
    )
    assert hunt_account(summary) == [
        "put aside: conn.log, line 1: no time",
        "not read: 1 path not recognised",
        "not judged, which is not the same as clean: 2 apps",
    ]


def test_long_lists_are_cut_and_the_rest_counted_with_records_that_were_not_kept():
    lines = quarantine_account(damage(5_000))
    assert len(lines) == 21
    assert lines[19:] == ["put aside: conn.log, line 20: no time", "put aside: 4,980 more damaged records"]
    lines = unread_account([(f"{number}.txt", "of no known format") for number in range(21)])
    assert lines[20:] == ["not read: 1 more path"]


def test_hostile_names_are_escaped_and_hide_neither_position_nor_reason():
    (line,) = quarantine_account(damage(1, "\x1b[2J\n" * 5_000, "odd \u202e text"))
    assert line.isprintable()
    assert len(line) < 1_000
    assert line.endswith(", line 1: odd \\u202e text")
