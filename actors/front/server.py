"""The front: hypercorn on Trio. One port for health, signalling, Twirp and, in dev mode, the try page."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio import serve

from actors.front.rtc import PATHS, VALIDATE_PATHS, RtcFront
from actors.front.try_page import try_page
from actors.front.twirp import PREFIX, TwirpFront
from actors.front.types import Receive, Request, Response, Scope, Send
from actors.kernel import Actor, ActorRef
from actors.messages.rooms import RoomsMessage
from actors.services import Services

CORS_METHODS = "OPTIONS, HEAD, GET, POST, PATCH, DELETE"
NOT_FOUND = Response(404, b"404 page not found\n")
MAX_HEADER = 256 * 1024
"""A join_request travels in the request target: about 3 kB today, more with large offers."""


class FrontActor(Actor[object]):
    """Owns the listeners' server task. A crash restarts it on the same sockets; clients resume."""

    def __init__(self, services: Services, rooms: ActorRef[RoomsMessage], listeners: list[socket.socket]) -> None:
        self._services = services
        self._rtc = RtcFront(services, rooms)
        self._twirp = TwirpFront(services, rooms)
        self._listeners = listeners

    async def started(self) -> None:
        self.context.start_soon(self._serve)

    async def receive(self, message: object) -> object:
        raise TypeError(f"the front takes no messages, got {type(message).__name__}")

    async def _serve(self) -> None:
        config = HypercornConfig()
        config.bind = [f"fd://{listener.dup().detach()}" for listener in self._listeners]
        config.websocket_max_message_size = self._services.config.limit.signal_message_size_limit + 1
        config.h11_max_incomplete_size = MAX_HEADER
        config.websocket_ping_interval = 10
        config.graceful_timeout = 0.2
        config.accesslog = None
        config.errorlog = None
        config.include_server_header = False
        await serve(self._app, config, mode="asgi")  # type: ignore[arg-type]

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "lifespan":
                await _lifespan(receive, send)
            case "websocket":
                request = Request.of(scope)
                if request.path in PATHS:
                    await self._rtc.serve(request, receive, send)
                else:
                    await receive()
                    await NOT_FOUND.deny(send)
            case _:
                request = Request.of(scope)
                response = await self._http(request, receive)
                await _with_cors(request, response).send(send)

    async def _http(self, request: Request, receive: Receive) -> Response:
        if request.method == "OPTIONS" and "access-control-request-method" in request.headers:
            return Response(204)
        if request.path == "/":
            return Response(200, b"OK")
        if request.path in VALIDATE_PATHS:
            return await self._rtc.validate(request)
        if request.path in PATHS:
            return Response(404)  # Not an upgrade (livekit-surface 1.3).
        if request.path.startswith(PREFIX):
            return await self._twirp.handle(request, receive)
        if self._services.config.development:
            page = try_page(request.path)
            if page is not None:
                return page
        return NOT_FOUND


def _with_cors(request: Request, response: Response) -> Response:
    """Any origin, as the reference: browsers call from anywhere, the token is what counts."""
    present = {name.lower() for name, _ in response.headers}
    headers: Mapping[str, str] = {}
    origin = request.headers.get("origin")
    if origin is not None and "access-control-allow-origin" not in present:
        headers = {"access-control-allow-origin": origin, "vary": "Origin", "access-control-expose-headers": "*"}
        if request.method == "OPTIONS":
            asked = request.headers.get("access-control-request-headers", "*")
            headers |= {
                "access-control-allow-methods": CORS_METHODS,
                "access-control-allow-headers": asked,
                "access-control-max-age": "86400",
            }
    if not headers:
        return response
    return Response(response.status, response.body, response.content_type, (*response.headers, *headers.items()))


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        event: dict[str, Any] = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return


async def wait_until_ready(port: int, host: str) -> None:
    """Until the listener answers: for embedders that need to know."""
    while True:
        try:
            stream = await trio.open_tcp_stream(host, port)
        except OSError:
            await trio.sleep(0.005)
            continue
        await stream.aclose()
        return
