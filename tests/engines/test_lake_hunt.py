"""What a user is promised of hunting a lake: the findings of a hunt over the same rows as files."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from scenarios import Recorder, back_connect_relay, listener_relay, own_traffic, tunnel_relay

from relaywatch.detection.settings import Settings
from relaywatch.engines import lake_hunt, lake_sieve
from relaywatch.engines.lake_hunt import Selection, hunt_lake
from relaywatch.engines.lake_progress import Progress
from relaywatch.engines.lake_sieve import Sifted, sift
from relaywatch.engines.local import Hunt, HuntResult, hunt
from relaywatch.engines.view import Unwatched
from relaywatch.governance.exceptions import Exceptions
from relaywatch.lake.importing import import_telemetry
from relaywatch.lake.lake import Lake
from relaywatch.model.errors import LakeError
from relaywatch.outputs.native import finding_object
from relaywatch.outputs.telemetry.plain_tables import write_parquet
from relaywatch.simulation.plan import Fault, Faults, Plan
from relaywatch.simulation.stream import Simulation
from relaywatch.simulation.writing import Form, write_fleet

EXAMPLES = Path(__file__).parents[2] / "examples" / "traces"


class Unseen(Unwatched):
    """A watcher of imports and hunts that nobody looks at."""

    def writing(self, parts: int) -> None: ...

    def written(self) -> None: ...


def plan(**settings: object) -> Hunt:
    return Hunt(Settings(**settings), Exceptions(()), datetime(2026, 3, 1, tzinfo=UTC))


def fleet(folder: Path, **wanted: object) -> Path:
    """A simulated fleet of two days, with all that goes wrong, as files."""
    faults = Faults(Fault(0.3, 300), Fault(0.2, 120), Fault(0.02, 600), Fault(0.1, 14_400))
    given = {"devices": 12, "flows": 30_000, "days": 2, "relays": 0.02, "signals": 0.5, "faults": faults, **wanted}
    write_fleet(Simulation(Plan(**given)), Form.PARQUET, folder, lambda _: None)
    return folder / "telemetry"


def lake_of(paths: list[Path], folder: Path) -> Lake:
    import_telemetry(paths, folder, "", Unseen())
    return Lake.open(folder)


def same(one: HuntResult, other: HuntResult) -> bool:
    first, second = ([finding_object(finding) for finding in result.findings] for result in (one, other))
    return first == second and len(first) > 0


class TestSameAsFiles:
    @pytest.mark.parametrize(
        "wanted", [{}, {"volumes": 0.5}, {"hot": True, "seed": 3}], ids=["flows", "volumes", "hot"]
    )
    def test_a_faulty_fleet(self, tmp_path, wanted):
        telemetry = fleet(tmp_path / "fleet", **wanted)
        of_files = hunt([telemetry], plan())
        of_lake = hunt_lake(lake_of([telemetry], tmp_path / "lake"), plan())
        assert same(of_files, of_lake)
        for name in ("devices", "apps", "duplicate_flows", "unused_volumes", "not_judged_in_all"):
            assert getattr(of_lake.summary, name) == getattr(of_files.summary, name), name
        assert of_lake.summary.rows["flows"] == of_files.summary.rows["flows"]

    def test_apps_of_several_stretches_a_day_are_scored_as_they_stand(self, tmp_path, monkeypatch):
        rng = np.random.default_rng(5)
        recorders = [Recorder(device=f"phone-{k}", see_volumes=False) for k in range(3)]
        apps = [
            listener_relay(rng, recorders[0], 1_400),
            back_connect_relay(rng, recorders[1], 700),
            own_traffic(rng, recorders[2], 2_500, 60_000.0),
        ]
        telemetry = tmp_path / "telemetry"
        telemetry.mkdir()
        write_parquet([batch for app in apps for batch in app.batches()], telemetry)
        of_files, lake = hunt([telemetry], plan()), lake_of([telemetry], tmp_path / "lake")
        monkeypatch.setattr(lake_sieve, "_judge", None)
        of_lake = hunt_lake(lake, plan())
        assert same(of_files, of_lake)
        assert of_lake.summary.apps == of_files.summary.apps
        assert {fact.name for found in of_lake.findings for fact in found.context} >= {"stretches of the day"}

    def test_several_files_a_partition_and_destinations_that_are_left_out(self, tmp_path):
        telemetry = fleet(tmp_path / "one")
        further = fleet(tmp_path / "two", seed=8)
        lake = lake_of([telemetry], tmp_path / "lake")
        lake = lake_of([further], tmp_path / "lake")
        settings = {"allowed_destination_list": ["site00001.example"]}
        assert same(hunt([telemetry, further], plan()), hunt_lake(lake, plan()))
        assert same(hunt([telemetry, further], plan(**settings)), hunt_lake(lake, plan(**settings)))

    def test_destinations_that_are_left_out_are_reached_by_no_install(self, tmp_path):
        relay, *others = phones = [Recorder(device=f"phone-{k}", see_volumes=False) for k in range(5)]
        listener_relay(np.random.default_rng(5), relay)
        reached = sorted({row["remote_hostname"] for row in relay.rows["flows"] if row["remote_hostname"]})
        for phone in others:
            own_traffic(np.random.default_rng(9), phone)
            for k, name in enumerate(reached):
                phone.flow(k, k + 0.5, [(k + 0.1, 300, 4_000)], "203.0.113.1", hostname=f"other.{name}")
        telemetry = tmp_path / "telemetry"
        telemetry.mkdir()
        write_parquet([batch for phone in phones for batch in phone.batches()], telemetry)
        lake = lake_of([telemetry], tmp_path / "lake")
        for settings, alone in ({}, 0.0), ({"allowed_destination_list": ["203.0.113.1/32"]}, 1.0):
            of_lake = hunt_lake(lake, plan(**settings))
            assert same(hunt([telemetry], plan(**settings)), of_lake)
            assert [finding.spread.only_here for finding in of_lake.findings] == [alone]

    def test_sessions_of_nobody_and_flows_that_begin_together(self, tmp_path):
        rng = np.random.default_rng(2)
        nobody = Recorder(package=None, uid=None, see_volumes=False)
        relay = listener_relay(rng, Recorder(see_volumes=False))
        inbound = [row for row in relay.rows["flows"] if row["direction_id"] == 1]
        nobody.rows["flows"] = inbound
        relay.rows["flows"] = [row for row in relay.rows["flows"] if row["direction_id"] != 1]
        apps = [relay, nobody, back_connect_relay(rng, Recorder(device="phone-2", see_volumes=False))]
        apps += [tunnel_relay(rng, Recorder(device="phone-3")), own_traffic(rng, Recorder(device="phone-4"))]
        apps[2].rows["flows"] += [dict(row, flow_id=row["flow_id"] + 900) for row in apps[2].rows["flows"][:4]]
        telemetry = tmp_path / "telemetry"
        telemetry.mkdir()
        write_parquet([batch for app in apps for batch in app.batches()], telemetry)
        assert same(hunt([telemetry], plan()), hunt_lake(lake_of([telemetry], tmp_path / "lake"), plan()))

    def test_sources_that_must_be_joined(self, tmp_path):
        assert same(hunt([EXAMPLES], plan()), hunt_lake(lake_of([EXAMPLES], tmp_path / "lake"), plan()))


class TestInterrupted:
    def test_a_hunt_that_was_cut_off_goes_on_and_finds_the_same(self, tmp_path, monkeypatch):
        lake = lake_of([fleet(tmp_path / "fleet")], tmp_path / "lake")
        whole = hunt_lake(lake, plan())
        looked: list[tuple[date, int]] = []

        def sift_until(stop: int):
            def look(of: Lake, day: date, shard: int, *further: object) -> Sifted:
                if len(looked) == stop:
                    raise KeyboardInterrupt
                looked.append((day, shard))
                return sift(of, day, shard, *further)

            return look

        monkeypatch.setattr(lake_hunt, "sift", sift_until(5))
        with pytest.raises(KeyboardInterrupt):
            hunt_lake(lake, plan())
        monkeypatch.setattr(lake_hunt, "sift", sift_until(10_000))
        assert same(whole, hunt_lake(lake, plan()))
        assert len(looked) == len(set(looked))
        assert not any((tmp_path / "lake" / ".hunts").iterdir())

    def test_damaged_progress_is_looked_at_again(self, tmp_path):
        progress = Progress(lake_of([fleet(tmp_path / "fleet")], tmp_path / "lake"), plan(), "all")
        progress.keep(date(2026, 1, 1), 7, Sifted(judged=3))
        kept = progress.look(date(2026, 1, 1), 7)
        assert kept is not None
        assert kept.judged == 3
        (path,) = (tmp_path / "lake" / ".hunts").glob("*/*.arrows")
        path.write_bytes(path.read_bytes()[:50])
        assert progress.look(date(2026, 1, 1), 7) is None


class TestSelection:
    def test_one_day_and_one_device_are_what_a_hunt_over_their_rows_finds(self, tmp_path):
        telemetry = fleet(tmp_path / "fleet")
        lake = lake_of([telemetry], tmp_path / "lake")
        whole = hunt_lake(lake, plan())
        days = Counter(finding.last_seen.date() for finding in whole.findings)
        day = days.most_common(1)[0][0]
        of_day = hunt_lake(lake, plan(), Selection(days=frozenset({day})))
        assert [f.finding_id for f in of_day.findings] == [
            f.finding_id for f in whole.findings if f.last_seen.date() == day
        ]
        device = whole.findings[0].device.uid
        of_device = hunt_lake(lake, plan(), Selection(devices=frozenset({device})))
        assert {f.finding_id for f in of_device.findings} >= {
            f.finding_id for f in whole.findings if f.device.uid == device and f.verdict == "relay"
        }
        assert {f.device.uid for f in of_device.findings} == {device}

    def test_what_is_not_there_is_told(self, tmp_path):
        lake = lake_of([EXAMPLES], tmp_path / "lake")
        with pytest.raises(LakeError, match="no telemetry of these days"):
            hunt_lake(lake, plan(), Selection(days=frozenset({date(1999, 1, 1)})))


def test_the_command_tells_what_hunt_tells(run, tmp_path):
    telemetry = fleet(tmp_path / "fleet")
    lake_of([telemetry], tmp_path / "lake")
    status, of_files, _ = run("hunt", "--json", telemetry)
    assert run("lake", "hunt", "--json", "--lake", tmp_path / "lake")[:2] == (status, of_files)
    assert status == 1
