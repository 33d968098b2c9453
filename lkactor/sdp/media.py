"""What goes into and comes out of a negotiation, and the lines that offer and answer write alike."""

from __future__ import annotations

from dataclasses import dataclass, field

from lkactor.errors import ProtocolViolation
from lkactor.fingerprint import Fingerprint
from lkactor.sdp.codecs import Codec
from lkactor.sdp.description import MediaSection, SessionDescription, parse_number

DATA_PROTOCOLS = ("UDP/DTLS/SCTP", "TCP/DTLS/SCTP")
RTP_PROTOCOLS = ("UDP/TLS/RTP/SAVPF", "TCP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP", "RTP/SAVPF", "RTP/SAVP")
"""With DTLS keys all of them mean the same; JSEP wants each accepted (RFC 9429 section 5.1.2)."""
MAX_MESSAGE_SIZE = 256 * 1024
SETUPS = ("active", "passive", "actpass")


@dataclass(frozen=True, slots=True)
class LocalTransport:
    """Our half. `candidates` are "candidate:..." lines without "a="."""

    ufrag: str
    pwd: str
    lite: bool
    fingerprint: Fingerprint
    candidates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RemoteTransport:
    """The peer's half: `setup` is its own role word, "active", "passive" or "actpass"."""

    ufrag: str
    pwd: str
    lite: bool
    fingerprints: tuple[Fingerprint, ...]
    setup: str
    candidates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReceiveMedia:
    """A section the peer sends on: `cid` is its track id, `rids` the simulcast layers in the peer's order."""

    mid: str
    kind: str
    cid: str
    stream_id: str
    codecs: tuple[Codec, ...]
    extensions: dict[str, int]
    rids: tuple[str, ...] = ()
    ssrcs: tuple[int, ...] = ()
    rtx_of: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReceivePreference:
    """How the answer should ask for one published track. `mime` is lower case."""

    mime: str | None = None
    disable_red: bool = False
    no_dtx: bool = False
    stereo: bool = False


@dataclass(frozen=True, slots=True)
class SendTrack:
    """A track we want to send to the peer."""

    track_id: str
    stream_id: str
    kind: str
    ssrc: int
    rtx_ssrc: int | None = None
    stereo: bool = False
    mimes: tuple[str, ...] = ()
    """What it may be sent as, lower case; empty: anything."""


def read_transport(description: SessionDescription, section: MediaSection) -> RemoteTransport:
    """Raises ProtocolViolation if the section has no usable ICE credentials or set-up role."""
    credentials = section.ice_credentials
    if credentials is None:
        raise ProtocolViolation("sdp.no_ice_credentials")
    # RFC 4145 section 4.1: an offer without a role means "active"; WebRTC peers always say one.
    setup = section.inherited("setup") or "active"
    if setup not in SETUPS:
        raise ProtocolViolation("sdp.bad_setup")
    return RemoteTransport(*credentials, description.lite, section.fingerprints, setup, section.candidates)


def is_data(section: MediaSection) -> bool:
    """A data channel section in the form of RFC 8841 section 5."""
    if section.kind != "application" or section.protocol not in DATA_PROTOCOLS:
        return False
    return "webrtc-datachannel" in section.formats and bool(parse_number(section.get("sctp-port") or "", 65535))


def new_description(session_id: int, version: int, bundle: list[str], local: LocalTransport) -> SessionDescription:
    description = SessionDescription(session_id=session_id, version=version)
    if local.lite:
        description.add("ice-lite")
    description.add("fingerprint", f"{local.fingerprint.algorithm} {local.fingerprint.value}")
    if bundle:
        description.add("group", " ".join(["BUNDLE", *bundle]))
    description.add("extmap-allow-mixed")
    description.add("msid-semantic", "WMS *")
    return description


def write_transport(section: MediaSection, local: LocalTransport, setup: str, *, candidates: bool) -> None:
    """The transport lines; only one section of a bundle holds candidates (RFC 9143 section 7.1.3)."""
    section.add("ice-ufrag", local.ufrag)
    section.add("ice-pwd", local.pwd)
    section.add("setup", setup)
    if candidates:
        for candidate in local.candidates:
            section.add("candidate", candidate.removeprefix("candidate:"))
        section.add("end-of-candidates")


def write_rtp(section: MediaSection, extensions: dict[str, int], direction: str) -> None:
    for uri, number in sorted(extensions.items(), key=lambda item: item[1]):
        section.add("extmap", f"{number} {uri}")
    section.add("rtcp-mux")
    section.add("rtcp-rsize")
    section.add("extmap-allow-mixed")
    section.add(direction)


def write_data(section: MediaSection) -> None:
    section.formats.append("webrtc-datachannel")
    section.add("sctp-port", "5000")
    section.add("max-message-size", str(MAX_MESSAGE_SIZE))


def write_track(section: MediaSection, track: SendTrack) -> None:
    """Stream, track and SSRCs of what we send. The CNAME is the stream id (livekit-media 2.3)."""
    msid = f"{track.stream_id} {track.track_id}"
    section.add("msid", msid)
    ssrcs = [track.ssrc]
    if track.rtx_ssrc is not None:
        ssrcs.append(track.rtx_ssrc)
        section.add("ssrc-group", f"FID {track.ssrc} {track.rtx_ssrc}")
    for ssrc in ssrcs:
        section.add("ssrc", f"{ssrc} cname:{track.stream_id}")
        section.add("ssrc", f"{ssrc} msid:{msid}")


def reject(section: MediaSection, kind: str, protocol: str, formats: list[str], mid: str) -> None:
    """Make `section` a refusal: port 0, the formats as they came (RFC 3264 section 6)."""
    section.kind, section.port, section.protocol, section.formats = kind, 0, protocol, list(formats)
    if mid:
        section.add("mid", mid)
    section.add("inactive")
