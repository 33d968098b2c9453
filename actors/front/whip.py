"""`/whip/v1` and `/whep/v1`: publishers and players that speak HTTP and nothing else (livekit-surface 1.8).

A session is a participant like any other; what it would say on a signal connection is in its offer, and the resource
that POST made stands for the connection: PATCH trickles or restarts ICE, DELETE leaves.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass

import trio
from livekit.protocol import rtc

from actors.front.intake import claims_of, refusal
from actors.front.rtc import RtcFront
from actors.front.sessions import connection_numbers
from actors.front.types import NOT_FOUND, BodyTooLarge, ClosedByPeer, Receive, Request, Response, read_body
from actors.kernel import ActorDead, ActorRef, MailboxFull
from actors.messages.participant import ParticipantMessage, SignalReceived
from actors.services import Services
from lkactor.auth import AuthError, Claims
from lkactor.errors import ProtocolViolation
from lkactor.signal import whip
from lkactor.signal.ice_servers import ice_servers
from lkactor.signal.join import JoinError, JoinIntent, with_address
from lkactor.signal.outgoing import Outgoing

PREFIXES = ("/whip/v1", "/whep/v1")
ANSWER_TIMEOUT = 10.0
MAX_SESSIONS = 5000
MAX_KEPT = 64 * 1024 * 1024
"""Characters of offers that are kept for ICE restarts, of all sessions."""
OPTIONS = (
    ("access-control-allow-origin", "*"),
    ("access-control-allow-headers", "*"),
    ("access-control-allow-methods", "PATCH, OPTIONS, GET, POST, DELETE"),
    ("access-control-expose-headers", "*"),
)


class AnswerSink:
    """What the participant says, as far as HTTP can carry it: answers. Implements `SignalSink`."""

    def __init__(self) -> None:
        self.sid = ""
        self.closed = False
        self._answers: deque[str] = deque(maxlen=4)
        self._news = trio.Event()

    def send(self, response: Outgoing) -> bool:
        match response.kind:
            case "join":
                self.sid = response.message.join.participant.sid
            case "answer":
                self._answers.append(response.message.answer.sdp)
                self._news.set()
            case _:
                pass
        return not self.closed

    def close(self) -> None:
        self.closed = True
        self._news.set()

    async def answer(self) -> str | None:
        """The next answer; None if none comes in time or the session has ended."""
        with trio.move_on_after(ANSWER_TIMEOUT):
            while not self._answers and not self.closed:
                self._news = trio.Event()
                await self._news.wait()
        return self._answers.popleft() if self._answers else None


@dataclass(slots=True)
class _Session:
    participant: ActorRef[ParticipantMessage]
    sink: AnswerSink
    number: int
    identity: str
    room: str
    offer: str
    etag: str


class WhipFront:
    """Sessions by participant sid."""

    def __init__(self, services: Services, rtc_front: RtcFront) -> None:
        self._services = services
        self._rtc = rtc_front
        self._sessions: dict[str, _Session] = {}

    def takes(self, path: str) -> bool:
        return any(path == prefix or path.startswith(f"{prefix}/") for prefix in PREFIXES)

    async def handle(self, request: Request, receive: Receive) -> Response:
        prefix = next(prefix for prefix in PREFIXES if request.path.startswith(prefix))
        sid = request.path.removeprefix(prefix).removeprefix("/")
        try:
            claims = claims_of(request, self._services)
        except AuthError as error:
            return Response(401, refusal(request, error).encode())
        if "/" in sid or (not sid and request.path != prefix):
            return NOT_FOUND
        match request.method, bool(sid):
            case "GET" | "HEAD", _:
                return Response(204)
            case "OPTIONS", False:
                return Response(200, headers=OPTIONS)
            case ("POST", False) | ("PATCH" | "DELETE", True):
                return await self._answer(request, receive, prefix, sid, claims)
            case _:
                return NOT_FOUND

    async def _answer(
        self, request: Request, receive: Receive, prefix: str, sid: str, claims: Claims | None
    ) -> Response:
        """Errors are JSON from here on, and say so; the reference's do not say it."""
        wanted = {"POST": whip.SDP, "PATCH": whip.FRAGMENT}.get(request.method)
        kind = request.headers.get("content-type", "")
        if wanted is not None and kind != wanted:
            return _error(400, f"unsupported content-type: {kind[:100]}")
        if request.method == "PATCH" and not request.headers.get("if-match"):
            return _error(428, "missing entity tag")
        try:
            claims = whip.admitted(claims, self._services.config.limit)
            body = (await read_body(receive, whip.MAX_BODY)).decode("utf-8", "replace")
            return await self._dispatch(request, prefix, sid, claims, body)
        except JoinError as error:
            return _error(error.status, error.text)
        except BodyTooLarge:
            return _error(413, f"request body exceeds {whip.MAX_BODY} bytes")
        except ClosedByPeer:
            return Response(400)
        except ProtocolViolation as violation:
            self._services.ports.counters.count(violation.reason)
            what = "malformed SDP offer" if request.method == "POST" else "malformed SDP fragment"
            return _error(400, f"{what}: {violation}")

    async def _dispatch(self, request: Request, prefix: str, sid: str, claims: Claims, body: str) -> Response:
        if request.method == "POST":
            return await self._create(request, prefix, claims, body)
        session = self._find(sid, claims)
        if session is None:
            return _error(404, "no such session")
        if request.method == "DELETE":
            self._say(session, rtc.SignalRequest(leave=rtc.LeaveRequest()))
            self._sessions.pop(sid, None)
            return Response(200)
        return await self._patch(request, session, body)

    def _find(self, sid: str, claims: Claims) -> _Session | None:
        """The session, if it is alive and the token is for it."""
        session = self._sessions.get(sid)
        if (
            session is None
            or claims.video is None
            or (session.identity, session.room)
            != (
                claims.identity,
                claims.video.room,
            )
        ):
            return None
        if session.sink.closed or not session.participant.alive:
            del self._sessions[sid]
            return None
        return session

    async def _create(self, request: Request, prefix: str, claims: Claims, body: str) -> Response:
        self._sweep()
        kept = sum(len(session.offer) for session in self._sessions.values())
        if len(self._sessions) >= MAX_SESSIONS or kept + len(body) > MAX_KEPT:
            return _error(503, "too many sessions")
        assert claims.video is not None
        parameters = with_address(whip.parameters(body), request.client_address, request.headers.get("user-agent", ""))
        intent = JoinIntent(claims.identity, claims.video.room, claims, parameters)
        sink, number = AnswerSink(), next(connection_numbers)
        try:
            participant = await self._rtc.enter(request, intent, sink, number)
        except JoinError as error:
            return _error(503 if error.status >= 500 else error.status, error.text)
        session = _Session(participant, sink, number, intent.identity, intent.room, body, "")
        answer = await sink.answer()
        if answer is None:
            self._say(session, rtc.SignalRequest(leave=rtc.LeaveRequest()))
            return _error(503, "no answer to this offer")
        session.etag = whip.attribute(answer, "ice-ufrag")
        self._sessions[sink.sid] = session
        services = self._services
        servers = ice_servers(services.config, sink.sid, services.unix(), services.candidates, api_key=claims.api_key)
        headers = [("location", f"{prefix}/{sink.sid}"), ("etag", session.etag), ("accept-patch", whip.FRAGMENT)]
        headers += [("link", link) for link in whip.links(servers)]
        return Response(201, answer.encode(), whip.SDP, tuple(headers))

    async def _patch(self, request: Request, session: _Session, body: str) -> Response:
        match = request.headers["if-match"].strip('"')
        if match == "*":
            return await self._restart(session, body)
        if match != session.etag:
            return _error(412, "If-Match names another ICE session")
        for candidate in whip.candidates_of(body):
            init = json.dumps({"candidate": candidate, "sdpMid": "0", "sdpMLineIndex": 0})
            trickle = rtc.TrickleRequest(candidateInit=init, target=rtc.SignalTarget.PUBLISHER)
            self._say(session, rtc.SignalRequest(trickle=trickle))
        return Response(204)

    async def _restart(self, session: _Session, body: str) -> Response:
        session.offer = whip.restarted(session.offer, body)
        offer = rtc.SessionDescription(type="offer", sdp=session.offer, id=2)
        self._say(session, rtc.SignalRequest(offer=offer))
        answer = await session.sink.answer()
        if answer is None:
            return _error(500, "no answer to this restart")
        session.etag = whip.attribute(answer, "ice-ufrag")
        return Response(200, whip.fragment_of(answer).encode(), whip.FRAGMENT, (("etag", session.etag),))

    def _say(self, session: _Session, request: rtc.SignalRequest) -> None:
        try:
            session.participant.tell(SignalReceived(session.number, request))
        except (ActorDead, MailboxFull):
            self._services.ports.counters.count("whip.participant_unreachable")

    def _sweep(self) -> None:
        """Forget the sessions that have ended by themselves."""
        for sid, session in list(self._sessions.items()):
            if session.sink.closed or not session.participant.alive:
                del self._sessions[sid]


def _error(status: int, text: str) -> Response:
    return Response(status, json.dumps({"error": text}).encode() + b"\n", "application/json")
