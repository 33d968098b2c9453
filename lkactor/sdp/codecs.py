"""Codecs of a media section: reading them, which of a peer's are accepted, which ones we offer.

Answering, the peer's payload types are taken (RFC 3264 section 6.1); offering, the numbers are LiveKit's
(livekit-media 2.1). An RTX payload type belongs to its codec by `apt` (RFC 4588 section 8.6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from lkactor.sdp.description import MediaSection, parse_number
from lkactor.wire.extensions import (
    ABS_CAPTURE_TIME,
    ABS_SEND_TIME,
    AUDIO_LEVEL,
    DEPENDENCY_DESCRIPTOR,
    MID,
    PLAYOUT_DELAY,
    REPAIRED_RID,
    RID,
    TRANSPORT_CC,
)

AUDIO_FEEDBACK = ("nack",)
VIDEO_FEEDBACK = ("transport-cc", "ccm fir", "nack", "nack pli")
OFFERED_VIDEO_FEEDBACK = ("ccm fir", "nack", "nack pli", "goog-remb")
AUDIO_EXTENSIONS = (MID, RID, AUDIO_LEVEL, ABS_CAPTURE_TIME)
VIDEO_EXTENSIONS = (MID, RID, TRANSPORT_CC, DEPENDENCY_DESCRIPTOR, REPAIRED_RID, ABS_CAPTURE_TIME)
_OFFERED_EXTENSIONS = {
    "video": {DEPENDENCY_DESCRIPTOR: 1, ABS_CAPTURE_TIME: 2, ABS_SEND_TIME: 3},
    "audio": {ABS_CAPTURE_TIME: 2},
}
"""The lowest free ids, video first. One URI has one id in a whole bundle (RFC 9143 section 7.1.3)."""
STATIC = {"0": "PCMU/8000", "8": "PCMA/8000"}
RECEIVER_PARAMETERS = ("stereo", "sprop-stereo", "usedtx", "maxaveragebitrate")


@dataclass(frozen=True, slots=True)
class Codec:
    """`mime` is lower case ("video/vp8"); `fmtp` as in the description; `feedback` like "nack pli"."""

    mime: str
    payload_type: int
    clock_rate: int
    channels: int = 1
    fmtp: str = ""
    feedback: tuple[str, ...] = ()
    rtx_payload_type: int | None = None


@dataclass(frozen=True, slots=True)
class SendMedia:
    """What the peer agreed to receive of one track: codecs with the payload types to send, extensions URI -> id."""

    track_id: str
    mid: str
    codecs: tuple[Codec, ...]
    extensions: dict[str, int]


_H264 = "level-asymmetry-allowed=1;packetization-mode={};profile-level-id=42e01f"
_OPUS = "minptime=10;useinbandfec=1"
OFFERED = (
    Codec("audio/opus", 111, 48000, 2, _OPUS, AUDIO_FEEDBACK),
    Codec("audio/red", 63, 48000, 2, "111/111", AUDIO_FEEDBACK),
    Codec("audio/pcmu", 0, 8000, 1, "", AUDIO_FEEDBACK),
    Codec("audio/pcma", 8, 8000, 1, "", AUDIO_FEEDBACK),
    Codec("video/vp8", 96, 90000, 1, "", OFFERED_VIDEO_FEEDBACK, 97),
    Codec("video/h264", 125, 90000, 1, _H264.format(0), OFFERED_VIDEO_FEEDBACK, 126),
    Codec("video/h264", 108, 90000, 1, _H264.format(1), OFFERED_VIDEO_FEEDBACK, 109),
    Codec("video/vp9", 98, 90000, 1, "profile-id=0", OFFERED_VIDEO_FEEDBACK, 99),
    Codec("video/vp9", 100, 90000, 1, "profile-id=1", OFFERED_VIDEO_FEEDBACK, 101),
    Codec("video/av1", 35, 90000, 1, "", OFFERED_VIDEO_FEEDBACK, 36),
    Codec("video/h265", 116, 90000, 1, "", OFFERED_VIDEO_FEEDBACK, 117),
)


def parameters(fmtp: str) -> dict[str, str]:
    """ "a=1;b=2" as a dict with lower-case names; a text without "=" gives an empty value."""
    found = {}
    for part in fmtp.split(";"):
        name, _, value = part.strip().partition("=")
        if name:
            found[name.strip().lower()] = value.strip()
    return found


def read_codecs(section: MediaSection) -> list[Codec]:
    """The section's codecs in the order of the m= line, each with its RTX. Unreadable ones are left out."""
    maps = dict(value.partition(" ")[::2] for value in section.get_all("rtpmap"))
    fmtps = dict(value.partition(" ")[::2] for value in section.get_all("fmtp"))
    feedback: dict[str, list[str]] = {}
    for value in section.get_all("rtcp-fb"):
        text, _, kind = value.partition(" ")
        feedback.setdefault(text, []).append(" ".join(kind.split()))
    found: list[Codec] = []
    rtx: dict[int, int] = {}
    for text in dict.fromkeys(section.formats):
        payload_type = parse_number(text, 127)
        name, *numbers = maps.get(text, STATIC.get(text, "")).strip().split("/")
        clock_rate = parse_number(numbers[0], 1_000_000) if numbers else None
        if payload_type is None or not clock_rate:
            continue
        fmtp = fmtps.get(text, "").strip()
        if name.lower() == "rtx":
            media = parse_number(parameters(fmtp).get("apt", ""), 127)
            if media is not None:
                rtx.setdefault(media, payload_type)
            continue
        channels = (parse_number(numbers[1], 255) if len(numbers) > 1 else None) or 1
        own = tuple(dict.fromkeys(feedback.get(text, []) + feedback.get("*", [])))
        found.append(Codec(f"{section.kind}/{name}".lower(), payload_type, clock_rate, channels, fmtp, own))
    return [replace(codec, rtx_payload_type=rtx.get(codec.payload_type)) for codec in found]


