"""RoomService: ask the room or the participant, and say it in Twirp's words (livekit-surface 3.2)."""

from __future__ import annotations

from typing import Any

import trio
from google.protobuf.message import Message
from livekit.protocol import models, rtc
from livekit.protocol import room as room_api

from actors.kernel import NOT_NOW, ActorDead, ActorRef
from actors.messages.participant import (
    Disconnect,
    ForwardTo,
    MoveTo,
    MuteTrack,
    PerformRpc,
    UpdateParticipant,
    UpdateSubscriptions,
)
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
from actors.messages.rooms import ListRooms, OpenRoom, RoomsMessage
from actors.services import Services
from lkactor.api import room_service
from lkactor.api.listing import RoomList
from lkactor.api.twirp import Method, TwirpError, relayed
from lkactor.auth import Claims
from lkactor.room.configuration import UnknownPreset, with_preset
from lkactor.room.participant import LimitExceeded
from lkactor.room.rpc import RpcFailed

ASK_TIMEOUT = 5.0
RELIABLE = models.DataPacket.Kind.RELIABLE
NO_PARTICIPANT = "participant does not exist"
NO_ROOM = "requested room does not exist"


class RoomServiceFront:
    """Handlers for `livekit.RoomService`."""

    def __init__(self, services: Services, rooms: ActorRef[RoomsMessage]) -> None:
        self._services = services
        self._rooms = rooms

    def method(self, name: str) -> Method | None:
        return room_service.METHODS.get(name)

    async def answer(self, name: str, message: Message, claims: Claims | None) -> Message | RoomList:
        """Raises TwirpError, AskTimeout, MailboxFull."""
        room_service.authorize(room_service.METHODS[name], message, claims)
        room_service.check_limits(message, self._services.config.limit)
        return await self._answer(message, name)

    async def _answer(self, message: Message, name: str) -> Message | RoomList:
        match message:
            case room_api.CreateRoomRequest():
                if self._services.over_limit:
                    raise TwirpError("unknown", "reached configured limit for node")
                try:
                    request = with_preset(message, self._services.config.room.room_configurations)
                except UnknownPreset:
                    text = "twirp error unknown: unknown room configuration in create room request"
                    raise TwirpError("invalid_argument", text) from None
                room_service.check_limits(request, self._services.config.limit)
                open_it = OpenRoom(request, create=not self._services.draining.on)
                ref = await self._rooms.ask(open_it, timeout=ASK_TIMEOUT)
                if ref is None:
                    raise TwirpError("unavailable", "server is draining: no new rooms here")
                created: models.Room = await self._ask_room(ref, GetRoom())
                return created
            case room_api.ListRoomsRequest(names=names):
                return RoomList(await _asked(self._rooms, ListRooms(tuple(names))))
            case room_api.DeleteRoomRequest(room=room):
                await self._ask_room(self._room(room), CloseRoom(models.DisconnectReason.ROOM_DELETED))
                return room_api.DeleteRoomResponse()
            case room_api.ListParticipantsRequest(room=room):
                found = self._services.directory.room(room)
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
                updated: models.Room = await self._ask_room(self._room(room), UpdateRoomMetadata(metadata))
                return updated
            case room_api.SendDataRequest(room=room):
                return await self._send_data(message, self._room(room))
            case _:
                return await self._to_participant(message)

    async def _to_participant(self, message: Any) -> Message:
        """The methods that change one participant."""
        match message:
            case room_api.MuteRoomTrackRequest(track_sid=sid, muted=muted):
                if not muted and not self._services.config.room.enable_remote_unmute:
                    raise relayed("failed_precondition", "remote unmute not enabled")
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
            case room_api.PerformRpcRequest():
                return await self._perform_rpc(message)
            case room_api.ForwardParticipantRequest():
                await self._forward(message)
                return room_api.ForwardParticipantResponse()
            case room_api.MoveParticipantRequest():
                await self._move(message)
                return room_api.MoveParticipantResponse()
            case _:
                raise TwirpError("internal", f"no handler for {type(message).__name__}")

    async def _send_data(self, request: room_api.SendDataRequest, room: ActorRef[RoomMessage]) -> Message:
        packet = room_service.data_packet(request)
        data = OutboundData(
            reliable=request.kind == RELIABLE,
            payload=packet.SerializeToString(),
            destinations=frozenset(request.destination_identities),
            destination_sids=frozenset(request.destination_sids),
        )
        await self._ask_room(room, PublishData("", (data,)))
        return room_api.SendDataResponse()

    async def _perform_rpc(self, request: room_api.PerformRpcRequest) -> Message:
        send, receive = trio.open_memory_channel[str | RpcFailed](1)
        try:
            participant = await self._participant(request.room, request.destination_identity)
        except TwirpError:
            raise room_service.rpc_error(RpcFailed.of(1401)) from None
        call = PerformRpc(request.method, request.payload, request.response_timeout_ms, send)
        await self._ask(participant, call)
        result = await receive.receive()
        if isinstance(result, RpcFailed):
            raise room_service.rpc_error(result)
        return room_api.PerformRpcResponse(payload=result)

    async def _destination(self, name: str) -> ActorRef[RoomMessage]:
        opened: ActorRef[RoomMessage] | None = await self._rooms.ask(
            OpenRoom(room_api.CreateRoomRequest(name=name), self._services.config.room.auto_create),
            timeout=ASK_TIMEOUT,
        )
        if opened is None:
            raise relayed("not_found", NO_ROOM)
        return opened

    async def _forward(self, request: room_api.ForwardParticipantRequest) -> None:
        participant = await self._participant(request.room, request.identity)
        room = await self._destination(request.destination_room)
        if not await self._ask(participant, ForwardTo(request.destination_room, room)):
            raise TwirpError("resource_exhausted", "participant is forwarded to too many rooms")

    async def _move(self, request: room_api.MoveParticipantRequest) -> None:
        participant = await self._participant(request.room, request.identity)
        room = await self._destination(request.destination_room)
        info: models.Room = await self._ask_room(room, GetRoom())
        others: tuple[models.ParticipantInfo, ...] = await self._ask_room(room, ListParticipants())
        visible = tuple(other for other in others if not other.permission.hidden)
        await self._ask(participant, MoveTo(info, visible))

    # -- finding ----------------------------------------------------------------------------------------------------

    def _room(self, name: str) -> ActorRef[RoomMessage]:
        ref = self._services.directory.room(name)
        if ref is None:
            raise relayed("not_found", NO_ROOM)
        return ref

    async def _participant(self, room: str, identity: str) -> ActorRef[Any]:
        found = self._services.directory.room(room)
        ref = await self._ask_room(found, FindParticipant(identity)) if found is not None else None
        if ref is None:
            raise relayed("not_found", NO_PARTICIPANT)
        assert isinstance(ref, ActorRef)
        return ref

    async def _participant_info(self, room: str, identity: str) -> models.ParticipantInfo:
        found = self._services.directory.room(room)
        infos = await self._ask_room(found, ListParticipants()) if found is not None else ()
        for info in infos:
            if info.identity == identity:
                return info  # type: ignore[no-any-return]
        raise relayed("not_found", NO_PARTICIPANT)

    async def _ask_room(self, room: ActorRef[RoomMessage], message: RoomMessage) -> Any:
        try:
            return await _asked(room, message)
        except ActorDead:
            raise relayed("not_found", NO_ROOM) from None

    async def _ask(self, participant: ActorRef[Any], message: object) -> Any:
        try:
            answer = await _asked(participant, message)
        except ActorDead:
            raise relayed("not_found", NO_PARTICIPANT) from None
        if isinstance(answer, LimitExceeded):
            raise TwirpError("invalid_argument", str(answer))
        return answer


async def _asked(ref: ActorRef[Any], message: object) -> Any:
    """The answer, at once where that is possible. Raises AskTimeout, ActorDead, MailboxFull."""
    answer = ref.ask_now(message)
    return await ref.ask(message, timeout=ASK_TIMEOUT) if answer is NOT_NOW else answer
