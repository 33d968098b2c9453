"""What one participant publishes: announced tracks wait for their media, media finds its announcement.

| a track is | from                         | to                                                        |
|------------|------------------------------|-----------------------------------------------------------|
| pending    | AddTrack                     | published, when an offer has a section with its cid       |
| queued     | AddTrack of a cid in use     | pending, when the former track of that cid ends           |
| published  | its media section            | gone, when the section stops sending, or by the server    |

A published track may be sent in a second codec: announced with it, asked for by the server, told with an AddTrack of
its own that names the track's sid, and found in a section of its own (livekit-media 3.11).

Source: livekit-media 2.5 (cid matching) and 3.1, livekit-surface 2.4.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from livekit.protocol import models, rtc

from lkactor.room.sids import new_track_sid
from lkactor.room.track_info import announce_backup, bind, kind_of, set_ssrc, track_info, unbind
from lkactor.sdp import ReceiveMedia, ReceivePreference

MAX_PENDING = 20
MAX_QUEUED_PER_CID = 3

Reason = rtc.RequestResponse.Reason


@dataclass(frozen=True, slots=True)
class Refused:
    """AddTrack is not accepted; `reason` goes into the RequestResponse (QUEUED included)."""

    reason: int
    message: str


@dataclass(slots=True)
class Publication:
    """One track from its announcement on."""

    info: models.TrackInfo
    cid: str
    request: rtc.AddTrackRequest
    sections: dict[int, ReceiveMedia] = field(default_factory=dict)
    """By index in `info.codecs`, 0 is the primary: where the client sends it."""
    subscribed_once: bool = False

    @property
    def kind(self) -> str:
        return kind_of(self.request)

    @property
    def codecs(self) -> tuple[tuple[str, str, int], ...]:
        """(mime, fmtp, payload type) of all its sections, each in the order of preference."""
        found = [self.sections[index].codecs for index in sorted(self.sections)]
        return tuple(dict.fromkeys((codec.mime, codec.fmtp, codec.payload_type) for group in found for codec in group))

    @property
    def mimes(self) -> tuple[str, ...]:
        """What it is, or can be, sent as, the primary first. The client's sections must list it."""
        listed = {mime for mime, _, _ in self.codecs}
        announced = dict.fromkeys(codec.mime_type.lower() for codec in self.info.codecs)
        return tuple(mime for mime in announced if mime in listed)

    def preference(self, index: int = 0) -> ReceivePreference:
        """What the answer should say about the section of this codec."""
        features = self.info.audio_features
        return ReceivePreference(
            mime=self.info.codecs[index].mime_type.lower() or None,
            disable_red=self.info.disable_red,
            no_dtx=models.AudioTrackFeature.TF_NO_DTX in features,
            stereo=models.AudioTrackFeature.TF_STEREO in features,
        )

    def awaits(self, section: ReceiveMedia, exact: bool) -> int | None:
        """The announced codec, not the primary, that this section may carry."""
        listed = {codec.mime for codec in section.codecs}
        for index, codec in enumerate(self.info.codecs):
            if index == 0 or index in self.sections or not codec.cid or codec.mime_type.lower() not in listed:
                continue
            if codec.cid == section.cid or not exact:
                return index
        return None


class Matched(NamedTuple):
    """A section is the media of a track's codec, by its index in TrackInfo."""

    publication: Publication
    section: ReceiveMedia
    codec: int


@dataclass(frozen=True, slots=True)
class MediaChange:
    """What an offer changed."""

    published: tuple[Matched, ...] = ()
    withdrawn: tuple[Publication, ...] = ()
    dropped: tuple[Matched, ...] = ()
    """Backup codecs that are sent no more, of tracks that go on."""


