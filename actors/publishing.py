"""What a participant publishes: announcements become tracks, tracks become actors, changes become news.

Source of the rules: livekit-media 3.1, livekit-surface 2.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from sys import intern
from typing import TYPE_CHECKING, Any
from weakref import proxy

from livekit.protocol import models, rtc

from actors.egress import TransportEgress
from actors.kernel import ActorRef, Restart
from actors.messages.participant import StreamBound, TrackHandle, WantedAudioCodecs, WantedQualityChanged
from actors.messages.room import ParticipantChanged, PublishTracks, RestrictSubscribers, WithdrawTracks
from actors.messages.track import AddCodec, RemoveCodec, SetPublisherMuted, TrackMessage
from actors.messages.transport import BindTrack
from actors.track import TrackActor, TrackSpec
from lkactor.room.publications import Matched, Publication, Publications, Refused
from lkactor.sdp import ReceiveMedia
from lkactor.sfu import layers_of
from lkactor.signal import responses

if TYPE_CHECKING:
    from actors.participant import ParticipantActor

DISCONNECTED = models.ParticipantInfo.State.DISCONNECTED
MEDIA_LINK_CAPACITY = 512
"""Bursts of one track that may wait for its actor."""
UNPUBLISH_PROTOCOL = 7
"""Clients from here on know track_unpublished."""

Policy = models.BackupCodecPolicy


class PublishingDesk:
    """The part of a participant actor that handles its own tracks."""

    def __init__(self, participant: ParticipantActor, codecs: Iterable[models.Codec]) -> None:
        """`codecs` are the room's."""
        self._participant: ParticipantActor = proxy(participant)
        enabled = tuple(codec.mime.lower() for codec in responses.publish_codecs(codecs))
        self.publications = Publications(participant.services.rng, enabled)
        self._regressed: set[str] = set()
        """Tracks of which everybody is to get the backup codec who can."""
        self._others: dict[str, str] = {}
        """Identities by sid."""
        self.egress: TransportEgress | None = None
        self._actors: dict[str, ActorRef[TrackMessage]] = {}
        self._levels: dict[str, float] = {}
        self._permission: rtc.SubscriptionPermission | None = None

    # -- announcements and media ------------------------------------------------------------------------------------

    async def add_track(self, request: rtc.AddTrackRequest) -> None:
        participant = self._participant
        result = self.publications.add(request, participant.model.may_publish)
        if isinstance(result, Refused):
            participant.log("add_track.refused", result.message)
            participant.refuse(rtc.SignalRequest(add_track=request), result.reason, result.message)
            return
        participant.log("add_track", f"{result.info.sid} {result.kind}")
        published = rtc.TrackPublishedResponse(cid=request.cid, track=result.info)
        participant.send(rtc.SignalResponse(track_published=published))
        await self._publish(self.publications.match(self._unix_micro()))

    async def media_changed(self, media: Sequence[ReceiveMedia]) -> None:
        """An offer was answered: these sections send now."""
        change = self.publications.media_changed(media, self._unix_micro())
        for publication in change.withdrawn:
            self._end(publication)
        for publication, _, index in change.dropped:
            self._drop_backup(publication, index)
        if change.dropped:
            self._participant.changed()
            handles = tuple(self._handle(publication) for publication, _, _ in change.dropped)
            self._participant.room.tell(PublishTracks(self._participant.sid, handles))
        await self._publish(change.published)
        for publication in change.withdrawn:
            queued = self.publications.next_queued(publication.cid)
            if queued is not None:
                await self.add_track(queued)

    def _unix_micro(self) -> int:
        return int(self._participant.services.unix() * 1_000_000)

    async def _publish(self, matched: Sequence[Matched]) -> None:
        if not matched:
            return
        participant = self._participant
        participant.model.set_publisher()
        for publication, section, index in matched:
            if index == 0:
                await self._start(publication, section)
            else:
                self._start_backup(publication, section, index)
        participant.changed()
        handles = tuple(self._handle(publication) for publication, _, _ in matched)
        participant.room.tell(PublishTracks(participant.sid, handles))

    async def _start(self, publication: Publication, section: ReceiveMedia) -> None:
        participant, sid = self._participant, publication.info.sid
        participant.log("track.published", f"{sid} {publication.info.mime_type} mid {section.mid}")
        assert self.egress is not None
        config = participant.services.config
        spec = TrackSpec(
            info=publication.info,
            media=section,
            egress=self.egress,
            owner=participant.context.ref,
            audio=config.audio,
            rtc=config.rtc,
            plane=participant.services.ports.plane,
            pause_delay=config.video.dynacast_pause_delay,
            metrics=participant.services.metrics.media,
        )
        ref = await participant.context.spawn(lambda: TrackActor(spec), sid, restart=Restart.TRANSIENT)
        participant.context.watch(ref)
        self._actors[sid] = ref
        link = ref.link("media", MEDIA_LINK_CAPACITY)
        participant.tell_publisher(BindTrack(section.mid, link, layers_of(publication.info, section)))

    # -- backup codecs (livekit-media 3.11) --------------------------------------------------------------------------

    def _start_backup(self, publication: Publication, section: ReceiveMedia, index: int) -> None:
        """The client sends the track in a second codec, too."""
        participant, info = self._participant, publication.info
        codec = info.codecs[index].mime_type.lower()
        participant.log("track.backup", f"{info.sid} {codec} mid {section.mid}")
        if self._regresses(info.backup_codec_policy):
            participant.log("track.regressed", f"{info.sid} to {codec}")
            self._regressed.add(info.sid)
        self._tell_of_backup(publication, index)
        link = self._actors[info.sid].link("media", MEDIA_LINK_CAPACITY)
        participant.tell_publisher(BindTrack(section.mid, link, layers_of(info, section), codec))

    def _regresses(self, policy: int) -> bool:
        """Whether everybody gets the backup: a small room is better served by one codec than by two."""
        threshold = self._participant.services.config.video.codec_regression_threshold
        small = threshold == 0 or len(self._others) + 1 < threshold
        return policy == Policy.REGRESSION or (policy == Policy.PREFER_REGRESSION and small)

    def _tell_of_backup(self, publication: Publication, index: int) -> None:
        info = publication.info
        codec = info.codecs[index]
        regress = info.sid in self._regressed
        self._participant.tell_track(
            self._actors[info.sid],
            AddCodec(codec.mime_type.lower(), publication.sections[index], tuple(codec.layers), regress),
        )

    def _drop_backup(self, publication: Publication, index: int) -> None:
        codec = publication.info.codecs[index].mime_type.lower()
        self._participant.log("track.backup_ended", f"{publication.info.sid} {codec}")
        self._regressed.discard(publication.info.sid)
        ref = self._actors.get(publication.info.sid)
        if ref is not None:
            self._participant.tell_track(ref, RemoveCodec(codec))

    def observe(self, infos: Iterable[models.ParticipantInfo]) -> None:
        """Who else is in the room."""
        for info in infos:
            if info.state == DISCONNECTED:
                self._others.pop(info.sid, None)
            elif info.sid != self._participant.sid:
                # One pair of strings for the whole room, not one for each who keeps it.
                self._others[intern(info.sid)] = intern(info.identity)

    def stream_bound(self, stream: StreamBound) -> None:
        """The numbers of a layer's streams are for information: the room's copy has them, nobody is told."""
        participant = self._participant
        if stream.ssrc:
            participant.log("track.flows", f"mid {stream.mid} layer {stream.layer}")
        if self.publications.stream_bound(stream.mid, stream.layer, stream.ssrc, stream.repair_ssrc):
            participant.room.tell(ParticipantChanged(participant.sid, participant.info(), quiet=True))

    def _handle(self, publication: Publication) -> TrackHandle:
        info = publication.info
        return TrackHandle(
            sid=info.sid,
            publisher_sid=self._participant.sid,
            publisher_identity=self._participant.identity,
            kind=publication.kind,
            codecs=publication.codecs,
            mimes=publication.mimes[::-1] if info.sid in self._regressed else publication.mimes,
            stereo=models.AudioTrackFeature.TF_STEREO in info.audio_features,
            encrypted=info.encryption != models.Encryption.Type.NONE,
            width=info.width,
            height=info.height,
            track=self._actors[info.sid],
            allowed=self._allowed(info.sid),
            stream=info.stream,
            trailers=bool(info.packet_trailer_features),
        )

    def handles(self) -> tuple[TrackHandle, ...]:
        """All published tracks."""
        return tuple(self._handle(publication) for publication in self.publications.tracks.values())

    def _end(self, publication: Publication) -> None:
        """The track is over: its actor stops, the others hear of it."""
        participant, sid = self._participant, publication.info.sid
        participant.log("track.unpublished", sid)
        self._levels.pop(sid, None)
        self._regressed.discard(sid)
        ref = self._actors.pop(sid, None)
        participant.room.tell(WithdrawTracks(participant.sid, (sid,)))
        participant.changed()
        if ref is not None:
            ref.stop("unpublished")

    # -- changes ----------------------------------------------------------------------------------------------------

    def mute_by_client(self, sid: str, muted: bool) -> bool:
        """False: no such track."""
        publication = self.publications.find(sid)
        if publication is None:
            return False
        if publication.info.muted != muted:
            publication.info.muted = muted
            self._participant.log("track.muted" if muted else "track.unmuted", sid)
            ref = self._actors.get(sid)
            if ref is not None:
                self._participant.tell_track(ref, SetPublisherMuted(muted))
                self._participant.changed()
        return True

    def mute_by_server(self, sid: str, muted: bool) -> models.TrackInfo | None:
        """MutePublishedTrack: the client is told, and does it. None: no such track."""
        publication = self.publications.find(sid)
        if publication is None:
            return None
        self._participant.send(rtc.SignalResponse(mute=rtc.MuteTrackRequest(sid=sid, muted=muted)))
        self.mute_by_client(sid, muted)
        return publication.info

    def update_track(self, request: rtc.UpdateLocalAudioTrack | rtc.UpdateLocalVideoTrack) -> bool:
        """New audio features or video size. False: no such track."""
        publication = self.publications.find(request.track_sid)
        if publication is None:
            return False
        info = publication.info
        if isinstance(request, rtc.UpdateLocalVideoTrack):
            info.width, info.height = request.width, request.height
        else:
            features = list(dict.fromkeys(request.features))
            del info.audio_features[:]
            info.audio_features.extend(features)
            info.stereo = models.AudioTrackFeature.TF_STEREO in features
            info.disable_dtx = models.AudioTrackFeature.TF_NO_DTX in features
        self._participant.changed()
        return True

    def set_subscription_permission(self, permission: rtc.SubscriptionPermission) -> None:
        """Who may subscribe. Unlisted participants of a restrictive list may not (livekit-surface 2.5)."""
        self._permission = None if permission.all_participants else self._by_identity(permission)
        self._participant.room.tell(RestrictSubscribers(self._participant.sid, self._permission))
        tracks = self.handles()
        if tracks:
            self._participant.room.tell(PublishTracks(self._participant.sid, tracks))

    def _by_identity(self, permission: rtc.SubscriptionPermission) -> rtc.SubscriptionPermission:
        """Of somebody who is named by sid the identity is what counts from here on."""
        named = rtc.SubscriptionPermission()
        named.CopyFrom(permission)
        for entry in named.track_permissions:
            entry.participant_identity = entry.participant_identity or self._others.get(entry.participant_sid, "")
        return named

    def _allowed(self, sid: str) -> frozenset[str] | None:
        if self._permission is None:
            return None
        return frozenset(
            entry.participant_identity
            for entry in self._permission.track_permissions
            if entry.all_tracks or sid in entry.track_sids
        )

    def enforce_permission(self) -> None:
        """The grant changed in mid-call: tracks that it no longer covers end."""
        participant = self._participant
        everything = (*self.publications.tracks.values(), *self.publications.pending.values())
        for publication in everything:
            if not participant.model.may_publish(publication.info.source):
                self.publications.remove(publication.info.sid)
                self._end(publication)
                self._tell_unpublished(publication.info.sid)

    def _tell_unpublished(self, sid: str) -> None:
        """The client did not ask for it. Older ones can only be told to send nothing."""
        if self._participant.protocol >= UNPUBLISH_PROTOCOL:
            response = rtc.SignalResponse(track_unpublished=rtc.TrackUnpublishedResponse(track_sid=sid))
        else:
            response = rtc.SignalResponse(mute=rtc.MuteTrackRequest(sid=sid, muted=True))
        self._participant.send(response)

    def wanted(self, wish: WantedQualityChanged | WantedAudioCodecs) -> None:
        """Dynacast: the client may stop sending what nobody wants, and starts a codec that somebody needs."""
        sid = wish.track_sid
        if sid not in self.publications.tracks:
            return
        if isinstance(wish, WantedQualityChanged):
            self._participant.send(responses.subscribed_quality(sid, wish.wanted))
        else:
            self._participant.send(responses.subscribed_audio_codecs(sid, wish.codecs))

    # -- news from below --------------------------------------------------------------------------------------------

    def first_subscription(self, sid: str) -> None:
        publication = self.publications.tracks.get(sid)
        if publication is not None and not publication.subscribed_once:
            publication.subscribed_once = True
            self._participant.send(rtc.SignalResponse(track_subscribed=rtc.TrackSubscribed(track_sid=sid)))

    def speaker_level(self, sid: str, level: float) -> float:
        """The loudest microphone of this participant. Other audio sources never speak (livekit-media 3.7)."""
        publication = self.publications.tracks.get(sid)
        if publication is not None and publication.info.source == models.TrackSource.MICROPHONE:
            self._levels[sid] = level
        return max(self._levels.values(), default=0.0)

    def track_restarted(self, ref: ActorRef[Any]) -> None:
        """A track actor came back with nothing but what it was started with."""
        for sid, actor in self._actors.items():
            if actor == ref:
                self._participant.log("track.restarted", sid)
                publication = self.publications.tracks.get(sid)
                if publication is not None:
                    self._participant.tell_track(ref, SetPublisherMuted(publication.info.muted))
                    for index in publication.sections.keys() - {0}:
                        self._tell_of_backup(publication, index)

    def track_ended(self, ref: ActorRef[Any]) -> None:
        """A track actor is gone for good: restarted too often, or stopped by us (then it is not known any more)."""
        for sid, actor in list(self._actors.items()):
            if actor == ref:
                del self._actors[sid]
                publication = self.publications.remove(sid)
                if publication is not None:
                    self._end(publication)
                    self._tell_unpublished(sid)
