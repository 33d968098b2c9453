"""Rooms and participants in virtual time, without a socket: real actors, and clients that list what they heard."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from livekit.protocol import models
from livekit.protocol import room as room_api
from livekit.protocol import rtc as signal

from actors.journal import JournalPort
from actors.kernel import ActorRef, ActorSystem, FaultPlan, Restart
from actors.kernel.turnstile import Turns
from actors.messages.participant import ChannelsOpen, Resume, SignalLost, SignalReceived, TransportStateChanged
from actors.messages.room import Join, Joined
from actors.messages.rooms import FindRoom, OpenRoom
from actors.net import Ports
from actors.rooms import RoomsActor
from actors.services import Services
from lkactor.auth import issue_token, verify
from lkactor.config import Config
from lkactor.dtls import Certificate
from lkactor.eventlog import EventLog
from lkactor.journal import MemoryStore
from lkactor.metrics import Metrics
from lkactor.peer import PeerState
from lkactor.signal.join import JoinIntent, JoinParameters
from lkactor.signal.outgoing import Outgoing
from lkactor.signal.responses import server_info
from lkactor.verdict import JoinBook

KEY, SECRET = "devkey", "a-secret-for-tests-of-32-bytes-or-more"
CERTIFICATE = Certificate.generate()
CONNECTIONS = itertools.count(1)
START = 1_700_000_000.0


class Sink:
    """A client's WebSocket, as a list. Implements `SignalSink`."""

    def __init__(self) -> None:
        self.heard: list[signal.SignalResponse] = []
        self.sent: list[Outgoing] = []
        self.closed = False

    def send(self, response: Outgoing) -> bool:
        self.sent.append(response)
        self.heard.append(response.message)
        return not self.closed

    def close(self) -> None:
        self.closed = True


class Guest:
    """One client of the room."""

    def __init__(self, world: World, intent: JoinIntent) -> None:
        self.world = world
        self.intent = intent
        self.sink = Sink()
        self.connection = next(CONNECTIONS)
        self.ref: ActorRef[Any]
        self.sid = ""

    def heard(self, kind: str) -> list[Any]:
        """Responses of that kind, in order, on the present signal connection."""
        return [getattr(r, kind) for r in self.sink.heard if r.WhichOneof("message") == kind]

    def kinds(self) -> list[str]:
        return [str(response.WhichOneof("message")) for response in self.sink.heard]

    def states_of(self, identity: str) -> list[int]:
        """What this client was told of somebody, in order."""
        infos = [info for update in self.heard("update") for info in update.participants]
        return [info.state for info in infos if info.identity == identity]

    async def ask(self, **request: Any) -> None:
        """A signal request, handled when this returns."""
        self.ref.tell(SignalReceived(self.connection, signal.SignalRequest(**request)))
        await settle()

    async def connect_media(self) -> None:
        """What its transports would say once ICE, DTLS and SCTP are up."""
        roles = ("publisher",) if self.intent.parameters.single else ("publisher", "subscriber")
        for role in roles:
            self.ref.tell(TransportStateChanged(role, PeerState.CONNECTED, ""))  # type: ignore[arg-type]
            self.ref.tell(ChannelsOpen(role))  # type: ignore[arg-type]
        await settle()

    async def lose_signal(self) -> None:
        self.ref.tell(SignalLost(self.connection))
        await settle()

    async def resume(self, *, sid: str | None = None) -> bool:
        sink, connection = Sink(), next(CONNECTIONS)
        parameters = JoinParameters(
            client=self.intent.parameters.client, reconnect=True, participant_sid=self.sid if sid is None else sid
        )
        resumed: bool = await self.ref.ask(Resume(connection, sink, parameters, self.intent.claims), timeout=5.0)
        if resumed:
            self.sink, self.connection = sink, connection
        await settle()
        return resumed


async def settle() -> None:
    """Until nothing moves. The clock stands still."""
    await trio.testing.wait_all_tasks_blocked()


class World:
    """`join` brings clients in; `events` says what happened."""

    def __init__(self, system: ActorSystem, services: Services, rooms: ActorRef[Any]) -> None:
        self.system = system
        self.services = services
        self.rooms = rooms

    async def open(self, room: str = "demo", **settings: Any) -> ActorRef[Any]:
        request = room_api.CreateRoomRequest(name=room, **settings)
        ref: ActorRef[Any] = await self.rooms.ask(OpenRoom(request, True), timeout=5.0)
        return ref

    async def find(self, room: str = "demo") -> ActorRef[Any] | None:
        ref: ActorRef[Any] | None = await self.rooms.ask(FindRoom(room), timeout=5.0)
        return ref

    async def join(
        self, identity: str, room: str = "demo", *, protocol: int = 16, single: bool = True, media: bool = True,
        attributes: dict[str, str] | None = None, client: models.ClientInfo | None = None, **grants: Any,
    ) -> Guest:  # fmt: skip
        """Raises AssertionError, with the refusal, if the room does not take it. With two connections (`single=False`)
        the server makes an offer that nobody answers: it gives up after 15 s."""
        now = self.services.unix()
        video = {"room": room, "room_join": True, **grants}
        token = issue_token(
            KEY, SECRET, identity=identity, video=video, attributes=attributes, ttl=3600.0, now_unix=now
        )
        claims = verify(token, {KEY: SECRET}, now)
        parameters = JoinParameters(client=client or models.ClientInfo(protocol=protocol), single=single)
        guest = Guest(self, JoinIntent(identity, room, claims, parameters))
        ref = await self.open(room)
        answer = await ref.ask(Join(guest.intent, guest.connection, guest.sink), timeout=5.0)
        assert isinstance(answer, Joined), answer
        guest.ref = answer.participant
        await settle()
        guest.sid = guest.heard("join")[0].participant.sid
        if media:
            await guest.connect_media()
        return guest

    def events(self, room: str = "demo") -> list[str]:
        return [entry.event for entry in self.services.events.entries(room)]


@asynccontextmanager
async def world(
    config: str = "", *, faults: FaultPlan | None = None, seed: int = 1, turns: Turns | None = None
) -> AsyncIterator[World]:
    """Everything below the front, and no socket anywhere."""
    loaded = Config.load(config, overrides={"keys": {KEY: SECRET}})
    rng = random.Random(seed)

    def unix() -> float:
        return START + trio.current_time()

    services = Services(
        config=loaded,
        ports=Ports(),
        certificate=CERTIFICATE,
        candidates=(),
        server_info=server_info("ND_test", ""),
        events=EventLog(trio.current_time()),
        journal=JournalPort(MemoryStore(), unix=unix, rng=rng),
        metrics=Metrics("ND_test"),
        joins=JoinBook(),
        rng=rng,
        unix=unix,
    )
    async with ActorSystem(seed=seed, faults=faults, turns=turns) as system:
        rooms = await system.spawn(lambda: RoomsActor(services), "rooms", restart=Restart.PERMANENT)
        yield World(system, services, rooms)
