"""One SCTP association over DTLS (RFC 9260 as profiled by RFC 8831 and RFC 8261), sans-IO.

Handshake (RFC 9260 section 4). Either side may start, also both at once:

| state                | event                           | action                                  | next              |
|----------------------|---------------------------------|-----------------------------------------|-------------------|
| CLOSED               | start                           | INIT, T1                                | COOKIE_WAIT       |
| CLOSED               | INIT                            | INIT ACK with cookie, nothing is kept   | CLOSED            |
| any before closed    | COOKIE ECHO, ours and fresh     | COOKIE ACK (section 5.2.4 for the rest) | ESTABLISHED       |
| COOKIE_WAIT          | INIT ACK                        | COOKIE ECHO, T1                         | COOKIE_ECHOED     |
| either COOKIE_ state | INIT (collision)                | INIT ACK with our INIT's tag (5.2.1)    | same              |
| COOKIE_ECHOED        | COOKIE ACK                      |                                         | ESTABLISHED       |
| ESTABLISHED          | INIT (duplicate or restart)     | INIT ACK with a new tag (5.2.2)         | same              |
| ESTABLISHED          | COOKIE ECHO, new tags, our ties | restarted: channels are closed          | ESTABLISHED       |
| ESTABLISHED          | shutdown                        |                                         | SHUTDOWN_PENDING  |
| SHUTDOWN_PENDING     | all acknowledged                | SHUTDOWN, T2                            | SHUTDOWN_SENT     |
| ESTABLISHED ...      | SHUTDOWN                        |                                         | SHUTDOWN_RECEIVED |
| SHUTDOWN_RECEIVED    | all acknowledged                | SHUTDOWN ACK, T2                        | SHUTDOWN_ACK_SENT |
| SHUTDOWN_SENT        | SHUTDOWN ACK                    | SHUTDOWN COMPLETE                       | ENDED             |
| SHUTDOWN_ACK_SENT    | SHUTDOWN COMPLETE               |                                         | ENDED             |
| any                  | ABORT; a timer too often        | (ABORT when it is us)                   | ENDED             |

`streams` move through `channels.Channels`; TSNs through `sender.Sender` and `receiver.Receiver`; `reset.StreamReset`
closes streams. Not spoken, and never echoed: zero checksum (RFC 9653), I-DATA (RFC 8260), SNAP.
"""

from __future__ import annotations

import random
from enum import Enum, auto
from typing import Literal

from lkactor.counters import Counters
from lkactor.errors import ProtocolViolation
from lkactor.sctp import chunks, cookie
from lkactor.sctp.channels import Channels
from lkactor.sctp.chunks import HEADER_SIZE, TAG_REFLECTED, TSN_MASK, Cause, ChunkType, Init, build_chunk
from lkactor.sctp.cookie import StateCookie
from lkactor.sctp.dcep import Open
from lkactor.sctp.events import SctpEvent, SctpLimits
from lkactor.sctp.receiver import Receiver
from lkactor.sctp.reset import DENIED, IN_PROGRESS, StreamReset
from lkactor.sctp.sender import Sender

MAX_CONTROL_CHUNKS = 64
"""Answers waiting to be sent; a flood of HEARTBEATs gets no more than that per turn."""


class State(Enum):
    CLOSED = auto()
    COOKIE_WAIT = auto()
    COOKIE_ECHOED = auto()
    ESTABLISHED = auto()
    SHUTDOWN_PENDING = auto()
    SHUTDOWN_SENT = auto()
    SHUTDOWN_RECEIVED = auto()
    SHUTDOWN_ACK_SENT = auto()
    ENDED = auto()


_RECEIVING = (State.ESTABLISHED, State.COOKIE_ECHOED, State.SHUTDOWN_PENDING, State.SHUTDOWN_SENT)
"""DATA is taken. COOKIE_ECHOED too: the peer's DATA may overtake its COOKIE ACK. A tuple: to find an Enum's member in a
set is a call of Python."""
_SENDING = (State.ESTABLISHED, State.SHUTDOWN_PENDING, State.SHUTDOWN_RECEIVED)