def write_codecs(section: MediaSection, codecs: Sequence[Codec]) -> None:
    """Append formats, rtpmap, fmtp and rtcp-fb lines, each codec followed by its RTX."""
    for codec in codecs:
        text = str(codec.payload_type)
        # The subtype's case is free (RFC 8866 section 6.6), but some peers compare: the registered spelling is safe.
        subtype = codec.mime.partition("/")[2]
        name = subtype if subtype in ("opus", "red") else subtype.upper()
        channels = f"/{codec.channels}" if codec.channels > 1 else ""
        section.formats.append(text)
        section.add("rtpmap", f"{text} {name}/{codec.clock_rate}{channels}")
        if codec.fmtp:
            section.add("fmtp", f"{text} {codec.fmtp}")
        for feedback in codec.feedback:
            section.add("rtcp-fb", f"{text} {feedback}")
        if codec.rtx_payload_type is not None:
            section.formats.append(str(codec.rtx_payload_type))
            section.add("rtpmap", f"{codec.rtx_payload_type} rtx/{codec.clock_rate}")
            section.add("fmtp", f"{codec.rtx_payload_type} apt={text}")


def accept(offered: Sequence[Codec], enabled: Sequence[str], *, remb: bool) -> list[Codec]:
    """Those of the peer's codecs that an answer takes: same order and payload types, feedback cut to what we do.

    VP9 profiles 0 and 1, AV1 profile 0, every H.264 profile and packetization mode; RED only around an accepted Opus.
    """
    video_feedback = (*VIDEO_FEEDBACK, "goog-remb") if remb else VIDEO_FEEDBACK
    opus = {str(codec.payload_type) for codec in offered if codec.mime == "audio/opus"}
    taken = []
    for codec in offered:
        values = parameters(codec.fmtp)
        wanted = {
            "video/vp9": values.get("profile-id", "0") in ("0", "1"),
            "video/av1": values.get("profile", "0") == "0",
            "audio/red": codec.fmtp.partition("/")[0] in opus and "audio/opus" in enabled,
        }.get(codec.mime, True)
        if not wanted or codec.mime not in enabled:
            continue
        ours = AUDIO_FEEDBACK if codec.mime.startswith("audio/") else video_feedback
        feedback = tuple(kind for kind in ours if kind in codec.feedback)
        taken.append(replace(codec, feedback=feedback, fmtp=_without_wishes(codec)))
    return taken


