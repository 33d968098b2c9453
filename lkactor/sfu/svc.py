"""Layers inside one stream (SVC): which packets of it a leg gets.

A `LayerReader` belongs to a forwarder and looks at each packet once; a selector belongs to a leg and decides.

VP9, by the payload descriptor (RFC 9628 section 4.2):

| a leg's layer | changes                                                                                         |
|---------------|-------------------------------------------------------------------------------------------------|
| spatial up    | at the begin of a frame that no earlier picture is needed for (not P)                           |
| temporal up   | at a key picture, and at the begin of a frame of a higher layer that is a switching point (U)   |
| down          | at the begin of a picture                                                                       |

AV1, by the dependency descriptor (RTP Payload Format For AV1, appendix A): of the decode targets that are active and
whose chain is whole, the highest one within the wish is served: its frames, less those that refer to one left out. When
no target within the wish is whole, for example on the way down from a layer whose lower ones were not forwarded, the
lowest whole one is served until the next key frame, so that the picture goes on.

The last packet of the highest layer that goes out gets the marker; a decoder waits for it. Source: livekit-media 4.2.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from lkactor.counters import Counters
from lkactor.errors import ProtocolViolation
from lkactor.sfu.receiver import LIVE_FOR, SPATIALS, TEMPORALS
from lkactor.wire import dependency_descriptor as dd
from lkactor.wire.codecs import vp9
from lkactor.wire.rtp import RtpPacket
from lkactor.wire.sequence import Unwrapper

MAX_SPATIAL = SPATIALS
REMEMBERED_FRAMES = 256
"""Decisions on frames are remembered for packets that come late; a power of two."""


class Rewrite(NamedTuple):
    """What changes in a packet that goes out. `descriptor` is the dependency descriptor to send, empty for none."""

    marker: bool
    descriptor: bytes


class Vp9Layers(NamedTuple):
    """One packet's; `top` is the highest spatial layer that the publisher sends at the moment."""

    descriptor: vp9.Vp9Descriptor
    top: int


class Av1Layers(NamedTuple):
    """One packet's; `number` is its frame's, extended; `active` the set of decode targets that are sent."""

    descriptor: dd.Descriptor
    number: int
    active: int
    data: bytes


Layers = Vp9Layers | Av1Layers
"""What a selector needs to know of a packet."""


def place_of(layers: Layers) -> tuple[int, int, bool]:
    """(spatial layer, temporal layer, a picture begins here)."""
    if isinstance(layers, Vp9Layers):
        found = layers.descriptor
        spatial = min(found.spatial_id or 0, MAX_SPATIAL - 1)
        return spatial, min(found.temporal_id or 0, TEMPORALS - 1), found.start_of_frame and not spatial
    frame = layers.descriptor.frame
    spatial = min(frame.spatial, MAX_SPATIAL - 1)
    return spatial, min(frame.temporal, TEMPORALS - 1), layers.descriptor.first and not spatial


