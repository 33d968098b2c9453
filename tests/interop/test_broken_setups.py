"""Broken set-ups, one row each: `lkactor doctor`, the join verdict or the start names the cause and the fix.

`docs/troubleshooting.md` lists them with what the user sees; a row that is missing there fails.
"""

import asyncio
import contextlib
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from aiortc import MediaStreamTrack
from livekit import rtc
from livekit.protocol import rtc as signal
from support.aiortc_client import AiortcClient, Tone, aiortc_client
from support.certificates import certificate, free_port
from support.interop import LIMIT, MARKS, raw_token, run

from lkactor.cli.common import FAILED, NOT_FOUND, NOT_PERMITTED, UNREACHABLE, Server
from lkactor.cli.doctor import examine
from lkactor.testing import LkServer

pytestmark = MARKS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()
ROWS = set(re.findall(r"^\| `([a-z-]+)`", DOCUMENT, re.MULTILINE))


@dataclass(frozen=True, slots=True)
class Visit:
    """What doctor is told. `skew` is how far this machine's clock is off."""

    url: str
    key: str
    secret: str
    skew: float = 0.0
    ca: str | None = None


def visit_to(server: LkServer, **more: Any) -> Visit:
    return Visit(**{"url": server.url, "key": server.api_key, "secret": server.api_secret, **more})


# -- what is broken


@contextmanager
def another_secret(_: Path) -> Iterator[Visit]:
    with LkServer() as server:
        yield visit_to(server, secret="another-secret-of-32-bytes-or-more!")


@contextmanager
def another_key(_: Path) -> Iterator[Visit]:
    with LkServer() as server:
        yield visit_to(server, key="APIother")


@contextmanager
def clock_behind(_: Path) -> Iterator[Visit]:
    with LkServer() as server:
        yield visit_to(server, skew=-600.0)


@contextmanager
def clock_ahead(_: Path) -> Iterator[Visit]:
    with LkServer() as server:
        yield visit_to(server, skew=600.0)


@contextmanager
def no_such_room(_: Path) -> Iterator[Visit]:
    with LkServer("room: {auto_create: false}") as server:
        yield visit_to(server)


@contextmanager
def draining(_: Path) -> Iterator[Visit]:
    with LkServer() as server:
        admin = {"Authorization": f"Bearer {server.token(room_create=True)}"}
        assert httpx.post(f"{server.http_url}/admin/drain", headers=admin, timeout=LIMIT).status_code == 200
        yield visit_to(server)


@contextmanager
def no_server(_: Path) -> Iterator[Visit]:
    yield Visit(f"ws://127.0.0.1:{free_port()}", "k", "s" * 32)


@contextmanager
def a_tls_url_to_a_plain_server(_: Path) -> Iterator[Visit]:
    with LkServer() as server:
        yield visit_to(server, url=server.url.replace("ws", "wss", 1))


