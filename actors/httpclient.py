"""HTTP/1.1 requests of our own, small on purpose: h11 over Trio sockets and TLS.

Certificates are verified, redirects are not followed, answers are bounded. A connection is kept for the next request to
the same server; if it turns out to be dead before a byte of the answer came, the request goes out again on a new one.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import h11
import trio

CONNECT_TIMEOUT = 5.0
MAX_IDLE = 8
"""Connections kept for later."""
IDLE_LIMIT = 30.0
"""Seconds; many servers close after 60 or more."""
READ = 16384
MAX_HEAD = 64 * 1024
PORTS = {"http": 80, "https": 443}


class HttpError(Exception):
    """No answer: not reached, closed, or not HTTP. Says what, never which headers were sent."""


class Dead(HttpError):
    """The connection ended before the answer began."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    status: int
    headers: Mapping[str, str]
    """Names in lower case; of repeated ones the last."""
    body: bytes


@dataclass(slots=True)
class Connection:
    stream: trio.abc.Stream
    state: h11.Connection
    used_at: float
    fresh: bool = True


class Answer:
    """A response whose body is still to come."""

    def __init__(self, head: h11.Response, connection: Connection) -> None:
        self.status = head.status_code
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        self._connection = connection

    async def read(self) -> bytes:
        """The next piece; b"" at the end. Raises HttpError."""
        connection = self._connection
        with _errors():
            while True:
                event = connection.state.next_event()
                if isinstance(event, h11.Data):
                    return bytes(event.data)
                if event is not h11.NEED_DATA:
                    return b""
                connection.state.receive_data(bytes(await connection.stream.receive_some(READ)))


class HttpClient:
    """Requests to one server. `base` is http://host[:port]; raises ValueError for anything else.

    Credentials in it are not used. `tls` is for tests and private authorities; by default the system's are trusted.
    """

    def __init__(self, base: str, *, tls: ssl.SSLContext | None = None, user_agent: str = "lkactor") -> None:
        parts = _split(base)
        self._host = parts.hostname or ""
        self._port = parts.port or PORTS[parts.scheme]
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self._authority = shown if self._port == PORTS[parts.scheme] else f"{shown}:{self._port}"
        self._user_agent = user_agent
        self._idle: list[Connection] = []
        self._closed = False

    async def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"", *, max_body: int = 64 * 1024
    ) -> HttpResponse:
        """Raises HttpError. Time limits are the caller's. A longer answer than `max_body` is cut."""
        async with self.stream(method, target, headers, body) as answer:
            parts, size = [], 0
            while size < max_body:
                chunk = await answer.read()
                if not chunk:
                    break
                parts.append(chunk[: max_body - size])
                size += len(chunk)
            return HttpResponse(answer.status, answer.headers, b"".join(parts))

    @contextlib.asynccontextmanager
    async def stream(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b""
    ) -> AsyncIterator[Answer]:
        """The answer's head, and its body as it comes. Raises HttpError."""
        connection, head = await self._exchange(method, target, headers, body)
        kept = False
        try:
            yield Answer(head, connection)
            state = connection.state
            done = state.our_state is h11.DONE and state.their_state is h11.DONE
            if done and len(self._idle) < MAX_IDLE and not self._closed:
                state.start_next_cycle()
                connection.used_at, connection.fresh = trio.current_time(), False
                self._idle.append(connection)
                kept = True
        finally:
            if not kept:
                await trio.aclose_forcefully(connection.stream)

    async def aclose(self) -> None:
        """Close what is kept, at once, also in a cancelled scope. Nothing is kept any more."""
        self._closed = True
        with trio.CancelScope(shield=True):
            while self._idle:
                await trio.aclose_forcefully(self._idle.pop().stream)

    # -- one exchange -----------------------------------------------------------------------------------------------

    async def _exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[Connection, h11.Response]:
        while True:
            connection = await self._kept() or await self._connect()
            try:
                with _errors():
                    await self._send(connection, method, target, headers, body)
                    return connection, await self._head(connection)
            except Dead:
                await trio.aclose_forcefully(connection.stream)
                if connection.fresh:
                    raise
            except BaseException:
                await trio.aclose_forcefully(connection.stream)
                raise

    async def _kept(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if trio.current_time() - connection.used_at < IDLE_LIMIT:
                return connection
            await trio.aclose_forcefully(connection.stream)
        return None

    async def _connect(self) -> Connection:
        with _errors():
            try:
                with trio.fail_after(CONNECT_TIMEOUT):
                    stream: trio.abc.Stream = await trio.open_tcp_stream(self._host, self._port)
                    if self._tls is not None:
                        stream = await self._handshake(stream, self._tls)
            except trio.TooSlowError:
                raise HttpError("no connection within 5 s") from None
        state = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        return Connection(stream, state, trio.current_time())

    async def _handshake(self, stream: trio.abc.Stream, tls: ssl.SSLContext) -> trio.abc.Stream:
        secure = trio.SSLStream(stream, tls, server_hostname=self._host, https_compatible=True)
        try:
            await secure.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(secure)
            raise
        return secure

    async def _send(
        self, connection: Connection, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> None:
        fields = {"Host": self._authority, "User-Agent": self._user_agent, **headers}
        if body or method not in ("GET", "HEAD"):
            fields["Content-Length"] = str(len(body))
        request = h11.Request(method=method, target=target, headers=list(fields.items()))
        data = connection.state.send(request) or b""
        if body:
            data += connection.state.send(h11.Data(data=body)) or b""
        data += connection.state.send(h11.EndOfMessage()) or b""
        try:
            await connection.stream.send_all(data)
        except trio.BrokenResourceError:
            # It may have answered before it closed.
            pass

    async def _head(self, connection: Connection) -> h11.Response:
        begun = False
        while True:
            event = connection.state.next_event()
            if isinstance(event, h11.Response):
                return event
            if event is h11.NEED_DATA:
                try:
                    data = await connection.stream.receive_some(READ)
                except trio.BrokenResourceError:
                    raise Dead("the connection broke") from None
                if not data and not begun:
                    raise Dead("the connection was closed without an answer")
                begun = True
                connection.state.receive_data(bytes(data))


def _split(url: str) -> SplitResult:
    """Raises ValueError."""
    if not all("!" <= character <= "~" for character in url):
        raise ValueError("no address: only ASCII without spaces, anything else is written %C3%A4")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("no address: its host or port is malformed") from None
    if parts.scheme not in PORTS or not parts.hostname:
        raise ValueError("not an http:// or https:// address")
    return parts


def target_of(url: str) -> str:
    """The request target of an absolute URL: path and query."""
    parts = _split(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def shown_url(url: str) -> str:
    """For logs: without credentials and query, which may hold secrets."""
    parts = _split(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except HttpError:
        raise
    except trio.BrokenResourceError as error:
        cause = error.__cause__
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise HttpError(f"certificate: {cause.verify_message}") from None
        raise HttpError(f"the connection broke{f': {cause}' if cause else ''}") from None
    except (OSError, h11.RemoteProtocolError) as error:
        raise HttpError(str(error) or type(error).__name__) from None
