"""What a participant receives: its wishes and permissions become the list that its transport carries.

Source of the rules: livekit-surface 2.5, livekit-media 4.14.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import proxy

from livekit.protocol import models, rtc

from actors.messages.participant import TrackHandle
from actors.messages.room import FirstSubscription
from actors.messages.track import LegSettings
from actors.messages.transport import OutgoingTrack, SetSendTracks, SetTrackPriority
from lkactor.room.subscriptions import Subscriptions

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from actors.participant import ParticipantActor

LOOKING = "looking_for "
"""Names of this desk's timers, followed by the track's sid."""
NOT_FOUND_AFTER = 60.0
MAX_LOOKED_FOR = 200
MAX_REMEMBERED_SETTINGS = 2000
"""Settings may come before their track; more than this are forgotten, oldest first."""


class SubscribingDesk:
    """The part of a participant actor that handles the tracks of others."""

    def __init__(self, participant: ParticipantActor, *, auto_subscribe: bool, adaptive_stream: bool) -> None:
        self._participant: ParticipantActor = proxy(participant)
        self._adaptive_stream = adaptive_stream
        permission, limit = participant.model.permission, participant.services.config.limit
        self._subscriptions: Subscriptions[TrackHandle] = Subscriptions(
            identity=participant.identity,
            auto_subscribe=auto_subscribe,
            can_subscribe=permission.can_subscribe,
            exempt=permission.recorder,
            limits={"audio": limit.subscription_limit_audio, "video": limit.subscription_limit_video},
        )
        self._settings: dict[str, LegSettings] = {}
        self._priorities: dict[str, int] = {}
        """Of known tracks, where the client has named one."""
        self._looking: set[str] = set()
        self._asked: frozenset[str] = frozenset()
        self._received: set[str] = set()
        """Those of them of which media has come."""
        self._undecodable: dict[str, TrackHandle] = {}
        """Tracks that the client answered to without any of their codecs: not offered until they have others."""
        self._allowed: dict[str, bool] = {}
        """What the client was told last of its permission, by track."""
        self._ready = participant.fast_start
        self._begun = False
        """The transport has heard of tracks."""

    # -- requests ---------------------------------------------------------------------------------------------------

    def on_request(self, request: rtc.UpdateSubscription) -> None:
        sids = {*request.track_sids, *(sid for group in request.participant_tracks for sid in group.track_sids)}
        self.wish(sids, request.subscribe)

    def wish(self, sids: Iterable[str], subscribe: bool) -> None:
        sids = set(sids)
        self._subscriptions.wish(sids, subscribe)
        for sid in sids:
            self._undecodable.pop(sid, None)
            if subscribe and sid not in self._subscriptions.available and len(self._looking) < MAX_LOOKED_FOR:
                self._looking.add(sid)
                self._participant.start_timer(LOOKING + sid, NOT_FOUND_AFTER)
        self.sync()

    def on_timer(self, what: str) -> bool:
        """True if the timer is this desk's: a track that was asked for has not shown up."""
        if not what.startswith(LOOKING):
            return False
        sid = what.removeprefix(LOOKING)
        self._looking.discard(sid)
        if sid not in self._subscriptions.available and self._subscriptions.wished(sid):
            error = rtc.SubscriptionResponse(track_sid=sid, err=models.SubscriptionError.SE_TRACK_NOTFOUND)
            self._participant.send(rtc.SignalResponse(subscription_response=error))
        return True

    def on_settings(self, request: rtc.UpdateTrackSettings) -> None:
        for sid in request.track_sids:
            settings = LegSettings(
                subscriber=self._participant.sid,
                disabled=request.disabled,
                quality=request.quality,
                width=request.width,
                height=request.height,
                fps=request.fps,
            )
            self._settings[sid] = settings
            if len(self._settings) > MAX_REMEMBERED_SETTINGS:
                del self._settings[next(iter(self._settings))]
            handle = self._subscriptions.available.get(sid)
            if handle is not None:
                self._participant.tell_track(handle.track, settings)
                if request.priority != self._priorities.get(sid, 0):
                    self._priorities[sid] = request.priority
                    self._participant.tell_downlink(SetTrackPriority(sid, request.priority))

    def set_ready(self) -> None:
        """The session is ACTIVE: from here on every client takes tracks."""
        if not self._ready:
            self._ready = True
            self.sync()

    def set_can_subscribe(self, allowed: bool) -> None:
        if self._subscriptions.can_subscribe != allowed:
            self._subscriptions.can_subscribe = allowed
            self.sync()

    # -- news -------------------------------------------------------------------------------------------------------

    def known(self, tracks: tuple[TrackHandle, ...]) -> None:
        """What there is when the session starts."""
        self._subscriptions.publish(tracks)

    def published(self, tracks: tuple[TrackHandle, ...]) -> None:
        """New tracks, or known ones with another permission."""
        known = self._subscriptions.available
        changed = {t.sid for t in tracks if t.sid in known and t.mimes[:1] != known[t.sid].mimes[:1]}
        self._subscriptions.publish(tracks)
        if changed and self._participant.fixed_codec:
            self.sync(without=changed)
        self.sync()

    def withdrawn(self, sids: tuple[str, ...]) -> None:
        self._subscriptions.withdraw(sids)
        for sid in sids:
            self._settings.pop(sid, None)
            self._priorities.pop(sid, None)
            self._undecodable.pop(sid, None)
            self._allowed.pop(sid, None)
        self.sync()

    def received(self, sid: str) -> None:
        """A leg was granted: media of this track can flow."""
        participant = self._participant
        participant.log("subscribed", sid)
        self._received.add(sid)
        handle = self._subscriptions.available.get(sid)
        if handle is not None:
            participant.room.tell(FirstSubscription(handle.publisher_sid, sid))
            if sid in self._settings:
                participant.tell_track(handle.track, self._settings[sid])

    def unsupported(self, sid: str) -> None:
        self._participant.log("subscription.failed", "codec_unsupported")
        error = rtc.SubscriptionResponse(track_sid=sid, err=models.SubscriptionError.SE_CODEC_UNSUPPORTED)
        self._participant.send(rtc.SignalResponse(subscription_response=error))
        handle = self._subscriptions.available.get(sid)
        if handle is not None:
            self._undecodable[sid] = handle
            self.sync()

    def _decodable(self, handle: TrackHandle) -> bool:
        failed = self._undecodable.get(handle.sid)
        return failed is None or (failed.codecs, failed.mimes) != (handle.codecs, handle.mimes)

    def stream_states(self, states: Iterable[tuple[str, bool]]) -> None:
        """The downlink has no room for a track, or has again (livekit-media 4.13)."""
        available = self._subscriptions.available
        infos = [
            rtc.StreamStateInfo(
                participant_sid=available[sid].publisher_sid,
                track_sid=sid,
                state=rtc.StreamState.PAUSED if paused else rtc.StreamState.ACTIVE,
            )
            for sid, paused in states
            if sid in available
        ]
        for info in infos:
            self._participant.log("stream." + rtc.StreamState.Name(info.state).lower(), info.track_sid)
        if infos:
            update = rtc.StreamStateUpdate(stream_states=infos)
            self._participant.send(rtc.SignalResponse(stream_state_update=update))

    def publishers(self) -> frozenset[str]:
        """The sids of those whose tracks this participant is to receive."""
        return frozenset(handle.publisher_sid for handle in self._subscriptions.wanted())

    # -- the transport ----------------------------------------------------------------------------------------------

    def sync(self, without: Container[str] = ()) -> None:
        """Tell the transport that carries media down what it is to carry; `without` these for a moment, so that they
        come back as new tracks."""
        self._tell_permissions()
        wanted = [handle for handle in self._subscriptions.wanted() if handle.sid not in without and self._ready]
        wanted = [handle for handle in wanted if self._decodable(handle)]
        tracks = tuple(
            OutgoingTrack(
                sid=handle.sid,
                stream_id=f"{handle.publisher_sid}|{self._stream_of(handle)}",
                kind=handle.kind,
                codecs=handle.codecs,
                mimes=handle.mimes,
                stereo=handle.stereo,
                encrypted=handle.encrypted,
                track=handle.track,
                fixed_codec=self._participant.fixed_codec,
                strips_trailers=handle.trailers and not self._participant.knows_trailers,
            )
            for handle in wanted
        )
        self._begun = self._begun or bool(tracks) or self._participant.offered_at_once
        if self._begun:
            self._participant.tell_downlink(SetSendTracks(tracks))
        self._count(frozenset(handle.sid for handle in wanted))
        if self._adaptive_stream:
            self._default_settings(wanted)

    def _stream_of(self, handle: TrackHandle) -> str:
        return handle.stream if self._participant.syncs_streams and handle.stream else handle.sid

    def _tell_permissions(self) -> None:
        """Whether their publishers let it, of the tracks that this participant asked for or gets by itself."""
        participant = self._participant
        if not (self._ready and participant.model.permission.can_subscribe):
            return
        for track in self._subscriptions.desired():
            allowed = self._subscriptions.permitted(track)
            if self._allowed.get(track.sid) != allowed:
                self._allowed[track.sid] = allowed
                change = rtc.SubscriptionPermissionUpdate(
                    participant_sid=track.publisher_sid, track_sid=track.sid, allowed=allowed
                )
                participant.send(rtc.SignalResponse(subscription_permission_update=change))

    def _count(self, wanted: frozenset[str]) -> None:
        gone = self._asked - wanted
        self._participant.services.metrics.subscribing(len(wanted - self._asked), len(gone - self._received))
        self._asked = wanted
        self._received -= gone

    def _default_settings(self, wanted: list[TrackHandle]) -> None:
        """With adaptive stream a video starts low until the client says how large it is (livekit-media 4.14)."""
        participant = self._participant
        for handle in wanted:
            if handle.kind == "video" and handle.sid not in self._settings:
                low = LegSettings(participant.sid, False, models.VideoQuality.LOW, 0, 0, 0)
                self._settings[handle.sid] = low
                participant.tell_track(handle.track, low)
