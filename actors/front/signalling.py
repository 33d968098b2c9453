"""Signal connections without a general HTTP server: `/rtc` and `/rtc/v1` on the client's own socket.

Nearly every client sends a plain upgrade (`lkactor.signal.websocket`). Such a connection is one task, which reads; what
the participant says is written from the participant's own turn, as far as that and the socket allow
(`actors.front.writing`). The rest waits, and a client that lets too much wait is cut off. Other upgrades (HTTP/2, odd
ones) are served by `actors.front.sessions`.

    UPGRADE   what the participant says waits     -> accept: OPEN; deny: over
    OPEN      both directions                     -> close frame sent: CLOSING; peer gone: over
    CLOSING   what the peer says is not heard     -> its close frame, its end or FLUSH_TIMEOUT: over
"""

from __future__ import annotations

import socket
from email.utils import formatdate
from functools import partial
from typing import Any

import trio
from livekit.protocol import models, rtc

from actors.front.types import Request, Response
from actors.front.writing import LateWrites, StartSoon, Writer
from actors.kernel import ActorDead, ActorRef, MailboxFull
from actors.messages.participant import ParticipantMessage, SignalLost, SignalReceived
from actors.services import Services
from lkactor.errors import ProtocolViolation
from lkactor.signal import responses
from lkactor.signal.codec import decode_request
from lkactor.signal.outgoing import Outgoing
from lkactor.signal.websocket import (
    NORMAL,
    PONG,
    CloseReceived,
    MessageReader,
    PingReceived,
    Received,
    Upgrade,
    Violated,
    acceptance,
    close_frame,
    frame,
)

NAME = "signal connection"
"""Of its task, for whoever looks at tasks."""
FIRST_MESSAGE_TIMEOUT = 5.0
QUEUE = 200
"""Responses that may wait for the client (livekit-surface 1.7)."""
FLUSH_TIMEOUT = 0.5
FLUSH_TIMEOUT_BEHIND = 5.0
"""Seconds until a connection that we have closed ends; the second where the client has not taken everything yet."""
MALFORMED_LIMIT = 20
"""Frames that are no signal message, before the connection is closed."""
MAX_READ = 64 * 1024
TOGETHER = 32
"""Requests that are passed on at once."""


def request_of(upgrade: Upgrade, client: str) -> Request:
    """As it would come by ASGI."""
    path, _, query = upgrade.target.partition(b"?")
    address = (client, 0)
    return Request.of(
        {"headers": upgrade.headers, "query_string": query, "path": path.decode(), "raw_path": path, "client": address}
    )