@contextmanager
def _answering(reply: Callable[[socket.socket], None]) -> Iterator[int]:
    """A TCP service that is no LiveKit server."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                stream, _ = listener.accept()
            except OSError:
                return
            with stream, contextlib.suppress(OSError):
                stream.settimeout(LIMIT)
                reply(stream)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(LIMIT)


def _tls(directory: Path, name: str) -> Callable[[socket.socket], None]:
    cert, key = certificate(directory, name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    def reply(stream: socket.socket) -> None:
        with context.wrap_socket(stream, server_side=True) as secure:
            secure.recv(4096)

    return reply


@contextmanager
def a_plain_url_to_a_tls_server(directory: Path) -> Iterator[Visit]:
    with _answering(_tls(directory, "localhost")) as port:
        yield Visit(f"ws://localhost:{port}", "k", "s" * 32)


@contextmanager
def a_certificate_for_another_name(directory: Path) -> Iterator[Visit]:
    with _answering(_tls(directory, "other.example")) as port:
        yield Visit(f"wss://localhost:{port}", "k", "s" * 32, ca=str(directory / "cert.pem"))


@contextmanager
def a_certificate_of_nobody(directory: Path) -> Iterator[Visit]:
    with _answering(_tls(directory, "localhost")) as port:
        yield Visit(f"wss://localhost:{port}", "k", "s" * 32)


@contextmanager
def another_web_server(_: Path) -> Iterator[Visit]:
    def reply(stream: socket.socket) -> None:
        stream.recv(4096)
        stream.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnope")

    with _answering(reply) as port:
        yield Visit(f"ws://127.0.0.1:{port}", "k", "s" * 32)


@contextmanager
def another_service(_: Path) -> Iterator[Visit]:
    def reply(stream: socket.socket) -> None:
        stream.sendall(b"220 mail.example ESMTP\r\n")
        stream.recv(4096)

    with _answering(reply) as port:
        yield Visit(f"ws://127.0.0.1:{port}", "k", "s" * 32)


@contextmanager
def udp_blocked(_: Path) -> Iterator[Visit]:
    with LkServer() as server:
        server.block(udp=True)
        yield visit_to(server)


@contextmanager
def wrong_node_ip(_: Path) -> Iterator[Visit]:
    with LkServer("rtc: {node_ip: 127.77.0.1, udp_port: 0, tcp_port: 0}") as server:
        yield visit_to(server)


def _with_turn(directory: Path, *, name: str = "localhost", **turn: Any) -> AbstractContextManager[LkServer]:
    cert, key = certificate(directory, name)
    settings = {
        "enabled": True, "bind_addresses": ["127.0.0.1"], "tls_port": free_port(), "domain": "localhost",
        "cert_file": str(cert), "key_file": str(key), "allow_restricted_peer_cidrs": ["127.0.0.0/8"],
        "relay_range_start": 20000, "relay_range_end": 30000, **turn,
    }  # fmt: skip
    return LkServer(json.dumps({"turn": settings}))


@contextmanager
def turn_certificate_for_another_name(directory: Path) -> Iterator[Visit]:
    with _with_turn(directory, name="other.example") as server:
        yield visit_to(server, ca=str(directory / "cert.pem"))


@contextmanager
def turn_certificate_of_nobody(directory: Path) -> Iterator[Visit]:
    with _with_turn(directory) as server:
        yield visit_to(server)


@contextmanager
def turn_behind_no_balancer(directory: Path) -> Iterator[Visit]:
    """`external_tls` announces port 443 of the domain, where nobody is."""
    with _with_turn(directory, external_tls=True) as server:
        yield visit_to(server)


@contextmanager
def turn_may_not_relay_here(directory: Path) -> Iterator[Visit]:
    udp = free_port(socket.SOCK_DGRAM)
    with _with_turn(directory, tls_port=0, udp_port=udp, allow_restricted_peer_cidrs=[]) as server:
        yield visit_to(server)


@contextmanager
def turn_without_relay_ports(directory: Path) -> Iterator[Visit]:
    udp = free_port(socket.SOCK_DGRAM)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        ports = {"relay_range_start": port, "relay_range_end": port}
        with _with_turn(directory, tls_port=0, udp_port=udp, **ports) as server:
            yield visit_to(server)


ALSO = {"clock-off": ("clock", "keys"), "wrong-node-ip": ("udp media", "tcp media")}
"""Hops that are broken by the same."""
Broken = Callable[[Path], AbstractContextManager[Visit]]


@pytest.mark.parametrize(
    ("row", "broken", "hop", "cause", "fix", "status"),
    [
        ("wrong-secret", another_secret, "keys", "signature is invalid", "correct it where tokens", NOT_PERMITTED),
        ("unknown-key", another_key, "keys", "invalid API key", "does not have this key", NOT_PERMITTED),
        ("clock-off", clock_behind, "clock", "s ahead of this machine", "NTP", NOT_PERMITTED),
        ("clock-off", clock_behind, "keys", "expired", "NTP", NOT_PERMITTED),
        ("clock-off", clock_ahead, "clock", "s behind this machine", "NTP", NOT_PERMITTED),
        ("clock-off", clock_ahead, "keys", "not valid yet", "NTP", NOT_PERMITTED),
        ("room-missing", no_such_room, "room", "requested room does not exist", "room.auto_create", NOT_FOUND),
        ("server-draining", draining, "room", "draining", "lkactor undrain", NOT_FOUND),
        ("server-down", no_server, "http", "nothing listens", "start the server", UNREACHABLE),
        ("tls-url-plain-server", a_tls_url_to_a_plain_server, "http", "plain HTTP", "use ws://", UNREACHABLE),
        ("plain-url-tls-server", a_plain_url_to_a_tls_server, "http", "speaks TLS", "use wss://", UNREACHABLE),
        ("certificate", a_certificate_for_another_name, "http", "ostname mismatch", "another name", UNREACHABLE),
        ("certificate", a_certificate_of_nobody, "http", "self-signed", "an authority that clients trust", UNREACHABLE),
        ("other-service", another_web_server, "http", "no LiveKit server", "another service", UNREACHABLE),
        ("other-service", another_service, "http", "does not speak HTTP", "another service", UNREACHABLE),
        ("udp-blocked", udp_blocked, "udp media", "does not answer", "open UDP port", FAILED),
        ("wrong-node-ip", wrong_node_ip, "udp media", "127.77.0.1", "set rtc.node_ip: 127.0.0.1", FAILED),
        ("wrong-node-ip", wrong_node_ip, "tcp media", "127.77.0.1", "set rtc.node_ip: 127.0.0.1", FAILED),
        ("turn-certificate", turn_certificate_for_another_name, "turn tls", "ostname mis", "for localhost", FAILED),
        ("turn-certificate", turn_certificate_of_nobody, "turn tls", "self-signed", "turn.cert_file", FAILED),
        ("turn-closed", turn_behind_no_balancer, "turn tls", "connection refused", "pass 443 on", FAILED),
        ("turn-private", turn_may_not_relay_here, "turn", "may not relay", "allow_restricted_peer_cidrs", FAILED),
        ("turn-ports", turn_without_relay_ports, "turn", "refused with 508", "widen turn.relay_range_start", FAILED),
    ],
)  # fmt: skip
def test_doctor_names_the_hop(
    tmp_path: Path, row: str, broken: Broken, hop: str, cause: str, fix: str, status: int
) -> None:
    assert row in ROWS
    with broken(tmp_path) as visit:
        server = Server(visit.url, visit.key, visit.secret)
        report = examine(server, ca=visit.ca, unix=lambda: time.time() + visit.skew)
    bad = [check for check in report.checks if not check.ok]
    assert any(check.hop == hop and cause in check.detail and fix in check.fix for check in bad), bad
    assert report.status == status
    # What is not broken is not blamed.
    assert {check.hop for check in bad} <= {hop, *ALSO.get(row, ())}


def test_what_is_well_is_called_well(tmp_path: Path) -> None:
    udp = free_port(socket.SOCK_DGRAM)
    with _with_turn(tmp_path, udp_port=udp) as server:
        report = examine(Server(server.url, server.api_key, server.api_secret), ca=str(tmp_path / "cert.pem"))
    assert report.ok and report.status == 0, report.checks
    assert {"udp media", "tcp media", "turn", "turn tls"} <= {check.hop for check in report.checks}
    assert all("reaches the media port 127.0.0.1" in c.detail for c in report.checks if c.hop.startswith("turn"))
    assert report.announced == [{"ip": "127.0.0.1", "why": "the server is bound to loopback"}]
    assert any("bound to loopback" in check.detail for check in report.checks if check.hop == "udp media")


def test_doctor_as_a_command(lk_server: LkServer) -> None:
    def doctor(*arguments: str, secret: str = lk_server.api_secret) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lkactor", "doctor", "--url", lk_server.url, "--api-key", lk_server.api_key]
        return subprocess.run(
            [*command, "--api-secret", secret, *arguments], capture_output=True, text=True, timeout=60, check=False
        )

    well = doctor()
    assert well.returncode == 0, well.stdout
    assert "announced  127.0.0.1 (the server is bound to loopback)" in well.stdout
    said = json.loads(doctor("--json").stdout)
    assert said["ok"] is True and said["checks"][0] == {
        "hop": "http", "ok": True, "detail": f"{lk_server.http_url} answers", "fix": "",
    }  # fmt: skip
    assert said["announced"] and isinstance(said["dropped"], list)
    refused = doctor(secret="another-secret-of-32-bytes-or-more!")
    assert refused.returncode == NOT_PERMITTED and "\nkeys: key 'devkey': the secret that signed" in refused.stdout
    assert json.loads(doctor("--json", secret="another-secret-of-32-bytes-or-more!").stdout)["ok"] is False


# -- the join verdict


def verdict_of(server: LkServer, identity: str) -> dict[str, Any]:
    """The newest one, over HTTP as operators get it."""
    headers = {"Authorization": f"Bearer {server.token(room_list=True)}"}
    url = f"{server.http_url}/debug/joins?identity={identity}"
    joins: list[dict[str, Any]] = httpx.get(url, headers=headers, timeout=LIMIT).json()["joins"]
    return joins[-1]


GRANT = {"roomJoin": True, "room": "r"}


@pytest.mark.parametrize(
    ("row", "claims", "config", "cause", "fix"),
    [
        ("token-expired", {"video": GRANT, "nbf": -7200, "exp": -3650}, "", "is expired (36", "make a new token"),
        ("clock-off", {"video": GRANT, "nbf": 690, "exp": 1200}, "", "valid yet (for another 6", "run NTP"),
        ("no-room-join", {"video": {"room": "r"}}, "", "permission", "video.roomJoin"),
        ("no-room-join", {"video": {"roomJoin": True, "room": "other"}}, "", "", ""),
        ("unknown-key", {"video": GRANT, "iss": "APIother"}, "", "invalid API key: APIother", "does not have this key"),
        ("wrong-secret", {"video": GRANT, "secret": "x" * 32}, "", "signature is invalid", "correct it where tokens"),
        ("room-missing", {"video": GRANT}, "room: {auto_create: false}", "room does not exist", "lkactor room create"),
    ],
)  # fmt: skip
def test_the_verdict_of_a_refused_join(row: str, claims: dict[str, Any], config: str, cause: str, fix: str) -> None:
    assert row in ROWS
    claims = {name: int(time.time()) + value if name in ("nbf", "exp") else value for name, value in claims.items()}
    secret = claims.pop("secret", None)

    async def attempt(server: LkServer) -> None:
        token = raw_token(server, sub="ann", secret=secret, **claims)
        room = rtc.Room()
        if not cause:  # another room than the user meant: the token decides, so this is a join
            await asyncio.wait_for(room.connect(server.url, token), LIMIT)
            assert room.name == "other"
            await room.disconnect()
            return
        with pytest.raises(rtc.ConnectError):
            await asyncio.wait_for(room.connect(server.url, token), LIMIT)
        verdict = await asyncio.to_thread(verdict_of, server, "ann")
        assert verdict["outcome"] == "failed"
        assert cause in verdict["cause"] and fix in verdict["fix"], verdict

    with LkServer(config) as server:
        run(lambda: attempt(server))


async def ended(server: LkServer, identity: str, outcome: str, *, cause: bool = False) -> dict[str, Any]:
    """Its verdict once it has that outcome, and a cause if it must have one."""
    async with asyncio.timeout(60):
        while True:
            verdict = await asyncio.to_thread(verdict_of, server, identity)
            if verdict["outcome"] == outcome and (verdict["cause"] or not cause):
                return verdict
            await asyncio.sleep(0.1)


def test_media_ports_closed_for_udp_and_tcp() -> None:
    """Its user gives up. The verdict of one who waits for half a minute is in test_verdict.py."""
    assert "all-media-blocked" in ROWS

    async def test(server: LkServer) -> None:
        server.block(udp=True, tcp=True)
        async with aiortc_client(server, "r", "ann") as client:
            await client.publish(Tone())
        verdict = await ended(server, "ann", "left early")
        assert verdict["cause"].endswith("while ice was awaited") and "open the media ports" in verdict["fix"]
        said = await asyncio.to_thread(explained, server, "ann")
        assert "while ice was awaited" in said and "open the media ports" in said

    with LkServer() as server:
        run(lambda: test(server))


def explained(server: LkServer, identity: str) -> str:
    command = [sys.executable, "-m", "lkactor", "explain", "join", identity, "--url", server.url]
    command += ["--api-key", server.api_key, "--api-secret", server.api_secret]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


async def spoilt(send: Callable[..., Awaitable[None]], **request: Any) -> None:
    """Descriptions go out with another certificate's fingerprint."""
    description = request.get("offer") or request.get("answer")
    if description is not None:
        description.sdp = re.sub(
            r"(a=fingerprint:\S+ )(.)", lambda m: m[1] + ("1" if m[2] == "0" else "0"), description.sdp
        )
    await send(**request)


