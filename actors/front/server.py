"""The front: hypercorn on Trio. One port for health, signalling, Twirp and, in dev mode, the try page."""

from __future__ import annotations

import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypercorn.config import Config as HypercornConfig
from hypercorn.trio import serve
from trio import current_time, sleep

from actors.front.admin import AdminFront
from actors.front.agent import PATH as AGENT_PATH
from actors.front.agent import AgentFront
from actors.front.connections import Connections, Handlers
from actors.front.cors import preflight, with_cors
from actors.front.events import PATH as EVENTS_PATH
from actors.front.events import EventsFront
from actors.front.intake import claims_of, refusal
from actors.front.metrics import MetricsFront
from actors.front.paths import redirect
from actors.front.rtc import PATHS, VALIDATE_PATHS, RtcFront
from actors.front.signalling import SignalSocket, request_of
from actors.front.try_page import try_page
from actors.front.twirp import PREFIX, TwirpFront
from actors.front.types import NOT_FOUND, Receive, Request, Response, Scope, Send
from actors.front.whip import WhipFront
from actors.front.writing import LateWrites, StartSoon
from actors.kernel import Actor, ActorInfo, ActorRef, Timer
from actors.messages.rooms import Drain, RoomsMessage
from actors.services import Services
from lkactor.auth import AuthError
from lkactor.node_load import INTERVAL
from lkactor.signal.websocket import Upgrade

PROBE_AFTER, PROBE_INTERVAL, PROBES = 20, 10, 4
"""TCP keep-alive: seconds of silence before the first probe, seconds between probes, how many may go unanswered."""
DEAD_AFTER = PROBE_AFTER + PROBE_INTERVAL * PROBES
IDLE_TIMEOUT = 120.0
"""Seconds a connection may wait for its next request: longer than clients keep theirs, so that they close first."""
MAX_HEADER = 256 * 1024
"""A join_request travels in the request target: about 3 kB today, more with large offers."""


@dataclass(frozen=True, slots=True)
class FrontSpec:
    """What the front is started with, and started again after a crash."""

    services: Services
    rooms: ActorRef[RoomsMessage]
    listeners: tuple[socket.socket, ...]
    scraped: tuple[socket.socket, ...]
    """For Prometheus; empty without one."""
    tree: Callable[[], list[ActorInfo]]


class FrontConfig(HypercornConfig):
    """Hypercorn asks at each upgrade, so a limit that is reloaded holds for the next one."""

    services: Services

    @property
    def websocket_max_message_size(self) -> int:  # type: ignore[override]
        return self.services.config.limit.signal_message_size_limit + 1