def _without_wishes(codec: Codec) -> str:
    """The peer's fmtp less what says how it wants to receive, or how its own encoder starts (x-google-…)."""
    if codec.mime == "audio/red":
        return codec.fmtp
    parts = [part.strip() for part in codec.fmtp.split(";")]
    names = [(part.partition("=")[0].lower(), part) for part in parts if part]
    return ";".join(
        part for name, part in names if name not in RECEIVER_PARAMETERS and not name.startswith("x-google-")
    )


def with_parameters(codec: Codec, extra: Sequence[str]) -> Codec:
    return replace(codec, fmtp=";".join([codec.fmtp, *extra] if codec.fmtp else list(extra)))


def first(codecs: Sequence[Codec], mime: str) -> list[Codec]:
    """The codecs with those of one mime moved to the front."""
    return sorted(codecs, key=lambda codec: codec.mime != mime)


@lru_cache(maxsize=64)
def offered(kind: str, enabled: tuple[str, ...]) -> tuple[Codec, ...]:
    """What an offer of ours lists for a kind (livekit-media 2.6: all of them, whatever the track is)."""
    prefix = f"{kind}/"
    return tuple(
        codec
        for codec in OFFERED
        if codec.mime in enabled
        and codec.mime.startswith(prefix)
        and (codec.mime != "audio/red" or "audio/opus" in enabled)
    )


@lru_cache(maxsize=64)
def offered_lines(kind: str, enabled: tuple[str, ...], *, stereo: bool) -> MediaSection:
    """The formats and attributes of those, to be copied: few rooms differ in them, and every client is offered some."""
    codecs: Sequence[Codec] = offered(kind, enabled)
    if stereo:
        codecs = [with_parameters(c, ("sprop-stereo=1",)) if c.mime == "audio/opus" else c for c in codecs]
    section = MediaSection()
    write_codecs(section, codecs)
    return section


def offered_extensions(kind: str, *, playout_delay: bool) -> dict[str, int]:
    """What an offer of ours has in a section of that kind."""
    ours = _OFFERED_EXTENSIONS[kind]
    return ours | {PLAYOUT_DELAY: 4} if playout_delay and kind == "video" else ours


def accepted_extensions(section: MediaSection, *, single: bool, playout_delay: bool = False) -> dict[str, int]:
    """The peer's header extensions that an answer echoes, with the peer's ids (livekit-media 2.2)."""
    if section.kind == "audio":
        ours: tuple[str, ...] = AUDIO_EXTENSIONS
    else:
        ours = (*VIDEO_EXTENSIONS, *[ABS_SEND_TIME] * single, *[PLAYOUT_DELAY] * playout_delay)
    return {uri: number for uri, number in section.extensions.items() if uri in ours}


def _closeness(codec: Codec, wanted: dict[str, str]) -> int | None:
    """0 is the same configuration; None cannot decode it."""
    have = parameters(codec.fmtp)
    if codec.mime == "video/vp9":
        return 0 if have.get("profile-id", "0") == wanted.get("profile-id", "0") else None
    if codec.mime == "video/h264":
        mode = have.get("packetization-mode", "0") != wanted.get("packetization-mode", "0")
        # The last two digits are the level, which asymmetry lets differ (RFC 6184 section 8.1).
        profile = have.get("profile-level-id", "42e01f")[:4] != wanted.get("profile-level-id", "42e01f")[:4]
        return 2 * profile + mode
    return 0


def pick_codec(media: SendMedia, mime: str, fmtp: str) -> Codec | None:
    """The negotiated codec to send a stream of `mime` and `fmtp` with: the closest one, None if there is none."""
    wanted = parameters(fmtp)
    best: tuple[int, Codec] | None = None
    for codec in media.codecs:
        closeness = _closeness(codec, wanted) if codec.mime == mime.lower() else None
        if closeness is not None and (best is None or closeness < best[0]):
            best = closeness, codec
    return best[1] if best else None
