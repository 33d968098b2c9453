"""A journal's files in a directory: one server at a time, nothing acknowledged that the operating system does not have.

`append` writes with O_APPEND and returns when the kernel has the bytes: they survive `kill -9` of this process. `sync`
brings them to the medium, for power cuts. `replace` writes a temporary file and renames it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from lkactor.journal.store import StoreError

LOCK = "lock"
TEMPORARY = ".tmp"


class FileStore:
    """Implements `lkactor.journal.Store`. Raises StoreError, also when another server holds the directory."""

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory)
        self._open: tuple[str, int] | None = None
        """The file that is appended to."""
        self._lock = -1
        with self._errors(""):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self._directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(self._lock)
                raise StoreError(f"{self._directory}: another server uses this directory") from None

    def close(self) -> None:
        self._forget()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def names(self) -> list[str]:
        with self._errors(""):
            return [name for name in os.listdir(self._directory) if not name.endswith(TEMPORARY) and name != LOCK]

    def size(self, name: str) -> int:
        with self._errors(name):
            return (self._directory / name).stat().st_size

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        with self._errors(name), open(self._directory / name, "rb") as file:
            file.seek(offset)
            return file.read(-1 if length is None else length)

    def append(self, name: str, data: bytes) -> None:
        with self._errors(name):
            handle = self._handle(name)
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]

    def sync(self, name: str) -> None:
        with self._errors(name):
            os.fdatasync(self._handle(name))

    def replace(self, name: str, data: bytes) -> None:
        with self._errors(name):
            temporary = self._directory / f"{name}{TEMPORARY}"
            temporary.write_bytes(data)
            os.replace(temporary, self._directory / name)

    def remove(self, name: str) -> None:
        if self._open is not None and self._open[0] == name:
            self._forget()
        with self._errors(name):
            (self._directory / name).unlink(missing_ok=True)

    def _handle(self, name: str) -> int:
        if self._open is None or self._open[0] != name:
            self._forget()
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._open = (name, os.open(self._directory / name, flags, 0o600))
        return self._open[1]

    def _forget(self) -> None:
        if self._open is not None:
            os.close(self._open[1])
            self._open = None

    @contextlib.contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"{self._directory / name}: {error.strerror or error}") from error
