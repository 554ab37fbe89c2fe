from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import assert_survives, mutate, read_path
from unit_reads import read_bytes

from relaywatch.model.schemas import Direction, Observability, SignalKind
from relaywatch.sources.pcapdroid_csv import PcapdroidCsv

HEADER = (
    "IPProto,SrcIP,SrcPort,DstIp,DstPort,UID,App,PackageName,Proto,Status,Info,"
    "BytesSent,BytesRcvd,PktsSent,PktsRcvd,FirstSeen,LastSeen"
)
OLD_HEADER = HEADER.replace("PackageName,", "")
LEFT = "6,10.215.173.1,40000,198.51.100.7,443,10123"
RIGHT = "1000,5000,10,12,2024-10-05T12:00:00.123+02:00,2024-10-05T12:00:05.000+02:00"
LINE = f"{LEFT},Maps,com.example.maps,TLS,Closed,tiles.example.com,{RIGHT}"


def read(*lines: str, header: str = HEADER, device: str = ""):
    return read_bytes(PcapdroidCsv(), "\n".join((header, *lines, "")).encode(), name="pixel.csv.gz", device=device)


def test_a_connection_becomes_a_flow_of_its_app():
    rows, quarantine = read(LINE)
    (flow,) = rows["flows"]
    assert quarantine.total == 0
    assert (flow["device_uid"], flow["android_package"], flow["android_uid"]) == ("pixel", "com.example.maps", 10123)
    assert flow["start_time"] == datetime(2024, 10, 5, 10, 0, 0, 123000, UTC)
    assert flow["end_time"] == datetime(2024, 10, 5, 10, 0, 5, tzinfo=UTC)
    assert (flow["wire_bytes_out"], flow["wire_bytes_in"]) == (1000, 5000)
    assert (flow["bytes_out"], flow["bytes_in"]) == (1000 - 10 * 40, 5000 - 12 * 40)
    assert flow["bytes_observability"] == Observability.INFERRED
    assert flow["remote_hostname"] == "tiles.example.com"
    assert flow["established"] is None
    assert flow["position"] == 2


def test_a_connection_counts_as_dialled_until_the_use_of_its_local_port_says_otherwise():
    (flow,) = read(LINE)[0]["flows"]
    assert (flow["direction_id"], flow["direction_observability"]) == (Direction.OUTBOUND, Observability.INFERRED)


def test_sessions_on_a_listening_port_are_accepted_and_their_name_is_not_the_clients():
    sessions = [
        LINE.replace("10.215.173.1,40000,198.51.100.7,443", f"10.0.0.5,1080,198.51.100.7,{port}")
        for port in (50001, 50007, 50012)
    ]
    flows = read(LINE, *sessions)[0]["flows"]
    assert [flow["direction_id"] for flow in flows] == [Direction.OUTBOUND, *[Direction.INBOUND] * 3]
    assert {flow["direction_observability"] for flow in flows} == {Observability.INFERRED}
    assert [flow["remote_hostname"] for flow in flows] == ["tiles.example.com", None, None, None]


def test_the_list_says_that_it_shows_nothing_but_connections():
    (capture,) = read(LINE)[0]["signals"]
    assert (capture["kind"], capture["detail"]) == (SignalKind.CAPTURE, "")


@pytest.mark.parametrize("status", ["Closed", "Geschlossen", "Ferm\u00e9e", ""])
def test_the_translated_status_does_not_matter(status):
    assert len(read(LINE.replace("Closed", status))[0]["flows"]) == 1


