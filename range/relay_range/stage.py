"""One scenario from its namespaces to its trace and label. Ends every process and namespace that it started."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from relay_range import journal, trace, truth
from relay_range.addresses import INTERNET, PHONE
from relay_range.casting import HOME, Cast, Launch, Stage
from relay_range.evasion import Evasion
from relay_range.programs import PROGRAMS
from relay_range.scenarios import NETWORKS, SCENARIOS, Scenario, context
from relay_range.spaces import RangeError, Spaces

READY_S: Final = 15.0
SAMPLE_S: Final = 5.0
AFTER_S: Final = 1.5
_FIRST: Final = ("sunny", "handy", "pocket", "swift", "cosy", "lucky", "mellow", "tiny")
_SECOND: Final = ("torch", "weather", "keyboard", "cleaner", "radio", "quiz", "scanner", "notes")


@dataclass(frozen=True, slots=True)
class Job:
    """One scenario to run. out: the data folder; stopping: set when the whole run shall end."""

    scenario: Scenario
    out: Path
    seconds: float
    seed: int
    certificate: Path
    key: Path
    stopping: threading.Event

    @property
    def index(self) -> int:
        """The scenario's place in the table; -1 for one that is not of the table."""
        return SCENARIOS.index(self.scenario) if self.scenario in SCENARIOS else -1

    @property
    def trace(self) -> str:
        """The trace's name: from the scenario's place and the seed, so that it says nothing of the label."""
        return f"R{zlib.crc32(f'{self.scenario.name}/{self.seed}'.encode()) % 1_000_000:06d}"

    @property
    def subnet(self) -> int:
        """The number of the phone's home network."""
        return 1 + zlib.crc32(self.trace.encode()) % 250


