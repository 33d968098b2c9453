"""Data tracks: named streams of frames, published by handle, received by handle. Pure.

A publisher names its tracks by handles of its own choice, a subscriber knows them by handles that the server gave it;
the server rewrites one to the other. Source: livekit-surface 2.1 (19 to 21), livekit-media 5.3.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from livekit.protocol import models, rtc

from lkactor.room.publications import Refused
from lkactor.room.sids import new_sid

MAX_HANDLE = 65535
MAX_NAME = 256
MAX_TRACKS = 256
"""Of one publisher."""
MAX_WISHES = 2000
FIRST_HANDLE_BELOW = 256

Reason = rtc.RequestResponse.Reason


class DataTrackPublications:
    """The data tracks of one participant, by its own handles."""

    def __init__(self, rng: random.Random, *, max_encoding_length: int) -> None:
        self._rng = rng
        self._max_encoding_length = max_encoding_length
        self.tracks: dict[int, models.DataTrackInfo] = {}

    def publish(self, request: rtc.PublishDataTrackRequest, *, allowed: bool) -> models.DataTrackInfo | Refused:
        refused = self._check(request, allowed)
        if refused is not None:
            return refused
        info = models.DataTrackInfo(
            pub_handle=request.pub_handle,
            sid=new_sid("DTR_", self._rng),
            name=request.name,
            encryption=request.encryption,
            frame_encoding=request.frame_encoding if request.HasField("frame_encoding") else None,
            schema=request.schema if request.HasField("schema") else None,
        )
        self.tracks[request.pub_handle] = info
        return info

    def _check(self, request: rtc.PublishDataTrackRequest, allowed: bool) -> Refused | None:
        if not allowed:
            return Refused(Reason.NOT_ALLOWED, "does not have permission to publish data")
        if not 0 < request.pub_handle <= MAX_HANDLE:
            return Refused(Reason.INVALID_HANDLE, "handle should be > 0 AND < 65536")
        if not 0 < len(request.name) <= MAX_NAME:
            return Refused(Reason.INVALID_NAME, "name should not be empty and should not exceed 256 characters")
        if not all(0 < len(name) <= self._max_encoding_length for name in _custom_encodings(request)):
            text = "encoding identifier is empty or exceeds the maximum length"
            return Refused(Reason.INVALID_REQUEST, text)
        if request.pub_handle in self.tracks:
            return Refused(Reason.DUPLICATE_HANDLE, "a data track with same handle already exists")
        if any(info.name == request.name for info in self.tracks.values()):
            return Refused(Reason.DUPLICATE_NAME, "a data track with same name already exists")
        if len(self.tracks) >= MAX_TRACKS:
            return Refused(Reason.LIMIT_EXCEEDED, "too many data tracks")
        return None

    def unpublish(self, handle: int) -> models.DataTrackInfo | None:
        return self.tracks.pop(handle, None)

    def infos(self) -> Iterable[models.DataTrackInfo]:
        return self.tracks.values()

    def knows(self, sid: str) -> bool:
        return any(info.sid == sid for info in self.tracks.values())


def _custom_encodings(request: rtc.PublishDataTrackRequest) -> list[str]:
    """Names of encodings that are not among the well-known ones."""
    names = []
    if request.HasField("frame_encoding") and request.frame_encoding.WhichOneof("value") == "custom":
        names.append(request.frame_encoding.custom)
    if request.HasField("schema") and request.schema.HasField("encoding"):
        encoding = request.schema.encoding
        if encoding.WhichOneof("value") == "custom":
            names.append(encoding.custom)
    return names


DISCONNECTED = models.ParticipantInfo.State.DISCONNECTED


class DataTrackSubscriptions:
    """The data tracks that one participant receives, by the handles that it was given."""

    def __init__(self, rng: random.Random, *, auto_subscribe: bool) -> None:
        self._auto_subscribe = auto_subscribe
        self._next_handle = rng.randrange(FIRST_HANDLE_BELOW)
        self._known: dict[str, tuple[str, str]] = {}
        self._wishes: dict[str, bool] = {}
        self.handles: dict[str, int] = {}
        """Track sid -> handle."""

    def observe(self, infos: Iterable[models.ParticipantInfo], *, but: str) -> bool:
        """What there is now of these participants; `but` is the subscriber itself. False: nothing is new."""
        before = self._known.copy()
        for info in infos:
            if not before and not info.data_tracks:
                continue  # By far the most.
            if info.sid == but:
                continue
            gone = info.state == DISCONNECTED
            there = set() if gone else {track.sid for track in info.data_tracks}
            for sid in [sid for sid, (publisher, _) in self._known.items() if publisher == info.sid]:
                if sid not in there:
                    del self._known[sid]
                    self._wishes.pop(sid, None)
            self._known.update((sid, (info.sid, info.identity)) for sid in there)
        return self._known != before

    def wish(self, sid: str, subscribe: bool) -> None:
        """May come before the track is known."""
        self._wishes.pop(sid, None)
        self._wishes[sid] = subscribe
        if len(self._wishes) > MAX_WISHES:
            del self._wishes[next(iter(self._wishes))]

    def sync(self, *, allowed: bool) -> bool:
        """Give handles to what is wanted and there, take back the others. True if anything has changed."""
        wanted = {sid for sid in self._known if allowed and self._wishes.get(sid, self._auto_subscribe)}
        changed = wanted != self.handles.keys()
        for sid in self.handles.keys() - wanted:
            del self.handles[sid]
        for sid in sorted(wanted - self.handles.keys()):
            self.handles[sid] = self._new_handle()
        return changed

    def _new_handle(self) -> int:
        taken = set(self.handles.values())
        while True:
            self._next_handle = (self._next_handle + 1) & MAX_HANDLE
            if self._next_handle and self._next_handle not in taken:
                return self._next_handle

    def describe(self) -> rtc.DataTrackSubscriberHandles:
        """The whole map, as the client is told after each change."""
        message = rtc.DataTrackSubscriberHandles()
        for sid, handle in self.handles.items():
            publisher_sid, identity = self._known[sid]
            entry = message.sub_handles[handle]
            entry.publisher_identity, entry.publisher_sid, entry.track_sid = identity, publisher_sid, sid
        return message
