"""One subscriber's downlink as a whole: what it reports, what its tracks may send, when to try for more. Pure.

Reads the rows (`Leg`): what each is offered, wished and has sent. Says per row what may go out (`decisions`), and while
a probe runs how much more is to be sent (`take_probe`). Nothing is due while nothing is short: then only REMBs are
looked at, some ten a second at most, and the rows only when those tell something.

Source: livekit-media 4.9, 4.12, 4.13.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from lkactor.sfu.allocator import (
    NOTHING,
    SCREEN_PRIORITY,
    UNLIMITED,
    VIDEO_PRIORITY,
    AllocatedTrack,
    Layer,
    StreamAllocator,
)
from lkactor.sfu.bandwidth import ProbeResult, RemoteEstimator
from lkactor.sfu.leg import MAX_TEMPORAL, Leg

TICK = 0.1
PROBE_TICK = 0.02
PROBE_OCTETS = 1100
"""A burst of a probe is at least this large."""
PAUSED_MIN_WAIT = 5.0
"""Seconds of nothing sent after which a congestion is over, for nothing can tell so."""


class CongestionControl:
    """Verbs: `observe` after what changes the rows, `on_remb`, `impose`, `next_timeout`, `handle_timeout`."""

    def __init__(self, *, enabled: bool, allow_pause: bool, now: float) -> None:
        self.enabled = enabled
        self.allocator = StreamAllocator(allow_pause=allow_pause)
        self._estimator = RemoteEstimator(now)
        self._legs: dict[str, Leg] = {}
        self._priorities: dict[str, int] = {}
        self._counted: dict[str, tuple[int, int]] = {}
        self._tick: float | None = None
        self._probe_ends = self._probe_began = 0.0
        self._probe_rate = 0
        """Bits per second on top of what is sent anyway; 0: no probe is sent."""
        self._probe_sent = self._probe_due = 0
        self._was_deficient = False

    @property
    def deficient(self) -> bool:
        return self.allocator.deficient

    # -- the rows ---------------------------------------------------------------------------------------------------

    def set_priority(self, sid: str, priority: int) -> None:
        """The subscriber's wish, 1..255; 0: the usual."""
        if priority:
            self._priorities[sid] = min(priority, SCREEN_PRIORITY)
        else:
            self._priorities.pop(sid, None)

    def observe(self, legs: Iterable[Leg], now: float) -> None:
        """The rows as they are now."""
        if self.enabled:
            self._observe(_videos(legs), now)

    def _observe(self, videos: dict[str, Leg], now: float) -> None:
        self._legs = videos
        allocator = self.allocator
        for sid in allocator.tracks.keys() - self._legs.keys():
            allocator.remove(sid)
        for sid, leg in self._legs.items():
            offer = leg.offer
            wanted = Layer(leg.wanted_layer, leg.wanted_temporal)
            muted = leg.disabled or offer.muted
            priority = self._priorities.get(sid, SCREEN_PRIORITY if offer.screen else VIDEO_PRIORITY)
            managed = offer.multiple or not offer.screen
            if sid not in allocator.tracks:
                allocator.add(AllocatedTrack(sid, priority, managed, wanted, offer.rates, muted))
            else:
                allocator.change(sid, wanted=wanted, muted=muted, rates=offer.rates, priority=priority, managed=managed)
        self._settle(now)

    def _settle(self, now: float) -> None:
        """Enter or leave the state in which something is short."""
        deficient = self.allocator.deficient
        if self._was_deficient and not deficient:
            self._estimator.reset(now)
            self._probe_rate = 0
        self._was_deficient = deficient
        if not (deficient or self.allocator.imposed):
            self._tick = None
        elif self._tick is None:
            self._tick = now + TICK

    def decisions(self) -> Iterator[tuple[Leg, Layer, bool]]:
        """(row, limit, held back for want of bandwidth) of every row."""
        for sid, track in self.allocator.tracks.items():
            leg, limit = self._legs.get(sid), track.limit
            if leg is None:
                continue
            if limit not in (UNLIMITED, NOTHING) and limit.temporal >= self._top_temporal(track, limit.spatial):
                limit = Layer(limit.spatial, MAX_TEMPORAL)  # All frames: nothing has to be picked out.
            yield leg, limit, track.paused and not track.muted

    @staticmethod
    def _top_temporal(track: AllocatedTrack, spatial: int) -> int:
        return max((layer.temporal for layer in track.sent() if layer.spatial == spatial), default=0)

    # -- what the subscriber says -----------------------------------------------------------------------------------

    def on_remb(self, bitrate: int, legs: Iterable[Leg], now: float) -> bool:
        """`legs`: the rows as they are now. False: all is as it was, and nothing is short."""
        videos = _videos(legs) if self.enabled else {}
        if not videos:
            return False
        packets, repeated = self._count(videos)
        telling = self._estimator.on_remb(bitrate, packets, repeated, now)
        if not telling and self._tick is None:
            return False
        self._observe(videos, now)
        capacity = self._estimator.keep_to(bitrate, self.allocator.usage) if telling else None
        if capacity is not None:
            self.allocator.congested(capacity)
            self._settle(now)
        return True

    def _count(self, videos: Mapping[str, Leg]) -> tuple[int, int]:
        """Packets sent, and NACKs that repeat, since the last call."""
        before, packets, repeated = self._counted, 0, 0
        self._counted = now = {sid: (leg.packets, leg.repeated_nacks) for sid, leg in videos.items()}
        for sid, (sent, asked) in now.items():
            sent_before, asked_before = before.get(sid, (sent, asked))
            packets += max(0, sent - sent_before)
            repeated += max(0, asked - asked_before)
        return packets, repeated

    def impose(self, capacity: int, now: float) -> None:
        """SimulateScenario: bits per second, 0 clears it."""
        if self.enabled:
            self.allocator.impose(capacity)
            self._settle(now)

    # -- time -------------------------------------------------------------------------------------------------------

    def next_timeout(self) -> float | None:
        return self._tick

    def handle_timeout(self, now: float) -> None:
        """Call `observe` first."""
        if self._tick is None or now < self._tick:
            return
        self._reset_if_silent(now)
        if self._probe_rate:
            self._run_probe(now)
        result = self._estimator.finish_probe(now)
        if result is not None and not result.congesting:
            self.allocator.proven(self._believed(result))
        self._settle(now)
        if self.allocator.deficient and not self.allocator.imposed and self._estimator.can_probe(now):
            self._start_probe(now)
        if self._tick is not None:
            self._tick = now + (PROBE_TICK if self._probe_rate else TICK)

    def _reset_if_silent(self, now: float) -> None:
        """With everything held back no REMB comes that could end the congestion."""
        last = max((leg.last_sent_at for leg in self._legs.values()), default=now)
        if self.allocator.allow_pause and self._estimator.congested and now - last > PAUSED_MIN_WAIT:
            self._estimator.reset(now, self.allocator.committed)
            self._probe_rate = 0

    def _believed(self, result: ProbeResult) -> int:
        """With nothing on its way estimates are rare, and rise slowly from what little the probes send. As long as none
        speaks against it something small is tried then; the reference tries everything."""
        blind = not self.allocator.usage and result.hopeful
        return max(result.capacity, self._estimator.desired) if blind else result.capacity

    def _start_probe(self, now: float) -> None:
        goal = self.allocator.probe_goal()
        if goal is None:
            return
        self._estimator.rtt = max((leg.rtt for leg in self._legs.values()), default=self._estimator.rtt)
        usage, desired = goal
        self._estimator.start_probe(desired, now)
        self._probe_rate = desired - usage
        self._probe_began, self._probe_ends = now, now + self._estimator.probe_duration
        self._probe_sent, self._probe_due = 0, PROBE_OCTETS

    def _run_probe(self, now: float) -> None:
        elapsed = min(now, self._probe_ends) - self._probe_began
        missing = int(self._probe_rate * elapsed / 8) - self._probe_sent
        over = now >= self._probe_ends
        if self._estimator.congested or self._estimator.goal_reached or over:
            self._estimator.end_probe(now)
            self._probe_rate = 0
        elif missing > 0:
            self._probe_due = max(PROBE_OCTETS, missing)

    def take_probe(self) -> tuple[Leg, int] | None:
        """The row that is to send so many octets more, now."""
        octets, self._probe_due = self._probe_due, 0
        leg = next((leg for leg in self._legs.values() if _can_probe(leg)), None)
        if not octets or leg is None:
            return None
        self._probe_sent += octets
        return leg, octets


def _can_probe(leg: Leg) -> bool:
    """The client knows the stream, and its estimate sees what is sent on it."""
    return leg.report is not None and bool(leg.abs_send_time_id) and leg.munger.started and bool(leg.rtx_payload_types)


def _videos(legs: Iterable[Leg]) -> dict[str, Leg]:
    """By track."""
    return {leg.track_id: leg for leg in legs if leg.kind == "video"}
