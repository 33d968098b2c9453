"""The event log: framing, torn tails at every byte, rotation, retention, readers at any place."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit.protocol import models
from livekit.protocol.webhook import WebhookEvent

from lkactor.journal import Gap, Journal, Limits, MemoryStore, Position, Record, StoreError, execute
from lkactor.journal.log import HEADER, OPEN, Fetch
from lkactor.journal.records import MAGIC, encode, scan
from lkactor.journal.store import Append

SMALL = Limits(segment_bytes=400, tail_records=4, total_bytes=1 << 30)


def event(number: int, room: str = "r", pad: int = 0) -> WebhookEvent:
    info = models.Room(sid=f"RM_{room}", name=room, metadata="x" * pad)
    return WebhookEvent(event="room_started", id=f"EV_{number}", created_at=number, room=info)


def write(journal: Journal, store: MemoryStore, *events: WebhookEvent, unix: float = 0.0) -> list[int]:
    batch = journal.append(events, unix)
    execute(store, batch.operations)
    journal.commit(batch)
    return [record.cursor for record in batch.records]


def drain(journal: Journal, store: MemoryStore, position: Position, limit: int = 3) -> tuple[list[Record], list[Gap]]:
    """All that a reader gets, and what it is told is missing."""
    records: list[Record] = []
    gaps: list[Gap] = []
    for _ in range(10_000):
        step = journal.read(position, limit)
        match step:
            case Fetch(name=name, offset=offset, length=length):
                try:
                    data: bytes | None = store.read(name, offset, length)
                except StoreError:
                    data = None
                gap = journal.fetched(position, data)
                gaps += [gap] if gap is not None else []
            case Gap():
                gaps.append(step)
            case ():
                return records, gaps
            case _:
                assert len(step) <= limit
                records += step
    raise AssertionError("the reader never comes to an end")


def ids(records: list[Record]) -> list[str]:
    return [record.event.id for record in records]


def names(*numbers: int) -> list[str]:
    return [f"EV_{number}" for number in numbers]


# -- framing


@given(st.lists(st.tuples(st.integers(1, 2**64 - 1), st.integers(0, 300)), max_size=6), st.binary(max_size=20))
def test_what_was_encoded_is_scanned(entries: list[tuple[int, int]], rest: bytes) -> None:
    data = b"".join(encode(cursor, event(i, pad=pad).SerializeToString()) for i, (cursor, pad) in enumerate(entries))
    found = scan(data)
    assert [record.cursor for record in found.records] == [cursor for cursor, _ in entries]
    assert (found.consumed, found.damaged) == (len(data), False)
    again = scan(data + rest)
    assert again.records[: len(entries)] == found.records


@given(st.binary(max_size=400))
def test_any_bytes_are_scanned(data: bytes) -> None:
    found = scan(data)
    assert found.consumed <= len(data)
    for record in found.records:
        assert record.size > 8


def test_zeros_are_no_record() -> None:
    assert scan(bytes(64)) == scan(bytes(8))
    assert scan(bytes(64)).damaged


@pytest.mark.parametrize("flip", range(40))
def test_a_flipped_bit_is_found(flip: int) -> None:
    data = bytearray(encode(7, event(1).SerializeToString()) + encode(8, event(2).SerializeToString()))
    data[flip] ^= 0x10
    assert scan(bytes(data)).records == ()


def test_an_event_that_is_too_large_is_dropped_and_counted() -> None:
    store = MemoryStore()
    journal = Journal.open(store, 1.0)
    huge = event(1, pad=33 * 1024 * 1024)
    cursors = write(journal, store, huge, event(2))
    assert len(cursors) == 1
    assert journal.counters == {"journal.event_too_large": 1}
    assert ids(drain(journal, store, journal.position(0))[0]) == names(2)


# -- torn tails


def test_a_torn_tail_at_every_byte_costs_one_record_and_nothing_else() -> None:
    store = MemoryStore()
    journal = Journal.open(store, 5.0)
    cursors = write(journal, store, event(1), event(2), event(3), unix=5.0)
    (name,) = [n for n in store.names() if n != OPEN]
    whole = store.read(name)
    sizes = [HEADER]
    for record in scan(whole[HEADER:]).records:
        sizes.append(sizes[-1] + record.size)
    for cut in range(len(whole) + 1):
        left = MemoryStore()
        left.replace(OPEN, store.read(OPEN))
        left.append(name, whole[:cut])
        after = Journal.open(left, 5.0)
        complete = sum(size <= cut for size in sizes[1:])
        records, gaps = drain(after, left, after.position(0))
        assert ids(records) == names(1, 2, 3)[:complete], cut
        assert gaps == []
        new = write(after, left, event(9), unix=6.0)
        assert new[0] > (cursors[complete - 1] if complete else 0)
        assert ids(drain(after, left, after.position(0))[0]) == names(1, 2, 3)[:complete] + names(9), cut
        third = Journal.open(left, 7.0)
        assert ids(drain(third, left, third.position(0))[0]) == names(1, 2, 3)[:complete] + names(9), cut


def test_damage_in_the_middle_is_told_to_readers() -> None:
    store = MemoryStore()
    journal = Journal.open(store, 5.0, SMALL)
    cursors = write(journal, store, *(event(n) for n in range(30)))
    first = min(n for n in store.names() if n != OPEN)
    store.files[first][HEADER + 60] ^= 1
    records, gaps = drain(journal, store, journal.position(0))
    assert len(gaps) == 1
    assert gaps[0].after < records[1].cursor
    missing = [c for c in cursors if c not in {record.cursor for record in records}]
    assert missing
    assert all(gaps[0].after < cursor < gaps[0].before for cursor in missing)
    again = Journal.open(store, 6.0, SMALL)
    assert drain(again, store, again.position(0))[0] == records


def test_a_segment_whose_head_is_torn_is_passed_over() -> None:
    store = MemoryStore()
    journal = Journal.open(store, 5.0)
    write(journal, store, event(1))
    store.append("events-00000000009999999999.log", MAGIC[:5])
    store.append("notes.txt", b"not ours")
    again = Journal.open(store, 6.0)
    assert again.counters == {"journal.bad_segment": 1}
    assert ids(drain(again, store, again.position(0))[0]) == names(1)


# -- cursors


def test_cursors_rise_over_restarts_even_when_the_clock_goes_back() -> None:
    store = MemoryStore()
    seen: list[int] = []
    for unix in (1000.0, 2000.0, 500.0, 500.0, 0.0):
        journal = Journal.open(store, unix)
        seen += write(journal, store, event(1), event(2), unix=unix)
    assert seen == sorted(set(seen))
    assert seen[0] == 1_000_000
    assert seen[2] == 2_000_000


def test_a_cursor_of_another_log_is_noticed() -> None:
    lost = MemoryStore()
    old = Journal.open(lost, 1000.0)
    cursor = write(old, lost, event(1))[0]
    fresh = MemoryStore()
    journal = Journal.open(fresh, 2000.0)
    write(journal, fresh, event(2), event(3), unix=2000.0)
    records, gaps = drain(journal, fresh, journal.position(cursor))
    assert ids(records) == names(2, 3)
    assert gaps == [Gap(cursor, records[0].cursor)]
    _, gaps = drain(journal, fresh, journal.position(10**15))
    assert gaps == [Gap(10**15, records[-1].cursor + 1)]


def test_readers_of_now_and_of_the_last() -> None:
    store = MemoryStore()
    journal = Journal.open(store, 1.0)
    write(journal, store, *(event(n) for n in range(20)))
    now = journal.position()
    assert drain(journal, store, now) == ([], [])
    write(journal, store, event(20))
    assert ids(drain(journal, store, now)[0]) == names(20)
    assert ids(drain(journal, store, journal.position_of_last(3))[0]) == names(18, 19, 20)
    assert len(drain(journal, store, journal.position_of_last(1000))[0]) == 21
    fives = set(names(5, 10, 15))
    of_some = journal.position_of_last(2, lambda record: record.event.id in fives)
    assert ids(drain(journal, store, of_some)[0])[:6] == names(10, 11, 12, 13, 14, 15)
    assert len(drain(journal, store, journal.position_of_last(9, lambda record: record.event.id in fives))[0]) == 21
    again = Journal.open(store, 2.0)
    assert ids(drain(again, store, again.position_of_last(2))[0]) == names(19, 20)
    assert drain(again, store, again.position())[0] == []


# -- rotation and retention


def test_it_rotates_by_size_and_age() -> None:
    store = MemoryStore()
    journal = Journal.open(store, 1.0, SMALL)
    write(journal, store, *(event(n) for n in range(50)), unix=1.0)
    segments = sorted(n for n in store.names() if n != OPEN)
    assert len(segments) > 5
    assert all(store.size(n) <= SMALL.segment_bytes for n in segments)
    write(journal, store, event(50), unix=1.0 + 2 * 86400)
    assert len([n for n in store.names() if n != OPEN]) == len(segments) + 1
    assert ids(drain(journal, store, journal.position(0))[0]) == names(*range(51))


def test_an_event_larger_than_a_segment_and_than_a_read_has_one_of_its_own() -> None:
    store = MemoryStore()
    journal = Journal.open(store, 1.0, SMALL)
    write(journal, store, event(1), event(2, pad=600_000), event(3), *(event(n) for n in range(4, 12)))
    assert ids(drain(journal, store, journal.position(0))[0]) == names(*range(1, 12))


def test_retention_by_size_removes_the_oldest_and_says_so_to_who_was_behind() -> None:
    limits = Limits(segment_bytes=400, total_bytes=1000, tail_records=4)
    store = MemoryStore()
    journal = Journal.open(store, 1.0, limits)
    behind = write(journal, store, event(0), unix=1.0)[0]
    write(journal, store, *(event(n) for n in range(1, 60)), unix=1.0)
    assert sum(store.size(n) for n in store.names() if n != OPEN) <= 1000 + 400
    assert journal.counters["journal.segments_removed"] > 5
    records, gaps = drain(journal, store, journal.position(behind))
    assert records[-1].event.id == "EV_59"
    assert gaps == [Gap(behind, records[0].cursor)]
    records, gaps = drain(journal, store, journal.position(0))
    assert gaps == []
    assert len(records) > 4


def test_retention_by_age() -> None:
    limits = Limits(segment_age=10.0, max_age=100.0)
    store = MemoryStore()
    journal = Journal.open(store, 0.0, limits)
    for n in range(20):
        write(journal, store, event(n), unix=n * 20.0)
    oldest = drain(journal, store, journal.position(0))[0][0]
    assert oldest.event.created_at * 20 >= 19 * 20 - 100 - 20
    batch = journal.expire(10_000.0)
    execute(store, batch.operations)
    assert len([n for n in store.names() if n != OPEN]) == 1, "the newest stays"


def test_a_reader_whose_file_vanishes_goes_on_with_what_is_left() -> None:
    store = MemoryStore()
    journal = Journal.open(store, 1.0, SMALL)
    write(journal, store, *(event(n) for n in range(40)))
    position = journal.position(0)
    step = journal.read(position, 5)
    assert isinstance(step, Fetch)
    store.remove(step.name)
    gap = journal.fetched(position, None)
    assert gap is not None
    records, gaps = drain(journal, store, position)
    assert gaps == []
    assert records[-1].event.id == "EV_39"
    assert records[0].cursor >= gap.before


# -- failing disks


def test_events_that_could_not_be_written_are_still_read_and_the_log_goes_on_in_a_new_segment() -> None:
    store = MemoryStore()
    journal = Journal.open(store, 1.0)
    write(journal, store, event(1))
    batch = journal.append([event(2)], 1.0)
    (append,) = batch.operations
    assert isinstance(append, Append)
    store.append(append.name, append.data[:11])  # The disk was full in mid-write.
    journal.commit(batch, written=False)
    write(journal, store, event(3))
    assert ids(drain(journal, store, journal.position(0))[0]) == names(1, 2, 3)
    assert journal.counters["journal.write_failed"] == 1
    again = Journal.open(store, 2.0)
    assert ids(drain(again, store, again.position(0))[0]) == names(1, 3)


# -- any history


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int]]:
    step = st.tuples(st.sampled_from(["append", "append", "restart", "tear", "read"]), st.integers(0, 200))
    return draw(st.lists(step, max_size=25))


@settings(max_examples=150, deadline=None)
@given(histories(), st.integers(1, 5))
def test_a_reader_gets_what_was_committed_once_and_in_order(history: list[tuple[str, int]], limit: int) -> None:
    store = MemoryStore()
    journal = Journal.open(store, 10.0, SMALL)
    cursor, wanted, got, number = 0, [], [], 0
    position = journal.position(0)
    for what, size in history:
        match what:
            case "append":
                events = [event(number + i, pad=size) for i in range(1 + size % 4)]
                number += len(events)
                wanted += write(journal, store, *events, unix=10.0)
            case "read":
                records, gaps = drain(journal, store, position, limit)
                assert gaps == []
                got += [record.cursor for record in records]
                cursor = got[-1] if got else 0
            case "restart":
                journal = Journal.open(store, 10.0, SMALL)
                position = journal.position(cursor)
            case _:
                # Killed in mid-write: a prefix of a batch that nobody has seen.
                batch = journal.append([event(999, pad=size)], 10.0)
                for operation in batch.operations:
                    if isinstance(operation, Append) and operation is batch.operations[-1]:
                        store.append(operation.name, operation.data[: size % len(operation.data)])
                    else:
                        execute(store, [operation])
                journal = Journal.open(store, 10.0, SMALL)
                position = journal.position(cursor)
    records, gaps = drain(journal, store, position, limit)
    got += [record.cursor for record in records]
    assert gaps == []
    assert got == wanted


def test_position_at_every_cursor_reads_the_rest() -> None:
    store = MemoryStore()
    journal = Journal.open(store, 1.0, SMALL)
    cursors = write(journal, store, *(event(n) for n in range(25)))
    for log in (journal, Journal.open(store, 2.0, SMALL)):
        for index, cursor in enumerate(cursors):
            records, gaps = drain(log, store, log.position(cursor))
            assert ids(records) == names(*range(index + 1, 25))
            assert gaps == []