def test_a_fingerprint_that_is_not_the_certificates() -> None:
    assert "dtls-fingerprint" in ROWS

    async def test(server: LkServer) -> None:
        with contextlib.suppress(aiohttp.ClientConnectionResetError):  # the server may be the first to leave
            async with aiortc_client(server, "r", "ann") as client:
                client.send = partial(spoilt, client.send)  # type: ignore[method-assign]
                await client.publish(Tone())
                verdict = await ended(server, "ann", "failed")
            assert verdict["cause"].startswith("dtls: ") and "fingerprint" in verdict["cause"], verdict
            assert "certificate is not the one" in verdict["fix"]

    with LkServer() as server:
        run(lambda: test(server))


class Silence(MediaStreamTrack):
    """A source from which nothing ever comes."""

    kind = "audio"

    async def recv(self) -> Any:
        await asyncio.Event().wait()


def test_a_client_that_never_sends_media() -> None:
    assert "no-media" in ROWS

    async def test(server: LkServer) -> None:
        async with aiortc_client(server, "r", "ann") as client:
            await client.publish(Silence())
            verdict = await ended(server, "ann", "joined")
            assert verdict["steps"][-1]["status"] == "pending" and "no packet of it" in verdict["steps"][-1]["detail"]
        verdict = await ended(server, "ann", "joined", cause=True)
        assert verdict["cause"].startswith("media: TR_")
        assert "sends nothing" in verdict["fix"]

    with LkServer() as server:
        run(lambda: test(server))


