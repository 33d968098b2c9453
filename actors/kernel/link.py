"""The media lane: a bounded, lossy ring that wakes its actor once per burst."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.kernel.faults import LinkFaults

DEFAULT_CAPACITY = 64


class MediaLink:
    """One source's way to one actor. It survives the actor's restarts; `capacity` is in items.

    `pushed` and `dropped` count items: a drop is the oldest item of a full ring, a push to an ended actor or a closed
    link, or an injected loss.
    """

    __slots__ = ("_faults", "_ring", "_ring_bell", "capacity", "closed", "dropped", "name", "pushed", "rung")

    def __init__(self, name: str, capacity: int, ring_bell: Callable[[MediaLink], None]) -> None:
        self.name = name
        self.capacity = _checked(name, capacity)
        self.closed = False
        self.rung = False
        self.dropped = 0
        self.pushed = 0
        self._ring: deque[Any] = deque(maxlen=capacity)
        self._ring_bell = ring_bell
        self._faults: LinkFaults | None = None

    def __len__(self) -> int:
        return len(self._ring)

    def push(self, item: Any) -> None:
        """Never waits, never raises; the oldest item gives way."""
        if self._faults is not None:
            self._faults.push(self, item)
            return
        self.accept(item)

    def accept(self, item: Any) -> None:
        """`push` behind the injected faults."""
        self.pushed += 1
        if self.closed:
            self.dropped += 1
            return
        ring = self._ring
        if len(ring) == self.capacity:
            self.dropped += 1
        ring.append(item)
        if not self.rung:
            self.rung = True
            self._ring_bell(self)

    def drain(self) -> deque[Any]:
        """Everything that is there, the oldest first. The caller owns the result."""
        ring = self._ring
        self._ring = deque(maxlen=self.capacity)
        return ring

    def close(self) -> None:
        """The source is gone: what is left is dropped, later pushes too."""
        self.closed = True
        self.dropped += len(self._ring)
        self._ring.clear()

    def resize(self, capacity: int) -> None:
        """Another capacity; what does not fit is dropped, oldest first."""
        self.capacity = _checked(self.name, capacity)
        self.dropped += max(0, len(self._ring) - capacity)
        self._ring = deque(self._ring, maxlen=capacity)

    def set_faults(self, faults: LinkFaults | None) -> None:
        self._faults = faults


def _checked(name: str, capacity: int) -> int:
    if capacity < 1:
        raise ValueError(f"capacity of link {name!r} must be at least 1, not {capacity}")
    return capacity
