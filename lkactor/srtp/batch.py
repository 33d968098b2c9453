"""Packets of a burst, protected where they lie: one call of libsrtp each and nothing else.

The slots are named by an array of `struct iovec`, for `sendmmsg`. libsrtp writes a packet's new length where the array
has it, so between protecting and sending nothing has to be carried from one to the other.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from struct import Struct
from typing import Any

from lkactor.srtp.session import IN_PLACE, ffi, lib

AVAILABLE = IN_PLACE and sys.maxsize > 1 << 32
"""Pointers and sizes of eight octets."""
_IOVEC = Struct("=QQ")
_LOW = 0 if sys.byteorder == "little" else 4
"""Where in a size the half is that libsrtp reads and writes as an int."""


class SlotArray:
    """`view` is of the packets, as octets and as words of four; `lengths` are their lengths, and `parts` is the address
    of the `struct iovec` array."""

    __slots__ = ("_pointers", "_sizes", "_vectors", "lengths", "parts", "slot_size", "slots", "view", "words")

    def __init__(self, slots: int, slot_size: int) -> None:
        """`slot_size`: a multiple of four, with MAX_TRAILER to spare."""
        self.slots, self.slot_size = slots, slot_size
        octets = bytearray(slots * slot_size)
        self.view = memoryview(octets)
        self.words = self.view.cast("I")
        self._vectors = bytearray(_IOVEC.size * slots)
        self.lengths = memoryview(self._vectors).cast("Q")[1::2]
        memory, vectors = (ffi.from_buffer("char[]", area) for area in (octets, self._vectors))
        base = int(ffi.cast("uintptr_t", memory))
        self.parts = int(ffi.cast("uintptr_t", vectors))
        for index in range(slots):
            _IOVEC.pack_into(self._vectors, index * _IOVEC.size, base + index * slot_size, 0)
        self._pointers: list[Any] = [memory + index * slot_size for index in range(slots)]
        self._sizes: list[Any] = [
            ffi.cast("int *", vectors + (index * _IOVEC.size + 8 + _LOW)) for index in range(slots)
        ]

    def protect(self, contexts: Sequence[Any]) -> list[int]:
        """The packets in the first slots, each with a `SrtpSender.context`; the status of each, 0 for done."""
        return list(map(lib.srtp_protect, contexts, self._pointers, self._sizes))
