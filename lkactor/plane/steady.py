"""The Python plane's fan-out: legs in their steady state ride, the others are left.

What `kernel.c` looks at for every leg and burst is looked at here when a leg comes aboard; after that whatever would
make it untrue makes the leg alight (`lkactor.plane.riding`). So a burst costs a look at those that do not ride.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lkactor.plane.convoy import MAX_PAYLOAD, MOST_LEGS, Convoy, Packet, Way
from lkactor.plane.fed import FeedingFanout
from lkactor.plane.intake import InlineReceiver, Intake
from lkactor.plane.riding import RidingLeg
from lkactor.sfu.fanout import PastInPython
from lkactor.sfu.leg import Leg
from lkactor.sfu.receiver import LayerReceiver
from lkactor.srtp import SlotArray
from lkactor.wire.extensions import abs_send_time

if TYPE_CHECKING:
    from lkactor.sfu.frame import Frame


class SteadyFanout(PastInPython, FeedingFanout):
    """The legs of one track."""

    def __init__(self, slots: SlotArray, intake: Intake, kind: str, red: Mapping[int, int], *, protect: bool) -> None:
        super().__init__()
        self._slots, self._intake, self._protect = slots, intake, protect
        self._video = kind == "video"
        self._red = red
        self._legs: tuple[Leg, ...] = ()
        self._loose: list[Leg] | None = None
        """Those that do not ride; None: somebody has boarded or alighted since they were looked up."""
        self._convoys: dict[int, list[Convoy]] = {}
        self._settled: set[tuple[int, int]] = set()
        """Layers and payload types of which nobody is left who could get them, until somebody boards or alights."""
        self.muted = False

    # -- the face to the track --------------------------------------------------------------------------------------

    def set_legs(self, legs: Sequence[Leg]) -> None:
        before, self._legs = self._legs, tuple(legs)
        self._forget_loose()
        for leg in before:
            if isinstance(leg, RidingLeg) and leg not in self._legs and self._carries(leg):
                leg.alight()

    def set_muted(self, muted: bool) -> None:
        self.muted = muted

    def receiver(self, layer: int, clock_rate: int, history: int) -> LayerReceiver:
        return InlineReceiver(layer, clock_rate, history)

    def close(self) -> None:
        super().close()
        for convoys in self._convoys.values():
            for convoy in convoys:
                for leg in list(convoy.legs):
                    leg.alight()
        self._convoys.clear()
        self._settled.clear()

    def forward(self, layer: int, frames: Sequence[Frame], now: float) -> Sequence[Leg]:
        packets = _packets(frames) if self._legs else []
        if not packets:
            return self._legs
        keyframe = self._video and any(frame.keyframe for frame in frames)
        first, types = packets[0].extended, {packet.payload_type for packet in packets}
        left: list[Leg] = []
        served: list[Convoy] = []
        for convoy in self._aboard(layer, types):
            if convoy.newest < first and not convoy.way.socket.divert:
                served.append(convoy)
            else:
                left += convoy.legs
        for leg in self._off_board():
            if self._is_meant(leg, layer) or (keyframe and leg.open):
                boarded = self._board(leg, layer, types, first) if leg.munger.newest < first else None
                if boarded is None:
                    left.append(leg)
                elif boarded not in served:
                    served.append(boarded)
        if keyframe:
            others = (convoys for other, convoys in self._convoys.items() if other != layer)
            left += [leg for convoys in others for convoy in convoys for leg in convoy.legs]
        stamp = abs_send_time(now)
        for convoy in served:
            convoy.serve(packets, stamp, now)
        return left

    # -- what goes past the track -----------------------------------------------------------------------------------

    def count_left(self, layer: int, before: int, extended: int, type: int) -> int:
        """How many legs cannot have a packet of this payload type by `deliver`. Until then nothing but this changes
        who rides."""
        left = 0 if (layer, type) in self._settled else self._let_board(layer, before, extended, type)
        for convoy in self._convoys.get(layer, ()):
            if not convoy.can_serve(before):
                left += len(convoy.legs)
        return left

    def _let_board(self, layer: int, before: int, extended: int, type: int) -> int:
        """Who can, boards; how many cannot."""
        types, left = {type}, 0
        self._aboard(layer, types)
        for leg in self._off_board():
            if self._is_meant(leg, layer):
                is_next = leg.munger.newest == before
                left += not is_next or self._board(leg, layer, types, extended) is None
        if not self._off_board():
            self._settled.add((layer, type))
        return left

    def deliver(self, layer: int, packets: Sequence[Packet], before: int, now: float) -> None:
        """Packets that were counted, newer than `before`, what their source had come to."""
        stamp = abs_send_time(now)
        for convoy in self._convoys.get(layer, ()):
            if convoy.can_serve(before):
                convoy.serve(packets, stamp, now)

    # -- who rides --------------------------------------------------------------------------------------------------

    def _carries(self, leg: RidingLeg) -> bool:
        convoy = leg.convoy
        return convoy is not None and any(convoy in convoys for convoys in self._convoys.values())

    def _aboard(self, layer: int, types: set[int]) -> list[Convoy]:
        """The convoys of a layer; legs that have no payload type for one of `types` have alighted."""
        convoys = self._convoys.get(layer)
        if not convoys:
            return []
        empty = False
        for convoy in convoys:
            for type in types:
                if not convoy.knows(type):
                    for leg in [leg for leg in convoy.legs if type not in leg.payload_types]:
                        leg.alight()
            empty = empty or not convoy.legs
        if empty:
            convoys[:] = [convoy for convoy in convoys if convoy.legs]
        return convoys

    def _off_board(self) -> list[Leg]:
        if self._loose is None:
            self._loose = [leg for leg in self._legs if not isinstance(leg, RidingLeg) or leg.convoy is None]
        return self._loose

    def _forget_loose(self) -> None:
        self._loose = None
        self._settled.clear()

    def _is_meant(self, leg: Leg, layer: int) -> bool:
        """It would get a packet of this layer that is no key frame."""
        return leg.open and (not self._video or leg.current_layer == layer)

    def _board(self, leg: Leg, layer: int, types: set[int], extended: int) -> Convoy | None:
        """If the leg is in its steady state. None: it is not."""
        if not isinstance(leg, RidingLeg) or leg.cell is None or not leg.cell.ready:
            return None
        socket = leg.cell.way
        if socket is None or leg.current_layer != layer or not self._is_steady(leg, types):
            return None
        profile = leg.cell.srtp.profile if leg.cell.srtp is not None and self._protect else None
        way = Way(socket, profile, leg.abs_send_time_id, leg.playout_delay)
        convoys = self._convoys.setdefault(layer, [])
        for convoy in convoys:
            if convoy.way == way and len(convoy.legs) < MOST_LEGS and convoy.newest < extended:
                break
        else:
            convoy = Convoy(self._slots, layer, way, self._forget_loose, protect=self._protect)
            convoys.append(convoy)
        if convoy.newest < 0 or not convoy.legs:
            convoy.newest = leg.munger.newest
        convoy.add(leg, extended)
        self._forget_loose()
        return convoy

    def _is_steady(self, leg: Leg, types: set[int]) -> bool:
        if not leg.munger.started or leg.need_switch or leg.thinner is not None or leg.strips_trailers:
            return False
        known = leg.payload_types
        if not all(type in known for type in types):
            return False
        inner = leg.red_payload_types  # RED passes as it is only if the numbers inside are the same on both sides.
        return all(inner.get(number) == inside for number, inside in self._red.items() if number in known)


def _packets(frames: Sequence[Frame]) -> list[Packet]:
    """None if there is anything among them that is Python's to handle one by one."""
    packets: list[Packet] = []
    previous = -1
    for frame in frames:
        payload, packet, vp8 = frame.payload, frame.packet, frame.descriptor
        extended = frame.extended
        if not payload or len(payload) > MAX_PAYLOAD or frame.recovered or extended <= previous:
            return []
        if frame.layers is not None:
            return []  # Layers inside the stream are chosen per leg (lkactor/sfu/svc.py).
        previous = extended
        fields = vp8.fields if vp8 is not None else None
        packets.append(Packet(extended, frame.timestamp, packet.payload_type, packet.marker, payload, fields))
    return packets