class LayerReader:
    """Reads the layers of the packets of one stream."""

    def __init__(self, mime: str, dependency_id: int, counters: Counters) -> None:
        """`dependency_id`: the publisher's id of the dependency descriptor, 0 without."""
        self._vp9 = mime == "video/vp9"
        self._id = dependency_id
        self._counters = counters
        self._seen = [float("-inf")] * MAX_SPATIAL
        self._structure: dd.Structure | None = None
        self._structure_number = -1
        self._active = 0
        self._numbers = Unwrapper(16)

    def read(self, packet: RtpPacket) -> Layers | None:
        """None: nothing is said of layers, the packet is for everybody. Raises ProtocolViolation: a packet that
        cannot be placed."""
        return self._read_vp9(packet) if self._vp9 else self._read_av1(packet)

    def _read_vp9(self, packet: RtpPacket) -> Layers | None:
        descriptor = vp9.parse_descriptor(packet.payload)
        spatial = descriptor.spatial_id
        if spatial is None:
            return None
        now, seen = packet.arrival, self._seen
        seen[min(spatial, MAX_SPATIAL - 1)] = now
        top = next((layer for layer in (2, 1) if now - seen[layer] < LIVE_FOR), 0)
        return Vp9Layers(descriptor, top)

    def _read_av1(self, packet: RtpPacket) -> Layers | None:
        data = packet.extension(self._id) if self._id else None
        if data is None:
            return None
        try:
            descriptor = dd.parse(data, self._structure)
        except ProtocolViolation:
            if self._structure is None:
                self._counters.count("svc.no_structure")
                return None
            raise
        number = self._numbers.unwrap(descriptor.frame_number)
        if descriptor.attached:
            behind = self._structure_number - number
            if 0 < behind < REMEMBERED_FRAMES:
                raise ProtocolViolation("svc.late_structure")
            if behind == 0 and self._structure is not None:
                descriptor = replace(descriptor, structure=self._structure)  # Said again in the same frame.
            self._structure, self._structure_number = descriptor.structure, number
        if descriptor.active is not None and number >= self._structure_number:
            self._active = descriptor.active
        return Av1Layers(descriptor, number, self._active, data)


class Vp9Selector:
    """One leg's layers of a VP9 stream."""

    __slots__ = ("spatial", "temporal", "wants_key_frame")

    def __init__(self) -> None:
        self.spatial = self.temporal = 0
        self.wants_key_frame = False

    def select(self, packet: RtpPacket, layers: Vp9Layers, spatial: int, temporal: int, late: bool) -> Rewrite | None:
        """`spatial`, `temporal`: the wish. None: not for this leg. A `late` packet changes nothing."""
        found = layers.descriptor
        sid, tid = found.spatial_id or 0, found.temporal_id or 0
        if found.start_of_frame and not late:
            self._switch(found, sid, tid, spatial, temporal)
        self.wants_key_frame = self.spatial < min(spatial, layers.top)
        if sid > self.spatial or tid > self.temporal:
            return None
        # In a key picture more layers may follow that this leg goes up to; if not, the publisher's marker is right.
        done = found.inter_predicted or self.spatial >= spatial
        return Rewrite(packet.marker or (found.end_of_frame and sid == self.spatial and done), b"")

    def _switch(self, found: vp9.Vp9Descriptor, sid: int, tid: int, spatial: int, temporal: int) -> None:
        if sid == 0:
            self.spatial, self.temporal = min(self.spatial, spatial), min(self.temporal, temporal)
            if not found.inter_predicted:
                self.temporal = temporal
        if not found.inter_predicted and self.spatial < sid <= spatial:
            self.spatial = sid
        if found.switching_up and self.temporal < tid <= temporal:
            self.temporal = tid


