"""How much a subscriber's downlink carries, from what its client says: REMB, and NACKs that repeat. Pure.

A REMB is no capacity: while little is sent it only follows what is sent. It is its fall that tells, so the estimate is
taken over only when the values show a trend downwards (Kendall's tau) or packets are asked for again and again, and it
is below what is being sent. To find out whether there is more again, the server sends more for a moment (a probe).

| state     | event                            | next      | effect                                        |
|-----------|----------------------------------|-----------|-----------------------------------------------|
| CLEAR     | falling, estimate < 95 % of use  | CONGESTED | capacity = the estimate                       |
| CLEAR     | repeated NACKs > 8 % for 2 s     | CONGESTED | capacity = use x (1 - 0.4 x ratio), <= REMB   |
| CONGESTED | falling still                    | CONGESTED | capacity again, if it is another              |
| CONGESTED | neither                          | CLEAR     | probes are allowed                            |
| probing   | falling, or NACKs                | CONGESTED | until the probe is over: it has failed        |
| settling  | 5 round trips after the probe    | CLEAR     | result; a failed one makes the next later     |

Evaluated only when a REMB comes. Times are seconds, rates bits per second. Source: livekit-media 4.12.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto

from lkactor.sfu.allocator import UNKNOWN_CAPACITY
from lkactor.sfu.leg import INITIAL_RTT

EXPECTED_USAGE_THRESHOLD = 0.95
NACK_ATTENUATION = 0.4
SETTLE_ROUND_TRIPS, SETTLE_MIN, SETTLE_MAX = 5, 0.25, 5.0
PROBE_INTERVAL, PROBE_BACKOFF, PROBE_INTERVAL_MAX = 3.0, 1.5, 120.0
PROBE_DURATION, PROBE_DURATION_GROWTH, PROBE_DURATION_MAX = 0.2, 1.5, 20.0


class Trend(Enum):
    UNCLEAR = auto()
    UP = auto()
    DOWN = auto()


@dataclass(frozen=True, slots=True)
class TrendConfig:
    """`samples` make a trend; `samples_min` do when they stretch over `max_wait`. A value that repeats the last one
    counts only every `collapse` seconds. Older ones than `validity` do not count."""

    samples: int
    samples_min: int
    threshold: float
    max_wait: float = 5.0
    collapse: float = 0.0
    validity: float = 10.0


@dataclass(frozen=True, slots=True)
class NackConfig:
    """A window begins with the first repeated NACK, tells after `window_min` and ends after `window_max`."""

    window_min: float
    window_max: float
    threshold: float


USUAL = (TrendConfig(12, 8, -0.6, collapse=0.5), NackConfig(2.0, 3.0, 0.08))
PROBING = (TrendConfig(3, 3, 0.0), NackConfig(0.5, 1.0, 0.04))


class TrendDetector:
    """Of the estimates of a while."""

    def __init__(self, config: TrendConfig) -> None:
        self._config = config
        self._samples: deque[tuple[float, int]] = deque()
        self._count = 0
        self.first = self.highest = 0
        self.direction = Trend.UNCLEAR

    @property
    def enough(self) -> bool:
        return self._count >= self._config.samples

    def add(self, value: int, now: float) -> None:
        config, samples = self._config, self._samples
        self._count += 1
        self.first = self.first or value
        self.highest = max(self.highest, value)
        if samples and samples[-1][1] == value and now - samples[-1][0] < config.collapse:
            return
        samples.append((now, value))
        self._prune(now)
        tau, count = self._tau(), len(samples)
        long = samples[-1][0] - samples[0][0] > config.max_wait
        self.direction = Trend.UNCLEAR
        if tau > 0 and count >= config.samples:
            self.direction = Trend.UP
        elif tau < config.threshold and (count >= config.samples or (count >= config.samples_min and long)):
            self.direction = Trend.DOWN

    def _prune(self, now: float) -> None:
        samples = self._samples
        while len(samples) > self._config.samples or samples[0][0] < now - self._config.validity:
            samples.popleft()
        # Of equal values at the begin the last one counts: the trend begins there.
        while len(samples) > 1 and samples[0][1] == samples[1][1]:
            samples.popleft()

    def _tau(self) -> float:
        """Kendall's tau: -1 all pairs fall, 1 all rise."""
        values = [value for _, value in self._samples]
        rising = falling = 0
        for index, first in enumerate(values):
            for second in values[index + 1 :]:
                rising += first < second
                falling += first > second
        pairs = rising + falling
        return (rising - falling) / pairs if pairs else 0.0


