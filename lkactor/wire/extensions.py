"""RTP header extensions by URI, and their payloads."""

from __future__ import annotations

MID = "urn:ietf:params:rtp-hdrext:sdes:mid"
RID = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
REPAIRED_RID = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
AUDIO_LEVEL = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
TRANSPORT_CC = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
ABS_SEND_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
ABS_CAPTURE_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time"
DEPENDENCY_DESCRIPTOR = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
PLAYOUT_DELAY = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"
FRAME_MARKING = "http://tools.ietf.org/html/draft-ietf-avtext-framemarking-07"
VIDEO_ORIENTATION = "urn:3gpp:video-orientation"


def audio_level(value: bytes) -> tuple[int, bool] | None:
    """(level in -dBov: 0 loudest .. 127, voice flag), RFC 6464; None if empty."""
    return (value[0] & 127, value[0] > 127) if value else None


def text(value: bytes) -> str | None:
    """MID or RID (RFC 8852): a token of ASCII; None otherwise."""
    if not value or len(value) > 32 or not value.isascii():
        return None
    return value.decode("ascii").rstrip("\0")


def transport_cc(value: bytes) -> int | None:
    """The transport-wide sequence number."""
    return (value[0] << 8) | value[1] if len(value) >= 2 else None


def abs_send_time(now: float) -> int:
    """24 bits, 6.18 fixed point seconds, wraps every 64 s."""
    return int(now * 262144) & 0xFFFFFF
