"""Packets per second, CPU and memory of the capture reader, beside tshark on the same file.

Usage: python benchmarks/bench_capture.py [packets] (2,000,000 by default). Makes a capture of mobile-like traffic in
a temporary directory: TCP connections with data, acknowledgements, some loss, UDP, and DNS.
"""

from __future__ import annotations

import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dpkt
import numpy as np

READ = """
import resource, sys, time
from pathlib import Path
from relaywatch.model.quarantine import Quarantine
from relaywatch.sources.compression import open_content
from relaywatch.sources.pcap import Pcap
from relaywatch.sources.reading import Reading
path = Path(sys.argv[1])
begin = time.perf_counter()
rows = {}
with open_content(path) as stream:
    for part in Pcap().read(path, stream, Reading(Quarantine())):
        rows[part.table] = rows.get(part.table, 0) + part.rows.num_rows
print(time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, rows, sep="\\t")
"""


def frame(source: int, target: int, body: bytes, protocol: int) -> bytes:
    """Ethernet and IPv4 around a transport segment."""
    head = struct.pack(">BBHHHBBHII", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0, source, target)
    return b"\2\0\0\0\0\1\2\0\0\0\0\2\x08\0" + head + body


def segment(ports: tuple[int, int], sequence: int, flags: int, payload: int) -> bytes:
    """Make a TCP segment of `payload` zero bytes."""
    return struct.pack(">HHIIBBHHH", *ports, sequence & 0xFFFFFFFF, 0, 0x50, flags, 0xFFFF, 0, 0) + bytes(payload)


def answer(number: int, address: int) -> bytes:
    """Make a DNS answer over UDP."""
    name = f"host{number % 5000}.example"
    message = dpkt.dns.DNS(id=number & 0xFFFF, op=0x8180, qd=[dpkt.dns.DNS.Q(name=name)])
    message.an = [dpkt.dns.DNS.RR(name=name, type=1, cls=1, ttl=60, rdata=struct.pack(">I", address))]
    content = bytes(message)
    return struct.pack(">HHHH", 53, 40000 + number % 20000, 8 + len(content), 0) + content


def write_capture(path: Path, packets: int) -> None:
    """About `packets` packets: connections of 5 to 200 packets, 300 open at a time, 50 devices."""
    random = np.random.default_rng(7)
    written, number, clock = 0, 0, 1_700_000_000_000_000
    open_now: list[list[int]] = []
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))

        def put(content: bytes) -> None:
            nonlocal written, clock
            clock += 150
            written += 1
            file.write(
                struct.pack("<IIII", clock // 1_000_000, clock % 1_000_000, len(content), len(content)) + content
            )

        while written < packets:
            while len(open_now) < 300:
                number += 1
                device, remote = 0x0A000000 + number % 50 + 2, 0xC6120000 + int(random.integers(0, 60000))
                put(frame(0xCB007135, device, answer(number, remote), 17))
                ports = (20000 + number % 40000, 443)
                put(frame(device, remote, segment(ports, 999, 2, 0), 6))
                put(frame(remote, device, segment(ports[::-1], 999, 18, 0), 6))
                open_now.append([device, remote, ports[0], 1000, 1000, int(random.integers(5, 200))])
            flow = open_now[int(random.integers(0, len(open_now)))]
            device, remote, port, sent, received, left = flow
            if random.random() < 0.2:
                size = int(random.integers(40, 600))
                put(frame(device, remote, segment((port, 443), sent, 24, size), 6))
                flow[3] += size
            else:
                again = 1400 if random.random() < 0.01 and received > 3000 else 0
                put(frame(remote, device, segment((443, port), received - again, 24, 1400), 6))
                flow[4] += 1400 - again
                put(frame(device, remote, segment((port, 443), sent, 16, 0), 6))
            flow[5] = left - 1
            if left <= 0:
                put(frame(device, remote, segment((port, 443), flow[3], 17, 0), 6))
                put(frame(remote, device, segment((443, port), flow[4], 17, 0), 6))
                open_now.remove(flow)


def measured(command: list[str]) -> tuple[float, float, str]:
    """Wall seconds, CPU seconds, and output of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - begin, cpu, output


def main() -> None:
    """Make the capture, read it with each program, print one line each."""
    packets = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000
    with tempfile.TemporaryDirectory() as folder:
        small, path = Path(folder) / "small.pcap", Path(folder) / "big.pcap"
        write_capture(small, 1000)
        measured([sys.executable, "-c", READ, str(small)])
        write_capture(path, packets)
        print(f"capture: {packets:,} packets, {path.stat().st_size / 1e6:,.0f} MB")
        wall, cpu, output = measured([sys.executable, "-c", READ, str(path)])
        seconds, memory, rows = output.strip().split("\t")
        print(f"relaywatch: {packets / float(seconds):,.0f} packets/s, {wall:.2f} s wall in all, {cpu:.2f} CPU s")
        print(f"relaywatch: peak {int(memory) / 1024:,.0f} MiB, rows {rows}")
        for program in (
            ["capinfos", "-c"],
            ["tshark", "-n", "-T", "fields", "-e", "tcp.stream", "-e", "tcp.len", "-r"],
        ):
            if shutil.which(program[0]) is None:
                print(f"{program[0]}: not installed")
                continue
            other, other_cpu, _ = measured([*program, str(path)])
            print(
                f"{program[0]}: {packets / other:,.0f} packets/s, {other_cpu:.2f} CPU s; wall ratio {other / wall:.2f}"
            )


if __name__ == "__main__":
    main()
