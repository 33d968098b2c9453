"""Dependency descriptor: which frame of a layered stream a packet belongs to, and what needs it (RTP Payload Format For
AV1, appendix A; used with VP9 as well).

    |F|L| template id 6 | frame number 16 |                                   always
    |S|A|D|R|C| structure (S) | active targets (A) | custom DTIs (D), fdiffs (R), chains (C) |   if longer than 3 bytes

The structure names the templates; it comes with a key frame and holds until the next one. A template's number counts
from the structure's, modulo 64, so frames of another structure are recognized. Read only, but for the set of active
decode targets (`with_active`), which is all that a forwarder changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from lkactor.errors import ProtocolViolation

MAX_TEMPLATES = 64
MAX_SPATIAL, MAX_TEMPORAL = 4, 8
MAX_FDIFFS = 16
NOT_PRESENT, DISCARDABLE, SWITCH, REQUIRED = range(4)
"""Decode target indications (appendix A.8.3)."""


@dataclass(frozen=True, slots=True)
class Template:
    """`dtis` by decode target, `fdiffs` to the frames it refers to, `chain_diffs` by chain to the frame before it."""

    spatial: int
    temporal: int
    dtis: tuple[int, ...]
    fdiffs: tuple[int, ...]
    chain_diffs: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """Compared by identity: each key frame brings a new one."""

    id: int
    targets: tuple[tuple[int, int], ...]
    """(spatial, temporal) of each decode target: the highest layers that it includes."""
    protected_by: tuple[int, ...]
    """The chain of each decode target; empty without chains."""
    chains: int
    templates: tuple[Template, ...]
    resolutions: tuple[tuple[int, int], ...]

    @property
    def all_active(self) -> int:
        return (1 << len(self.targets)) - 1


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One packet's. `frame` is its template, with what the descriptor says otherwise."""

    first: bool
    last: bool
    frame_number: int
    frame: Template
    structure: Structure
    attached: bool
    """The structure came with this packet."""
    active: int | None
    """The set of active decode targets, bit 0 the first; None: as before."""
    tail: int
    """The bits behind the set of active targets..."""
    tail_bits: int
    flags: int


class _Bits:
    """Big endian, the first bit is the highest."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self.left = 8 * len(data)

    def take(self, count: int) -> int:
        self.left -= count
        if self.left < 0:
            raise ProtocolViolation("dependency_descriptor.truncated")
        return self._value >> self.left & ((1 << count) - 1)

    def rest(self) -> int:
        return self._value & ((1 << self.left) - 1)

    def non_symmetric(self, count: int) -> int:
        """A value below `count` in as few bits as it takes (AV1 section 4.10.7)."""
        width = count.bit_length()
        short = (1 << width) - count
        value = self.take(width - 1)
        return value if value < short else (value << 1) - short + self.take(1)


def parse(data: bytes, structure: Structure | None) -> Descriptor:
    """`structure` is the stream's present one. Raises ProtocolViolation("dependency_descriptor.…")."""
    bits = _Bits(data)
    first, last = bool(bits.take(1)), bool(bits.take(1))
    template_id, frame_number = bits.take(6), bits.take(16)
    flags = bits.take(5) if bits.left else 0
    attached = bool(flags & 0b10000)
    if attached:
        structure = _structure(bits)
    if structure is None:
        raise ProtocolViolation("dependency_descriptor.no_structure")
    active = bits.take(len(structure.targets)) if flags & 0b01000 else (structure.all_active if attached else None)
    tail, tail_bits = bits.rest(), bits.left
    index = (template_id - structure.id) % MAX_TEMPLATES
    if index >= len(structure.templates):
        raise ProtocolViolation("dependency_descriptor.template")
    frame = _customized(bits, structure, structure.templates[index], flags)
    return Descriptor(first, last, frame_number, frame, structure, attached, active, tail, tail_bits, flags)


