"""Who serves a burst to the legs: the seam to the forwarding plane (`lkactor.plane`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from lkactor.sfu.format import TrackFormat
from lkactor.sfu.leg import Egress, Leg
from lkactor.sfu.receiver import LayerReceiver

if TYPE_CHECKING:
    from lkactor.sfu.frame import Frame


class Fanout(Protocol):
    """The legs of one track as the plane sees them."""

    def set_legs(self, legs: Sequence[Leg]) -> None:
        """After every change of who is there."""

    def forward(self, layer: int, frames: Sequence[Frame], now: float) -> Sequence[Leg]:
        """Serve a burst of one layer; the legs that are left for Python to serve."""

    def past_cost(self, packets: int) -> int:
        """What so many packets of the past cost for one leg, in packets that Python writes."""

    def serve_past(self, legs: Sequence[Leg], layer: int, frames: Sequence[Frame], now: float) -> Sequence[Leg]:
        """As `forward`, but to some legs alone, which have just begun: what came since (`lkactor.sfu.catchup`)."""

    def set_muted(self, muted: bool) -> None:
        """Nothing of what comes is for the legs."""

    def receiver(self, layer: int, clock_rate: int, history: int) -> LayerReceiver:
        """For a layer that has begun."""

    def feed(self, receiver: LayerReceiver, publisher: Egress | None, format: TrackFormat) -> None:
        """What the publisher sends on this stream may go to the legs without being shown to `forward`, if nothing has
        to be decided about it."""

    def close(self) -> None:
        """From here on everything is shown."""


FanoutMaker = Callable[[str, Mapping[int, int]], Fanout]
"""Of a track's kind and the publisher's RED payload types, each with the type of the blocks inside."""


class PastInPython:
    """The part of a `Fanout` that leaves the past to Python."""

    def past_cost(self, packets: int) -> int:
        return packets

    def serve_past(self, legs: Sequence[Leg], layer: int, frames: Sequence[Frame], now: float) -> Sequence[Leg]:
        return legs


class PythonFanout(PastInPython):
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

    def set_muted(self, muted: bool) -> None:
        pass

    def receiver(self, layer: int, clock_rate: int, history: int) -> LayerReceiver:
        return LayerReceiver(clock_rate, history)

    def feed(self, receiver: LayerReceiver, publisher: Egress | None, format: TrackFormat) -> None:
        pass

    def close(self) -> None:
        pass
