"""H.264 byte streams (H.264 Annex B) as access units. There are no timestamps in it: the frame rate is the caller's.

A new access unit begins (7.4.1.2.3) at a delimiter, a parameter set or SEI after a slice, and at a slice with
first_mb_in_slice 0 after a slice.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from lkactor.errors import ProtocolViolation
from lkactor.media.frame import MAX_FRAME, Buffer, Frame, MediaFile
from lkactor.wire.codecs.h264 import sps_size

START_CODE = b"\x00\x00\x00\x01"
SLICE, IDR, SEI, SPS, PPS, DELIMITER = 1, 5, 6, 7, 8, 9
_BEFORE_SLICES = frozenset((SEI, SPS, PPS, DELIMITER, 14, 15, 16, 17, 18))
PROBE = 1024 * 1024


def read_annexb(data: Buffer, fps: float = 30.0) -> MediaFile:
    """Raises ProtocolViolation("h264...."). `fps` above 0."""
    width = height = 0
    for unit in _units(data[:PROBE]):
        if unit[0] & 31 == SPS:
            width, height = sps_size(unit)
            break
    else:
        raise ProtocolViolation("h264.no_sps", "no SPS in the first MiB: is this H.264 Annex B?")
    return MediaFile("video/h264", partial(_frames, data, fps), width, height, frame_time=1 / fps)


def _frames(data: Buffer, fps: float) -> Iterator[Frame]:
    unit: list[bytes] = []
    size = number = 0
    sliced = False
    for nal in _units(data):
        kind = nal[0] & 31
        is_slice = 1 <= kind <= IDR
        begins = kind in _BEFORE_SLICES or (is_slice and len(nal) > 1 and nal[1] > 127)
        if sliced and begins:
            yield _frame(unit, number / fps)
            unit, size, sliced, number = [], 0, False, number + 1
        size += len(nal) + len(START_CODE)
        if size > MAX_FRAME:
            raise ProtocolViolation("h264.frame_size", "an access unit of more than 16 MiB")
        unit.append(nal)
        sliced = sliced or is_slice
    if sliced:
        yield _frame(unit, number / fps)


def _frame(units: list[bytes], time: float) -> Frame:
    data = b"".join(START_CODE + unit for unit in units)
    return Frame(data, time, any(unit[0] & 31 == IDR for unit in units))


def _units(data: Buffer) -> Iterator[bytes]:
    """NAL units one after the other, read in pieces: the file may be much larger than memory should hold."""
    pending, at = b"", 0
    while at < len(data) or pending:
        pending += bytes(data[at : at + PROBE])
        at += PROBE
        last = at >= len(data)
        start = pending.find(b"\x00\x00\x01")
        while start >= 0:
            following = pending.find(b"\x00\x00\x01", start + 3)
            if following < 0 and not last:
                break
            unit = pending[start + 3 : following if following >= 0 else len(pending)].rstrip(b"\x00")
            if unit:
                yield unit
            start = following
        if last:
            return
        pending = pending[start:] if start >= 0 else pending[-2:]
        if len(pending) > MAX_FRAME:
            raise ProtocolViolation("h264.frame_size", "a NAL unit of more than 16 MiB")
