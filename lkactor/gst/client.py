"""A GStreamer peer as LiveKit's signalling sees it: its descriptions become SignalRequests. Pure.

LiveKit wants each track announced (AddTrack) before its media; a GStreamer peer only describes what it sends, so the
announcements are made from its descriptions. The first audio is its microphone, the first video its camera.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

from livekit.protocol import models, rtc

from lkactor.auth import Claims, VideoGrant
from lkactor.sdp.description import MediaSection, SessionDescription
from lkactor.signal.join import JoinIntent, JoinParameters, ServerOffers

IDENTITY_PREFIX = "gst-"
IN_ROOM = "lkactor.gst.room"
"""Attribute of bridged participants whose peers have each other's media without us."""
PROTOCOL = 16
TOKEN_LIFE = 6 * 3600.0
MAX_TRACKS = 32


class BridgeClient:
    """One peer in one LiveKit room."""

    def __init__(self, uid: str, room: str, *, in_room: bool) -> None:
        self._uid = uid
        self._room = room
        self._in_room = in_room
        self._announced: dict[str, str] = {}
        """mid -> cid of what the peer sends."""
        self._kinds: set[str] = set()
        self._subscribed: dict[str, set[str]] = {}
        """Participant sid -> its tracks that were asked for."""
        self._descriptions = 0

    def intent(
        self, *, now_unix: float, server_offers: ServerOffers, api_key: str, token: Claims | None = None
    ) -> JoinIntent:
        """The join of the participant: by its token, or as if by one that allows to publish and subscribe."""
        identity = (token.identity if token is not None else "") or IDENTITY_PREFIX + self._uid
        client = models.ClientInfo(os="gstreamer", protocol=PROTOCOL)
        attributes = {IN_ROOM: self._room} if self._in_room else {}
        claims = Claims(
            api_key=api_key,
            identity=identity,
            expires_at=now_unix + TOKEN_LIFE,
            name=self._uid,
            attributes=attributes,
            video=VideoGrant(room_join=True, room=self._room, can_publish_data=False),
        )
        if token is not None:
            attributes = {**token.attributes, **attributes}
            claims = replace(token, identity=identity, name=token.name or self._uid, attributes=attributes)
        parameters = JoinParameters(
            client=client, single=True, auto_subscribe=False, disable_ice_lite=True, server_offers=server_offers
        )
        return JoinIntent(identity, self._room, claims, parameters)

    # -- what the peer says -----------------------------------------------------------------------------------------

    def described(self, kind: str, sdp: str) -> tuple[rtc.SignalRequest, ...]:
        """New tracks first, then the description. Raises ProtocolViolation("sdp.…") if it is none."""
        requests = [rtc.SignalRequest(add_track=request) for request in self._announce(SessionDescription.parse(sdp))]
        self._descriptions += 1
        session = rtc.SessionDescription(type=kind, sdp=sdp, id=self._descriptions)
        body = rtc.SignalRequest(offer=session) if kind == "offer" else rtc.SignalRequest(answer=session)
        return (*requests, body)

    def _announce(self, description: SessionDescription) -> list[rtc.AddTrackRequest]:
        sending = {
            section.mid: section
            for section in description.media
            if section.kind in ("audio", "video") and section.mid and not section.rejected and section.peer_sends
        }
        self._announced = {mid: cid for mid, cid in self._announced.items() if mid in sending}
        requests = []
        for mid, section in sending.items():
            if mid not in self._announced and len(self._announced) < MAX_TRACKS:
                cid = section.msid[1]
                if not cid or cid in self._announced.values():
                    cid = f"{section.kind}-{mid}"
                self._announced[mid] = cid
                requests.append(self._add_track(section, cid))
        return requests

    def _add_track(self, section: MediaSection, cid: str) -> rtc.AddTrackRequest:
        sources, kind = models.TrackSource, section.kind
        source = {"audio": sources.MICROPHONE, "video": sources.CAMERA}[kind]
        if kind in self._kinds:
            source = sources.UNKNOWN
        self._kinds.add(kind)
        track_type = models.TrackType.AUDIO if kind == "audio" else models.TrackType.VIDEO
        return rtc.AddTrackRequest(
            cid=cid, name=f"{kind}-{section.mid}", type=track_type, source=source, disable_red=True, stream="gstreamer"
        )

    @staticmethod
    def candidate(text: str) -> rtc.SignalRequest:
        trickle = rtc.TrickleRequest(
            candidateInit=json.dumps({"candidate": text}), target=rtc.SignalTarget.PUBLISHER, final=not text
        )
        return rtc.SignalRequest(trickle=trickle)

    # -- what the room says -----------------------------------------------------------------------------------------

    def participants(self, infos: Iterable[models.ParticipantInfo]) -> tuple[rtc.SignalRequest, ...]:
        """Ask for the tracks of others that are new; not for those that the peer has from its own ROOM."""
        new: list[str] = []
        for info in infos:
            if info.state == models.ParticipantInfo.State.DISCONNECTED:
                self._subscribed.pop(info.sid, None)
                continue
            if info.identity == IDENTITY_PREFIX + self._uid:
                continue
            if self._in_room and info.attributes.get(IN_ROOM) == self._room:
                continue
            tracks = {track.sid for track in info.tracks}
            new += [track.sid for track in info.tracks if track.sid not in self._subscribed.get(info.sid, ())]
            self._subscribed[info.sid] = tracks
        if not new:
            return ()
        return (rtc.SignalRequest(subscription=rtc.UpdateSubscription(track_sids=new, subscribe=True)),)
