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

MOST_LEGS = 64
"""Of one convoy; a layer may have several."""
SLOTS, SLOT_SIZE = 512, 1664
MAX_PAYLOAD = 1480
"""What a slot holds beside header, extension and trailer; a larger packet is left to refuse."""
MOST_SEGMENTS, MOST_BYTES = 64, 65000
"""Of a message."""
HEADER = 12
_LANE = Struct(">BBHII")
_MARKER, _SEQUENCE, _TIMESTAMP = 87, 64, 32
"""Bits of a lane."""

Vp8Numbers = tuple[int, int, int, bool, int, int, int]
"""Picture id, TL0PICIDX, KEYIDX, -1 without, if the picture id has 15 bits, and where in the payload they are."""
Logged = tuple[int, int, "Vp8Numbers | None", float]
"""A packet that went out: extended sequence number, the source's timestamp, VP8 numbers, when."""


class Packet(NamedTuple):
    """One packet of a burst, looked at once for all legs."""

    extended: int
    timestamp: int
    payload_type: int
    marker: bool
    payload: bytes | memoryview
    vp8: Vp8Numbers | None


class Way(NamedTuple):
    """What all legs of a convoy have in common."""

    socket: InlineSocket
    profile: object
    """Of SRTP: packets of one size stay so."""
    abs_send_time_id: int
    playout_delay: int


