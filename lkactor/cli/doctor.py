"""`lkactor doctor`: joins a room of its own, tries every path that the server announces, names the broken hop.

| hop                          | asked                                                      | exit status when broken |
|------------------------------|------------------------------------------------------------|-------------------------|
| http                         | does LiveKit answer at this address, with or without TLS   | 3                       |
| clock                        | the Date of its answer                                     | 1                       |
| keys                         | is our token accepted                                      | 4                       |
| room                         | may it be joined                                           | 5                       |
| websocket                    | upgrade, join, offer                                       | 1                       |
| udp media, tcp media, media  | a binding request to each candidate                        | 1                       |
| turn, turn tls               | allocation, permission, a packet through to the media port | 1                       |

0: all is well. 2: wrong use. What hangs on a broken hop is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import email.utils
import json
import secrets
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from livekit.protocol import rtc

from lkactor.auth import issue_token
from lkactor.cli.common import (
    FAILED,
    NOT_FOUND,
    NOT_PERMITTED,
    TOKEN,
    UNREACHABLE,
    Server,
    add_command,
    print_json,
    server_of,
    server_options,
    table,
)  # fmt: skip
from lkactor.cli.doctor_media import TIMEOUT, Check, media_checks, read_offer
from lkactor.cli.doctor_turn import certificate_fix, turn_checks
from lkactor.remedies import remedy

__all__ = ["Check", "Report", "examine"]

MAX_SKEW = 60.0
WAY_FIXES = {
    "udp": "open the server's UDP media ports, and announce an address that is reached from here",
    "tcp": "set rtc.tcp_port and open it, for networks without UDP",
    "relay": "the TURN server must be reached from here, and reach the server's media ports",
}
PING_INTERVAL = 5.0
STATUS = {"http": UNREACHABLE, "keys": NOT_PERMITTED, "room": NOT_FOUND}


@dataclass(slots=True)
class Report:
    """`announced` and `dropped` are the server's own account of its addresses; empty if it gives none."""

    url: str
    checks: list[Check] = field(default_factory=list)
    announced: list[dict[str, str]] = field(default_factory=list)
    dropped: list[dict[str, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    @property
    def status(self) -> int:
        """Exit status: the first broken hop's."""
        broken = [STATUS.get(check.hop, FAILED) for check in self.checks if not check.ok]
        return next((status for status in broken if status != FAILED), FAILED if broken else 0)


def add_parser(commands: Any) -> None:
    parser = add_command(
        commands, "doctor", _run, "try every path to a server and name the broken one", example="lkactor doctor --dev"
    )
    parser.add_argument("--room", help="join this room instead of a new one (it needs room.auto_create or the room)")
    parser.add_argument("--ca", metavar="FILE", help="trust this authority, too")
    server_options(parser)


def _run(arguments: argparse.Namespace) -> int:
    report = examine(server_of(arguments), room=arguments.room or "", ca=arguments.ca)
    if arguments.json:
        print_json({"ok": report.ok, **asdict(report)})
        return report.status
    for entry in report.announced:
        print(f"announced  {entry['ip']} ({entry['why']})")
    for entry in report.dropped:
        print(f"not told   {entry['ip']}{' of ' + entry['interface'] if entry['interface'] else ''} ({entry['why']})")
    print(table(("", "HOP", "RESULT"), (("ok" if c.ok else "BAD", c.hop, c.detail) for c in report.checks)))
    for check in report.checks:
        if not check.ok:
            print(f"\n{check.hop}: {check.fix}")
    return report.status


def examine(server: Server, *, room: str = "", ca: str | None = None, unix: Callable[[], float] = time.time) -> Report:
    """All checks that make sense. `unix` is this machine's clock."""
    import trio

    http = server.url.replace("ws", "http", 1) if server.url.startswith("ws") else server.url
    report = Report(http)
    trio.run(_Visit(server, http, room or f"doctor-{secrets.token_hex(4)}", ca, unix, report).run)
    return report


class _Visit:
    """HTTP, keys, clock and the session; `report` is filled as it goes."""

    def __init__(
        self, server: Server, http: str, room: str, ca: str | None, unix: Callable[[], float], report: Report
    ) -> None:
        self._server = server
        self._http = http
        self._unix = unix
        self._report = report
        self._servers: tuple[rtc.ICEServer, ...] = ()
        self._trickling = False
        self._room = room
        self._ca = ca
        self._tls: ssl.SSLContext | None = None
        if http.startswith("https"):
            self._tls = ssl.create_default_context()
            if ca:
                self._tls.load_verify_locations(ca)

    def _bad(self, hop: str, detail: str, fix: str) -> None:
        self._report.checks.append(Check(hop, False, detail, fix))

    def _good(self, hop: str, detail: str) -> None:
        self._report.checks.append(Check(hop, True, detail))

    def _token(self, **video: object) -> str:
        identity = f"doctor-{secrets.token_hex(4)}"
        server = self._server
        return issue_token(server.key, server.secret, identity=identity, video=video, ttl=300.0, now_unix=self._unix())

    async def run(self) -> None:
        token = self._token(room=self._room, room_join=True, hidden=True)
        if await self._may_join(token):
            await self._ask_addresses()
            await self._session(token)

    async def _get(self, path: str, token: str) -> Any:
        """Raises HttpError, trio.TooSlowError."""
        import trio

        from actors.httpclient import HttpClient

        client = HttpClient(self._http, tls=self._tls)
        try:
            with trio.fail_after(TIMEOUT * 2):
                return await client.request("GET", path, {"Authorization": f"Bearer {token}"})
        finally:
            await client.aclose()

    async def _may_join(self, token: str) -> bool:
        import trio

        from actors.httpclient import HttpError

        try:
            answer = await self._get("/rtc/validate", token)
        except (HttpError, trio.TooSlowError) as error:
            detail, fix = await trio.to_thread.run_sync(_why_no_http, self._http, self._ca)
            self._bad("http", f"{self._http}: {detail or error or 'no answer'}", fix)
            return False
        text = TOKEN.sub("<token>", answer.body.decode("utf-8", "replace")).strip()
        missing = answer.status == 404 and "room" in text
        if answer.status not in (200, 401, 403, 503) and not missing:
            fix = "another service has this port: correct --url (LIVEKIT_URL), or move one of them"
            self._bad("http", f"{self._http} answers {answer.status}: no LiveKit server", fix)
            return False
        self._good("http", f"{self._http} answers")
        self._clock(next((value for name, value in answer.headers.items() if name.lower() == "date"), ""))
        if answer.status in (401, 403):
            self._bad("keys", f"{answer.status} {text}", f"key {self._server.key!r}: {remedy('token', text)}")
            return False
        self._good("keys", f"key {self._server.key!r} is accepted")
        if answer.status != 200:
            self._bad("room", f"{answer.status} {text}", remedy("signal", text))
            return False
        return True

    def _clock(self, date: str) -> None:
        try:
            skew = email.utils.parsedate_to_datetime(date).timestamp() - self._unix()
        except (TypeError, ValueError):
            self._good("clock", "the server does not say its time")
            return
        if abs(skew) <= MAX_SKEW:
            self._good("clock", f"{abs(skew):.0f} s apart")
            return
        where = "ahead of" if skew > 0 else "behind"
        fix = "run NTP on both machines: tokens and TURN credentials are only good for a time"
        self._bad("clock", f"the server is {abs(skew):.0f} s {where} this machine", fix)

    async def _ask_addresses(self) -> None:
        """lkactor says why it announces what; other servers do not."""
        import trio

        from actors.httpclient import HttpError

        with contextlib.suppress(HttpError, trio.TooSlowError, ValueError, KeyError, TypeError):
            answer = await self._get("/debug/addresses", self._token(room_list=True))
            if answer.status == 200:
                said = json.loads(answer.body)
                self._report.announced = [_texts(entry, "ip", "why") for entry in said["announced"]]
                self._report.dropped = [_texts(entry, "interface", "ip", "why") for entry in said["dropped"]]

    async def _session(self, token: str) -> None:
        import trio
        import trio_websocket

        from lkactor.client.signal import leaf

        ws = (
            self._http.replace("http", "ws", 1)
            + f"/rtc?access_token={quote(token)}&protocol=15&sdk=go&auto_subscribe=0"
        )
        try:
            async with trio.open_nursery() as nursery:
                with trio.fail_after(TIMEOUT):
                    socket_ = await trio_websocket.connect_websocket_url(nursery, ws, ssl_context=self._tls)
                await self._joined(socket_)
                # Not asked to close: some servers hang up first, or send pings meanwhile, and trio-websocket fails.
                await trio.aclose_forcefully(socket_._stream)
                nursery.cancel_scope.cancel()
        except BaseException as error:
            cause = leaf(error)
            known = (trio.TooSlowError, OSError, trio_websocket.HandshakeError, trio_websocket.ConnectionClosed)
            if not isinstance(cause, known):
                raise
            fix = "a proxy in front has to pass the Upgrade header on, and must not cut idle connections"
            self._bad("websocket", type(cause).__name__, fix)
            return
        if self._trickling:
            await self._connect_each_way(token)

    async def _connect_each_way(self, token: str) -> None:
        """A server that names its addresses only to who answers: connect as a client does, one way after the other."""
        import trio

        from lkactor.client.paths import Way, turn_servers
        from lkactor.client.session import open_session
        from lkactor.client.signal import SignalError, leaf

        ways: list[Way] = ["udp", "tcp", *(["relay"] if turn_servers(self._servers, "relay") else [])]  # type: ignore[list-item]
        for way in ways:
            try:
                async with open_session(self._http, token, auto_subscribe=False, way=way, reconnect=False) as session:
                    transport = session.subscriber.transport
                    with trio.move_on_after(TIMEOUT * 2):
                        await transport.connected.wait()
                    ok = transport.connected.is_set()
                    said = (
                        f"connected over {transport.path}" if ok else f"no connection: {transport.describe_failure()}"
                    )
                    self._report.checks.append(Check(f"{way} media", ok, said, "" if ok else WAY_FIXES[way]))
            except BaseExceptionGroup as error:
                cause = leaf(error)
                if not isinstance(cause, SignalError):
                    raise
                self._bad(f"{way} media", str(cause), "join again: the session was ended before media could connect")

    async def _joined(self, socket_: Any) -> None:
        """The ICE ports only answer for a session that there is: everything else is asked while this one lasts."""
        import trio

        with trio.fail_after(TIMEOUT * 2):
            servers, sdp = await _first_messages(socket_)
        self._good("websocket", "upgraded, joined, offered")
        self._servers, self._trickling = servers, "a=candidate:" not in sdp
        if self._trickling:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep_alive, socket_)
            await trio.to_thread.run_sync(self._paths, servers, sdp)
            nursery.cancel_scope.cancel()
        leave = rtc.SignalRequest(leave=rtc.LeaveRequest())
        await socket_.send_message(leave.SerializeToString())

    def _paths(self, servers: tuple[rtc.ICEServer, ...], sdp: str) -> None:
        offer = read_offer(sdp)
        why = {entry["ip"]: entry["why"] for entry in self._report.announced}
        checks, answering = media_checks(offer, urlsplit(self._http).hostname or "", why)
        self._report.checks += checks + turn_checks(servers, offer, answering, self._ca)


def _texts(entry: Any, *names: str) -> dict[str, str]:
    return {name: str(entry[name]) for name in names}


async def _first_messages(socket_: Any) -> tuple[tuple[rtc.ICEServer, ...], str]:
    """Until the server's offer: that is where its addresses are."""
    servers: tuple[rtc.ICEServer, ...] = ()
    while True:
        data = await socket_.get_message()
        response = rtc.SignalResponse()
        response.ParseFromString(data)
        kind = response.WhichOneof("message")
        if kind == "join":
            servers = tuple(response.join.ice_servers)
        elif kind == "offer":
            return servers, response.offer.sdp


async def _keep_alive(socket_: Any) -> None:
    """The server ends sessions that are silent; waiting for ports that do not answer takes a while."""
    import trio

    while True:
        await trio.sleep(PING_INTERVAL)
        await socket_.send_message(rtc.SignalRequest(ping_req=rtc.Ping()).SerializeToString())


# -- why there is no HTTP


def _why_no_http(url: str, ca: str | None) -> tuple[str, str]:
    """What stands in the way, and the fix; "" when it cannot be seen."""
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    try:
        socket.getaddrinfo(host, port)
    except OSError:
        return f"the name {host} is not known", "correct --url (LIVEKIT_URL), or the DNS entry"
    try:
        with socket.create_connection((host, port), timeout=TIMEOUT):
            pass
    except ConnectionRefusedError:
        return f"nothing listens on port {port}", "start the server, or correct the port of --url (LIVEKIT_URL)"
    except OSError as error:
        return f"no connection: {error}", f"open TCP port {port} in the firewalls between, or correct --url"
    if secure:
        problem = _tls_problem(host, port, ca)
        if isinstance(problem, ssl.SSLCertVerificationError):
            return problem.verify_message, certificate_fix(problem, host, "the server's certificate")
        if problem is not None and _speaks_http(host, port):
            fix = (
                f"use ws://{host}:{port}, or put a proxy with a certificate in front: lkactor itself serves plain HTTP"
            )
            return "it speaks plain HTTP, not TLS", fix
    else:
        problem = _tls_problem(host, port, None)
        if problem is None or isinstance(problem, ssl.SSLCertVerificationError):
            return "it speaks TLS", f"use wss://{host}:{port}"
    return "it does not speak HTTP", "another service has this port: correct --url (LIVEKIT_URL), or move one of them"


def _tls_problem(host: str, port: int, ca: str | None) -> OSError | None:
    """What a TLS handshake ends with; None is well. ssl.SSLError is an OSError."""
    context = ssl.create_default_context()
    if ca:
        context.load_verify_locations(ca)
    try:
        with (
            socket.create_connection((host, port), timeout=TIMEOUT) as raw,
            context.wrap_socket(raw, server_hostname=host),
        ):
            return None
    except OSError as error:
        return error


def _speaks_http(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=TIMEOUT) as sock:
            sock.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return sock.recv(5).startswith(b"HTTP")
    except OSError:
        return False
