"""Legs of one layer that go the same way: a packet is written for all of them at once.

Of a packet on its way to N legs only the header differs, and there only numbers that are the source's plus an offset
of the leg. So the headers of all legs are two additions of large integers with a lane of 96 bits for each leg, and what
follows the header is the same octets for all. Then SRTP protects each packet where it lies, and one `sendmmsg` takes
them all. Nothing is noted per leg: see `lkactor.plane.riding`.

| octets of a lane | RTP header (RFC 3550 section 5.1)               |
|------------------|-------------------------------------------------|
| 0, 1             | version, extension, marker, payload type: fixed |
| 2, 3             | sequence number: extended - offset, modulo 2^16 |
| 4 to 7           | timestamp: source's + offset, modulo 2^32       |
| 8 to 11          | SSRC: fixed                                     |

A carry out of a number goes into octets that are not its own, and is cut off.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, NamedTuple

from lkactor.plane.inline import InlineSocket, Sender
from lkactor.plane.riding import RidingLeg, mapped
from lkactor.sfu.leg import HISTORY
from lkactor.srtp import SlotArray
from lkactor.wire.codecs import vp8

MOST_LEGS = 64
"""Of one convoy; a layer may have several."""
FEW_LEGS = 6
"""Below, one after the other is faster than all by column."""
SLOTS, SLOT_SIZE = 512, 1664
MAX_PAYLOAD = 1480
"""What a slot holds beside header, extension and trailer; a larger packet is left to refuse."""
MOST_SEGMENTS, MOST_BYTES = 64, 65000
"""Of a message."""
HEADER = 12
_LANE = Struct(">BBHII")
_SEQUENCE, _TIMESTAMP = 64, 32
"""Bits of a lane."""

_ALL, _FIRST, _SECOND, _THIRD = slice(None), slice(0, None, 3), slice(1, None, 3), slice(2, None, 3)

Logged = tuple[int, int, "vp8.Fields | None", float]
"""A packet that went out: extended sequence number, the source's timestamp, VP8 descriptor, when."""


class Packet(NamedTuple):
    """One packet of a burst, looked at once for all legs."""

    extended: int
    timestamp: int
    payload_type: int
    marker: bool
    payload: bytes | memoryview
    vp8: vp8.Fields | None


class Way(NamedTuple):
    """What all legs of a convoy have in common."""

    socket: InlineSocket
    profile: object
    """Of SRTP: packets of one size stay so."""
    abs_send_time_id: int
    playout_delay: int


class _Lanes(NamedTuple):
    """The columns of a table whose rows are the legs."""

    sequences: int
    sequence_ones: int
    sequence_mask: int
    timestamps: int
    timestamp_ones: int
    timestamp_mask: int


class _Column(NamedTuple):
    """Where the packets lie that have one place in the runs of all legs: by the three words of their headers, their
    lengths, and the octet behind the first header."""

    first: memoryview
    second: memoryview
    third: memoryview
    lengths: memoryview
    behind: int


class _Run(NamedTuple):
    """What is the same for all runs of one length, until somebody boards or alights."""

    column: _Column | None
    """Of a run of one. Those of longer ones are made each time: there are many of them, and they are needed less."""
    stride: int
    """Octets from a packet to that of the next leg."""
    contexts: Sequence[Any]
    """For every packet that of its leg."""
    messages: Any


