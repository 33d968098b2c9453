"""Records by OpenSSL's own functions are what pyOpenSSL's calls make of them."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from OpenSSL import SSL

from lkactor.dtls import Certificate, records
from lkactor.dtls.certificate import PREFERRED
from lkactor.dtls.records import READ_SIZE, DirectRecords, Records, records_of

KINDS = list(itertools.product([DirectRecords, Records], repeat=2))


def pair(ours: type[Records], theirs: type[Records]) -> tuple[Records, Records, SSL.Connection]:
    """After the handshake; the connection is the second one's."""
    connections = [SSL.Connection(Certificate.generate().context(PREFERRED), None) for _ in range(2)]
    for connection in connections:
        connection.set_ciphertext_mtu(1200)
    connections[0].set_connect_state()
    connections[1].set_accept_state()
    a, b = ours(connections[0]), theirs(connections[1])
    for _ in range(6):
        for connection, source, sink in ((connections[0], a, b), (connections[1], b, a)):
            try:
                connection.do_handshake()
            except SSL.WantReadError:
                pass
            if written := source.take_out():
                sink.take_in(written)
    return a, b, connections[1]


@pytest.mark.parametrize(("ours", "theirs"), KINDS)
def test_what_is_written_is_read_record_by_record(ours: type[Records], theirs: type[Records]) -> None:
    a, b, _ = pair(ours, theirs)
    messages = [bytes([number]) * size for number, size in enumerate((1, 1100, READ_SIZE, 300))]
    for message in messages:
        a.write(message)
    stream = a.take_out()
    assert len(stream) > READ_SIZE
    assert a.take_out() == b""
    at = 0
    for message in messages:
        end = at + 13 + int.from_bytes(stream[at + 11 : at + 13], "big")
        b.take_in(stream[at:end])
        assert b.read(READ_SIZE) == message
        at = end
    assert at == len(stream)


@pytest.mark.parametrize("kind", [DirectRecords, Records])
def test_the_errors_are_those_of_pyopenssl(kind: type[Records]) -> None:
    a, b, theirs = pair(kind, kind)
    with pytest.raises(SSL.WantReadError):
        b.read(READ_SIZE)
    with pytest.raises(SSL.Error):
        b.take_in(b"")
    b.take_in(b"\x17\xfe\xfd" + bytes(8) + b"\x00\x04junk")
    with pytest.raises(SSL.WantReadError):  # It drops what does not authenticate.
        b.read(READ_SIZE)
    with pytest.raises(SSL.Error):
        a.write(bytes(READ_SIZE + 1))
    a._connection.shutdown()
    b.take_in(a.take_out())
    with pytest.raises(SSL.ZeroReturnError):
        b.read(READ_SIZE)
    theirs.shutdown()
    with pytest.raises(SSL.Error):
        b.write(b"late")


@pytest.mark.parametrize("changed", [{"_lib": None}, {"_ffi": None}, {"_lib": SimpleNamespace(SSL_read=len)}])
def test_without_the_private_names_the_public_calls_serve(
    changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert records.find() is not None
    connection = SSL.Connection(SSL.Context(SSL.DTLS_METHOD), None)
    assert type(records_of(connection)) is DirectRecords
    assert records.find(SimpleNamespace(**{"_lib": SSL._lib, "_ffi": SSL._ffi} | changed)) is None
    monkeypatch.setattr(records, "_found", None)
    assert type(records_of(connection)) is Records
