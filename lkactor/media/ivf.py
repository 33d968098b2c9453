"""IVF: VP8, VP9 and AV1 frames with timestamps. All little endian.

"DKIF" | version 2 | header size 2 | fourcc 4 | width 2 | height 2 | rate 4 | scale 4 | frames 4 | unused 4
then per frame: size 4 | timestamp 8, in scale/rate seconds | data
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial

from lkactor.errors import ProtocolViolation
from lkactor.media.frame import MAX_FRAME, Buffer, Frame, MediaFile
from lkactor.media.keyframes import is_keyframe

HEADER = struct.Struct("<4sHH4sHHIIII")
FRAME = struct.Struct("<IQ")
FOURCC = {b"VP80": "video/vp8", b"VP90": "video/vp9", b"AV01": "video/av1"}
FOURCC_OF = {mime: fourcc for fourcc, mime in FOURCC.items()}
TIME_BASE = 90000
COUNT_OFFSET = 24
"""Where a writer puts the number of frames at the end."""
MAX_GAP = 3600.0


def read_ivf(data: Buffer) -> MediaFile:
    """Raises ProtocolViolation("ivf...."); so does the iteration, where the file is damaged."""
    if len(data) < HEADER.size:
        raise ProtocolViolation("ivf.truncated", "shorter than its header")
    magic, _, size, fourcc, width, height, rate, scale, _, _ = HEADER.unpack_from(data)
    if magic != b"DKIF":
        raise ProtocolViolation("ivf.magic", "does not begin with DKIF")
    if fourcc not in FOURCC:
        raise ProtocolViolation("ivf.codec", f"fourcc {fourcc!r}; known are VP80, VP90 and AV01")
    if not rate or not scale or size < HEADER.size:
        raise ProtocolViolation("ivf.header", "time base or header size of zero")
    mime = FOURCC[fourcc]
    frame_time = scale / rate if scale / rate >= 1 / 240 else 1 / 30
    return MediaFile(mime, partial(_frames, data, mime, size, scale / rate), width, height, frame_time=frame_time)


def _frames(data: Buffer, mime: str, at: int, unit: float) -> Iterator[Frame]:
    first: int | None = None
    last = 0.0
    while at < len(data):
        if at + FRAME.size > len(data):
            raise ProtocolViolation("ivf.truncated", f"in the frame header at byte {at}")
        size, timestamp = FRAME.unpack_from(data, at)
        at += FRAME.size
        if size > MAX_FRAME:
            raise ProtocolViolation("ivf.frame_size", f"{size} bytes at byte {at}")
        if at + size > len(data):
            raise ProtocolViolation("ivf.truncated", f"in the frame at byte {at}")
        first = timestamp if first is None else first
        time = (timestamp - first) * unit
        if not -MAX_GAP < time - last < MAX_GAP:
            raise ProtocolViolation("ivf.timestamp", f"jumps by more than an hour at byte {at}")
        last = time
        frame = bytes(data[at : at + size])
        at += size
        if frame:
            yield Frame(frame, time, is_keyframe(mime, frame))


def ivf_header(mime: str, width: int, height: int, frames: int = 0) -> bytes:
    """Timestamps that follow are in 1/90000 s, RTP's unit. `mime` is one of FOURCC_OF."""
    sizes = (min(width, 65535), min(height, 65535))
    return HEADER.pack(b"DKIF", 0, HEADER.size, FOURCC_OF[mime], *sizes, TIME_BASE, 1, frames & 0xFFFFFFFF, 0)


def ivf_frame(data: Buffer, timestamp: int) -> bytes:
    """A frame with its header; `timestamp` counts from the first frame, in the unit of `ivf_header`."""
    return FRAME.pack(len(data), max(0, timestamp)) + bytes(data)
