"""Android dumps in every wrapping: the same sections, the same rows, and nothing hostile gets further."""

import gzip
import io
import json
import random
import zipfile

import pytest
from mutations import assert_accounted, assert_survives, mutate, read_path

from relaywatch.model.errors import SourceError
from relaywatch.sources import android_dump
from relaywatch.sources.android_sections import is_dump, name_of, section_name, sections

GETPROP = "[ro.serialno]: [R58M123]\n[persist.sys.timezone]: [Europe/Berlin]\n"
NETSTAT = """Proto Recv-Q Send-Q Local Address  Foreign Address  State  User  Inode  PID/Program Name
tcp        0      0 192.168.8.183:51234     216.58.214.67:443    ESTABLISHED 10283      22223       12346/com.other
"""
PACKAGES = "package:com.other uid:10283\n"
DUMP = f"""== dumpstate: 2026-03-03 10:00:00
------ SYSTEM PROPERTIES (getprop) ------
{GETPROP}------ 0.01s was the duration of 'SYSTEM PROPERTIES' ------
------ NETSTAT (netstat -npWae) ------
{NETSTAT}------ 0.1s was the duration of 'NETSTAT' ------
------ PACKAGES (pm list packages -U) ------
{PACKAGES}------ 0.1s was the duration of 'PACKAGES' ------
------ DUMPSYS (/system/bin/dumpsys) ------
DUMP OF SERVICE audio:
noise
--------- 0.002s was the duration of dumpsys audio, ending at: 2026-03-03 10:00:01
"""
POLLED = f"2026-03-03 10:00:00\n{NETSTAT}"
QF = [
    {
        "name": "com.other", "uid": 10283, "installer": "com.android.vending", "system": False, "third_party": True,
        "files": [{"path": "/data/app/base.apk", "certificate": {"Sha256": "AB" * 32, "SerialNumber": 2**100}}],
    }
]  # fmt: skip
EVENT = {"event_time": 1772528400000, "ip_address": "/203.0.113.9", "port": 443, "package_name": "com.other"}
CONNECT = {"connect_event": EVENT}


