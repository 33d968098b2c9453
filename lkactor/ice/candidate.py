"""ICE candidates: their SDP form (RFC 8839 section 5.1) and priorities (RFC 8445 5.1.2, RFC 6544 4.2)."""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from lkactor.errors import ProtocolViolation

TYPE_PREFERENCE = {"host": 126, "prflx": 110, "srflx": 100, "relay": 0}
MAX_TEXT = 1024
Transport = Literal["udp", "tcp"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """`type` is host, srflx, prflx or relay; `tcp_type` active, passive or so, for TCP only."""

    foundation: str
    component: int
    transport: Transport
    priority: int
    ip: str
    port: int
    type: str
    tcp_type: str | None = None

    @classmethod
    def parse(cls, text: str) -> Candidate:
        """ "candidate:..." with or without "a=". Extension attributes are skipped.

        Raises ProtocolViolation("candidate....").
        """
        text = text.strip().removeprefix("a=")
        if not text.startswith("candidate:") or len(text) > MAX_TEXT:
            raise ProtocolViolation("candidate.malformed")
        parts = text[len("candidate:") :].split()
        if len(parts) < 8 or parts[6] != "typ":
            raise ProtocolViolation("candidate.malformed")
        transport = parts[2].lower()
        if transport not in ("udp", "tcp"):
            raise ProtocolViolation("candidate.transport")
        if not all(part.isascii() and part.isdigit() and len(part) < 11 for part in (parts[1], parts[3], parts[5])):
            raise ProtocolViolation("candidate.number")
        port = int(parts[5])
        if port > 65535 or parts[7] not in TYPE_PREFERENCE:
            raise ProtocolViolation("candidate.malformed")
        try:
            # Names (mDNS ".local" above all) are not resolved: the peer's checks tell us its address.
            ip = str(ipaddress.ip_address(parts[4].partition("%")[0]))
        except ValueError:
            raise ProtocolViolation("candidate.name") from None
        extra = dict(zip(parts[8::2], parts[9::2], strict=False))
        return cls(
            foundation=parts[0],
            component=int(parts[1]),
            transport=cast(Transport, transport),
            priority=int(parts[3]),
            ip=ip,
            port=port,
            type=parts[7],
            tcp_type=extra.get("tcptype") if transport == "tcp" else None,
        )

    def to_sdp(self) -> str:
        """ "candidate:..."."""
        text = (
            f"candidate:{self.foundation} {self.component} {self.transport} {self.priority} "
            f"{self.ip} {self.port} typ {self.type}"
        )
        return f"{text} tcptype {self.tcp_type}" if self.tcp_type else text


def priority(type: str, local_preference: int, component: int = 1) -> int:
    """RFC 8445 section 5.1.2.1."""
    return (TYPE_PREFERENCE[type] << 24) | (local_preference << 8) | (256 - component)


def host_candidates(ips: Sequence[str], udp_port: int | None, tcp_port: int | None) -> list[Candidate]:
    """Our candidates: one UDP and one passive TCP candidate for each address, UDP preferred, IPv6 before IPv4
    of the same place in the list (RFC 8421)."""
    candidates = []
    for index, ip in enumerate(ips):
        for transport, port in (("udp", udp_port), ("tcp", tcp_port)):
            if port is None:
                continue
            # RFC 6544 4.2: direction preference in the upper 3 bits of a TCP candidate; passive is 4 for host.
            base = 65535 if transport == "udp" else (4 << 13) | 8191
            candidates.append(
                Candidate(
                    foundation=str(zlib.crc32(f"host {ip} {transport}".encode())),
                    component=1,
                    transport=cast(Transport, transport),
                    priority=priority("host", base - index * 2 - (0 if ":" in ip else 1)),
                    ip=ip,
                    port=port,
                    type="host",
                    tcp_type="passive" if transport == "tcp" else None,
                )
            )
    return candidates
