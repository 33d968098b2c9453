"""Two endpoints in memory, and over a bad network in virtual time."""

import datetime
import random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from support.netem import Wire, run_pair

from lkactor.dtls import Certificate, DtlsClosed, DtlsConnected, DtlsData, DtlsEndpoint, Fingerprint
from lkactor.dtls.certificate import fingerprint_of
from lkactor.dtls.endpoint import FLIGHT_INTERVAL, HANDSHAKE_TIMEOUT, MAX_EARLY, MAX_LAST_FLIGHTS, MTU
from lkactor.dtls.records import DirectRecords, Records
from lkactor.srtp import SrtpProfile

SERVER, CLIENT = Certificate.generate(), Certificate.generate()


@pytest.fixture(scope="module", autouse=True, params=["direct", "public"])
def records(request):
    """Both ways to OpenSSL's records."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lkactor.dtls.endpoint.records_of", {"direct": DirectRecords, "public": Records}[request.param])
        yield


def endpoints(server_expects=None):
    server = DtlsEndpoint(certificate=SERVER, role="server", remote_fingerprints=[server_expects or CLIENT.fingerprint])
    client = DtlsEndpoint(certificate=CLIENT, role="client", remote_fingerprints=[SERVER.fingerprint])
    return server, client


def pump(a, b, rounds=10, mangle=lambda data: [data]):
    for _ in range(rounds):
        for source, sink in ((a, b), (b, a)):
            for datagram in source.datagrams_to_send(0.0):
                assert len(datagram) <= MTU
                for piece in mangle(datagram):
                    sink.receive_datagram(piece, 0.0)


def events(endpoint):
    out = []
    while (event := endpoint.next_event()) is not None:
        out.append(event)
    return out


def connected(server_first=True):
    server, client = endpoints()
    if server_first:
        server.start(0.0)
    client.start(0.0)
    return server, client


def test_handshake_gives_mirrored_keys():
    server, client = connected()
    pump(server, client)
    (s,), (c,) = events(server), events(client)
    assert isinstance(s, DtlsConnected) and isinstance(c, DtlsConnected)
    assert (s.keys.local_key, s.keys.local_salt) == (c.keys.remote_key, c.keys.remote_salt)
    assert (s.keys.remote_key, s.keys.remote_salt) == (c.keys.local_key, c.keys.local_salt)
    assert s.keys.local_key != s.keys.remote_key
    assert s.keys.profile.name == "AEAD_AES_128_GCM"
    assert s.keys.local_key.hex() not in repr(s.keys)


def test_a_hello_before_start_waits():
    server, client = connected(server_first=False)
    for datagram in client.datagrams_to_send(0.0):
        server.receive_datagram(datagram, 0.0)
    server.start(0.0)
    pump(server, client)
    assert isinstance(events(server)[0], DtlsConnected)


def test_data_both_ways_and_close():
    server, client = connected()
    pump(server, client)
    events(server), events(client)
    server.send(b"from server")
    client.send(b"from client" * 90)
    pump(server, client, 1)
    assert events(server) == [DtlsData(b"from client" * 90)]
    assert events(client) == [DtlsData(b"from server")]
    client.close(0.0)
    pump(server, client, 1)
    assert events(server) == [DtlsClosed("close_notify")]
    server.send(b"x")
    assert server.counters["dtls.send_not_connected"] == 1


def test_wrong_fingerprint_yields_no_keys():
    server, client = endpoints(server_expects=Fingerprint("sha-256", "00:" * 31 + "00"))
    server.start(0.0)
    client.start(0.0)
    pump(server, client)
    assert events(server) == [DtlsClosed("fingerprint mismatch")]


def test_sha1_is_not_trusted():
    server, client = endpoints(server_expects=Fingerprint("sha-1", "00:" * 19 + "00"))
    server.start(0.0)
    client.start(0.0)
    pump(server, client)
    assert events(server) == [DtlsClosed("fingerprint mismatch")]


def test_garbage_between_flights_does_no_harm():
    server, client = connected()
    pump(server, client, mangle=lambda data: [b"\x16\xfe\xfd" + bytes(20), data[: len(data) // 2], b"\x80", data, data])
    assert isinstance(events(server)[0], DtlsConnected)
    assert isinstance(events(client)[0], DtlsConnected)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=5))
def test_random_datagrams(datagrams):
    server, client = connected()
    for datagram in datagrams:
        server.receive_datagram(datagram, 0.0)
        client.receive_datagram(datagram, 0.0)


@pytest.mark.parametrize("end", range(0, 200, 7))
def test_truncated_hello(end):
    server, client = connected()
    hello = client.datagrams_to_send(0.0)[0]
    server.receive_datagram(hello[:end], 0.0)
    client.receive_datagram(hello[:end], 0.0)


# -- profiles, certificates, fingerprints


def with_profiles(server, client):
    a = DtlsEndpoint(
        certificate=SERVER, role="server", remote_fingerprints=[CLIENT.fingerprint], profiles=tuple(server)
    )
    b = DtlsEndpoint(
        certificate=CLIENT, role="client", remote_fingerprints=[SERVER.fingerprint], profiles=tuple(client)
    )
    a.start(0.0)
    b.start(0.0)
    pump(a, b)
    return events(a), events(b)


@pytest.mark.parametrize("profile", SrtpProfile, ids=lambda profile: profile.name)
def test_each_profile_gives_both_sides_the_same_keys(profile):
    for server, client in ((SrtpProfile, [profile]), ([profile], SrtpProfile)):
        (s,), (c,) = with_profiles(server, client)
        assert s.keys.profile is c.keys.profile is profile
        assert (s.keys.local_key, s.keys.local_salt) == (c.keys.remote_key, c.keys.remote_salt)
        assert (c.keys.local_key, c.keys.local_salt) == (s.keys.remote_key, s.keys.remote_salt)
        assert (len(s.keys.local_key), len(s.keys.local_salt)) == (profile.key_size, profile.salt_size)
        assert len({s.keys.local_key, s.keys.remote_key, s.keys.local_salt, s.keys.remote_salt}) == 4


def test_the_servers_order_of_profiles_wins():
    (s,), _ = with_profiles(SrtpProfile, list(SrtpProfile)[::-1])
    assert s.keys.profile is SrtpProfile.AEAD_AES_128_GCM


def test_no_common_profile_gives_no_keys():
    server, client = with_profiles([SrtpProfile.AEAD_AES_128_GCM], [SrtpProfile.AES128_CM_SHA1_80])
    assert not any(isinstance(event, DtlsConnected) for event in server + client)
    assert server[0] == DtlsClosed("no common SRTP profile")


def test_the_certificate_is_an_ecdsa_one_called_webrtc():
    certificate = Certificate.generate()._certificate
    assert certificate.subject.rfc4514_string() == "CN=WebRTC"
    assert certificate.public_key().curve.name == "secp256r1"
    assert len(SERVER.fingerprint.value) == 32 * 3 - 1 and SERVER.fingerprint.value.isupper()
    assert SERVER.fingerprint != CLIENT.fingerprint


def test_one_context_serves_all_handshakes_and_keeps_no_sessions():
    assert SERVER.context() is SERVER.context()
    assert SERVER.context().get_session_cache_mode() == 0


@pytest.mark.parametrize("algorithm", ["sha-256", "sha-384", "sha-512"])
def test_fingerprint_algorithms_in_any_case(algorithm):
    value = fingerprint_of(CLIENT._certificate, algorithm).value
    for expected in (Fingerprint(algorithm, value), Fingerprint(algorithm.upper(), value.lower())):
        server, client = endpoints(server_expects=expected)
        server.start(0.0)
        client.start(0.0)
        pump(server, client)
        assert isinstance(events(server)[0], DtlsConnected)


@pytest.mark.parametrize(("first", "second", "good"), [(256, 512, False), (512, 256, True)], ids=["weak", "strong"])
def test_of_two_algorithms_the_stronger_counts(first, second, good):
    """Only the fingerprint of the algorithm named first is right."""
    right = fingerprint_of(CLIENT._certificate, f"sha-{first}")
    wrong = Fingerprint(f"sha-{second}", fingerprint_of(SERVER._certificate, f"sha-{second}").value)
    server = DtlsEndpoint(certificate=SERVER, role="server", remote_fingerprints=[wrong, right])
    client = DtlsEndpoint(certificate=CLIENT, role="client", remote_fingerprints=[SERVER.fingerprint])
    server.start(0.0)
    client.start(0.0)
    pump(server, client)
    assert isinstance(events(server)[0], DtlsConnected if good else DtlsClosed)


def test_one_of_several_certificates_will_do():
    server = DtlsEndpoint(
        certificate=SERVER, role="server", remote_fingerprints=[SERVER.fingerprint, CLIENT.fingerprint]
    )
    client = DtlsEndpoint(certificate=CLIENT, role="client", remote_fingerprints=[SERVER.fingerprint])
    server.start(0.0)
    client.start(0.0)
    pump(server, client)
    assert isinstance(events(server)[0], DtlsConnected)


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_mismatch_on_either_side_tells_the_peer(role):
    wrong = [Fingerprint("sha-256", "AB:" * 31 + "AB")]
    server = DtlsEndpoint(
        certificate=SERVER, role="server", remote_fingerprints=wrong if role == "server" else [CLIENT.fingerprint]
    )
    client = DtlsEndpoint(
        certificate=CLIENT, role="client", remote_fingerprints=wrong if role == "client" else [SERVER.fingerprint]
    )
    server.start(0.0)
    client.start(0.0)
    pump(server, client)
    ours, theirs = (server, client) if role == "server" else (client, server)
    assert events(ours) == [DtlsClosed("fingerprint mismatch")]
    assert events(theirs)[-1] == DtlsClosed("close_notify")
    ours.send(b"x")
    assert ours.counters["dtls.send_not_connected"] == 1


def test_no_fingerprints_accept_nobody():
    server = DtlsEndpoint(certificate=SERVER, role="server", remote_fingerprints=[])
    client = DtlsEndpoint(certificate=CLIENT, role="client", remote_fingerprints=[SERVER.fingerprint])
    server.start(0.0)
    client.start(0.0)
    pump(server, client)
    assert events(server) == [DtlsClosed("fingerprint mismatch")]


# -- datagrams


def rsa_certificate():
    """4096 bits: a certificate flight that no datagram holds."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=4096)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x" * 60)])
    when = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(when).not_valid_after(when + datetime.timedelta(days=9999))
    return Certificate(key, builder.sign(key, hashes.SHA256()))