class Av1Selector:
    """One leg's decode target of an AV1 stream."""

    __slots__ = ("_broken", "_decisions", "_newest", "_restricted", "_structure", "spatial", "temporal",
                 "wants_key_frame")  # fmt: skip

    def __init__(self) -> None:
        self.spatial = self.temporal = -1
        self.wants_key_frame = False
        self._structure: dd.Structure | None = None
        self._broken: list[bool] = []
        self._decisions: dict[int, bool] = {}
        """By frame number: whether it went out."""
        self._newest = -1
        self._restricted = False
        """The subscriber has been told of fewer active targets than there are."""

    def select(self, packet: RtpPacket, layers: Av1Layers, spatial: int, temporal: int, late: bool) -> Rewrite | None:
        """`spatial`, `temporal`: the wish. None: not for this leg."""
        found, number = layers.descriptor, layers.number
        if found.structure is not self._structure:
            if not found.attached:
                self.wants_key_frame = True  # The key frame of this structure was missed.
                return None
            self._adopt(found.structure, number)
        decision = self._decisions.get(number)
        if decision is None:
            decision = self._decide(layers, spatial, temporal)
            self._remember(number, decision)
        if not decision:
            return None
        marker = packet.marker or (found.last and found.frame.spatial == self.spatial)
        return Rewrite(marker, self._rewritten(layers))

    def _adopt(self, structure: dd.Structure, number: int) -> None:
        """A key frame: nothing after it refers to what was before."""
        self._structure = structure
        self._decisions.clear()
        self._newest = number - 1
        self._broken = [True] * structure.chains
        self._restricted = False

    def _remember(self, number: int, decision: bool) -> None:
        self._decisions[number] = decision
        if len(self._decisions) > REMEMBERED_FRAMES:
            del self._decisions[next(iter(self._decisions))]

    def _decide(self, layers: Av1Layers, spatial: int, temporal: int) -> bool:
        found, number, decisions = layers.descriptor, layers.number, self._decisions
        frame = found.frame
        if number > self._newest:
            self._newest = number
            for chain, diff in enumerate(frame.chain_diffs):
                # Appendix A.4: a chain is whole from a frame that begins it on, as long as each of its frames went out.
                if diff == 0:
                    self._broken[chain] = False
                elif decisions.get(number - diff) is False:
                    self._broken[chain] = True
        target = self._target(layers, spatial, temporal)
        if target < 0:
            return False
        self.spatial, self.temporal = found.structure.targets[target]
        if frame.dtis[target] == dd.NOT_PRESENT:
            return False
        return not any(decisions.get(number - diff) is False for diff in frame.fdiffs)

    def _target(self, layers: Av1Layers, spatial: int, temporal: int) -> int:
        """The decode target to serve, -1: none is whole. Says whether a key frame would allow a better one."""
        structure = layers.descriptor.structure
        best = wished = lowest = -1
        for index, reach in enumerate(structure.targets):
            if not layers.active >> index & 1:
                continue
            fits = reach[0] <= spatial and reach[1] <= temporal
            whole = not structure.chains or not self._broken[structure.protected_by[index]]
            if fits and (wished < 0 or reach > structure.targets[wished]):
                wished = index
            if whole and fits and (best < 0 or reach > structure.targets[best]):
                best = index
            if whole and (lowest < 0 or _rank(reach, temporal) < _rank(structure.targets[lowest], temporal)):
                lowest = index
        served = best if best >= 0 else lowest
        self.wants_key_frame = served < 0 or (
            wished >= 0 and structure.targets[served][0] != structure.targets[wished][0]
        )
        return served

    def _rewritten(self, layers: Av1Layers) -> bytes:
        """Once the subscriber has been told that some targets are off, every packet says which are on."""
        structure = layers.descriptor.structure
        mine = 0
        for index, (spatial, temporal) in enumerate(structure.targets):
            if layers.active >> index & 1 and spatial <= self.spatial and temporal <= self.temporal:
                mine |= 1 << index
        if mine == layers.active and not self._restricted:
            return layers.data
        self._restricted = True
        return dd.with_active(layers.data, layers.descriptor, mine)


Selector = Vp9Selector | Av1Selector


def select(
    selector: Selector | None, packet: RtpPacket, layers: Layers, spatial: int, temporal: int, late: bool
) -> tuple[Selector, Rewrite | None]:
    """Decide with the leg's selector; one is made where there is none of the right kind."""
    if isinstance(layers, Vp9Layers):
        if not isinstance(selector, Vp9Selector):
            selector = Vp9Selector()
        return selector, selector.select(packet, layers, spatial, temporal, late)
    if not isinstance(selector, Av1Selector):
        selector = Av1Selector()
    return selector, selector.select(packet, layers, spatial, temporal, late)


def _rank(reach: tuple[int, int], temporal: int) -> tuple[int, int]:
    """For the lowest: the smallest picture, of these the one nearest below the wished rate."""
    return reach[0], temporal - reach[1] if reach[1] <= temporal else MAX_SPATIAL + reach[1]
