"""`/rtc`, `/rtc/v1` and their validate paths: refuse before the upgrade, or join and then say 101.

The first message is ready when the client sees 101 (livekit-surface 1.6): the participant has sent it already.
"""

from __future__ import annotations

import trio
from livekit.protocol import models, rtc

from actors.front.cors import with_cors
from actors.front.intake import claimed_by, claims_of, refusal
from actors.front.sessions import FLUSH_TIMEOUT, SessionSink, SignalConnection, connection_numbers
from actors.front.signalling import FIRST_MESSAGE_TIMEOUT, SignalSocket
from actors.front.types import Receive, Request, Response, Send, WebSocket
from actors.kernel import ActorDead, ActorRef, AskTimeout, MailboxFull
from actors.messages.participant import ParticipantMessage, Resume, SignalSink
from actors.messages.room import FindParticipant, Join, Joined, JoinRefused, RoomMessage
from actors.messages.rooms import FindRoom, OpenRoom, RoomsMessage
from actors.services import Services
from lkactor.auth import AuthError
from lkactor.room.configuration import UnknownPreset, request_of, with_preset
from lkactor.signal import responses
from lkactor.signal.join import JoinError, JoinIntent, parse_join, with_address
from lkactor.signal.outgoing import Outgoing

ASK_TIMEOUT = 5.0
JOIN_ATTEMPTS = 3
PATHS = {"/rtc": False, "/rtc/v1": True}
VALIDATE_PATHS = {"/rtc/validate": False, "/rtc/v1/validate": True}


