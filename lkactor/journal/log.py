"""The append-only log of events, in segments; what is written when, what is read from where. Sans-IO.

    events-<base>.log   MAGIC, created:u64 (Unix seconds), records. `base`: every cursor in it is at least that.
    open                the ledger as it was when the newest segment began: MAGIC, base:u64, records

A run never writes into a segment of an earlier run, so a torn tail is left as it is and read up to the tear. Its first
cursor is at least the Unix time in milliseconds: no cursor is ever used twice, not even if files were lost, and a
cursor of another log is noticed. `append` says what to write, the caller writes, `commit` makes the records visible: a
reader sees nothing that the operating system does not have.
"""

from __future__ import annotations

import re
import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from livekit.protocol.webhook import WebhookEvent

from lkactor.counters import Counters
from lkactor.journal.ledger import Ledger
from lkactor.journal.records import MAGIC, Record, encode, scan
from lkactor.journal.store import Append, Operation, Remove, Replace, Store, StoreError, Sync

OPEN = "open"
_NAME = re.compile(r"events-(\d{20})\.log")
_U64 = struct.Struct(">Q")
HEADER = len(MAGIC) + _U64.size
CHUNK = 256 * 1024
"""Bytes of one read from a segment."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes and seconds. What is over is removed by whole segments, the oldest first, delivered or not."""

    segment_bytes: int = 1024 * 1024
    segment_age: float = 86400.0
    total_bytes: int = 256 * 1024 * 1024
    max_age: float = 7 * 86400.0
    tail_records: int = 2048
    """The newest events are also kept in memory: who is up to date reads no file."""
    tail_bytes: int = 2 * 1024 * 1024


