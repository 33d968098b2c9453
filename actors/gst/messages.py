"""What the actors of the GStreamer signalling server tell each other."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio
from livekit.protocol import rtc

from actors.kernel import ActorRef, Restarted, Terminated
from lkactor.gst import Close, Send


@dataclass(frozen=True, slots=True)
class Arrived:
    """A new connection, before TLS and HTTP."""

    stream: trio.abc.Stream


@dataclass(frozen=True, slots=True)
class Opened:
    """From a connection (asked): the WebSocket is up."""

    connection: int
    token: str = field(default="", repr=False)
    """Of the request; "" without one."""


@dataclass(frozen=True, slots=True)
class Frame:
    """From a connection (asked, so that it is read no faster than it is handled)."""

    connection: int
    data: str | bytes


@dataclass(frozen=True, slots=True)
class BridgeIsReady:
    """From a bridge: its LiveKit room is there."""

    connection: int


@dataclass(frozen=True, slots=True)
class BridgeSays:
    """From a bridge: a payload for its peer."""

    connection: int
    text: str


@dataclass(frozen=True, slots=True)
class LookForRooms:
    """To itself: a LiveKit room may have appeared, or gone."""


ServerMessage = Arrived | Opened | Frame | BridgeIsReady | BridgeSays | LookForRooms | Terminated | Restarted
ConnectionMessage = Send | Close


@dataclass(frozen=True, slots=True)
class PeerSays:
    """To a bridge: a payload of its peer."""

    data: str | bytes


@dataclass(frozen=True, slots=True)
class RoomSays:
    """To a bridge: what its participant would tell a LiveKit client."""

    response: rtc.SignalResponse


@dataclass(frozen=True, slots=True)
class Begin:
    """To a bridge: the peer is waiting to be offered to."""


@dataclass(frozen=True, slots=True)
class SessionOver:
    """To a bridge: its participant has closed the signal connection."""


BridgeInput = PeerSays | RoomSays | Begin | SessionOver | Terminated | Restarted

ServerRef = ActorRef[ServerMessage]
