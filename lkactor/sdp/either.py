"""A connection on which both sides may offer, and whose sections may carry media both ways (RFC 3264, RFC 9429).

LiveKit's clients never need this: there one side offers, and a section has one direction. GStreamer's webrtcbin, and
any other peer that knows nothing of LiveKit, sends and receives on the same section and answers what it is offered.

| a section of the peer's offer | answered                                                             |
|-------------------------------|----------------------------------------------------------------------|
| it sends                      | it is received; sendrecv when a track of ours has been placed on it   |
| it only receives              | sendonly with a track, else inactive                                 |
| nothing in common, port 0, outside the bundle | port 0                                               |

| in our offer                                  | is                                                   |
|-----------------------------------------------|------------------------------------------------------|
| a section there is already                    | what it was, with its track if it has one            |
| a track for which there is no fitting section | a new section, sendonly, with the track's codec only |
| the very first, nobody having offered before  | an audio and a video section for the peer to send on |

A section that was given up by a track is described once without before another one takes it (RFC 9429 section 5.10).
A section keeps the direction that was agreed on, or rests inactive: webrtcbin (up to 1.22 at least) refuses any other
change. So a section on which we only receive is never sent on later, and one that carried media both ways stays
sendrecv when its track has gone.
An offer that crosses ours wins: the peer cannot be expected to roll back, we can (RFC 8829 section 4.1.8.2).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from lkactor.errors import ProtocolViolation
from lkactor.sdp.answerer import OfferSummary
from lkactor.sdp.codecs import (
    Codec,
    SendMedia,
    accept,
    accepted_extensions,
    offered,
    pick_codec,
    read_codecs,
    write_codecs,
)
from lkactor.sdp.description import MediaSection, SessionDescription
from lkactor.sdp.media import (
    RTP_PROTOCOLS,
    LocalTransport,
    ReceiveMedia,
    RemoteTransport,
    SendTrack,
    is_data,
    new_description,
    read_transport,
    reject,
    write_data,
    write_rtp,
    write_track,
    write_transport,
)

RTP = "UDP/TLS/RTP/SAVPF"
MAX_SECTIONS = 64
"""With so many, a track for which there is no section is not offered any more."""
DYNAMIC = (*range(96, 128), *range(35, 64))
NOT_OFFERED = ("audio/red", "audio/pcmu", "audio/pcma")


@dataclass(slots=True)
class _Section:
    mid: str
    kind: str
    protocol: str = RTP
    formats: list[str] = field(default_factory=list)
    usable: bool = True
    """Not refused by either side."""
    codecs: list[Codec] = field(default_factory=list)
    extensions: dict[str, int] = field(default_factory=dict)
    receives: bool = False
    """The peer sends on it, or may."""
    takes: bool = False
    """The peer receives on it, or may."""
    track_id: str | None = None
    resting: bool = False
    offered_track: str | None = None
    """In our outstanding offer."""
    peer: MediaSection | None = None
    """As the peer last described it."""
    agreed: str = ""
    """Our direction when the section was last in use."""

    @property
    def media(self) -> bool:
        return self.usable and self.kind in ("audio", "video")


class EitherSide:
    """`codecs` are the enabled mimes in lower case; `playout_delay` takes that extension from a peer that offers it."""

    def __init__(self, *, codecs: Sequence[str], playout_delay: bool = False) -> None:
        self._enabled = tuple(codecs)
        self._playout_delay = playout_delay
        self._sections: list[_Section] = []
        self._tracks: dict[str, SendTrack] = {}
        self._refused: set[str] = set()
        """Tracks that the peer did not want on a section of their own."""
        self._setup = ""
        """Our own role word, once it is settled."""
        self._version = 0
        self.outstanding = False
        """An offer of ours waits for its answer."""

    # -- what we send -----------------------------------------------------------------------------------------------

    def set_send_tracks(self, tracks: Iterable[SendTrack]) -> None:
        """The whole set, for the next description."""
        self._tracks = {track.track_id: track for track in tracks}
        self._refused &= self._tracks.keys()

    def must_offer(self) -> bool:
        """Something changed that the peer can only hear of by an offer."""
        placed = {section.track_id for section in self._sections if section.usable}
        gone = any(track_id is not None and track_id not in self._tracks for track_id in placed)
        return gone or any(
            track_id not in placed and track_id not in self._refused and self._placeable(track)
            for track_id, track in self._tracks.items()
        )

    def mid_to_track_id(self) -> dict[str, str]:
        return {s.mid: s.track_id for s in self._sections if s.usable and s.track_id is not None}

    def send_media(self) -> tuple[SendMedia, ...]:
        """What the latest agreement sends."""
        return tuple(
            SendMedia(section.track_id, section.mid, tuple(section.codecs), dict(section.extensions))
            for section in self._sections
            if section.media and section.track_id is not None and section.peer is not None and not section.offered_track
        )

    def receive_media(self) -> tuple[ReceiveMedia, ...]:
        """The sections on which the peer sends, as it last described them."""
        found = []
        for section in self._sections:
            if section.media and section.receives and section.peer is not None:
                stream_id, cid = section.peer.msid
                ssrcs, rtx_of = section.peer.ssrcs()
                codecs, extensions = tuple(section.codecs), dict(section.extensions)
                found.append(
                    ReceiveMedia(
                        section.mid, section.kind, cid, stream_id, codecs, extensions, (), ssrcs, rtx_of
                    )
                )  # fmt: skip
        return tuple(found)

    @property
    def has_data(self) -> bool:
        return any(section.usable and section.kind == "application" for section in self._sections)

    def _fits(self, section: _Section, track: SendTrack) -> bool:
        if not (section.media and section.takes) or section.agreed == "recvonly" or section.kind != track.kind:
            return False
        mimes = {codec.mime for codec in section.codecs}
        return not track.mimes or any(mime in mimes for mime in _sendable(track.mimes))

    def _placeable(self, track: SendTrack) -> bool:
        if any(section.track_id is None and self._fits(section, track) for section in self._sections):
            return True
        return len(self._sections) < MAX_SECTIONS and bool(self._codecs_for(track))

    def _place(self) -> None:
        """Give each track a section that is there already."""
        for section in self._sections:
            given_up = section.track_id is not None and section.track_id not in self._tracks
            section.resting = given_up
            if given_up:
                section.track_id = None
        placed = {section.track_id for section in self._sections}
        for track in self._tracks.values():
            if track.track_id in placed:
                continue
            for section in self._sections:
                if section.track_id is None and not section.resting and self._fits(section, track):
                    section.track_id = track.track_id
                    break

    def _codecs_for(self, track: SendTrack) -> list[Codec]:
        wanted = _sendable(track.mimes)
        return [codec for codec in self._offerable(track.kind) if not wanted or codec.mime in wanted]

    def _offerable(self, kind: str) -> list[Codec]:
        return [codec for codec in offered(kind, self._enabled) if codec.mime not in NOT_OFFERED]

    # -- the peer offers --------------------------------------------------------------------------------------------

    def receive_offer(self, sdp: str) -> OfferSummary:
        """Take the peer's offer; one of ours that waits for its answer is withdrawn.

        Raises ProtocolViolation("sdp.…"), and then nothing has changed.
        """
        description = SessionDescription.parse(sdp)
        if not description.media:
            raise ProtocolViolation("sdp.no_sections")
        # What an offer of ours has added was never agreed on: if there is one, it is withdrawn now.
        known = [section for section in self._sections if section.peer is not None]
        if not len(known) <= len(description.media) <= MAX_SECTIONS:
            raise ProtocolViolation("sdp.section_count")
        mids = [section.mid for section in description.media if not section.rejected]
        if not mids or "" in mids or len(set(mids)) != len(mids):
            raise ProtocolViolation("sdp.bad_mid")
        # Without a bundle there is one transport, so the first section is all we can take.
        bundle = [mid for mid in description.bundle if mid in mids] or mids[:1]
        tag = next(section for section in description.media if section.mid == bundle[0])
        transport = read_transport(description, tag)
        sections = [self._read(section, bundle) for section in description.media]
        for section, former in zip(sections, known, strict=False):
            section.track_id = former.track_id if section.takes else None
            section.agreed = former.agreed
        self._sections, self.outstanding = sections, False
        self._setup = self._setup or ("passive" if transport.setup == "active" else "active")
        return OfferSummary(transport, self.has_data)

    def _read(self, peer: MediaSection, bundle: Sequence[str]) -> _Section:
        section = _Section(peer.mid, peer.kind, peer.protocol, list(peer.formats), peer=peer)
        section.usable = not peer.rejected and peer.mid in bundle
        if peer.kind == "application":
            section.usable = section.usable and is_data(peer)
        elif peer.kind in ("audio", "video") and peer.protocol in RTP_PROTOCOLS:
            section.codecs = accept(read_codecs(peer), self._enabled, remb=True)
            section.extensions = accepted_extensions(peer, single=True, playout_delay=self._playout_delay)
            section.usable = section.usable and bool(section.codecs)
            section.receives = peer.peer_sends
            section.takes = peer.direction in ("sendrecv", "recvonly")
        else:
            section.usable = False
        return section

    def create_answer(self, local: LocalTransport) -> str:
        """Answer the latest offer. Raises ProtocolViolation if there is none."""
        if not self._sections:
            raise ProtocolViolation("sdp.no_offer")
        self._place()
        for section in self._sections:
            self._settle(section)
        return self._describe(local, self._setup)

    # -- we offer ---------------------------------------------------------------------------------------------------

    def create_offer(self, local: LocalTransport) -> str:
        self._place()
        if not self._sections:
            for kind in ("audio", "video"):
                codecs = self._offerable(kind)
                if codecs:
                    self._add(kind, codecs, receives=True)
            self._place()
        placed = {section.track_id for section in self._sections}
        for track in self._tracks.values():
            if track.track_id in placed or track.track_id in self._refused or len(self._sections) >= MAX_SECTIONS:
                continue
            if any(section.resting and self._fits(section, track) for section in self._sections):
                continue  # The section it takes is described once without a track first.
            codecs = self._codecs_for(track)
            if codecs:
                self._add(track.kind, codecs, receives=False).track_id = track.track_id
        for section in self._sections:
            section.offered_track = section.track_id
        self.outstanding = True
        # RFC 8842 section 5.3: the roles of an association that lives are kept, so there is nothing to choose.
        return self._describe(local, self._setup or "actpass")

    def _add(self, kind: str, codecs: Sequence[Codec], *, receives: bool) -> _Section:
        used = {section.mid for section in self._sections}
        mid = next(name for name in (f"{kind}{n}" for n in range(MAX_SECTIONS + 1)) if name not in used)
        section = _Section(mid, kind, codecs=self._numbered(codecs), receives=receives, takes=True)
        self._sections.append(section)
        return section

    def _numbered(self, codecs: Sequence[Codec]) -> list[Codec]:
        """One payload type has one meaning in a bundle (RFC 9143 section 9.1): known codecs keep theirs."""
        known = [codec for section in self._sections for codec in section.codecs]
        used = {number for codec in known for number in (codec.payload_type, codec.rtx_payload_type)}
        numbered = []
        for codec in codecs:
            same = pick_codec(SendMedia("", "", tuple(known), {}), codec.mime, codec.fmtp)
            if same is not None and same not in numbered:
                numbered.append(same)
            elif same is None:
                number = _free(used, codec.payload_type)
                rtx = None if codec.rtx_payload_type is None else _free(used, codec.rtx_payload_type)
                if number is not None:
                    numbered.append(replace(codec, payload_type=number, rtx_payload_type=rtx))
        return numbered

    def receive_answer(self, sdp: str) -> RemoteTransport:
        """Raises ProtocolViolation("sdp.…"), and then nothing has changed."""
        description = SessionDescription.parse(sdp)
        if not self.outstanding:
            raise ProtocolViolation("sdp.no_offer")
        # RFC 3264 section 6: as many sections as offered, in the same order.
        if len(description.media) != len(self._sections):
            raise ProtocolViolation("sdp.section_count")
        pairs = list(zip(self._sections, description.media, strict=True))
        if any(peer.kind != section.kind or peer.mid not in ("", section.mid) for section, peer in pairs):
            raise ProtocolViolation("sdp.section_mismatch")
        # A bundled section may leave the transport lines to the tagged one (RFC 9143 section 7.1.3).
        live = [peer for section, peer in pairs if peer.port != 0 and section.usable]
        tag = next((peer for peer in live if peer.ice_credentials is not None), None)
        if tag is None:
            raise ProtocolViolation("sdp.no_ice_credentials")
        transport = read_transport(description, tag)
        if transport.setup == "actpass":
            # RFC 5763 section 5: an answer decides.
            raise ProtocolViolation("sdp.bad_setup")
        self.outstanding = False
        self._setup = self._setup or ("passive" if transport.setup == "active" else "active")
        for section, peer in pairs:
            self._agree(section, peer)
        return transport

    def _agree(self, section: _Section, peer: MediaSection) -> None:
        sent, section.offered_track, section.peer = section.offered_track, None, peer
        if peer.port == 0 or not section.usable:
            section.usable = False
        elif section.media:
            common = accept(read_codecs(peer), self._enabled, remb=True)
            section.codecs = common or section.codecs
            section.extensions = accepted_extensions(peer, single=True, playout_delay=self._playout_delay)
            section.receives = section.receives and peer.peer_sends
        takes = section.usable and peer.direction in ("sendrecv", "recvonly")
        if sent is not None and not takes:
            section.takes = False
            section.track_id = None
            if not section.receives:
                self._refused.add(sent)
        self._settle(section)

    def _settle(self, section: _Section) -> None:
        if section.media:
            direction = self._direction(section)
            section.agreed = section.agreed if direction == "inactive" else direction

    # -- writing ----------------------------------------------------------------------------------------------------

    def _describe(self, local: LocalTransport, setup: str) -> str:
        self._version += 1
        bundle = [section.mid for section in self._sections if section.usable]
        session_id = zlib.crc32(local.fingerprint.value.encode())
        description = new_description(session_id, self._version, bundle, local)
        for section in self._sections:
            written = MediaSection()
            if not section.usable:
                formats = section.formats or [str(codec.payload_type) for codec in section.codecs] or ["0"]
                reject(written, section.kind, section.protocol, formats, section.mid)
            else:
                written.kind, written.protocol = section.kind, section.protocol
                written.add("mid", section.mid)
                write_transport(written, local, setup, candidates=section.mid == bundle[0])
                self._write_media(written, section)
            description.media.append(written)
        return str(description)

    def _write_media(self, written: MediaSection, section: _Section) -> None:
        if section.kind == "application":
            write_data(written)
            return
        write_codecs(written, section.codecs)
        track = self._tracks.get(section.track_id or "")
        write_rtp(written, section.extensions, self._direction(section))
        if track is not None:
            write_track(written, track)

    def _direction(self, section: _Section) -> str:
        kept = section.agreed == "sendrecv" and section.takes and section.receives
        sends = kept or section.track_id in self._tracks
        directions = {(True, True): "sendrecv", (True, False): "sendonly", (False, True): "recvonly"}
        return directions.get((sends, section.receives), "inactive")


def _sendable(mimes: Sequence[str]) -> Sequence[str]:
    """RED is unwrapped for a peer that does not know it."""
    return (*mimes, "audio/opus") if "audio/red" in mimes else mimes


def _free(used: set[int | None], wanted: int) -> int | None:
    number = wanted if wanted not in used else next((n for n in DYNAMIC if n not in used), None)
    used.add(number)
    return number
