"""Who serves a burst to the legs: the seam to the forwarding plane (`lkactor.plane`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from lkactor.sfu.leg import Leg

if TYPE_CHECKING:
    from lkactor.sfu.forwarder import Frame


class Fanout(Protocol):
    """The legs of one track as the plane sees them."""

    def set_legs(self, legs: Sequence[Leg]) -> None:
        """After every change of who is there."""

    def forward(self, layer: int, frames: Sequence[Frame], now: float) -> Sequence[Leg]:
        """Serve a burst of one layer; the legs that are left for Python to serve."""


FanoutMaker = Callable[[str, Mapping[int, int]], Fanout]
"""Of a track's kind and the publisher's RED payload types, each with the type of the blocks inside."""


class PythonFanout:
    """Everything is left to Python."""

    def __init__(self) -> None:
        self._legs: Sequence[Leg] = ()

    @classmethod
    def of(cls, kind: str, red: Mapping[int, int]) -> PythonFanout:
        """A `FanoutMaker`."""
        return cls()

    def set_legs(self, legs: Sequence[Leg]) -> None:
        self._legs = legs

    def forward(self, layer: int, frames: Sequence[Frame], now: float) -> Sequence[Leg]:
        return self._legs
