"""The addresses of this machine, what STUN servers say of them, and so what clients are told (`lkactor.addressing`)."""

from __future__ import annotations

import ipaddress
import secrets
import socket

import trio

from lkactor.addressing import AddressPlan, Announced, External, LocalAddress, admit, make_plan, udp_ports
from lkactor.config import Config, ConfigError
from lkactor.errors import ProtocolViolation
from lkactor.wire import netlink, stun

__all__ = ["AddressPlan", "Announced", "local_addresses", "plan_addresses"]

DEFAULT_STUN_SERVERS = ("global.stun.twilio.com:3478", "stun.l.google.com:19302", "stun1.l.google.com:19302")
"""The reference's; asked only when `use_external_ip` is set and `stun_servers` is not."""
STUN_PORT = 3478
STUN_TIMEOUT, GRACE, VALIDATION_TIMEOUT, RETRY = 5.0, 1.0, 2.0, 0.5
"""Seconds: for the first answer, for the others after it (livekit-media 1.2), for our own packet, between two sends."""
NETLINK_TIMEOUT = 2.0


async def plan_addresses(config: Config) -> AddressPlan:
    """What is announced, and why. Raises ConfigError when that is nothing."""
    local = local_addresses()
    external = await _ask_stun(config, local) if config.rtc.use_external_ip else None
    if external is not None and external.problem and not config.rtc.node_ip:
        raise ConfigError(
            f"rtc.use_external_ip: {external.problem}; let UDP out, name servers that answer in rtc.stun_servers, or "
            "set rtc.node_ip to the public address"
        )
    plan = make_plan(config, local, external)
    if not plan.announced:
        dropped = "; ".join(f"{entry.ip} {entry.interface}: {entry.why}" for entry in plan.dropped)
        raise ConfigError(
            f"no address is left to announce to clients ({dropped}); widen these rules or set rtc.node_ip"
        )
    return plan


def local_addresses() -> list[LocalAddress]:
    """All addresses of all interfaces; first those that packets to anywhere leave by."""
    try:
        found = _by_netlink()
    except (OSError, AttributeError, ProtocolViolation):
        # Not Linux, or a sandbox without netlink: what routing knows is less, but true.
        found = [LocalAddress("lo", ip) for ip in ("127.0.0.1", "::1") if _usable(ip)]
    main = [ip for ip in (_source_address("192.0.2.1"), _source_address("2001:db8::1")) if ip is not None]
    found += [LocalAddress("", ip) for ip in main if ip not in {entry.ip for entry in found}]
    return sorted(found, key=lambda entry: entry.ip not in main)


def _by_netlink() -> list[LocalAddress]:
    """Raises OSError; AttributeError where there is no netlink; ProtocolViolation."""
    links: dict[int, netlink.Link] = {}
    addresses: list[netlink.LinkAddress] = []
    for kind in (netlink.RTM_GETLINK, netlink.RTM_GETADDR):
        for item in _dump(kind):
            if isinstance(item, netlink.Link):
                links[item.index] = item
            elif isinstance(item, netlink.LinkAddress):
                addresses.append(item)
    found = []
    for address in addresses:
        link = links.get(address.index)
        problem = "" if address.usable else "another machine may have it (duplicate address detection)"
        if link is None or not link.up:
            problem = "its interface is down"
        found.append(LocalAddress(link.name if link is not None else "", address.ip, problem))
    return found


def _dump(kind: int) -> list[netlink.Link | netlink.LinkAddress | netlink.DumpEnd]:
    found: list[netlink.Link | netlink.LinkAddress | netlink.DumpEnd] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(NETLINK_TIMEOUT)
        sock.send(netlink.dump_request(kind))
        while True:
            for item in netlink.parse_dump(sock.recv(1 << 20)):
                if isinstance(item, netlink.DumpEnd):
                    return found
                found.append(item)


def _source_address(probe: str) -> str | None:
    """The address that a packet to `probe` would leave by. Connecting a datagram socket sends nothing."""
    try:
        with socket.socket(_family(probe), socket.SOCK_DGRAM) as sock:
            sock.connect((probe, 9))
            ip = str(sock.getsockname()[0])
    except OSError:
        return None
    return None if ipaddress.ip_address(ip).is_loopback else ip


def _usable(ip: str) -> bool:
    try:
        with socket.socket(_family(ip), socket.SOCK_DGRAM) as sock:
            sock.bind((ip, 0))
    except OSError:
        return False
    return True


