"""Records between OpenSSL and its memory BIOs, by OpenSSL's own functions.

pyOpenSSL's methods check and copy more than it takes to read or to write a record: 3.3 us to send one of 1.1 kB where
the functions themselves need 1.4, 4.6 us and 1.4 to receive one. Its private names are used behind a check at import;
without them the public calls serve.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL

READ_SIZE = 16384
"""Octets; no record holds more (RFC 6347 section 4.1)."""


class Records:
    """One connection on memory BIOs, by pyOpenSSL's public calls. All of them raise SSL.Error."""

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection

    def take_in(self, datagram: bytes) -> None:
        """As it came from the peer."""
        self._connection.bio_write(datagram)

    def read(self, most: int) -> bytes:
        """What one record of application data holds, no more than `most`. SSL.WantReadError: there is none."""
        return self._connection.recv(most)

    def write(self, data: bytes) -> None:
        """One record of application data."""
        self._connection.send(data)

    def take_out(self) -> bytes:
        """What OpenSSL has written since the last call: records, whole."""
        taken = part = self._take_part()
        while len(part) == READ_SIZE:
            part = self._take_part()
            taken += part
        return taken

    def _take_part(self) -> bytes:
        """Up to READ_SIZE of it; nothing: there is no more."""
        try:
            return self._connection.bio_read(READ_SIZE)
        except SSL.WantReadError:
            return b""


class DirectRecords(Records):
    """The same, without pyOpenSSL in between unless something is unusual."""

    def __init__(self, connection: SSL.Connection) -> None:
        super().__init__(connection)
        private: Any = connection
        self._ssl, self._in, self._out = private._ssl, private._into_ssl, private._from_ssl

    def take_in(self, datagram: bytes) -> None:
        if _lib.BIO_write(self._in, datagram, len(datagram)) <= 0:
            super().take_in(datagram)

    def read(self, most: int) -> bytes:
        buffer = _new("char[]", most)
        size = _lib.SSL_read(self._ssl, buffer, most)
        if size <= 0:
            self._raise(size)
        taken: bytes = _ffi.unpack(buffer, size)
        return taken

    def write(self, data: bytes) -> None:
        size = _lib.SSL_write(self._ssl, data, len(data))
        if size <= 0:
            self._raise(size)

    def _take_part(self) -> bytes:
        buffer = _new("char[]", READ_SIZE)
        size = _lib.BIO_read(self._out, buffer, READ_SIZE)
        part: bytes = _ffi.unpack(buffer, size) if size > 0 else b""
        return part

    def _raise(self, result: int) -> None:
        """pyOpenSSL's error for it."""
        private: Any = self._connection
        private._raise_ssl_error(self._ssl, result)


def find(module: Any = SSL) -> tuple[Any, Any] | None:
    """pyOpenSSL's functions and its cffi; None where they are not what is expected."""
    library, ffi = getattr(module, "_lib", None), getattr(module, "_ffi", None)
    functions = ("SSL_read", "SSL_write", "BIO_read", "BIO_write")
    probe = SSL.Connection(SSL.Context(SSL.DTLS_METHOD), None)
    fits = (
        hasattr(ffi, "new_allocator")
        and all(hasattr(library, name) for name in functions)
        and all(hasattr(probe, name) for name in ("_ssl", "_into_ssl", "_from_ssl", "_raise_ssl_error"))
    )
    return (library, ffi) if fits else None


_found = find()
_lib: Any
_ffi: Any
_lib, _ffi = _found or (None, None)
_new: Any = _ffi.new_allocator(should_clear_after_alloc=False) if _ffi is not None else None


def records_of(connection: SSL.Connection) -> Records:
    return DirectRecords(connection) if _found is not None else Records(connection)
