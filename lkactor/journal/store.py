"""Where a journal keeps its files: the interface, and the variant that keeps them in memory.

`actors.filestore.FileStore` is the one with a directory. The journal decides what is written (`Operation`), `execute`
does it: the caller may run that in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, assert_never


class StoreError(Exception):
    """The store could not do it: disk full, no permission, a file that is gone."""


class Store(Protocol):
    """Small files by name. Everything raises StoreError."""

    def names(self) -> list[str]: ...

    def size(self, name: str) -> int: ...

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Fewer bytes at the end of the file."""

    def append(self, name: str, data: bytes) -> None:
        """Given to the operating system when this returns: it survives the end of this process, however it ends."""

    def sync(self, name: str) -> None:
        """On the medium when this returns."""

    def replace(self, name: str, data: bytes) -> None:
        """All or nothing."""

    def remove(self, name: str) -> None:
        """No error if there is no such file."""


@dataclass(frozen=True, slots=True)
class Append:
    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Replace:
    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Sync:
    name: str


@dataclass(frozen=True, slots=True)
class Remove:
    name: str


Operation = Append | Replace | Sync | Remove


def execute(store: Store, operations: Iterable[Operation]) -> None:
    """In order, up to the first that raises StoreError."""
    for operation in operations:
        match operation:
            case Append(name=name, data=data):
                store.append(name, data)
            case Replace(name=name, data=data):
                store.replace(name, data)
            case Sync(name=name):
                store.sync(name)
            case Remove(name=name):
                store.remove(name)
            case _:
                assert_never(operation)


class MemoryStore:
    """Files that end with the process."""

    def __init__(self) -> None:
        self.files: dict[str, bytearray] = {}

    def names(self) -> list[str]:
        return list(self.files)

    def size(self, name: str) -> int:
        return len(self._file(name))

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        end = None if length is None else offset + length
        return bytes(self._file(name)[offset:end])

    def append(self, name: str, data: bytes) -> None:
        self.files.setdefault(name, bytearray()).extend(data)

    def sync(self, name: str) -> None:
        self._file(name)

    def replace(self, name: str, data: bytes) -> None:
        self.files[name] = bytearray(data)

    def remove(self, name: str) -> None:
        self.files.pop(name, None)

    def _file(self, name: str) -> bytearray:
        try:
            return self.files[name]
        except KeyError:
            raise StoreError(f"{name}: no such file") from None
