"""WHIP (RFC 9725) and WHEP: one HTTP request in place of a signal connection. What its bodies mean. Pure.

Source of LiveKit's part: livekit-surface 1.8.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from livekit.protocol import models, rtc

from lkactor.auth import Claims
from lkactor.config import LimitConfig
from lkactor.errors import ProtocolViolation
from lkactor.sdp.description import SessionDescription
from lkactor.sdp.media import read_transport
from lkactor.signal.join import NOT_PERMITTED, JoinError, JoinParameters, check_names

SDP, FRAGMENT = "application/sdp", "application/trickle-ice-sdpfrag"
MAX_BODY = 1024 * 1024
PROTOCOL = 17
"""What a client without a protocol of its own is taken to speak."""
MAX_CANDIDATES = 64
_CREDENTIALS = re.compile(r"^a=(ice-ufrag|ice-pwd):[^\r\n]*", re.MULTILINE)
_CANDIDATES = re.compile(r"^a=(?:candidate:.*|end-of-candidates)\r?\n", re.MULTILINE)


def parameters(offer: str) -> JoinParameters:
    """How such a client joins: one connection, full ICE, its offer at once.

    Raises ProtocolViolation for an offer that nobody could answer: nobody joins then, and no room begins.
    """
    description = SessionDescription.parse(offer)
    used = [section for section in description.media if not section.rejected]
    if not used:
        raise ProtocolViolation("sdp.no_sections")
    read_transport(description, used[0])
    tracks = tuple(
        _announcement(section.kind, section.msid[1])
        for section in description.media
        if section.kind in ("audio", "video") and section.peer_sends and not section.rejected
    )
    return JoinParameters(
        client=models.ClientInfo(protocol=PROTOCOL),
        single=True,
        disable_ice_lite=True,
        add_tracks=tracks,
        offer=rtc.SessionDescription(type="offer", sdp=offer, id=1),
    )


def _announcement(kind: str, cid: str) -> rtc.AddTrackRequest:
    """The AddTrack that the client has no way to send."""
    if kind == "audio":
        return rtc.AddTrackRequest(
            cid=cid,
            name="synthesized-microphone",
            type=models.TrackType.AUDIO,
            source=models.TrackSource.MICROPHONE,
        )
    return rtc.AddTrackRequest(
        cid=cid, name="synthesized-camera", type=models.TrackType.VIDEO, source=models.TrackSource.CAMERA
    )


def admitted(claims: Claims | None, limits: LimitConfig) -> Claims:
    """The claims, if they may join the room they name. Raises JoinError."""
    if claims is None or claims.video is None:
        raise JoinError(401, NOT_PERMITTED)
    if not claims.video.room_join:
        raise JoinError(401, "permissions denied")
    if not claims.video.room:
        raise JoinError(401, "room name cannot be empty")
    check_names(claims.identity, claims.video.room, limits)
    return claims


def attribute(sdp: str, name: str) -> str:
    """The first `a=name:value` of a description or fragment; empty if there is none."""
    found = re.search(rf"^a={re.escape(name)}:(\S+)", sdp, re.MULTILINE)
    return found[1] if found else ""


def candidates_of(fragment: str) -> list[str]:
    """The candidate lines of a trickled fragment."""
    return re.findall(r"^a=(candidate:[^\r\n]+)", fragment, re.MULTILINE)[:MAX_CANDIDATES]


def restarted(offer: str, fragment: str) -> str:
    """The client's offer with the new credentials and candidates of an ICE restart. Raises ProtocolViolation."""
    fresh = {name: attribute(fragment, name) for name in ("ice-ufrag", "ice-pwd")}
    if not all(fresh.values()):
        raise ProtocolViolation("whip.no_credentials")
    text = _CREDENTIALS.sub(lambda found: f"a={found[1]}:{fresh[found[1]]}", _CANDIDATES.sub("", offer))
    # Into the first section, for that is the one whose transport a bundle uses (RFC 9143 section 7.1.1).
    password = f"a=ice-pwd:{fresh['ice-pwd']}"
    lines = "".join(f"\r\na={candidate}" for candidate in candidates_of(fragment))
    return text.replace(password, password + lines, 1)


def fragment_of(answer: str) -> str:
    """What an ICE restart answers: our new credentials and candidates."""
    lines = [f"a={name}:{attribute(answer, name)}" for name in ("ice-ufrag", "ice-pwd")]
    lines += [f"a={candidate}" for candidate in candidates_of(answer)]
    return "\r\n".join([*lines, "a=end-of-candidates", ""])


def links(servers: Sequence[rtc.ICEServer]) -> list[str]:
    """`Link` headers (RFC 9725 section 4.6)."""
    found = []
    for server in servers:
        for url in server.urls:
            credential = ""
            if server.username:
                fields: Mapping[str, str] = {"username": server.username, "credential": server.credential}
                credential = "".join(f'; {name}="{value}"' for name, value in fields.items())
                credential += '; credential-type="password"'
            found.append(f'<{url}>; rel="ice-server"{credential}')
    return found
