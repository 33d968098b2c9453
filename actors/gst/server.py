"""The GStreamer signalling server: accepts, runs the protocol of `lkactor.gst`, and starts bridges into LiveKit rooms.

One actor holds the protocol's state; every connection and every bridge is a child of it, and ends it in the protocol by
its own end.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import trio

from actors.gst.bridge import BridgeActor, BridgeSpec
from actors.gst.connection import BACKLOG_LIMIT, Backlog, ConnectionActor, ConnectionSpec
from actors.gst.messages import (
    Arrived,
    BridgeInput,
    BridgeIsReady,
    BridgeSays,
    ConnectionMessage,
    Frame,
    LookForRooms,
    Opened,
    PeerSays,
    ServerMessage,
)
from actors.kernel import (
    Actor,
    ActorDead,
    ActorRef,
    AskTimeout,
    MailboxFull,
    Restart,
    Restarted,
    StartFailed,
    Terminated,
)
from actors.messages.rooms import FindRoom, RoomsMessage
from actors.services import Services
from lkactor.auth import Claims
from lkactor.config import Config
from lkactor.counters import Counters
from lkactor.gst import BridgeClosed, BridgeMessage, BridgeWanted, Close, Send, SignallingServer, asked_room
from lkactor.gst.access import claims_for

MAX_CONNECTIONS = 4096
LOOK_INTERVAL = 1.0
"""Seconds until members of a ROOM hear of a LiveKit room of the same name."""
ROOMS_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class GstServerSpec:
    listeners: Sequence[socket.socket]
    tls: ssl.SSLContext | None = None
    keepalive: float = 30.0
    health: str = "/health"
    log: Callable[[str, str], object] = lambda event, detail: None
    """(event, detail)"""
    services: Services | None = None
    rooms: ActorRef[RoomsMessage] | None = None
    """With both of them there is a bridge."""
    counters: Counters | None = None

    @property
    def port(self) -> int:
        return int(self.listeners[0].getsockname()[1])

    def close(self) -> None:
        """The node closes what it opened: a restarted actor listens on the same sockets."""
        for listener in self.listeners:
            listener.close()


def node_spec(services: Services, rooms: ActorRef[RoomsMessage]) -> GstServerSpec | None:
    """What `gst_signalling` of the configuration asks for; None if there is no port in it.

    Raises OSError when the port is taken or a file cannot be read, ssl.SSLError when it is no certificate.
    """
    config = services.config.gst_signalling
    if config.port is None:
        return None
    events = services.events
    return GstServerSpec(
        tls=tls_context(config.cert, config.key),
        listeners=listen(services.config.bind_addresses, config.port),
        keepalive=config.keepalive,
        log=lambda event, detail: events.record(trio.current_time(), "", "", event, detail),
        services=services,
        rooms=rooms,
        counters=services.ports.counters,
    )


class GstServerActor(Actor[ServerMessage]):
    """A restart drops all connections: their state is lost, and GStreamer's clients begin anew."""

    mailbox_capacity = 4096

    def __init__(self, spec: GstServerSpec) -> None:
        self._spec = spec
        self.counters = spec.counters if spec.counters is not None else Counters()
        self._protocol = SignallingServer(bridges=spec.rooms is not None, allows=self._allows)
        self._protocol.counters = self.counters
        self._connections: dict[int, tuple[ActorRef[ConnectionMessage], Backlog]] = {}
        self._bridges: dict[int, ActorRef[BridgeInput]] = {}
        self._numbers = 0
        self._looking = False

    async def started(self) -> None:
        for listener in self._spec.listeners:
            self.context.start_soon(self._accept, listener)

    async def receive(self, message: ServerMessage) -> object:
        match message:
            case Arrived(stream=stream):
                await self._welcome(stream)
            case Opened(connection=connection, token=token):
                self._protocol.connected(connection, token)
            case Frame(connection=connection, data=data):
                await self._look_for(asked_room(data))
                self._protocol.receive(connection, data)
            case BridgeIsReady(connection=connection):
                self._protocol.bridge_ready(connection)
            case BridgeSays(connection=connection, text=text):
                self._protocol.bridge_send(connection, text)
            case LookForRooms():
                self._looking = False
                for name in self._protocol.rooms:
                    await self._look_for(name)
            case Terminated(ref=ref):
                self._ended(ref)
            case Restarted():
                pass
        await self._act()
        return None

    # -- connections ------------------------------------------------------------------------------------------------

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                stream, _ = listener.accept()
            except OSError:
                # The peer is gone again, or file descriptors ran out: counted, tried again a little later.
                self.counters.count("gst.accept_error")
                await trio.sleep(0.05)
                continue
            stream.setblocking(False)
            arrived = trio.SocketStream(trio.socket.from_stdlib_socket(stream))
            try:
                self.context.ref.tell(Arrived(arrived))
            except MailboxFull:
                self.counters.count("gst.server_busy")
                await trio.aclose_forcefully(arrived)

    async def _welcome(self, stream: trio.abc.Stream) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            self.counters.count("gst.too_many_connections")
            await trio.aclose_forcefully(stream)
            return
        self._numbers += 1
        spec = ConnectionSpec(
            number=self._numbers,
            server=self.context.ref,
            stream=stream,
            tls=self._spec.tls,
            health=self._spec.health,
            keepalive=self._spec.keepalive,
            counters=self.counters,
        )
        ref = await self.context.spawn(lambda: ConnectionActor(spec), f"peer-{spec.number}", restart=Restart.TEMPORARY)
        self._connections[spec.number] = (ref, spec.backlog)
        self.context.watch(ref)

    def _ended(self, ref: ActorRef[Any]) -> None:
        for number, (connection, _) in list(self._connections.items()):
            if connection == ref:
                del self._connections[number]
                self._protocol.disconnected(number)
        for number, bridge in list(self._bridges.items()):
            if bridge == ref:
                del self._bridges[number]
                self._protocol.bridge_ended(number)

    def _tell_peer(self, message: Send | Close) -> None:
        found = self._connections.get(message.connection)
        if found is None:
            return
        ref, backlog = found
        if isinstance(message, Send):
            backlog.size += len(message.data)
        try:
            ref.tell(message)
        except ActorDead:
            return
        except MailboxFull:
            backlog.size = BACKLOG_LIMIT + 1
        if backlog.size > BACKLOG_LIMIT:
            self.counters.count("gst.slow_reader")
            ref.kill()

    # -- what the protocol says -------------------------------------------------------------------------------------

    async def _act(self) -> None:
        while (event := self._protocol.next_event()) is not None:
            match event:
                case Send() | Close():
                    self._tell_peer(event)
                case BridgeWanted():
                    await self._start_bridge(event)
                case BridgeMessage(connection=connection, data=data):
                    self._tell_bridge(connection, PeerSays(data))
                case BridgeClosed(connection=connection):
                    bridge = self._bridges.pop(connection, None)
                    if bridge is not None:
                        bridge.stop("the peer is gone")
        if self._spec.rooms is not None and not self._looking and self._protocol.rooms:
            self._looking = True
            self.context.schedule(LOOK_INTERVAL, LookForRooms())

    async def _look_for(self, name: str) -> None:
        """Is there a LiveKit room of this name? The rooms actor only looks into a dictionary."""
        if not name or self._spec.rooms is None:
            return
        try:
            room = await self._spec.rooms.ask(FindRoom(name), timeout=ROOMS_TIMEOUT)
        except (AskTimeout, MailboxFull, ActorDead):
            self.counters.count("gst.rooms_busy")
            return
        self._protocol.set_live(name, room is not None)

    # -- bridges ----------------------------------------------------------------------------------------------------

    def _allows(self, token: str, room: str) -> bool:
        services = self._spec.services
        return services is not None and (bridge_is_open(services.config) or self._claims(token, room) is not None)

    def _claims(self, token: str, room: str) -> Claims | None:
        """Of a token that holds for this room; where the bridge is open, none is needed."""
        services = self._spec.services
        if services is None or (not token and bridge_is_open(services.config)):
            return None
        return claims_for(token, room, services.config.keys, services.unix(), self.counters)

    async def _start_bridge(self, wanted: BridgeWanted) -> None:
        services, rooms = self._spec.services, self._spec.rooms
        assert services is not None and rooms is not None
        spec = BridgeSpec(
            connection=wanted.connection,
            uid=wanted.uid,
            room=wanted.room,
            in_room=wanted.in_room,
            begins=wanted.offer,
            server=self.context.ref,
            services=services,
            rooms=rooms,
            claims=self._claims(wanted.token, wanted.room),
        )
        self._numbers += 1
        former = self._bridges.pop(wanted.connection, None)
        if former is not None:
            former.stop("another bridge takes its place")
        try:
            ref = await self.context.spawn(lambda: BridgeActor(spec), f"bridge-{self._numbers}")
        except StartFailed:
            self._protocol.bridge_ended(wanted.connection)
            return
        self._spec.log("gst.bridge", f"{wanted.uid} to {wanted.room}")
        self._bridges[wanted.connection] = ref
        self.context.watch(ref)

    def _tell_bridge(self, connection: int, message: BridgeInput) -> None:
        bridge = self._bridges.get(connection)
        if bridge is None:
            return
        try:
            bridge.tell(message)
        except ActorDead:
            pass  # Its Terminated is on the way.
        except MailboxFull:
            self.counters.count("gst.bridge_busy")
            bridge.kill()


def bridge_is_open(config: Config) -> bool:
    """Whoever reaches the port may join every room: by default only in development."""
    return config.gst_signalling.bridge == "open" or (not config.gst_signalling.bridge and config.development)


def listen(addresses: Sequence[str], port: int) -> list[socket.socket]:
    """The signalling port on every address; port 0 picks one for all. Raises OSError when it is taken."""
    listeners: list[socket.socket] = []
    for address in addresses or ("0.0.0.0", *(("::",) if socket.has_dualstack_ipv6() else ())):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((address, port))
            listener.listen(1024)
        except OSError:
            for opened in (*listeners, listener):
                opened.close()
            raise
        listener.setblocking(False)
        listeners.append(listener)
        port = listener.getsockname()[1]
    return listeners


def tls_context(cert: str, key: str) -> ssl.SSLContext | None:
    """None without a certificate. Raises OSError or ssl.SSLError if the files cannot be used."""
    if not cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key or None)
    return context
