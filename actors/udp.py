"""The UDP actor: drains the sockets raw and pushes datagrams onto the links of the transports.

Nothing here awaits per packet. The socket is drained until it is empty or the turn's budget is spent, then the loop
gets its turn: the transports run, each once for the whole burst.
"""

from __future__ import annotations

import socket

import trio

from actors.kernel import Actor
from actors.net import MAX_DATAGRAM, Ports

DATAGRAMS_PER_TURN = 128
"""About 2 ms of receive and forwarding work between two looks at the rest of the process."""


class UdpActor(Actor[object]):
    """Owns no state: sockets and routes live in `Ports`, so a restart loses nothing but the datagrams in flight."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def started(self) -> None:
        for sock in self._ports.udp:
            self.context.start_soon(self._read, sock)

    async def receive(self, message: object) -> object:
        raise TypeError(f"the UDP actor takes no messages, got {type(message).__name__}")

    async def _read(self, sock: socket.socket) -> None:
        while True:
            await trio.lowlevel.wait_readable(sock)
            self._drain(sock, trio.current_time())

    def _drain(self, sock: socket.socket, now: float) -> None:
        ports = self._ports
        impairment = ports.impairment
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                data, sockaddr = sock.recvfrom(MAX_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                # An ICMP error of an earlier send (ECONNREFUSED and friends) surfaces on the next receive.
                ports.counters.count("udp.receive_error")
                continue
            ports.packets_in += 1
            ports.bytes_in += len(data)
            route = ports.route(sock, sockaddr, data)
            if route is None:
                continue
            if impairment is None:
                route.link.push((data, route.address, now))
            else:
                impairment.receive(route.link, (data, route.address, now))