class NackTracker:
    """The share of packets that were asked for more than once."""

    def __init__(self, config: NackConfig) -> None:
        self._config = config
        self._since: float | None = None
        self._packets = self._repeated = 0

    def add(self, packets: int, repeated: int, now: float) -> None:
        if self._since is not None and now - self._since > self._config.window_max:
            self._since, self._packets, self._repeated = None, 0, 0
        if self._since is None and repeated:
            self._since = now
        if self._since is not None:
            self._packets += packets
            self._repeated += repeated

    @property
    def ratio(self) -> float:
        return min(1.0, self._repeated / self._packets) if self._packets else 0.0

    def triggered(self, now: float) -> bool:
        since, config = self._since, self._config
        return since is not None and now - since > config.window_min and self.ratio > config.threshold


class ProbePhase(Enum):
    NONE = auto()
    PROBING = auto()
    SETTLING = auto()


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """`capacity`: what is known to fit now; `hopeful`: the estimates rose, or there were too few of them."""

    congesting: bool
    hopeful: bool
    capacity: int


class RemoteEstimator:
    """One subscriber's. `reset` when nothing is short any more."""

    def __init__(self, now: float) -> None:
        self.rtt = INITIAL_RTT
        self.reset(now)

    def reset(self, now: float, capacity: int = UNKNOWN_CAPACITY) -> None:
        self.capacity = capacity
        self.congested = False
        self.phase = ProbePhase.NONE
        self.probe_duration = PROBE_DURATION
        self._probe_interval = PROBE_INTERVAL
        self._next_probe = now
        self._phase_since = self._probe_began = now
        self.desired = 0
        """Bits per second that the last probe was to show."""
        self._observe(*USUAL)

    def _observe(self, trend: TrendConfig, nacks: NackConfig) -> None:
        self._trend, self._nacks = TrendDetector(trend), NackTracker(nacks)

    # -- estimates --------------------------------------------------------------------------------------------------

    def on_remb(self, estimate: int, packets: int, repeated: int, now: float) -> bool:
        """`packets` and `repeated` NACKs since the last call. True: the channel may carry less, see `keep_to`."""
        probing = self.phase is not ProbePhase.NONE
        if self.congested and probing:
            return False  # The probe has failed; what follows tells of its own load.
        self._trend.add(estimate, now)
        self._nacks.add(packets, repeated, now)
        less = self._trend.direction is Trend.DOWN or self._nacks.triggered(now)
        if probing or not less:
            self.congested = less
        return less and not probing

    def keep_to(self, estimate: int, usage: int) -> int | None:
        """The capacity to keep to from now on, None if there is no news. `usage`: what is meant to be sent now."""
        capacity = estimate
        if self._trend.direction is not Trend.DOWN:
            capacity = min(estimate, int(usage * (1 - NACK_ATTENUATION * self._nacks.ratio)))
        if capacity > usage * EXPECTED_USAGE_THRESHOLD or capacity == self.capacity:
            return None
        self.congested = True
        self.capacity = capacity
        return capacity

    # -- probes -----------------------------------------------------------------------------------------------------

    def can_probe(self, now: float) -> bool:
        return not self.congested and self.phase is ProbePhase.NONE and now >= self._next_probe

    def start_probe(self, desired: int, now: float) -> None:
        self.phase, self._phase_since, self._probe_began = ProbePhase.PROBING, now, now
        self.desired = desired
        self._observe(*PROBING)

    def end_probe(self, now: float) -> None:
        """Nothing more is sent for it; its effect is waited for."""
        if self.phase is ProbePhase.PROBING:
            self.phase, self._phase_since = ProbePhase.SETTLING, now

    @property
    def goal_reached(self) -> bool:
        trend = self._trend
        probing = self.phase is ProbePhase.PROBING and not self.congested
        return probing and trend.enough and trend.highest > self.desired

    def settled_at(self) -> float | None:
        """When the result of the probe is there."""
        if self.phase is not ProbePhase.SETTLING:
            return None
        return self._phase_since + min(max(SETTLE_ROUND_TRIPS * self.rtt, SETTLE_MIN), SETTLE_MAX)

    def finish_probe(self, now: float) -> ProbeResult | None:
        settled = self.settled_at()
        if settled is None or now < settled:
            return None
        trend, congesting = self._trend, self.congested
        self.phase, self.congested = ProbePhase.NONE, False
        self._observe(*USUAL)
        if congesting:
            self._probe_interval = min(self._probe_interval * PROBE_BACKOFF, PROBE_INTERVAL_MAX)
            self.probe_duration = PROBE_DURATION
        else:
            if trend.enough:
                self.capacity = max(self.capacity, trend.highest)
            self._probe_interval = PROBE_INTERVAL
            self.probe_duration = min(self.probe_duration * PROBE_DURATION_GROWTH, PROBE_DURATION_MAX)
        self._next_probe = self._probe_began + self._probe_interval
        return ProbeResult(congesting, trend.highest > trend.first or not trend.enough, self.capacity)
