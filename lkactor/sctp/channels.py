"""Data channels on streams: ids, DCEP, what is open and what is closing (RFC 8831 section 6, RFC 8832).

| channel is | because                              | leaves it                                                       |
|------------|--------------------------------------|-----------------------------------------------------------------|
| opening    | our OPEN is under way                | ACK or first message: open                                      |
| open       | ACK, the peer's OPEN, or negotiated  | close_channel or the peer's reset: closing                      |
| closing    | one direction is or will be reset    | both directions reset: gone, the id is free                     |

Ids: the DTLS client opens even ones, the server odd ones (RFC 8832 section 6). An OPEN of the wrong parity or on a
channel in use is refused: counted, and the stream reset unless it carries a channel already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lkactor.counters import Counters
from lkactor.errors import ProtocolViolation
from lkactor.sctp import dcep
from lkactor.sctp.dcep import PPID_BINARY, PPID_BINARY_EMPTY, PPID_DCEP, PPID_STRING, PPID_STRING_EMPTY
from lkactor.sctp.events import (
    ChannelClosed,
    ChannelOpened,
    MessageReceived,
    SctpClosed,
    SctpConnected,
    SctpEvent,
    SctpLimits,
    SctpSendBufferFull,
)
from lkactor.sctp.receiver import MIN_CHARGE, Message
from lkactor.sctp.sender import OutMessage, Sender


@dataclass(slots=True)
class Channel:
    id: int
    config: dcep.Open
    negotiated: bool = False
    remote: bool = False
    open: bool = False
    closing: bool = False
    announced_closed: bool = False
    requested: bool = False
    local_reset: bool = False
    peer_reset: bool = False


class Channels:
    def __init__(
        self, role: Literal["client", "server"], sender: Sender, limits: SctpLimits, counters: Counters
    ) -> None:
        self._parity = 0 if role == "client" else 1
        self.sender = sender
        self._limits = limits
        self._counters = counters
        self._by_id: dict[int, Channel] = {}
        self._stream_limit = limits.max_streams
        self._connected = False
        self._closing = 0
        self._events: list[SctpEvent] = []
        self.event_bytes = 0

    # -- events -----------------------------------------------------------------------------------------------------

    def emit(self, event: SctpEvent) -> None:
        if isinstance(event, MessageReceived):
            self.event_bytes += max(len(event.data), MIN_CHARGE)
        self._events.append(event)

    def next_event(self) -> SctpEvent | None:
        if not self._events:
            return None
        event = self._events.pop(0)
        if isinstance(event, MessageReceived):
            self.event_bytes -= max(len(event.data), MIN_CHARGE)
        return event

    # -- our side ---------------------------------------------------------------------------------------------------

    def open(self, config: dcep.Open, channel_id: int | None, negotiated: bool) -> int:
        if config.max_retransmits is not None and config.max_lifetime_ms is not None:
            raise ValueError("max_retransmits and max_lifetime_ms exclude each other (RFC 8832 section 5.1)")
        if negotiated and channel_id is None:
            raise ValueError("a negotiated channel needs its id")
        if channel_id is None:
            channel_id = next((i for i in range(self._parity, self._stream_limit, 2) if i not in self._by_id), None)
        if channel_id is None or len(self._by_id) >= self._limits.max_channels:
            raise ValueError("no channel id is free")
        if not 0 <= channel_id < self._stream_limit or channel_id in self._by_id:
            raise ValueError(f"channel id {channel_id} is taken or not below {self._stream_limit}")
        channel = self._by_id[channel_id] = Channel(channel_id, config, negotiated)
        if not negotiated:
            self._enqueue_dcep(channel_id, config.build())
        elif self._connected:
            self._opened(channel)
        return channel_id

    def send(self, channel_id: int, data: bytes, binary: bool, now: float) -> None:
        channel = self._by_id.get(channel_id)
        if channel is None or channel.closing:
            self._counters.count("sctp.send_on_closed")
            return
        if self.sender.buffered + len(data) > self._limits.max_send_buffer:
            raise SctpSendBufferFull(f"{self.sender.buffered} bytes unacknowledged")
        if data:
            ppid = PPID_BINARY if binary else PPID_STRING
        else:
            data, ppid = b"\0", PPID_BINARY_EMPTY if binary else PPID_STRING_EMPTY  # RFC 8831 section 6.6
        config = channel.config
        lifetime = config.max_lifetime_ms
        self.sender.enqueue(
            OutMessage(
                channel_id,
                ppid,
                data,
                # Ordered until the OPEN is acknowledged, or the message could overtake it (RFC 8832 section 6).
                unordered=not config.ordered and channel.open,
                max_retransmits=config.max_retransmits,
                expires=None if lifetime is None else now + lifetime / 1000,
            )
        )

    def close(self, channel_id: int) -> None:
        channel = self._by_id.get(channel_id)
        if channel is not None:
            self._start_closing(channel)

    def _enqueue_dcep(self, channel_id: int, data: bytes) -> None:
        self.sender.enqueue(OutMessage(channel_id, PPID_DCEP, data, unordered=False))

    # -- the association's side -------------------------------------------------------------------------------------

    def connected(self, stream_limit: int) -> None:
        self._connected = True
        self._stream_limit = min(self._limits.max_streams, stream_limit)
        self.emit(SctpConnected())
        for channel in list(self._by_id.values()):
            if channel.id >= self._stream_limit:
                self._counters.count("sctp.stream_limit")
                self.sender.discard_stream(channel.id)
                self._announce_closed(channel)
                self._remove(channel)
            elif channel.negotiated and not channel.closing:
                self._opened(channel)

    def reset(self, sender: Sender) -> None:
        """The peer restarted: every channel is gone (RFC 9260 section 5.2.4 action A)."""
        for channel in list(self._by_id.values()):
            self._announce_closed(channel)
        self._by_id.clear()
        self._closing = 0
        self.sender = sender

    def closed(self, reason: str) -> None:
        self.reset(self.sender)
        self.emit(SctpClosed(reason))

    def deliver(self, message: Message) -> None:
        data = message.data
        assert data is not None
        if message.ppid == PPID_DCEP:
            try:
                self._receive_dcep(message.stream, dcep.parse(data))
            except ProtocolViolation as violation:
                self._counters.count(violation.reason)
                self._refuse(message.stream)
            return
        channel = self._by_id.get(message.stream)
        if channel is None or channel.announced_closed:
            self._counters.count("dcep.no_channel")
            return
        if len(data) > self._limits.max_message_size:
            self._counters.count("sctp.message_too_large")
            self._start_closing(channel)
            return
        if message.ppid in (PPID_STRING_EMPTY, PPID_BINARY_EMPTY):
            data = b""
        elif message.ppid not in (PPID_STRING, PPID_BINARY):
            self._counters.count("dcep.unknown_ppid")
            return
        if not channel.open:
            self._opened(channel)
        self.emit(MessageReceived(channel.id, data, message.ppid in (PPID_BINARY, PPID_BINARY_EMPTY)))

    def _receive_dcep(self, stream: int, message: dcep.Open | None) -> None:
        channel = self._by_id.get(stream)
        if message is None:
            if channel is None or channel.remote or channel.negotiated:
                self._counters.count("dcep.ack_unexpected")
            elif not channel.open:
                self._opened(channel)
        elif channel is not None:
            self._counters.count("dcep.collision")
        elif stream % 2 == self._parity or len(self._by_id) >= self._limits.max_channels:
            self._counters.count("dcep.refused")
            self._refuse(stream)
        else:
            channel = self._by_id[stream] = Channel(stream, message, remote=True)
            self._enqueue_dcep(stream, dcep.ACK)
            self._opened(channel)

    def _refuse(self, stream: int) -> None:
        """Reset a stream no channel was granted on. One that has a channel already is left alone."""
        if stream not in self._by_id and len(self._by_id) < self._limits.max_channels and stream < self._stream_limit:
            channel = self._by_id[stream] = Channel(stream, dcep.Open(""), remote=True, announced_closed=True)
            self._start_closing(channel)

    def _opened(self, channel: Channel) -> None:
        if channel.open:
            return
        channel.open = True
        if channel.announced_closed:
            return
        config = channel.config
        self.emit(
            ChannelOpened(
                channel.id,
                config.label,
                config.ordered,
                config.max_retransmits,
                config.max_lifetime_ms,
                config.protocol,
                channel.negotiated,
                channel.remote,
            )
        )

    # -- closing ----------------------------------------------------------------------------------------------------

    def _start_closing(self, channel: Channel) -> None:
        if not channel.closing:
            channel.closing = True
            self._closing += 1

    def _announce_closed(self, channel: Channel) -> None:
        if not channel.announced_closed:
            channel.announced_closed = True
            self.emit(ChannelClosed(channel.id))

    def _remove(self, channel: Channel) -> None:
        del self._by_id[channel.id]
        self._closing -= channel.closing

    def to_reset(self) -> list[int]:
        """Channels whose outgoing direction is ready to be reset: nothing of theirs waits for a TSN."""
        if not self._closing:
            return []
        return [
            channel.id
            for channel in self._by_id.values()
            if channel.closing
            and not channel.requested
            and not channel.local_reset
            and self.sender.stream_drained(channel.id)
        ]

    def reset_requested(self, streams: Sequence[int]) -> None:
        for stream in streams:
            self._by_id[stream].requested = True

    def reset_retry(self, streams: Sequence[int]) -> None:
        for stream in streams:
            if stream in self._by_id:
                self._by_id[stream].requested = False

    def reset_done(self, streams: Sequence[int]) -> None:
        """Our outgoing direction is reset, or the peer will never do it."""
        for stream in streams:
            channel = self._by_id.get(stream)
            if channel is None:
                continue
            channel.local_reset = True
            self.sender.reset_stream(stream)
            self._announce_closed(channel)
            if channel.peer_reset:
                self._remove(channel)

    def peer_reset(self, streams: Sequence[int]) -> None:
        """The peer closed these channels; we close our direction in return (RFC 8831 section 6.7)."""
        for stream in streams or list(self._by_id):
            channel = self._by_id.get(stream)
            if channel is None or channel.peer_reset:
                continue
            channel.peer_reset = True
            self._announce_closed(channel)
            self.sender.discard_stream(stream)
            self._start_closing(channel)
            if channel.local_reset:
                self._remove(channel)

    def too_large(self, stream: int) -> None:
        channel = self._by_id.get(stream)
        if channel is not None:
            self._start_closing(channel)
