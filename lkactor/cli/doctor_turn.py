"""What `lkactor doctor` asks the TURN servers: an allocation, a permission, and a packet through to the media port."""

from __future__ import annotations

import contextlib
import datetime
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence

from livekit.protocol import rtc

from lkactor.cli.doctor_media import TIMEOUT, TRIES, Check, Offer
from lkactor.errors import ProtocolViolation
from lkactor.turn import AllocateFailed, ClientAllocated, PeerData, PermissionRefused, TurnClient, TurnReader
from lkactor.turn.message import Peer

EXPIRES_SOON = 14 * 86400.0
WRONG_CREDENTIALS = "the key or secret is not the server's, or its clock is off"
REFUSALS = {
    400: WRONG_CREDENTIALS,  # of LiveKit's server and of ours
    401: WRONG_CREDENTIALS,  # of others (RFC 8489 9.2.4)
    437: "try again: the last visit's allocation still stands",
    486: "too many allocations of one participant: raise turn.per_user_relay_allocation_limit",
    508: "no relay port is free: widen turn.relay_range_start to turn.relay_range_end",
}


def turn_checks(servers: Sequence[rtc.ICEServer], offer: Offer, media: Sequence[Peer], ca: str | None) -> list[Check]:
    """One check per URL; `media` are our UDP ports that answer."""
    checks: list[Check] = []
    for entry in servers:
        relays = [_turn(url, entry, offer, media, ca) for url in entry.urls if url.startswith(("turn:", "turns:"))]
        # TURN over TLS is announced on its own port and on 443: one of them has to work.
        tls_works = any(check.ok and check.hop == "turn tls" for check in relays)
        checks += [check for check in relays if check.ok or not (tls_works and check.hop == "turn tls")]
    return checks


def certificate_fix(error: ssl.SSLCertVerificationError, host: str, key: str) -> str:
    """`key` is where the certificate comes from."""
    match error.verify_code:
        case 62 | 64:  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
            return f"{key} is for another name: get one for {host}, or announce the name that it has"
        case 9 | 10:  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
            return f"{key} is not good today: renew it, or set the clock"
        case _:
            return f"{key} needs a certificate of an authority that clients trust (--ca FILE here, for your own)"


def _turn(url: str, entry: rtc.ICEServer, offer: Offer, media: Sequence[Peer], ca: str | None) -> Check:
    scheme, _, rest = url.partition(":")
    host, _, port_text = rest.partition("?")[0].rpartition(":")
    host, port = host.strip("[]"), int(port_text) if port_text.isdigit() else 3478
    hop = "turn tls" if scheme == "turns" else "turn"
    stream = scheme == "turns" or "transport=tcp" in rest
    visit: _Visit | None = None
    try:
        with _dialled(scheme, host, port, stream, ca) as sock:
            expiry = _expiry(sock)
            visit = _Visit(sock, entry, stream)
            problem = visit.relay(offer, media)
    except ssl.SSLCertVerificationError as error:
        return Check(hop, False, f"{url}: {error.verify_message}", certificate_fix(error, host, "turn.cert_file"))
    except ssl.SSLError as error:
        fix = f"no TLS server is at {host}:{port}: with turn.external_tls the load balancer has to end TLS there"
        return Check(hop, False, f"{url}: {error.reason or 'no TLS'}", fix)
    except ConnectionRefusedError:
        fix = f"nothing listens: pass {port} on {host} on to turn.{'tls' if scheme == 'turns' else 'udp'}_port"
        return Check(hop, False, f"{url}: connection refused", fix)
    except (OSError, ProtocolViolation) as error:
        fix = f"open port {port} on {host}; behind a load balancer it must pass it on to turn.tls_port"
        return Check(hop, False, f"{url}: {error or 'no answer'}", fix)
    if problem is not None:
        return Check(hop, False, f"{url}: {problem[0]}", problem[1])
    if expiry is not None and expiry < EXPIRES_SOON:
        return Check(hop, False, f"{url}: its certificate ends in {expiry / 86400:.0f} days", "renew turn.cert_file")
    return Check(hop, True, f"{url} {visit.result}")


class _Visit:
    """One allocation on one socket."""

    def __init__(self, sock: socket.socket, entry: rtc.ICEServer, stream: bool) -> None:
        self.result = ""
        self._sock = sock
        self._stream = stream
        self._reader = TurnReader()
        self._client = TurnClient(entry.username, entry.credential, rng=random.SystemRandom(), stream=stream)

    def relay(self, offer: Offer, media: Sequence[Peer]) -> tuple[str, str] | None:
        """What is wrong, and the fix. Raises OSError (TimeoutError), ProtocolViolation."""
        client = self._client
        event = self._ask(lambda now: client.allocate(now))
        if not isinstance(event, ClientAllocated):
            code = event.code if isinstance(event, AllocateFailed) else 0
            return f"allocate refused with {code}", REFUSALS.get(code, "the server's log says more")
        try:
            self.result = f"relays from {event.relayed.ip}:{event.relayed.port}"
            peer = next((peer for peer in media if (":" in peer.ip) == (":" in event.relayed.ip)), None)
            return self._reach(offer, peer) if peer is not None else None
        finally:
            self._ask(lambda now: client.refresh(0, now))

    def _reach(self, offer: Offer, peer: Peer) -> tuple[str, str] | None:
        client = self._client
        if isinstance(self._ask(lambda now: client.permit(peer, now)), PermissionRefused):
            fix = f"add {peer.ip}/32 to turn.allow_restricted_peer_cidrs: TURN must reach the media port"
            return f"may not relay to our own {peer.ip} (403)", fix
        for _ in range(TRIES):
            request = offer.request()
            client.send(peer, request)
            with contextlib.suppress(TimeoutError):
                if self._answer_to(request):
                    self.result += f", reaches the media port {peer.ip}:{peer.port}"
                    return None
        fix = (
            f"let UDP pass from the relay ports to {peer.ip}:{peer.port} and back: a firewall on the server's own host?"
        )
        return f"nothing comes back from our own {peer.ip}:{peer.port} through the relay", fix

    def _answer_to(self, request: bytes) -> bool:
        self._sock.settimeout(TIMEOUT / TRIES)
        while True:
            event = self._exchange()
            if isinstance(event, PeerData) and event.data[8:20] == request[8:20]:
                return True

    def _ask(self, ask: Callable[[float], None]) -> object:
        """What the server says to it, None when it says yes without an event."""
        self._sock.settimeout(TIMEOUT)
        ask(time.monotonic())
        event = None
        while event is None and self._client.next_timeout() is not None:
            event = self._exchange()
        return event

    def _exchange(self) -> object:
        client = self._client
        for data in client.datagrams_to_send(time.monotonic()):
            self._sock.sendall(data)
        data = self._sock.recv(4096)
        if self._stream and not data:
            raise ConnectionResetError("closed")
        for message in self._reader.feed(data) if self._stream else [data]:
            client.receive_datagram(message, time.monotonic())
        return client.next_event()


@contextlib.contextmanager
def _dialled(scheme: str, host: str, port: int, stream: bool, ca: str | None) -> Iterator[socket.socket]:
    if not stream:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.settimeout(TIMEOUT)
            sock.connect(address)
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


def _expiry(sock: socket.socket) -> float | None:
    """Seconds until the certificate ends."""
    certificate = sock.getpeercert() if isinstance(sock, ssl.SSLSocket) else None
    if not certificate:
        return None
    ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    return ends - datetime.datetime.now(datetime.UTC).timestamp()
