"""Where a leg goes on with another layer, or after a pause: without a seam in its numbers and times."""

from __future__ import annotations

from lkactor.sfu.frame import Frame
from lkactor.sfu.layers import effective_target, takes_keyframe
from lkactor.sfu.leg import Leg
from lkactor.sfu.source import Source

RESUME_SLACK = 0.2
SWITCH_PATIENCE = 3.0
"""A layer whose sender reports never come is switched to by wall clock after this long."""


class Switcher:
    """Source of the rules: livekit-media section 4.5."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def start_audio(self, leg: Leg, frame: Frame, now: float) -> None:
        if not leg.munger.started:
            leg.munger.start(frame.extended, frame.packet.timestamp)
        else:
            self._resume(leg, frame, now)
        leg.current_layer, leg.need_switch = 0, False
        leg.reports_due = 0.0

    def _resume(self, leg: Leg, frame: Frame, now: float) -> None:
        """The source after a pause or a restart: numbers go on. Time goes as the source's does if that fits the wall
        clock within RESUME_SLACK, else by the wall clock, and never back (livekit-media 4.5)."""
        munger, timestamp = leg.munger, frame.packet.timestamp
        out = munger.timestamp(timestamp)
        elapsed = max(1, int((now - leg.last_sent_at) * self._source.clock_rate))
        expected = (munger.last_timestamp + elapsed) & 0xFFFFFFFF
        slack = int(RESUME_SLACK * self._source.clock_rate)
        if _behind(out, munger.last_timestamp) >= 0 or abs(_behind(out, expected)) > slack:
            out = expected
        munger.switch(frame.extended, timestamp, out)

    def switch(self, leg: Leg, layer: int, frame: Frame, now: float) -> bool:
        """At a key frame of `layer`: take it if it is a step towards the wish. False: not now."""
        target = self.target(leg, now)
        if layer != leg.current_layer and not (
            takes_keyframe(layer, leg.current_layer, target) or (leg.current_layer < 0 and target < 0)
        ):
            return False
        munger = leg.munger
        if not munger.started:
            munger.start(frame.extended, frame.packet.timestamp)
        elif layer == leg.current_layer or leg.current_layer < 0:
            self._resume(leg, frame, now)
        else:
            out = self._aligned(leg, layer, frame, now)
            if out is None:
                return False
            munger.switch(frame.extended, frame.packet.timestamp, out)
        if frame.descriptor is not None:
            leg.vp8.switch(frame.descriptor)
            if leg.thinner is not None:
                leg.thinner.switched(leg.target_temporal)
        leg.svc = None
        leg.current_layer, leg.need_switch = layer, False
        leg.refused_since = None
        leg.reports_due = 0.0
        return True

    def _aligned(self, leg: Leg, layer: int, frame: Frame, now: float) -> int | None:
        """The outgoing timestamp of the first packet of another layer, by both layers' sender reports.

        None: not yet (livekit-media 4.5). After SWITCH_PATIENCE wall clock has to do.
        """
        munger = leg.munger
        old, new = self._source.layers[leg.current_layer], self._source.layers[layer]
        elapsed = int((now - (old.last_arrival if old is not None else now)) * self._source.clock_rate)
        by_clock = (munger.last_timestamp + max(1, elapsed)) & 0xFFFFFFFF
        if old is None or not old.live(now):
            return by_clock  # Nothing of it overlaps the new one, so nobody can see the seam.
        if new is None or old.report is None or new.report is None:
            if leg.refused_since is None:
                leg.refused_since = now
            return by_clock if now - leg.refused_since > SWITCH_PATIENCE else None
        capture = new.report.ntp + ((_signed(frame.packet.timestamp - new.report.rtp) << 32) // self._source.clock_rate)
        in_old = old.report.rtp + ((capture - old.report.ntp) * self._source.clock_rate >> 32)
        out = munger.timestamp(in_old & 0xFFFFFFFF)
        behind = _behind(out, munger.last_timestamp)
        if behind > self._source.clock_rate // 20:
            if leg.refused_since is None:
                leg.refused_since = now
            return by_clock if now - leg.refused_since > SWITCH_PATIENCE else None
        return (munger.last_timestamp + 1) & 0xFFFFFFFF if behind >= 0 else out

    def target(self, leg: Leg, now: float) -> int:
        live = [layer is not None and layer.live(now) for layer in self._source.layers]
        return effective_target(leg.target_layer, live)


def _signed(value: int) -> int:
    """A 32-bit difference."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value & 0x80000000 else value


def _behind(value: int, reference: int) -> int:
    """How far a timestamp is behind another, wrapping; negative: ahead."""
    return _signed(reference - value)