@given(
    app=st.lists(st.sampled_from(["Maps", " Inc", "a b", "1", "\u00dcber", ""]), min_size=1, max_size=4),
    info=st.lists(st.sampled_from(["x", "/a?b", " q", "example.org"]), min_size=1, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_commas_in_app_and_info_do_not_move_the_numbers(app, info):
    line = f"{LEFT},{','.join(app)},com.example.maps,TLS,Closed,{','.join(info)},{RIGHT}"
    rows, quarantine = read(line)
    (flow,) = rows["flows"]
    assert quarantine.total == 0
    assert (flow["android_uid"], flow["wire_bytes_out"], flow["wire_bytes_in"], flow["packets_in"]) == (
        10123,
        1000,
        5000,
        12,
    )
    assert flow["android_package"] == "com.example.maps"
    (entry,) = rows["inventory"]
    assert (entry["app_label"] or "") == ",".join(app)


def test_before_1_7_0_times_are_epoch_milliseconds_and_there_is_no_package():
    (flow,) = read(f"{LEFT},Maps,TLS,Closed,x,1000,5000,10,12,1728122400123,1728122405000", header=OLD_HEADER)[0][
        "flows"
    ]
    assert flow["start_time"] == datetime(2024, 10, 5, 10, 0, 0, 123000, UTC)
    assert (flow["android_package"], flow["android_uid"]) == (None, 10123)


def test_the_malicious_column_is_allowed():
    assert len(read(LINE + ",yes", LINE + ",", header=HEADER + ",Malicious")[0]["flows"]) == 2


def test_uid_minus_one_is_not_known():
    rows, _ = read(LINE.replace("10123", "-1").replace("com.example.maps", ""))
    assert (rows["flows"][0]["android_uid"], rows["flows"][0]["android_package"]) == (None, None)
    assert rows["inventory"] == []


def test_a_queried_name_is_not_the_resolvers_name():
    (flow,) = read(LINE.replace("TLS", "DNS"))[0]["flows"]
    assert (flow["remote_hostname"], flow["hostname_observability"]) == (None, Observability.NOT_OBSERVABLE)


def test_work_profile_apps_are_another_user():
    (entry,) = read(LINE.replace("10123", "1010123"))[0]["inventory"]
    assert (entry["user_id"], entry["android_uid"], entry["app_label"]) == (10, 1010123, "Maps")


def test_the_users_word_names_the_device():
    assert read(LINE, device="phone-7")[0]["flows"][0]["device_uid"] == "phone-7"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("6,bad", "2 fields"),
        (LINE.replace(",5000,", ",many,"), "BytesRcvd: 'many'"),
        (LINE.replace(",5000,", ",-5,"), "negative"),
        (LINE.replace("198.51.100.7", "198.51.100"), "DstIp"),
        (LINE.replace("2024-10-05T12:00:00.123+02:00", "yesterday"), "start"),
        (LINE.replace("40000", "70000"), "SrcPort: '70000'"),
    ],
)
def test_a_damaged_line_is_put_aside_and_the_others_count(line, reason):
    rows, quarantine = read(LINE, line, LINE)
    assert [flow["position"] for flow in rows["flows"]] == [2, 4]
    (record,) = quarantine.records
    assert record.position == "line 3"
    assert reason in record.reason


@given(
    lines=st.lists(
        st.text(max_size=80).map(lambda s: s.replace("\n", ""))
        | st.just(LINE)
        | st.integers(0, len(LINE)).map(lambda n: LINE[:n] + "\x00\u00e9," + LINE[n + 1 :]),
        max_size=8,
    )
)
@settings(max_examples=150, deadline=None)
def test_every_line_is_a_flow_or_in_quarantine(lines):
    rows, quarantine = read(*lines)
    assert len(rows["flows"]) + quarantine.total == sum(1 for line in lines if line.removesuffix("\r"))


@given(content=st.binary(max_size=400))
@settings(max_examples=100, deadline=None)
def test_any_bytes_after_the_header_are_survived(content):
    rows, quarantine = read_bytes(PcapdroidCsv(), b"\n".join((HEADER.encode(), content, LINE.encode())))
    assert len(rows["flows"]) == 1
    assert quarantine.total == sum(1 for line in content.split(b"\n") if line.removesuffix(b"\r"))


@given(content=st.binary(min_size=1, max_size=400))
@settings(max_examples=100, deadline=None)
def test_any_bytes_without_the_header_are_told_as_such(content):
    rows, quarantine = read_bytes(PcapdroidCsv(), content)
    assert not rows
    assert [(record.position, "header" in record.reason) for record in quarantine.records] == [("line 1", True)]


PLAIN = "\n".join((HEADER, LINE, LINE.replace("Maps", "Maps, Inc."), LINE.replace("tiles", "caf\u00e9"), LINE, ""))
OLD = "\n".join((OLD_HEADER, f"{LEFT},Maps,TLS,Closed,x,1000,5000,10,12,1728122400123,1728122405000", ""))
FUZZ_SEEDS: list[tuple[str, bytes]] = [("pixel.csv", PLAIN.encode()), ("older.csv", OLD.encode())]


@pytest.mark.parametrize(("name", "content"), FUZZ_SEEDS)
def test_hostile_variants_are_survived_and_accounted_for(tmp_path, name, content):
    rng = random.Random(5)  # noqa: S311 - seeded, so that it repeats
    for _ in range(200):
        assert_survives(tmp_path, name, mutate(content, rng))


def test_every_line_is_counted_once_though_its_app_gets_a_row_too(tmp_path):
    (tmp_path / "pixel.csv").write_text(PLAIN + "6,bad\n")
    rows, quarantine, tally, _ = read_path(tmp_path)
    assert {part.table for part in rows} == {"inventory", "flows", "signals"}
    assert (tally.records, tally.with_rows, quarantine.total) == (5, 4, 1)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_whole_blocks_give_what_single_lines_give(seed):
    seeded = random.Random(seed)  # noqa: S311 - seeded, so that it repeats
    content = HEADER.encode() + b"\n" + mutate(PLAIN.partition("\n")[2].encode() * 3, seeded).rstrip(b"\n") + b"\n"
    assert read_bytes(PcapdroidCsv(), content) == read_bytes(PcapdroidCsv(), content + b"\n")


def test_a_comma_in_a_name_does_not_change_how_its_neighbours_are_read():
    lines = [LINE.replace("40000", str(40_000 + n)) for n in range(50)]
    plain, _ = read(*lines, LINE)
    moved, quarantine = read(*lines, LINE.replace("Maps", "Maps, Inc."))
    assert quarantine.total == 0
    assert moved["flows"] == plain["flows"]
