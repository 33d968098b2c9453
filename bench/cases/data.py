"""B5 reliable data: IN_FLIGHT messages under way, one sender, `n` receivers."""

from __future__ import annotations

import trio
from load.peers import Member
from load.servers import Server
from load.window import Row, Window, crowd, join_all

from lkactor.peer import PeerEvent
from lkactor.sctp import MessageReceived

IN_FLIGHT = 64
WARM_UP = 1.0
KIB, LARGE = 1024, 15_000


class _Receiver:
    """Counts what arrives at one member."""

    def __init__(self, member: Member, arrived: trio.Event) -> None:
        self.messages = 0
        self.arrived = arrived
        member.subscriber.on_event = self._on_event

    def _on_event(self, event: PeerEvent) -> None:
        if isinstance(event, MessageReceived):
            self.messages += 1
            self.arrived.set()


async def data(server: Server, n: int, seconds: float, size: int = KIB) -> Row:
    """Messages of 1 KiB."""
    async with crowd() as (pool, nursery):
        room = f"b5-{size}-{n}"
        sender = Member(server, pool, room, "sender", data=True, subscribe=False)
        members = [Member(server, pool, room, f"receiver-{i}") for i in range(n)]
        await join_all([sender, *members], nursery)
        flow = _Flow(sender, members, size)
        with trio.fail_after(30):
            await flow.until_heard()
        nursery.start_soon(flow.run)
        await trio.sleep(WARM_UP)
        before, window = flow.delivered(), Window(server)
        await trio.sleep(seconds)
        delivered, used = flow.delivered() - before, window.end()
        cpu, elapsed = used.pop("cpu"), used.pop("elapsed")
    return {
        "messages_per_second": round(delivered / elapsed),
        "mb_per_second": round(delivered * size / elapsed / 1e6, 2),
        "cpu_us_per_message": round(cpu / delivered * 1e6, 1),
        **used,
    }


async def data_large(server: Server, n: int, seconds: float) -> Row:
    """Messages of 15 kB."""
    return await data(server, n, seconds, LARGE)


class _Flow:
    """Sends while the slowest receiver is less than IN_FLIGHT behind."""

    def __init__(self, sender: Member, members: list[Member], size: int) -> None:
        self._sender, self._payload, self._sent = sender, bytes(size), 0
        self._arrived = trio.Event()
        self._receivers = [_Receiver(member, self._arrived) for member in members]

    def delivered(self) -> int:
        return sum(receiver.messages for receiver in self._receivers)

    async def until_heard(self) -> None:
        """Everybody's channel is open once a first message has come through it."""
        while not all(receiver.messages for receiver in self._receivers):
            self._send(1)
            await trio.sleep(0.1)
        self._sent = 0
        await trio.sleep(0.2)
        for receiver in self._receivers:
            receiver.messages = 0

    async def run(self) -> None:
        while True:
            self._send(IN_FLIGHT - (self._sent - min(receiver.messages for receiver in self._receivers)))
            await self._arrived.wait()
            self._arrived = trio.Event()
            for receiver in self._receivers:
                receiver.arrived = self._arrived

    def _send(self, count: int) -> None:
        for _ in range(count):
            self._sender.send_reliable(self._payload)
            self._sent += 1
        if count > 0 and self._sender.publisher is not None:
            self._sender.publisher.flush()
