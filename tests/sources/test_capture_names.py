import numpy as np
import pytest
from capture_examples import client_hello, dns_answer
from hypothesis import given, settings
from hypothesis import strategies as st

from relaywatch.sources.capture_names import dns_answers, host_name, http_host, tls_server_name


def mapped(address: str) -> tuple[int, int]:
    return 0, 0xFFFF_0000_0000 | int.from_bytes(bytes(map(int, address.split("."))), "big")


def test_each_address_of_an_answer_gets_the_name_asked_for() -> None:
    found = dns_answers(dns_answer("Shop.Example", "198.51.100.7", "2001:db8::5"))
    assert found == [("shop.example", mapped("198.51.100.7")), ("shop.example", (0x20010DB8 << 32, 5))]


def test_an_answer_cut_by_the_snaplen_gives_what_came_before_the_cut() -> None:
    whole = dns_answer("a.example", "198.51.100.7", "198.51.100.8")
    assert dns_answers(whole[:-3]) == [("a.example", mapped("198.51.100.7"))]


def test_queries_and_noise_name_nothing() -> None:
    query = bytearray(dns_answer("a.example", "198.51.100.7"))
    query[2] &= 0x7F
    assert dns_answers(bytes(query)) == []
    assert dns_answers(b"\xff" * 40) == []


def test_a_client_hello_names_its_server_only_when_whole() -> None:
    hello = client_hello("Api.Shop.example", padding=1500)
    assert tls_server_name(hello) == "api.shop.example"
    assert tls_server_name(hello[:-1]) is None


@pytest.mark.parametrize("name", ["", "<script>", "a b", "x" * 300, "line\nbreak", "-"])
def test_what_is_no_host_name_is_not_taken_for_one(name: str) -> None:
    assert host_name(name) is None
    assert tls_server_name(client_hello(name)) is None


def test_host_names_the_origin_and_never_a_proxy() -> None:
    assert http_host(b"GET / HTTP/1.1\r\nAccept: */*\r\nhost: shop.example:8080\r\n\r\n") == "shop.example"
    assert http_host(b"CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n") is None
    assert http_host(b"GET http://other.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n") is None
    assert http_host(b"GET / HTTP/1.1\r\nHost: shop.exam") is None


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([dns_answer("a.example", "198.51.100.7"), client_hello("a.example")]), st.data())
def test_damaged_messages_never_raise(message: bytes, data: st.DataObject) -> None:
    damaged = np.frombuffer(message, np.uint8).copy()
    for _ in range(data.draw(st.integers(0, 5))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    content = damaged[: data.draw(st.integers(0, len(damaged)))].tobytes()
    for name, _ in dns_answers(content):
        assert host_name(name) == name
    assert tls_server_name(content) in (None, host_name(tls_server_name(content) or ""))
