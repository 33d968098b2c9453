"""When a falling estimate, or repeated NACKs, mean that the channel is short; probes."""

import pytest

from lkactor.sfu.bandwidth import (
    PROBE_DURATION,
    PROBE_INTERVAL,
    PROBING,
    USUAL,
    NackTracker,
    ProbePhase,
    RemoteEstimator,
    Trend,
    TrendDetector,
)

MBPS = 1_000_000


def feed(detector, values, *, every=0.2, start=0.0):
    now = start
    for value in values:
        detector.add(value, now)
        now += every
    return detector.direction


FALLING = [2_000_000 - 100_000 * step for step in range(12)]


@pytest.mark.parametrize(
    ("values", "every", "expected"),
    [
        (FALLING, 0.2, Trend.DOWN),
        (FALLING[::-1], 0.2, Trend.UP),
        (FALLING[:11], 0.2, Trend.UNCLEAR),
        (FALLING[:8], 0.8, Trend.DOWN),  # Fewer will do when they stretch over 5 s.
        (FALLING[:7], 0.8, Trend.UNCLEAR),
        ([MBPS] * 40, 0.2, Trend.UNCLEAR),
        ([2 * MBPS] + [MBPS] * 20, 0.1, Trend.UNCLEAR),  # A step: repeats within half a second count once.
        ([2 * MBPS] + [MBPS] * 9, 0.6, Trend.DOWN),  # Still down there after 5 s.
        ([2 * MBPS] + [MBPS] * 12, 0.6, Trend.UNCLEAR),  # The step itself has left the window.
        ([2 * MBPS, MBPS] * 10, 0.2, Trend.UNCLEAR),
        (FALLING, 2.0, Trend.UNCLEAR),  # Most of them are too old.
    ],
)
def test_trend(values, every, expected):
    assert feed(TrendDetector(USUAL[0]), values, every=every) is expected


def test_trend_in_a_probe_is_quick():
    assert feed(TrendDetector(PROBING[0]), [3, 2, 1]) is Trend.DOWN
    assert feed(TrendDetector(PROBING[0]), [1, 2, 3]) is Trend.UP


@pytest.mark.parametrize(
    ("repeated", "seconds", "triggered"),
    [(10, 2.5, True), (8, 2.5, False), (10, 1.5, False), (10, 3.5, False), (0, 2.5, False)],
)
def test_nacks(repeated, seconds, triggered):
    tracker = NackTracker(USUAL[1])
    tracker.add(0, min(repeated, 1), 0.0)
    tracker.add(100, max(0, repeated - 1), seconds)
    assert tracker.triggered(seconds) is triggered


def test_isolated_losses_before_the_window_do_not_count():
    tracker = NackTracker(USUAL[1])
    tracker.add(10_000, 0, 0.0)
    tracker.add(100, 20, 1.0)
    assert tracker.ratio == 0.2


def on_remb(estimator, estimate, usage, packets, repeated, now):
    telling = estimator.on_remb(estimate, packets, repeated, now)
    return estimator.keep_to(estimate, usage) if telling else None


def congest(estimator, usage=2 * MBPS, start=0.0):
    found = [on_remb(estimator, value, usage, 100, 0, start + 0.2 * i) for i, value in enumerate(FALLING)]
    assert found[:-1] == [None] * (len(found) - 1)
    return found[-1]


