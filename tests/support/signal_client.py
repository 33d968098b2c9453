"""Signalling on the wire: a raw WebSocket client in protobuf or JSON, of any protocol number and both generations.

Nothing is understood here but the framing; what a session needs to become ACTIVE is in `support.signal_media`. The
server is ours, in this process, or the one that LK_SIGNAL_URL names: a livekit-server with this key and this secret.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp
from google.protobuf.json_format import MessageToDict, MessageToJson, Parse
from livekit import api
from livekit.protocol import models, rtc
from support.interop import raw_token

KEY, SECRET = "devkey", "a-secret-for-tests-of-32-bytes-or-more"
CONFIG = "{enable_data_tracks: true, enable_participant_data_blob: true}"
"""What both servers are started with, beside keys and ports."""
LIMIT = 12.0
"""Seconds one wait may take: it only bounds a failure."""
PYTHON = models.ClientInfo.SDK.PYTHON
NEVER_KNOWN = "TR_fence"
"""A track that nobody has: what the server says about it marks a place in the stream of answers."""


class Server:
    """What a client needs of a server. `reference`: it is the Go server, not ours."""

    api_key, api_secret = KEY, SECRET

    def __init__(self, url: str, *, reference: bool) -> None:
        self.url = url
        self.reference = reference

    @property
    def http_url(self) -> str:
        return self.url.replace("ws", "http", 1)

    def token(self, identity: str, room: str, *, ttl: int = 600, **claims: Any) -> str:
        """`claims`: of the token; what is no claim is a grant, in the spelling of the token."""
        known = ("name", "metadata", "attributes", "kind", "roomConfig")
        video = {"roomJoin": True, "room": room, **{k: v for k, v in claims.items() if k not in known}}
        named = {name: claims[name] for name in known if name in claims}
        return raw_token(self, sub=identity, exp=int(time.time()) + ttl, video=video, **named)

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[api.room_service.RoomService]:
        async with api.LiveKitAPI(self.http_url, KEY, SECRET) as lkapi:
            yield lkapi.room


class Closed(AssertionError):
    """The server ended the connection before what was waited for."""


class Refused(Exception):
    """The upgrade was answered with plain HTTP."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class Heard:
    """One response and the kind of frame it came in."""

    __slots__ = ("kind", "message", "text")

    def __init__(self, message: rtc.SignalResponse, text: bool) -> None:
        self.kind = str(message.WhichOneof("message"))
        self.message = message
        self.text = text

    @property
    def body(self) -> Any:
        return getattr(self.message, self.kind)

    def tree(self) -> Any:
        """The message as a tree of plain values, enums by name; scalars as they are."""
        body = self.body
        return MessageToDict(body, preserving_proto_field_name=True) if hasattr(body, "DESCRIPTOR") else body

    def __repr__(self) -> str:
        tree = str(self.tree())
        return f"{self.kind} {tree if len(tree) < 200 else tree[:200] + '...'}"


class SignalClient:
    """One signal connection. `heard` has all responses in order; `closed` is the close code once it has ended."""

    def __init__(self, server: Server, room: str, identity: str) -> None:
        self.server, self.room, self.identity = server, room, identity
        self.heard: list[Heard] = []
        self.closed: int | None = None
        self.json = False
        self.media: Any = None
        self._changed = asyncio.Event()
        self._socket: aiohttp.ClientWebSocketResponse
        self._session = aiohttp.ClientSession()
        self._reader: asyncio.Task[None] | None = None
        self._fences = 0

    # -- the connection ---------------------------------------------------------------------------------------------

    async def open(self, url: str, *, read: bool = True) -> SignalClient:
        """Raises Refused. `read`: False leaves everything that comes unread."""
        try:
            self._socket = await self._session.ws_connect(url, max_msg_size=0, autoclose=False)
        except aiohttp.WSServerHandshakeError as error:
            raise Refused(error.status) from None
        if read:
            self.read()
        return self

    def read(self) -> None:
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while (frame := await self._socket.receive()).type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            if frame.type == aiohttp.WSMsgType.TEXT:
                message = Parse(frame.data, rtc.SignalResponse(), ignore_unknown_fields=True)
            else:
                message = rtc.SignalResponse.FromString(frame.data)
            heard = Heard(message, frame.type == aiohttp.WSMsgType.TEXT)
            self.heard.append(heard)
            self._changed.set()
            if self.media is not None:
                await self.media.handle(heard)
        self.closed = frame.data if frame.type == aiohttp.WSMsgType.CLOSE else 1006
        self._changed.set()
        await self._socket.close()

    async def close(self) -> None:
        """Without a farewell."""
        await self._session.close()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        if self.media is not None:
            await self.media.close()

    async def drop(self) -> None:
        """The WebSocket ends; what media there is stays."""
        media, self.media = self.media, None
        await self.close()
        self.media = media

    # -- asking -----------------------------------------------------------------------------------------------------

    async def ask(self, **request: Any) -> int:
        """One SignalRequest in the framing of this client. Returns a mark: what comes later answers it."""
        message, mark = rtc.SignalRequest(**request), len(self.heard)
        if self.json:
            await self._socket.send_str(MessageToJson(message))
        else:
            await self._socket.send_bytes(message.SerializeToString())
        return mark

    async def send_raw(self, frame: str | bytes) -> int:
        mark = len(self.heard)
        if isinstance(frame, str):
            await self._socket.send_str(frame)
        else:
            await self._socket.send_bytes(frame)
        return mark

    async def fence(self) -> int:
        """Until the server has handled everything that was asked before. Requests are handled one by one."""
        self._fences += 1
        sid = f"{NEVER_KNOWN}{self._fences}"
        mark = await self.ask(mute=rtc.MuteTrackRequest(sid=sid))
        await self.expect("request_response", lambda answer: answer.mute.sid == sid, since=mark)
        return len(self.heard)

    # -- hearing ----------------------------------------------------------------------------------------------------

    def story(self) -> str:
        """The last responses, for the message of a failed wait."""
        lines = [f"({len(self.heard)} responses)", *map(repr, self.heard[-20:])]
        return "\n".join(lines) + (f"\nclosed {self.closed}" if self.closed is not None else "")

    def said(self, kind: str, where: Callable[[Any], bool] = lambda _: True, *, since: int = 0) -> list[Heard]:
        return [heard for heard in self.heard[since:] if heard.kind == kind and where(heard.body)]

    async def until(self, holds: Callable[[], Any], what: str, limit: float = LIMIT) -> None:
        """Returns when `holds()`; looks again after every frame."""
        try:
            async with asyncio.timeout(limit):
                while not holds():
                    if self.closed is not None:
                        raise Closed(f"{self.identity}: closed before {what}; heard:\n{self.story()}")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{self.identity}: no {what}; heard:\n{self.story()}") from None

    async def expect(self, kind: str, where: Callable[[Any], bool] = lambda _: True, *, since: int = 0) -> Any:
        """The body of the first response of that kind that fits, past or future."""
        await self.until(lambda: self.said(kind, where, since=since), kind)
        return self.said(kind, where, since=since)[0].body

    async def ended(self) -> int:
        """The close code."""
        try:
            async with asyncio.timeout(LIMIT):
                while self.closed is None:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{self.identity}: not closed; heard:\n{self.story()}") from None
        return self.closed

    # -- what most rows look at ---------------------------------------------------------------------------------------

    @property
    def join(self) -> rtc.JoinResponse:
        first: rtc.JoinResponse = self.heard[0].body
        return first

    @property
    def sid(self) -> str:
        return self.join.participant.sid

    def infos(self, identity: str, *, since: int = 0) -> list[models.ParticipantInfo]:
        """What was said about somebody in updates, in order."""
        updates = [heard.body for heard in self.said("update", since=since)]
        return [info for update in updates for info in update.participants if info.identity == identity]

    async def info(
        self, identity: str, where: Callable[[models.ParticipantInfo], bool] = lambda _: True, *, since: int = 0
    ) -> models.ParticipantInfo:
        """The first that fits of `infos`."""

        def fitting() -> list[models.ParticipantInfo]:
            return [info for info in self.infos(identity, since=since) if where(info)]

        await self.until(fitting, f"update about {identity}")
        return fitting()[0]


