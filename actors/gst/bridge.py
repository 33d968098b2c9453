"""The bridge: one GStreamer peer in a LiveKit room, as the participant `gst-<peer>`.

To the room it is a signal client like any other, on a single peer connection that the server may offer on; to the peer
it is the other peer. The peer's descriptions become offers and answers, its sending sections announced tracks; what the
participant wants to send comes back as answers and, when the room changes, offers.

| state   | leaves it                                                                     |
|---------|-------------------------------------------------------------------------------|
| OPENING | there is such a room: READY, the server is told; no such room: the end        |
| READY   | the peer's first description, or the wish for ours: JOINED; refused: the end  |
| JOINED  | a Leave, the participant's end, the peer's end: the end                       |
"""

from __future__ import annotations

from dataclasses import dataclass, field

from livekit.protocol import models, rtc
from livekit.protocol import room as room_api

from actors.gst.messages import (
    Begin,
    BridgeInput,
    BridgeIsReady,
    BridgeSays,
    PeerSays,
    RoomSays,
    ServerRef,
    SessionOver,
)
from actors.kernel import Actor, ActorDead, ActorRef, AskTimeout, Exit, MailboxFull, Restarted, Terminated
from actors.messages.participant import ParticipantMessage, SignalReceived
from actors.messages.room import Join, Joined, RoomMessage
from actors.messages.rooms import OpenRoom, RoomsMessage
from actors.services import Services
from lkactor.auth import Claims
from lkactor.errors import ProtocolViolation
from lkactor.gst import IceCandidate, OfferRequest, PeerSdp, parse_payload, write_sdp
from lkactor.gst.client import BridgeClient
from lkactor.signal.outgoing import Outgoing

ASK_TIMEOUT = 5.0
CONNECTION = 1
"""A bridge never resumes, so it has one signal connection."""
MAX_EARLY = 64
"""Candidates that may come before the first description."""


@dataclass(frozen=True, slots=True)
class BridgeSpec:
    connection: int
    uid: str
    room: str
    in_room: bool
    """The peer is in a ROOM with others, whose media it has from them."""
    begins: bool
    """The bridge makes the first offer."""
    server: ServerRef
    services: Services
    rooms: ActorRef[RoomsMessage]
    claims: Claims | None = field(default=None, repr=False)
    """Of the peer's token; None where none is needed."""


class _Sink:
    """Where the participant's responses go. Implements `SignalSink`."""

    def __init__(self, bridge: ActorRef[BridgeInput]) -> None:
        self._bridge = bridge
        self.join: rtc.SignalResponse | None = None
        """The first response: there when the room has answered that the participant has joined."""

    def send(self, response: Outgoing) -> bool:
        if self.join is None:
            self.join = response.message
            return True
        try:
            self._bridge.tell(RoomSays(response.message))
        except (ActorDead, MailboxFull):
            return False
        return True

    def close(self) -> None:
        try:
            self._bridge.tell(SessionOver())
        except (ActorDead, MailboxFull):
            pass  # It ends when the participant does.