class Convoy:
    """`legs` ride; their numbers are `newest` and so on, by their offsets."""

    def __init__(self, slots: SlotArray, layer: int, way: Way, on_alight: Callable[[], None], *, protect: bool) -> None:
        self._slots, self._protect, self._on_alight = slots, protect, on_alight
        self.layer, self.way = layer, way
        self.legs: list[RidingLeg] = []
        self.newest: int = -1
        self.timestamp: int = 0
        self.now: float = 0.0
        self.packets = self.octets = 0
        self.vp8: list[tuple[int, vp8.Fields]] = [(-1, vp8.NOTHING)] * 3
        """The last packets that had a picture id, TL0PICIDX, KEYIDX: extended sequence numbers and descriptors."""
        self.log: list[Logged | None] = [None] * HISTORY
        """By extended sequence number."""
        self._lanes: _Lanes | None = None
        self._fixed: dict[int, tuple[int, int] | None] = {}
        """By payload type, without and with the marker; None: some leg has none for it."""
        self._renumbered: list[tuple[int, RidingLeg]] = []
        """Legs whose VP8 numbers are not the source's, and their places."""
        self._runs: dict[int, _Run] = {}
        """By length."""
        elements = ([way.abs_send_time_id << 28 | 0x2000000] if way.abs_send_time_id else []) + (
            [way.playout_delay] if way.playout_delay else []
        )
        self._extension_size = 4 + 4 * len(elements) if elements else 0
        head = [0xBEDE0000 | len(elements), *elements] if elements else []
        self._extension = int.from_bytes(b"".join(word.to_bytes(4, "big") for word in head), "big")
        """The header extension: one-byte elements of three octets each (RFC 8285 section 4.2)."""
        self._stamp_unit = 1 << 32 * (len(elements) - 1) if way.abs_send_time_id else 0
        """Of abs-send-time, in it."""

    # -- who is aboard ----------------------------------------------------------------------------------------------

    def add(self, leg: RidingLeg, extended: int) -> None:
        leg.board(self, extended)
        self.legs.append(leg)
        if leg.cell is not None:
            leg.cell.riders.add(leg)
        self._lanes = None

    def remove(self, leg: RidingLeg) -> None:
        """It has alighted."""
        self.legs.remove(leg)
        if leg.cell is not None:
            leg.cell.riders.discard(leg)
        self._lanes = None
        self._on_alight()

    def can_serve(self, before: int) -> bool:
        """It has all up to `before`, so that nothing comes before what is next, and there is a way to send that."""
        return self.newest == before and not self.way.socket.divert

    def knows(self, payload_type: int) -> bool:
        """All legs have a payload type for it."""
        if self._lanes is None:
            self._settle()
        if payload_type not in self._fixed:
            self._fix(payload_type)
        return self._fixed[payload_type] is not None

    def _settle(self) -> _Lanes:
        """Work out the columns."""
        legs = self.legs
        ones = _joined((0, 0, 0, 0, 1) for _ in legs)
        self._fixed.clear()
        self._runs.clear()
        self._renumbered = [(index, leg) for index, leg in enumerate(legs) if leg.vp8.offsets != (0, 0, 0)]
        self._lanes = _Lanes(
            _joined((0, 0, -leg.munger.offset & 0xFFFF, 0, 0) for leg in legs),
            ones << _SEQUENCE,
            ones * (0xFFFF << _SEQUENCE),
            _joined((0, 0, 0, leg.munger.timestamp_offset, 0) for leg in legs),
            ones << _TIMESTAMP,
            ones * (0xFFFFFFFF << _TIMESTAMP),
        )
        return self._lanes

    def _fix(self, payload_type: int) -> tuple[int, int] | None:
        """Work out what of the headers does not change."""
        first = 0x90 if self.way.abs_send_time_id or self.way.playout_delay else 0x80
        types = [leg.payload_types.get(payload_type) for leg in self.legs]
        rows = [(first, type, 0, 0, leg.ssrc) for type, leg in zip(types, self.legs, strict=True) if type is not None]
        fixed = None
        if len(rows) == len(types):
            plain = _joined(rows)
            fixed = plain, plain | _joined((0, 0x80, 0, 0, 0) for _ in rows)
        self._fixed[payload_type] = fixed
        return fixed

    def _run_of(self, length: int, sender: Sender) -> _Run:
        slots = self._slots
        cells = [leg.cell for leg in self.legs if leg.cell is not None]
        contexts = [cell.srtp.context for cell in cells if cell.srtp is not None for _ in range(length)]
        messages = sender.prepare([cell.address for cell in cells], slots.parts, length)
        column = self._column(0, 1) if length == 1 else None
        run = self._runs[length] = _Run(column, slots.slot_size * length, contexts, messages)
        return run

    def _column(self, place: int, length: int) -> _Column:
        slots, count = self._slots, len(self.legs)
        at, step = slots.slot_size // 4 * place, slots.slot_size // 4 * length
        first, second, third = (slots.words[at + word : at + word + step * count : step] for word in range(3))
        return _Column(first, second, third, slots.lengths[place : length * count : length], 4 * at + HEADER)

    # -- packets ----------------------------------------------------------------------------------------------------

    def serve(self, packets: Sequence[Packet], stamp: int, now: float) -> None:
        """`packets`: of rising numbers, newer than `newest`, of known payload types. `stamp`: abs-send-time of now."""
        sender, log = self.way.socket.sender, self.log
        if not self.legs or sender is None:
            return
        if self._lanes is None:
            self._settle()
        extension = (self._extension + stamp * self._stamp_unit).to_bytes(self._extension_size, "big")
        count, start = len(packets), 0
        if count == 1:
            self._serve_run(packets, extension, sender)
        else:
            longest = max(1, self._slots.slots // len(self.legs)) if sender.gso else 1
            while start < count:
                end = _run_end(packets, start, longest)
                self._serve_run(packets[start:end], extension, sender)
                start = end
        for extended, timestamp, _, _, payload, fields in packets:
            log[extended & HISTORY - 1] = (extended, timestamp, fields, now)
            self.octets += len(payload)
            if fields is not None:
                _, picture, _, _, tl0, _, _, keyidx, _, _, _ = fields
                entry, last = (extended, fields), self.vp8
                if picture >= 0:
                    last[0] = entry
                if tl0 >= 0:
                    last[1] = entry
                if keyidx >= 0:
                    last[2] = entry
        self.packets += count
        self.newest, self.timestamp, self.now = extended, timestamp, now

    def _serve_run(self, packets: Sequence[Packet], extension: bytes, sender: Sender) -> None:
        """Packets that share a message: leg by leg, so that what is one leg's lies together."""
        length = len(packets)
        column, stride, contexts, messages = self._runs.get(length) or self._run_of(length, sender)
        for place, packet in enumerate(packets):
            self._write(packet, extension, column or self._column(place, length), stride)
        statuses = self._slots.protect(contexts) if self._protect else ()
        if any(statuses):
            failed = {index // length for index, status in enumerate(statuses) if status}
            self._send_around(failed, messages, packets, sender)
        else:
            sender.send(messages, 0, len(self.legs), self._slots.lengths[:length].tolist())

    def _send_around(self, failed: set[int], messages: Any, run: Sequence[Packet], sender: Sender) -> None:
        """To all but those whose packets SRTP would not protect: they count as errors and not as sent."""
        length = len(run)
        for index, leg in enumerate(self.legs):
            if index in failed:
                sender.errors += length
                leg.packets -= length
                leg.octets -= sum(len(packet.payload) for packet in run)
            else:
                sender.send(messages, index, 1, self._slots.lengths[index * length : (index + 1) * length].tolist())

    def _write(self, packet: Packet, extension: bytes, column: _Column, stride: int) -> None:
        """One packet for all legs, still open."""
        extended, timestamp, payload_type, marker, payload, fields = packet
        lanes = self._lanes or self._settle()
        sequences, sequence_ones, sequence_mask, timestamps, timestamp_ones, timestamp_mask = lanes
        fixed = self._fixed.get(payload_type) or self._fix(payload_type)
        if fixed is None:
            return
        headers = (
            fixed[marker]
            | sequences + sequence_ones * (extended & 0xFFFF) & sequence_mask
            | timestamps + timestamp_ones * timestamp & timestamp_mask
        )
        count, (first, second, third, lengths, at) = len(self.legs), column
        rest, view = extension + payload, self._slots.view
        size, end = len(rest), at + stride * count
        lengths[_ALL] = array("Q", (HEADER + size,)) * count
        octets = headers.to_bytes(HEADER * count, "big")
        if count < FEW_LEGS:
            lane = 0
            for start in range(at, end, stride):
                view[start - HEADER : start + size] = octets[lane : lane + HEADER] + rest
                lane += HEADER
        else:
            words = memoryview(octets).cast("I")
            first[_ALL], second[_ALL], third[_ALL] = words[_FIRST], words[_SECOND], words[_THIRD]
            for start in range(at, end, stride):
                view[start : start + size] = rest
        if fields is not None and self._renumbered:
            at += len(extension)
            for index, leg in self._renumbered:
                _renumber(view, at + stride * index, fields, leg.vp8.offsets)


def _joined(rows: Any) -> int:
    """One lane for each."""
    return int.from_bytes(b"".join(_LANE.pack(*row) for row in rows), "big")


def _run_end(packets: Sequence[Packet], start: int, longest: int) -> int:
    """Where the run ends that begins at `start`: equal sizes, the last may be less."""
    size = len(packets[start].payload)
    limit = min(len(packets), start + min(longest, MOST_SEGMENTS, MOST_BYTES // (size + SLOT_SIZE - MAX_PAYLOAD)))
    end = start + 1
    while end < limit:
        next_size = len(packets[end].payload)
        if next_size > size:
            break
        end += 1
        if next_size < size:
            break
    return end


def _renumber(memory: memoryview, at: int, fields: vp8.Fields, offsets: tuple[int, int, int]) -> None:
    """The numbers of a VP8 descriptor (RFC 7741 section 4.2) in a payload at `at`, as one leg has them."""
    picture, tl0, keyidx = mapped(fields, offsets)
    _, _, picture_at, wide, _, tl0_at, _, source_keyidx, keyidx_at, _, _ = fields
    if picture_at >= 0:
        if wide:
            memory[at + picture_at] = 0x80 | picture >> 8
            memory[at + picture_at + 1] = picture & 0xFF
        else:
            memory[at + picture_at] = picture & 0x7F
    if tl0_at >= 0:
        memory[at + tl0_at] = tl0
    if source_keyidx >= 0:
        memory[at + keyidx_at] = memory[at + keyidx_at] & 0xE0 | keyidx
