"""What one participant publishes: announced tracks wait for their media, media finds its announcement.

| a track is | from                         | to                                                        |
|------------|------------------------------|-----------------------------------------------------------|
| pending    | AddTrack                     | published, when an offer has a section with its cid       |
| queued     | AddTrack of a cid in use     | pending, when the former track of that cid ends           |
| published  | its media section            | gone, when the section stops sending, or by the server    |

Source: livekit-media 2.5 (cid matching) and 3.1, livekit-surface 2.4.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from livekit.protocol import models, rtc

from lkactor.room.sids import new_track_sid
from lkactor.sdp import ReceiveMedia, ReceivePreference

MAX_PENDING = 20
MAX_QUEUED_PER_CID = 3
MAX_LAYERS = 3

Reason = rtc.RequestResponse.Reason
SVC_MIMES = ("video/vp9", "video/av1")
DEFAULT_STREAMS = {
    models.TrackSource.CAMERA: "camera",
    models.TrackSource.MICROPHONE: "camera",
    models.TrackSource.SCREEN_SHARE: "screen",
    models.TrackSource.SCREEN_SHARE_AUDIO: "screen",
}


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
    mid: str = ""
    codecs: tuple[tuple[str, str, int], ...] = ()
    """(mime, fmtp, payload type) as the client sends them, the preferred first."""
    subscribed_once: bool = False

    @property
    def kind(self) -> str:
        return "audio" if self.info.type == models.TrackType.AUDIO else "video"

    @property
    def preference(self) -> ReceivePreference:
        """What the answer should say about this track's section."""
        mime = self.request.simulcast_codecs[0].codec.lower() if self.request.simulcast_codecs else ""
        if mime and "/" not in mime:
            mime = f"{self.kind}/{mime}"
        features = self.info.audio_features
        return ReceivePreference(
            mime=mime or None,
            disable_red=self.info.disable_red,
            no_dtx=models.AudioTrackFeature.TF_NO_DTX in features,
            stereo=models.AudioTrackFeature.TF_STEREO in features,
        )


@dataclass(frozen=True, slots=True)
class MediaChange:
    """What an offer changed."""

    published: tuple[tuple[Publication, ReceiveMedia], ...] = ()
    withdrawn: tuple[Publication, ...] = ()


