"""A bounded big-endian bit reader for what is not byte-aligned: H.264 parameter sets."""

from lkactor.errors import ProtocolViolation


class BitReader:
    """Reads from the most significant bit. Reading past the end raises ProtocolViolation(`reason`)."""

    __slots__ = ("_left", "_reason", "_value")

    def __init__(self, data: bytes, reason: str) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = len(data) * 8
        self._reason = reason

    def read(self, count: int) -> int:
        """`count` bits as an unsigned number."""
        left = self._left - count
        if left < 0:
            raise ProtocolViolation(self._reason)
        self._left = left
        return (self._value >> left) & ((1 << count) - 1)

    def flag(self) -> bool:
        return self.read(1) == 1

    def skip(self, count: int) -> None:
        self.read(count)

    def ue(self) -> int:
        """Unsigned Exp-Golomb of at most 32 bits (H.264 section 9.1)."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > 31:
                raise ProtocolViolation(self._reason)
        return (1 << zeros) - 1 + self.read(zeros)

    def se(self) -> int:
        """Signed Exp-Golomb (H.264 section 9.1.1)."""
        code = self.ue()
        return (code + 1) // 2 if code & 1 else -(code // 2)


def without_emulation(data: bytes) -> bytes:
    """The RBSP of a NAL unit: 00 00 03 becomes 00 00 (H.264 section 7.4.1)."""
    if b"\x00\x00\x03" not in data:
        return data
    clean = bytearray()
    zeros = 0
    for byte in data:
        if zeros >= 2 and byte == 3:
            zeros = 0
            continue
        zeros = zeros + 1 if byte == 0 else 0
        clean.append(byte)
    return bytes(clean)
