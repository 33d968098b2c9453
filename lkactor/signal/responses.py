"""The server's half of signalling: builders for what goes into a `SignalResponse`. Pure.

Fields that clients cannot do without are listed in livekit-clients sections 1 and 11.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from livekit.protocol import models, rtc

PING_INTERVAL, PING_TIMEOUT = 5, 15
SERVER_VERSION = "1.13.5"
"""The LiveKit release whose behaviour this server follows: SDKs gate features on it, so it must be a version."""
SERVER_PROTOCOL = 17
AGENT_PROTOCOL = 1
LEAVE_ACTION_PROTOCOL = 13
"""Clients from here on are told in a LeaveRequest what to do next; RESUME cannot be said to others."""

Action = rtc.LeaveRequest.Action


def server_info(node_id: str, region: str) -> models.ServerInfo:
    return models.ServerInfo(
        edition=models.ServerInfo.Edition.Standard,
        version=SERVER_VERSION,
        protocol=SERVER_PROTOCOL,
        region=region,
        node_id=node_id,
        agent_protocol=AGENT_PROTOCOL,
    )


def join_response(
    *,
    room: models.Room,
    participant: models.ParticipantInfo,
    others: Sequence[models.ParticipantInfo],
    server: models.ServerInfo,
    ice_servers: Sequence[rtc.ICEServer],
    codecs: Iterable[models.Codec],
    subscriber_primary: bool,
    sif_trailer: bytes,
    fast_publish: bool,
    client_configuration: models.ClientConfiguration | None = None,
) -> rtc.SignalResponse:
    """The first message of a session. `codecs` are those that the client may send."""
    return rtc.SignalResponse(
        join=rtc.JoinResponse(
            room=room,
            participant=participant,
            other_participants=others,
            server_version=server.version,
            server_region=server.region,
            server_info=server,
            ice_servers=ice_servers,
            subscriber_primary=subscriber_primary,
            ping_interval=PING_INTERVAL,
            ping_timeout=PING_TIMEOUT,
            sif_trailer=sif_trailer,
            enabled_publish_codecs=publish_codecs(codecs),
            fast_publish=fast_publish,
            client_configuration=client_configuration,
        )
    )


def publish_codecs(codecs: Iterable[models.Codec]) -> list[models.Codec]:
    """The room's list without RTX: VP8 first, then H264, other video, then audio (livekit-surface 2.3)."""

    def rank(codec: models.Codec) -> int:
        mime = codec.mime.lower()
        return {"video/vp8": 0, "video/h264": 1}.get(mime, 2 if mime.startswith("video/") else 3)

    return sorted((codec for codec in codecs if not codec.mime.lower().endswith("/rtx")), key=rank)


def reconnect_response(
    server: models.ServerInfo,
    ice_servers: Sequence[rtc.ICEServer],
    last_message_seq: int,
    client_configuration: models.ClientConfiguration | None = None,
) -> rtc.SignalResponse:
    """The first message of a resumed session."""
    return rtc.SignalResponse(
        reconnect=rtc.ReconnectResponse(
            ice_servers=ice_servers,
            client_configuration=client_configuration,
            server_info=server,
            last_message_seq=last_message_seq,
        )
    )


def leave(reason: int, action: int, protocol: int) -> rtc.SignalResponse:
    """To a client of this protocol: older ones know no `action`, only whether to come back."""
    if protocol >= LEAVE_ACTION_PROTOCOL:
        request = rtc.LeaveRequest(reason=reason, action=action)  # type: ignore[arg-type]
    else:
        request = rtc.LeaveRequest(reason=reason, can_reconnect=action == Action.RECONNECT)  # type: ignore[arg-type]
    return rtc.SignalResponse(leave=request)


def description(kind: str, sdp: str, description_id: int, mid_to_track_id: Mapping[str, str]) -> rtc.SignalResponse:
    """`kind` is "offer" or "answer"."""
    session = rtc.SessionDescription(type=kind, sdp=sdp, id=description_id, mid_to_track_id=mid_to_track_id)
    return rtc.SignalResponse(offer=session) if kind == "offer" else rtc.SignalResponse(answer=session)


def update(infos: Iterable[models.ParticipantInfo]) -> rtc.SignalResponse:
    return rtc.SignalResponse(update=rtc.ParticipantUpdate(participants=infos))


def speakers(changed: Iterable[models.SpeakerInfo]) -> rtc.SignalResponse:
    return rtc.SignalResponse(speakers_changed=rtc.SpeakersChanged(speakers=changed))


def request_response(request_id: int, reason: int, message: str) -> rtc.SignalResponse:
    return rtc.SignalResponse(
        request_response=rtc.RequestResponse(request_id=request_id, reason=reason, message=message)  # type: ignore[arg-type]
    )


def pong(request: rtc.SignalRequest, unix_ms: int) -> rtc.SignalResponse:
    """Answer to `ping` or `ping_req`."""
    if request.WhichOneof("message") == "ping":
        return rtc.SignalResponse(pong=unix_ms)
    return rtc.SignalResponse(pong_resp=rtc.Pong(last_ping_timestamp=request.ping_req.timestamp, timestamp=unix_ms))


def subscribed_quality(track_sid: str, wanted: Sequence[tuple[str, int]]) -> rtc.SignalResponse:
    """Dynacast: of each codec (a mime) the qualities up to the highest are wanted; -1: none. Older clients read the
    list without codecs: that of the first one."""
    codecs = [
        rtc.SubscribedCodec(
            codec=mime.partition("/")[2].lower(),
            qualities=[
                rtc.SubscribedQuality(quality=quality, enabled=quality <= highest)
                for quality in (models.VideoQuality.LOW, models.VideoQuality.MEDIUM, models.VideoQuality.HIGH)
            ],
        )
        for mime, highest in wanted
    ]
    update = rtc.SubscribedQualityUpdate(
        track_sid=track_sid, subscribed_qualities=codecs[0].qualities if codecs else (), subscribed_codecs=codecs
    )
    return rtc.SignalResponse(subscribed_quality_update=update)


def subscribed_audio_codecs(track_sid: str, mimes: Iterable[str]) -> rtc.SignalResponse:
    """An audio track of several codecs: those that somebody needs, or needed once (as in the reference)."""
    codecs = [models.SubscribedAudioCodec(codec=mime.partition("/")[2], enabled=True) for mime in mimes]
    update = rtc.SubscribedAudioCodecUpdate(track_sid=track_sid, subscribed_audio_codecs=codecs)
    return rtc.SignalResponse(subscribed_audio_codec_update=update)


def room_moved(
    room: models.Room, token: str, participant: models.ParticipantInfo, others: Sequence[models.ParticipantInfo]
) -> rtc.SignalResponse:
    """Where the client is from now on."""
    moved = rtc.RoomMovedResponse(room=room, token=token, participant=participant, other_participants=others)
    return rtc.SignalResponse(room_moved=moved)


def candidate_of(trickle: rtc.TrickleRequest) -> str | None:
    """The candidate line of a trickled `RTCIceCandidateInit`, "" for the end; None if it is not one."""
    try:
        init = json.loads(trickle.candidateInit) if trickle.candidateInit else {"candidate": ""}
    except (ValueError, RecursionError):
        return None
    candidate = init.get("candidate") if isinstance(init, dict) else None
    return candidate if isinstance(candidate, str) else None
