"""One DTLS association (RFC 6347, RFC 5764) through OpenSSL on memory BIOs.

| state     | leaves it                                                                   |
|-----------|-----------------------------------------------------------------------------|
| idle      | `start`: handshake                                                          |
| handshake | done and the fingerprint fits: connected; refused or too long: closed       |
| connected | close_notify or a fatal alert of the peer, `close`: closed                  |

Retransmission. OpenSSL times its flights by its own wall clock (first 1 s, doubling), and pyOpenSSL can neither set
that timer nor pass a time in. So the timer here is ours, in the caller's clock: a flight that is not answered goes out
again after 100 ms, doubling. What goes out is
- OpenSSL's repetition, with fresh record numbers, if its own timer happens to have run out by the wall clock;
- else the same datagrams once more. A peer that has them drops them as replays (RFC 6347 section 4.1.2.6).
A replay tells a peer nothing if it is our answer that was lost. That can only be the last flight, so the server keeps
it and sends it again when the client repeats its own (RFC 6347 section 4.2.4, the FINISHED state). Everything but the
choice between the two forms is thereby a function of `now`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from OpenSSL import SSL

from lkactor.counters import Counters
from lkactor.dtls.certificate import ALGORITHMS, PREFERRED, Certificate, fingerprint_of
from lkactor.dtls.records import READ_SIZE, records_of
from lkactor.fingerprint import Fingerprint
from lkactor.srtp import SrtpKeys, SrtpProfile

MTU = 1200
MAX_EARLY = 8
MAX_EARLY_SIZE = 4096
"""Datagrams that may come before `start`, and how long one may be."""
FLIGHT_INTERVAL = 0.1
MAX_FLIGHT_INTERVAL = 1.6
"""Seconds until an unanswered flight is repeated, doubling. RFC 6347 section 4.2.4.1 says 1 s; WebRTC stacks less."""
MAX_LAST_FLIGHTS = 32
"""How often the last flight is repeated to a client that has not got it."""
HANDSHAKE_TIMEOUT = 60.0
RECORD_HEADER, APPLICATION_DATA = 13, 23
"""Octets, of which the last two are the length of what follows (RFC 6347 section 4.1); a record's type."""
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
        profiles: tuple[SrtpProfile, ...] = PREFERRED,
    ) -> None:
        self.role = role
        self._fingerprints = tuple(remote_fingerprints)
        self._ssl = SSL.Connection(certificate.context(profiles), None)
        self._ssl.set_ciphertext_mtu(MTU)
        self._records = records_of(self._ssl)
        if role == "client":
            self._ssl.set_connect_state()
        else:
            self._ssl.set_accept_state()
        self.counters = Counters()
        self._state: Literal["idle", "handshake", "connected", "closed"] = "idle"
        self._events: list[DtlsEvent] = []
        self._early: list[bytes] = []
        self._outgoing: list[bytes] = []
        self._written = False
        """OpenSSL may have put something into its BIO since we last looked."""
        self._flight: list[bytes] = []
        """Our last handshake flight, as datagrams."""
        self._interval = FLIGHT_INTERVAL
        self._resend_at: float | None = None
        self._deadline: float | None = None
        self._last_flights = 0

    def start(self, now: float) -> None:
        """Begin, as client with a ClientHello. Again: nothing."""
        if self._state != "idle":
            return
        self._state = "handshake"
        if self.role == "client":
            self._deadline = now + HANDSHAKE_TIMEOUT
        self._handshake(now)
        while self._early:
            self.receive_datagram(self._early.pop(0), now)

    def receive_datagram(self, data: bytes, now: float) -> None:
        """Bad ones are counted. Before `start` a few wait for it."""
        if self._state == "idle":
            if len(self._early) < MAX_EARLY and len(data) <= MAX_EARLY_SIZE:
                self._early.append(data)
            else:
                self.counters.count("dtls.before_start")
            return
        if self._state == "closed":
            self.counters.count("dtls.after_close")
            return
        repeated = self._state == "connected" and bool(self._flight) and _is_handshake(data)
        if repeated:
            self._collect()
        if not self._take_in(data):
            return
        if self._state == "handshake":
            if self._deadline is None:
                self._deadline = now + HANDSHAKE_TIMEOUT
            self._handshake(now)
        if self._state == "connected":
            before = len(self._events)
            self._events[before:before] = map(DtlsData, self._read(None, READ_SIZE))  # A close comes after it.
        if repeated and not self._collect():
            self._repeat_last_flight(now)

    def receive_data(self, datagram: bytes) -> Sequence[bytes] | None:
        """What its records hold, while connected, if it consists of nothing but application data. It is not an event
        then, but there may be one if anything is wrong. None: it is for `receive_datagram`."""
        records = _application_records(datagram) if self._state == "connected" else None
        if records is None:
            return None
        return self._read(records, len(datagram)) if self._take_in(datagram) else ()

    @property
    def open(self) -> bool:
        """Connected: it has no timer, and data may come."""
        return self._state == "connected"

    def send(self, data: bytes) -> None:
        """One application record in a datagram of its own size plus 37 bytes. DTLS does not split: the caller's MTU.

        Counted and dropped: before the handshake is done, after the close, when empty, over 2^14 bytes (RFC 6347 4.1).
        """
        if self._state != "connected":
            self.counters.count("dtls.send_not_connected")
            return
        self._written = True
        try:
            self._records.write(data)
        except SSL.Error:
            self.counters.count("dtls.send")

    def datagrams_to_send(self, now: float) -> list[bytes]:
        """Empties the queue. Handshake flights are in datagrams of at most MTU bytes."""
        if self._written:
            self._collect()
        out, self._outgoing = self._outgoing, []
        return out

    def next_timeout(self) -> float | None:
        """In the caller's clock, whatever OpenSSL's says."""
        if self._state != "handshake" or self._deadline is None:
            return None
        return self._deadline if self._resend_at is None else min(self._resend_at, self._deadline)

    def handle_timeout(self, now: float) -> None:
        if self._state != "handshake" or self._deadline is None:
            return
        if now >= self._deadline:
            self._close("handshake timed out")
        elif self._resend_at is not None and now >= self._resend_at:
            self._resend(now)

    def next_event(self) -> DtlsEvent | None:
        return self._events.pop(0) if self._events else None

    def close(self, now: float) -> None:
        """close_notify, to be fetched with `datagrams_to_send`. No event: the caller knows."""
        if self._state == "connected":
            self._notify()
        self._state = "closed"

    # -- inside -----------------------------------------------------------------------------------------------------

    def _handshake(self, now: float) -> None:
        self._written = True
        try:
            self._ssl.do_handshake()
        except SSL.WantReadError:
            self._new_flight(now)
            return
        except SSL.Error as error:
            self.counters.count("dtls.handshake_failed")
            self._close(f"handshake failed: {_reason(error)}")
            return
        self._new_flight(now)
        if not self._fingerprint_fits():
            self._notify()
            self._close("fingerprint mismatch")
            return
        profile = _PROFILES.get(self._ssl.get_selected_srtp_profile())
        if profile is None:
            self._notify()
            self._close("no common SRTP profile")
            return
        if self.role == "client":
            self._flight = []
        material = self._ssl.export_keying_material(EXPORTER_LABEL, profile.exported_size)
        self._state = "connected"
        self._events.append(DtlsConnected(SrtpKeys.from_exported(profile, material, client=self.role == "client")))

    def _fingerprint_fits(self) -> bool:
        """RFC 8122 section 5.1: of several algorithms one is preferred, the strongest; one of its values must match."""
        certificate = self._ssl.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            return False
        for algorithm in ALGORITHMS:
            wanted = [entry.value.upper() for entry in self._fingerprints if entry.algorithm.lower() == algorithm]
            if wanted:
                return fingerprint_of(certificate, algorithm).value in wanted
        return False

    def _take_in(self, datagram: bytes) -> bool:
        """False: OpenSSL would not have it."""
        try:
            self._records.take_in(datagram)
        except SSL.Error:
            self.counters.count("dtls.bio")
            return False
        return True

    def _read(self, records: int | None, most: int) -> list[bytes]:
        """What records hold, none more than `most`. `records`: how many there are, all of them application data; None:
        who knows. To ask OpenSSL once more costs an exception, which is as much as to read a record."""
        found = list[bytes]()
        self._written = self._written or records is None  # An alert, an answer to a late flight.
        try:
            while len(found) != records:
                found.append(self._records.read(most))
        except SSL.WantReadError:
            if not found:
                # OpenSSL drops what does not authenticate without a word; late handshake flights end here, too.
                self.counters.count("dtls.no_data")
        except SSL.ZeroReturnError:
            self._notify()  # RFC 5246 section 7.2.1: answered in kind.
            self._close("close_notify")
        except SSL.Error as error:
            self._written = True
            self.counters.count("dtls.record")
            if self._ssl.get_shutdown() & SSL.RECEIVED_SHUTDOWN:
                self._close(f"alert: {_reason(error)}")
        if found:
            self._flight = []  # The peer has our Finished: it sends data.
        return found

    # -- flights

    def _new_flight(self, now: float) -> None:
        """What OpenSSL has just written, if anything, answers the peer: it is repeated until the peer goes on."""
        flight = self._collect()
        if flight:
            self._flight, self._interval = flight, FLIGHT_INTERVAL
            self._resend_at = now + FLIGHT_INTERVAL

    def _resend(self, now: float) -> None:
        try:
            self._ssl.DTLSv1_handle_timeout()  # Writes only if OpenSSL's own timer has run out.
        except SSL.Error:
            self._close("handshake timed out")
            return
        fresh = self._collect()
        if fresh:
            self._flight = fresh
        else:
            self._outgoing += self._flight
        self.counters.count("dtls.flight_repeated")
        self._interval = min(2 * self._interval, MAX_FLIGHT_INTERVAL)
        self._resend_at = now + self._interval

    def _repeat_last_flight(self, now: float) -> None:
        """The client repeats itself: our Finished got lost."""
        if self._last_flights < MAX_LAST_FLIGHTS and self._state == "connected":
            self._last_flights += 1
            self._outgoing += self._flight
            self.counters.count("dtls.flight_repeated")

    def _collect(self) -> list[bytes]:
        """Move what OpenSSL wrote to the queue. A BIO is a stream of records: they become datagrams again, whole."""
        self._written = False
        try:
            written = self._records.take_out()
        except SSL.Error:
            self.counters.count("dtls.bio")
            return []
        datagrams = _datagrams(written) if written else []
        self._outgoing += datagrams
        return datagrams

    def _notify(self) -> None:
        self._written = True
        try:
            self._ssl.shutdown()
        except SSL.Error:
            self.counters.count("dtls.shutdown")

    def _close(self, reason: str) -> None:
        self._state, self._flight = "closed", []
        self._events.append(DtlsClosed(reason))


def _is_handshake(data: bytes) -> bool:
    """A record that belongs to a client's last flight."""
    return data[:1] in (b"\x14", b"\x16")  # change_cipher_spec, handshake


def _record_end(data: bytes, at: int) -> int:
    return at + RECORD_HEADER + (data[at + 11] << 8 | data[at + 12])


def _application_records(data: bytes) -> int | None:
    """How many records a datagram of nothing but application data holds; None: there is something else in it."""
    records, at, size = 0, 0, len(data)
    while at + RECORD_HEADER <= size and data[at] == APPLICATION_DATA:
        at = _record_end(data, at)
        records += 1
    return records if at == size else None


def _datagrams(stream: bytes) -> list[bytes]:
    """Records into datagrams of at most MTU."""
    datagrams: list[bytes] = []
    start = at = 0
    while at + RECORD_HEADER <= len(stream):
        end = _record_end(stream, at)
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
