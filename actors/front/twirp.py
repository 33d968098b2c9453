"""RoomService over Twirp: decode, authorise, ask the room, encode (livekit-surface 3)."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message
from livekit.protocol import models, rtc
from livekit.protocol import room as room_api

from actors.front.intake import claims_of, refusal
from actors.front.types import BodyTooLarge, ClosedByPeer, Receive, Request, Response, read_body
from actors.kernel import ActorDead, ActorRef, AskTimeout, MailboxFull
from actors.messages.participant import Disconnect, MuteTrack, UpdateParticipant, UpdateSubscriptions
from actors.messages.room import (
    CloseRoom,
    FindParticipant,
    GetRoom,
    ListParticipants,
    OutboundData,
    PublishData,
    RoomMessage,
    UpdateRoomMetadata,
)
from actors.messages.rooms import FindRoom, ListRooms, OpenRoom, RoomsMessage
from actors.services import Services
from lkactor.api import room_service, twirp
from lkactor.api.twirp import TwirpError
from lkactor.auth import AuthError
from lkactor.room.participant import LimitExceeded

PREFIX = "/twirp/"
ROOM_SERVICE = "livekit.RoomService"
ASK_TIMEOUT = 5.0
NO_PARTICIPANT = "participant does not exist"
NO_ROOM = "requested room does not exist"


class TwirpFront:
    """Handlers for `/twirp/...`."""

    def __init__(self, services: Services, rooms: ActorRef[RoomsMessage]) -> None:
        self._services = services
        self._rooms = rooms

    async def handle(self, request: Request, receive: Receive) -> Response:
        try:
            claims = claims_of(request, self._services)
        except AuthError as error:
            return Response(401, refusal(request, error).encode())
        try:
            body = await read_body(receive, self._services.config.limit.max_api_request_body_size)
        except BodyTooLarge:
            return Response(413, b"request body too large")
        except ClosedByPeer:
            return Response(400)
        try:
            method = self._method(request)
            as_json = twirp.is_json(request.headers.get("content-type", ""))
            message = twirp.decode(body, method.request, as_json=as_json)
            room_service.authorize(method, message, claims)
            room_service.check_limits(message, self._services.config.limit)
            answer = await self._answer(message, request.path.rpartition("/")[2])
        except TwirpError as error:
            return Response(error.status, error.body(), "application/json")
        except (AskTimeout, MailboxFull):
            late = TwirpError("unavailable", "no response from servers")
            return Response(late.status, late.body(), "application/json")
        kind = "application/json" if as_json else "application/protobuf"
        return Response(200, twirp.encode(answer, as_json=as_json), kind)

    def _method(self, request: Request) -> room_service.Method:
        service, _, name = request.path.removeprefix(PREFIX).partition("/")
        path = request.path[:200]
        route = {"twirp_invalid_route": f"{request.method} {path}"}
        if request.method != "POST":
            raise TwirpError("bad_route", f'unsupported method "{request.method}" (only POST is allowed)', route)
        if service == ROOM_SERVICE and name in room_service.METHODS:
            return room_service.METHODS[name]
        known = ("livekit.AgentDispatchService", "livekit.Egress", "livekit.Ingress", "livekit.SIP")
        if service in known or (service == ROOM_SERVICE and name in room_service.RPC_NOT_HERE):
            raise TwirpError("unimplemented", f"{service}/{name} is not implemented yet, see docs/status.md")
        raise TwirpError("bad_route", f'no handler for path "{path}"', route)

    async def _answer(self, message: Message, name: str) -> Message:
        match message:
            case room_api.CreateRoomRequest():
                ref = await self._rooms.ask(OpenRoom(message, create=True), timeout=ASK_TIMEOUT)
                created: models.Room = await self._ask_room(ref, GetRoom())
                return created
            case room_api.ListRoomsRequest(names=names):
                rooms = await self._rooms.ask(ListRooms(tuple(names)), timeout=ASK_TIMEOUT)
                return room_api.ListRoomsResponse(rooms=rooms)
            case room_api.DeleteRoomRequest(room=room):
                await self._ask_room(await self._room(room), CloseRoom(models.DisconnectReason.ROOM_DELETED))
                return room_api.DeleteRoomResponse()
            case room_api.ListParticipantsRequest(room=room):
                found = await self._rooms.ask(FindRoom(room), timeout=ASK_TIMEOUT)
                infos = await self._ask_room(found, ListParticipants()) if found is not None else ()
                return room_api.ListParticipantsResponse(participants=infos)
            case room_api.RoomParticipantIdentity(room=room, identity=identity):
                if name == "GetParticipant":
                    return await self._participant_info(room, identity)
                participant = await self._participant(room, identity)
                action = rtc.LeaveRequest.Action.DISCONNECT
                await self._ask(participant, Disconnect(models.DisconnectReason.PARTICIPANT_REMOVED, action))
                return room_api.RemoveParticipantResponse()
            case room_api.UpdateRoomMetadataRequest(room=room, metadata=metadata):
                updated: models.Room = await self._ask_room(await self._room(room), UpdateRoomMetadata(metadata))
                return updated
            case room_api.SendDataRequest(room=room):
                return await self._send_data(message, await self._room(room))
            case _:
                return await self._to_participant(message)

    async def _to_participant(self, message: Any) -> Message:
        """The methods that change one participant."""
        match message:
            case room_api.MuteRoomTrackRequest(track_sid=sid, muted=muted):
                if not muted and not self._services.config.room.enable_remote_unmute:
                    raise TwirpError("failed_precondition", "remote unmute not enabled")
                participant = await self._participant(message.room, message.identity)
                track = await self._ask(participant, MuteTrack(sid, muted))
                return room_api.MuteRoomTrackResponse(track=track)
            case room_api.UpdateParticipantRequest():
                participant = await self._participant(message.room, message.identity)
                permission = message.permission if message.HasField("permission") else None
                update = UpdateParticipant(message.name, message.metadata, dict(message.attributes), permission)
                info: models.ParticipantInfo = await self._ask(participant, update)
                return info
            case room_api.UpdateSubscriptionsRequest(subscribe=subscribe):
                participant = await self._participant(message.room, message.identity)
                sids = {*message.track_sids, *(sid for g in message.participant_tracks for sid in g.track_sids)}
                await self._ask(participant, UpdateSubscriptions(tuple(sorted(sids)), subscribe))
                return room_api.UpdateSubscriptionsResponse()
            case _:
                raise TwirpError("internal", f"no handler for {type(message).__name__}")

    async def _send_data(self, request: room_api.SendDataRequest, room: ActorRef[RoomMessage]) -> Message:
        packet = room_service.data_packet(request)
        data = OutboundData(
            reliable=request.kind == models.DataPacket.Kind.RELIABLE,
            payload=packet.SerializeToString(),
            destinations=frozenset(request.destination_identities),
            destination_sids=frozenset(request.destination_sids),
        )
        await self._ask_room(room, PublishData("", (data,)))
        return room_api.SendDataResponse()

    # -- finding ----------------------------------------------------------------------------------------------------

    async def _room(self, name: str) -> ActorRef[RoomMessage]:
        ref: ActorRef[RoomMessage] | None = await self._rooms.ask(FindRoom(name), timeout=ASK_TIMEOUT)
        if ref is None:
            raise TwirpError("not_found", NO_ROOM)
        return ref

    async def _participant(self, room: str, identity: str) -> ActorRef[Any]:
        found = await self._rooms.ask(FindRoom(room), timeout=ASK_TIMEOUT)
        ref = await self._ask_room(found, FindParticipant(identity)) if found is not None else None
        if ref is None:
            raise TwirpError("not_found", NO_PARTICIPANT)
        assert isinstance(ref, ActorRef)
        return ref

    async def _participant_info(self, room: str, identity: str) -> models.ParticipantInfo:
        found = await self._rooms.ask(FindRoom(room), timeout=ASK_TIMEOUT)
        infos = await self._ask_room(found, ListParticipants()) if found is not None else ()
        for info in infos:
            if info.identity == identity:
                return info  # type: ignore[no-any-return]
        raise TwirpError("not_found", NO_PARTICIPANT)

    async def _ask_room(self, room: ActorRef[RoomMessage], message: RoomMessage) -> Any:
        try:
            return await room.ask(message, timeout=ASK_TIMEOUT)
        except ActorDead:
            raise TwirpError("not_found", NO_ROOM) from None

    async def _ask(self, participant: ActorRef[Any], message: object) -> Any:
        try:
            answer = await participant.ask(message, timeout=ASK_TIMEOUT)
        except ActorDead:
            raise TwirpError("not_found", NO_PARTICIPANT) from None
        if isinstance(answer, LimitExceeded):
            raise TwirpError("invalid_argument", str(answer))
        return answer