@dataclass(frozen=True, slots=True)
class DrainDeadline:
    """To itself: who is still here is told to leave."""


Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class FrontActor(Actor[DrainDeadline]):
    """Owns the listeners' server task. A crash restarts it on the same sockets; clients resume."""

    def __init__(self, spec: FrontSpec) -> None:
        services, rooms = spec.services, spec.rooms
        self._spec = spec
        self._services = services
        self._rtc = RtcFront(services, rooms)
        self._twirp = TwirpFront(services, rooms)
        self._agent = AgentFront(services)
        self._whip = WhipFront(services, self._rtc)
        self._events = EventsFront(services)
        self._admin = AdminFront(services, spec.tree, self._drain, self._undrain)
        self._metrics = MetricsFront(services, rooms)
        self._late = LateWrites(services.loop)
        self._deadline: Timer | None = None
        handlers = Handlers(self._call, self._app, self._failed, self._signal, services.loop.in_time)
        self._connections = Connections(handlers, self._config(), services.unix, services.ports.counters)

    async def started(self) -> None:
        for listener in self._spec.listeners:
            _find_dead_peers(listener)
        self.context.start_soon(self._connections.run, self._spec.listeners)
        self.context.start_soon(self._watch_load)
        if self._spec.scraped:
            self.context.start_soon(self._serve, self._spec.scraped, self._metrics.app)
        if self._services.draining.until is not None:
            self._schedule_end(self._services.draining.until)

    async def receive(self, message: DrainDeadline) -> object:
        if self._services.draining.on:
            self._services.events.record(current_time(), "", "", "node.drain_deadline")
            self._spec.rooms.tell(Drain())
        return None

    async def _watch_load(self) -> None:
        load, ports = self._services.load, self._services.ports
        while True:
            load.sample(current_time(), ports.bytes_in + ports.bytes_out)
            await sleep(INTERVAL)

    def _drain(self, seconds: float) -> None:
        self._services.events.record(current_time(), "", "", "node.draining", f"{seconds:.0f} s")
        self._services.draining.until = current_time() + seconds
        self._schedule_end(self._services.draining.until)

    def _undrain(self) -> None:
        self._services.events.record(current_time(), "", "", "node.undrained")
        self._services.draining.until = None
        if self._deadline is not None:
            self._deadline.cancel()

    def _schedule_end(self, at: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.context.schedule(max(0.0, at - current_time()), DrainDeadline())

    async def _serve(self, listeners: Sequence[socket.socket], app: Application) -> None:
        config = self._config()
        for listener in listeners:
            _find_dead_peers(listener)
        config.bind = [f"fd://{listener.dup().detach()}" for listener in listeners]
        config.graceful_timeout = 0.2
        await serve(app, config, mode="asgi")  # type: ignore[arg-type]

    def _config(self) -> FrontConfig:
        config = FrontConfig()
        config.services = self._services
        config.h11_max_incomplete_size = MAX_HEADER
        config.keep_alive_timeout = IDLE_TIMEOUT
        config.keep_alive_max_requests = sys.maxsize
        # Its ping task would keep an ended connection open until the next ping is due.
        config.websocket_ping_interval = None
        config.accesslog = None
        config.errorlog = None
        config.include_server_header = False
        return config

    async def _signal(
        self, peer: socket.socket, address: str, upgrade: Upgrade, begun: bytes, start_soon: StartSoon
    ) -> None:
        client = SignalSocket(peer, upgrade, begun, self._services, start_soon, self._late)
        await self._rtc.serve_plain(request_of(upgrade, address), client)

    async def _call(self, request: Request, body: bytes) -> Response:
        """A plain POST below `/twirp/`: nobody else's business, so it goes straight there."""
        if len(body) > self._services.config.limit.max_api_request_body_size:
            return with_cors(request, Response(413, b"request body too large"))
        return with_cors(request, await self._twirp.answer(request, body))

    def _failed(self, error: Exception) -> None:
        self._services.events.record(current_time(), "", "", "http.failed", f"{type(error).__name__}: {error}")

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "websocket":
                request, send = Request.of(scope), _closing(scope, send)
                if request.path in PATHS:
                    await self._rtc.serve(request, receive, send)
                elif request.path == AGENT_PATH:
                    await self._agent.serve(request, receive, send)
                else:
                    await receive()
                    await with_cors(request, await self._http(request, _no_body)).deny(send)
            case _:
                request = Request.of(scope)
                if request.path == EVENTS_PATH and request.method != "OPTIONS":
                    await self._events.serve(request, receive, send)
                    return
                response = await self._http(request, receive)
                await with_cors(request, response).send(send)

    async def _http(self, request: Request, receive: Receive) -> Response:
        if not request.well_formed:
            return Response(400, b"400 Bad Request")
        answer = preflight(request) or self._admin.handle(request)
        if answer is not None:
            return answer
        if _length(request) > self._services.config.limit.max_api_request_body_size:
            return Response(413, b"request body too large")
        elsewhere = redirect(request)
        if elsewhere is not None:
            return self._refused(request) or elsewhere
        return await self._routed(request, receive)

    async def _routed(self, request: Request, receive: Receive) -> Response:
        if request.path in VALIDATE_PATHS:
            return await self._rtc.validate(request)
        if self._whip.takes(request.path):
            return await self._whip.handle(request, receive)
        if request.path.startswith(PREFIX):
            return await self._twirp.handle(request, receive)
        if self._services.config.development:
            page = try_page(request, self._services)
            if page is not None:
                return page
        refused = self._refused(request)
        if refused is not None:
            return refused
        if request.path in PATHS or request.path == AGENT_PATH:
            return Response(404)  # Not an upgrade (livekit-surface 1.3).
        return Response(200, b"OK") if request.path == "/" else NOT_FOUND

    def _refused(self, request: Request) -> Response | None:
        """As the reference, on every path: a token that is none is not passed over."""
        try:
            claims_of(request, self._services)
        except AuthError as error:
            return Response(401, refusal(request, error).encode())
        return None


def _find_dead_peers(listener: socket.socket) -> None:
    """For all connections that come in by it: one whose peer is silently gone ends within about DEAD_AFTER seconds."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {"TCP_KEEPIDLE": PROBE_AFTER, "TCP_KEEPINTVL": PROBE_INTERVAL, "TCP_KEEPCNT": PROBES}
    options["TCP_USER_TIMEOUT"] = DEAD_AFTER * 1000
    for name, value in options.items():
        option = getattr(socket, name, None)  # Linux has all of them, others some.
        if option is not None:
            listener.setsockopt(socket.IPPROTO_TCP, option, value)


def _length(request: Request) -> int:
    """What the request says of its body; 0 when it does not."""
    text = request.headers.get("content-length", "")
    return int(text[:18]) if text.isascii() and text.isdigit() else 0


def _closing(scope: Scope, send: Send) -> Send:
    """Hypercorn ends a connection whose upgrade was refused; said to clients, so that they send nothing more on it."""

    async def told(event: dict[str, Any]) -> None:
        if event["type"] == "websocket.http.response.start" and scope["http_version"].startswith("1"):
            event = {**event, "headers": [*event["headers"], (b"connection", b"close")]}
        await send(event)

    return told


async def _no_body() -> dict[str, Any]:
    """The rest of an upgrade: there is nothing to read."""
    return {"type": "http.request", "body": b"", "more_body": False}
