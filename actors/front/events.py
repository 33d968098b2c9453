"""`GET /events`: the event log as server-sent events, with a cursor (docs/webhooks.md).

| token | sees |
|---|---|
| `roomAdmin` with a `room` | the events of that room |
| `roomAdmin` and `roomList`, no `room` | everything |
| anything else | 403; no token: 401 |

| parameter | means |
|---|---|
| `Last-Event-ID` (header), else `cursor` | events behind this cursor; 0: from the oldest that is kept |
| `last` | the newest so many of those that are shown, then on; 0, the default: from now on |
| `follow=0` | end when there is no more |
| `room`, `event` (comma-separated) | only these |

One event is `id: <cursor>`, `event: <name>`, `data: <the webhook's JSON>`. An id alone moves the cursor past what is
not shown. Where events are gone that were asked for, `event: gap` says so. A comment every 15 s keeps proxies from
closing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import trio

from actors.front.cors import with_cors
from actors.front.intake import claims_of, refusal
from actors.front.types import Receive, Request, Response, Send
from actors.journal import LogReader
from actors.services import Services
from lkactor.auth import AuthError, Claims
from lkactor.journal import Gap, Position, Record
from lkactor.journal.webhook import event_json

PATH = "/events"
MAX_STREAMS = 100
KEEPALIVE = 15.0
STALL = 60.0
"""Seconds: a client that takes nothing for so long is cut off; it can come back with its cursor."""
READ = 64
MAX_CURSOR_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Wish:
    """What one stream is to show. `room` None: every room."""

    room: str | None
    events: frozenset[str]
    follow: bool

    def shows(self, record: Record) -> bool:
        event = record.event
        return (not self.events or event.event in self.events) and (self.room is None or event.room.name == self.room)


class EventsFront:
    """The handler of `/events`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._streams = 0

    async def serve(self, request: Request, receive: Receive, send: Send) -> None:
        refused, wish, position = self._accept(request)
        if refused is not None or wish is None or position is None:
            await with_cors(request, refused or Response(400)).send(send)
            return
        fresh = (("content-type", "text/event-stream"), ("cache-control", "no-store"), ("x-accel-buffering", "no"))
        head = Response(200, headers=fresh)
        headers = [pair for pair in with_cors(request, head).raw_headers() if pair[0] != b"content-length"]
        self._streams += 1
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_gone, receive, nursery.cancel_scope)
                await self._stream(self._services.journal.reader(position), wish, send)
                nursery.cancel_scope.cancel()
        finally:
            self._streams -= 1

    # -- what is asked ----------------------------------------------------------------------------------------------

    def _accept(self, request: Request) -> tuple[Response | None, Wish | None, Position | None]:
        """A refusal, or what to show and from where."""
        if request.method != "GET":
            return Response(405, headers=(("allow", "GET"),)), None, None
        try:
            claims = claims_of(request, self._services)
        except AuthError as error:
            return Response(401, refusal(request, error).encode()), None, None
        if claims is None:
            return Response(401, b"a token is required"), None, None
        allowed = _rooms_of(claims)
        if allowed is None:
            return Response(403, b"the token needs roomAdmin with a room, or roomAdmin and roomList"), None, None
        room = request.query.get("room") or None
        if allowed and room not in (None, allowed):
            return Response(403, b"the token is for another room"), None, None
        events = frozenset(name for name in request.query.get("event", "").split(",") if name)
        wish = Wish(allowed or room, events, request.query.get("follow") not in ("0", "false"))
        position = self._position(request, wish)
        if position is None:
            return Response(400, b"cursor and last are whole numbers"), None, None
        if self._streams >= MAX_STREAMS:
            return Response(503, b"too many event streams", headers=(("retry-after", "5"),)), None, None
        return None, wish, position

    def _position(self, request: Request, wish: Wish) -> Position | None:
        """None: it is no number."""
        journal = self._services.journal.journal
        text = request.headers.get("last-event-id") or request.query.get("cursor")
        if text is not None:
            number = _number(text)
            return None if number is None else journal.position(number)
        number = _number(request.query.get("last", "0"))
        return None if number is None else journal.position_of_last(number, wish.shows)

    # -- the stream -------------------------------------------------------------------------------------------------

    async def _stream(self, reader: LogReader, wish: Wish, send: Send) -> None:
        # An id without data is where a client goes on that is cut off before its first event.
        await _write(send, f"id: {reader.position.cursor}\n\n".encode())
        while True:
            step: tuple[Record, ...] | Gap | None = None
            with trio.move_on_after(KEEPALIVE if wish.follow else math.inf):
                step = await reader.next(READ, wait=wish.follow)
            if step == ():
                await send({"type": "http.response.body", "body": b""})
                return
            with trio.move_on_after(STALL) as stalled:
                await _write(send, _text(step, wish).encode())
            if stalled.cancelled_caught:
                return


def _rooms_of(claims: Claims) -> str | None:
    """The room that the token may watch, "" for all, None for none."""
    video = claims.video
    if video is None or not video.room_admin:
        return None
    return video.room if video.room else ("" if video.room_list else None)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_CURSOR_DIGITS else None


def _text(step: tuple[Record, ...] | Gap | None, wish: Wish) -> str:
    if step is None:
        return ": still here\n\n"
    if isinstance(step, Gap):
        return f'event: gap\ndata: {{"after": {step.after}, "before": {step.before}}}\n\n'
    shown = "".join(_frame(record) for record in step if wish.shows(record))
    return shown or f"id: {step[-1].cursor}\n\n"


def _frame(record: Record) -> str:
    return f"id: {record.cursor}\nevent: {record.event.event}\ndata: {event_json(record.event)}\n\n"


async def _write(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _until_gone(receive: Receive, scope: trio.CancelScope) -> None:
    """The client hung up: the stream ends."""
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            scope.cancel()
            return
