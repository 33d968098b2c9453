"""How Python reads and writes the kernel's rows."""

from __future__ import annotations

from struct import Struct
from typing import Any

PACKET = Struct("=qIIIBBBBhhhhiii4x")
"""lk_packet."""
HANDED_UP = Struct("=dIHHBB28s2x")
"""lk_up."""
ARRIVAL = Struct("=dIH?x")
"""lk_arrival. The sizes are checked when the plane is made."""


def field(name: str, convert: type = int) -> Any:
    """A property that is a field of `self.row`."""

    def read(self: Any) -> Any:
        return convert(getattr(self.row, name))

    def write(self: Any, value: Any) -> None:
        setattr(self.row, name, value)

    return property(read, write)
