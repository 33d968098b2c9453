"""`lkactor doctor`: joins a room of its own and tries every path that the server announces; names the broken hop."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import email.utils
import ipaddress
import random
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote

from livekit.protocol import rtc

from lkactor.auth import issue_token
from lkactor.cli.common import FAILED, TOKEN, Server, add_command, print_json, server_of, server_options, table
from lkactor.errors import ProtocolViolation
from lkactor.ice import Candidate
from lkactor.ice.framing import frame
from lkactor.turn import AllocateFailed, ClientAllocated, PermissionRefused, TurnClient, TurnReader
from lkactor.turn.message import Peer
from lkactor.wire import stun

TIMEOUT = 3.0
MAX_SKEW = 60.0
EXPIRES_SOON = 14 * 86400.0


@dataclass(frozen=True, slots=True)
class Check:
    """One hop. `fix` is empty when it is `ok`."""

    hop: str
    ok: bool
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Joined:
    servers: tuple[rtc.ICEServer, ...]
    sdp: str


def add_parser(commands: Any) -> None:
    parser = add_command(
        commands, "doctor", _run, "try every path to a server and name the broken one", example="lkactor doctor --dev"
    )
    parser.add_argument("--room", help="join this room instead of a new one (it needs room.auto_create or the room)")
    parser.add_argument("--ca", metavar="FILE", help="trust this authority for TURN over TLS, too")
    server_options(parser)


def _run(arguments: argparse.Namespace) -> int:
    checks = diagnose(server_of(arguments), room=arguments.room or "", ca=arguments.ca)
    if arguments.json:
        print_json([asdict(check) for check in checks])
    else:
        print(table(("", "HOP", "RESULT"), (("ok" if c.ok else "BAD", c.hop, c.detail) for c in checks)))
        for check in checks:
            if not check.ok:
                print(f"\n{check.hop}: {check.fix}")
    return 0 if all(check.ok for check in checks) else FAILED


def diagnose(server: Server, *, room: str = "", ca: str | None = None) -> list[Check]:
    """All checks that make sense; what hangs on a broken one is left out."""
    import trio

    checks: list[Check] = []
    joined = trio.run(_join, server, room or f"doctor-{secrets.token_hex(4)}", checks)
    if joined is None:
        return checks
    servers, udp = joined
    for entry in servers:
        relays = [_turn(url, entry, udp, ca) for url in entry.urls if url.startswith(("turn:", "turns:"))]
        # TURN over TLS is announced on its own port and on 443: one of them has to work.
        tls_works = any(check.ok and check.hop == "turn tls" for check in relays)
        checks += [check for check in relays if check.ok or not (tls_works and check.hop == "turn tls")]
    return checks


# -- HTTP, keys, clock, WebSocket


async def _join(server: Server, room: str, checks: list[Check]) -> tuple[tuple[rtc.ICEServer, ...], Peer | None] | None:
    import trio
    import trio_websocket

    from actors.httpclient import HttpClient, HttpError

    http = server.url.replace("ws", "http", 1) if server.url.startswith("ws") else server.url
    video: dict[str, object] = {"room": room, "room_join": True, "hidden": True}
    token = issue_token(
        server.key, server.secret, identity=f"doctor-{secrets.token_hex(4)}", video=video, ttl=300.0,
        now_unix=time.time(),
    )  # fmt: skip
    client = HttpClient(http)
    try:
        with trio.fail_after(TIMEOUT * 2):
            headers = {"Authorization": f"Bearer {token}"}
            answer = await client.request("GET", "/rtc/validate", headers)
    except (HttpError, trio.TooSlowError) as error:
        fix = "start the server, open its TCP port in the firewall, or correct --url (LIVEKIT_URL)"
        checks.append(Check("http", False, f"{http}: {error or 'no answer'}", fix))
        return None
    finally:
        await client.aclose()
    checks.append(Check("http", True, f"{http} answers"))
    checks.append(_clock(next((value for name, value in answer.headers.items() if name.lower() == "date"), "")))
    text = TOKEN.sub("<token>", answer.body.decode("utf-8", "replace")).strip()
    if answer.status != 200:
        missing = answer.status == 404
        fix = (
            "create the room first (`lkactor room create`), or set room.auto_create: true"
            if missing
            else f"key {server.key!r} and its secret must be those of the server's `keys:`; if they are, set the clock"
        )
        checks.append(Check("room" if missing else "keys", False, f"{answer.status} {text}", fix))
        return None
    checks.append(Check("keys", True, f"key {server.key!r} is accepted"))
    ws = http.replace("http", "ws", 1) + f"/rtc?access_token={quote(token)}&protocol=15&sdk=go&auto_subscribe=0"
    try:
        async with trio_websocket.open_websocket_url(ws, connect_timeout=TIMEOUT, disconnect_timeout=1.0) as socket_:
            with trio.fail_after(TIMEOUT * 2):
                joined = await _first_messages(socket_)
            checks.append(Check("websocket", True, "upgraded, joined, offered"))
            # The ICE ports only answer for a session that there is.
            peer = await trio.to_thread.run_sync(_media, joined.sdp, checks)
            leave = rtc.SignalRequest(leave=rtc.LeaveRequest())
            await socket_.send_message(leave.SerializeToString())
        # trio-websocket leaves its socket open when the server is the first to hang up.
        await trio.aclose_forcefully(socket_._stream)
        return joined.servers, peer
    except (
        trio.TooSlowError, OSError, trio_websocket.HandshakeError, trio_websocket.ConnectionTimeout,
        trio_websocket.ConnectionClosed,
    ) as error:  # fmt: skip
        fix = "a proxy in front has to pass the Upgrade header on, and must not cut idle connections"
        checks.append(Check("websocket", False, type(error).__name__, fix))
        return None


async def _first_messages(socket_: Any) -> Joined:
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
            return Joined(servers, response.offer.sdp)


def _clock(date: str) -> Check:
    try:
        skew = email.utils.parsedate_to_datetime(date).timestamp() - time.time()
    except (TypeError, ValueError):
        return Check("clock", True, "the server does not say its time")
    if abs(skew) <= MAX_SKEW:
        return Check("clock", True, f"{abs(skew):.0f} s apart")
    where = "ahead of" if skew > 0 else "behind"
    fix = "run NTP on both machines: tokens and TURN credentials are only good for a time"
    return Check("clock", False, f"the server is {abs(skew):.0f} s {where} this machine", fix)


# -- media ports


def _media(sdp: str, checks: list[Check]) -> Peer | None:
    """A binding request to every candidate of the offer. Returns a UDP address that answers, or any."""
    lines = sdp.splitlines()
    ufrag, pwd = _attribute(lines, "ice-ufrag"), _attribute(lines, "ice-pwd")
    candidates: dict[tuple[str, str, int], Candidate] = {}
    for line in lines:
        with contextlib.suppress(ProtocolViolation):
            candidate = Candidate.parse(line)
            candidates[candidate.transport, candidate.ip, candidate.port] = candidate
    found: Peer | None = None
    for transport, ip, port in candidates:
        request = stun.build(
            stun.BINDING_REQUEST, secrets.token_bytes(12), [(stun.USERNAME, f"{ufrag}:doctor".encode())], pwd
        )
        ok = _udp_answers(request, ip, port) if transport == "udp" else _tcp_answers(request, ip, port)
        kind = _kind(ip)
        detail = f"{ip}:{port} ({kind}) {'answers' if ok else 'does not answer'}"
        if transport == "udp" and (ok or found is None):
            found = Peer(ip, port)
        fix = f"open {transport.upper()} port {port} in the firewall; if {ip} is not this server's, set rtc.node_ip"
        checks.append(Check(f"{transport} media", ok, detail, "" if ok else fix))
    if not candidates:
        checks.append(Check("media", False, "the offer has no address", "set rtc.node_ip"))
    return found


def _attribute(lines: list[str], name: str) -> str:
    return next((line.partition(":")[2] for line in lines if line.startswith(f"a={name}:")), "")


def _kind(ip: str) -> str:
    address = ipaddress.ip_address(ip)
    if address.is_loopback:
        return "loopback: reached from the server's own machine only"
    return "private: reached from its own network only" if address.is_private else "public"


def _udp_answers(request: bytes, ip: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT / 3)
        for _ in range(3):
            try:
                sock.sendto(request, (ip, port))
                data, _ = sock.recvfrom(2048)
            except OSError:
                continue
            if stun.is_stun(data) and data[8:20] == request[8:20]:
                return True
    return False


def _tcp_answers(request: bytes, ip: str, port: int) -> bool:
    try:
        with socket.create_connection((ip, port), timeout=TIMEOUT) as sock:
            sock.sendall(frame(request))
            return request[8:20] in sock.recv(2048)
    except OSError:
        return False


# -- TURN


def _turn(url: str, entry: rtc.ICEServer, peer: Peer | None, ca: str | None) -> Check:
    scheme, _, rest = url.partition(":")
    host, _, port_text = rest.partition("?")[0].rpartition(":")
    host, port = host.strip("[]"), int(port_text) if port_text.isdigit() else 3478
    hop = "turn tls" if scheme == "turns" else "turn"
    stream = scheme == "turns" or "transport=tcp" in rest
    client = TurnClient(entry.username, entry.credential, rng=random.SystemRandom(), stream=stream)
    try:
        with _dialled(scheme, host, port, stream, ca) as sock:
            expiry = _expiry(sock)
            event = _ask(client, sock, stream, lambda now: client.allocate(now))
            if not isinstance(event, ClientAllocated):
                code = event.code if isinstance(event, AllocateFailed) else 0
                fix = "486: too many allocations; 401: the key, or the clock; 508: widen turn.relay_range; 0: firewall"
                return Check(hop, False, f"{url}: allocate refused with {code}", fix)
            if peer is not None:
                refused = _ask(client, sock, stream, lambda now: client.permit(peer, now))
                if isinstance(refused, PermissionRefused):
                    fix = f"add {peer.ip}/32 to turn.allow_restricted_peer_cidrs: TURN must reach the media port"
                    return Check(hop, False, f"{url}: may not relay to our own {peer.ip} ({refused.code})", fix)
            _ask(client, sock, stream, lambda now: client.refresh(0, now))
    except ssl.SSLCertVerificationError as error:
        fix = f"turn.cert_file needs a certificate for {host} of an authority that clients trust (--ca for your own)"
        return Check(hop, False, f"{url}: {error.verify_message}", fix)
    except OSError as error:
        fix = f"open port {port} on {host}; behind a load balancer it must pass it on to turn.tls_port"
        return Check(hop, False, f"{url}: {error or 'no answer'}", fix)
    if expiry is not None and expiry < EXPIRES_SOON:
        return Check(hop, False, f"{url}: its certificate ends in {expiry / 86400:.0f} days", "renew turn.cert_file")
    return Check(hop, True, f"{url} relays from {event.relayed.ip}:{event.relayed.port}")


@contextlib.contextmanager
def _dialled(scheme: str, host: str, port: int, stream: bool, ca: str | None) -> Iterator[socket.socket]:
    if not stream:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.settimeout(TIMEOUT)
            sock.connect((host, port))
            yield sock
        return
    with socket.create_connection((host, port), timeout=TIMEOUT) as raw:
        if scheme == "turn":
            yield raw
            return
        context = ssl.create_default_context()
        if ca:
            context.load_verify_locations(ca)
        with context.wrap_socket(raw, server_hostname=host) as secure:
            yield secure


def _ask(client: TurnClient, sock: socket.socket, stream: bool, ask: Callable[[float], None]) -> object:
    """What the server says to it, None when it says yes without an event. Raises OSError (TimeoutError)."""
    reader = TurnReader()
    ask(time.monotonic())
    while client.next_timeout() is not None:
        for data in client.datagrams_to_send(time.monotonic()):
            sock.sendall(data)
        data = sock.recv(4096)
        if stream and not data:
            raise ConnectionResetError("closed")
        for message in reader.feed(data) if stream else [data]:
            client.receive_datagram(message, time.monotonic())
    return client.next_event()


def _expiry(sock: socket.socket) -> float | None:
    """Seconds until the certificate ends."""
    certificate = sock.getpeercert() if isinstance(sock, ssl.SSLSocket) else None
    if not certificate:
        return None
    ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    return ends - datetime.datetime.now(datetime.UTC).timestamp()