def query(token: str, *, protocol: int = 16, sdk: str = "python", **more: Any) -> str:
    """The query of `/rtc`."""
    fields = {"access_token": token, "protocol": protocol, "sdk": sdk, "version": "1.2.3", "auto_subscribe": 1, **more}
    return urlencode(fields)


def join_request(token: str, *, protocol: int = 16, **more: Any) -> str:
    """The query of `/rtc/v1`; `more`: fields of JoinRequest."""
    settings = more.pop("connection_settings", None) or rtc.ConnectionSettings(auto_subscribe=True)
    info = models.ClientInfo(sdk=PYTHON, protocol=protocol, version="1.2.3")
    inner = rtc.JoinRequest(client_info=info, connection_settings=settings, **more)
    wrapped = rtc.WrappedJoinRequest(join_request=inner.SerializeToString())
    encoded = base64.urlsafe_b64encode(wrapped.SerializeToString()).decode()
    return urlencode({"access_token": token, "join_request": encoded})


class Scene:
    """The clients of one test, all in one room; at the end all are closed and the room is deleted."""

    def __init__(self, server: Server, room: str) -> None:
        self.server, self.room = server, room
        self.clients: list[SignalClient] = []

    async def join(
        self,
        identity: str = "alice",
        *,
        v1: bool = False,
        json: bool = False,
        read: bool = True,
        grants: Mapping[str, Any] | None = None,
        token: str = "",
        **parameters: Any,
    ) -> SignalClient:
        """A signal connection, its first message read. `parameters`: of the query, or fields of JoinRequest in v1."""
        token = token or self.server.token(identity, self.room, **(grants or {}))
        path = f"/rtc/v1?{join_request(token, **parameters)}" if v1 else f"/rtc?{query(token, **parameters)}"
        client = SignalClient(self.server, self.room, identity)
        self.clients.append(client)
        client.json = json
        await client.open(self.server.url + path, read=read)
        if read:
            await client.until(lambda: client.heard or client.closed is not None, "first message")
        return client

    async def resume(self, old: SignalClient, *, v1: bool = False, sid: str | None = None, **more: Any) -> SignalClient:
        """A new signal connection for the session of `old`; it takes over the media."""
        sid = old.sid if sid is None else sid
        fields: dict[str, Any] = {"reconnect": True, "participant_sid": sid} if v1 else {"reconnect": 1, "sid": sid}
        client = await self.join(old.identity, v1=v1, **fields, **more)
        client.media, old.media = old.media, None
        if client.media is not None:
            client.media.client = client
        return client

    async def close(self) -> None:
        for client in self.clients:
            await client.close()
        async with self.server.admin() as rooms:
            try:
                await rooms.delete_room(api.DeleteRoomRequest(room=self.room))
            except api.TwirpError:
                pass  # It is gone already.


@asynccontextmanager
async def scene(server: Server, room: str) -> AsyncIterator[Scene]:
    stage = Scene(server, room)
    try:
        yield stage
    finally:
        await stage.close()