class _Lanes(NamedTuple):
    """The columns of a table whose rows are the legs."""

    ones: int
    sequences: int
    sequence_mask: int
    timestamps: int
    timestamp_mask: int


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
        self.vp8: list[tuple[int, Vp8Numbers]] = [(-1, (-1, -1, -1, False, -1, -1, -1))] * 3
        """The last packets that had a picture id, TL0PICIDX, KEYIDX, and their extended sequence numbers."""
        self.log: list[Logged | None] = [None] * HISTORY
        """By extended sequence number."""
        self._lanes: _Lanes | None = None
        self._fixed: dict[int, int | None] = {}
        """By payload type; None: some leg has none for it."""
        self._renumbered: list[tuple[int, RidingLeg]] = []
        """Legs whose VP8 numbers are not the source's, and their places."""
        self._contexts: dict[int, list[Any]] = {}
        self._messages: dict[int, Any] = {}
        """Both by length of a run."""

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

    def can_serve(self, extended: int) -> bool:
        """It is the next packet, and there is a way to send it."""
        return self.newest + 1 == extended and not self.way.socket.divert

    def knows(self, payload_type: int) -> bool:
        """All legs have a payload type for it."""
        if self._lanes is None:
            self._settle()
        if payload_type not in self._fixed:
            self._fixed[payload_type] = self._fixed_part(payload_type)
        return self._fixed[payload_type] is not None

    def _settle(self) -> _Lanes:
        """Work out the columns."""
        legs = self.legs
        ones = _joined((0, 0, 0, 0, 1) for _ in legs)
        self._fixed.clear()
        self._contexts.clear()
        self._messages.clear()
        self._renumbered = [(index, leg) for index, leg in enumerate(legs) if leg.vp8.offsets != (0, 0, 0)]
        self._lanes = _Lanes(
            ones,
            _joined((0, 0, -leg.munger.offset & 0xFFFF, 0, 0) for leg in legs),
            ones * (0xFFFF << _SEQUENCE),
            _joined((0, 0, 0, leg.munger.timestamp_offset, 0) for leg in legs),
            ones * (0xFFFFFFFF << _TIMESTAMP),
        )
        return self._lanes

    def _fixed_part(self, payload_type: int) -> int | None:
        first = 0x90 if self.way.abs_send_time_id or self.way.playout_delay else 0x80
        types = [leg.payload_types.get(payload_type) for leg in self.legs]
        rows = [(first, type, 0, 0, leg.ssrc) for type, leg in zip(types, self.legs, strict=True) if type is not None]
        return _joined(rows) if len(rows) == len(types) else None

    # -- packets ----------------------------------------------------------------------------------------------------

    def serve(self, packets: Sequence[Packet], stamp: int, now: float) -> None:
        """`packets`: of rising numbers, newer than `newest`, of known payload types. `stamp`: abs-send-time of now."""
        sender, log = self.way.socket.sender, self.log
        if not self.legs or sender is None:
            return
        extension, count, start = self._extension(stamp), len(packets), 0
        if count == 1:
            self._serve_run(packets, extension, sender)
        else:
            longest = max(1, self._slots.slots // len(self.legs)) if sender.gso else 1
            while start < count:
                end = _run_end(packets, start, longest)
                self._serve_run(packets[start:end], extension, sender)
                start = end
        for extended, timestamp, _, _, payload, vp8 in packets:
            log[extended & HISTORY - 1] = (extended, timestamp, vp8, now)
            self.octets += len(payload)
            if vp8 is not None:
                entry, last = (extended, vp8), self.vp8
                if vp8[0] >= 0:
                    last[0] = entry
                if vp8[1] >= 0:
                    last[1] = entry
                if vp8[2] >= 0:
                    last[2] = entry
        self.packets += count
        self.newest, self.timestamp, self.now = extended, timestamp, now

    def _extension(self, stamp: int) -> bytes:
        """The header extension of a packet: one-byte elements of three octets each (RFC 8285 section 4.2)."""
        way = self.way
        elements = b""
        if way.abs_send_time_id:
            elements = (way.abs_send_time_id << 28 | 0x2000000 | stamp).to_bytes(4, "big")
        if way.playout_delay:
            elements += way.playout_delay.to_bytes(4, "big")
        return (0xBEDE0000 | len(elements) // 4).to_bytes(4, "big") + elements if elements else b""

    def _serve_run(self, run: Sequence[Packet], extension: bytes, sender: Sender) -> None:
        """Packets that share a message: leg by leg, so that what is one leg's lies together."""
        slots, count, length = self._slots, len(self.legs), len(run)
        for place, packet in enumerate(run):
            self._write(packet, extension, place, length)
        if self._protect:
            statuses = slots.protect(self._contexts.get(length) or self._contexts_of(length))
            failed = {index // length for index, status in enumerate(statuses) if status} if any(statuses) else None
        else:
            failed = None
        messages = self._messages.get(length)
        if messages is None:
            addresses = [leg.cell.address for leg in self.legs if leg.cell is not None]
            messages = self._messages[length] = sender.prepare(addresses, slots.parts, length)
        if failed is None:
            sender.send(messages, 0, count, slots.lengths[:length].tolist())
        else:
            self._send_around(failed, messages, run, sender)

    def _contexts_of(self, length: int) -> list[Any]:
        """For every packet that of its leg."""
        senders = [leg.cell.srtp for leg in self.legs if leg.cell is not None and leg.cell.srtp is not None]
        contexts = self._contexts[length] = [sender.context for sender in senders for _ in range(length)]
        return contexts

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

    def _write(self, packet: Packet, extension: bytes, place: int, length: int) -> None:
        """One packet for all legs, the one at `place` of a run of `length`, still open."""
        slots, lanes, count = self._slots, self._lanes or self._settle(), len(self.legs)
        extended, timestamp, payload_type, marker, payload, vp8 = packet
        fixed = self._fixed[payload_type] if payload_type in self._fixed else self._fixed_part(payload_type)
        if fixed is None:
            return
        ones = lanes.ones
        headers = (
            (fixed | ones << _MARKER if marker else fixed)
            | lanes.sequences + ones * ((extended & 0xFFFF) << _SEQUENCE) & lanes.sequence_mask
            | lanes.timestamps + ones * (timestamp << _TIMESTAMP) & lanes.timestamp_mask
        )
        lane = memoryview(headers.to_bytes(HEADER * count, "big")).cast("I")
        words, step, at = slots.words, slots.slot_size // 4 * length, slots.slot_size // 4 * place
        stop = at + step * count
        words[at:stop:step] = lane[0::3]
        words[at + 1 : stop + 1 : step] = lane[1::3]
        words[at + 2 : stop + 2 : step] = lane[2::3]
        rest = b"".join((extension, payload))
        view, size = slots.view, len(rest)
        step *= 4
        first = 4 * at + HEADER
        for start in range(first, first + step * count, step):
            view[start : start + size] = rest
        slots.lengths[place : length * count : length] = array("Q", (HEADER + size,)) * count
        if vp8 is not None and self._renumbered:
            first += len(extension)
            for index, leg in self._renumbered:
                _renumber(view, first + step * index, vp8, leg.vp8.offsets)


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


def _renumber(memory: memoryview, at: int, vp8: Vp8Numbers, offsets: tuple[int, int, int]) -> None:
    """The numbers of a VP8 descriptor (RFC 7741 section 4.2) in a payload at `at`, as one leg has them."""
    picture, tl0, keyidx = mapped(vp8, offsets)
    wide, picture_at, tl0_at, keyidx_at = vp8[3:]
    if picture_at >= 0:
        if wide:
            memory[at + picture_at] = 0x80 | picture >> 8
            memory[at + picture_at + 1] = picture & 0xFF
        else:
            memory[at + picture_at] = picture & 0x7F
    if tl0_at >= 0:
        memory[at + tl0_at] = tl0
    if vp8[2] >= 0:
        memory[at + keyidx_at] = memory[at + keyidx_at] & 0xE0 | keyidx
