"""RoomService: what each method takes, who may call it, what is checked before a room hears of it. Pure.

Source: livekit-surface 3.2. "admin" means video.roomAdmin and video.room equal to the request's room.
"""

from __future__ import annotations

from google.protobuf.message import Message
from livekit.protocol import models, room

from lkactor.api.twirp import Method, TwirpError, invalid_argument, relayed
from lkactor.auth import Claims
from lkactor.config import LimitConfig
from lkactor.room.rpc import RpcFailed

# Grants are "create", "list", "admin", and "destination": admin that names the other room, too.
METHODS = {
    "CreateRoom": Method(room.CreateRoomRequest, "create"),
    "ListRooms": Method(room.ListRoomsRequest, "list"),
    "DeleteRoom": Method(room.DeleteRoomRequest, "create"),
    "ListParticipants": Method(room.ListParticipantsRequest, "admin"),
    "GetParticipant": Method(room.RoomParticipantIdentity, "admin"),
    "RemoveParticipant": Method(room.RoomParticipantIdentity, "admin"),
    "MutePublishedTrack": Method(room.MuteRoomTrackRequest, "admin"),
    "UpdateParticipant": Method(room.UpdateParticipantRequest, "admin"),
    "UpdateSubscriptions": Method(room.UpdateSubscriptionsRequest, "admin"),
    "SendData": Method(room.SendDataRequest, "admin"),
    "UpdateRoomMetadata": Method(room.UpdateRoomMetadataRequest, "admin"),
    "ForwardParticipant": Method(room.ForwardParticipantRequest, "destination"),
    "MoveParticipant": Method(room.MoveParticipantRequest, "destination"),
    "PerformRpc": Method(room.PerformRpcRequest, "admin"),
}


def authorize(method: Method, request: Message, claims: Claims | None) -> None:
    """Raises TwirpError("unauthenticated"), which is 401: the reference has no 403 here."""
    video = claims.video if claims is not None else None
    if video is not None:
        match method.grant:
            case "create":
                allowed = video.room_create
            case "list":
                allowed = video.room_list
            case _:
                allowed = video.room_admin and video.room == getattr(request, "room", None)
                if method.grant == "destination":
                    allowed = allowed and video.destination_room == getattr(request, "destination_room", None)
        if allowed:
            return
    raise TwirpError("unauthenticated", "permissions denied")


def check_limits(request: Message, limits: LimitConfig) -> None:
    """Sizes that the configuration bounds. Raises TwirpError("invalid_argument")."""
    match request:
        case room.CreateRoomRequest():
            _check_create(request, limits)
        case room.UpdateRoomMetadataRequest():
            _check_metadata(request, limits)
        case room.UpdateParticipantRequest():
            _check_participant(request, limits)
        case room.SendDataRequest():
            _check_data(request)
        case room.ForwardParticipantRequest() | room.MoveParticipantRequest():
            _check_destination(request)
        case room.PerformRpcRequest():
            _check_rpc(request)


def _too_long(what: str, limit: int) -> TwirpError:
    return invalid_argument(f"{what} exceeds limits", str(limit))


def _check_create(request: Message, limits: LimitConfig) -> None:
    assert isinstance(request, room.CreateRoomRequest)
    if len(request.name.encode()) > limits.max_room_name_length:
        text = f"room name length exceeds limits: max length {limits.max_room_name_length}"
        raise relayed("invalid_argument", text)
    _check_metadata(request, limits)
    if request.HasField("egress"):
        raise relayed("internal", "egress not connected (redis required)")
    for wanted in request.agents:
        size = sum(len(key.encode()) + len(value.encode()) for key, value in wanted.attributes.items())
        if len(wanted.metadata.encode()) > limits.max_metadata_size:
            raise _too_long("metadata size", limits.max_metadata_size)
        if size > limits.max_attributes_size:
            raise _too_long("attribute size", limits.max_attributes_size)


def _check_metadata(request: Message, limits: LimitConfig) -> None:
    if len(getattr(request, "metadata", "").encode()) > limits.max_metadata_size:
        raise _too_long("metadata size", limits.max_metadata_size)


def _check_participant(request: Message, limits: LimitConfig) -> None:
    assert isinstance(request, room.UpdateParticipantRequest)
    if len(request.name.encode()) > limits.max_participant_name_length:
        raise _too_long("name length", limits.max_participant_name_length)
    _check_metadata(request, limits)
    size = sum(len(key.encode()) + len(value.encode()) for key, value in request.attributes.items())
    if size > limits.max_attributes_size:
        raise _too_long("attribute size", limits.max_attributes_size)


def _check_data(request: Message) -> None:
    assert isinstance(request, room.SendDataRequest)
    if len(request.nonce) not in (0, 16):
        text = f"nonce should be 16-bytes or not present, got: {len(request.nonce)} bytes"
        raise TwirpError("invalid_argument", text)


def _check_destination(request: Message) -> None:
    if getattr(request, "room", "") == getattr(request, "destination_room", ""):
        raise invalid_argument("destination room cannot be the same as source room", "")


def _check_rpc(request: Message) -> None:
    assert isinstance(request, room.PerformRpcRequest)
    if not request.destination_identity:
        raise relayed("invalid_argument", "destination identity is required")


RPC_CODES = {
    1400: "invalid_argument",
    1401: "not_found",
    1402: "malformed",
    1403: "unimplemented",
    1404: "unimplemented",
    1500: "internal",
    1501: "canceled",
    1502: "canceled",
    1503: "unavailable",
    1504: "malformed",
    1505: "internal",
}


def rpc_error(failed: RpcFailed) -> TwirpError:
    """An RPC's failure as its caller over Twirp sees it."""
    return relayed(RPC_CODES.get(failed.code, "unknown"), str(failed))


def data_packet(request: room.SendDataRequest) -> models.DataPacket:
    """SendData as the clients get it: no sender."""
    packet = models.DataPacket(kind=request.kind)
    user = packet.user
    user.SetInParent()
    user.payload = request.data
    if request.nonce:
        user.nonce = request.nonce
    if request.destination_sids:
        user.destination_sids.extend(request.destination_sids)
    if request.destination_identities:
        user.destination_identities.extend(request.destination_identities)
        packet.destination_identities.extend(request.destination_identities)
    if request.HasField("topic"):
        user.topic = request.topic
    return packet