@dataclass(slots=True)
class Publications:
    """The tracks of one participant, by sid. All methods are pure bookkeeping."""

    rng: random.Random
    enabled: tuple[str, ...] = ()
    """Mimes in lower case that may be published, the preferred first; empty: all."""
    tracks: dict[str, Publication] = field(default_factory=dict)
    pending: dict[str, Publication] = field(default_factory=dict)
    """By cid."""
    queued: dict[str, list[rtc.AddTrackRequest]] = field(default_factory=dict)
    unmatched: dict[str, ReceiveMedia] = field(default_factory=dict)

    def add(self, request: rtc.AddTrackRequest, allowed: Callable[[int], bool]) -> Publication | Refused:
        """AddTrack. `allowed(source)` says whether the grant covers the source. For a backup codec: the known track."""
        if request.type not in (models.TrackType.AUDIO, models.TrackType.VIDEO):
            return Refused(Reason.UNSUPPORTED_TYPE, "unsupported track type")
        if not allowed(request.source):
            return Refused(Reason.NOT_ALLOWED, "does not have permission to publish")
        if request.sid:
            known = self.tracks.get(request.sid)
            if known is None:
                return Refused(Reason.NOT_FOUND, "track not found")
            announce_backup(known.info, request)
            return known
        if len(self.pending) >= MAX_PENDING:
            return Refused(Reason.LIMIT_EXCEEDED, "too many pending tracks")
        cids = {publication.cid for publication in self.tracks.values()}
        cids |= {codec.cid for publication in self.tracks.values() for codec in publication.info.codecs}
        if request.cid in self.pending or request.cid in cids:
            queue = self.queued.setdefault(request.cid, [])
            if len(queue) >= MAX_QUEUED_PER_CID:
                return Refused(Reason.LIMIT_EXCEEDED, "too many tracks queued for this cid")
            queue.append(request)
            return Refused(Reason.QUEUED, "queued until the track of this cid ends")
        sid = new_track_sid(kind_of(request), request.source, self.rng)
        publication = Publication(track_info(request, sid, self.enabled), request.cid, request)
        self.pending[request.cid] = publication
        return publication

    def find(self, sid: str) -> Publication | None:
        """Published or pending."""
        return self.tracks.get(sid) or next((p for p in self.pending.values() if p.info.sid == sid), None)

    def preferences(self) -> dict[str, ReceivePreference]:
        """By cid, for the answer."""
        found = {}
        for publication in (*self.pending.values(), *self.tracks.values()):
            found[publication.cid] = publication.preference()
            for index, codec in enumerate(publication.info.codecs):
                for cid in (codec.cid, codec.sdp_cid):
                    if cid:
                        found[cid] = publication.preference(index)
        return found

    def media_changed(self, media: Sequence[ReceiveMedia], unix_micro: int = 0) -> MediaChange:
        """The sections of the latest offer on which the client sends. `unix_micro`: now, for versions."""
        by_mid = {section.mid: section for section in media}
        withdrawn, dropped = [], []
        for sid, publication in list(self.tracks.items()):
            gone = [index for index, section in publication.sections.items() if section.mid not in by_mid]
            if 0 in gone:
                del self.tracks[sid]
                withdrawn.append(publication)
                continue
            for index in gone:
                unbind(publication.info, index)
                dropped.append(Matched(publication, publication.sections.pop(index), index))
        taken = {section.mid for publication in self.tracks.values() for section in publication.sections.values()}
        self.unmatched = {mid: section for mid, section in by_mid.items() if mid not in taken}
        return MediaChange(self.match(unix_micro), tuple(withdrawn), tuple(dropped))

    def match(self, unix_micro: int = 0) -> tuple[Matched, ...]:
        """Give unmatched sections to announced codecs: by cid, else the first of the kind (livekit-media 2.5)."""
        matched: list[Matched] = []
        for exact in (True, True, False):  # Twice by cid: a backup's section may stand before its track's.
            for mid, section in list(self.unmatched.items()):
                found = self._candidate(section, exact)
                if found is None:
                    continue
                publication, index = found
                del self.unmatched[mid]
                if index == 0:
                    del self.pending[publication.cid]
                    self.tracks[publication.info.sid] = publication
                publication.sections[index] = section
                bind(publication.info, index, section, unix_micro)
                matched.append(Matched(publication, section, index))
        return tuple(matched)

    def _candidate(self, section: ReceiveMedia, exact: bool) -> tuple[Publication, int] | None:
        """The track, and which of its codecs."""
        if exact:
            pending = self.pending.get(section.cid) or next(
                (p for p in self.pending.values() if section.cid and p.info.codecs[0].cid == section.cid), None
            )
        else:
            pending = next((p for p in self.pending.values() if p.kind == section.kind), None)
        if pending is not None:
            return pending, 0
        for publication in self.tracks.values():
            index = publication.awaits(section, exact) if publication.kind == section.kind else None
            if index is not None:
                return publication, index
        return None

    def stream_bound(self, mid: str, layer: int, ssrc: int, repair_ssrc: int) -> bool:
        """The SSRC of a layer, of its retransmissions, or both, are known. False: nothing new."""
        for publication in self.tracks.values():
            for index, section in publication.sections.items():
                if section.mid == mid:
                    return set_ssrc(publication.info, index, layer, ssrc, repair_ssrc)
        return False

    def next_queued(self, cid: str) -> rtc.AddTrackRequest | None:
        """The AddTrack that waited for this cid to be free again."""
        queue = self.queued.get(cid)
        if not queue:
            return None
        request = queue.pop(0)
        if not queue:
            del self.queued[cid]
        return request

    def remove(self, sid: str) -> Publication | None:
        """The server takes a published or pending track away."""
        publication = self.tracks.pop(sid, None)
        if publication is None:
            publication = next((p for p in self.pending.values() if p.info.sid == sid), None)
            if publication is not None:
                del self.pending[publication.cid]
        return publication

    def infos(self) -> Iterable[models.TrackInfo]:
        return [publication.info for publication in self.tracks.values()]
