"""Audio levels over windows and speaker changes (livekit-media 3.7, vectors-and-chaos section 1 row 20)."""

import math

import pytest

from lkactor.config import AudioConfig
from lkactor.room.speakers import ActiveSpeakers, AudioLevel

PACKET = 0.020
THRESHOLD = 10 ** (-35 / 20)


def feed(audio, levels, at=0.0):
    """20 ms packets; returns the time after them."""
    for level in levels:
        at += PACKET
        audio.observe(level, PACKET, at)
    return at


def linear(level):
    return 10 ** (-level / 20)


def test_a_full_window_of_speech_rises_with_the_smoothing_factor():
    audio = AudioLevel(AudioConfig())
    now = feed(audio, [20] * 20)
    assert audio.level(now) == pytest.approx(linear(20) * 2 / 3)
    now = feed(audio, [20] * 20, now)
    assert audio.level(now) == pytest.approx(linear(20) * (1 - 1 / 9))


def test_nothing_is_new_until_the_window_closes():
    audio = AudioLevel(AudioConfig())
    assert [audio.observe(10, PACKET, n * PACKET) for n in range(20)] == [False] * 19 + [True]


def test_the_loudest_counts_less_what_was_silent():
    """Half of the window active: 6 dB less."""
    audio = AudioLevel(AudioConfig(smooth_intervals=1))
    now = feed(audio, [10] + [30] * 9 + [127] * 10)
    assert audio.level(now) == pytest.approx(linear(10 - 20 * math.log10(0.5)))


@pytest.mark.parametrize(("active", "speaks"), [(8, True), (7, False)])
def test_160_of_400_ms_make_a_speaker(active, speaks):
    audio = AudioLevel(AudioConfig())
    now = feed(audio, [5] * active + [127] * (20 - active))
    assert (audio.level(now) > 0) is speaks


@pytest.mark.parametrize(("level", "speaks"), [(34, True), (35, True), (36, False)])
def test_threshold_is_inclusive(level, speaks):
    audio = AudioLevel(AudioConfig(smooth_intervals=1))
    now = feed(audio, [level] * 20)
    assert (audio.level(now) >= THRESHOLD) is speaks


def test_silence_ends_it_at_once():
    audio = AudioLevel(AudioConfig())
    now = feed(audio, [10] * 40)
    now = feed(audio, [127] * 20, now)
    assert audio.level(now) == 0.0


def test_stale_after_800_ms_without_packets():
    audio = AudioLevel(AudioConfig())
    now = feed(audio, [10] * 20)
    assert audio.level(now + 0.79) > 0
    assert audio.level(now + 0.81) == 0.0


def test_never_above_one():
    audio = AudioLevel(AudioConfig())
    assert audio.level(feed(audio, [0] * 400)) <= 1.0


def test_other_settings():
    """10 % of 500 ms at threshold 30: two packets of 20 ms are too few, three are enough."""
    config = AudioConfig(active_level=30, min_percentile=10, update_interval=500)
    for active, speaks in ((2, False), (3, True)):
        audio = AudioLevel(config)
        now = feed(audio, [1] * active + [31] * (25 - active))
        assert (audio.level(now) > 0) is speaks


def changes(speakers):
    return [(change.sid, change.level, change.active) for change in speakers.changes()]


def test_changes_are_quantised_sorted_and_told_once():
    speakers = ActiveSpeakers()
    speakers.update("PA_a", 0.05)
    speakers.update("PA_b", 0.51)
    speakers.update("PA_c", 0.0)
    assert changes(speakers) == [("PA_b", 0.625, True), ("PA_a", 0.125, True)]
    assert changes(speakers) == []
    speakers.update("PA_b", 0.60)
    assert changes(speakers) == []
    speakers.update("PA_b", 0.70)
    assert changes(speakers) == [("PA_b", 0.75, True)]


def test_who_stops_comes_once_with_level_zero_and_last():
    speakers = ActiveSpeakers()
    speakers.update("PA_a", 0.5)
    speakers.changes()
    speakers.update("PA_a", 0.0)
    speakers.update("PA_b", 0.2)
    assert changes(speakers) == [("PA_b", 0.25, True), ("PA_a", 0.0, False)]
    assert changes(speakers) == []


def test_who_left_is_forgotten():
    speakers = ActiveSpeakers()
    speakers.update("PA_a", 0.5)
    speakers.changes()
    speakers.forget("PA_a")
    assert changes(speakers) == []
    speakers.update("PA_a", 0.5)
    assert changes(speakers) == [("PA_a", 0.5, True)]
