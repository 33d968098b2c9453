"""Opus packets: the TOC byte (RFC 6716 section 3.1) and what it says about time and silence."""

from typing import NamedTuple

from lkactor.errors import ProtocolViolation

CLOCK_RATE = 48000
_SILK, _HYBRID, _CELT = (480, 960, 1920, 2880), (480, 960), (120, 240, 480, 960)
_MAX_DURATION = 5760
"""120 ms (section 3.2.5, requirement R5)."""


class OpusToc(NamedTuple):
    """`samples` is one frame's duration at 48 kHz; `code` 0: one frame, 1 and 2: two, 3: count in the next byte."""

    config: int
    stereo: bool
    code: int
    samples: int


def parse_toc(payload: bytes | memoryview) -> OpusToc:
    """Raises ProtocolViolation("opus.truncated")."""
    if not payload:
        raise ProtocolViolation("opus.truncated")
    toc = payload[0]
    config = toc >> 3
    if config < 12:
        samples = _SILK[config & 3]
    elif config < 16:
        samples = _HYBRID[config & 1]
    else:
        samples = _CELT[config & 3]
    return OpusToc(config, bool(toc & 4), toc & 3, samples)


def duration(payload: bytes | memoryview) -> int:
    """Samples at 48 kHz in this packet. Raises ProtocolViolation("opus.truncated" | "opus.duration")."""
    toc = parse_toc(payload)
    frames = (1, 2, 2, 0)[toc.code]
    if toc.code == 3:
        if len(payload) < 2:
            raise ProtocolViolation("opus.truncated")
        frames = payload[1] & 0x3F
    if frames == 0 or frames * toc.samples > _MAX_DURATION:
        raise ProtocolViolation("opus.duration")
    return frames * toc.samples


def is_dtx(payload: bytes | memoryview) -> bool:
    """True for a packet that only marks silence: a TOC and at most one byte leave no room for coded audio."""
    return 0 < len(payload) <= 2
