"""The peer offers, we answer: the publisher connection, and the single one that carries both ways (RFC 3264, RFC 9429).

| offered section            | answered                                                             |
|----------------------------|----------------------------------------------------------------------|
| sendonly, sendrecv         | recvonly: a `ReceiveMedia`                                           |
| recvonly, a track assigned | sendonly with the track's msid and SSRCs                             |
| recvonly otherwise         | inactive, and free for a later track                                 |
| inactive                   | inactive                                                             |
| nothing in common, port 0, outside the bundle | port 0                                            |

A section given up by a track is answered inactive once before another track takes it: a client announces a new track
only when its direction turns on again (RFC 9429 section 5.10).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lkactor.errors import ProtocolViolation
from lkactor.sdp.codecs import (
    Codec,
    SendMedia,
    accept,
    accepted_extensions,
    first,
    read_codecs,
    with_parameters,
    write_codecs,
)
from lkactor.sdp.description import MediaSection, SessionDescription
from lkactor.sdp.media import (
    RTP_PROTOCOLS,
    LocalTransport,
    ReceiveMedia,
    ReceivePreference,
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

NO_PREFERENCE = ReceivePreference(disable_red=True, no_dtx=True)
STEREO = ("stereo=1", "maxaveragebitrate=510000")


@dataclass(frozen=True, slots=True)
class OfferSummary:
    transport: RemoteTransport
    has_data: bool


@dataclass(slots=True)
class _Section:
    """One section of the latest offer, as we can take it."""

    offered: MediaSection
    usable: bool
    codecs: list[Codec]
    extensions: dict[str, int]

    @property
    def can_receive(self) -> bool:
        return self.usable and self.offered.direction == "recvonly"

    @property
    def sends(self) -> bool:
        return self.usable and self.offered.kind in ("audio", "video") and self.offered.peer_sends


class Answerer:
    """`codecs` are the enabled mimes in lower case; `single` says that one connection carries both ways.

    `publish_codecs`, if they are others, are the mimes that the peer may send; `playout_delay` takes that extension.
    """

    def __init__(
        self,
        *,
        codecs: Sequence[str],
        publish_codecs: Sequence[str] | None = None,
        single: bool = False,
        playout_delay: bool = False,
    ) -> None:
        self._enabled = tuple(codecs)
        self._publishable = self._enabled if publish_codecs is None else tuple(publish_codecs)
        self._single = single
        self._playout_delay = playout_delay
        self._sections: list[_Section] = []
        self._tracks: dict[str, SendTrack] = {}
        self._assigned: dict[str, str] = {}
        """mid -> track id, as of the last answer."""
        self._draining: set[str] = set()
        """Sections that the last answer made inactive: not counted free before the next one."""
        self._setup = ""
        self._version = 0
        self._media: list[ReceiveMedia] = []

    def receive_offer(self, sdp: str) -> OfferSummary:
        """Take the peer's offer. Raises ProtocolViolation("sdp.…"), and then nothing has changed."""
        description = SessionDescription.parse(sdp)
        if not description.media:
            raise ProtocolViolation("sdp.no_sections")
        if len(description.media) < len(self._sections):
            # RFC 3264 section 8: sections are never removed.
            raise ProtocolViolation("sdp.sections_removed")
        mids = [section.mid for section in description.media if not section.rejected]
        if "" in mids or len(set(mids)) != len(mids):
            raise ProtocolViolation("sdp.bad_mid")
        if not mids:
            raise ProtocolViolation("sdp.all_rejected")
        # Without a bundle there is one transport, so the first section is all we can take.
        bundle = [mid for mid in description.bundle if mid in mids] or mids[:1]
        sections = [self._read(section, bundle) for section in description.media]
        tag = next(section for section in description.media if section.mid == bundle[0])
        transport = read_transport(description, tag)
        self._sections = sections
        # RFC 8842 section 5.3: active unless the peer took that role; kept while the association lives.
        self._setup = self._setup or ("passive" if transport.setup == "active" else "active")
        has_data = any(section.usable and section.offered.kind == "application" for section in sections)
        return OfferSummary(transport, has_data)

    def _read(self, offered: MediaSection, bundle: Sequence[str]) -> _Section:
        if offered.rejected or offered.mid not in bundle:
            return _Section(offered, False, [], {})
        if offered.kind == "application":
            return _Section(offered, is_data(offered), [], {})
        if offered.kind not in ("audio", "video") or offered.protocol not in RTP_PROTOCOLS:
            return _Section(offered, False, [], {})
        enabled = self._publishable if offered.peer_sends else self._enabled
        codecs = accept(read_codecs(offered), enabled, remb=self._single)
        extensions = accepted_extensions(offered, single=self._single, playout_delay=self._playout_delay)
        return _Section(offered, bool(codecs), codecs, extensions)

    # -- what we send -----------------------------------------------------------------------------------------------

    def set_send_tracks(self, tracks: Iterable[SendTrack]) -> None:
        """The whole set; the next answer carries what finds a section."""
        self._tracks = {track.track_id: track for track in tracks}

    def missing_sections(self) -> tuple[int, int]:
        """(audio, video) sections that the next offer must add for every track to find one."""
        audio, video = (self._missing(kind) for kind in ("audio", "video"))
        return audio, video

    def _missing(self, kind: str) -> int:
        placed = set(self._assigned.values())
        waiting = sum(track.kind == kind and track.track_id not in placed for track in self._tracks.values())
        free = sum(1 for mid in self._free(kind) if mid not in self._draining)
        return max(0, waiting - free)

    def _free(self, kind: str) -> list[str]:
        mids = [s.offered.mid for s in self._sections if s.offered.kind == kind and s.can_receive]
        return [mid for mid in mids if mid not in self._assigned]

    def _assign(self) -> None:
        kinds = {section.offered.mid: section.offered.kind for section in self._sections if section.can_receive}
        kept = {
            mid: track_id
            for mid, track_id in self._assigned.items()
            if track_id in self._tracks and kinds.get(mid) == self._tracks[track_id].kind
        }
        self._draining = self._assigned.keys() - kept.keys()
        placed = set(kept.values())
        for track in self._tracks.values():
            if track.track_id in placed:
                continue
            # `_assigned` still holds what is given up now: those sections rest for one answer.
            mid = next((mid for mid in self._free(track.kind) if mid not in kept), None)
            if mid is not None:
                kept[mid] = track.track_id
        self._assigned = kept

    def mid_to_track_id(self) -> dict[str, str]:
        return dict(self._assigned)

    def send_media(self) -> tuple[SendMedia, ...]:
        """What the latest answer sends."""
        sections = {section.offered.mid: section for section in self._sections if section.usable}
        return tuple(
            SendMedia(track_id, mid, tuple(sections[mid].codecs), dict(sections[mid].extensions))
            for mid, track_id in self._assigned.items()
            if mid in sections
        )

    def receive_media(self) -> tuple[ReceiveMedia, ...]:
        """The sections of the latest answer that the peer sends on, codecs in the answer's order."""
        return tuple(self._media)

    # -- the answer -------------------------------------------------------------------------------------------------

    def create_answer(
        self, local: LocalTransport, *, preferences: Mapping[str, ReceivePreference] | None = None
    ) -> str:
        """Answer the latest offer; `preferences` by cid. Raises ProtocolViolation if there is no offer."""
        if not self._sections:
            raise ProtocolViolation("sdp.no_offer")
        self._assign()
        self._media = []
        self._version += 1
        bundle = [section.offered.mid for section in self._sections if section.usable]
        # A session id that stays: there is one of them per connection and it need not be secret (RFC 8866 5.2).
        session_id = zlib.crc32(local.fingerprint.value.encode())
        description = new_description(session_id, self._version, bundle, local)
        for section in self._sections:
            answer = MediaSection()
            offered = section.offered
            if not section.usable:
                reject(answer, offered.kind, offered.protocol, offered.formats, offered.mid)
            else:
                answer.kind, answer.protocol = offered.kind, offered.protocol
                answer.add("mid", offered.mid)
                write_transport(answer, local, self._setup, candidates=offered.mid == bundle[0])
                self._answer_section(answer, section, preferences or {})
            description.media.append(answer)
        return str(description)

    def _answer_section(
        self, answer: MediaSection, section: _Section, preferences: Mapping[str, ReceivePreference]
    ) -> None:
        mid = section.offered.mid
        if section.offered.kind == "application":
            write_data(answer)
        elif section.sends:
            self._answer_receiving(answer, section, preferences)
        elif mid in self._assigned:
            track = self._tracks[self._assigned[mid]]
            extra = ("sprop-stereo=1",) if track.stereo else ()
            write_codecs(answer, _opus_with(section.codecs, extra))
            write_rtp(answer, section.extensions, "sendonly")
            write_track(answer, track)
        else:
            write_codecs(answer, section.codecs)
            write_rtp(answer, section.extensions, "inactive")

    def _answer_receiving(
        self, answer: MediaSection, section: _Section, preferences: Mapping[str, ReceivePreference]
    ) -> None:
        offered = section.offered
        stream_id, cid = offered.msid
        codecs = _preferred(section.codecs, preferences.get(cid, NO_PREFERENCE))
        rids = offered.send_rids()
        write_codecs(answer, codecs)
        write_rtp(answer, section.extensions, "recvonly")
        for rid in rids:
            answer.add("rid", f"{rid} recv")
        if rids:
            answer.add("simulcast", f"recv {';'.join(rids)}")
        ssrcs, rtx_of = offered.ssrcs()
        self._media.append(
            ReceiveMedia(
                mid=offered.mid,
                kind=offered.kind,
                cid=cid,
                stream_id=stream_id,
                codecs=tuple(codecs),
                extensions=dict(section.extensions),
                rids=rids,
                ssrcs=ssrcs,
                rtx_of=rtx_of,
            )
        )


def _opus_with(codecs: Sequence[Codec], extra: Sequence[str]) -> list[Codec]:
    return [with_parameters(codec, extra) if extra and codec.mime == "audio/opus" else codec for codec in codecs]


def _preferred(codecs: Sequence[Codec], preference: ReceivePreference) -> list[Codec]:
    """Order and Opus parameters as the track's announcement wants them (livekit-media 2.5)."""
    extra = () if preference.no_dtx else ("usedtx=1",)
    ordered = _opus_with(codecs, (*extra, *(STEREO if preference.stereo else ())))
    mime = preference.mime
    if mime is None and not preference.disable_red:
        mime = "audio/red"
    return first(ordered, mime) if mime else ordered
