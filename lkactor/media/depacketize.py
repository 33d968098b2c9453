"""RTP payloads back into frames, in order, complete or not at all.

Packets wait in a window for those before them; what is still missing when the window is full or too old is lost. After
a loss a picture codec needs a key frame: frames up to then are dropped, and `wants_keyframe` says to ask for one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from lkactor.counters import Counters
from lkactor.errors import ProtocolViolation
from lkactor.media.annexb import SPS, START_CODE
from lkactor.media.frame import MAX_FRAME
from lkactor.media.keyframes import is_keyframe, leb128, nal_units, to_leb128
from lkactor.wire.codecs import vp8, vp9
from lkactor.wire.rtp import RtpPacket
from lkactor.wire.sequence import Unwrapper

WINDOW = 512
"""Packets that may wait for an earlier one."""
PATIENCE = 0.5
"""Seconds that they do: several round trips of retransmission."""
MAX_PACKETS = 16384
ELEMENT_LIMIT = 4096


class Assembler:
    """For one track. Put packets in with `receive`; take (frame, extended timestamp, is key frame) with `take`."""

    def __init__(self, mime: str, clock_rate: int) -> None:
        """Raises ProtocolViolation("media.codec")."""
        if mime not in _JOIN:
            raise ProtocolViolation("media.codec", f"{mime} cannot be taken apart")
        self._mime = mime
        self._join = _JOIN[mime]
        self._clock_rate = clock_rate
        self._sequence = Unwrapper(16)
        self._timestamp = Unwrapper(32)
        self._waiting: dict[int, tuple[RtpPacket, int]] = {}
        self._next: int | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._current: int | None = None
        self._broken = False
        self._out: deque[tuple[bytes, int, bool]] = deque()
        self.wants_keyframe = mime.startswith("video/")
        self.counters = Counters()

    def receive(self, packet: RtpPacket, now: float) -> None:
        number = self._sequence.unwrap(packet.sequence)
        timestamp = self._timestamp.unwrap(packet.timestamp)
        if self._next is None:
            self._next = number
        if number < self._next or number in self._waiting:
            self.counters.count("depacketize.late_or_twice")
            return
        self._waiting[number] = (packet, timestamp)
        self._advance(now)

    def take(self) -> list[tuple[bytes, int, bool]]:
        frames = list(self._out)
        self._out.clear()
        return frames

    def flush(self) -> None:
        """The end: nothing more will come."""
        while self._waiting:
            self._skip_gap()
            self._run()
        self._finish()

    def _advance(self, now: float) -> None:
        self._run()
        while self._waiting:
            oldest = min(self._waiting)
            if len(self._waiting) < WINDOW and now - self._waiting[oldest][0].arrival < PATIENCE:
                return
            self._skip_gap()
            self._run()

    def _run(self) -> None:
        while self._next is not None and (entry := self._waiting.pop(self._next, None)) is not None:
            self._next += 1
            self._add(*entry)

    def _skip_gap(self) -> None:
        following = min(self._waiting)
        if self._next is not None and following > self._next:
            self.counters.count("depacketize.lost", following - self._next)
            self._lost()
        self._next = following

    def _lost(self) -> None:
        """What was begun is damaged, and of what follows nobody knows whether its beginning was there."""
        self._parts, self._size, self._current = [], 0, None
        if self._mime.startswith("video/"):
            self._broken = True
            self.wants_keyframe = True

    def _add(self, packet: RtpPacket, timestamp: int) -> None:
        if packet.payload_end <= packet.payload_offset:
            return  # padding only: a probe
        if self._current is not None and timestamp != self._current:
            self._finish()
        self._current = timestamp
        self._size += packet.payload_end - packet.payload_offset
        if self._size > MAX_FRAME or len(self._parts) >= MAX_PACKETS:
            self.counters.count("depacketize.frame_too_large")
            self._lost()
            return
        self._parts.append(bytes(packet.payload))
        if packet.marker or self._mime == "audio/opus":
            self._finish()

    def _starts(self, frame: bytes) -> bool:
        """A key frame with its beginning. H.264 tells that by the SPS only: each slice has a header of its own."""
        if self._mime == "video/h264" and not any(unit[0] & 31 == SPS for unit in nal_units(frame)):
            return False
        return is_keyframe(self._mime, frame)

    def _finish(self) -> None:
        parts, timestamp = self._parts, self._current
        self._parts, self._size, self._current = [], 0, None
        if not parts or timestamp is None:
            return
        try:
            frame = self._join(parts)
        except ProtocolViolation as violation:
            self.counters.count(violation.reason)
            if not self._broken:  # the rest of a frame whose beginning was lost is expected to be bad
                self._lost()
            return
        if not frame:
            return
        keyframe = self._starts(frame)
        if self.wants_keyframe and not keyframe:
            self.counters.count("depacketize.before_keyframe")
            return
        self.wants_keyframe = self._broken = False
        self._out.append((frame, timestamp, keyframe))


def _join_vp8(parts: Sequence[bytes]) -> bytes:
    pieces = []
    for index, part in enumerate(parts):
        descriptor = vp8.parse_descriptor(part)
        if descriptor.start != (index == 0) and index == 0:
            raise ProtocolViolation("vp8.no_start")
        pieces.append(part[descriptor.size :])
    return b"".join(pieces)


def _join_vp9(parts: Sequence[bytes]) -> bytes:
    pieces = []
    for index, part in enumerate(parts):
        descriptor = vp9.parse_descriptor(part)
        if index == 0 and not descriptor.start_of_frame:
            raise ProtocolViolation("vp9.no_start")
        pieces.append(part[descriptor.size :])
    return b"".join(pieces)


def _join_av1(parts: Sequence[bytes]) -> bytes:
    """A temporal unit: a delimiter, then the OBUs with size fields, as files have them."""
    elements: list[bytes] = []
    open_ended = False
    for part in parts:
        head = part[0]
        pieces = _elements(part)
        if bool(head & 0x80) != open_ended:
            raise ProtocolViolation("av1.fragment")
        if open_ended and pieces:
            elements[-1] += pieces.pop(0)
        elements.extend(pieces)
        if len(elements) > ELEMENT_LIMIT or (head & 0x40 and not elements):
            raise ProtocolViolation("av1.elements")
        open_ended = bool(head & 0x40)
    if open_ended:
        raise ProtocolViolation("av1.fragment")
    out = [b"\x12\x00"]
    for element in elements:
        if not element:
            continue
        if element[0] & 2:  # a sender may leave the size field in (section 4.4)
            out.append(element)
            continue
        cut = 2 if element[0] & 4 else 1
        if len(element) < cut:
            raise ProtocolViolation("av1.truncated")
        out.append(bytes((element[0] | 2,)) + element[1:cut] + to_leb128(len(element) - cut) + element[cut:])
    return b"".join(out)


def _elements(part: bytes) -> list[bytes]:
    count, at = part[0] >> 4 & 3, 1
    pieces: list[bytes] = []
    while at < len(part):
        size = len(part) - at
        if len(pieces) + 1 != count:
            size, at = leb128(part, at)
        if at + size > len(part) or len(pieces) >= (count or ELEMENT_LIMIT):
            raise ProtocolViolation("av1.truncated")
        pieces.append(part[at : at + size])
        at += size
    return pieces


def _join_h264(parts: Sequence[bytes]) -> bytes:
    """Annex B. Single NAL units, STAP-A and FU-A: what packetization modes 0 and 1 have (RFC 6184 section 5.4)."""
    out: list[bytes] = []
    fragment = False
    for part in parts:
        kind = part[0] & 31
        if kind == 28:
            if len(part) < 2:
                raise ProtocolViolation("h264.truncated")
            if part[1] & 0x80:
                out.append(START_CODE + bytes((part[0] & 0xE0 | part[1] & 31,)))
            elif not fragment:
                raise ProtocolViolation("h264.fragment")
            out.append(part[2:])
            fragment = not part[1] & 0x40
            continue
        if fragment:
            raise ProtocolViolation("h264.fragment")
        if kind == 24:
            out.extend(START_CODE + unit for unit in _stap(part))
        elif 1 <= kind <= 23:
            out.append(START_CODE + part)
        else:
            raise ProtocolViolation("h264.packet_type")
    if fragment:
        raise ProtocolViolation("h264.fragment")
    return b"".join(out)


def _stap(part: bytes) -> list[bytes]:
    units, at = [], 1
    while at < len(part):
        size = int.from_bytes(part[at : at + 2], "big")
        if not size or at + 2 + size > len(part):
            raise ProtocolViolation("h264.truncated")
        units.append(part[at + 2 : at + 2 + size])
        at += 2 + size
    return units


_JOIN: dict[str, Callable[[Sequence[bytes]], bytes]] = {
    "video/vp8": _join_vp8,
    "video/vp9": _join_vp9,
    "video/av1": _join_av1,
    "video/h264": _join_h264,
    "audio/opus": lambda parts: parts[0],
}
