"""We offer, the peer answers: the subscriber connection (RFC 3264, RFC 9429; livekit-media 2.3, 2.6, 2.7).

| a line is | offered as        | leaves it                                                        |
|-----------|-------------------|------------------------------------------------------------------|
| sending   | sendonly          | its track is withdrawn: idle                                     |
| idle      | inactive          | offered so once, and a track of its kind comes: sending          |
| refused   | port 0 (answered) | never; its track counts as placed, so that it is not tried again |
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lkactor.errors import ProtocolViolation
from lkactor.sdp.codecs import (
    Codec,
    SendMedia,
    offered,
    offered_extensions,
    offered_lines,
    read_codecs,
)
from lkactor.sdp.description import MediaSection, SessionDescription
from lkactor.sdp.media import (
    LocalTransport,
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
MANY_LINES = 200
DATA = "UDP/DTLS/SCTP"


@dataclass(slots=True)
class _Line:
    mid: str
    kind: str
    track_id: str | None = None
    last_track_id: str | None = None
    refused: bool = False
    agreed: SendMedia | None = None
    """From the last answer, while it is about the present track."""


class Offerer:
    """`codecs` are the enabled mimes in lower case; `reuse_sections` lets a new track take an idle line;
    `playout_delay` offers that extension."""

    def __init__(self, *, codecs: Sequence[str], reuse_sections: bool = True, playout_delay: bool = False) -> None:
        self._enabled = tuple(codecs)
        self._codecs = {kind: offered(kind, self._enabled) for kind in ("audio", "video")}
        self._extensions = {kind: offered_extensions(kind, playout_delay=playout_delay) for kind in self._codecs}
        self._reuse = reuse_sections
        self._tracks: dict[str, SendTrack] = {}
        self._lines: list[_Line] = []
        self._version = 0
        self._outstanding = False

    @property
    def has_data(self) -> bool:
        return any(line.kind == "application" and not line.refused for line in self._lines)

    def set_send_tracks(self, tracks: Iterable[SendTrack]) -> None:
        """The whole set, for the next offer. A track whose kind has no enabled codec is never offered."""
        self._tracks = {track.track_id: track for track in tracks}

    def mid_to_track_id(self) -> dict[str, str]:
        """As of the latest offer."""
        return {line.mid: line.track_id for line in self._lines if line.track_id is not None and not line.refused}

    def send_media(self) -> tuple[SendMedia, ...]:
        """What the peer agreed to receive, as of the latest answer."""
        return tuple(line.agreed for line in self._lines if line.agreed is not None and line.track_id is not None)

    # -- the offer --------------------------------------------------------------------------------------------------

    def create_offer(self, local: LocalTransport) -> str:
        self._place()
        self._version += 1
        self._outstanding = True
        bundle = [line.mid for line in self._lines if not line.refused]
        session_id = zlib.crc32(local.fingerprint.value.encode())
        description = new_description(session_id, self._version, bundle, local)
        for line in self._lines:
            section = MediaSection()
            protocol = DATA if line.kind == "application" else RTP
            if line.refused:
                reject(section, line.kind, protocol, self._formats(line.kind), line.mid)
            else:
                section.kind, section.protocol = line.kind, protocol
                section.add("mid", line.mid)
                write_transport(section, local, "actpass", candidates=line.mid == bundle[0])
                self._write(section, line)
            description.media.append(section)
        return str(description)

    def _formats(self, kind: str) -> list[str]:
        if kind == "application":
            return ["webrtc-datachannel"]
        return [str(codec.payload_type) for codec in self._codecs[kind]]

    def _write(self, section: MediaSection, line: _Line) -> None:
        if line.kind == "application":
            write_data(section)
            return
        track = self._tracks[line.track_id] if line.track_id is not None else None
        lines = offered_lines(line.kind, self._enabled, stereo=track is not None and track.stereo)
        section.formats.extend(lines.formats)
        section.attributes.extend(lines.attributes)
        write_rtp(section, self._extensions[line.kind], "inactive" if track is None else "sendonly")
        if track is not None:
            write_track(section, track)

    def _place(self) -> None:
        """Give each track a line. One given up in this offer rests for it, so that the client sees it end."""
        idle = [line for line in self._lines if line.track_id is None and not line.refused]
        for line in self._lines:
            if line.track_id is not None and line.track_id not in self._tracks:
                line.track_id = line.agreed = None
        placed = {line.track_id for line in self._lines}
        for track in self._tracks.values():
            if track.track_id in placed or not self._codecs.get(track.kind):
                continue
            free = self._idle_line(idle, track) if self._reuse else None
            if free is None:
                free = self._append(track.kind)
            else:
                idle.remove(free)
            free.track_id = free.last_track_id = track.track_id
        if self._version == 0:
            self._append("application")

    def _idle_line(self, idle: Sequence[_Line], track: SendTrack) -> _Line | None:
        """A line that another track had before: a client built on the Rust core never reports a track that comes back
        on its own line. Only when there are very many lines is it better to have it there than to add one more."""
        fitting = [line for line in idle if line.kind == track.kind]
        others = [line for line in fitting if line.last_track_id != track.track_id]
        if others or len(self._lines) < MANY_LINES:
            return others[0] if others else None
        return fitting[0] if fitting else None

    def _append(self, kind: str) -> _Line:
        line = _Line(str(len(self._lines)), kind)
        self._lines.append(line)
        return line

    # -- the answer -------------------------------------------------------------------------------------------------

    def receive_answer(self, sdp: str) -> RemoteTransport:
        """Raises ProtocolViolation("sdp.…"), and then nothing has changed."""
        description = SessionDescription.parse(sdp)
        if not self._outstanding:
            raise ProtocolViolation("sdp.no_offer")
        # RFC 3264 section 6: as many sections as offered, in the same order.
        if len(description.media) != len(self._lines):
            raise ProtocolViolation("sdp.section_count")
        pairs = list(zip(self._lines, description.media, strict=True))
        if any(answer.kind != line.kind or answer.mid not in ("", line.mid) for line, answer in pairs):
            raise ProtocolViolation("sdp.section_mismatch")
        live = [answer for line, answer in pairs if answer.port != 0 and not line.refused]
        # A bundled section may leave the transport lines to the tagged one (RFC 9143 section 7.1.3).
        tag = next((answer for answer in live if answer.ice_credentials is not None), None)
        if tag is None:
            raise ProtocolViolation("sdp.no_ice_credentials")
        transport = read_transport(description, tag)
        if transport.setup == "actpass":
            # RFC 5763 section 5: an answer decides.
            raise ProtocolViolation("sdp.bad_setup")
        self._outstanding = False
        for line, answer in pairs:
            self._agree(line, answer)
        return transport

    def _agree(self, line: _Line, answer: MediaSection) -> None:
        line.agreed = None
        if line.refused:
            return
        if line.kind == "application":
            line.refused = answer.port == 0 or not is_data(answer)
            return
        if answer.port == 0:
            line.refused = True
        elif line.track_id is not None and answer.direction in ("recvonly", "sendrecv"):
            extensions = {
                uri: number for uri, number in answer.extensions.items() if uri in self._extensions[line.kind]
            }
            line.agreed = SendMedia(line.track_id, line.mid, tuple(self._common(answer)), extensions)

    def _common(self, answer: MediaSection) -> list[Codec]:
        """The answer's codecs that we offered, in our order (livekit-media 2.6)."""
        ours = self._codecs[answer.kind]
        rank = {codec.mime: position for position, codec in reversed(list(enumerate(ours)))}
        theirs = [codec for codec in read_codecs(answer) if codec.mime in rank]
        allowed = {codec.mime: codec.feedback for codec in ours}
        return [
            replace(codec, feedback=tuple(kind for kind in allowed[codec.mime] if kind in codec.feedback))
            for codec in sorted(theirs, key=lambda codec: rank[codec.mime])
        ]
