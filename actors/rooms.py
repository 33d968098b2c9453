"""Which rooms there are. Remembers the settings of a room that crashed, so that it comes back as it was set up."""

from __future__ import annotations

from typing import Any

from livekit.protocol import models
from livekit.protocol import room as room_api
from trio import current_time

from actors.kernel import NOT_NOW, Actor, ActorRef, Exit, Restart, Restarted, Terminated
from actors.messages.room import CloseRoom, RoomMessage
from actors.messages.rooms import Drain, FindRoom, ListRooms, OpenRoom, RoomChanged, RoomsMessage
from actors.room import RoomActor
from actors.services import Services
from lkactor.api.listing import ListedRoom
from lkactor.room.configuration import merged
from lkactor.room.model import RoomModel
from lkactor.room.sids import new_sid

MAX_REMEMBERED = 1000


class RoomsActor(Actor[RoomsMessage]):
    """Rooms by name. Each room is temporary: what ends it ends it for everyone in it."""

    mailbox_capacity = 4096

    def __init__(self, services: Services) -> None:
        self._services = services
        # The rooms of a former incarnation have ended with it.
        self._rooms = services.directory.rooms
        self._rooms.clear()
        self._listed: dict[str, ListedRoom] = {}
        self._requests: dict[str, room_api.CreateRoomRequest] = {}
        """What each living room was made with."""
        self._crashed: dict[str, room_api.CreateRoomRequest] = {}

    async def receive(self, message: RoomsMessage) -> object:
        match message:
            case OpenRoom(request=request, create=create):
                return await self._open(request, create)
            case FindRoom(name=name):
                return self._services.directory.room(name)
            case ListRooms(names=names):
                return self._list_of(names)
            case RoomChanged(room=room):
                if room.name in self._rooms:
                    self._list(room)
            case Drain():
                for ref in self._rooms.values():
                    if ref.alive:
                        ref.tell(CloseRoom(models.DisconnectReason.SERVER_SHUTDOWN))
                return tuple(self._rooms.values())
            case Terminated(ref=ref, exit=exit):
                self._ended(ref, exit)
            case Restarted():
                pass
        return None

    def receive_now(self, message: RoomsMessage) -> object:
        match message:
            case ListRooms(names=names):
                return self._list_of(names)
            case FindRoom(name=name):
                return self._services.directory.room(name)
            case OpenRoom(request=request, create=create):
                ref = self._services.directory.room(request.name)
                return NOT_NOW if ref is None and create else ref
            case _:
                return NOT_NOW

    def _list_of(self, names: tuple[str, ...]) -> tuple[ListedRoom, ...]:
        if not names:
            return tuple(self._listed.values())
        wanted = frozenset(names)
        return tuple(listed for name, listed in self._listed.items() if name in wanted)

    async def _open(self, request: room_api.CreateRoomRequest, create: bool) -> ActorRef[RoomMessage] | None:
        """A live room is returned unchanged, whatever the request says (livekit-surface 3.2)."""
        ref = self._services.directory.room(request.name)
        if ref is not None or not create:
            return ref
        former = self._crashed.pop(request.name, None)
        if former is not None:
            request = merged(request, former)
        services = self._services
        model = RoomModel.create(
            request.name, services.config, request, now=current_time(), unix_ms=services.unix_ms(), rng=services.rng
        )
        # A fresh name for the actor: the former one of this room may still be saying its goodbyes.
        name = new_sid("room_", services.rng)
        ref = await self.context.spawn(
            lambda: RoomActor(services, model, self.context.ref), name, restart=Restart.TEMPORARY
        )
        self.context.watch(ref)
        self._rooms[request.name] = ref
        self._requests[request.name] = request
        self._list(model.info(participants=0, publishers=0, recording=False))
        return ref

    def _list(self, info: models.Room) -> None:
        """What was written of it stays good for as long as it is the same."""
        listed = self._listed.get(info.name)
        if listed is None or listed.info is not info:
            self._listed[info.name] = ListedRoom(info)

    def _ended(self, ref: ActorRef[Any], exit: Exit) -> None:
        for name, known in list(self._rooms.items()):
            if known == ref:
                del self._rooms[name]
                listed, request = self._listed.pop(name, None), self._requests.pop(name, None)
                info = listed.info if listed is not None else None
                if info is not None:
                    self._services.journal.room_gone(info.sid)
                if exit in (Exit.FAILED, Exit.KILLED) and info is not None and request is not None:
                    self._services.events.record(current_time(), name, "", "room.crashed", exit.name.lower())
                    now = room_api.CreateRoomRequest(
                        name=name,
                        empty_timeout=info.empty_timeout,
                        departure_timeout=info.departure_timeout,
                        max_participants=info.max_participants,
                        metadata=info.metadata,
                    )
                    self._crashed[name] = merged(now, request)
                    if len(self._crashed) > MAX_REMEMBERED:
                        del self._crashed[next(iter(self._crashed))]
