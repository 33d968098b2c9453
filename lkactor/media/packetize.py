"""Frames into RTP payloads: VP8 (RFC 7741), VP9 (RFC 9628), AV1 (its RTP specification), H.264 (RFC 6184), Opus.

One layer, whatever the encoder made; the payloads fit `max_payload` bytes.
"""

from __future__ import annotations

import random

from lkactor.errors import ProtocolViolation
from lkactor.media.frame import Frame
from lkactor.media.keyframes import PADDING, TEMPORAL_DELIMITER, TILE_LIST, nal_units, obus, to_leb128

MAX_PAYLOAD = 1150
"""Leaves room for RTP header, extensions, SRTP tag, TURN and tunnels below 1280."""
H264_LEFT_OUT = (9, 12)
"""Access unit delimiter and filler: the marker bit says the one, nobody wants the other."""


class Packetizer:
    """For one track of `mime`. Raises ProtocolViolation("media.codec") for one it does not know."""

    def __init__(
        self, mime: str, rng: random.Random, *, size: tuple[int, int] = (0, 0), max_payload: int = MAX_PAYLOAD
    ) -> None:
        methods = {
            "video/vp8": self._vp8,
            "video/vp9": self._vp9,
            "video/av1": self._av1,
            "video/h264": self._h264,
            "audio/opus": self._opus,
        }
        if mime not in methods:
            raise ProtocolViolation("media.codec", f"{mime} cannot be sent")
        self._method = methods[mime]
        self._picture_id = rng.randrange(0x8000)
        self._size = size
        self._max = max_payload

    def packetize(self, frame: Frame) -> list[bytes]:
        """Payloads in order; the last one of a picture has the marker. Raises ProtocolViolation for a broken frame."""
        return self._method(frame)

    def _opus(self, frame: Frame) -> list[bytes]:
        return [frame.data]

    def _next_picture(self) -> bytes:
        self._picture_id = (self._picture_id + 1) & 0x7FFF
        return (0x8000 | self._picture_id).to_bytes(2, "big")

    def _vp8(self, frame: Frame) -> list[bytes]:
        """X and S in the first octet, then I and a picture id of 15 bits (RFC 7741 section 4.2)."""
        tail = b"\x80" + self._next_picture()
        parts = _split(frame.data, self._max - 4)
        return [(b"\x90" if index == 0 else b"\x80") + tail + part for index, part in enumerate(parts)]

    def _vp9(self, frame: Frame) -> list[bytes]:
        """Non-flexible mode, no layers: I, P, B, E, and V with the size on key frames (RFC 9628 section 4.2)."""
        picture = self._next_picture()
        structure = b""
        if frame.keyframe and all(self._size):
            # N_S 0, Y: one layer with its width and height
            structure = b"\x10" + self._size[0].to_bytes(2, "big") + self._size[1].to_bytes(2, "big")
        parts = _split(frame.data, self._max - 3 - len(structure))
        payloads = []
        for index, part in enumerate(parts):
            flags = 0x80 | (0 if frame.keyframe else 0x40) | (0x04 if index == len(parts) - 1 else 0)
            extra = b""
            if index == 0:
                flags |= 0x08 | (0x02 if structure else 0)
                extra = structure
            payloads.append(bytes((flags,)) + picture + extra + part)
        return payloads

    def _av1(self, frame: Frame) -> list[bytes]:
        """OBUs without size fields (section 4.4): Z and Y where one is cut, N where a coded sequence begins."""
        elements = []
        for header, extension, payload in obus(frame.data):
            if header >> 3 & 15 not in (TEMPORAL_DELIMITER, TILE_LIST, PADDING):
                elements.append(bytes((header & 0xFD,)) + extension + payload)
        payloads: list[bytes] = []
        pieces: list[bytes] = []
        size, head = 1, 0x08 if frame.keyframe else 0
        for element in elements:
            while element:
                room = self._max - size - 2
                if room < 16 or (room >> 14):
                    payloads.append(_av1_payload(head, pieces))
                    pieces, size, head = [], 1, 0
                    continue
                piece, element = element[:room], element[room:]
                pieces.append(piece)
                size += 2 + len(piece)
                if element:
                    payloads.append(_av1_payload(head | 0x40, pieces))
                    pieces, size, head = [], 1, 0x80
        if pieces:
            payloads.append(_av1_payload(head, pieces))
        return payloads

    def _h264(self, frame: Frame) -> list[bytes]:
        """Single NAL units, and FU-A for those that are too long (RFC 6184 sections 5.6 and 5.8)."""
        payloads = []
        for unit in nal_units(frame.data):
            if unit[0] & 31 in H264_LEFT_OUT:
                continue
            if len(unit) <= self._max:
                payloads.append(unit)
                continue
            indicator, kind = unit[0] & 0xE0 | 28, unit[0] & 31
            parts = _split(unit[1:], self._max - 2)
            for index, part in enumerate(parts):
                edge = (0x80 if index == 0 else 0) | (0x40 if index == len(parts) - 1 else 0)
                payloads.append(bytes((indicator, edge | kind)) + part)
        return payloads


def _split(data: bytes, size: int) -> list[bytes]:
    """Pieces of nearly equal length: a last one of few bytes costs as much as a full one."""
    count = max(1, -(-len(data) // size))
    step = max(1, -(-len(data) // count))
    return [data[at : at + step] for at in range(0, len(data), step)]


def _av1_payload(head: int, pieces: list[bytes]) -> bytes:
    """Up to three elements are counted in W, and the last one has no length then. W 0 is as good by section 4.4, but
    LiveKit's server finds no key frame in such a packet, and subscribers of it get nothing."""
    counted = len(pieces) <= 3
    body = b"".join(to_leb128(len(piece)) + piece for piece in (pieces[:-1] if counted else pieces))
    return bytes((head | (len(pieces) << 4 if counted else 0),)) + body + (pieces[-1] if counted else b"")