def _customized(bits: _Bits, structure: Structure, frame: Template, flags: int) -> Template:
    if not flags & 0b00111:
        return frame
    dtis, fdiffs, chain_diffs = frame.dtis, frame.fdiffs, frame.chain_diffs
    if flags & 0b00100:
        dtis = tuple(bits.take(2) for _ in structure.targets)
    if flags & 0b00010:
        fdiffs = _frame_diffs(bits)
    if flags & 0b00001:
        chain_diffs = tuple(bits.take(8) for _ in range(structure.chains))
    return Template(frame.spatial, frame.temporal, dtis, fdiffs, chain_diffs)


def _frame_diffs(bits: _Bits) -> tuple[int, ...]:
    """A width in units of 4 bits, 0 ends (appendix A.8.2, frame_fdiffs)."""
    found: list[int] = []
    while width := bits.take(2):
        if len(found) == MAX_FDIFFS:
            raise ProtocolViolation("dependency_descriptor.fdiffs")
        found.append(bits.take(4 * width) + 1)
    return tuple(found)


def _structure(bits: _Bits) -> Structure:
    id, targets = bits.take(6), bits.take(5) + 1
    layers = _layers(bits)
    dtis = [tuple(bits.take(2) for _ in range(targets)) for _ in layers]
    fdiffs = [_template_diffs(bits) for _ in layers]
    chains = bits.non_symmetric(targets + 1)
    protected_by = tuple(bits.non_symmetric(chains) for _ in range(targets)) if chains else ()
    chain_diffs = [tuple(bits.take(4) for _ in range(chains)) for _ in layers]
    resolutions: tuple[tuple[int, int], ...] = ()
    if bits.take(1):
        resolutions = tuple((bits.take(16) + 1, bits.take(16) + 1) for _ in range(layers[-1][0] + 1))
    templates = tuple(
        Template(spatial, temporal, dtis[index], fdiffs[index], chain_diffs[index])
        for index, (spatial, temporal) in enumerate(layers)
    )
    return Structure(
        id=id,
        targets=tuple(_reach(templates, target) for target in range(targets)),
        protected_by=protected_by,
        chains=chains,
        templates=templates,
        resolutions=resolutions,
    )


def _layers(bits: _Bits) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    spatial = temporal = 0
    while True:
        if len(found) == MAX_TEMPLATES:
            raise ProtocolViolation("dependency_descriptor.templates")
        found.append((spatial, temporal))
        match bits.take(2):
            case 1:
                temporal += 1
            case 2:
                spatial, temporal = spatial + 1, 0
            case 3:
                return found
        if spatial >= MAX_SPATIAL or temporal >= MAX_TEMPORAL:
            raise ProtocolViolation("dependency_descriptor.layers")


def _template_diffs(bits: _Bits) -> tuple[int, ...]:
    found: list[int] = []
    while bits.take(1):
        if len(found) == MAX_FDIFFS:
            raise ProtocolViolation("dependency_descriptor.fdiffs")
        found.append(bits.take(4) + 1)
    return tuple(found)


def _reach(templates: tuple[Template, ...], target: int) -> tuple[int, int]:
    """The highest layers of a decode target: of the templates that are present in it."""
    present = [template for template in templates if template.dtis[target] != NOT_PRESENT]
    return max((t.spatial for t in present), default=0), max((t.temporal for t in present), default=0)


def with_active(data: bytes, descriptor: Descriptor, active: int) -> bytes:
    """The same descriptor with another set of active decode targets. A structure's own packet stays as it is: with it
    all targets are active."""
    if descriptor.attached:
        return data
    targets = len(descriptor.structure.targets)
    flags = descriptor.flags | 0b01000
    bits = (flags << targets | active) << descriptor.tail_bits | descriptor.tail
    length = 5 + targets + descriptor.tail_bits
    return data[:3] + (bits << (-length % 8)).to_bytes((length + 7) // 8, "big")
