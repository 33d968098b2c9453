"""Serial number arithmetic (RFC 1982; RFC 3550 appendix A.1): order and extension of wrapping counters."""


def seq_newer(a: int, b: int) -> bool:
    """True when 16-bit `a` comes after `b`. Numbers exactly half the range apart: the greater one is newer."""
    distance = (a - b) & 0xFFFF
    return 0 < distance < 0x8000 or (distance == 0x8000 and a > b)


def seq_diff(a: int, b: int) -> int:
    """Signed distance a - b of 16-bit numbers, -32768..32767."""
    return ((a - b + 0x8000) & 0xFFFF) - 0x8000


class Unwrapper:
    """Extends a wrapping counter of `bits` bits to an unbounded integer.

    The first value is taken as it is. Each next one is placed within half a range of the newest seen, so an old value
    from before the first may come out negative. An old value does not move the reference: reordering at the wrap is
    not a second wrap.
    """

    __slots__ = ("_half", "_mask", "newest")

    newest: int | None
    """The greatest extended value so far; None before the first."""

    def __init__(self, bits: int) -> None:
        self._mask = (1 << bits) - 1
        self._half = 1 << (bits - 1)
        self.newest = None

    def unwrap(self, value: int) -> int:
        """Extended value of `value`; remembers it if it is the newest."""
        newest = self.newest
        if newest is None:
            self.newest = value
            return value
        half = self._half
        extended = newest + ((value - newest + half) & self._mask) - half
        if extended > newest:
            self.newest = extended
        return extended

    def peek(self, value: int) -> int:
        """Extended value of `value` without remembering it."""
        newest = self.newest
        if newest is None:
            return value
        return newest + ((value - newest + self._half) & self._mask) - self._half

    def reset(self) -> None:
        """Forget: the next value starts anew."""
        self.newest = None
