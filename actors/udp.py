"""The UDP actor: pushes datagrams onto the links of the transports.

Where the forwarding plane receives by itself (`Ports.pump`), they are what it has left to the actors. Else this actor
drains the sockets raw. Nothing here awaits per packet: the work of one turn is bounded, and still in the same turn the
transports run, each once for the whole burst, and after them the tracks that they fed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio

from actors.kernel import Actor
from actors.net import MAX_DATAGRAM, Ports, UdpPort
from lkactor.plane import Pump

TURN = 0.002
"""Seconds of receive and forwarding work between two looks at the rest of the process."""
BURST, MOST = 4, 128
"""Datagrams at once and per turn. What one costs is not known before: a check next to nothing, a packet behind a gap
that goes to a hundred legs a third of a millisecond. Fewer would cost more in turns than they save in delay."""
LOOK = 0.1
"""Seconds between two looks at what packets that Python never saw have left: feedback is due about so often."""


class UdpActor(Actor[object]):
    """Owns no state: sockets and routes live in `Ports`, so a restart loses nothing but the datagrams in flight."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
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

    async def receive(self, message: object) -> object:
        raise TypeError(f"the UDP actor takes no messages, got {type(message).__name__}")

    def _turn(self, drain: Callable[[int], bool]) -> None:
        """Let `drain` push datagrams on, burst by burst, until TURN is over with all that follows from them. False:
        there are no more."""
        end = trio.current_time() + TURN
        for _ in range(MOST // BURST):
            with self.context.media_turn:
                more = drain(BURST)
            if not more or trio.current_time() >= end:
                return

    # -- what the forwarding plane hands up -------------------------------------------------------------------------

    async def _take(self, pump: Pump) -> None:
        while True:
            await trio.lowlevel.wait_readable(pump.fd)
            self._take_turn(pump)
            if pump.has_losses:
                with self.context.media_turn:
                    pump.tell_news()
            if not pump.rings_with_news:
                self._news.set()

    def _take_turn(self, pump: Pump) -> None:
        try:
            self._turn(partial(self._ports.take, pump))
        finally:
            if pump.has_more:
                pump.ring()

    async def _look(self, pump: Pump) -> None:
        while True:
            with self.context.media_turn:
                more = pump.tell_news()
            self._take_turn(pump)  # What waits for others.
            if more:
                await trio.sleep(LOOK)
            else:
                await self._news.wait()
                self._news = trio.Event()

    # -- without it -------------------------------------------------------------------------------------------------

    async def _read(self, udp: UdpPort) -> None:
        while True:
            await trio.lowlevel.wait_readable(udp.sock)
            self._turn(partial(self._drain, udp, trio.current_time()))

    def _drain(self, udp: UdpPort, now: float, count: int) -> bool:
        """Push up to `count` datagrams on. False: there are no more."""
        ports, sock = self._ports, udp.sock
        impairment = ports.impairment
        for _ in range(count):
            try:
                data, sockaddr = sock.recvfrom(MAX_DATAGRAM)
            except BlockingIOError:
                return False
            except OSError:
                # An ICMP error of an earlier send (ECONNREFUSED and friends) surfaces on the next receive.
                ports.counters.count("udp.receive_error")
                continue
            ports.packets_in += 1
            ports.bytes_in += len(data)
            route = ports.route(udp, sockaddr, data)
            if route is None:
                continue
            if impairment is None:
                route.link.push((data, route.address, now))
            else:
                impairment.receive(route.link, (data, route.address, now))
        return True
