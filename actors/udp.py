"""The UDP actor: pushes datagrams onto the links of the transports.

Where the forwarding plane receives by itself (`Ports.pump`), they are what it has left to Python. Else this actor
drains the sockets raw, and hands what known peers send to the plane first (`Ports.intake`). Nothing here awaits per
packet: the work of one turn is bounded, and still in the same turn the transports run, each once for the whole burst,
and after them the tracks that they fed.
"""

from __future__ import annotations

from time import perf_counter

import trio

from actors.kernel import Actor
from actors.net import MAX_DATAGRAM, OF_THE_PLANE, Ports, UdpPort
from lkactor.plane import Intake, Pump

TURN = 0.003
"""Seconds of receive and forwarding work between two looks at the rest of the process."""
FEWEST, MOST = 8, 128
"""Datagrams per turn: fewer would cost more in turns than they save in delay."""
LOOK = 0.1
"""Seconds between two looks at what packets that Python never saw have left: feedback is due about so often."""


class UdpActor(Actor[object]):
    """Owns no state: sockets and routes live in `Ports`, so a restart loses nothing but the datagrams in flight."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._cost = TURN / MOST
        """Seconds per datagram, all that follows from it included; the average of the last turns."""
        self._news = trio.Event()

    async def started(self) -> None:
        self._ports.start_pump(trio.current_time())
        pump = self._ports.pump
        if pump is not None:
            self.context.start_soon(self._take, pump)
            self.context.start_soon(self._look, pump)
        else:
            for udp in self._ports.udp:
                self.context.start_soon(self._read, udp)
            if self._ports.intake is not None:
                self.context.start_soon(self._look, self._ports.intake)

    async def receive(self, message: object) -> object:
        raise TypeError(f"the UDP actor takes no messages, got {type(message).__name__}")

    # -- what the forwarding plane hands up -------------------------------------------------------------------------

    async def _take(self, pump: Pump) -> None:
        while True:
            await trio.lowlevel.wait_readable(pump.fd)
            with self.context.media_turn:
                self._ports.take(pump)
            if not pump.rings_with_news:
                self._news.set()

    async def _look(self, plane: Pump | Intake) -> None:
        while True:
            with self.context.media_turn:
                more = plane.tell_news()
            if more:
                await trio.sleep(LOOK)
            else:
                await self._news.wait()
                self._news = trio.Event()

    # -- without it -------------------------------------------------------------------------------------------------

    async def _read(self, udp: UdpPort) -> None:
        intake, turn = self._ports.intake, self.context.media_turn
        while True:
            await trio.lowlevel.wait_readable(udp.sock)
            now, began = trio.current_time(), perf_counter()
            with turn:
                drained = self._drain(udp, now, max(FEWEST, min(MOST, int(TURN / self._cost))))
                if intake is not None:
                    intake.flush(now - began, perf_counter)
                    if intake.news:
                        self._news.set()
            if drained:
                spent = (perf_counter() - began) / drained
                self._cost = max(1e-6, self._cost + (spent - self._cost) / 4)

    def _drain(self, udp: UdpPort, now: float, count: int) -> int:
        """Push up to `count` datagrams on; how many there were."""
        ports, receive, routes = self._ports, udp.sock.recvfrom, udp.routes
        impairment = ports.impairment
        for drained in range(count):
            try:
                data, sockaddr = receive(MAX_DATAGRAM)
            except BlockingIOError:
                return drained
            except OSError:
                # An ICMP error of an earlier send (ECONNREFUSED and friends) surfaces on the next receive.
                ports.counters.count("udp.receive_error")
                continue
            ports.packets_in += 1
            ports.bytes_in += len(data)
            route = routes.get(sockaddr)
            if route is not None and impairment is None and route.ingress is not None and _is_rtp(data):
                if route.ingress.ready:
                    opened = route.ingress.receive(data, now)
                    if opened is not None:
                        route.link.push((opened[0], OF_THE_PLANE[opened[1]], now))
                    continue
            else:
                route = ports.route(udp, sockaddr, data)
                if route is None:
                    continue
            if impairment is None:
                route.link.push((data, route.address, now))
            else:
                impairment.receive(route.link, (data, route.address, now))
        return count


def _is_rtp(data: bytes) -> bool:
    """RFC 7983 section 7, RFC 5761 section 4."""
    return len(data) > 11 and data[0] >> 6 == 2 and not 192 <= data[1] <= 223