@dataclass(slots=True)
class Publications:
    """The tracks of one participant, by sid. All methods are pure bookkeeping."""

    rng: random.Random
    tracks: dict[str, Publication] = field(default_factory=dict)
    pending: dict[str, Publication] = field(default_factory=dict)
    """By cid."""
    queued: dict[str, list[rtc.AddTrackRequest]] = field(default_factory=dict)
    sections: dict[str, str] = field(default_factory=dict)
    """mid -> cid, for the sections that send now and whose track is not announced yet."""
    unmatched: dict[str, ReceiveMedia] = field(default_factory=dict)

    def add(self, request: rtc.AddTrackRequest, allowed: Callable[[int], bool]) -> Publication | Refused:
        """AddTrack. `allowed(source)` says whether the grant covers the source."""
        if request.type not in (models.TrackType.AUDIO, models.TrackType.VIDEO):
            return Refused(Reason.UNSUPPORTED_TYPE, "unsupported track type")
        if not allowed(request.source):
            return Refused(Reason.NOT_ALLOWED, "does not have permission to publish")
        if request.sid:
            known = self.tracks.get(request.sid)
            if known is None:
                return Refused(Reason.NOT_FOUND, "track not found")
            return Refused(Reason.UNSUPPORTED_TYPE, "backup codecs are not implemented")
        if len(self.pending) >= MAX_PENDING:
            return Refused(Reason.LIMIT_EXCEEDED, "too many pending tracks")
        cids = {publication.cid for publication in self.tracks.values()}
        if request.cid in self.pending or request.cid in cids:
            queue = self.queued.setdefault(request.cid, [])
            if len(queue) >= MAX_QUEUED_PER_CID:
                return Refused(Reason.LIMIT_EXCEEDED, "too many tracks queued for this cid")
            queue.append(request)
            return Refused(Reason.QUEUED, "queued until the track of this cid ends")
        publication = Publication(self._track_info(request), request.cid, request)
        self.pending[request.cid] = publication
        return publication

    def find(self, sid: str) -> Publication | None:
        """Published or pending."""
        return self.tracks.get(sid) or next((p for p in self.pending.values() if p.info.sid == sid), None)

    def preferences(self) -> dict[str, ReceivePreference]:
        """By cid, for the answer."""
        everything = (*self.pending.values(), *self.tracks.values())
        return {publication.cid: publication.preference for publication in everything}

    def media_changed(self, media: Sequence[ReceiveMedia]) -> MediaChange:
        """The sections of the latest offer on which the client sends."""
        by_mid = {section.mid: section for section in media}
        withdrawn = []
        for sid, publication in list(self.tracks.items()):
            section = by_mid.get(publication.mid)
            if section is None:
                del self.tracks[sid]
                withdrawn.append(publication)
        self.unmatched = {
            mid: section
            for mid, section in by_mid.items()
            if all(publication.mid != mid for publication in self.tracks.values())
        }
        return MediaChange(self.match(), tuple(withdrawn))

    def match(self) -> tuple[tuple[Publication, ReceiveMedia], ...]:
        """Give unmatched sections to pending tracks: by cid, else the first of the kind (livekit-media 2.5)."""
        matched = []
        for exact in (True, False):
            for mid, section in list(self.unmatched.items()):
                publication = self._candidate(section, exact)
                if publication is None:
                    continue
                del self.pending[publication.cid]
                del self.unmatched[mid]
                self._bind(publication, section)
                matched.append((publication, section))
        return tuple(matched)

    def _candidate(self, section: ReceiveMedia, exact: bool) -> Publication | None:
        if exact:
            by_cid = self.pending.get(section.cid)
            if by_cid is not None:
                return by_cid
            for publication in self.pending.values():
                if any(codec.cid and codec.cid == section.cid for codec in publication.request.simulcast_codecs):
                    return publication
            return None
        return next((p for p in self.pending.values() if p.kind == section.kind), None)

    def _bind(self, publication: Publication, section: ReceiveMedia) -> None:
        publication.mid = section.mid
        codecs = tuple((codec.mime, codec.fmtp, codec.payload_type) for codec in section.codecs)
        publication.codecs = codecs
        info = publication.info
        info.mid = section.mid
        if codecs:
            info.mime_type = codecs[0][0]
        layers = info.layers
        del info.codecs[:]
        info.codecs.append(
            models.SimulcastCodecInfo(
                mime_type=info.mime_type,
                mid=section.mid,
                cid=publication.cid,
                layers=layers,
                video_layer_mode=_layer_mode(publication),
                sdp_cid=section.cid if section.cid != publication.cid else "",
            )
        )
        self.tracks[info.sid] = publication

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

    def _track_info(self, request: rtc.AddTrackRequest) -> models.TrackInfo:
        kind = "audio" if request.type == models.TrackType.AUDIO else "video"
        features = list(request.audio_features)
        _add_feature(features, models.AudioTrackFeature.TF_STEREO, request.stereo)
        _add_feature(features, models.AudioTrackFeature.TF_NO_DTX, request.disable_dtx)
        layers = sorted(request.layers[:MAX_LAYERS], key=lambda layer: layer.quality)
        mime = request.simulcast_codecs[0].codec.lower() if request.simulcast_codecs else ""
        return models.TrackInfo(
            sid=new_track_sid(kind, request.source, self.rng),
            type=request.type,
            name=request.name,
            muted=request.muted,
            width=request.width,
            height=request.height,
            simulcast=len(layers) > 1 and f"{kind}/{mime.removeprefix('video/')}" not in SVC_MIMES,
            disable_dtx=models.AudioTrackFeature.TF_NO_DTX in features,
            source=request.source,
            layers=layers,
            stereo=models.AudioTrackFeature.TF_STEREO in features,
            disable_red=request.disable_red,
            encryption=request.encryption,
            stream=request.stream or DEFAULT_STREAMS.get(request.source, "unknown"),
            audio_features=features,
            backup_codec_policy=request.backup_codec_policy,
            packet_trailer_features=request.packet_trailer_features,
        )


def _add_feature(features: list[models.AudioTrackFeature], feature: models.AudioTrackFeature, wanted: bool) -> None:
    if wanted and feature not in features:
        features.append(feature)


def _layer_mode(publication: Publication) -> models.VideoLayer.Mode:
    if publication.kind == "audio":
        return models.VideoLayer.Mode.MODE_UNUSED
    asked = publication.request.simulcast_codecs
    if asked and asked[0].video_layer_mode:
        return asked[0].video_layer_mode
    if publication.info.mime_type in SVC_MIMES:
        return models.VideoLayer.Mode.MULTIPLE_SPATIAL_LAYERS_PER_STREAM
    return models.VideoLayer.Mode.ONE_SPATIAL_LAYER_PER_STREAM
