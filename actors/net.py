"""The ports of this process: raw sockets, the routes from an address to an actor's link, and the paths back.

Sending needs no actor: a `Path` is a socket and an address, and whoever was granted one writes to it directly.
Receiving is done by the `udp` and `tcp` actors, which drain the sockets and push onto the routes' links.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import socket
import struct
from collections.abc import Sequence
from enum import Enum, auto
from typing import Protocol

from actors.impairment import Impairment
from actors.kernel import MediaLink
from actors.pump import PlaneLock, PythonPump, Source
from actors.sending import BUFFER_FULL, CANNOT_SEGMENT, UDP_SEGMENT, sender_for
from lkactor.counters import Counters
from lkactor.ice import Candidate
from lkactor.plane import (
    OPENED,
    REST,
    RTCP,
    IngressCell,
    InlineIngress,
    InlineSocket,
    Plane,
    Pump,
    PythonPlane,
    SocketCell,
)
from lkactor.wire.address import Address
from lkactor.wire.stun import stun_ufrag

IP_MTU_DISCOVER, IP_PMTUDISC_WANT, IP_PMTUDISC_DO = 10, 1, 2
"""linux/in.h; the standard library has no names for them."""
GSO_MAX_SEGMENTS = 64
GSO_MAX_BYTES = 65000
SOCKET_BUFFER = 16 * 1024 * 1024
MAX_DATAGRAM = 2048
MAX_NUMBER = 0xFFFFFFFF
MAX_ROUTES_PER_UFRAG = 64
"""A peer may speak from several addresses (candidates, NAT rebinding), not from any number."""

_SOCKADDR_IN = struct.Struct("=H2s4s8x")
_SOCKADDR_IN6 = struct.Struct("=H2s4s16sI")
SockAddr = tuple[str, int] | tuple[str, int, int, int]


def not_bound(error: OSError, what: str, key: str) -> OSError:
    """The error again, with the port, the key that sets it, and what to do."""
    hint = {
        errno.EADDRINUSE: f"stop what has it (`ss -lnp` shows it), or set another {key}",
        errno.EADDRNOTAVAIL: "no interface has this address",
        errno.EACCES: f"ports below 1024 need privileges: set another {key}",
    }.get(error.errno or 0, f"set another {key}")
    return OSError(error.errno, f"{what}: {error.strerror}; {hint}")


def send_whole(sock: socket.socket) -> None:
    """Packets of an IPv4 socket go in one piece. They nearly always did; but that they must spares the system the
    identification of each one, an eighth of what sending costs here. `allow_fragments` takes it back."""
    if sock.family == socket.AF_INET:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)


def allow_fragments(sock: socket.socket) -> bool:
    """A route has turned up whose packets must be smaller than one of ours. False: they may be fragmented already."""
    if sock.family != socket.AF_INET or sock.getsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER) != IP_PMTUDISC_DO:
        return False
    sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_WANT)
    return True


def _sockaddr(packed: bytes) -> SockAddr:
    """As `recvfrom` would give it."""
    if len(packed) == _SOCKADDR_IN.size:
        _, port, ip = _SOCKADDR_IN.unpack(packed)
        return socket.inet_ntop(socket.AF_INET, ip), int.from_bytes(port, "big")
    _, port, flow, ip, scope = _SOCKADDR_IN6.unpack(packed)
    host = socket.inet_ntop(socket.AF_INET6, ip)
    if scope and host.startswith("fe80:"):
        host = f"{host}%{socket.if_indextoname(scope)}"
    return host, int.from_bytes(port, "big"), int.from_bytes(flow, "big"), scope


class OfThePlane(Enum):
    """On a transport's link, where else is the address: what the forwarding plane hands up."""

    OPENED = auto()
    """RTP, unprotected."""
    REST = auto()
    """Likewise, and all but some legs have it."""
    RTCP = auto()
    """RTCP, unprotected."""
    NEWS = auto()
    """No datagram: packets that were not handed up have left something to take."""


OF_THE_PLANE = {OPENED: OfThePlane.OPENED, REST: OfThePlane.REST, RTCP: OfThePlane.RTCP}


class Path(Protocol):
    """The way to one remote address. Writes never block: what does not fit is dropped and counted."""

    address: Address

    @property
    def closed(self) -> bool: ...

    def send(self, datagram: bytes | memoryview) -> None: ...

    def send_run(self, segments: Sequence[memoryview]) -> None: ...