class RtcFront:
    """Handlers for client signalling."""

    def __init__(self, services: Services, rooms: ActorRef[RoomsMessage]) -> None:
        self._services = services
        self._rooms = rooms

    async def validate(self, request: Request) -> Response:
        """200 `success`, or the same error as a join would give; readable across origins, errors included."""
        cors = (("access-control-allow-origin", "*"),)
        try:
            intent = self._intent(request, v1=VALIDATE_PATHS[request.path], validate_only=True)
            await self._check_room(intent)
        except JoinError as error:
            return Response(error.status, error.text.encode(), headers=cors)
        return Response(200, b"success", headers=cors)

    async def serve(self, request: Request, receive: Receive, send: Send) -> None:
        """One WebSocket, from the upgrade to its end."""
        sink = SessionSink()
        number, begun = next(connection_numbers), trio.current_time()
        try:
            intent = self._intent(request, v1=PATHS[request.path], validate_only=False)
            participant = await self._admit(intent, sink, number)
        except JoinError as error:
            await self._deny(request, error, receive, send)
            return
        websocket = WebSocket(receive, send)
        if participant is None:
            await self._refuse_resume(websocket, intent.parameters.protocol)
            return
        first: Outgoing | None = None
        with trio.move_on_after(FIRST_MESSAGE_TIMEOUT):
            try:
                first = await sink.receive.receive()
            except trio.EndOfChannel:
                first = None
        if first is None:
            await self._deny(request, JoinError(500, "connection closed by media"), receive, send)
            return
        await websocket.accept()
        self._answered(intent, begun)
        text = request.query.get("json") == "1"
        protocol = intent.parameters.protocol
        connection = SignalConnection(websocket, sink, participant, number, self._services, protocol, text=text)
        await connection.run(first)

    async def serve_plain(self, request: Request, client: SignalSocket) -> None:
        """As `serve`, on the client's own socket."""
        number, begun = next(connection_numbers), trio.current_time()
        try:
            intent = self._intent(request, v1=PATHS[request.path], validate_only=False)
            participant = await self._admit(intent, client, number)
            if participant is not None and not await client.has_first():
                raise JoinError(500, "connection closed by media")
        except JoinError as error:
            self._log_refusal(request, error)
            client.deny(with_cors(request, Response(error.status, error.text.encode())))
            return
        if participant is None:
            client.send(Outgoing(_refused_resume(intent.parameters.protocol)))
            client.close()
        else:
            self._answered(intent, begun)
        client.accept(text=participant is not None and request.query.get("json") == "1")
        await client.run(participant, number, intent.parameters.protocol)

    async def _admit(self, intent: JoinIntent, sink: SignalSink, number: int) -> ActorRef[ParticipantMessage] | None:
        """None: a session that there is no more. Raises JoinError."""
        if intent.parameters.reconnect:
            return await self._resume(intent, sink, number)
        await self._check_room(intent)
        return await self._join(intent, sink, number)

    def _answered(self, intent: JoinIntent, begun: float) -> None:
        if not intent.parameters.reconnect:
            lasted = trio.current_time() - begun
            self._services.metrics.answered(intent.room, intent.identity, intent.parameters.protocol, lasted)

    def _intent(self, request: Request, *, v1: bool, validate_only: bool) -> JoinIntent:
        try:
            claims = claims_of(request, self._services)
        except AuthError as error:
            raise JoinError(401, refusal(request, error), log_as=error.log_text) from None
        limits = self._services.config.limit
        intent = parse_join(request.query, claims, limits, v1=v1, validate_only=validate_only)
        parameters = with_address(intent.parameters, request.client_address, request.headers.get("user-agent", ""))
        return JoinIntent(intent.identity, intent.room, intent.claims, parameters)

    async def _deny(self, request: Request, error: JoinError, receive: Receive, send: Send) -> None:
        """Plain HTTP instead of the upgrade."""
        self._log_refusal(request, error)
        await receive()
        await with_cors(request, Response(error.status, error.text.encode())).deny(send)

    def _log_refusal(self, request: Request, error: JoinError) -> None:
        detail = f"{error.status} {error.log_as} ({request.path} from {request.client_address})"
        room, identity = claimed_by(request)
        self._services.events.record(trio.current_time(), room, identity, "join.refused", detail)

    async def _check_room(self, intent: JoinIntent) -> None:
        if not self._may_create(intent):
            await self._check_existence(intent)
        if self._services.over_limit:
            raise JoinError(503, "node has exceeded its configured limit")

    async def _check_existence(self, intent: JoinIntent) -> None:
        if await self._rooms.ask(FindRoom(intent.room), timeout=ASK_TIMEOUT) is None:
            if self._services.draining.on:
                raise JoinError(503, "server is draining: no new rooms here")
            # livekit-client tells this 404 from a missing endpoint by its exact text.
            raise JoinError(404, "requested room does not exist")

    def _may_create(self, intent: JoinIntent) -> bool:
        if self._services.draining.on:
            return False
        assert intent.claims.video is not None
        return self._services.config.room.auto_create or intent.claims.video.room_create

    async def enter(
        self, request: Request, intent: JoinIntent, sink: SignalSink, number: int
    ) -> ActorRef[ParticipantMessage]:
        """Join for a client without a WebSocket. Raises JoinError; a refusal is recorded as one of `/rtc` is."""
        try:
            await self._check_room(intent)
            return await self._join(intent, sink, number)
        except JoinError as error:
            self._log_refusal(request, error)
            raise

    async def _join(self, intent: JoinIntent, sink: SignalSink, number: int) -> ActorRef[ParticipantMessage]:
        """A room may end between finding and joining it; then it is opened again."""
        try:
            request = with_preset(
                request_of(intent.room, intent.claims), self._services.config.room.room_configurations
            )
        except UnknownPreset as error:
            # The reference exposes no finer reason (livekit-surface 1.6).
            raise JoinError(500, "connection closed by media", log_as=f"unknown room preset {error}") from None
        for _ in range(JOIN_ATTEMPTS):
            try:
                room: ActorRef[RoomMessage] | None = await self._rooms.ask(
                    OpenRoom(request, self._may_create(intent)), timeout=ASK_TIMEOUT
                )
                if room is None:
                    raise JoinError(404, "requested room does not exist")
                answer = await room.ask(Join(intent, number, sink), timeout=ASK_TIMEOUT)
            except ActorDead:
                continue
            except (AskTimeout, MailboxFull):
                raise JoinError(500, "timed out while waiting for signal response") from None
            if isinstance(answer, Joined):
                return answer.participant
            assert isinstance(answer, JoinRefused)
            if answer.status != 503:
                raise JoinError(answer.status, answer.text)
            await trio.sleep(0.01)
        raise JoinError(500, "connection closed by media")

    async def _resume(self, intent: JoinIntent, sink: SignalSink, number: int) -> ActorRef[ParticipantMessage] | None:
        """None: there is no such session any more."""
        try:
            room = await self._rooms.ask(FindRoom(intent.room), timeout=ASK_TIMEOUT)
            if room is None:
                return None
            participant: ActorRef[ParticipantMessage] | None = await room.ask(
                FindParticipant(intent.identity), timeout=ASK_TIMEOUT
            )
            if participant is None:
                return None
            resume = Resume(number, sink, intent.parameters, intent.claims)
            resumed = await participant.ask(resume, timeout=ASK_TIMEOUT)
        except ActorDead:
            return None
        except (AskTimeout, MailboxFull):
            raise JoinError(500, "timed out while waiting for signal response") from None
        return participant if resumed else None

    async def _refuse_resume(self, websocket: WebSocket, protocol: int) -> None:
        """101, one Leave that sends the client into a full reconnect, 1000 (livekit-surface 2.6)."""
        await websocket.accept()
        await websocket.send(_refused_resume(protocol).SerializeToString())
        with trio.move_on_after(FLUSH_TIMEOUT):
            await websocket.close(1000)
            await websocket.drain()


def _refused_resume(protocol: int) -> rtc.SignalResponse:
    reason, action = models.DisconnectReason.STATE_MISMATCH, rtc.LeaveRequest.Action.RECONNECT
    return responses.leave(reason, action, protocol)
