"""A burst's way through several actors without a task switch between them.

Within a media turn a link that is rung does not wake its actor's task: at the end of the turn the kernel hands the
link to each actor that is between two messages, in the order of the rings, until none is left. An actor that is busy
gets the ring in its mailbox, as outside a turn. The seven microseconds of a hop are so paid once per turn, by whoever
reads the socket, and not once per actor (docs/runtime-semantics.md, Media turns).
"""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.kernel.cell import Cell
    from actors.kernel.link import MediaLink


class MediaTurn:
    """`with turn:` around what pushes; one per system, not re-entered."""

    __slots__ = ("_rung", "open")

    def __init__(self) -> None:
        self.open = False
        self._rung: deque[tuple[Cell, MediaLink]] = deque()

    def ring(self, cell: Cell, link: MediaLink) -> None:
        self._rung.append((cell, link))

    def __enter__(self) -> MediaTurn:
        self.open = True
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """What an actor pushes while it is handed a link belongs to the same turn."""
        rung = self._rung
        try:
            while rung:
                cell, link = rung.popleft()
                cell.hand_over(link)
        finally:
            self.open = False
            while rung:
                cell, link = rung.popleft()
                cell.mailbox.ring(link)