class SignalSocket:
    """One client: the sending half that a participant holds (implements `SignalSink`), and the task that reads."""

    __slots__ = (
        "_accepted", "_begun", "_closing", "_first", "_peer", "_reader", "_scope", "_services", "_text",
        "_unsent", "_upgrade", "_writer", "left",
    )  # fmt: skip

    def __init__(
        self,
        peer: socket.socket,
        upgrade: Upgrade,
        begun: bytes,
        services: Services,
        start_soon: StartSoon,
        late: LateWrites,
    ) -> None:
        """`begun`: what was read of the connection, the upgrade included."""
        self._peer = peer
        self._upgrade = upgrade
        self._begun = begun[upgrade.size :]
        self._services = services
        self._writer = Writer(peer, start_soon, late)
        self._reader = MessageReader(services.config.limit.signal_message_size_limit, deflate=upgrade.deflate)
        self._scope = trio.CancelScope()
        self._unsent: list[Outgoing] = []
        """Said before the upgrade was accepted."""
        self._first: trio.Event | None = None
        """Somebody waits for it."""
        self._accepted = self._closing = False
        self._text = False
        """Until the client has spoken: binary, as the reference, unless it asked for JSON (`json=1`, ours)."""
        self.left = False
        """A farewell was said, or the participant chose to go without one."""

    # -- the participant's half -------------------------------------------------------------------------------------

    def send(self, response: Outgoing) -> bool:
        if self._closing or self._writer.broken:
            return True  # It is over, and that is being told: nobody was too slow.
        if response.kind == "leave":
            self.left = True
        if len(self._unsent) >= QUEUE or self._writer.waiting >= QUEUE:
            self.close()
            return False
        if self._accepted:
            self._write(response)
        else:
            self._unsent.append(response)
            if self._first is not None:
                self._first.set()
        return True

    def close(self) -> None:
        self.left = True
        self._close(NORMAL)

    def _write(self, response: Outgoing) -> None:
        self._writer.write(response.frame(text=self._text, deflate=self._upgrade.deflate))
        self._services.metrics.signal.responses += 1

    def _close(self, code: int) -> None:
        if self._closing:
            return
        self._closing = True
        if self._accepted:
            self._say_goodbye(code)
        elif self._first is not None:
            self._first.set()

    def _say_goodbye(self, code: int) -> None:
        self._writer.write_now(close_frame(code))  # Not later: whoever would do that may be about to end, too.
        behind = self._writer.waiting > 0
        self._scope.deadline = trio.current_time() + (FLUSH_TIMEOUT_BEHIND if behind else FLUSH_TIMEOUT)

    # -- the upgrade ------------------------------------------------------------------------------------------------

    async def has_first(self) -> bool:
        """The first message is there, or comes soon (livekit-surface 1.6)."""
        if not self._unsent and not self._closing:
            self._first = trio.Event()
            with trio.move_on_after(FIRST_MESSAGE_TIMEOUT):
                await self._first.wait()
        return bool(self._unsent)

    def accept(self, *, text: bool) -> None:
        """101, and what was said meanwhile, at one go."""
        self._text = text
        deflate, unsent = self._upgrade.deflate, self._unsent
        frames = b"".join(response.frame(text=text, deflate=deflate) for response in unsent)
        self._services.metrics.signal.responses += len(unsent)
        self._unsent = []
        self._writer.write_now(acceptance(self._upgrade) + self._date() + b"\r\n" + frames)
        self._accepted = True
        if self._closing:
            self._say_goodbye(NORMAL)

    def deny(self, response: Response) -> None:
        """Plain HTTP instead of the upgrade."""
        fields = b"".join(b"%b: %b\r\n" % pair for pair in response.raw_headers())
        head = b"HTTP/1.1 %d \r\n%bconnection: close\r\n%b\r\n" % (response.status, fields, self._date())
        self._writer.write_now(head + response.body)
        trio.lowlevel.notify_closing(self._peer)  # A client that does not take even this waits for nothing.

    def _date(self) -> bytes:
        return b"date: %b\r\n" % formatdate(self._services.unix(), usegmt=True).encode()

    # -- the client's half ------------------------------------------------------------------------------------------

    async def run(self, ref: ActorRef[ParticipantMessage] | None, number: int, protocol: int) -> None:
        """Until either side is done. `ref` None: there is nobody to hear the client."""
        trio.lowlevel.current_task().name = NAME
        ended = partial(self._participant_ended, protocol)
        if ref is not None:
            ref.when_closed(ended)
        try:
            with self._scope:
                await self._read(ref, number)
            await self._over(ref, number)
        except trio.Cancelled:
            self._close(NORMAL)
            raise
        finally:
            self._closing = True
            trio.lowlevel.notify_closing(self._peer)
            if ref is not None:
                ref.forget_closed(ended)

    async def _over(self, ref: ActorRef[ParticipantMessage] | None, number: int) -> None:
        self._closing = True
        if ref is not None:
            try:
                ref.tell(SignalLost(number))
            except (ActorDead, MailboxFull):
                pass  # It is gone, or so far behind that its timers decide.
        if self.left:
            with trio.move_on_after(FLUSH_TIMEOUT):
                await self._writer.drained()  # Who has said the last word may still take ours.

    async def _read(self, ref: ActorRef[ParticipantMessage] | None, number: int) -> None:
        reader, malformed, heard = self._reader, 0, 0
        reader.receive(self._begun)
        while True:
            match reader.next_event():
                case None:
                    data = await self._more()
                    if not data:
                        return
                    reader.receive(data)
                case Received(data=data) if ref is not None and not self._closing:
                    malformed += not self._hear(data, ref, number)
                    if malformed > MALFORMED_LIMIT:
                        self._close(NORMAL)
                    heard += 1
                    if heard % TOGETHER == 0:
                        await trio.lowlevel.checkpoint()  # One read may hold thousands: the participant has its turn.
                case PingReceived(payload=payload) if not self._closing:
                    self._writer.write(frame(PONG, payload))
                case CloseReceived(code=code):
                    if not self._closing:
                        self._writer.write_now(close_frame(code))
                    return
                case Violated(code=code):
                    self._close(code)
                case _:
                    pass

    async def _more(self) -> bytes:
        """b"": the client is gone."""
        while True:
            await trio.lowlevel.wait_readable(self._peer)
            await self._services.loop.in_time()
            try:
                return self._peer.recv(MAX_READ)
            except BlockingIOError:
                continue
            except OSError:
                return b""

    def _hear(self, data: bytes | str, ref: ActorRef[Any], number: int) -> bool:
        """False: it is no signal message."""
        self._text = isinstance(data, str)
        counts, counters = self._services.metrics.signal, self._services.ports.counters
        try:
            ref.tell(SignalReceived(number, decode_request(data)))
            counts.requests += 1
        except ProtocolViolation as violation:
            counts.bad_requests += 1
            counters.count(violation.reason)
            return False
        except MailboxFull:
            counters.count("signal.queue_full")
            self._close(NORMAL)
        except ActorDead:
            self._close(NORMAL)
        return True

    def _participant_ended(self, protocol: int) -> None:
        """One that died without a farewell: its client is to start over (design section 3)."""
        if not self.left:
            reason, action = models.DisconnectReason.STATE_MISMATCH, rtc.LeaveRequest.Action.RECONNECT
            self.send(Outgoing(responses.leave(reason, action, protocol)))
        self.close()
