"""Two endpoints in memory."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lkactor.dtls import Certificate, DtlsClosed, DtlsConnected, DtlsData, DtlsEndpoint, Fingerprint

SERVER, CLIENT = Certificate.generate(), Certificate.generate()


def endpoints(server_expects=None):
    server = DtlsEndpoint(
        certificate=SERVER, role="server", remote_fingerprints=[server_expects or CLIENT.fingerprint]
    )
    client = DtlsEndpoint(certificate=CLIENT, role="client", remote_fingerprints=[SERVER.fingerprint])
    return server, client


def pump(a, b, rounds=10, mangle=lambda data: [data]):
    for _ in range(rounds):
        for source, sink in ((a, b), (b, a)):
            for datagram in source.datagrams_to_send(0.0):
                assert len(datagram) <= 1300
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


def test_a_deadline_while_the_peer_is_silent():
    _, client = connected()
    client.datagrams_to_send(5.0)
    assert client.next_timeout() is not None
    client.handle_timeout(client.next_timeout() + 1)
    assert client.next_timeout() is not None


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