class UdpPort:
    """One bound UDP socket and the routes of the datagrams that come in by it. `number` counts from 1."""

    __slots__ = ("family", "number", "port", "routes", "sock")

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self.family = sock.family
        self.port: int = sock.getsockname()[1]
        self.routes: dict[SockAddr, Route] = {}


class Session:
    """Where datagrams that name its ICE user name go, the port that its candidates name, 0 for any, and what the
    forwarding plane knows of it."""

    __slots__ = ("ingress", "link", "port")

    def __init__(self, link: MediaLink, port: int, ingress: IngressCell | None) -> None:
        self.link = link
        self.port = port
        self.ingress = ingress


class Route:
    """What the receive loop knows of one remote address: one dictionary look-up per datagram."""

    __slots__ = ("address", "ingress", "link", "number", "path", "ufrag")

    def __init__(self, address: Address, ufrag: str, link: MediaLink, path: UdpPath) -> None:
        self.address = address
        self.ingress: InlineIngress | None = None
        """Where RTP goes first, if it is Python's own thread that receives."""
        self.ufrag = ufrag
        self.link = link
        self.path = path
        self.number = 0
        """By which the forwarding plane names it."""


class UdpPath:
    """One remote UDP address on one of our sockets."""

    __slots__ = ("_gso", "_ports", "_socket", "address", "sockaddr")

    def __init__(self, sock: socket.socket, sockaddr: SockAddr, address: Address, ports: Ports) -> None:
        self._socket = sock
        self._ports = ports
        self._gso = True
        self.sockaddr = sockaddr
        self.address = address

    @property
    def closed(self) -> bool:
        """A datagram path cannot close."""
        return False

    @property
    def cell(self) -> SocketCell | None:
        """What the forwarding plane knows of our socket."""
        return self._ports.cells.get(self._socket)

    @property
    def packed(self) -> bytes:
        """The remote address as the kernel's `struct sockaddr`."""
        ip, port = self.sockaddr[:2]
        if len(self.sockaddr) == 2:
            return _SOCKADDR_IN.pack(socket.AF_INET, port.to_bytes(2, "big"), socket.inet_pton(socket.AF_INET, ip))
        flow, scope = self.sockaddr[2:]
        address = socket.inet_pton(socket.AF_INET6, ip.partition("%")[0])
        return _SOCKADDR_IN6.pack(socket.AF_INET6, port.to_bytes(2, "big"), flow.to_bytes(4, "big"), address, scope)

    def send(self, datagram: bytes | memoryview) -> None:
        impairment = self._ports.impairment
        if impairment is None:
            self._send(datagram)
        else:
            copy = bytes(datagram)
            impairment.send(lambda: self._send(copy), self.address)

    def _send(self, datagram: bytes | memoryview) -> None:
        try:
            self._ports.bytes_out += self._socket.sendto(datagram, self.sockaddr)
            self._ports.packets_out += 1
        except OSError as error:
            if error.errno == errno.EMSGSIZE and allow_fragments(self._socket):
                self._send(datagram)
            else:
                self._count(error, 1)

    def send_run(self, segments: Sequence[memoryview]) -> None:
        """Send datagrams in order; runs of equal size (the last may be shorter) share one system call."""
        if len(segments) == 1 or not self._gso or self._ports.impairment is not None:
            for segment in segments:
                self.send(segment)
            return
        start, total = 0, len(segments)
        while start < total:
            size = len(segments[start])
            end = start + 1
            limit = min(total, start + min(GSO_MAX_SEGMENTS, GSO_MAX_BYTES // max(1, size)))
            while end < limit and len(segments[end]) == size:
                end += 1
            if end < limit and len(segments[end]) < size:
                end += 1
            self._send_segments(segments[start:end], size)
            start = end

    def _send_segments(self, run: Sequence[memoryview], size: int) -> None:
        if len(run) == 1:
            self._send(run[0])
            return
        try:
            control = ((socket.SOL_UDP, UDP_SEGMENT, struct.pack("=H", size)),)
            self._ports.bytes_out += self._socket.sendmsg(run, control, 0, self.sockaddr)
            self._ports.packets_out += len(run)
        except OSError as error:
            if error.errno in (*CANNOT_SEGMENT, errno.EMSGSIZE):
                # Never try again on this path.
                self._gso = False
                for segment in run:
                    self._send(segment)
            else:
                self._count(error, len(run))

    def _count(self, error: OSError, n: int) -> None:
        if error.errno in BUFFER_FULL:
            self._ports.counters.count("udp.send_buffer_full", n)
        else:
            self._ports.counters.count("udp.send_error", n)


class Ports:
    """Sockets, routes and counters of the process. Created by the node before any actor, so that it survives them."""

    def __init__(self, plane: Plane | None = None) -> None:
        self.plane = plane or PythonPlane()
        if isinstance(self.plane, PythonPlane):
            self.plane.lock = PlaneLock()  # A thread runs packets through it.
        self.cells: dict[socket.socket, SocketCell] = {}
        self._collected: dict[SocketCell, tuple[int, int, int, int]] = {}
        self._received: dict[SocketCell, tuple[int, int, int]] = {}
        self._pump_dropped = 0
        self.udp: list[UdpPort] = []
        self.tcp: list[socket.socket] = []
        self.counters = Counters()
        self.packets_in = self.bytes_in = self.packets_out = self.bytes_out = 0
        """Datagrams of the UDP ports."""
        self.pump: Pump | None = None
        """What receives on the UDP sockets; None: the UDP actor does it itself."""
        self._sessions: dict[str, Session] = {}
        self._numbers: dict[int, Route] = {}
        self._last_number = 0
        self._by_ufrag: dict[str, list[tuple[UdpPort, SockAddr]]] = {}
        self._spread = 0
        self._tcp_paths: dict[Address, Path] = {}
        self._impairment: Impairment | None = None

    @property
    def impairment(self) -> Impairment | None:
        return self._impairment

    @impairment.setter
    def impairment(self, impairment: Impairment | None) -> None:
        """Faults are injected in Python, so everything goes that way meanwhile."""
        self._impairment = impairment
        for cell in self.cells.values():
            cell.divert = impairment is not None

    def collect(self) -> None:
        """Bring the counters up to date with what the forwarding plane has sent by itself."""
        for cell in self.cells.values():
            now = (cell.packets, cell.bytes, cell.buffer_full, cell.errors)
            packets, size, full, errors = (
                new - old for new, old in zip(now, self._collected.get(cell, (0, 0, 0, 0)), strict=True)
            )
            self._collected[cell] = now
            self.packets_out += packets
            self.bytes_out += size
            if full:
                self.counters.count("udp.send_buffer_full", full)
            if errors:
                self.counters.count("udp.send_error", errors)
            self._collect_received(cell)
        if self.pump is not None and self.pump.dropped > self._pump_dropped:
            self.counters.count("udp.actor_too_slow", self.pump.dropped - self._pump_dropped)
            self._pump_dropped = self.pump.dropped

    def _collect_received(self, cell: SocketCell) -> None:
        now = cell.received
        packets, size, errors = (new - old for new, old in zip(now, self._received.get(cell, (0, 0, 0)), strict=True))
        self._received[cell] = now
        self.packets_in += packets
        self.bytes_in += size
        if errors:
            self.counters.count("udp.receive_error", errors)

    # -- sockets ----------------------------------------------------------------------------------------------------

    def open_udp(self, addresses: Sequence[str], first: int, last: int = 0, count: int = 1) -> tuple[int, ...]:
        """Bind UDP sockets to the first `count` ports of `first` to `last` that are free on every address; port 0 picks
        one that all of them share. Returns the ports. Raises OSError when none is free."""
        ports: list[int] = []
        for candidate in range(first, max(first, last) + 1):
            if len(ports) == count:
                break
            try:
                ports.append(self._open_udp_port(addresses, candidate))
            except OSError:
                if candidate >= last and not ports:
                    raise
        return tuple(ports)

    def _open_udp_port(self, addresses: Sequence[str], port: int) -> int:
        """Raises OSError; nothing is left open then."""
        opened: list[socket.socket] = []
        try:
            for ip in addresses:
                sock = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM)
                opened.append(sock)
                if ":" in ip:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                    sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
                send_whole(sock)
                sock.setblocking(False)
                sock.bind((ip, port))
                port = sock.getsockname()[1]
        except OSError:
            for sock in opened:
                sock.close()
            raise
        for sock in opened:
            self.udp.append(UdpPort(sock, len(self.udp) + 1))
            cell = self.cells[sock] = self.plane.socket(sock.fileno())
            cell.divert = self._impairment is not None
            if isinstance(cell, InlineSocket):
                cell.sender = sender_for(sock.fileno(), functools.partial(allow_fragments, sock))
        return port

    def open_tcp(self, addresses: Sequence[str], port: int) -> int:
        """Listen for ICE-TCP on each address; port 0 picks one that all of them share. Returns the port."""
        for ip in addresses:
            sock = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if ":" in ip:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setblocking(False)
            try:
                sock.bind((ip, port))
                sock.listen(1024)
            except OSError:
                sock.close()
                raise
            port = sock.getsockname()[1]
            self.tcp.append(sock)
        return port

    def start_pump(self, now: float) -> None:
        """Receive without Python if the forwarding plane can. `now`: of Trio's clock."""
        if isinstance(self.pump, PythonPump) and self.pump.failed:
            self.pump.stop()
            self.pump = None
            self.counters.count("udp.thread_failed")
        if self.pump is not None or not self.udp:
            return
        try:
            self.pump = self._python_pump(now) or self.plane.pump([self.cells[udp.sock] for udp in self.udp], now)
            if self.pump is not None:
                self.pump.start()
        except OSError:
            self.pump = None
            self.counters.count("udp.no_thread")

    def _python_pump(self, now: float) -> PythonPump | None:
        """For a plane that has no thread of its own. Raises OSError."""
        plane = self.plane
        if not isinstance(plane, PythonPlane) or plane.intake is None or not isinstance(plane.lock, PlaneLock):
            return None
        sources = [
            Source(udp.sock, cell, udp.routes)
            for udp in self.udp
            if isinstance(cell := self.cells[udp.sock], InlineSocket)
        ]
        return PythonPump(sources, plane.intake, plane.lock, now)

    def close(self) -> None:
        if self.pump is not None:
            self.pump.stop()
            self.pump = None
        for sock in (*(udp.sock for udp in self.udp), *self.tcp):
            sock.close()
        self.udp.clear()
        self.cells.clear()
        self.tcp.clear()
        self._sessions.clear()
        self._by_ufrag.clear()
        self._numbers.clear()

    # -- routes -----------------------------------------------------------------------------------------------------

    def spread(self, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """Those of one session: the UDP ports of the process take turns."""
        ports = list(dict.fromkeys(candidate.port for candidate in candidates if candidate.transport == "udp"))
        if len(ports) < 2:
            return tuple(candidates)
        self._spread += 1
        port = ports[self._spread % len(ports)]
        return tuple(candidate for candidate in candidates if candidate.transport == "tcp" or candidate.port == port)

    @property
    def bound(self) -> int:
        """ICE user names that datagrams can find somebody by."""
        return len(self._sessions)

    def bind(self, ufrag: str, link: MediaLink, port: int = 0, ingress: IngressCell | None = None) -> None:
        """Datagrams that name `ufrag` go to `link`; `port` is the UDP port of that session's candidates."""
        self._sessions[ufrag] = Session(link, port, ingress)

    def unbind(self, ufrag: str) -> None:
        self._sessions.pop(ufrag, None)
        for udp, sockaddr in self._by_ufrag.pop(ufrag, ()):
            route = udp.routes.get(sockaddr)
            if route is not None and route.ufrag == ufrag:
                del udp.routes[sockaddr]
                self._numbers.pop(route.number, None)
                if udp.sock in self.cells:
                    self.cells[udp.sock].set_route(route.path.packed, 0, None)

    def add_tcp(self, path: Path) -> None:
        """A framed connection that has named its session."""
        self._tcp_paths[path.address] = path

    def forget_tcp(self, address: Address) -> None:
        self._tcp_paths.pop(address, None)

    def path_to(self, address: Address, ufrag: str) -> Path | None:
        """A path to `address`, or None. A TCP address has one as long as its connection lives.

        A UDP address may not have spoken yet: a remote candidate to check. It becomes a route, for the answer to our
        check carries no USERNAME to find the session by.
        """
        if address.transport == "tcp":
            return self._tcp_paths.get(address)
        family = socket.AF_INET6 if ":" in address.ip else socket.AF_INET
        session = self._sessions.get(ufrag)
        if 0 < address.local <= len(self.udp):
            udp: UdpPort | None = self.udp[address.local - 1]
        else:
            udp = self._own_port(family, session.port if session is not None else 0)
        if udp is None:
            return None
        sockaddr: SockAddr = (address.ip, address.port, 0, 0) if ":" in address.ip else (address.ip, address.port)
        route = udp.routes.get(sockaddr)
        if route is not None and route.ufrag == ufrag:
            return route.path
        path = UdpPath(udp.sock, sockaddr, address, self)
        if route is None and session is not None:
            self._add_route(udp, sockaddr, Route(address, ufrag, session.link, path))
        return path

    def _own_port(self, family: int, port: int) -> UdpPort | None:
        """The socket that a session's own checks leave by: the first of that port, for the first is on the address that
        the default route goes out by."""
        known = [udp for udp in self.udp if udp.family == family]
        return next((udp for udp in known if udp.port == port), known[0] if known else None)

    def link_of(self, first_packet: bytes) -> tuple[str, MediaLink] | None:
        """The session that a first packet names, or None (counted)."""
        ufrag = stun_ufrag(first_packet)
        if ufrag is None:
            self.counters.count("mux.not_stun_from_unknown")
            return None
        session = self._sessions.get(ufrag)
        if session is None:
            self.counters.count("mux.unknown_ufrag")
            return None
        return ufrag, session.link

    def route(self, udp: UdpPort, sockaddr: SockAddr, data: bytes) -> Route | None:
        """The route of one datagram. A binding request that names another session moves the address to it."""
        route = udp.routes.get(sockaddr)
        if route is None:
            return self._first_contact(udp, sockaddr, data)
        if data and data[0] < 4:
            ufrag = stun_ufrag(data)
            if ufrag is not None and ufrag != route.ufrag and ufrag in self._sessions:
                return self._first_contact(udp, sockaddr, data)
        return route

    def _first_contact(self, udp: UdpPort, sockaddr: SockAddr, data: bytes) -> Route | None:
        found = self.link_of(data)
        if found is None:
            return None
        ufrag, link = found
        own = self._own_port(udp.family, self._sessions[ufrag].port) is udp
        address = Address("udp", sockaddr[0], sockaddr[1], 0 if own else udp.number)
        route = Route(address, ufrag, link, UdpPath(udp.sock, sockaddr, address, self))
        return route if self._add_route(udp, sockaddr, route) else None

    def _add_route(self, udp: UdpPort, sockaddr: SockAddr, route: Route) -> bool:
        known = self._by_ufrag.setdefault(route.ufrag, [])
        if len(known) >= MAX_ROUTES_PER_UFRAG:
            self.counters.count("mux.too_many_routes")
            return False
        known.append((udp, sockaddr))
        before = udp.routes.get(sockaddr)
        if before is not None:
            self._numbers.pop(before.number, None)
        udp.routes[sockaddr] = route
        self._last_number = route.number = self._last_number % MAX_NUMBER + 1
        self._numbers[route.number] = route
        session = self._sessions.get(route.ufrag)
        ingress = session.ingress if session is not None else None
        route.ingress = ingress if isinstance(ingress, InlineIngress) else None
        self.cells[udp.sock].set_route(route.path.packed, route.number, ingress)
        return True

    # -- what the forwarding plane hands up -------------------------------------------------------------------------

    def take(self, pump: Pump, most: int) -> bool:
        """Push up to `most` datagrams of what waits on the links they belong to. False: there is nothing left."""
        numbers = self._numbers
        for socket_number, number, address, data, arrival, opened in pump.take(most):
            route = numbers.get(number)
            if route is None or data[0] < 4:
                sockaddr = _sockaddr(address) if isinstance(address, bytes) else address
                route = self.route(self.udp[socket_number], sockaddr, data)
                if route is None:
                    continue
            self._push(route, data, arrival, opened)
        return pump.has_more

    def _push(self, route: Route, data: bytes, arrival: float, opened: int) -> None:
        if opened:
            route.link.push((data, OF_THE_PLANE[opened], arrival))
        elif self._impairment is None:
            route.link.push((data, route.address, arrival))
        else:
            self._impairment.receive(route.link, (data, route.address, arrival))
