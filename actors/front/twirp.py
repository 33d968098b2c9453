"""Twirp: which service, which method; decode, answer, encode (livekit-surface 3.1). Services check grants."""

from __future__ import annotations

from typing import Protocol

from google.protobuf.message import Message
from trio import current_time

from actors.front.agent_dispatch import AgentDispatchFront
from actors.front.intake import claims_of, refusal
from actors.front.paths import moved
from actors.front.room_service import RoomServiceFront
from actors.front.types import NOT_FOUND, BodyTooLarge, ClosedByPeer, Receive, Request, Response, read_body
from actors.kernel import ActorRef, AskTimeout, MailboxFull
from actors.messages.rooms import RoomsMessage
from actors.services import Services
from lkactor.api import twirp, workers
from lkactor.api.listing import RoomList
from lkactor.api.twirp import TwirpError
from lkactor.auth import AuthError, Claims

PREFIX = "/twirp/"
MAX_SHOWN = 200
MAX_ANONYMOUS = 64 * 1024
"""Bytes of a body that are read from somebody without a token: enough for an error, too little to fill the memory."""


class Service(Protocol):
    """One Twirp service."""

    def method(self, name: str) -> twirp.Method | None:
        """None: there is no such method."""

    async def answer(self, name: str, message: Message, claims: Claims | None) -> Message | RoomList:
        """Raises TwirpError, AskTimeout, MailboxFull. `claims` is None without a token."""


class RemoteWorkers:
    """Egress, Ingress and SIP are the work of other processes, and none is connected: the reference's answer."""

    def __init__(self, service: str) -> None:
        self._service = service

    def method(self, name: str) -> twirp.Method | None:
        return workers.method(self._service, name)

    async def answer(self, name: str, message: Message, claims: Claims | None) -> Message:
        workers.authorize(self._service, name, message, claims)
        raise workers.not_connected(self._service)


class TwirpFront:
    """Handlers for `/twirp/...`."""

    def __init__(self, services: Services, rooms: ActorRef[RoomsMessage]) -> None:
        self._services = services
        self._by_name: dict[str, Service] = {
            "livekit.RoomService": RoomServiceFront(services, rooms),
            "livekit.AgentDispatchService": AgentDispatchFront(services, rooms),
            **{f"livekit.{name}": RemoteWorkers(name) for name in workers.SERVICES},
        }

    async def handle(self, request: Request, receive: Receive) -> Response:
        try:
            claims = claims_of(request, self._services)
        except AuthError as error:
            return Response(401, refusal(request, error).encode())
        try:
            limit = self._services.config.limit.max_api_request_body_size
            body = await read_body(receive, limit if claims is not None else min(limit, MAX_ANONYMOUS))
        except BodyTooLarge:
            return Response(413, b"request body too large")
        except ClosedByPeer:
            return Response(400)
        return await self._routed(request, body, claims)

    async def answer(self, request: Request, body: bytes) -> Response:
        """As `handle`, for a body of at most MAX_ANONYMOUS bytes that is there already."""
        try:
            claims = claims_of(request, self._services)
        except AuthError as error:
            return Response(401, refusal(request, error).encode())
        return await self._routed(request, body, claims)

    async def _routed(self, request: Request, body: bytes, claims: Claims | None) -> Response:
        service_name, slash, name = request.path.removeprefix(PREFIX).partition("/")
        service = self._by_name.get(service_name)
        if service is None:
            return NOT_FOUND
        if not slash:
            return moved(request, f"{request.path}/")
        begun = current_time()
        try:
            method = self._method(service, name, request)
        except TwirpError as error:
            return Response(error.status, error.body(), "application/json")
        response, code = await self._call(service, name, method, request, body, claims)
        label = service_name.removeprefix("livekit.")
        self._services.metrics.twirp(label, name, response.status, code, (current_time() - begun) * 1000)
        return response

    async def _call(
        self, service: Service, name: str, method: twirp.Method, request: Request, body: bytes, claims: Claims | None
    ) -> tuple[Response, str]:
        """The response, and its Twirp code ("" for success)."""
        try:
            as_json = twirp.is_json(request.headers.get("content-type", ""), _route(request))
            message = twirp.decode(body, method.request, as_json=as_json)
            answer = await service.answer(name, message, claims)
            # Whoever is told that it is done can count on the event, whatever happens to this process next.
            await self._services.journal.written()
        except TwirpError as error:
            return Response(error.status, error.body(), "application/json"), error.code
        except (AskTimeout, MailboxFull):
            late = twirp.relayed("unavailable", "no response from servers")
            return Response(late.status, late.body(), "application/json"), late.code
        kind = "application/json" if as_json else "application/protobuf"
        return Response(200, twirp.encode(answer, as_json=as_json), kind), ""

    def _method(self, service: Service, name: str, request: Request) -> twirp.Method:
        """Raises TwirpError("bad_route")."""
        route = {"twirp_invalid_route": _route(request)}
        if request.method != "POST":
            raise TwirpError("bad_route", f'unsupported method "{request.method}" (only POST is allowed)', route)
        method = service.method(name)
        if method is None:
            raise TwirpError("bad_route", f'no handler for path "{request.path[:MAX_SHOWN]}"', route)
        return method


def _route(request: Request) -> str:
    return f"{request.method} {request.path[:MAX_SHOWN]}"