def _family(ip: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


# -- the public address, by STUN


async def _ask_stun(config: Config, local: list[LocalAddress]) -> External:
    """Asks from every address that may be announced, from the media port, as in the reference: so the answer holds for
    that port, and a packet of ours to it shows that it is open."""
    ports = udp_ports(config.rtc, 1)
    admitted, _ = admit(config, local)
    found = _Findings()
    names = config.rtc.stun_servers or DEFAULT_STUN_SERVERS
    with trio.move_on_after(STUN_TIMEOUT + VALIDATION_TIMEOUT) as found.scope:
        servers = await _resolve(names)
        async with trio.open_nursery() as nursery:
            for entry in admitted:
                nursery.start_soon(_ask_from, entry.ip, ports.first, servers, config, found)
    if found.addresses or found.unproven:
        return External(found.addresses, "" if found.addresses else found.unproven)
    return External({}, problem=f"no STUN server answered ({', '.join(names)})")


class _Findings:
    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}
        self.unproven = ""
        self.scope: trio.CancelScope

    def proven(self, local: str, public: str) -> None:
        """The first local address keeps a public one that several are seen as."""
        if public not in self.addresses.values():
            self.addresses[local] = public
        self.scope.deadline = min(self.scope.deadline, trio.current_time() + GRACE)


async def _resolve(names: tuple[str, ...]) -> list[tuple[str, int]]:
    """Names that do not resolve are left out."""
    servers: list[tuple[str, int]] = []

    async def one(name: str) -> None:
        host, port = _host_port(name)
        try:
            for info in await trio.socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
                servers.append((str(info[4][0]), port))
        except OSError:
            return

    with trio.move_on_after(STUN_TIMEOUT):
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(one, name)
    return servers


def _host_port(name: str) -> tuple[str, int]:
    """ "host", "host:port", "[v6]:port", with or without "stun:" in front."""
    text = name.removeprefix("stun:")
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or (":" in host and not host.endswith("]")):
        return text.strip("[]"), STUN_PORT
    return host.strip("[]"), int(port)


async def _ask_from(
    ip: str, port: int, servers: list[tuple[str, int]], config: Config, found: _Findings
) -> None:  # fmt: skip
    targets = [server for server in servers if (":" in server[0]) == (":" in ip)]
    with trio.socket.socket(_family(ip), socket.SOCK_DGRAM) as sock:
        try:
            await sock.bind((ip, port))
        except OSError:
            return  # Taken: opening the media ports will say so.
        public = await _mapped(sock, targets)
        if public is None:
            return
        if config.rtc.skip_external_ip_validation or public == ip or await _comes_back(sock, public):
            found.proven(ip, public)
        else:
            found.unproven = found.unproven or public


async def _mapped(sock: trio.socket.SocketType, servers: list[tuple[str, int]]) -> str | None:
    """The first answer of any; None after STUN_TIMEOUT."""
    transaction = secrets.token_bytes(12)
    request = stun.build(stun.BINDING_REQUEST, transaction, [], None)
    deadline = trio.current_time() + STUN_TIMEOUT
    while servers and trio.current_time() < deadline:
        for server in servers:
            await _send(sock, request, server)
        with trio.move_on_after(RETRY):
            while True:
                data, source = await _receive(sock)
                if source[:2] not in servers or data[8:20] != transaction:
                    continue
                try:
                    mapped = stun.parse(data).mapped_address
                except ProtocolViolation:
                    continue
                if mapped is not None:
                    return mapped[0]
    return None


async def _comes_back(sock: trio.socket.SocketType, public: str) -> bool:
    """Whether a packet to the public address and our port comes in at the local one."""
    token = secrets.token_bytes(16)
    port = sock.getsockname()[1]
    with trio.socket.socket(_family(public), socket.SOCK_DGRAM) as outside:
        deadline = trio.current_time() + VALIDATION_TIMEOUT
        while trio.current_time() < deadline:
            await _send(outside, token, (public, port))
            with trio.move_on_after(RETRY):
                while True:
                    data, _ = await _receive(sock)
                    if data == token:
                        return True
    return False


async def _send(sock: trio.socket.SocketType, data: bytes, to: tuple[str, int]) -> None:
    try:
        await sock.sendto(data, to)
    except OSError:
        # No route from this address to that server: another pair may have one.
        return


async def _receive(sock: trio.socket.SocketType) -> tuple[bytes, tuple[str, int]]:
    while True:
        try:
            data, source = await sock.recvfrom(2048)
        except OSError:  # an ICMP error of an earlier send
            continue
        return data, (str(source[0]), int(source[1]))
