"""The receiving half: which TSNs came, what the SACK says, fragments to messages, messages to their order.

RFC 9260 sections 6.2 (SACK), 6.5 to 6.7 (order, gaps), 6.9 (reassembly); RFC 3758 section 3.6 (FORWARD TSN).
TSNs are unwrapped: Python integers that never wrap, `& TSN_MASK` on the wire.

Bounds: the window in bytes (each chunk counts at least `MIN_CHARGE`), `max_tsn_span` TSNs above the cumulative one,
`max_gap_ranges` separate ranges, `max_message_size` and as many fragments as a message of that size may need.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from lkactor.counters import Counters
from lkactor.errors import ProtocolViolation
from lkactor.sctp.chunks import BEGIN, END, IMMEDIATE, TSN_HALF, TSN_MASK, UNORDERED, Sack
from lkactor.sctp.events import SctpLimits

MIN_CHARGE = 64
"""What a chunk costs the window at least, so that a million one-byte chunks are not a megabyte."""
MAX_DUPLICATES = 16
MAX_BLOCKS = 256
"""Gap blocks per SACK: 1 KiB, so that it fits a packet."""


@dataclass(slots=True)
class Message:
    """data None: given up (too large) but its place in the order still counts."""

    stream: int
    ssn: int
    ppid: int
    data: bytes | None
    charge: int = 0


@dataclass(slots=True)
class _Run:
    """Consecutive fragments of one message, from `start` to `end` (TSNs, inclusive)."""

    start: int
    end: int
    flags: int
    stream: int
    ssn: int
    ppid: int
    parts: list[bytes]
    size: int
    count: int = 1
    charge: int = 0


@dataclass(slots=True)
class _Order:
    next_ssn: int = 0
    waiting: dict[int, Message] = field(default_factory=dict)


class Receiver:
    def __init__(self, initial_tsn: int, limits: SctpLimits, counters: Counters) -> None:
        self.cumulative = initial_tsn - 1 + (1 << 32)  # room below, so that an old TSN unwraps to a positive number
        self.buffered = 0
        self._limits = limits
        self._counters = counters
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._runs_by_start: dict[int, _Run] = {}
        self._runs_by_end: dict[int, _Run] = {}
        self._orders: dict[int, _Order] = {}
        self._ready: list[Message] = []
        self._duplicates: list[int] = []
        self.oversized: list[int] = []
        """Streams on which a message was too large, to be closed by the association."""
        self.unacknowledged_packets = 0
        self.sack_now = False
        self.has_gaps = False

    def unwrap(self, tsn: int) -> int:
        offset = (tsn - self.cumulative) & TSN_MASK
        return self.cumulative + (offset if offset < TSN_HALF else offset - TSN_MASK - 1)

    def take_messages(self) -> list[Message]:
        ready, self._ready = self._ready, []
        return ready

    # -- DATA -------------------------------------------------------------------------------------------------------

    def receive(self, flags: int, wire_tsn: int, stream: int, ssn: int, ppid: int, data: bytes, room: int) -> bool:
        """One DATA chunk. room: bytes the window still offers. False: it was not kept (duplicate or no room).

        Raises ProtocolViolation when fragments contradict each other; the association is to be aborted then.
        """
        tsn = self.unwrap(wire_tsn)
        if flags & IMMEDIATE:
            self.sack_now = True
        if tsn <= self.cumulative or (self._starts and self._in_gap_range(tsn)):
            self._duplicate(wire_tsn)
            return False
        highest = self._ends[-1] if self._ends else self.cumulative
        if tsn > highest and room < len(data):
            # The peer went past the window, or probes a closed one (RFC 9260 section 6.1 A): the SACK tells it so.
            self._counters.count("sctp.beyond_window")
            self.sack_now = True
            return False
        in_sequence = tsn == self.cumulative + 1
        if not self._record(tsn):
            return False
        if flags & (BEGIN | END) == BEGIN | END:
            if (tsn - 1) in self._runs_by_end or (tsn + 1) in self._runs_by_start:
                self._check_boundaries(tsn)
            self._complete(flags, Message(stream, ssn, ppid, data))
        else:
            self._fragment(_Run(tsn, tsn, flags, stream, ssn, ppid, [data], len(data)), in_sequence)
        return True

    def acknowledge_only(self, wire_tsn: int) -> None:
        """A chunk that counts as arrived and is not delivered (RFC 9260 section 6.5)."""
        tsn = self.unwrap(wire_tsn)
        if tsn <= self.cumulative or self._in_gap_range(tsn):
            self._duplicate(wire_tsn)
        else:
            self._record(tsn)

    def _in_gap_range(self, tsn: int) -> bool:
        index = bisect_right(self._starts, tsn) - 1
        return index >= 0 and tsn <= self._ends[index]

    def _duplicate(self, wire_tsn: int) -> None:
        self._counters.count("sctp.duplicate_tsn")
        self.sack_now = True  # RFC 9260 section 6.2: a duplicate is answered at once
        if len(self._duplicates) < MAX_DUPLICATES:
            self._duplicates.append(wire_tsn)

    def _record(self, tsn: int) -> bool:
        """Note the TSN; False: it would make too much to remember."""
        starts, ends = self._starts, self._ends
        if tsn == self.cumulative + 1:
            self.cumulative = tsn
            if starts:
                self.sack_now = True
                if starts[0] == tsn + 1:
                    self.cumulative = ends[0]
                    del starts[0], ends[0]
                self.has_gaps = bool(starts)
            return True
        self.sack_now = True
        if tsn - self.cumulative > self._limits.max_tsn_span:
            self._counters.count("sctp.tsn_span")
            return False
        index = bisect_right(starts, tsn)
        joins_left = index > 0 and ends[index - 1] == tsn - 1
        joins_right = index < len(starts) and starts[index] == tsn + 1
        if joins_left and joins_right:
            ends[index - 1] = ends[index]
            del starts[index], ends[index]
        elif joins_left:
            ends[index - 1] = tsn
        elif joins_right:
            starts[index] = tsn
        elif len(starts) >= self._limits.max_gap_ranges:
            self._counters.count("sctp.gap_ranges")
            return False
        else:
            starts.insert(index, tsn)
            ends.insert(index, tsn)
        self.has_gaps = True
        return True

    # -- reassembly -------------------------------------------------------------------------------------------------

    def _check_boundaries(self, tsn: int) -> None:
        left, right = self._runs_by_end.get(tsn - 1), self._runs_by_start.get(tsn + 1)
        if (left is not None and not left.flags & END) or (right is not None and not right.flags & BEGIN):
            raise ProtocolViolation("sctp.fragments_interleaved")

    def _fragment(self, run: _Run, in_sequence: bool) -> None:
        run.charge = max(run.size, MIN_CHARGE)
        self.buffered += run.charge
        left = self._runs_by_end.get(run.start - 1)
        right = self._runs_by_start.get(run.end + 1)
        if (left is not None and bool(left.flags & END) != bool(run.flags & BEGIN)) or (
            right is not None and bool(right.flags & BEGIN) != bool(run.flags & END)
        ):
            raise ProtocolViolation("sctp.fragments_interleaved")
        if left is None and in_sequence and not run.flags & BEGIN:
            # The start was skipped by a FORWARD TSN or never existed: this can never become a message.
            self._counters.count("sctp.orphan_fragment")
            self.buffered -= run.charge
            if right is not None and not run.flags & END:
                self._forget(right)
            return
        if left is not None and not run.flags & BEGIN:
            run = self._join(left, run)
        else:
            self._runs_by_start[run.start] = self._runs_by_end[run.end] = run
        if right is not None and not run.flags & END:
            run = self._join(run, right)
        if run.flags & (BEGIN | END) == BEGIN | END:
            self._forget(run)
            data = b"".join(run.parts) if run.parts else None
            self._complete(run.flags, Message(run.stream, run.ssn, run.ppid, data))

    def _join(self, left: _Run, right: _Run) -> _Run:
        if (left.stream, left.flags & UNORDERED) != (right.stream, right.flags & UNORDERED):
            raise ProtocolViolation("sctp.fragments_mismatch")
        if not left.flags & UNORDERED and left.ssn != right.ssn:
            raise ProtocolViolation("sctp.fragments_mismatch")
        self._runs_by_start.pop(right.start, None)
        self._runs_by_end.pop(left.end, None)
        discarding = not left.parts or not right.parts
        left.end = right.end
        left.flags |= right.flags & END
        left.size += right.size
        left.count += right.count
        left.charge += right.charge
        self._runs_by_end[left.end] = left
        limit = self._limits.max_message_size
        if discarding or left.size > limit or left.count > limit // MIN_CHARGE + 1:
            if not discarding:
                self._counters.count("sctp.message_too_large")
                self.oversized.append(left.stream)
            left.parts.clear()
            self.buffered -= left.charge
            left.charge = 0
        else:
            left.parts.extend(right.parts)
        return left

    def _forget(self, run: _Run) -> None:
        self._runs_by_start.pop(run.start, None)
        self._runs_by_end.pop(run.end, None)
        self.buffered -= run.charge
        run.charge = 0

    # -- order ------------------------------------------------------------------------------------------------------

    def _complete(self, flags: int, message: Message) -> None:
        if flags & UNORDERED:
            if message.data is not None:
                self._ready.append(message)
            return
        order = self._orders.get(message.stream)
        if order is None:
            order = self._orders[message.stream] = _Order()
        if message.ssn == order.next_ssn:
            self._deliver(message)
            order.next_ssn = (order.next_ssn + 1) & 0xFFFF
            if order.waiting:
                self._drain(order)
        elif (message.ssn - order.next_ssn) & 0xFFFF >= 0x8000 or message.ssn in order.waiting:
            self._counters.count("sctp.ssn_repeated")
        else:
            message.charge = max(len(message.data or b""), MIN_CHARGE)
            self.buffered += message.charge
            order.waiting[message.ssn] = message

    def _deliver(self, message: Message) -> None:
        self.buffered -= message.charge
        if message.data is not None:
            self._ready.append(message)

    def _drain(self, order: _Order) -> None:
        while (message := order.waiting.pop(order.next_ssn, None)) is not None:
            self._deliver(message)
            order.next_ssn = (order.next_ssn + 1) & 0xFFFF

    # -- FORWARD TSN and stream reset -------------------------------------------------------------------------------

    def forward(self, wire_tsn: int, skipped: list[tuple[int, int]]) -> None:
        """RFC 3758 section 3.6."""
        self.sack_now = True
        tsn = self.unwrap(wire_tsn)
        if tsn <= self.cumulative:
            self._counters.count("sctp.forward_tsn_old")
            return
        self.cumulative = tsn
        while self._starts and self._starts[0] <= self.cumulative + 1:
            self.cumulative = max(self.cumulative, self._ends[0])
            del self._starts[0], self._ends[0]
        self.has_gaps = bool(self._starts)
        for run in [run for run in self._runs_by_start.values() if run.start <= tsn]:
            self._forget(run)
        for stream, ssn in skipped:
            self._skip(stream, ssn)

    def _skip(self, stream: int, ssn: int) -> None:
        if stream >= self._limits.max_streams:
            self._counters.count("sctp.invalid_stream")
            return
        order = self._orders.setdefault(stream, _Order())
        distance = (ssn - order.next_ssn) & 0xFFFF
        if distance >= 0x8000:
            return
        base = order.next_ssn
        for waiting in sorted((number - base) & 0xFFFF for number in order.waiting):
            if waiting <= distance:
                self._deliver(order.waiting.pop((base + waiting) & 0xFFFF))
        order.next_ssn = (ssn + 1) & 0xFFFF
        self._drain(order)

    def reset_stream(self, stream: int) -> None:
        """RFC 6525 section 5.2.2: the next ordered message has number 0. What waited can no longer be delivered."""
        order = self._orders.pop(stream, None)
        if order is not None:
            for message in order.waiting.values():
                self.buffered -= message.charge

    def streams(self) -> list[int]:
        return list(self._orders)

    # -- SACK -------------------------------------------------------------------------------------------------------

    def build_sack(self, window: int) -> bytes:
        base = self.cumulative
        blocks = []
        for start, end in zip(self._starts[:MAX_BLOCKS], self._ends[:MAX_BLOCKS], strict=True):
            blocks.append((start - base, end - base))
        sack = Sack(base & TSN_MASK, window, tuple(blocks), tuple(self._duplicates))
        self._duplicates.clear()
        self.unacknowledged_packets = 0
        self.sack_now = False
        return sack.build()
