"""Who the other side of a flow is: TLS server names and HTTP hosts of its own, else earlier DNS answers.

Sources: RFC 1035 and 3596 (answers), RFC 6066 section 3 (server name), RFC 9112 section 3.2 (Host). All content is
hostile: sizes are bounded, and what a parser rejects names nothing.
"""

from __future__ import annotations

import re
import struct
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import dns.exception
import dns.message
import dns.rdatatype
import dpkt

from relaywatch.sources.capture_columns import EventKind, Octets, Record, Records
from relaywatch.sources.capture_decode import TCP
from relaywatch.sources.capture_flows import NAMED_BYTES

ANSWERS: Final = 200_000
OPENINGS: Final = 4_096
_ANSWERS_PER_MESSAGE: Final = 64
_HOST: Final = re.compile(rb"\r?\nHost:[ \t]*([^\r\n]{1,300}?)[ \t]*\r?\n", re.IGNORECASE)
_ORIGIN_REQUEST: Final = re.compile(rb"[A-Z]{3,10} (?:/|\*)")
_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")

Address = tuple[int, int]
ANY: Final[Address] = (0, 0)


@dataclass(slots=True)
class HostNames:
    """Names of flows, in the order of their packets.

    one_device: every answer is the one device's; else an answer counts for the address that received it.
    """

    one_device: bool
    observed: dict[int, str] = field(default_factory=dict)
    inferred: dict[int, str] = field(default_factory=dict)
    _answers: OrderedDict[tuple[Address, Address], str] = field(default_factory=OrderedDict)
    _openings: OrderedDict[int, dict[int, bytes]] = field(default_factory=OrderedDict)

    def learn(self, octets: Octets, packets: Records, events: Records) -> None:
        """Take in what the flow table asked to look at."""
        if not len(events):
            return
        chosen = packets[events["packet"]]
        source = list(zip(chosen["src_high"].tolist(), chosen["src_low"].tolist(), strict=True))
        target = list(zip(chosen["dst_high"].tolist(), chosen["dst_low"].tolist(), strict=True))
        kinds, flows, sent = events["kind"].tolist(), events["flow_id"].tolist(), events["from_src"].tolist()
        mirrored, offsets = events["mirrored"].tolist(), events["offset"].tolist()
        for i, kind in enumerate(kinds):
            if kind == EventKind.FLOW_STARTED:
                ends = (source[i], target[i]) if sent[i] else (target[i], source[i])
                self._infer(flows[i], *ends)
                if mirrored[i]:
                    self._infer(flows[i] + 1, ends[1], ends[0])
            elif kind == EventKind.DNS_MESSAGE:
                self._answered(_payload(octets, chosen[i]), target[i], over_tcp=chosen[i]["protocol"] == TCP)
            else:
                self._opened(flows[i], offsets[i], _payload(octets, chosen[i]))

    def _infer(self, flow: int, device: Address, remote: Address) -> None:
        key = (ANY if self.one_device else device, remote)
        name = self._answers.get(key)
        if name is not None:
            self._answers.move_to_end(key)
            self.inferred[flow] = name

    def _answered(self, message: bytes, client: Address, *, over_tcp: bool) -> None:
        if over_tcp:
            message = message[2:]
        device = ANY if self.one_device else client
        for name, address in dns_answers(message):
            self._answers[device, address] = name
            self._answers.move_to_end((device, address))
        while len(self._answers) > ANSWERS:
            self._answers.popitem(last=False)

    def _opened(self, flow: int, offset: int, piece: bytes) -> None:
        """Join the first payload of a connection; the flow table hands out a bounded number of pieces."""
        pieces = self._openings.setdefault(flow, {})
        pieces.setdefault(offset, piece)
        whole = _contiguous(pieces)
        name = tls_server_name(whole) if whole[:1] == b"\x16" else http_host(whole)
        if name:
            self.observed[flow] = name
            del self._openings[flow]
        elif len(self._openings) > OPENINGS:
            self._openings.popitem(last=False)

    def take(self, flow: int) -> tuple[str | None, bool]:
        """Give the name of a finished flow, and whether it was observed; the flow is then forgotten."""
        self._openings.pop(flow, None)
        guess = self.inferred.pop(flow, None)
        name = self.observed.pop(flow, None)
        return (name, True) if name else (guess, False)


def _payload(octets: Octets, packet: Record) -> bytes:
    end = min(int(packet["end"]), int(packet["payload"]) + int(packet["payload_bytes"]))
    return octets[int(packet["payload"]) : end].tobytes()


def _contiguous(pieces: dict[int, bytes]) -> bytes:
    whole = b""
    for offset in sorted(pieces):
        if offset > len(whole):
            break
        whole = whole[:offset] + pieces[offset]
    return whole[:NAMED_BYTES]


def dns_answers(content: bytes) -> list[tuple[str, Address]]:
    """(name asked for, address) of each A and AAAA answer; empty where the message is no answer or damaged.

    A message that the snaplen cut gives the answers before the cut.
    """
    if len(content) < 12 or not content[2] & 0x80 or content[6:8] == b"\0\0":
        return []
    try:
        message = dns.message.from_wire(content, ignore_trailing=True, continue_on_error=True, one_rr_per_rrset=True)
    except (dns.exception.DNSException, ValueError, IndexError, struct.error):
        return []
    if not message.question:
        return []
    name = host_name(message.question[0].name.to_text(omit_final_dot=True))
    if name is None:
        return []
    found = []
    for answer in message.answer[:_ANSWERS_PER_MESSAGE]:
        if answer.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
            found += [(name, _numbers(record.to_wire())) for record in answer]
    return found


def _numbers(wire: bytes | None) -> Address:
    content = wire or b""
    if len(content) == 4:
        return 0, 0xFFFF_0000_0000 | int.from_bytes(content, "big")
    return int.from_bytes(content[:8], "big"), int.from_bytes(content[8:], "big")


def tls_server_name(content: bytes) -> str | None:
    """Find the server name that a ClientHello asks for; None where it is incomplete, absent or damaged."""
    if len(content) < 9 or content[5] != 1 or len(content) < 5 + int.from_bytes(content[3:5], "big"):
        return None
    try:
        hello = dpkt.ssl.TLSHandshake(content[5 : 5 + int.from_bytes(content[3:5], "big")]).data
        names = next((data for kind, data in hello.extensions if kind == 0), b"")
        if len(names) < 5 or names[2] != 0:
            return None
        return host_name(names[5 : 5 + int.from_bytes(names[3:5], "big")].decode("ascii"))
    except (dpkt.Error, dpkt.ssl.SSL3Exception, struct.error, ValueError, IndexError, AttributeError, TypeError):
        return None


def http_host(content: bytes) -> str | None:
    """Find the Host of a request to an origin; None for a request to a proxy, whose Host names a third party."""
    if not _ORIGIN_REQUEST.match(content):
        return None
    found = _HOST.search(content[:NAMED_BYTES])
    return host_name(found.group(1).decode("latin-1").rsplit(":", 1)[0]) if found else None


def host_name(text: str) -> str | None:
    """`text` in lower case where it is a host name, else None."""
    return text.lower() if _NAME.fullmatch(text) else None
