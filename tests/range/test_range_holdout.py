"""The hold-out: what its labels call the relay's is what its programs open, and its agents lose no byte."""

import asyncio
import random
import threading

import pytest
from relay_range import casting
from relay_range.addresses import CUSTOMERS, PHONE
from relay_range.carry import at_phone, serve_customers
from relay_range.casting import Need, Stage
from relay_range.customers import Session, hop
from relay_range.holdout import HOLDOUT
from relay_range.journal import Journal, events
from relay_range.scenarios import ACCEPTED, SCENARIOS
from relay_range.stage import Job, Window, _declared

CONTENT = b"".join(number.to_bytes(4, "big") for number in range(100_000))
BY_PROGRAM = {scenario.program: scenario for scenario in SCENARIOS}


def staged(tmp_path, program):
    (tmp_path / "files").mkdir(exist_ok=True)
    certificate, key = tmp_path / "range.crt", tmp_path / "range.key"
    return Stage(BY_PROGRAM[program], tmp_path, 7, 4_000_000_123, 60.0, certificate, key)


@pytest.mark.parametrize("program", ["ncat", "proxy-chain", "mitmproxy", "haproxy", "stunnel", "trojan", "v2ray-mux"])
def test_the_port_that_the_label_calls_the_relays_is_the_one_the_phone_opens(tmp_path, program):
    cast = HOLDOUT[program].build(staged(tmp_path, program))
    assert BY_PROGRAM[program].topology == ACCEPTED
    assert cast.relay.ports == {launch.port for launch in cast.launches if launch.space == PHONE}
    # Customers come to that port, or to a client half of their own that knows the phone.
    clients = [launch for launch in cast.launches if launch.space == CUSTOMERS]
    assert {cast.entry.port} == (cast.relay.ports if not clients else {launch.port for launch in clients})


@pytest.mark.parametrize("program", ["v2ray-reverse", "quic", "http2", "asyncssh", "rotating", "websessions"])
def test_a_relay_that_dials_out_opens_no_port_on_the_phone(tmp_path, program):
    cast = HOLDOUT[program].build(staged(tmp_path, program))
    assert cast.relay.reverse
    assert not cast.relay.ports
    assert not any(launch.port for launch in cast.launches if launch.space == PHONE)


def test_a_relay_beside_a_real_program_is_labelled_as_mixed(tmp_path):
    stage = staged(tmp_path, "quic-browser")
    cast = HOLDOUT["quic-browser"].build(stage)
    assert "chromium" in {launch.argv[0] for launch in cast.launches}
    job = Job(stage.scenario, tmp_path, 60.0, 0, stage.certificate, stage.key, threading.Event())
    declared = _declared(job, stage, cast, Window(0.0, 60.0, {}, []))
    assert (declared["mixed_with_own_traffic"], declared["group"]) == (True, "holdout")


def test_an_npm_package_without_a_command_is_found_by_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(casting, "HOME", tmp_path)
    need = Need("npm", "proxy-chain", "proxy-chain")
    assert not need.met()
    (tmp_path / "npm/node_modules/proxy-chain").mkdir(parents=True)
    assert need.met()


async def pair(handler):
    """A server on loopback with this handler, and a connection to it."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    return server, port, await asyncio.open_connection("127.0.0.1", port)


async def echo(reader, writer):
    while data := await reader.read(4096):
        writer.write(data)
    writer.close()


@pytest.mark.parametrize("answers", [True, False])
def test_a_customer_reaches_the_target_through_gateway_and_phone_or_is_refused(tmp_path, monkeypatch, answers):
    monkeypatch.setattr("relay_range.carry.SOCKS_PORT", 0)

    async def scene():
        target, port, spare = await pair(echo)
        spare[1].close()
        if not answers:
            target.close()
            await target.wait_closed()
        phone, _, _ = await pair(lambda reader, writer: at_phone((reader, writer)))

        async def opened():
            link = await asyncio.open_connection("127.0.0.1", phone.sockets[0].getsockname()[1])
            return link, ("10.0.0.1", 5)

        gateway = await serve_customers(Journal(str(tmp_path / "gateway.journal")), opened)
        entry = gateway.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", entry)
        writer.write(b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big"))
        said = await reader.readexactly(2 + 10)
        writer.write(CONTENT if answers else b"")
        got = await reader.readexactly(len(CONTENT)) if answers else await reader.read(-1)
        writer.close()
        return said[3], got

    status, got = asyncio.run(asyncio.wait_for(scene(), 20))
    assert (status == 0) is answers
    assert got == (CONTENT if answers else b"")
    (event,) = events(tmp_path)
    assert event["links"] == [["10.0.0.1", 5]]


class Hasty(random.Random):
    """Chance that never makes a customer wait."""

    def expovariate(self, lambd=1.0):
        """No pause."""
        return 0.0


def test_several_sites_are_asked_for_over_one_connection_to_the_proxy():
    asked = []

    async def proxy(reader, writer):
        while head := await reader.readuntil(b"\r\n\r\n"):
            asked.append(head.split()[1].decode())
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    async def scene():
        _, _, stream = await pair(proxy)
        await hop(stream, Session("c:1", "first.example", 80, Hasty(3)))
        stream[1].close()

    asyncio.run(asyncio.wait_for(scene(), 20))
    hosts = {address.split("/")[2] for address in asked}
    assert len(asked) >= 2
    assert len(hosts) >= 2


def test_a_stream_in_http2_carries_more_than_a_window_both_ways_and_ends():
    pytest.importorskip("h2")
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from relay_range.carry_http2 import Connection

    served = set()

    def accept(pipe):
        served.add(asyncio.ensure_future(echo(pipe.reader, pipe)))

    async def scene():
        async def phone(reader, writer):
            await Connection(reader, writer, H2Connection(H2Configuration(client_side=False)), accept).run()

        _, _, stream = await pair(phone)
        gateway = Connection(*stream, H2Connection(H2Configuration(client_side=True)), lambda pipe: pipe.close())
        running = asyncio.ensure_future(gateway.run())
        await asyncio.sleep(0.1)
        pipe = gateway.open()
        pipe.write(CONTENT)
        pipe.close()
        got = await pipe.reader.read(-1)
        running.cancel()
        return got

    assert asyncio.run(asyncio.wait_for(scene(), 20)) == CONTENT


def test_every_hold_out_program_says_what_it_needs():
    for name, program in HOLDOUT.items():
        assert program.needs or name == "peer-video"
        assert all(need.registry in ("apt", "pip", "npm") for need in program.needs)
