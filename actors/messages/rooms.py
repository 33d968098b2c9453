"""What the rooms actor is told: it knows which rooms there are."""

from __future__ import annotations

from dataclasses import dataclass

from livekit.protocol import models
from livekit.protocol import room as room_api

from actors.kernel import Restarted, Terminated


@dataclass(frozen=True, slots=True)
class OpenRoom:
    """Find the room, or make it. Answer: its ActorRef, or None when it does not exist and may not be made."""

    request: room_api.CreateRoomRequest
    create: bool


@dataclass(frozen=True, slots=True)
class FindRoom:
    """Answer: ActorRef or None."""

    name: str


@dataclass(frozen=True, slots=True)
class ListRooms:
    """Answer: tuple of lkactor.api.listing.ListedRoom, as the rooms last reported themselves. No names: all."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RoomChanged:
    """A room's own report."""

    room: models.Room


@dataclass(frozen=True, slots=True)
class Drain:
    """The server stops: everyone is told to leave. Answer: the rooms' ActorRefs, to wait for."""


RoomsMessage = OpenRoom | FindRoom | ListRooms | RoomChanged | Drain | Restarted | Terminated