@dataclass(slots=True)
class Result:
    """What became of a scenario. note: why it has no trace, or what was odd."""

    job: Job
    row: dict[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(slots=True)
class Processes:
    """The processes of one scenario, by the pid that was started here."""

    spaces: Spaces
    log: Path
    stopping: threading.Event
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)

    def start(self, launch: Launch) -> subprocess.Popen[bytes]:
        """Start one in its namespace, its output in the log folder."""
        name = re.sub(r"\W+", "-", Path(launch.argv[0]).name + "-" + "-".join(launch.argv[1:4]))[:60]
        path = f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin"
        environment = {**os.environ, **python_path(), "PATH": path, "HOME": str(self.log), "PYTHONUNBUFFERED": "1"}
        with (self.log / f"{len(self.running):02d}-{name}.log").open("wb") as output:
            process = subprocess.Popen(
                self.spaces.command(launch.space, launch.argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        self.running.append(process)
        self.names[process.pid] = name[:30]
        return process

    def await_ready(self, launch: Launch, process: subprocess.Popen[bytes] | None) -> None:
        """Wait until it serves; raises RangeError where it does not."""
        until = time.monotonic() + READY_S
        while not self._is_ready(launch):
            if process is not None and process.poll() not in (None, 0):
                raise RangeError(f"{launch.argv[0]} ended with status {process.returncode}: see {self.log}")
            if self.stopping.is_set():
                raise RangeError("stopped")
            if time.monotonic() > until:
                raise RangeError(
                    f"{' '.join(launch.argv[:3])} port {launch.port}: not ready in {READY_S:.0f} s: {self.log}"
                )
            time.sleep(0.1)

    def _is_ready(self, launch: Launch) -> bool:
        if launch.file is not None:
            return launch.file.exists()
        return not launch.port or any(port == launch.port for _, _, port in listeners(self.spaces, launch.space))

    def ended_badly(self) -> list[str]:
        """Programs that ended with an error before they were told to end."""
        ended = [process for process in self.running if process.poll() not in (None, 0)]
        return [f"{self.names[process.pid]} ended with status {process.returncode}" for process in ended]

    def stop(self) -> None:
        """End every process that was started, and what those started within these namespaces."""
        for process in self.running:
            _signal_group(process, signal.SIGTERM)
        until = time.monotonic() + 2
        for process in self.running:
            try:
                process.wait(max(0.05, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal_group(process, signal.SIGKILL)
                process.wait()
            _signal_group(process, signal.SIGKILL)
        for name in self.spaces.made:
            # A daemon that left its group still lives in a namespace that only this scenario has.
            found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
            for pid in map(int, found.stdout.split()):
                _signal(pid)


def python_path() -> dict[str, str]:
    """Where Python finds the range's scripts, and what was installed for it."""
    return {"PYTHONPATH": os.pathsep.join((str(Path(__file__).parent.parent), str(HOME / "pip")))}


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _signal(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def listeners(spaces: Spaces, space: str) -> list[tuple[str, str, int]]:
    """Sockets that wait for others in a namespace: (protocol, address, port), as `ss -ltnu` shows them."""
    found = subprocess.run(
        spaces.command(space, ["ss", "-H", "-ltnu"]), capture_output=True, text=True, check=False
    ).stdout
    rows = []
    for line in found.splitlines():
        parts = line.split()
        address, _, port = parts[4].rpartition(":")
        if port.isdigit():
            rows.append((parts[0], address, int(port)))
    return rows


@contextmanager
def stage_of(job: Job) -> Iterator[tuple[Stage, Spaces, Processes, subprocess.Popen[bytes]]]:
    """Namespaces, the wire and the internet of one scenario."""
    log = job.out / "logs" / job.trace
    log.mkdir(parents=True, exist_ok=True)
    for old in log.glob("*"):
        if old.is_file():
            old.unlink()
    with tempfile.TemporaryDirectory(prefix="relay-range-") as temporary:
        folder = Path(temporary)
        (folder / "files").mkdir()
        spaces = Spaces(f"rr{os.getpid()}x{zlib.crc32(job.trace.encode()) % 10_000}", job.subnet)
        processes = Processes(spaces, log, job.stopping)
        seed = zlib.crc32(f"{job.scenario.name}:{job.seed}".encode())
        seconds = job.seconds * job.scenario.stretch
        stage = Stage(job.scenario, folder, job.subnet, seed, seconds, job.certificate, job.key)
        wire = None
        try:
            ends = spaces.make()
            wire = _wire(stage, ends, log)
            yield stage, spaces, processes, wire
        finally:
            processes.stop()
            if wire is not None:
                wire.terminate()
                wire.wait()
            spaces.remove()


def _wire(stage: Stage, ends: dict[str, int], log: Path) -> subprocess.Popen[bytes]:
    radio = asdict(NETWORKS[stage.scenario.network])
    told = {"ends": ends, "subnet": stage.subnet, "radio": radio, "seed": stage.seed}
    told["capture"] = str(stage.folder / "capture.pcap")
    with (log / "wire.log").open("wb") as output:
        wire = subprocess.Popen(
            [sys.executable, "-m", "relay_range.wire", json.dumps(told)],
            pass_fds=list(ends.values()),
            stderr=output,
            env={**os.environ, **python_path()},
            start_new_session=True,
        )
    for end in ends.values():
        os.close(end)
    return wire


def run(job: Job) -> Result:
    """Run one scenario; its trace and label are then in job.out."""
    program = PROGRAMS[job.scenario.program]
    if missing := [need for need in program.needs if not need.met()]:
        wanted = ", ".join(f"{need.registry}: {need.package}" for need in missing)
        return Result(job, note=f"not run, missing {wanted}")
    try:
        with stage_of(job) as (stage, spaces, processes, wire):
            begin, cast, seen = _perform(stage, spaces, processes, job)
            end, ended = time.time(), processes.ended_badly()
            processes.stop()
            wire.terminate()
            wire.wait()
            return _write(job, stage, cast, Window(begin, end, seen, ended))
    except (RangeError, OSError, subprocess.CalledProcessError) as error:
        return Result(job, note="not run, stopped" if job.stopping.is_set() else f"failed: {error}")


def _perform(
    stage: Stage, spaces: Spaces, processes: Processes, job: Job
) -> tuple[float, Cast, dict[Any, list[float]]]:
    """Start everything, let the time pass, sample listeners. Gives begin, cast and listeners' times."""
    begin = time.time()
    cast = PROGRAMS[stage.scenario.program].build(stage)
    told = {
        "journal": stage.journal("origin"), "certificate": str(stage.certificate), "key": str(stage.key),
        "files": str(stage.folder / "files"), "peers": stage.peers, "ready": str(stage.folder / "origin.ready"),
    }  # fmt: skip
    origin = Launch(INTERNET, stage.script("origin", told), file=stage.folder / "origin.ready")
    own = stage.scenario.evasion.own_traffic
    for launch in [origin, *cast.launches, *([stage.app(own)] if own else [])]:
        process = processes.start(launch) if launch.argv else None
        processes.await_ready(launch, process)
    if cast.entry is not None:
        processes.start(Launch(cast.entry.space, stage.script("customers", _customers(stage, cast))))
    seen: dict[Any, list[float]] = {}
    until = time.time() + stage.seconds + AFTER_S
    while (now := time.time()) < until and not job.stopping.is_set():
        for row in listeners(spaces, PHONE):
            if not row[1].startswith(("127.", "[::1]")):
                seen.setdefault(row, [now, now])[1] = now
        job.stopping.wait(min(SAMPLE_S, max(0.05, until - now)))
    if job.stopping.is_set():
        raise RangeError("stopped")
    return begin, cast, seen


def _customers(stage: Stage, cast: Cast) -> dict[str, Any]:
    entry = cast.entry
    assert entry is not None  # noqa: S101 - the caller looked
    windows = context(stage.scenario.context, 0.0, stage.seconds)["foreground"]
    return {
        "protocol": entry.protocol,
        "proxy": [entry.address, entry.port],
        "sources": list(entry.sources),
        "journal": stage.journal("customers"),
        "plain_share": 0.25,
        "workload": stage.scenario.workload,
        "seconds": stage.seconds,
        "seed": stage.seed,
        "active": windows if stage.scenario.evasion.active_only else [],
        "target": entry.target,
        "port": entry.target_port,
    }


@dataclass(frozen=True, slots=True)
class Window:
    """A scenario's time, the phone's listeners in it (first and last seen), and programs that ended with an error."""

    begin: float
    end: float
    listeners: dict[Any, list[float]]
    ended: list[str]


def _write(job: Job, stage: Stage, cast: Cast, window: Window) -> Result:
    chance = random.Random(stage.seed)
    scripted = context(job.scenario.context, window.begin, window.end)
    known = {
        "package": f"com.{chance.choice(_FIRST)}{chance.choice(_SECOND)}.{chance.choice(_SECOND)}",
        "uid": 10_100 + stage.seed % 800,
        "device_ip": stage.phone,
        "lan_prefix": f"{stage.phone.rpartition('.')[0]}.0/24",
        "network": job.scenario.network,
        "trace_start": window.begin,
        "trace_end": window.end,
        **scripted,
        "listeners": [
            {"proto": protocol, "addr": f"{address}:{port}", "first_seen": first, "last_seen": last}
            for (protocol, address, port), (first, last) in sorted(window.listeners.items())
        ],
    }
    frame = trace.write(job.out / "traces" / job.trace, stage.folder / "capture.pcap", stage.phone, known)
    if frame.is_empty():
        return Result(job, note=f"failed: the phone sent nothing: see {job.out / 'logs' / job.trace}")
    flows = frame.to_dicts()
    declared = _declared(job, stage, cast, window)
    label = truth.document(declared, cast.relay, flows, journal.events(stage.folder))
    row = truth.index_row(label, flows)
    with _INDEX:
        truth.write(job.out / "truth", label, row)
    lame = ["no customer was served"] if cast.entry and not label["customer_requests"]["ok"] else []
    return Result(job, row, "; ".join(lame + window.ended))


_INDEX: Final = threading.Lock()


def _declared(job: Job, stage: Stage, cast: Cast, window: Window) -> dict[str, Any]:
    scenario, plain = job.scenario, asdict(Evasion())
    return {
        "trace": job.trace,
        "label": scenario.label,
        "tool": PROGRAMS[scenario.program].tool,
        "scenario": scenario.name,
        "family": scenario.family,
        "group": scenario.group,
        "topology": scenario.topology,
        "evasion": {name: value for name, value in asdict(scenario.evasion).items() if value != plain[name]},
        "mixed_with_own_traffic": cast.relay.mixed,
        "duration_s": round(window.end - window.begin, 1),
        "context_kind": scenario.context,
        "network": scenario.network,
        "params": {"workload": scenario.workload, "seconds": stage.seconds, "seed": stage.seed},
    }
