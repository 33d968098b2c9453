"""Counters by reason: every dropped packet names why it was dropped."""


class Counters(dict[str, int]):
    """A tally. Keys are constants of the code, never data of a peer, so the size is bounded by the source."""

    def count(self, reason: str, n: int = 1) -> None:
        self[reason] = self.get(reason, 0) + n