def test_a_flight_over_the_mtu_is_split_on_records():
    big = rsa_certificate()
    server = DtlsEndpoint(certificate=big, role="server", remote_fingerprints=[CLIENT.fingerprint])
    client = DtlsEndpoint(certificate=CLIENT, role="client", remote_fingerprints=[big.fingerprint])
    server.start(0.0)
    client.start(0.0)
    for datagram in client.datagrams_to_send(0.0):
        server.receive_datagram(datagram, 0.0)
    flight = server.datagrams_to_send(0.0)
    assert len(flight) > 1 and max(map(len, flight)) <= MTU
    for datagram in flight:  # whole records in each
        at = 0
        while at < len(datagram):
            at += 13 + int.from_bytes(datagram[at + 11 : at + 13], "big")
        assert at == len(datagram)
        client.receive_datagram(datagram, 0.0)
    pump(client, server)
    assert isinstance(events(client)[0], DtlsConnected) and isinstance(events(server)[0], DtlsConnected)


def test_data_in_the_datagram_of_the_last_flight():
    server, client = connected()
    for source, sink in ((client, server), (server, client), (client, server)):
        for datagram in source.datagrams_to_send(0.0):
            sink.receive_datagram(datagram, 0.0)
    server.send(b"early")
    client.receive_datagram(b"".join(server.datagrams_to_send(0.0)), 0.0)
    assert [type(event) for event in events(client)] == [DtlsConnected, DtlsData]


