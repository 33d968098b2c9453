"""AgentDispatchService: ask the room (livekit-surface 3.3)."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message
from livekit.protocol import agent_dispatch
from livekit.protocol import room as room_api

from actors.kernel import ActorDead, ActorRef
from actors.messages.agents import CreateDispatch, DeleteDispatch, ListDispatches
from actors.messages.room import RoomMessage
from actors.messages.rooms import FindRoom, OpenRoom, RoomsMessage
from actors.services import Services
from lkactor.api import agent_dispatch as api
from lkactor.api.room_service import authorize
from lkactor.api.twirp import Method
from lkactor.auth import Claims

ASK_TIMEOUT = 5.0


class AgentDispatchFront:
    """Handlers for `livekit.AgentDispatchService`."""

    def __init__(self, services: Services, rooms: ActorRef[RoomsMessage]) -> None:
        self._services = services
        self._rooms = rooms

    def method(self, name: str) -> Method | None:
        return api.METHODS.get(name)

    async def answer(self, name: str, message: Message, claims: Claims | None) -> Message:
        """Raises TwirpError, AskTimeout, MailboxFull."""
        authorize(api.METHODS[name], message, claims)
        api.check_limits(message, self._services.config.limit)
        match message:
            case agent_dispatch.CreateAgentDispatchRequest():
                wanted = agent_dispatch.AgentDispatch(
                    agent_name=message.agent_name,
                    metadata=message.metadata,
                    restart_policy=message.restart_policy,
                    deployment=message.deployment,
                    attributes=message.attributes,
                )
                made: Message = await self._ask(await self._room_to_create_in(message.room), CreateDispatch(wanted))
                return made
            case agent_dispatch.DeleteAgentDispatchRequest(dispatch_id=id, room=room):
                gone: Message | None = await self._ask(await self._room(room), DeleteDispatch(id))
                if gone is None:
                    raise api.NO_DISPATCH
                return gone
            case agent_dispatch.ListAgentDispatchRequest(dispatch_id=id, room=room):
                found = await self._ask(await self._room(room), ListDispatches(id))
                return agent_dispatch.ListAgentDispatchResponse(agent_dispatches=found)
            case _:
                raise TypeError(f"unexpected {type(message).__name__}")

    async def _room(self, name: str) -> ActorRef[RoomMessage]:
        room: ActorRef[RoomMessage] | None = await self._rooms.ask(FindRoom(name), timeout=ASK_TIMEOUT)
        if room is None:
            raise api.NO_ROOM
        return room

    async def _room_to_create_in(self, name: str) -> ActorRef[RoomMessage]:
        create = self._services.config.room.auto_create and not self._services.draining.on
        open_it = OpenRoom(room_api.CreateRoomRequest(name=name), create)
        room: ActorRef[RoomMessage] | None = await self._rooms.ask(open_it, timeout=ASK_TIMEOUT)
        if room is None:
            raise api.NO_ROOM
        return room

    async def _ask(self, room: ActorRef[RoomMessage], message: Any) -> Any:
        try:
            return await room.ask(message, timeout=ASK_TIMEOUT)
        except ActorDead:
            raise api.NO_ROOM from None