def test_a_client_that_never_describes_itself() -> None:
    assert "no-offer" in ROWS

    async def test(server: LkServer) -> None:
        client = AiortcClient()

        async def deaf(response: signal.SignalResponse) -> None:
            if response.WhichOneof("message") == "join":
                client.joined.set_result(response.join)

        client._handle = deaf  # type: ignore[method-assign]
        token = server.token(identity="ann", room="r")
        session = asyncio.create_task(client.run(f"{server.url}/rtc?access_token={token}&protocol=16"))
        await asyncio.wait_for(client.joined, LIMIT)
        await client.send(leave=signal.LeaveRequest())
        verdict = await ended(server, "ann", "left early")
        assert verdict["cause"] == "the client left while offer was awaited"
        session.cancel()
        await asyncio.gather(session, return_exceptions=True)
        for connection in (client.publisher, client.subscriber):
            await connection.close()

    with LkServer() as server:
        run(lambda: test(server))


# -- the start


@contextmanager
def holding(kind: int) -> Iterator[int]:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        yield taken.getsockname()[1]


BASE = {"port": 0, "bind_addresses": ["127.0.0.1"], "keys": {"devkey": "s" * 32}}
MEDIA = {"udp_port": 0, "tcp_port": 0}
TURN = {"enabled": True, "bind_addresses": ["127.0.0.1"]}


