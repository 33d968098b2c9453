"""Which layer of each video a subscriber gets when its downlink cannot carry what it asks for. Pure.

| state     | while                              | what a track gets                                                |
|-----------|------------------------------------|------------------------------------------------------------------|
| STABLE    | every track is at its best layer   | no limit: the forwarder takes the best there is, within the wish |
| DEFICIENT | some track is below its best layer | the layer it was allocated; changes are cooperative              |

`allocate_all` fills layer by layer, in each layer by priority, so that as many tracks as possible play at all before
any of them gets better. What fits no more is left out; without `allow_pause` the lowest layer is given even so. A track
that changes while the channel is short (unmuted, another wish, a layer gone) disturbs the others as little as it can:
one that plays does not go up, one that has to start takes what is free, or from those of the least priority that are
closest to their wish: of each the step down that saves most for what it costs. What is given back goes to the track
that is farthest from its wish. A screen share with a single layer is exempt: it has no smaller version, and its
bandwidth is taken off first.

Source: livekit-media 4.13. Where this differs from the reference: while a capacity is imposed (SimulateScenario), each
change is allocated within it, and clearing it lets the tracks rise at once, not only after a probe.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from lkactor.sfu.layers import MAX_LAYERS
from lkactor.sfu.leg import MAX_TEMPORAL
from lkactor.sfu.rates import Rates

UNKNOWN_CAPACITY = 100_000_000
"""Bits per second, until there is reason to believe in less."""
SCREEN_PRIORITY, VIDEO_PRIORITY = 255, 1
SPATIAL_COST = 10
"""A change of picture size needs a key frame, one of the frame rate nothing."""
PROBE_OVERAGE = 1.2
PROBE_MIN = 200_000
"""Bits per second a probe asks for at least."""
DRIFT = 1.1
"""How far the measured rates may grow over an imposed capacity until it is allocated anew."""


class Layer(NamedTuple):
    """Ordered: a larger picture is better than a higher frame rate."""

    spatial: int
    temporal: int


NOTHING = Layer(-1, -1)
UNLIMITED = Layer(MAX_LAYERS - 1, MAX_TEMPORAL)


@dataclass(slots=True, eq=False)
class AllocatedTrack:
    """One video on its way to the subscriber, as the allocation knows it."""

    sid: str
    priority: int = VIDEO_PRIORITY
    managed: bool = True
    wanted: Layer = UNLIMITED
    rates: Rates = ()
    muted: bool = False
    """By the publisher or by the subscriber: it needs nothing now."""
    limit: Layer = UNLIMITED
    """The decision: no better than this; NOTHING with `paused`: the channel has no room for it."""
    paused: bool = False
    _found: tuple[object, Layer] | None = field(default=None, repr=False)
    """The target, and what it was found from: it is asked for with every report of the subscriber."""

    def rate(self, layer: Layer) -> int:
        spatial, temporal = layer
        if spatial < 0 or spatial >= len(self.rates) or temporal >= len(self.rates[spatial]):
            return 0
        return self.rates[spatial][temporal]

    def sent(self) -> Iterator[Layer]:
        """The layers that there are, upwards."""
        for spatial, row in enumerate(self.rates):
            for temporal, rate in enumerate(row):
                if rate:
                    yield Layer(spatial, temporal)

    def choices(self) -> list[Layer]:
        """Upwards. If nothing within the wish is sent, the lowest layer there is."""
        wanted = self.wanted
        every = list(self.sent())
        within = [layer for layer in every if layer.spatial <= wanted.spatial and layer.temporal <= wanted.temporal]
        return within or every[:1]

    @property
    def best(self) -> Layer:
        choices = self.choices()
        return choices[-1] if choices and not self.muted else NOTHING

    @property
    def target(self) -> Layer:
        """What it gets now."""
        if self.muted or self.paused:
            return NOTHING
        given = self.rates, self.wanted, self.limit
        if self._found is None or self._found[0] != given:
            self._found = given, self._find_target()
        return self._found[1]

    def _find_target(self) -> Layer:
        choices = self.choices()
        within = [layer for layer in choices if layer <= self.limit]
        return within[-1] if within else (choices[0] if choices else NOTHING)

    @property
    def usage(self) -> int:
        return self.rate(self.target)

    @property
    def deficient(self) -> bool:
        return self.managed and not self.muted and (self.paused or self.target < self.best)

    @property
    def distance(self) -> int:
        """In steps of quality from the best there is."""
        best, target = self.best, self.target
        if best == NOTHING:
            return 0
        return (best.spatial - target.spatial) * (MAX_TEMPORAL + 1) + best.temporal - target.temporal

    def next_higher(self) -> Layer | None:
        """A higher frame rate if there is one, else the next larger picture at its lowest rate."""
        target = self.target
        above = [layer for layer in self.choices() if layer > target]
        return above[0] if above else None

    def give(self, layer: Layer) -> None:
        self.limit, self.paused = layer, False

    def pause(self) -> None:
        self.limit, self.paused = NOTHING, True

    def cheapest_loss(self) -> tuple[Layer, int]:
        """The step down that saves most for what it costs, and what it saves; (the target, 0): none does."""
        target, usage = self.target, self.usage
        best, value, saved = target, 0.0, 0
        if target == NOTHING:
            return best, 0
        reach = max((layer.temporal for layer in self.choices()), default=0) + 1
        for layer in self.choices():
            if layer >= target or layer.temporal > target.temporal:
                continue
            cost = reach * (target.spatial - layer.spatial) + target.temporal - layer.temporal
            cost += SPATIAL_COST if layer.spatial != target.spatial else 0
            saving = max(0, usage - self.rate(layer))
            if saving / cost > value:
                best, value, saved = layer, saving / cost, saving
        return best, saved


class StreamAllocator:
    """All videos of one subscriber. The decisions are in `tracks`: `limit` and `paused`."""

    def __init__(self, *, allow_pause: bool) -> None:
        self.allow_pause = allow_pause
        self.tracks: dict[str, AllocatedTrack] = {}
        self.committed = UNKNOWN_CAPACITY
        self.imposed = 0
        """Bits per second that override everything known; 0: none."""
        self.deficient = False

    @property
    def capacity(self) -> int:
        return self.imposed or self.committed

    @property
    def usage(self) -> int:
        """Bits per second that the present allocation needs."""
        return sum(track.usage for track in self.tracks.values())

    # -- changes of the channel -------------------------------------------------------------------------------------

    def congested(self, capacity: int) -> None:
        """The channel carries less than what is sent."""
        self.committed = capacity
        self.allocate_all()

    def impose(self, capacity: int) -> None:
        """0 clears it."""
        self.imposed = max(0, capacity)
        if self.imposed:
            self.allocate_all()
        else:
            self.boost()

    def proven(self, capacity: int) -> None:
        """A probe went well."""
        self.committed = max(self.committed, capacity)
        self.boost()

    # -- changes of tracks ------------------------------------------------------------------------------------------

    def add(self, track: AllocatedTrack) -> None:
        self.tracks[track.sid] = track
        if self.imposed:
            self.allocate_all()
        elif self.deficient and track.managed:
            track.limit = NOTHING
            self._cooperate(track, NOTHING)

    def remove(self, sid: str) -> None:
        if self.tracks.pop(sid, None) is not None:
            self._given_back()

    def change(
        self,
        sid: str,
        *,
        wanted: Layer,
        muted: bool,
        rates: Rates,
        priority: int = VIDEO_PRIORITY,
        managed: bool = True,
    ) -> None:
        """What is known of a track now. Rates that only grow or shrink change no decision by themselves."""
        track = self.tracks[sid]
        same = (track.wanted, track.muted, track.rates, track.priority) == (wanted, muted, rates, priority)
        if same and track.managed == managed and not self.imposed:
            return
        before, target, reordered = (track.wanted, track.muted, list(track.sent())), track.target, False
        if track.priority != priority or track.managed != managed:
            track.priority, track.managed, reordered = priority, managed, True
        track.wanted, track.muted, track.rates = wanted, muted, rates
        changed = before != (wanted, muted, list(track.sent()))
        if self.imposed:
            if changed or reordered or self.usage > self.imposed * DRIFT:
                self.allocate_all()
        elif self.deficient and reordered:
            self.allocate_all()
        elif self.deficient and changed and track.managed:
            self._cooperate(track, target)

    # -- allocation -------------------------------------------------------------------------------------------------

    def allocate_all(self) -> None:
        left = self.capacity
        for track in self.tracks.values():
            if not track.managed:
                track.give(UNLIMITED)
                left -= track.usage
        left = max(0, left)
        managed = sorted(
            (track for track in self.tracks.values() if track.managed),
            key=lambda track: (-track.priority, -track.wanted.spatial, -track.wanted.temporal),
        )
        chosen = dict.fromkeys((track.sid for track in managed), NOTHING)
        choices = {track.sid: frozenset(track.choices()) for track in managed if not track.muted}
        steps = [Layer(s, t) for s in range(MAX_LAYERS) for t in range(MAX_TEMPORAL + 1)]
        for layer in steps:
            for track in managed:
                if layer not in choices.get(track.sid, ()):
                    continue
                have = chosen[track.sid]
                more = track.rate(layer) - track.rate(have)
                if more <= left or (have == NOTHING and not self.allow_pause):
                    chosen[track.sid] = layer
                    left = max(0, left - more)
        for track in managed:
            self._commit(track, chosen[track.sid])
        self._settle()

    def _commit(self, track: AllocatedTrack, layer: Layer) -> None:
        if layer != NOTHING:
            track.give(layer)
        elif track.muted or not any(track.sent()):
            track.give(Layer(0, MAX_TEMPORAL))  # Nothing to decide on yet; it is to begin small.
        else:
            track.pause()

    def _cooperate(self, track: AllocatedTrack, target: Layer) -> None:
        """`track`, which was at `target`, has changed while the channel is short."""
        best = track.best
        if best == NOTHING or target > best:
            self._commit(track, best)
            self._given_back()
        elif target != NOTHING:
            still = [layer for layer in track.choices() if layer <= target]
            layer = still[-1] if still else track.choices()[0]
            self._commit(track, layer)
            if layer < target:
                self._given_back()  # What it played is no longer sent.
            self._settle()
        elif not self._start_in_headroom(track):
            self._start_at_cost(track)

    def _start_in_headroom(self, track: AllocatedTrack) -> bool:
        track.pause()
        left, found = self.capacity - self.usage, NOTHING
        for layer in track.choices():
            if track.rate(layer) > left:
                break
            found = layer
        if found != NOTHING:
            track.give(found)
            self._settle()
        return found != NOTHING

    def _start_at_cost(self, track: AllocatedTrack) -> None:
        """Its lowest layer, at the cost of others of no higher priority."""
        lowest = track.choices()[0]
        needed = track.rate(lowest) - max(0, self.capacity - self.usage)
        others = sorted(
            (
                other
                for other in self.tracks.values()
                if other.managed and other is not track and other.priority <= track.priority
            ),
            key=lambda other: (other.priority, other.distance),
        )
        losses: list[tuple[AllocatedTrack, Layer]] = []
        for other in others:
            layer, saved = other.cheapest_loss()
            if saved and needed > 0:
                losses.append((other, layer))
                needed -= saved
        if needed <= 0:
            for other, layer in losses:
                other.give(layer)
        if needed <= 0 or not self.allow_pause:
            track.give(lowest)
        else:
            track.pause()
        self._settle()

    def _given_back(self) -> None:
        if self.imposed:
            self.allocate_all()
        elif self.deficient:
            self.boost()

    def boost(self) -> None:
        """Use what is free for the tracks that are farthest from their wish, step by step."""
        left = self.capacity - self.usage
        while left > 0 and self._boost_one(left):
            left = self.capacity - self.usage
        self._settle()

    def _boost_one(self, left: int) -> bool:
        for track in self._farthest():
            layer = track.next_higher()
            if layer is not None and track.rate(layer) - track.usage <= left:
                track.give(layer)
                return True
        return False

    def _farthest(self) -> Iterable[AllocatedTrack]:
        deficient = [track for track in self.tracks.values() if track.deficient]
        return sorted(deficient, key=lambda track: (-track.priority, -track.distance))

    def _settle(self) -> None:
        self.deficient = any(track.deficient for track in self.tracks.values())
        if not self.deficient and not self.imposed:
            for track in self.tracks.values():
                track.give(UNLIMITED)

    def probe_goal(self) -> tuple[int, int] | None:
        """(bits per second in use, bits per second to try) for the next step up; None: nothing to gain."""
        for track in self._farthest():
            layer = track.next_higher()
            if layer is not None and track.rate(layer) >= track.usage:
                usage = self.usage
                return usage, usage + max(int((track.rate(layer) - track.usage) * PROBE_OVERAGE), PROBE_MIN)
        return None