def zipped(members, compression=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


FUZZ_SEEDS = [
    ("dump.txt", DUMP.encode()),
    ("bugreport.zip", zipped({"bugreport-x.txt": DUMP, "version.txt": "2.0"})),
    ("packages.json", json.dumps(QF, indent=1).encode()),
]


def read(path, device=""):
    batches, quarantine, tally, unknown = read_path(path, device)
    assert_accounted(quarantine, tally)
    rows = {"flows": [], "signals": [], "inventory": [], "volumes": []}
    for part in batches:
        rows[part.table] += part.rows.to_pylist()
    return rows, quarantine, tally, unknown


def written(tmp_path, name, content):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def wrapped(tmp_path, wrapping):
    if wrapping == "text":
        return written(tmp_path, "dump.txt", DUMP)
    if wrapping == "zip":
        return written(tmp_path, "b.zip", zipped({"FS/x.txt": "no dump", "bugreport-x.txt": DUMP}))
    if wrapping == "zip in zip":
        return written(tmp_path, "qf.zip", zipped({"acquisition/bugreport.zip": zipped({"bugreport.txt": DUMP})}))
    for name, content in (("getprop.txt", GETPROP), ("netstat.txt", POLLED), ("packages.txt", PACKAGES)):
        written(tmp_path, f"phone/{name}", content)
    return tmp_path / "phone"


@pytest.mark.parametrize("wrapping", ["text", "zip", "zip in zip", "folder"])
def test_a_dump_gives_the_same_rows_in_every_wrapping(tmp_path, wrapping):
    rows, quarantine, _, unknown = read(wrapped(tmp_path, wrapping))
    assert not quarantine.total
    assert not unknown
    (flow,) = rows["flows"]
    assert (flow["device_uid"], flow["android_uid"], flow["android_package"]) == ("R58M123", 10283, "com.other")
    assert flow["start_time"].isoformat() == "2026-03-03T09:00:00+00:00"
    assert ("serial", "R58M123") in {(row["identifier_kind"], row["identifier"]) for row in rows["inventory"]}


def test_an_acquisition_holds_packages_and_intrusion_logs_of_the_same_phone(tmp_path):
    folder = tmp_path / "acquisition"
    written(folder, "getprop.txt", GETPROP)
    written(folder, "packages.json", json.dumps(QF, indent=2))
    for day in ("1", "2"):  # daily files overlap
        written(folder, f"intrusion_logs/{day}.txt", json.dumps(CONNECT) + "\n")
    rows, quarantine, _, unknown = read(folder)
    assert not quarantine.total
    assert not unknown
    assert {row["device_uid"] for table in rows.values() for row in table} == {"R58M123"}
    (app,) = (row for row in rows["inventory"] if row["android_package"])
    assert (app["installer"], app["signing_digest"]) == ("com.android.vending", "ab" * 32)
    assert len({row["flow_id"] for row in rows["flows"]}) == 1


def test_the_users_word_for_the_device_counts(tmp_path):
    rows, _, _, _ = read(wrapped(tmp_path, "text"), device="desk-7")
    assert {row["device_uid"] for row in rows["flows"]} == {"desk-7"}


def test_sections_that_are_not_read_are_counted(tmp_path):
    _, _, tally, _ = read(wrapped(tmp_path, "text"))
    assert tally.unused["a section that is not read"] >= 1


@pytest.mark.parametrize(
    ("title", "command", "name"),
    [
        ("NETSTAT", "netstat -npWae", "netstat"),
        ("DETAILED SOCKET STATE", "ss -eionptu", "ss"),
        ("CHECKIN USAGESTATS", "/system/bin/dumpsys -T 10000 usagestats -c", "usagestats"),
        ("EVENT LOG", "logcat -b events -v threadtime -d *:v", "logcat events"),
        ("TCP", "/proc/net/tcp6", "tcp6"),
    ],
)
def test_sections_are_named_by_their_command(title, command, name):
    assert section_name(title, command) == name


def test_every_line_is_in_one_section_with_its_number():
    found = list(sections(DUMP.splitlines(), "x"))
    lines = DUMP.splitlines()
    for section in found:
        for number, line in enumerate(section.lines, section.first_line):
            assert lines[number - 1] == line
    assert [section.name for section in found if section.name][:3] == ["getprop", "netstat", "pm"]


@pytest.mark.parametrize("text", ["", "hello\nworld\n", "a,b,c\n1,2,3\n", "{}\n", "[1, 2]\n"])
def test_other_text_is_no_dump(text):
    assert not is_dump(text)
    assert name_of(text.splitlines()) is None


class TestHostileArchives:
    def test_a_bomb_is_put_aside_by_its_size(self, tmp_path, monkeypatch):
        monkeypatch.setattr(android_dump, "MEMBER_BYTES", 1 << 20)
        path = written(tmp_path, "b.zip", zipped({"bugreport.txt": DUMP, "bomb.txt": b"\0" * (8 << 20)}))
        rows, quarantine, _, _ = read(path)
        assert len(rows["flows"]) == 1
        assert [record.reason for record in quarantine.records] == ["larger than 1048576 bytes"]

    def test_a_bomb_that_lies_about_its_size_is_stopped_by_its_ratio(self, tmp_path, monkeypatch):
        monkeypatch.setattr("relaywatch.sources.compression.FREE_BYTES", 1 << 16)
        text = "== dumpstate: 2026-03-03 10:00:00\n" + " " * (32 << 20)
        path = written(tmp_path, "b.txt.gz", gzip.compress(text.encode()))
        _, quarantine, _, _ = read(path)
        assert quarantine.total

    def test_archives_in_archives_are_opened_once(self, tmp_path):
        inner = zipped({"deeper.zip": zipped({"bugreport.txt": DUMP})})
        rows, quarantine, _, _ = read(written(tmp_path, "a.zip", zipped({"b.zip": inner, "bugreport.txt": DUMP})))
        assert len(rows["flows"]) == 1
        assert [record.reason for record in quarantine.records] == ["an archive within an archive within an archive"]

    def test_names_that_climb_are_only_labels(self, tmp_path):
        path = written(tmp_path / "in", "a.zip", zipped({"../../escaped.txt": DUMP, "/abs.txt": "x"}))
        rows, _, _, _ = read(path)
        assert rows["flows"][0]["source"].endswith("a.zip!../../escaped.txt")
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in"]

    def test_too_many_members_are_told(self, tmp_path, monkeypatch):
        monkeypatch.setattr(android_dump, "MOST_MEMBERS", 3)
        _, quarantine, _, _ = read(written(tmp_path, "a.zip", zipped({f"{n}.txt": DUMP for n in range(5)})))
        assert [record.reason for record in quarantine.records] == ["members beyond the first 3 are not read"]

    @pytest.mark.parametrize("cut", [4, 30, 200])
    def test_a_cut_archive_is_told_as_damaged(self, tmp_path, cut):
        whole = zipped({"bugreport.txt": DUMP})
        _, quarantine, _, _ = read(written(tmp_path, "a.zip", whole[: len(whole) - cut]))
        assert "damaged archive" in quarantine.records[0].reason

    def test_a_member_with_damaged_data_costs_only_itself(self, tmp_path):
        whole = bytearray(zipped({"a.txt": DUMP, "b.txt": DUMP}, zipfile.ZIP_STORED))
        at = whole.index(b"ESTABLISHED")
        whole[at : at + 4] = b"XXXX"  # the checksum no longer fits
        rows, quarantine, _, _ = read(written(tmp_path, "a.zip", bytes(whole)))
        assert len(rows["flows"]) >= 1
        assert quarantine.total


def test_a_missing_file_is_a_clear_error(tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        read_path(tmp_path / "none.zip")


def test_hostile_variants_are_read_to_the_end(tmp_path):
    rng = random.Random(1)  # noqa: S311  mutations, no secret
    for number in range(80):
        for name, content in FUZZ_SEEDS:
            assert_survives(tmp_path / str(number), name, mutate(content, rng))
