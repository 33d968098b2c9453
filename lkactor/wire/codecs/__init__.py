"""What a forwarder must know of codecs: where a decoder can start, never how to decode.

Source: livekit-media section 8.6. Encrypted payloads keep what these functions read, VP9's frame header excepted.
"""

from __future__ import annotations

from collections.abc import Callable

from lkactor.wire.codecs import vp8

Payload = bytes | memoryview


def _h264(payload: Payload) -> bool:
    """An SPS starts a decodable frame: alone, in a STAP-A (RFC 6184 5.7.1) or at the start of a FU-A (5.8)."""
    if not payload:
        return False
    kind = payload[0] & 31
    if kind in (5, 7):
        return kind == 7
    if kind == 24:
        at = 1
        while at + 2 < len(payload):
            if payload[at + 2] & 31 == 7:
                return True
            at += 2 + ((payload[at] << 8) | payload[at + 1])
        return False
    return kind == 28 and len(payload) > 1 and payload[1] > 127 and payload[1] & 31 == 7


def _h265(payload: Payload) -> bool:
    """VPS, SPS, PPS or an IRAP picture, single, aggregated (RFC 7798 4.4.2) or at the start of a fragment."""
    if len(payload) < 3:
        return False
    kind = (payload[0] >> 1) & 63
    if kind == 48:
        at = 2
        while at + 3 < len(payload):
            if _starts_h265((payload[at + 2] >> 1) & 63):
                return True
            at += 2 + ((payload[at] << 8) | payload[at + 1])
        return False
    if kind == 49:
        return payload[2] > 127 and _starts_h265(payload[2] & 63)
    return _starts_h265(kind)


def _starts_h265(kind: int) -> bool:
    return kind in (32, 33, 34) or 16 <= kind <= 21


def _vp9(payload: Payload) -> bool:
    """Not inter-predicted, beginning of a frame, lowest spatial layer (draft-ietf-payload-vp9 section 4.2)."""
    if not payload:
        return False
    first = payload[0]
    if first & 0x40 or not first & 0x08:
        return False
    if not first & 0x20:
        return True
    at = 1
    if first & 0x80:
        if len(payload) <= at:
            return False
        at += 2 if payload[at] > 127 else 1
    return len(payload) > at and (payload[at] >> 1) & 7 == 0


def _av1(payload: Payload) -> bool:
    """N is set on the first packet of a coded video sequence (AV1 RTP specification 4.4)."""
    return bool(payload) and bool(payload[0] & 0x08) and not payload[0] & 0x80


_KEYFRAME: dict[str, Callable[[Payload], bool]] = {
    "video/vp8": vp8.is_keyframe,
    "video/vp9": _vp9,
    "video/av1": _av1,
    "video/h264": _h264,
    "video/h265": _h265,
}


def is_keyframe(mime: str, payload: Payload) -> bool:
    """May a decoder start at this packet? `mime` in lower case. True for a codec that has no key frames."""
    check = _KEYFRAME.get(mime)
    return check(payload) if check is not None else not mime.startswith("video/")
