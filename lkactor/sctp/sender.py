"""The sending half: queues per channel, TSNs, retransmission, congestion control, partial reliability.

RFC 9260 sections 6.1 (what may be sent), 6.3 (RTO), 7.2 (congestion control, fast retransmit), RFC 3758 section 3.5
(giving messages up). TSNs are unwrapped Python integers here.

A chunk is in one of these states; only the first counts for the flight:

| state     | meaning                                | leaves it                                                    |
|-----------|----------------------------------------|--------------------------------------------------------------|
| in flight | sent, nothing heard                    | acked; 3 misses or T3: marked; limit of its channel: given up |
| marked    | to be sent again (heap, lowest first)  | sent: in flight; acked late                                  |
| acked     | in a gap block                         | cumulative ack: gone; reneged: marked                        |
| given up  | PR-SCTP, waits for the FORWARD TSN     | cumulative ack: gone                                         |

Without I-DATA the fragments of one message have consecutive TSNs (RFC 9260 section 6.9), so channels take turns by
whole messages: a small message waits for the rest of one message of another channel, never for its queue.
A SACK is compared with the one before: only the difference of their gap blocks is visited, so a long flight with old
holes costs nothing again.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, field

from lkactor.counters import Counters
from lkactor.sctp.chunks import (
    BEGIN,
    DATA_HEADER_SIZE,
    END,
    HEADER_SIZE,
    IMMEDIATE,
    TSN_HALF,
    TSN_MASK,
    UNORDERED,
    Sack,
    build_data,
    build_forward_tsn,
)
from lkactor.sctp.events import SctpLimits

FAST_RETRANSMIT_MISSES = 3
SACK_DELAY_ALLOWANCE = 0.2
"""Added to T3 while no more than one packet is in flight: its SACK may be delayed that long (RFC 9260 section 6.2)."""
PROBE_INTERVAL = 0.2
"""T3 while the peer answers that its window is shut."""
MAX_SKIPPED = 200
"""Streams named in one FORWARD TSN: 800 bytes, so that it fits a packet. More wait for the next one."""

Range = tuple[int, int]


@dataclass(slots=True)
class OutMessage:
    stream: int
    ppid: int
    data: bytes
    unordered: bool
    max_retransmits: int | None = None
    expires: float | None = None
    ssn: int = 0
    offset: int = 0
    chunks: list[OutChunk] = field(default_factory=list)
    abandoned: bool = False

    @property
    def partial(self) -> bool:
        return self.max_retransmits is not None or self.expires is not None


@dataclass(slots=True)
class OutChunk:
    tsn: int
    message: OutMessage
    size: int
    wire: bytes
    in_flight: bool = False
    acked: bool = False
    abandoned: bool = False
    fast_retransmitted: bool = False
    misses: int = 0
    transmissions: int = 0


@dataclass(slots=True)
class OutStream:
    """buffered: bytes of user data accepted and neither acknowledged nor given up."""

    queue: deque[OutMessage] = field(default_factory=deque)
    buffered: int = 0
    next_ssn: int = 0
    active: bool = False


class RtoEstimator:
    """RFC 9260 section 6.3.1."""

    def __init__(self, limits: SctpLimits) -> None:
        self._limits = limits
        self._srtt: float | None = None
        self._rttvar = 0.0
        self.value = limits.rto_initial

    @property
    def srtt(self) -> float | None:
        return self._srtt

    def sample(self, rtt: float) -> None:
        if self._srtt is None:
            self._srtt, self._rttvar = rtt, rtt / 2
        else:
            self._rttvar += (abs(self._srtt - rtt) - self._rttvar) / 4
            self._srtt += (rtt - self._srtt) / 8
        self.value = min(max(self._srtt + 4 * self._rttvar, self._limits.rto_min), self._limits.rto_max)

    def back_off(self, at_most: float = math.inf) -> None:
        self.value = min(self.value * 2, max(at_most, self._limits.rto_min), self._limits.rto_max)


class Sender:
    def __init__(self, initial_tsn: int, mtu: int, limits: SctpLimits, counters: Counters) -> None:
        self._limits = limits
        self._counters = counters
        self._mtu = mtu
        self.max_payload = (mtu - HEADER_SIZE - DATA_HEADER_SIZE) & ~3
        self.next_tsn = initial_tsn + (1 << 32)
        self.cumulative = self.next_tsn - 1
        self.advanced = self.cumulative
        self.rto = RtoEstimator(limits)
        self.cwnd = min(4 * mtu, max(2 * mtu, 4404))
        self.ssthresh = limits.max_cwnd
        self.flight = 0
        self.buffered = 0
        self.peer_window = 0
        self.forward_tsn_supported = False
        self.forward_tsn_due = False
        self.t3: float | None = None
        self._window_shut = False
        """So said the last SACK."""
        self.errors = 0
        self._streams: dict[int, OutStream] = {}
        self._turns: list[int] = []
        self._current: OutMessage | None = None
        self._outstanding: dict[int, OutChunk] = {}
        self._marked: list[int] = []
        self._gaps: list[Range] = []
        self._partial_bytes_acked = 0
        self._recovery_exit: int | None = None
        self._fast_budget = 0
        self._window_full = False
        self._rtt_probe: tuple[int, float] | None = None
        self._last_sent = 0.0
        self._probe: OutChunk | None = None

    # -- queue ------------------------------------------------------------------------------------------------------

    def enqueue(self, message: OutMessage) -> None:
        stream = self._streams.get(message.stream)
        if stream is None:
            stream = self._streams[message.stream] = OutStream()
        stream.queue.append(message)
        stream.buffered += len(message.data)
        self.buffered += len(message.data)
        if not stream.active:
            stream.active = True
            self._turns.append(message.stream)

    def stream_buffered(self, stream: int) -> int:
        state = self._streams.get(stream)
        return state.buffered if state is not None else 0

    def stream_drained(self, stream: int) -> bool:
        """Every message of the stream has its TSNs: a reset may name the last one (RFC 6525 section 5.1.2)."""
        state = self._streams.get(stream)
        current = self._current
        return (state is None or not state.queue) and (current is None or current.stream != stream)

    def reset_stream(self, stream: int) -> None:
        state = self._streams.get(stream)
        if state is not None:
            state.next_ssn = 0

    def discard_stream(self, stream: int) -> None:
        """Drop what has no TSN yet: the peer closed the channel."""
        state = self._streams.get(stream)
        if state is not None:
            for message in state.queue:
                self._release(message.stream, len(message.data))
            state.queue.clear()

    @property
    def idle(self) -> bool:
        """Nothing outstanding, nothing queued: a shutdown may go on (RFC 9260 section 9.2)."""
        return not self._outstanding and self._current is None and not any(s.queue for s in self._streams.values())

    def _release(self, stream: int, size: int) -> None:
        self._streams[stream].buffered -= size
        self.buffered -= size

    # -- what to send next ------------------------------------------------------------------------------------------

    def poll(self, now: float) -> OutChunk | None:
        """The next chunk to put into a packet, or None. It counts as sent."""
        chunk = self._next_marked(now)
        if chunk is None:
            # Noted here, not when a SACK comes: of a burst of SACKs only the first would find the window full.
            self._window_full = self.flight + self._mtu > self.cwnd
            if self._marked or self.flight >= self.cwnd:
                return None
            if self.flight == 0 and now - self._last_sent > self.rto.value:
                # RFC 9260 section 7.2.1: an idle sender has lost its ack clock
                self.cwnd = max(self.cwnd // 2, min(self.cwnd, 4 * self._mtu))
            chunk = self._next_new(now)
            if chunk is None:
                return None
        if self.peer_window < chunk.size:
            self._probe = chunk
        chunk.in_flight = True
        chunk.misses = 0
        chunk.transmissions += 1
        self.flight += chunk.size
        self.peer_window = max(0, self.peer_window - chunk.size)
        self._last_sent = now
        if self.t3 is None or chunk.tsn == self.cumulative + 1:
            self._start_t3(now)  # also when the first outstanding chunk goes again, RFC 9260 section 7.2.4 item 4
        return chunk

    def _next_marked(self, now: float) -> OutChunk | None:
        while self._marked:
            chunk = self._outstanding.get(self._marked[0])
            if chunk is None or chunk.acked or chunk.abandoned or chunk.in_flight:
                heapq.heappop(self._marked)
                continue
            if self._expired(chunk.message, now):
                self._abandon(chunk.message)
                continue
            if self._fast_budget >= chunk.size:
                self._fast_budget -= chunk.size  # RFC 9260 section 7.2.4 item 3: the first packet ignores cwnd
            elif self.flight and (self.flight + chunk.size > self.cwnd or self.peer_window < chunk.size):
                return None
            heapq.heappop(self._marked)
            if self._rtt_probe is not None and self._rtt_probe[0] == chunk.tsn:
                self._rtt_probe = None  # Karn's rule, RFC 9260 section 6.3.1 C5
            return chunk
        return None

    def _next_new(self, now: float) -> OutChunk | None:
        message = self._current or self._next_message(now)
        if message is not None and message.offset and self._expired(message, now):
            self._abandon(message)
            message = self._next_message(now)
        if message is None:
            return None
        self._current = message
        size = min(len(message.data) - message.offset, self.max_payload)
        if size > self.peer_window and self._outstanding:
            return None  # with nothing outstanding one chunk probes a closed window, RFC 9260 section 6.1 A
        if self.next_tsn - self.cumulative > self._limits.max_tsn_span:
            return None
        return self._fragment(message, size, now)

    def _next_message(self, now: float) -> OutMessage | None:
        while self._turns:
            number = self._turns.pop(0)
            stream = self._streams[number]
            while stream.queue:
                message = stream.queue.popleft()
                if self._expired(message, now):
                    self._counters.count("sctp.expired_unsent")
                    self._release(number, len(message.data))
                    continue
                if stream.queue:
                    self._turns.append(number)
                else:
                    stream.active = False
                if not message.unordered:
                    message.ssn = stream.next_ssn
                    stream.next_ssn = (stream.next_ssn + 1) & 0xFFFF
                return message
            stream.active = False
        return None

    def _fragment(self, message: OutMessage, size: int, now: float) -> OutChunk:
        start, end = message.offset, message.offset + size
        flags = UNORDERED if message.unordered else 0
        if start == 0:
            flags |= BEGIN
        if end == len(message.data):
            flags |= END
            self._current = None
        if self.peer_window - size < self.max_payload:
            # RFC 7053 section 4.1: the peer's window stops us here, and only a SACK opens it. A peer that delays its
            # SACKs would have us wait 200 ms for each window.
            flags |= IMMEDIATE
        tsn = self.next_tsn
        self.next_tsn = tsn + 1
        data = message.data if size == len(message.data) else message.data[start:end]
        wire = build_data(tsn & TSN_MASK, message.stream, message.ssn, message.ppid, flags, data)
        chunk = OutChunk(tsn, message, size, wire)
        self._outstanding[tsn] = chunk
        message.offset = end
        if flags & END:
            message.data = b""  # the chunks hold it now
        if message.partial:
            message.chunks.append(chunk)
        if self._rtt_probe is None:
            self._rtt_probe = (tsn, now)
        return chunk

    # -- giving up --------------------------------------------------------------------------------------------------

    def _expired(self, message: OutMessage, now: float) -> bool:
        return message.expires is not None and now >= message.expires and self.forward_tsn_supported

    def _abandon(self, message: OutMessage) -> None:
        """RFC 3758 section 3.5 A3: all fragments at once."""
        self._counters.count("sctp.message_abandoned")
        message.abandoned = True
        for chunk in message.chunks:
            if not chunk.acked and not chunk.abandoned:
                chunk.abandoned = True
                self._leave_flight(chunk)
                self._release(message.stream, chunk.size)
        if self._current is message:
            # Its end never had a TSN. One that is never sent stands for the rest, so that the FORWARD TSN names the
            # message even when every fragment sent so far was acknowledged.
            self._current = None
            self._release(message.stream, len(message.data) - message.offset)
            self._outstanding[self.next_tsn] = OutChunk(self.next_tsn, message, 0, b"", abandoned=True)
            self.next_tsn += 1
        message.chunks.clear()
        message.data = b""
        self._advance()

    def _advance(self) -> None:
        """Move Advanced.Peer.Ack.Point (RFC 3758 section 3.5 C2) past what was given up or has arrived."""
        tsn = max(self.advanced, self.cumulative)
        self.advanced = tsn
        while (chunk := self._outstanding.get(tsn + 1)) is not None and (chunk.abandoned or chunk.acked):
            tsn += 1
            if chunk.abandoned:
                self.advanced = tsn
        if self.advanced > self.cumulative:
            self.forward_tsn_due = True

    def build_forward_tsn(self, now: float) -> bytes | None:
        self.forward_tsn_due = False
        if self.advanced <= self.cumulative:
            return None
        skipped: dict[int, int] = {}
        last = self.cumulative
        for tsn in range(self.cumulative + 1, self.advanced + 1):
            chunk = self._outstanding[tsn]
            if chunk.abandoned and not chunk.message.unordered:
                if len(skipped) >= MAX_SKIPPED and chunk.message.stream not in skipped:
                    break
                skipped[chunk.message.stream] = chunk.message.ssn
            last = tsn
        if self.t3 is None:
            self._start_t3(now)
        return build_forward_tsn(last & TSN_MASK, list(skipped.items()))

    # -- SACK -------------------------------------------------------------------------------------------------------

    def receive_sack(self, sack: Sack, now: float) -> None:
        offset = (sack.cumulative - self.cumulative) & TSN_MASK
        if offset >= TSN_HALF:
            self._counters.count("sctp.sack_old")
            return
        cumulative = self.cumulative + offset
        if cumulative >= self.next_tsn:
            self._counters.count("sctp.sack_beyond")
            return
        acked = self._acknowledge_cumulative(cumulative, now) if offset else 0
        newly, highest = self._acknowledge_gaps(cumulative, sack.blocks, now)
        acked += newly
        if self._recovery_exit is not None and cumulative >= self._recovery_exit:
            self._recovery_exit = None
        if acked or sack.window < self._mtu:
            # RFC 9260 section 6.1 A: a peer that keeps its window shut but answers is not a dead one.
            self.errors = 0
        if acked:
            self._grow(acked, bool(offset))
        if highest or (self._recovery_exit is not None and offset and self._gaps):
            self._count_misses(highest, bool(offset), now)
        self._window_opened(sack.window, acked, now)
        self._window_shut = sack.window < self._mtu
        self.peer_window = max(0, sack.window - self.flight)
        if self.forward_tsn_supported:
            self._advance()
        if not self._outstanding:
            self.t3 = None
        elif offset:
            self._start_t3(now)

    def receive_cumulative(self, wire_tsn: int, now: float) -> None:
        """The cumulative ack of a SHUTDOWN, which has no gap blocks: those known stay (RFC 9260 section 9.2)."""
        base = self.cumulative + ((wire_tsn - self.cumulative) & TSN_MASK)
        blocks = tuple((max(start - base, 2), end - base) for start, end in self._gaps if end - base >= 2)
        self.receive_sack(Sack(wire_tsn, self.peer_window + self.flight, blocks), now)

    def _window_opened(self, window: int, acked: int, now: float) -> None:
        """A probe that was refused for want of window goes again at once, not after the backed-off T3."""
        probe, self._probe = self._probe, None
        if probe is None or not probe.in_flight:
            return
        if window < self._mtu or acked:
            self._probe = probe
        else:
            self._mark(probe, now)

    def _start_t3(self, now: float) -> None:
        # What fills a window asks for its SACK at once, so nobody delays that.
        delayed = self.flight <= self._mtu and not self._window_shut
        self.t3 = now + self.rto.value + (SACK_DELAY_ALLOWANCE if delayed else 0.0)

    def _acknowledge_cumulative(self, cumulative: int, now: float) -> int:
        acked = 0
        for tsn in range(self.cumulative + 1, cumulative + 1):
            acked += self._acknowledge(self._outstanding.pop(tsn), now)
        self.cumulative = cumulative
        return acked

    def _acknowledge(self, chunk: OutChunk, now: float) -> int:
        """Bytes newly acknowledged."""
        if chunk.acked or chunk.abandoned:
            return 0
        chunk.acked = True
        self._leave_flight(chunk)
        self._release(chunk.message.stream, chunk.size)
        if self._rtt_probe is not None and self._rtt_probe[0] <= chunk.tsn:
            if self._rtt_probe[0] == chunk.tsn and chunk.transmissions == 1:
                self.rto.sample(now - self._rtt_probe[1])
            self._rtt_probe = None
        return chunk.size

    def _leave_flight(self, chunk: OutChunk) -> None:
        if chunk.in_flight:
            chunk.in_flight = False
            self.flight -= chunk.size

    def _acknowledge_gaps(self, cumulative: int, blocks: tuple[Range, ...], now: float) -> tuple[int, int]:
        """Bytes newly acknowledged, and the highest TSN newly acknowledged (0: none)."""
        if not blocks and not self._gaps:
            return 0, 0
        fresh: list[Range] = []
        previous_end = 1
        for start, end in blocks:
            # Ascending, apart from each other and only what was sent; the rest of a list that is not is ignored.
            if start <= previous_end or end < start or cumulative + end >= self.next_tsn:
                self._counters.count("sctp.sack_blocks")
                break
            fresh.append((cumulative + start, cumulative + end))
            previous_end = end
        known = [(max(start, cumulative + 1), end) for start, end in self._gaps if end > cumulative]
        acked = highest = 0
        for start, end in subtract(fresh, known):
            for tsn in range(start, end + 1):
                acked += self._acknowledge(self._outstanding[tsn], now)
            highest = end
        for start, end in subtract(known, fresh):
            for tsn in range(start, end + 1):
                self._renege(self._outstanding[tsn])
        self._gaps = fresh
        return acked, highest

    def _renege(self, chunk: OutChunk) -> None:
        """RFC 9260 section 6.2.1: the peer took a gap block back."""
        if chunk.acked and not chunk.abandoned:
            self._counters.count("sctp.reneged")
            chunk.acked = False
            self._streams[chunk.message.stream].buffered += chunk.size
            self.buffered += chunk.size
            if chunk.message.abandoned:
                chunk.abandoned = True
                self._release(chunk.message.stream, chunk.size)
            else:
                heapq.heappush(self._marked, chunk.tsn)

    def _grow(self, acked: int, cumulative_moved: bool) -> None:
        """RFC 9260 sections 7.2.1 and 7.2.2. Only a full window may grow, and none during fast recovery."""
        if self._recovery_exit is not None or not cumulative_moved:
            return
        if self.cwnd <= self.ssthresh:
            if self._window_full:
                self.cwnd += min(acked, 2 * self._mtu)
        else:
            self._partial_bytes_acked += acked
            if self._partial_bytes_acked >= self.cwnd:
                if self._window_full:
                    self._partial_bytes_acked -= self.cwnd
                    self.cwnd += self._mtu
                else:
                    self._partial_bytes_acked = self.cwnd
        if not self.flight:
            self._partial_bytes_acked = 0
        self.cwnd = min(self.cwnd, self._limits.max_cwnd)

    def _count_misses(self, highest: int, cumulative_moved: bool, now: float) -> None:
        """RFC 9260 section 7.2.4: strike every hole below the highest newly acknowledged TSN."""
        if self._recovery_exit is not None and cumulative_moved:
            highest = self._gaps[-1][1]
        lost: list[OutChunk] = []
        position = self.cumulative + 1
        for start, end in self._gaps:
            for tsn in range(position, min(start, highest)):
                chunk = self._outstanding[tsn]
                if chunk.in_flight:
                    chunk.misses += 1
                    if chunk.misses >= FAST_RETRANSMIT_MISSES and not chunk.fast_retransmitted:
                        lost.append(chunk)
            position = end + 1
            if position > highest:
                break
        if lost:
            self._fast_retransmit(lost, now)

    def _fast_retransmit(self, lost: list[OutChunk], now: float) -> None:
        self._counters.count("sctp.fast_retransmit", len(lost))
        if self._recovery_exit is None:
            self.ssthresh = max(self.cwnd // 2, 4 * self._mtu)
            self.cwnd = self.ssthresh
            self._partial_bytes_acked = 0
            self._recovery_exit = self.next_tsn - 1
            self._fast_budget = self.max_payload
        for chunk in lost:
            chunk.fast_retransmitted = True
            self._mark(chunk, now)

    def _mark(self, chunk: OutChunk, now: float) -> None:
        self._leave_flight(chunk)
        message = chunk.message
        limit = message.max_retransmits
        exhausted = limit is not None and chunk.transmissions > limit and self.forward_tsn_supported
        if exhausted or self._expired(message, now):
            if not message.abandoned:
                self._abandon(message)
        else:
            heapq.heappush(self._marked, chunk.tsn)

    # -- T3-rtx -----------------------------------------------------------------------------------------------------

    def handle_t3(self, now: float) -> None:
        """RFC 9260 section 6.3.3. The caller looks at `errors` afterwards."""
        self.t3 = None
        self.errors += 1
        self._counters.count("sctp.t3")
        self.ssthresh = max(self.cwnd // 2, 4 * self._mtu)
        self.cwnd = self._mtu
        self._partial_bytes_acked = 0
        self._recovery_exit = None
        self._fast_budget = 0
        self._rtt_probe = None
        # RFC 9260 section 6.1 A: what was lost met a shut window, not a full network. Peers (pion) do not say when it
        # opens, so a backed-off timer would be all that their reader ever gets.
        self.rto.back_off(PROBE_INTERVAL if self._window_shut and self.errors == 1 else math.inf)
        for chunk in list(self._outstanding.values()):
            if chunk.in_flight:
                chunk.fast_retransmitted = False
                self._mark(chunk, now)
        if self.forward_tsn_supported:
            self._advance()
        if self._outstanding:
            self._start_t3(now)


def subtract(left: list[Range], right: list[Range]) -> list[Range]:
    """The parts of `left` not in `right`. Both ascending, disjoint, ends inclusive. O(len(left) + len(right))."""
    out: list[Range] = []
    index = 0
    for start, end in left:
        while index < len(right) and right[index][1] < start:
            index += 1
        position, look = start, index
        while look < len(right) and right[look][0] <= end:
            if right[look][0] > position:
                out.append((position, right[look][0] - 1))
            position = max(position, right[look][1] + 1)
            look += 1
        if position <= end:
            out.append((position, end))
        index = max(index, look - 1)
    return out