@dataclass(slots=True)
class Segment:
    name: str
    base: int
    created: float
    size: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Records to be, and what makes them durable."""

    records: tuple[Record, ...]
    operations: tuple[Operation, ...]


@dataclass(frozen=True, slots=True)
class Gap:
    """Events with cursors over `after` and under `before` are gone, if there were any."""

    after: int
    before: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """Read this of the store and give it to `Position.fetched`."""

    name: str
    offset: int
    length: int


@dataclass(slots=True)
class Position:
    """Where one reader is. Made by `Journal.position`."""

    cursor: int
    """It has everything up to here."""
    segment: int = -1
    """Base of the segment that it reads; -1: none yet."""
    offset: int = HEADER
    length: int = CHUNK
    ready: deque[Record] = field(default_factory=deque)


class Journal:
    """The book-keeping of one log."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.counters = Counters()
        self.ledger = Ledger()
        self.last = 0
        """Cursor of the newest visible event."""
        self._next = 1
        self._base = 1
        """Of the next segment: there is no event between the last one on disk and it."""
        self._segments: list[Segment] = []
        self._active = False
        """The last segment is of this run and takes more."""
        self._tail: deque[Record] = deque()
        self._tail_size = 0
        self._floor = 0
        """The tail has all that is over it."""

    # -- opening ----------------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, store: Store, unix: float, limits: Limits | None = None) -> Journal:
        """What an earlier run left. `unix` in seconds. Raises StoreError if files cannot be read."""
        journal = cls(limits or Limits())
        journal._find_segments(store)
        last = journal._fold_all(store)
        journal._base = max(journal._base, last + 1)
        journal._next = max(journal._base, int(unix * 1000))
        if not journal._segments:
            journal._base = journal._next
            journal.last = journal._floor = journal._next - 1
        return journal

    def _find_segments(self, store: Store) -> None:
        for name in sorted(store.names()):
            match = _NAME.fullmatch(name)
            if match is None:
                continue
            # Also a segment without a whole record, or even head, has used up its name.
            self._base = int(match[1]) + 1
            head = store.read(name, 0, HEADER)
            if len(head) < HEADER or not head.startswith(MAGIC):
                self.counters.count("journal.bad_segment")
                continue
            created = float(_U64.unpack_from(head, len(MAGIC))[0])
            self._segments.append(Segment(name, int(match[1]), created, store.size(name)))

    def _fold_all(self, store: Store) -> int:
        """Rebuild the ledger; returns the last cursor, 0 if there is none."""
        since, last = self._read_snapshot(store), 0
        last = max(last, since - 1)
        for segment in self._segments:
            if segment.base < since and segment is not self._segments[-1]:
                continue
            found = scan(store.read(segment.name, HEADER))
            if found.damaged:
                self.counters.count("journal.damaged")
            elif HEADER + found.consumed < segment.size:
                self.counters.count("journal.torn_tail")
            last = max(last, segment.base - 1)
            for record in found.records:
                last = max(last, record.cursor)
                if record.cursor >= since:
                    self.ledger.fold(record)
            if segment is self._segments[-1]:
                self.last = self._floor = segment.base - 1
                self._show(found.records)
        return last

    def _read_snapshot(self, store: Store) -> int:
        """Base of the segment that it was made for; 0: none, every segment is read."""
        try:
            data = store.read(OPEN)
        except StoreError:
            return 0
        if len(data) < HEADER or not data.startswith(MAGIC):
            return 0
        found = scan(data[HEADER:])
        if HEADER + found.consumed < len(data):
            self.counters.count("journal.damaged")
            return 0
        for record in found.records:
            self.ledger.fold(record)
        return int(_U64.unpack_from(data, len(MAGIC))[0])

    # -- writing ----------------------------------------------------------------------------------------------------

    def append(self, events: Sequence[WebhookEvent], unix: float) -> Batch:
        """Give the events their places. `unix` in seconds. Events over the largest size are dropped and counted."""
        operations: list[Operation] = []
        records: list[Record] = []
        buffer = bytearray()
        for event in events:
            cursor = self._next
            try:
                frame = encode(cursor, event.SerializeToString())
            except ValueError:
                self.counters.count("journal.event_too_large")
                continue
            if self._must_rotate(len(frame), unix):
                self._write(operations, buffer)
                self._rotate(operations, unix)
            self._next = cursor + 1
            self._segments[-1].size += len(frame)
            buffer += frame
            record = Record(cursor, event, len(frame))
            self.ledger.fold(record)
            records.append(record)
        self._write(operations, buffer)
        return Batch(tuple(records), tuple(operations))

    def commit(self, batch: Batch, *, written: bool = True) -> None:
        """The batch was written, or could not be: then memory alone knows its events, and a new segment follows."""
        if not written:
            self._active = False
            self.counters.count("journal.write_failed", len(batch.records))
        self._show(batch.records)

    def _show(self, records: Sequence[Record]) -> None:
        for record in records:
            self._tail.append(record)
            self._tail_size += record.size
            self.last = record.cursor
        while self._tail and (len(self._tail) > self.limits.tail_records or self._tail_size > self.limits.tail_bytes):
            evicted = self._tail.popleft()
            self._tail_size -= evicted.size
            self._floor = evicted.cursor

    def expire(self, unix: float) -> Batch:
        """What is too old or too much, to be removed. `append` does this by itself whenever a segment begins."""
        operations: list[Operation] = []
        total = sum(segment.size for segment in self._segments)
        while len(self._segments) > 1:
            oldest, after = self._segments[0], self._segments[1]
            if total <= self.limits.total_bytes and after.created >= unix - self.limits.max_age:
                break
            total -= oldest.size
            del self._segments[0]
            operations.append(Remove(oldest.name))
            self.counters.count("journal.segments_removed")
        return Batch((), tuple(operations))

    def _must_rotate(self, size: int, unix: float) -> bool:
        if not self._active:
            return True
        active = self._segments[-1]
        full = active.size > HEADER and active.size + size > self.limits.segment_bytes
        return full or unix - active.created > self.limits.segment_age

    def _rotate(self, operations: list[Operation], unix: float) -> None:
        if self._active:
            operations.append(Sync(self._segments[-1].name))
        base = self._base
        name = f"events-{base:020}.log"
        created = max(0, int(unix))
        self._segments.append(Segment(name, base, float(created), HEADER))
        self._active = True
        self._base = base + 1
        snapshot = b"".join(encode(record.cursor, record.event.SerializeToString()) for record in self.ledger.records())
        operations.append(Replace(OPEN, MAGIC + _U64.pack(base) + snapshot))
        operations.append(Append(name, MAGIC + _U64.pack(created)))
        operations.extend(self.expire(unix).operations)

    def _write(self, operations: list[Operation], buffer: bytearray) -> None:
        if buffer:
            operations.append(Append(self._segments[-1].name, bytes(buffer)))
            self._base = self._next
            buffer.clear()

    def sync(self) -> Batch:
        """What puts all that was appended on the medium."""
        return Batch((), (Sync(self._segments[-1].name),) if self._active else ())

    # -- reading ----------------------------------------------------------------------------------------------------

    @property
    def oldest(self) -> int:
        """No event that is still there has a lower cursor."""
        return self._segments[0].base if self._segments else self._next

    def position(self, cursor: int | None = None) -> Position:
        """Behind `cursor`; 0: from the oldest event on; None: from now on."""
        return Position(self.last if cursor is None else max(0, cursor))

    def position_of_last(self, count: int, shows: Callable[[Record], bool] = lambda record: True) -> Position:
        """So that the newest `count` events follow of those that are shown, as far as they are in memory."""
        for record in reversed(self._tail):
            if count <= 0:
                return Position(record.cursor)
            count -= shows(record)
        return Position(self._floor)

    def read(self, position: Position, limit: int) -> tuple[Record, ...] | Fetch | Gap:
        """Up to `limit` records, and move on; () at the end. Fetch: read, say `fetched`, ask again. Gap: ask again."""
        if position.ready:
            taken = tuple(position.ready.popleft() for _ in range(min(limit, len(position.ready))))
            position.cursor = taken[-1].cursor
            return taken
        known = position.cursor
        if known > self.last:
            # Of another log: this one has never been there.
            position.cursor = self.last
            return Gap(known, self.last + 1)
        if known + 1 < self.oldest:
            position.cursor = self.oldest - 1
            if known:
                return Gap(known, self.oldest)
        if position.cursor >= self._floor:
            return self._from_tail(position, limit)
        return self._from_segments(position)

    def _from_tail(self, position: Position, limit: int) -> tuple[Record, ...]:
        newer: deque[Record] = deque()
        for record in reversed(self._tail):
            if record.cursor <= position.cursor:
                break
            newer.appendleft(record)
        taken = tuple(newer)[:limit]
        if taken:
            position.cursor = taken[-1].cursor
        return taken

    def _from_segments(self, position: Position) -> Fetch:
        segment = next((entry for entry in self._segments if entry.base == position.segment), None)
        if segment is None:
            segment = self._segments[0]
            for entry in self._segments:
                if entry.base <= position.cursor + 1:
                    segment = entry
            self._enter(position, segment)
        return Fetch(segment.name, position.offset, position.length)

    def fetched(self, position: Position, data: bytes | None) -> Gap | None:
        """The answer to a Fetch; None: the file is gone, or cannot be read."""
        if data is None:
            return self._leave(position, lost=True)
        found, at_end = scan(data), len(data) < position.length
        position.ready.extend(r for r in found.records if position.cursor < r.cursor <= self._floor)
        position.offset += found.consumed
        position.length = max(CHUNK, found.wanted)
        if found.records and found.records[-1].cursor >= self._floor:
            if not position.ready:
                position.cursor = max(position.cursor, self._floor)
            return None
        if found.damaged:
            return self._leave(position, lost=True)
        if at_end and not found.consumed:
            return self._leave(position, lost=False)
        return None

    def _leave(self, position: Position, *, lost: bool) -> Gap | None:
        """On to the next segment. What is between is gone, or was never there."""
        following = next((entry for entry in self._segments if entry.base > position.segment), None)
        before = position.ready[-1].cursor if position.ready else position.cursor
        target = self._floor if following is None else following.base - 1
        if following is not None:
            self._enter(position, following)
        if not position.ready:
            position.cursor = max(position.cursor, target)
        if lost:
            self.counters.count("journal.read_past_damage")
            return Gap(before, target + 1)
        return None

    def _enter(self, position: Position, segment: Segment) -> None:
        position.segment, position.offset, position.length = segment.base, HEADER, CHUNK
