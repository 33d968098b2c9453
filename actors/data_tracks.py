"""A participant's data tracks: what it publishes by its own handles, what it receives by ours; and its data blobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from weakref import proxy

from livekit.protocol import models, rtc

from actors.messages.room import (
    DataTrackFrame,
    PublishDataTrackFrames,
    RouteDataTracks,
    StoreDataBlob,
    WantDataBlob,
)
from lkactor.counters import Counters
from lkactor.errors import ProtocolViolation
from lkactor.room.data_blobs import DataBlobs
from lkactor.room.data_tracks import DataTrackPublications, DataTrackSubscriptions
from lkactor.room.publications import Refused
from lkactor.signal import responses
from lkactor.wire.data_track import handle_of

if TYPE_CHECKING:
    from actors.participant import ParticipantActor

Reason = rtc.RequestResponse.Reason


class DataTrackDesk:
    """The part of a participant actor that handles data tracks and blobs."""

    def __init__(self, participant: ParticipantActor, *, auto_subscribe: bool) -> None:
        self._participant: ParticipantActor = proxy(participant)
        config, rng = participant.services.config, participant.services.rng
        self.publications = DataTrackPublications(
            rng, max_encoding_length=config.limit.max_data_track_custom_encoding_length
        )
        self._subscriptions = DataTrackSubscriptions(rng, auto_subscribe=auto_subscribe)
        self._blobs = DataBlobs(
            max_key_length=config.limit.max_data_blob_key_length, max_size=config.limit.max_data_blobs_size
        )
        self.counters = Counters()

    # -- publishing -------------------------------------------------------------------------------------------------

    def publish(self, request: rtc.PublishDataTrackRequest) -> None:
        participant = self._participant
        allowed = participant.model.permission.can_publish_data and participant.services.config.enable_data_tracks
        result = self.publications.publish(request, allowed=allowed)
        if isinstance(result, Refused):
            refusal = rtc.RequestResponse(reason=result.reason, message=result.message, publish_data_track=request)  # type: ignore[arg-type]
            participant.send(rtc.SignalResponse(request_response=refusal))
            return
        participant.log("data_track.published", f"{result.sid} {result.name}")
        published = rtc.PublishDataTrackResponse(info=result)
        participant.send(rtc.SignalResponse(publish_data_track_response=published))
        participant.model.set_publisher()
        participant.changed()

    def unpublish(self, request: rtc.UnpublishDataTrackRequest) -> None:
        participant = self._participant
        info = self.publications.unpublish(request.pub_handle)
        if info is None:
            refusal = rtc.RequestResponse(reason=Reason.NOT_FOUND, unpublish_data_track=request)
            participant.send(rtc.SignalResponse(request_response=refusal))
            return
        self._unpublished(info)
        participant.changed()

    def enforce_permission(self) -> None:
        """The grant changed in mid-call: without canPublishData no data track stays."""
        if self._participant.model.permission.can_publish_data or not self.publications.tracks:
            return
        for handle in list(self.publications.tracks):
            info = self.publications.unpublish(handle)
            assert info is not None
            self._unpublished(info)
        self._participant.changed()

    def _unpublished(self, info: models.DataTrackInfo) -> None:
        participant = self._participant
        participant.log("data_track.unpublished", info.sid)
        answer = rtc.UnpublishDataTrackResponse(info=info)
        participant.send(rtc.SignalResponse(unpublish_data_track_response=answer))

    def received(self, packets: Sequence[bytes]) -> None:
        """Packets of one burst, by the client's handles."""
        frames = []
        for packet in packets:
            try:
                info = self.publications.tracks.get(handle_of(packet))
            except ProtocolViolation as violation:
                self.counters.count(violation.reason)
                continue
            if info is None:
                self.counters.count("data_track.unknown_handle")
            else:
                frames.append(DataTrackFrame(info.sid, packet))
        if frames:
            self._participant.room.tell(PublishDataTrackFrames(self._participant.sid, tuple(frames)))

    # -- subscribing ------------------------------------------------------------------------------------------------

    def observe(self, infos: Iterable[models.ParticipantInfo]) -> None:
        """News of the others: their data tracks come and go."""
        if self._subscriptions.observe(infos, but=self._participant.sid):
            self.sync()

    def update(self, request: rtc.UpdateDataSubscription) -> None:
        for wish in request.updates:
            self._subscriptions.wish(wish.track_sid, wish.subscribe)
        self.sync()

    def sync(self) -> None:
        """The room routes by this map, the client reads it; both hear of each change."""
        participant = self._participant
        if self._subscriptions.sync(allowed=participant.model.permission.can_subscribe):
            participant.room.tell(RouteDataTracks(participant.sid, dict(self._subscriptions.handles)))
            handles = self._subscriptions.describe()
            participant.send(rtc.SignalResponse(data_track_subscriber_handles=handles))

    # -- blobs ------------------------------------------------------------------------------------------------------

    def store_blob(self, request: rtc.StoreDataBlobRequest) -> None:
        participant = self._participant
        reason, text = Reason.NOT_ALLOWED, "data blob not enabled"
        if participant.services.config.enable_participant_data_blob:
            refused = self._blobs.store(request.blob)
            if refused is None:
                participant.room.tell(StoreDataBlob(participant.sid, request.blob))
                stored = rtc.StoreDataBlobResponse(request_id=request.request_id, key=request.blob.key)
                participant.send(rtc.SignalResponse(store_data_blob_response=stored))
                return
            reason, text = refused.reason, refused.message  # type: ignore[assignment]
        participant.send(responses.request_response(request.request_id, reason, text))

    def want_blob(self, request: rtc.GetDataBlobRequest) -> None:
        participant = self._participant
        if not request.HasField("key"):
            text = "data blob key is required"
            participant.send(responses.request_response(request.request_id, Reason.INVALID_REQUEST, text))
            return
        participant.room.tell(WantDataBlob(participant.sid, request))

    def found_blob(self, request_id: int, blob: models.DataBlob | None, why_not: str) -> None:
        if blob is None:
            self._participant.send(responses.request_response(request_id, Reason.NOT_FOUND, why_not))
            return
        found = rtc.GetDataBlobResponse(request_id=request_id, blob=blob)
        self._participant.send(rtc.SignalResponse(get_data_blob_response=found))
