"""One signal connection: the WebSocket's two directions around a participant's mailbox.

Nothing blocks a participant: what it sends waits in a bounded queue, and a client that does not read it is cut off.
"""

from __future__ import annotations

import itertools
import math

import trio
from livekit.protocol import models, rtc

from actors.front.types import ClosedByPeer, WebSocket
from actors.kernel import ActorDead, ActorRef, MailboxFull
from actors.messages.participant import ParticipantMessage, SignalLost, SignalReceived
from actors.services import Services
from lkactor.errors import ProtocolViolation
from lkactor.signal import responses
from lkactor.signal.codec import decode_request
from lkactor.signal.outgoing import Outgoing

QUEUE = 200
"""Responses that may wait for the client (livekit-surface 1.7)."""
FLUSH_TIMEOUT = 0.5
MALFORMED_LIMIT = 20
"""Frames that are no signal message, before the connection is closed."""

connection_numbers = itertools.count(1)


class SessionSink:
    """The sending half that a participant holds. Implements `SignalSink`."""

    def __init__(self) -> None:
        self._send, self.receive = trio.open_memory_channel[Outgoing](QUEUE)
        self.left = False
        """A farewell was said, or the participant chose to go without one."""

    def send(self, response: Outgoing) -> bool:
        if response.kind == "leave":
            self.left = True
        try:
            self._send.send_nowait(response)
        except trio.WouldBlock:
            self.close()
            return False
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            return False
        return True

    def close(self) -> None:
        self.left = True
        self._send.close()


class SignalConnection:
    """Runs one WebSocket until either side is done."""

    def __init__(
        self,
        websocket: WebSocket,
        sink: SessionSink,
        ref: ActorRef[ParticipantMessage],
        number: int,
        services: Services,
        protocol: int,
        *,
        text: bool = False,
    ) -> None:
        self._websocket = websocket
        self._sink = sink
        self._ref = ref
        self._number = number
        self._services = services
        self._protocol = protocol
        self._text = text
        """Until the client has spoken: binary, as the reference, unless it asked for JSON (`json=1`, ours)."""

    async def run(self, first: Outgoing) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, nursery.cancel_scope)
            nursery.start_soon(self._watch)
            nursery.start_soon(self._write, first, nursery.cancel_scope)
        with trio.move_on_after(FLUSH_TIMEOUT, shield=True):
            await self._websocket.close(1000)
            await self._websocket.drain()
        try:
            self._ref.tell(SignalLost(self._number))
        except (ActorDead, MailboxFull):
            pass  # It is gone, or so far behind that its timers decide.

    async def _write(self, first: Outgoing, scope: trio.CancelScope) -> None:
        """Ends when the participant closed the sink and everything in it is written."""
        counts = self._services.metrics.signal
        try:
            await self._websocket.send(first.encoded(text=self._text))
            counts.responses += 1
            async for response in self._sink.receive:
                await self._websocket.send(response.encoded(text=self._text))
                counts.responses += 1
        except ClosedByPeer:
            pass
        scope.cancel()

    async def _read(self, scope: trio.CancelScope) -> None:
        malformed, counts = 0, self._services.metrics.signal
        limit = self._services.config.limit.signal_message_size_limit
        while True:
            try:
                frame = await self._websocket.receive()
            except ClosedByPeer:
                break
            if len(frame) > limit:
                with trio.move_on_after(FLUSH_TIMEOUT):
                    await self._websocket.close(1009)
                break
            self._text = isinstance(frame, str)
            try:
                request = decode_request(frame)
                self._ref.tell(SignalReceived(self._number, request))
                counts.requests += 1
            except ProtocolViolation as violation:
                counts.bad_requests += 1
                self._services.ports.counters.count(violation.reason)
                malformed += 1
                if malformed > MALFORMED_LIMIT:
                    break
            except MailboxFull:
                self._services.ports.counters.count("signal.queue_full")
                break
            except ActorDead:
                break
        if not self._sink.left:
            scope.cancel()
        else:
            with trio.move_on_after(FLUSH_TIMEOUT):
                await trio.sleep(math.inf)
            scope.cancel()

    async def _watch(self) -> None:
        """A participant that died without a farewell: its client is to start over (design section 3)."""
        await self._ref.wait_closed()
        if not self._sink.left:
            reason = models.DisconnectReason.STATE_MISMATCH
            self._sink.send(Outgoing(responses.leave(reason, rtc.LeaveRequest.Action.RECONNECT, self._protocol)))
        self._sink.close()