class BridgeActor(Actor[BridgeInput]):
    """A temporary child of the signalling server, which hears of its end by watching it."""

    def __init__(self, spec: BridgeSpec) -> None:
        self._spec = spec
        self._client = BridgeClient(spec.uid, spec.room, in_room=spec.in_room)
        self._participant: ActorRef[ParticipantMessage] | None = None
        self._early: list[IceCandidate] = []

    async def started(self) -> None:
        self.context.start_soon(self._open)

    async def stopping(self, exit: Exit) -> None:
        leave = rtc.LeaveRequest(reason=models.DisconnectReason.CLIENT_INITIATED)
        self._tell_participant(rtc.SignalRequest(leave=leave))

    async def _open(self) -> None:
        if await self._room() is None:
            self.context.stop("no such room")
        elif self._spec.begins:
            self.context.ref.tell(Begin())
        else:
            self._tell_server(BridgeIsReady(self._spec.connection))

    async def receive(self, message: BridgeInput) -> object:
        match message:
            case PeerSays(data=data):
                await self._on_peer(data)
            case RoomSays(response=response):
                self._on_room(response)
            case Begin():
                await self._join(first=True)
            case SessionOver() | Terminated():
                self.context.stop("the LiveKit session is over")
            case Restarted():
                pass
        return None

    # -- the peer ---------------------------------------------------------------------------------------------------

    async def _on_peer(self, data: str | bytes) -> None:
        try:
            if isinstance(data, bytes):
                raise ProtocolViolation("gst.payload_binary")
            payload = parse_payload(data)
            match payload:
                case OfferRequest():
                    await self._join(first=True)
                case PeerSdp(kind=kind, sdp=sdp):
                    requests = self._client.described(kind, sdp)
                    await self._join(first=False)
                    self._tell_participant(*requests)
                    early, self._early = self._early, []
                    for candidate in early:
                        self._on_candidate(candidate)
                case IceCandidate():
                    self._on_candidate(payload)
        except ProtocolViolation as violation:
            self._spec.services.ports.counters.count(violation.reason)

    def _on_candidate(self, candidate: IceCandidate) -> None:
        if self._participant is not None:
            self._tell_participant(self._client.candidate(candidate.candidate))
        elif len(self._early) < MAX_EARLY:
            self._early.append(candidate)

    # -- the room ---------------------------------------------------------------------------------------------------

    def _on_room(self, response: rtc.SignalResponse) -> None:
        match response.WhichOneof("message"):
            case "join":
                self._tell_participant(*self._client.participants(response.join.other_participants))
            case "update":
                self._tell_participant(*self._client.participants(response.update.participants))
            case "offer":
                self._say(write_sdp("offer", response.offer.sdp))
            case "answer":
                self._say(write_sdp("answer", response.answer.sdp))
            case "leave":
                self.context.stop("the LiveKit session is over")
            case _:
                pass  # Made for LiveKit's clients; a GStreamer peer has no words for it.

    def _say(self, text: str) -> None:
        self._tell_server(BridgeSays(self._spec.connection, text))

    # -- joining ----------------------------------------------------------------------------------------------------

    async def _room(self) -> ActorRef[RoomMessage] | None:
        request = room_api.CreateRoomRequest(name=self._spec.room)
        config = self._spec.services.config
        if len(self._spec.room.encode()) > config.limit.max_room_name_length:
            return None
        try:
            room: ActorRef[RoomMessage] | None = await self._spec.rooms.ask(
                OpenRoom(request, self._may_create()), timeout=ASK_TIMEOUT
            )
        except (ActorDead, AskTimeout, MailboxFull):
            return None
        return room

    def _may_create(self) -> bool:
        services, claims = self._spec.services, self._spec.claims
        video = claims.video if claims is not None else None
        if services.draining.on or services.over_limit:
            return False
        return services.config.room.auto_create or (video is not None and video.room_create)

    async def _join(self, *, first: bool) -> None:
        """Once. What is there already is subscribed to before anything is described."""
        if self._participant is not None:
            return
        room = await self._room()
        services = self._spec.services
        intent = self._client.intent(
            now_unix=services.unix(),
            server_offers="first" if first else "later",
            api_key=next(iter(services.config.keys)),
            token=self._spec.claims,
        )
        answer, sink = None, _Sink(self.context.ref)
        if room is not None:
            try:
                answer = await room.ask(Join(intent, CONNECTION, sink), timeout=ASK_TIMEOUT)
            except (ActorDead, AskTimeout, MailboxFull):
                answer = None
        if not isinstance(answer, Joined):
            services.ports.counters.count("gst.bridge_join_refused")
            self.context.stop("the room is not to be joined")
            return
        self._participant = answer.participant
        self.context.watch(answer.participant)
        if sink.join is not None:
            self._on_room(sink.join)

    # -- small things -----------------------------------------------------------------------------------------------

    def _tell_participant(self, *requests: rtc.SignalRequest) -> None:
        if self._participant is None:
            return
        for request in requests:
            try:
                self._participant.tell(SignalReceived(CONNECTION, request))
            except ActorDead:
                return  # Its Terminated is on the way.
            except MailboxFull:
                self._spec.services.ports.counters.count("signal.queue_full")
                self.context.stop("the participant is too far behind")
                return

    def _tell_server(self, message: BridgeIsReady | BridgeSays) -> None:
        try:
            self._spec.server.tell(message)
        except MailboxFull:
            self._spec.services.ports.counters.count("gst.server_busy")
            self.context.stop("the signalling server is too far behind")
