"""What `lkactor doctor` asks the media ports: a binding request to every candidate of the server's offer."""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from lkactor.errors import ProtocolViolation
from lkactor.ice import Candidate
from lkactor.ice.framing import frame
from lkactor.turn.message import Peer
from lkactor.wire import stun

TIMEOUT = 3.0
TRIES = 3


@dataclass(frozen=True, slots=True)
class Check:
    """One hop. `fix` is empty when it is `ok`."""

    hop: str
    ok: bool
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """What of the server's description is needed to speak to its media ports."""

    ufrag: str
    pwd: str
    candidates: tuple[Candidate, ...]

    def request(self) -> bytes:
        username = f"{self.ufrag}:doctor".encode()
        return stun.build(stun.BINDING_REQUEST, secrets.token_bytes(12), [(stun.USERNAME, username)], self.pwd)


def read_offer(sdp: str) -> Offer:
    """Each candidate once."""
    lines = sdp.splitlines()

    def attribute(name: str) -> str:
        return next((line.partition(":")[2] for line in lines if line.startswith(f"a={name}:")), "")

    candidates: dict[tuple[str, str, int], Candidate] = {}
    for line in lines:
        with contextlib.suppress(ProtocolViolation):
            candidate = Candidate.parse(line)
            candidates[candidate.transport, candidate.ip, candidate.port] = candidate
    return Offer(attribute("ice-ufrag"), attribute("ice-pwd"), tuple(candidates.values()))


def media_checks(offer: Offer, host: str, why: Mapping[str, str]) -> tuple[list[Check], list[Peer]]:
    """A check for each candidate, and the UDP addresses that answer. `host` is the server's in the URL, `why` the
    server's reasons for its addresses, as far as it gives them."""
    checks, answering = [], []
    for candidate in offer.candidates:
        transport, ip, port = candidate.transport, candidate.ip, candidate.port
        ok = answers(offer, transport, ip, port)
        if ok and transport == "udp":
            answering.append(Peer(ip, port))
        about = "; ".join(filter(None, (_kind(ip), why.get(ip, ""))))
        detail = f"{ip}:{port} ({about}) {'answers' if ok else 'does not answer'}"
        checks.append(Check(f"{transport} media", ok, detail, "" if ok else _fix(offer, candidate, host)))
    if not offer.candidates:
        checks.append(Check("media", False, "the offer has no address", "set rtc.node_ip, or widen rtc.interfaces"))
    return checks, answering


def _fix(offer: Offer, candidate: Candidate, host: str) -> str:
    """The same port, asked at the address that HTTP came from, tells a wrong address from a closed port."""
    transport, port = candidate.transport, candidate.port
    for ip in _addresses(host):
        if ip != candidate.ip and answers(offer, transport, ip, port):
            return (
                f"{ip}:{port} answers: the server is there and not at {candidate.ip}; set rtc.node_ip: {ip}, or leave "
                "it out, or pass the port on from the announced address"
            )
    return (
        f"open {transport.upper()} port {port} in the firewalls between; if {candidate.ip} is not this server's, set "
        "rtc.node_ip"
    )


def answers(offer: Offer, transport: str, ip: str, port: int) -> bool:
    """Whether the server's ICE is there."""
    request = offer.request()
    return _udp_answers(request, ip, port) if transport == "udp" else _tcp_answers(request, ip, port)


def _udp_answers(request: bytes, ip: str, port: int) -> bool:
    try:
        with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(TIMEOUT / TRIES)
            for _ in range(TRIES):
                with contextlib.suppress(OSError):
                    sock.sendto(request, (ip, port))
                    data, _ = sock.recvfrom(2048)
                    if stun.is_stun(data) and data[8:20] == request[8:20]:
                        return True
    except OSError:  # no such family here
        return False
    return False


def _tcp_answers(request: bytes, ip: str, port: int) -> bool:
    try:
        with socket.create_connection((ip, port), timeout=TIMEOUT) as sock:
            sock.sendall(frame(request))
            return request[8:20] in sock.recv(2048)
    except OSError:
        return False


def _addresses(host: str) -> list[str]:
    try:
        return list(dict.fromkeys(str(info[4][0]) for info in socket.getaddrinfo(host, None)))
    except OSError:
        return []


def _kind(ip: str) -> str:
    address = ipaddress.ip_address(ip)
    if address.is_loopback:
        return "loopback: reached from the server's own machine only"
    return "private: reached from its own network only" if address.is_private else "public"
