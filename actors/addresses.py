"""Which addresses are announced to clients as candidates, and why: shown in the banner."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from lkactor.config import Config

LOOPBACK = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Announced:
    """`why` is one clause for people."""

    ip: str
    why: str


def announced_addresses(config: Config) -> tuple[Announced, ...]:
    """The node IP if it is set; else loopback for a server bound to it; else the addresses that routes go out by."""
    if config.rtc.node_ip:
        ips = [ip.strip() for ip in config.rtc.node_ip.split(",") if ip.strip()]
        return tuple(Announced(ip, "node_ip is set") for ip in ips)
    binds = config.bind_addresses
    if binds and all(ip in LOOPBACK for ip in binds):
        return tuple(Announced(ip, "the server is bound to loopback") for ip in binds if _usable(ip))
    out = [Announced(ip, f"bound to {ip}") for ip in binds if ip not in (*LOOPBACK, "0.0.0.0", "::") and _usable(ip)]
    if not out:
        for probe, family in (("192.0.2.1", socket.AF_INET), ("2001:db8::1", socket.AF_INET6)):
            ip = _source_address(probe, family)
            if ip is not None:
                out.append(Announced(ip, "the default route goes out by it"))
    if config.rtc.enable_loopback_candidate or not out:
        why = (
            "enable_loopback_candidate is set" if config.rtc.enable_loopback_candidate else "there is no other address"
        )
        out.append(Announced("127.0.0.1", why))
    return tuple(out)


def _source_address(probe: str, family: socket.AddressFamily) -> str | None:
    """The address that a packet to `probe` would leave by. Connecting a datagram socket sends nothing."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((probe, 9))
            ip = str(sock.getsockname()[0])
    except OSError:
        return None
    return None if ipaddress.ip_address(ip).is_loopback else ip


def _usable(ip: str) -> bool:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((ip, 0))
    except OSError:
        return False
    return True
