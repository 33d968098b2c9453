"""Our association against aiortc's, in one process without sockets: another author's reading of the same RFCs.

aiortc runs on asyncio and reads the loop's clock for its timers; nothing here waits for them.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from aiortc import RTCDataChannel, RTCDataChannelParameters, RTCSctpTransport
from aiortc.rtcsctptransport import RTCSctpCapabilities

from lkactor.sctp import ChannelClosed, ChannelOpened, MessageReceived, SctpAssociation, SctpEvent


class FakeDtls:
    """What aiortc's SCTP wants of its DTLS transport."""

    state = "connected"

    def __init__(self, role: str) -> None:
        self._role = role
        self.out: deque[bytes] = deque()

    async def _send_data(self, data: bytes) -> None:
        self.out.append(data)

    def _register_data_receiver(self, receiver: Any) -> None: ...
    def _unregister_data_receiver(self, receiver: Any) -> None: ...


class Bridge:
    def __init__(self, aiortc_role: str) -> None:
        self.dtls = FakeDtls(aiortc_role)
        self.theirs: Any = RTCSctpTransport(self.dtls)  # type: ignore[arg-type]
        self.ours = SctpAssociation(rng=random.Random(1), dtls_role="server" if aiortc_role == "client" else "client")
        self.events: list[SctpEvent] = []
        self.channels: list[Any] = []
        self.received: list[Any] = []
        self.theirs.on("datachannel", self._on_channel)

    def _on_channel(self, channel: Any) -> None:
        self.channels.append(channel)
        channel.on("message", self.received.append)

    async def pump(self, until: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + 20
        while not until():
            now = loop.time()
            assert now < end, (self.ours.counters, self.ours.state, self.theirs._association_state)
            deadline = self.ours.next_timeout()
            if deadline is not None and deadline <= now:
                self.ours.handle_timeout(now)
            moved = False
            for packet in self.ours.datagrams_to_send(now):
                moved = True
                await self.theirs._handle_data(packet)
            while self.dtls.out:
                moved = True
                self.ours.receive_datagram(self.dtls.out.popleft(), loop.time())
            while (event := self.ours.next_event()) is not None:
                self.events.append(event)
            await asyncio.sleep(0 if moved else 0.001)

    async def start(self, *, ours: bool) -> None:
        await self.theirs.start(RTCSctpCapabilities(maxMessageSize=65536), 5000)
        if ours:
            self.ours.start(asyncio.get_running_loop().time())

    def got(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("ours", [False, True])
def test_both_open_channels_exchange_and_close(role: str, ours: bool) -> None:
    async def scenario() -> None:
        bridge = Bridge(role)
        await bridge.start(ours=ours)
        mine = bridge.ours.open_channel("mine", ordered=False, max_retransmits=0, protocol="p")
        now = asyncio.get_running_loop().time()
        big = random.Random(3).randbytes(60_000)
        await bridge.pump(lambda: bool(bridge.got(ChannelOpened)) and bool(bridge.channels))
        (channel,) = bridge.channels
        assert (channel.id, channel.label, channel.ordered, channel.maxRetransmits) == (mine, "mine", False, 0)
        for message, binary in ((b"abc", True), (b"", True), (b"text", False), (b"", False), (big, True)):
            bridge.ours.send(mine, message, binary=binary, now=now)
        await bridge.pump(lambda: len(bridge.received) == 5)
        assert bridge.received == [b"abc", b"", "text", "", big]

        theirs: Any = RTCDataChannel(bridge.theirs, RTCDataChannelParameters(label="theirs", ordered=True))
        await bridge.pump(lambda: theirs.readyState == "open")
        for text in (big, "hello", ""):
            theirs.send(text)
        await bridge.pump(lambda: len(bridge.got(MessageReceived)) == 3)
        assert [(m.data, m.binary) for m in bridge.got(MessageReceived)] == [
            (big, True),
            (b"hello", False),
            (b"", False),
        ]
        theirs.close()
        await bridge.pump(lambda: ChannelClosed(theirs.id) in bridge.events and theirs.readyState == "closed")
        bridge.ours.close_channel(mine, now)
        await bridge.pump(lambda: ChannelClosed(mine) in bridge.events and channel.readyState == "closed")
        await bridge.theirs.stop()
        await bridge.pump(lambda: type(bridge.events[-1]).__name__ == "SctpClosed")

    asyncio.run(scenario())
