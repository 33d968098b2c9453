"""Dependency descriptors as an encoder writes them, bit by bit (RTP Payload Format For AV1, appendix A.8)."""

from __future__ import annotations

from collections.abc import Sequence


class BitWriter:
    def __init__(self) -> None:
        self.text = ""

    def put(self, value: int, count: int) -> BitWriter:
        assert value < 1 << count
        self.text += f"{value:0{count}b}" if count else ""
        return self

    def non_symmetric(self, value: int, count: int) -> BitWriter:
        width = count.bit_length()
        short = (1 << width) - count
        return self.put(value, width - 1) if value < short else self.put(value + short, width)

    def to_bytes(self) -> bytes:
        text = self.text + "0" * (-len(self.text) % 8)
        return int(text, 2).to_bytes(len(text) // 8, "big")


PATTERNS = {1: (0,), 2: (0, 1), 3: (0, 2, 1, 2)}
"""Temporal layers of the pictures of a group."""


class KeyedSvc:
    """An encoder in mode LsTt_KEY: layers refer to each other in key pictures only, each has a chain of its own.

    Decode target of (s, t) is s * temporal + t. Templates: per spatial layer one for key pictures, then one per
    temporal layer. Each call of `picture` gives the descriptors of its frames, lowest spatial layer first, one packet
    each.
    """

    def __init__(self, spatial: int = 3, temporal: int = 3, structure_id: int = 5, number: int = 100) -> None:
        self.spatial, self.temporal, self.id, self.number = spatial, temporal, structure_id, number
        self.targets = spatial * temporal
        self.count = 0
        self.last: dict[tuple[int, int], int] = {}

    def structure(self) -> BitWriter:
        bits = BitWriter().put(self.id, 6).put(self.targets - 1, 5)
        layers = [(s, t) for s in range(self.spatial) for t in (0, *range(self.temporal))]
        for (s, t), after in zip(layers, [*layers[1:], None], strict=True):
            step = 3 if after is None else 2 if after[0] > s else 1 if after[1] > t else 0
            bits.put(step, 2)
        for s in range(self.spatial):
            for template in range(self.temporal + 1):
                for dti in self.dtis(s, max(template - 1, 0), key=template == 0):
                    bits.put(dti, 2)
        for _ in layers:
            bits.put(0, 1)  # Every frame says its own.
        bits.non_symmetric(self.spatial, self.targets + 1)
        for target in range(self.targets):
            bits.non_symmetric(target // self.temporal, self.spatial)
        for _ in range(len(layers) * self.spatial):
            bits.put(0, 4)
        bits.put(1, 1)
        for s in range(self.spatial):
            bits.put((320 << s) - 1, 16).put((180 << s) - 1, 16)
        return bits

    def dtis(self, s: int, t: int, *, key: bool) -> list[int]:
        found = []
        for target in range(self.targets):
            target_s, target_t = divmod(target, self.temporal)
            inside = target_t >= t and (target_s >= s if key else target_s == s)
            found.append(0 if not inside else 2 if key or (target_s == s and t < target_t) else 1 if t else 3)
        return found

    def picture(
        self, *, key: bool = False, active: int | None = None, layers: Sequence[int] | None = None
    ) -> list[bytes]:
        """`layers`: the spatial ones that are encoded."""
        pattern = PATTERNS[self.temporal]
        if key:
            self.id = (self.id + 13) % 64 if self.count else self.id
            self.count = 0
            self.last = {}
        t = pattern[self.count % len(pattern)]
        self.count += 1
        out = []
        for s in layers if layers is not None else range(self.spatial):
            out.append(self.frame(s, t, key=key, active=active if not out else None))
            self.number = (self.number + 1) & 0xFFFF
        return out

    def frame(self, s: int, t: int, *, key: bool, active: int | None) -> bytes:
        number, template = self.number, s * (self.temporal + 1) + (0 if key else 1 + t)
        bits = BitWriter().put(0b11, 2).put((self.id + template) % 64, 6).put(number, 16)
        attached = key and s == 0
        bits.put(attached, 1).put(active is not None, 1).put(0, 1).put(1, 1).put(1, 1)
        if attached:
            bits.text += self.structure().text
        if active is not None:
            bits.put(active, self.targets)
        if key:
            diffs = [1] if s else []
        else:
            diffs = [(number - max(self.last[s, below] for below in range(t + 1) if (s, below) in self.last)) & 0xFFFF]
        for diff in diffs:
            bits.put(2, 2).put(diff - 1, 8)
        bits.put(0, 2)
        for chain in range(self.spatial):
            before = self.last.get((chain, 0), number)
            bits.put(min(s, 1) if key and chain >= s else (number - before) & 0xFFFF, 8)
        self.last[s, t] = number
        return bits.to_bytes()