def test_what_waits_for_start_is_bounded():
    server, client = connected(server_first=False)
    (hello,) = client.datagrams_to_send(0.0)
    server.receive_datagram(bytes(5000), 0.0)
    for _ in range(MAX_EARLY + 3):
        server.receive_datagram(hello, 0.0)
    assert server.counters["dtls.before_start"] == 4
    assert server.next_timeout() is None and server.datagrams_to_send(0.0) == []


@pytest.mark.parametrize(("size", "goes"), [(0, False), (1, True), (1191, True), (16384, True), (16385, False)])
def test_sizes_of_data(size, goes):
    server, client = connected()
    pump(server, client)
    events(server)
    client.send(bytes(size))
    datagrams = client.datagrams_to_send(0.0)
    for datagram in datagrams:
        server.receive_datagram(datagram, 0.0)
    assert events(server) == ([DtlsData(bytes(size))] if goes else [])
    assert client.counters.get("dtls.send", 0) == (not goes)


def test_several_records_in_one_datagram_and_one_twice():
    server, client = connected()
    pump(server, client)
    events(server)
    for text in (b"a", b"b", b"c"):
        client.send(text)
    (datagram,) = client.datagrams_to_send(0.0)
    server.receive_datagram(datagram, 0.0)
    server.receive_datagram(datagram, 0.0)
    assert events(server) == [DtlsData(b"a"), DtlsData(b"b"), DtlsData(b"c")]
    assert server.counters["dtls.no_data"] >= 1