def test_a_falling_estimate_below_the_usage_is_the_capacity():
    estimator = RemoteEstimator(0.0)
    assert congest(estimator) == FALLING[-1]
    assert estimator.congested
    assert on_remb(estimator, FALLING[-1] - 100_000, 2 * MBPS, 100, 0, 3.0) == FALLING[-1] - 100_000
    for step in range(12):
        assert on_remb(estimator, FALLING[-1] + step * 10_000, MBPS // 2, 100, 0, 4.0 + step) is None
    assert not estimator.congested


def test_an_estimate_that_falls_to_what_is_sent_is_no_congestion():
    estimator = RemoteEstimator(0.0)
    assert congest(estimator, usage=900_000) is None
    assert not estimator.congested


def test_repeated_nacks_attenuate_the_usage_but_not_above_the_estimate():
    for remb, expected in ((5 * MBPS, 1_600_000), (MBPS, MBPS)):
        estimator = RemoteEstimator(0.0)
        on_remb(estimator, remb, 2 * MBPS, 0, 1, 0.0)
        assert on_remb(estimator, remb, 2 * MBPS, 100, 49, 2.5) == expected


def test_a_probe_that_goes_well_proves_its_highest_estimate_and_the_next_is_longer():
    estimator = RemoteEstimator(0.0)
    congest(estimator)
    on_remb(estimator, FALLING[-1], MBPS // 2, 0, 0, 10.0)
    assert not estimator.can_probe(10.0)  # What fell is still in the window.
    on_remb(estimator, FALLING[-1], MBPS // 2, 0, 0, 12.3)
    assert estimator.can_probe(14.0)
    estimator.start_probe(1_500_000, 14.0)
    assert not estimator.can_probe(14.0)
    for step in range(3):
        on_remb(estimator, 1_400_000 + 100_000 * step, MBPS, 10, 0, 14.0 + 0.1 * step)
    assert estimator.goal_reached
    estimator.end_probe(14.3)
    assert estimator.finish_probe(14.4) is None
    result = estimator.finish_probe(14.3 + 5 * estimator.rtt)
    assert result is not None
    assert (result.congesting, result.capacity) == (False, 1_600_000)
    assert estimator.probe_duration == PROBE_DURATION * 1.5
    assert not estimator.can_probe(14.0 + PROBE_INTERVAL - 0.01)
    assert estimator.can_probe(14.0 + PROBE_INTERVAL)


def test_a_probe_that_congests_proves_nothing_and_the_next_is_later():
    estimator = RemoteEstimator(0.0)
    capacity = congest(estimator)
    on_remb(estimator, FALLING[-1], MBPS // 2, 0, 0, 13.0)
    assert estimator.can_probe(14.0)
    estimator.start_probe(1_500_000, 14.0)
    for step in range(3):
        assert on_remb(estimator, 1_400_000 - 100_000 * step, MBPS, 10, 0, 14.0 + 0.1 * step) is None
    assert estimator.congested
    on_remb(estimator, 9 * MBPS, MBPS, 10, 0, 14.3)
    estimator.end_probe(14.3)
    result = estimator.finish_probe(15.0)
    assert result is not None
    assert (result.congesting, result.capacity) == (True, capacity)
    assert not estimator.congested
    assert not estimator.can_probe(14.0 + PROBE_INTERVAL)
    assert estimator.can_probe(14.0 + 1.5 * PROBE_INTERVAL)


def test_a_probe_without_any_estimate_is_no_proof():
    estimator = RemoteEstimator(0.0)
    capacity = congest(estimator)
    estimator.congested = False
    estimator.start_probe(1_500_000, 11.0)
    estimator.end_probe(11.2)
    assert estimator.phase is ProbePhase.SETTLING
    result = estimator.finish_probe(12.0)
    assert result is not None
    assert (result.congesting, result.capacity) == (False, capacity)


@pytest.mark.parametrize(
    ("values", "hopeful"), [([], True), ([9, 9], True), ([9, 10, 10, 10, 10], True), ([9] * 5, False)]
)
def test_a_probe_is_hopeful_unless_the_estimates_stay_where_they_are(values, hopeful):
    estimator = RemoteEstimator(0.0)
    estimator.start_probe(200_000, 0.0)
    for step, value in enumerate(values):
        on_remb(estimator, value * 1000, 0, 0, 0, 0.1 * step)
    estimator.end_probe(0.5)
    result = estimator.finish_probe(2.0)
    assert result is not None
    assert (result.congesting, result.hopeful) == (False, hopeful)
