"""One DTLS association (RFC 6347, RFC 5764) through OpenSSL on memory BIOs.

| state     | leaves it                                                            |
|-----------|----------------------------------------------------------------------|
| idle      | `start`: handshake                                                    |
| handshake | done and the fingerprint fits: connected; else closed                 |
| connected | close_notify of the peer, `close`: closed                             |

OpenSSL runs its retransmission timer by its own wall clock (first 1 s, doubling), which cannot be passed in: what is
left of it is asked for whenever something was written and turned into a deadline in the caller's clock. In virtual time
the deadline comes, and OpenSSL decides whether it resends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from OpenSSL import SSL

from lkactor.counters import Counters
from lkactor.dtls.certificate import Certificate, fingerprint_of
from lkactor.fingerprint import Fingerprint
from lkactor.srtp import SrtpKeys, SrtpProfile

MTU = 1200
MAX_EARLY = 8
"""Datagrams that may come before `start`."""
READ_SIZE = 16384
_PROFILES = {profile.openssl_name.encode(): profile for profile in SrtpProfile}
EXPORTER_LABEL = b"EXTRACTOR-dtls_srtp"


@dataclass(frozen=True, slots=True)
class DtlsConnected:
    keys: SrtpKeys


@dataclass(frozen=True, slots=True)
class DtlsData:
    data: bytes


@dataclass(frozen=True, slots=True)
class DtlsClosed:
    reason: str


DtlsEvent = DtlsConnected | DtlsData | DtlsClosed


class DtlsEndpoint:
    """Five verbs and `send`. Bad input is counted; OpenSSL drops what does not authenticate."""

    def __init__(
        self,
        *,
        certificate: Certificate,
        role: Literal["client", "server"],
        remote_fingerprints: Sequence[Fingerprint],
    ) -> None:
        self.role = role
        self._fingerprints = tuple(remote_fingerprints)
        self._ssl = SSL.Connection(certificate.context, None)
        self._ssl.set_ciphertext_mtu(MTU)
        if role == "client":
            self._ssl.set_connect_state()
        else:
            self._ssl.set_accept_state()
        self.counters = Counters()
        self._state: Literal["idle", "handshake", "connected", "closed"] = "idle"
        self._events: deque[DtlsEvent] = deque()
        self._early: deque[bytes] = deque()
        self._timer_at: float | None = None

    def start(self, now: float) -> None:
        """Begin, as client with a ClientHello. Again: nothing."""
        if self._state != "idle":
            return
        self._state = "handshake"
        self._handshake(now)
        while self._early:
            self.receive_datagram(self._early.popleft(), now)

    def receive_datagram(self, data: bytes, now: float) -> None:
        if self._state == "idle":
            if len(self._early) < MAX_EARLY:
                self._early.append(data)
            else:
                self.counters.count("dtls.before_start")
            return
        if self._state == "closed":
            self.counters.count("dtls.after_close")
            return
        try:
            self._ssl.bio_write(data)
        except SSL.Error:
            self.counters.count("dtls.bio")
            return
        if self._state == "handshake":
            self._handshake(now)
        if self._state == "connected" and not self._read():
            # OpenSSL drops what does not authenticate without a word; late handshake flights end here, too.
            self.counters.count("dtls.no_data")
        self._arm(now)

    def send(self, data: bytes) -> None:
        """One application record. Before the handshake is done, or over the MTU: counted and dropped."""
        if self._state != "connected":
            self.counters.count("dtls.send_not_connected")
            return
        try:
            self._ssl.send(data)
        except SSL.Error:
            self.counters.count("dtls.send")

    def datagrams_to_send(self, now: float) -> list[bytes]:
        """A BIO is a stream of records: they are put into datagrams again, whole."""
        chunks = []
        while True:
            try:
                chunks.append(self._ssl.bio_read(READ_SIZE))
            except SSL.WantReadError:
                break
            except SSL.Error:
                self.counters.count("dtls.bio")
                break
        return _datagrams(b"".join(chunks)) if chunks else []

    def next_timeout(self) -> float | None:
        return self._timer_at if self._state == "handshake" else None

    def handle_timeout(self, now: float) -> None:
        if self._state == "handshake" and self._timer_at is not None and now >= self._timer_at:
            try:
                self._ssl.DTLSv1_handle_timeout()
            except SSL.Error:
                self._close("handshake timed out")
                return
            self._arm(now)

    def next_event(self) -> DtlsEvent | None:
        return self._events.popleft() if self._events else None

    def close(self, now: float) -> None:
        """close_notify, to be fetched with `datagrams_to_send`."""
        if self._state == "connected":
            try:
                self._ssl.shutdown()
            except SSL.Error:
                self.counters.count("dtls.shutdown")
        self._state = "closed"

    # -- inside -----------------------------------------------------------------------------------------------------

    def _handshake(self, now: float) -> None:
        try:
            self._ssl.do_handshake()
        except SSL.WantReadError:
            self._arm(now)
            return
        except SSL.Error as error:
            self.counters.count("dtls.handshake_failed")
            self._close(f"handshake failed: {_reason(error)}")
            return
        if not self._fingerprint_fits():
            self._close("fingerprint mismatch")
            return
        profile = _PROFILES.get(self._ssl.get_selected_srtp_profile())
        if profile is None:
            self._close("no common SRTP profile")
            return
        material = self._ssl.export_keying_material(EXPORTER_LABEL, profile.exported_size)
        self._state, self._timer_at = "connected", None
        self._events.append(DtlsConnected(SrtpKeys.from_exported(profile, material, client=self.role == "client")))

    def _fingerprint_fits(self) -> bool:
        certificate = self._ssl.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            return False
        return any(
            fingerprint_of(certificate, wanted.algorithm.lower())
            == Fingerprint(wanted.algorithm.lower(), wanted.value.upper())
            for wanted in self._fingerprints
        )

    def _read(self) -> bool:
        """All there is; False if there was nothing."""
        found = False
        while True:
            try:
                self._events.append(DtlsData(self._ssl.recv(READ_SIZE)))
                found = True
            except SSL.WantReadError:
                return found
            except SSL.ZeroReturnError:
                self._close("close_notify")
                return True
            except SSL.Error:
                self.counters.count("dtls.record")
                return True

    def _arm(self, now: float) -> None:
        if self._state == "handshake":
            left = self._ssl.DTLSv1_get_timeout()
            self._timer_at = now + max(left, 0.001) if left is not None else None

    def _close(self, reason: str) -> None:
        self._state, self._timer_at = "closed", None
        self._events.append(DtlsClosed(reason))


def _datagrams(stream: bytes) -> list[bytes]:
    """Records (13 bytes of header, the length at 11) into datagrams of at most MTU."""
    datagrams: list[bytes] = []
    start = at = 0
    while at + 13 <= len(stream):
        end = at + 13 + ((stream[at + 11] << 8) | stream[at + 12])
        if end - start > MTU and at > start:
            datagrams.append(stream[start:at])
            start = at
        at = end
    datagrams.append(stream[start:])
    return datagrams


def _reason(error: SSL.Error) -> str:
    """The library's words, which hold no data of the peer."""
    first = error.args[0] if error.args else None
    return str(first[0][2]) if isinstance(first, list) and first else "closed"