def test_a_peer_that_says_goodbye_hears_it_back():
    server, client = connected()
    pump(server, client)
    events(server), events(client)
    client.close(0.0)
    assert client.next_event() is None and client.next_timeout() is None
    (goodbye,) = client.datagrams_to_send(0.0)
    server.receive_datagram(goodbye, 0.0)
    assert events(server) == [DtlsClosed("close_notify")]
    assert len(server.datagrams_to_send(0.0)) == 1
    server.receive_datagram(goodbye, 0.0)
    assert server.counters["dtls.after_close"] == 1
    assert events(server) == []


def test_a_tampered_record_is_dropped_and_the_next_one_read():
    server, client = connected()
    pump(server, client)
    events(server)
    client.send(b"one")
    (datagram,) = client.datagrams_to_send(0.0)
    for index in range(len(datagram)):
        server.receive_datagram(datagram[:index] + bytes([datagram[index] ^ 0x41]) + datagram[index + 1 :], 0.0)
    for end in range(len(datagram)):
        server.receive_datagram(datagram[:end], 0.0)
    server.receive_datagram(datagram, 0.0)
    assert events(server) == [DtlsData(b"one")]


def test_an_alert_without_keys_does_not_end_a_connection():
    server, client = connected()
    pump(server, client)
    events(server)
    for kind in range(20, 26):
        for epoch in range(3):
            fake = bytes([kind, 0xFE, 0xFD]) + epoch.to_bytes(2, "big") + (900).to_bytes(6, "big") + b"\0\2\2\x28"
            server.receive_datagram(fake, 0.0)
    client.send(b"still here")
    pump(server, client, 1)
    assert events(server) == [DtlsData(b"still here")]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=8))
def test_random_datagrams_into_a_connection(datagrams):
    server, client = connected()
    pump(server, client)
    events(server)
    for datagram in datagrams:
        server.receive_datagram(datagram, 0.0)
    client.send(b"after")
    pump(server, client, 1)
    assert events(server) == [DtlsData(b"after")]