@pytest.mark.parametrize(
    ("row", "kind", "config", "said"),
    [
        ("port-taken", socket.SOCK_STREAM, {"port": "PORT", "rtc": MEDIA},
         ["TCP port PORT", "already in use", "ss -lnp"]),
        ("port-taken", socket.SOCK_DGRAM, {"rtc": {**MEDIA, "udp_port": "PORT"}},
         ["UDP port PORT", "already in use", "another rtc.udp_port"]),
        ("port-taken", socket.SOCK_STREAM, {"rtc": {**MEDIA, "tcp_port": "PORT"}},
         ["TCP port PORT", "already in use", "another rtc.tcp_port"]),
        ("port-taken", socket.SOCK_DGRAM, {"rtc": {"port_range_start": "PORT", "port_range_end": "PORT"}},
         ["UDP port PORT", "another rtc.port_range_start"]),
        ("port-taken", socket.SOCK_DGRAM, {"rtc": MEDIA, "turn": {**TURN, "udp_port": "PORT"}},
         ["TURN port PORT", "already in use", "another turn.udp_port"]),
        ("no-address", None, {"rtc": {**MEDIA, "interfaces": {"includes": ["no-such-interface"]}}},
         ["no address is left to announce", "rtc.interfaces.includes does not have lo", "set rtc.node_ip"]),
        ("no-stun", socket.SOCK_DGRAM, {"rtc": {**MEDIA, "use_external_ip": True, "stun_servers": ["127.0.0.1:PORT"]}},
         ["no STUN server answered (127.0.0.1:PORT)", "let UDP out", "rtc.node_ip"]),
    ],
)  # fmt: skip
def test_a_start_that_fails_says_why(row: str, kind: int | None, config: dict[str, Any], said: list[str]) -> None:
    assert row in ROWS
    with holding(kind) if kind is not None else contextlib.nullcontext(0) as port:
        text = json.dumps({**BASE, **config}).replace('"PORT"', str(port)).replace("PORT", str(port))
        command = [sys.executable, "-m", "lkactor", "serve", "--config-body", text]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("LIVEKIT_")}
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environ)
    assert ended.returncode == 1
    for piece in said:
        assert piece.replace("PORT", str(port)) in ended.stderr, ended.stderr