class SctpAssociation:
    """The five verbs, without addresses: it runs on one DTLS connection.

    Raises at its user only: SctpSendBufferFull (`send`) and ValueError (`open_channel` with impossible arguments).
    """

    def __init__(
        self,
        *,
        rng: random.Random,
        dtls_role: Literal["client", "server"],
        mtu: int = 1191,
        limits: SctpLimits | None = None,
    ) -> None:
        self.counters = Counters()
        self.state = State.CLOSED
        self._rng = rng
        self._mtu = mtu
        self._limits = limits = limits or SctpLimits()
        self._cookie_key = rng.randbytes(32)
        self._local_tag = self._new_tag()
        self._local_tsn = rng.getrandbits(32)
        self._peer_tag = 0
        self._sender = Sender(self._local_tsn, mtu, limits, self.counters)
        self._receiver: Receiver | None = None
        self._reset: StreamReset | None = None
        self._peer_reconfig = False
        self._peer_inbound = limits.max_streams
        self._channels = Channels(dtls_role, self._sender, limits, self.counters)
        self._packets: list[bytes] = []
        self._control: list[bytes] = []
        self._cookie_echo = b""
        self._t1: float | None = None
        self._t1_period = limits.rto_initial
        self._tries = 0
        self._t2: float | None = None
        self._sack_timer: float | None = None
        self._reset_timer: float | None = None
        self._heartbeat_timer: float | None = None
        self._heartbeat: tuple[bytes, float] | None = None
        self._errors = 0
        self._paused_window: int | None = None
        self._advertised = limits.receive_window

    # -- what the user calls ----------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Send INIT. Harmless when the association is already under way."""
        if self.state is State.CLOSED:
            self.state = State.COOKIE_WAIT
            self._tries = 0
            self._t1_period = self._limits.rto_initial
            self._send_t1(now)

    def open_channel(
        self,
        label: str,
        *,
        ordered: bool = True,
        max_retransmits: int | None = None,
        max_lifetime_ms: int | None = None,
        protocol: str = "",
        channel_id: int | None = None,
        negotiated: bool = False,
    ) -> int:
        """Also before the association is up. `ChannelOpened` follows. Messages may be sent at once.

        ValueError: no id free, an id taken or out of range, both limits given, negotiated without an id.
        """
        if self.state is State.ENDED:
            raise ValueError("the association has ended")
        return self._channels.open(
            Open(label, ordered, max_retransmits, max_lifetime_ms, protocol), channel_id, negotiated
        )

    def send(self, channel_id: int, data: bytes, *, binary: bool = True, now: float) -> None:
        """Queue one message. SctpSendBufferFull: nothing was queued.

        A message for a channel that is closed or closing is counted and dropped: the event that says so may still be
        on its way to the caller.
        """
        self._channels.send(channel_id, data, binary, now)

    def close_channel(self, channel_id: int, now: float) -> None:
        """Close after what is queued has been sent (RFC 8831 section 6.7). `ChannelClosed` follows."""
        self._channels.close(channel_id)

    def buffered_amount(self, channel_id: int) -> int:
        """Bytes accepted for the channel and neither acknowledged nor given up."""
        return self._sender.stream_buffered(channel_id)

    def pause_receive(self, paused: bool) -> None:
        """Back-pressure. Paused: what the window still offers is taken, then the peer sees it shut."""
        if paused and self._paused_window is None:
            self._paused_window = self._window()
        elif not paused and self._paused_window is not None:
            self._paused_window = None
            if self._receiver is not None:
                self._receiver.sack_now = True

    def shutdown(self, now: float) -> None:
        """End in order: what is queued is delivered first (RFC 9260 section 9.2). `SctpClosed("shutdown")` follows."""
        if self.state is State.ESTABLISHED:
            self.state = State.SHUTDOWN_PENDING
        elif self.state in (State.CLOSED, State.COOKIE_WAIT, State.COOKIE_ECHOED):
            self._end("shutdown")

    def abort(self, now: float) -> None:
        """End at once (RFC 9260 section 9.1)."""
        self._abort(Cause.USER_ABORT, "aborted_locally")

    # -- the verbs --------------------------------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, now: float) -> None:
        try:
            tag, parts = chunks.parse_packet(data)
            if self.state is State.ENDED:
                self._receive_after_end(tag, parts)
                return
            if not self._tag_is_right(tag, parts):
                raise ProtocolViolation("sctp.tag")
            self._receive_chunks(tag, parts, now)
        except ProtocolViolation as violation:
            self.counters.count(violation.reason)
        self._after_input(now)

    def datagrams_to_send(self, now: float) -> list[bytes]:
        out, self._packets = self._packets, []
        if self.state in (State.CLOSED, State.COOKIE_WAIT, State.ENDED):
            self._control.clear()
            return out
        self._collect_control(now)
        limit = self._mtu - HEADER_SIZE
        parts: list[bytes] = []
        size = 0
        control, self._control = self._control, []
        for chunk in control:
            if size + len(chunk) > limit and parts:
                out.append(chunks.build_packet(self._peer_tag, parts))
                parts, size = [], 0
            parts.append(chunk)
            size += len(chunk)
        poll = self._sender.poll
        data = poll(now) if self.state in _SENDING else None
        if data is not None and self._sack_timer is not None:
            sack = self._build_sack()
            if size + len(sack) > limit:
                out.append(chunks.build_packet(self._peer_tag, parts))
                parts, size = [], 0
            parts.append(sack)  # a delayed SACK rides along, RFC 9260 section 6.2
            size += len(sack)
        while data is not None:
            wire = data.wire
            if size + len(wire) > limit:
                out.append(chunks.build_packet(self._peer_tag, parts))
                parts, size = [], 0
            parts.append(wire)
            size += len(wire)
            data = poll(now)
        if parts:
            out.append(chunks.build_packet(self._peer_tag, parts))
        return out

    def next_timeout(self) -> float | None:
        timers = (self._t1, self._t2, self._sender.t3, self._sack_timer, self._reset_timer, self._heartbeat_timer)
        running = [timer for timer in timers if timer is not None]
        return min(running) if running else None

    def handle_timeout(self, now: float) -> None:
        if self._t1 is not None and now >= self._t1:
            self._handle_t1(now)
        if self._t2 is not None and now >= self._t2:
            self._handle_t2(now)
        if self._sender.t3 is not None and now >= self._sender.t3:
            self._sender.handle_t3(now)
            self._check_errors()
        if self._sack_timer is not None and now >= self._sack_timer:
            self._sack_timer = None
            if self._receiver is not None:
                self._receiver.sack_now = True
        if self._reset_timer is not None and now >= self._reset_timer:
            self._handle_reset_timer(now)
        if self._heartbeat_timer is not None and now >= self._heartbeat_timer:
            self._send_heartbeat(now)
        if self.state is not State.ENDED:
            self._advance_shutdown(now)

    def next_event(self) -> SctpEvent | None:
        return self._channels.next_event()

    # -- sending ----------------------------------------------------------------------------------------------------

    def _collect_control(self, now: float) -> None:
        receiver, sender = self._receiver, self._sender
        self._start_reset(now)
        if self.state in _SENDING and sender.forward_tsn_due:
            forward = sender.build_forward_tsn(now)
            if forward is not None:
                self._control.insert(0, forward)
        if receiver is None or self.state in (State.SHUTDOWN_RECEIVED, State.SHUTDOWN_ACK_SENT):
            return
        if self._advertised < 2 * self._mtu and self._window() >= self._limits.receive_window // 2:
            receiver.sack_now = True  # the window opened again: say so before the peer has to probe
        if receiver.sack_now:
            self._control.insert(0, self._build_sack())

    def _build_sack(self) -> bytes:
        assert self._receiver is not None
        window = self._window()
        # Below one packet the window counts as shut (silly window avoidance, RFC 9260 section 6.2.1).
        self._advertised = window if window >= self._mtu else 0
        self._sack_timer = None
        return self._receiver.build_sack(self._advertised)

    def _window(self) -> int:
        if self._paused_window is not None:
            return max(0, self._paused_window)
        used = self._channels.event_bytes + (self._receiver.buffered if self._receiver is not None else 0)
        return max(0, self._limits.receive_window - used)

    def _reply(self, chunk: bytes) -> None:
        if len(self._control) >= MAX_CONTROL_CHUNKS:
            self.counters.count("sctp.control_flood")
        else:
            self._control.append(chunk)

    def _packet(self, tag: int, chunk: bytes) -> None:
        """A packet of its own, for chunks that are not bundled or carry another tag."""
        if len(self._packets) >= MAX_CONTROL_CHUNKS:
            self.counters.count("sctp.control_flood")
        else:
            self._packets.append(chunks.build_packet(tag, [chunk]))

    # -- receiving --------------------------------------------------------------------------------------------------

    def _tag_is_right(self, tag: int, parts: list[chunks.Chunk]) -> bool:
        """RFC 9260 section 8.5 with the exceptions of 8.5.1."""
        kind, flags, _ = parts[0]
        if kind == ChunkType.INIT or (len(parts) > 1 and any(part[0] == ChunkType.INIT for part in parts)):
            return tag == 0 and len(parts) == 1
        if kind == ChunkType.COOKIE_ECHO:
            return True  # compared with the cookie
        if kind in (ChunkType.ABORT, ChunkType.SHUTDOWN_COMPLETE) and flags & TAG_REFLECTED:
            return tag == self._peer_tag != 0
        return tag == self._local_tag

    def _receive_chunks(self, tag: int, parts: list[chunks.Chunk], now: float) -> None:
        if parts[0][0] == ChunkType.DATA:
            self._flush_due_sack()
        has_data = False
        for kind, flags, value in parts:
            if kind == ChunkType.DATA:
                self._on_data(flags, value)
                has_data = True
            elif kind == ChunkType.SACK:
                self._on_sack(value, now)
            elif kind == ChunkType.COOKIE_ECHO:
                if not self._on_cookie_echo(tag, value, now):
                    return
            elif not self._receive_control(kind, flags, value, now):
                return
            if self.state is State.ENDED:
                return
        receiver = self._receiver
        if has_data and receiver is not None:
            receiver.unacknowledged_packets += 1
            if receiver.unacknowledged_packets >= 2 or receiver.has_gaps:
                receiver.sack_now = True
            elif self._sack_timer is None:
                self._sack_timer = now + self._limits.sack_delay

    def _receive_after_end(self, tag: int, parts: list[chunks.Chunk]) -> None:
        """RFC 9260 section 8.4 item 5: a peer whose SHUTDOWN COMPLETE was lost asks again."""
        self.counters.count("sctp.after_end")
        if parts[0][0] == ChunkType.SHUTDOWN_ACK and tag == self._local_tag and self._peer_tag:
            self._packet(self._peer_tag, build_chunk(ChunkType.SHUTDOWN_COMPLETE))

    def _flush_due_sack(self) -> None:
        """More DATA before the SACK that is due could leave: it gets a packet of its own.

        A socket is drained in bursts. One SACK per burst would let the peer's slow start grow by one step per burst,
        and would show it a loss once where it waits for three reports (RFC 9260 sections 6.2, 7.2.1 and 7.2.4).
        """
        receiver = self._receiver
        if receiver is None or not receiver.sack_now or self.state not in _RECEIVING:
            return
        if len(self._packets) < MAX_CONTROL_CHUNKS:
            self._packets.append(chunks.build_packet(self._peer_tag, [self._build_sack()]))

    def _receive_control(self, kind: int, flags: int, value: bytes, now: float) -> bool:
        """False: the rest of the packet is not to be looked at."""
        match kind:
            case ChunkType.INIT:
                self._on_init(value, now)
            case ChunkType.INIT_ACK:
                self._on_init_ack(value, now)
            case ChunkType.COOKIE_ACK:
                if self.state is State.COOKIE_ECHOED:
                    self._establish(now)
            case ChunkType.HEARTBEAT:
                self._reply(build_chunk(ChunkType.HEARTBEAT_ACK, 0, value))
            case ChunkType.HEARTBEAT_ACK:
                self._on_heartbeat_ack(value, now)
            case ChunkType.ABORT:
                self._end("aborted")
            case ChunkType.SHUTDOWN | ChunkType.SHUTDOWN_ACK | ChunkType.SHUTDOWN_COMPLETE:
                self._on_shutdown(kind, value, now)
            case ChunkType.ERROR:
                self._on_error(value, now)
            case ChunkType.FORWARD_TSN:
                if self._receiver is not None and self.state in _RECEIVING:
                    self._receiver.forward(*chunks.parse_forward_tsn(value))
            case ChunkType.RE_CONFIG:
                self._on_reconfig(value, now)
            case _:
                return self._on_unknown(kind, flags, value)
        return True

    def _on_unknown(self, kind: int, flags: int, value: bytes) -> bool:
        self.counters.count("sctp.unknown_chunk")
        if chunks.must_report(kind, 8) and self._peer_tag:
            cause = chunks.build_cause(Cause.UNRECOGNIZED_CHUNK, build_chunk(kind, flags, value)[:512])
            self._reply(build_chunk(ChunkType.ERROR, 0, cause))
        return not chunks.must_stop(kind, 8)

    def _on_data(self, flags: int, value: bytes) -> None:
        receiver = self._receiver
        if receiver is None or self.state not in _RECEIVING:
            self.counters.count("sctp.data_in_wrong_state")
            return
        tsn, stream, ssn, ppid, data = chunks.parse_data(value)
        if not data:
            # RFC 9260 section 6.2: no user data is an error that ends the association.
            self.counters.count("sctp.no_user_data")
            self._abort(Cause.NO_USER_DATA, "protocol_violation", tsn.to_bytes(4, "big"))
            return
        if stream >= self._limits.max_streams:
            # RFC 9260 section 6.5: acknowledged, reported, not delivered.
            self.counters.count("sctp.invalid_stream")
            cause = chunks.build_cause(Cause.INVALID_STREAM, stream.to_bytes(2, "big") + b"\0\0")
            self._reply(build_chunk(ChunkType.ERROR, 0, cause))
            receiver.acknowledge_only(tsn)
            return
        try:
            kept = receiver.receive(flags, tsn, stream, ssn, ppid, data, self._window())
        except ProtocolViolation as violation:
            self.counters.count(violation.reason)
            self._abort(Cause.PROTOCOL_VIOLATION, "protocol_violation")
            return
        if kept and self._paused_window is not None:
            self._paused_window -= len(data)
        for message in receiver.take_messages():
            self._channels.deliver(message)

    def _on_sack(self, value: bytes, now: float) -> None:
        if self.state in _SENDING or self.state is State.SHUTDOWN_SENT:
            self._sender.receive_sack(chunks.parse_sack(value), now)

    def _after_input(self, now: float) -> None:
        receiver, reset = self._receiver, self._reset
        if self.state is State.ENDED or receiver is None or reset is None:
            return
        for message in receiver.take_messages():
            self._channels.deliver(message)
        if receiver.oversized:
            for stream in receiver.oversized:
                self._channels.too_large(stream)
            receiver.oversized.clear()
        deferred = reset.deferred_due(receiver.cumulative)
        if deferred is not None:
            response, streams = deferred
            self._reply(build_chunk(ChunkType.RE_CONFIG, 0, response))
            self._peer_reset(streams)
        self._advance_shutdown(now)

    # -- handshake --------------------------------------------------------------------------------------------------

    def _new_tag(self) -> int:
        return self._rng.randrange(1, 1 << 32)

    def _init(self, tag: int, tsn: int) -> Init:
        streams = self._limits.max_streams
        return Init(tag, self._window(), streams, streams, tsn, forward_tsn=True, reconfig=True)

    def _send_t1(self, now: float) -> None:
        if self.state is State.COOKIE_WAIT:
            self._packet(0, self._init(self._local_tag, self._local_tsn).build(ChunkType.INIT))
        else:
            self._packet(self._peer_tag, self._cookie_echo)
        self._t1 = now + self._t1_period

    def _handle_t1(self, now: float) -> None:
        self._tries += 1
        if self._tries > self._limits.max_init_retransmits:
            self._end("handshake_timeout")
            return
        self._t1_period = min(self._t1_period * 2, self._limits.rto_max)
        self._send_t1(now)

    def _on_init(self, value: bytes, now: float) -> None:
        init = chunks.parse_init(value)
        if self.state is State.SHUTDOWN_ACK_SENT:
            self._reply(build_chunk(ChunkType.SHUTDOWN_ACK))  # RFC 9260 section 9.2
            return
        local_tag, local_tsn, ties = self._local_tag, self._local_tsn, (0, 0)
        if self.state not in (State.CLOSED, State.COOKIE_WAIT, State.COOKIE_ECHOED):
            # RFC 9260 section 5.2.2: perhaps a restart. Only the cookie can change anything.
            local_tag, local_tsn, ties = self._new_tag(), self._rng.getrandbits(32), (self._local_tag, self._peer_tag)
        state = StateCookie(
            now,
            local_tag,
            init.tag,
            *ties,
            local_tsn,
            init.initial_tsn,
            init.window,
            init.outbound_streams,
            init.inbound_streams,
            init.forward_tsn,
            init.reconfig,
        )
        streams = self._limits.max_streams
        signed = state.sign(self._cookie_key)
        answer = Init(
            local_tag, self._window(), streams, streams, local_tsn, True, True, signed, unrecognized=init.unrecognized
        )
        self._packet(init.tag, answer.build(ChunkType.INIT_ACK))

    def _on_init_ack(self, value: bytes, now: float) -> None:
        if self.state is not State.COOKIE_WAIT:
            self.counters.count("sctp.init_ack_unexpected")
            return
        init = chunks.parse_init(value)
        if init.cookie is None or len(init.cookie) > self._mtu - HEADER_SIZE - 4:
            raise ProtocolViolation("sctp.cookie_missing")
        self._adopt(init)
        for param in init.unrecognized:
            cause = chunks.build_cause(8, param)  # "unrecognized parameters", RFC 9260 section 3.3.10.8
            self._reply(build_chunk(ChunkType.ERROR, 0, cause))
        self._cookie_echo = build_chunk(ChunkType.COOKIE_ECHO, 0, init.cookie)
        self.state = State.COOKIE_ECHOED
        self._tries = 0
        self._t1_period = self._limits.rto_initial
        self._send_t1(now)

    def _adopt(self, init: Init) -> None:
        """What the peer said about itself, from its INIT, INIT ACK or our cookie."""
        self._peer_tag = init.tag
        self._receiver = Receiver(init.initial_tsn, self._limits, self.counters)
        self._reset = StreamReset(self._local_tsn, init.initial_tsn, self.counters)
        self._peer_reconfig = init.reconfig
        self._sender.forward_tsn_supported = init.forward_tsn
        self._sender.peer_window = init.window
        self._peer_inbound = init.inbound_streams

    def _on_cookie_echo(self, tag: int, value: bytes, now: float) -> bool:
        """RFC 9260 section 5.2.4. False: the packet is not for this association."""
        state = cookie.verify(value, self._cookie_key)
        if tag != state.local_tag:
            raise ProtocolViolation("sctp.tag")
        same = state.local_tag == self._local_tag, state.peer_tag == self._peer_tag
        if same != (True, True) and now - state.created > self._limits.cookie_lifetime:
            self.counters.count("sctp.cookie_stale")
            stale = chunks.build_cause(Cause.STALE_COOKIE, b"\0\0\0\0")
            self._packet(state.peer_tag, build_chunk(ChunkType.ERROR, 0, stale))
            return False
        if self.state in (State.SHUTDOWN_RECEIVED, State.SHUTDOWN_ACK_SENT):
            self.counters.count("sctp.cookie_in_shutdown")
            return False
        init = Init(
            state.peer_tag,
            state.peer_window,
            state.peer_outbound,
            state.peer_inbound,
            state.peer_tsn,
            state.forward_tsn,
            state.reconfig,
        )
        before = self.state in (State.CLOSED, State.COOKIE_WAIT, State.COOKIE_ECHOED)
        if same == (True, True):  # action D; in COOKIE_ECHOED what has already arrived is kept
            if before and self.state is not State.COOKIE_ECHOED:
                self._adopt(init)
        elif same == (True, False) and before:  # action B: both started; also the plain answerer
            self._adopt(init)
        elif (state.local_tie_tag, state.peer_tie_tag) == (self._local_tag, self._peer_tag) and not before:
            self._restart(state.local_tag, state.local_tsn, init)  # action A
            before = True
        else:  # action C and every other combination: silently discarded
            self.counters.count("sctp.cookie_other")
            return False
        self._control.insert(0, build_chunk(ChunkType.COOKIE_ACK))
        if before:
            self._establish(now)
        return True

    def _restart(self, local_tag: int, local_tsn: int, init: Init) -> None:
        self.counters.count("sctp.peer_restarted")
        self._local_tag, self._local_tsn = local_tag, local_tsn
        self._sender = Sender(local_tsn, self._mtu, self._limits, self.counters)
        self._channels.reset(self._sender)
        self._control.clear()
        self._reset_timer = self._sack_timer = self._t2 = None
        self._errors = 0
        self._adopt(init)

    def _establish(self, now: float) -> None:
        self.state = State.ESTABLISHED
        self._t1 = None
        self._channels.connected(self._peer_inbound)
        if self._limits.heartbeat_interval is not None:
            self._heartbeat_timer = now + self._limits.heartbeat_interval

    # -- errors, heartbeat, end -------------------------------------------------------------------------------------

    def _on_error(self, value: bytes, now: float) -> None:
        self.counters.count("sctp.error_received")
        for cause, _ in chunks.parse_params(value):
            if cause == Cause.STALE_COOKIE and self.state is State.COOKIE_ECHOED:
                # RFC 9260 section 5.2.6: begin again, within the same number of tries.
                self.state = State.COOKIE_WAIT
                self._handle_t1(now)
                return

    def _send_heartbeat(self, now: float) -> None:
        assert self._limits.heartbeat_interval is not None
        if self._heartbeat is not None:
            self._errors += 1
            self._check_errors()
        info = self._rng.randbytes(16)
        self._heartbeat = (info, now)
        param = chunks.build_param(chunks.PARAM_HEARTBEAT_INFO, info)
        self._reply(build_chunk(ChunkType.HEARTBEAT, 0, param))
        if self.state is not State.ENDED:
            self._heartbeat_timer = now + self._limits.heartbeat_interval + self._sender.rto.value

    def _on_heartbeat_ack(self, value: bytes, now: float) -> None:
        params = chunks.parse_params(value)
        if self._heartbeat is None or params != [(chunks.PARAM_HEARTBEAT_INFO, self._heartbeat[0])]:
            self.counters.count("sctp.heartbeat_ack_unexpected")
            return
        self._sender.rto.sample(now - self._heartbeat[1])
        self._heartbeat = None
        self._errors = self._sender.errors = 0

    def _check_errors(self) -> None:
        """RFC 9260 section 8.1."""
        if self._errors + self._sender.errors > self._limits.max_retransmits:
            self._abort(Cause.USER_ABORT, "retransmission_limit")

    def _abort(self, cause: int, reason: str, detail: bytes = b"") -> None:
        if self.state is State.ENDED:
            return
        if self._peer_tag:
            self._packet(self._peer_tag, build_chunk(ChunkType.ABORT, 0, chunks.build_cause(cause, detail)))
        self._end(reason)

    def _end(self, reason: str) -> None:
        self.state = State.ENDED
        self._t1 = self._t2 = self._sack_timer = self._reset_timer = self._heartbeat_timer = None
        self._sender.t3 = None
        self._receiver = self._reset = None
        self._control.clear()
        self._channels.closed(reason)

    # -- shutdown ---------------------------------------------------------------------------------------------------

    def _on_shutdown(self, kind: int, value: bytes, now: float) -> None:
        if kind == ChunkType.SHUTDOWN_COMPLETE:
            if self.state is State.SHUTDOWN_ACK_SENT:
                self._end("shutdown")
        elif kind == ChunkType.SHUTDOWN_ACK:
            if self.state in (State.SHUTDOWN_SENT, State.SHUTDOWN_ACK_SENT):
                self._packet(self._peer_tag, build_chunk(ChunkType.SHUTDOWN_COMPLETE))
                self._end("shutdown")
        elif len(value) != 4:
            raise ProtocolViolation("sctp.shutdown_length")
        elif self.state in (State.ESTABLISHED, State.SHUTDOWN_PENDING):
            self.state = State.SHUTDOWN_RECEIVED
            self._sender.receive_cumulative(int.from_bytes(value, "big"), now)
        elif self.state is State.SHUTDOWN_RECEIVED:
            self._sender.receive_cumulative(int.from_bytes(value, "big"), now)
        elif self.state is State.SHUTDOWN_SENT:  # both at once
            self._send_t2(State.SHUTDOWN_ACK_SENT, now)

    def _advance_shutdown(self, now: float) -> None:
        if self.state is State.SHUTDOWN_PENDING and self._sender.idle:
            self._send_t2(State.SHUTDOWN_SENT, now)
        elif self.state is State.SHUTDOWN_RECEIVED and self._sender.idle:
            self._send_t2(State.SHUTDOWN_ACK_SENT, now)

    def _send_t2(self, state: State, now: float) -> None:
        self.state = state
        if state is State.SHUTDOWN_SENT:
            assert self._receiver is not None
            cumulative = self._receiver.cumulative & TSN_MASK
            self._reply(build_chunk(ChunkType.SHUTDOWN, 0, cumulative.to_bytes(4, "big")))
        else:
            self._reply(build_chunk(ChunkType.SHUTDOWN_ACK))
        self._t2 = now + self._sender.rto.value

    def _handle_t2(self, now: float) -> None:
        self._errors += 1
        self._sender.rto.back_off()
        self._check_errors()
        if self.state is not State.ENDED:
            self._send_t2(self.state, now)

    # -- stream reset -----------------------------------------------------------------------------------------------

    def _start_reset(self, now: float) -> None:
        reset = self._reset
        if reset is None or reset.request is not None or self._reset_timer is not None:
            return
        if self.state is not State.ESTABLISHED:
            return
        streams = self._channels.to_reset()
        if not streams:
            return
        if not self._peer_reconfig:
            self.counters.count("sctp.reset_unsupported")
            self._channels.reset_done(streams)
            return
        self._reply(reset.ask(streams, self._sender.next_tsn - 1))
        self._channels.reset_requested(reset.asked)
        self._reset_timer = now + self._sender.rto.value

    def _handle_reset_timer(self, now: float) -> None:
        self._reset_timer = None
        if self._reset is None or self._reset.request is None:
            return  # the pause after "in progress" is over
        self._errors += 1
        self._sender.rto.back_off()
        self._check_errors()
        if self.state is not State.ENDED:
            self._reply(self._reset.request)
            self._reset_timer = now + self._sender.rto.value

    def _on_reconfig(self, value: bytes, now: float) -> None:
        reset, receiver = self._reset, self._receiver
        if reset is None or receiver is None or self.state not in _RECEIVING:
            self.counters.count("sctp.reconfig_in_wrong_state")
            return
        answers = b""
        for kind, content in chunks.parse_params(value)[:2]:  # at most two, RFC 6525 section 3.1
            if kind == chunks.PARAM_RECONFIG_RESPONSE:
                self._on_reset_response(reset, content, now)
            elif chunks.PARAM_RESET_OUTGOING <= kind <= chunks.PARAM_ADD_INCOMING:
                answer, streams = reset.receive_request(kind, content, receiver.cumulative)
                answers += answer
                if streams is not None:
                    self._peer_reset(streams)
            else:
                self.counters.count("sctp.reconfig_unknown")
        if answers:
            self._reply(build_chunk(ChunkType.RE_CONFIG, 0, answers))

    def _on_reset_response(self, reset: StreamReset, content: bytes, now: float) -> None:
        streams = reset.asked
        result = reset.receive_response(content)
        if result is None:
            return
        self._errors = 0
        self._reset_timer = None
        if result == IN_PROGRESS:
            self._channels.reset_retry(streams)
            self._reset_timer = now + self._sender.rto.value
            return
        if result >= DENIED:
            self.counters.count("sctp.reset_denied")
        self._channels.reset_done(streams)

    def _peer_reset(self, streams: list[int]) -> None:
        receiver = self._receiver
        assert receiver is not None
        for stream in streams or receiver.streams():
            receiver.reset_stream(stream)
        self._channels.peer_reset(streams)