# -- lost flights, in virtual time


@pytest.mark.parametrize("lost", range(4))
@pytest.mark.parametrize("times", [1, 3])
def test_any_flight_may_be_lost(lost, times):
    """Flights in order: ClientHello, ServerHello..., ClientKeyExchange..., Finished of the server."""
    server, client = connected()
    now, left = 0.0, times
    flights = {0: client, 1: server, 2: client, 3: server}
    for number in range(4):
        source, sink = flights[number], flights[(number + 1) % 2]
        datagrams = source.datagrams_to_send(now)
        while number == lost and left:
            left -= 1
            # Whose timer runs depends on who still waits: the server has none after its Finished.
            waiting = source if source.next_timeout() is not None else sink
            now = waiting.next_timeout()
            waiting.handle_timeout(now)
            repeat = waiting.datagrams_to_send(now)
            if waiting is not source:
                for datagram in repeat:
                    source.receive_datagram(datagram, now)
                repeat = source.datagrams_to_send(now)
            assert repeat == datagrams
        for datagram in datagrams:
            sink.receive_datagram(datagram, now)
    (s,), (c,) = events(server), events(client)
    assert s.keys.local_key == c.keys.remote_key
    assert now == pytest.approx(FLIGHT_INTERVAL * (2**times - 1))
    assert server.next_timeout() is None and client.next_timeout() is None


@pytest.mark.parametrize("seed", range(20))
def test_a_bad_network(seed):
    rng = random.Random(seed)
    server, client = connected()
    wire = Wire.symmetric(rng, loss=0.3, reorder=0.2, duplicate=0.2, delay=0.02)
    done = {}

    def look(now):
        for endpoint in (server, client):
            for event in iter(endpoint.next_event, None):
                assert isinstance(event, DtlsConnected)
                done[endpoint.role] = event.keys

    run_pair(server, client, wire, lambda: len(done) == 2, 0.0, on_step=look, limit=HANDSHAKE_TIMEOUT)
    assert done["server"].local_key == done["client"].remote_key


def test_the_interval_doubles_and_in_the_end_it_gives_up():
    _, client = connected()
    client.datagrams_to_send(0.0)
    at, now = [], 0.0
    while client.next_timeout() is not None:
        now = client.next_timeout()
        client.handle_timeout(now)
        at.append(now)
        assert len(at) < 100
    assert at[:6] == pytest.approx([0.1, 0.3, 0.7, 1.5, 3.1, 4.7])
    assert events(client) == [DtlsClosed("handshake timed out")]
    assert at[-1] == HANDSHAKE_TIMEOUT


def test_a_timeout_that_comes_early_does_nothing():
    _, client = connected()
    client.datagrams_to_send(0.0)
    client.handle_timeout(0.05)
    assert client.datagrams_to_send(0.05) == [] and client.next_timeout() == pytest.approx(0.1)


def test_a_server_waits_for_its_client_without_a_deadline():
    server, _ = connected()
    assert server.next_timeout() is None
    server.handle_timeout(1000.0)
    assert events(server) == []


def test_the_last_flight_is_repeated_a_bounded_number_of_times_and_not_after_data():
    server, client = connected()
    for source, sink in ((client, server), (server, client)):
        for datagram in source.datagrams_to_send(0.0):
            sink.receive_datagram(datagram, 0.0)
    flight = client.datagrams_to_send(0.0)
    for datagram in flight:
        server.receive_datagram(datagram, 0.0)
    last = server.datagrams_to_send(0.0)
    for _ in range(3 * MAX_LAST_FLIGHTS):
        server.receive_datagram(flight[0], 0.0)
    assert server.datagrams_to_send(0.0) == last * MAX_LAST_FLIGHTS

    other, peer = connected()
    pump(other, peer)
    peer.send(b"x")
    pump(other, peer, 1)
    other.receive_datagram(flight[0], 0.0)
    assert other.datagrams_to_send(0.0) == []
