"""What a publisher is told of the wishes of its subscribers, and when (livekit-media 3.10 and 3.11)."""

import pytest

from lkactor.sfu.dynacast import MAX_REMINDERS, OFF, PAUSE_DELAY, REMIND, SETTLE, Dynacast

LOW, MEDIUM, HIGH = 0, 1, 2
VP9, VP8 = "video/vp9", "video/vp8"


@pytest.fixture
def dynacast():
    made = Dynacast((VP9, VP8))
    made.add_codec(VP9, 0.0)
    return made


def said(dynacast, now):
    dynacast.handle_timeout(now)
    wanted = dynacast.take()
    return None if wanted is None else dict(wanted)


def test_nothing_is_said_until_somebody_wishes(dynacast):
    dynacast.want(VP9, HIGH, 1.0, settled=False)
    assert dynacast.take() is None
    assert dynacast.next_timeout() == SETTLE
    dynacast.want(VP9, LOW, 2.0, settled=True)
    assert dynacast.take() == ((VP9, LOW),)
    assert dynacast.take() is None


def test_after_ten_seconds_it_is_said_anyway(dynacast):
    assert said(dynacast, SETTLE - 0.1) is None
    assert said(dynacast, SETTLE) == {VP9: OFF}
    assert said(dynacast, SETTLE + 60) is None


def test_after_ten_seconds_the_latest_wish_counts(dynacast):
    dynacast.want(VP9, MEDIUM, 1.0, settled=False)
    assert said(dynacast, SETTLE) == {VP9: MEDIUM}


def test_more_at_once_less_after_a_while(dynacast):
    dynacast.want(VP9, LOW, 0.0, settled=True)
    assert dynacast.take() == ((VP9, LOW),)
    dynacast.want(VP9, HIGH, 1.0, settled=True)
    assert dynacast.take() == ((VP9, HIGH),)
    dynacast.want(VP9, MEDIUM, 2.0, settled=True)
    assert dynacast.take() is None
    assert dynacast.next_timeout() == 2.0 + PAUSE_DELAY
    assert said(dynacast, 2.0 + PAUSE_DELAY - 0.01) is None
    assert said(dynacast, 2.0 + PAUSE_DELAY) == {VP9: MEDIUM}


def test_a_wish_that_comes_back_in_time_changes_nothing(dynacast):
    dynacast.want(VP9, HIGH, 0.0, settled=True)
    dynacast.take()
    dynacast.want(VP9, OFF, 1.0, settled=True)
    dynacast.want(VP9, HIGH, 3.0, settled=True)
    assert dynacast.next_timeout() is None
    assert said(dynacast, 60.0) is None


def test_lowering_twice_counts_from_the_first_and_says_the_last(dynacast):
    dynacast.want(VP9, HIGH, 0.0, settled=True)
    dynacast.take()
    dynacast.want(VP9, MEDIUM, 1.0, settled=True)
    dynacast.want(VP9, OFF, 4.0, settled=True)
    assert said(dynacast, 1.0 + PAUSE_DELAY) == {VP9: OFF}


def test_silent_while_muted_and_said_again_after(dynacast):
    dynacast.want(VP9, HIGH, 0.0, settled=True)
    dynacast.take()
    dynacast.set_muted(True)
    dynacast.want(VP9, OFF, 1.0, settled=True)
    assert said(dynacast, 10.0) is None
    dynacast.want(VP9, LOW, 11.0, settled=True)
    dynacast.set_muted(False)
    assert dynacast.take() == ((VP9, LOW),)


def test_a_codec_that_nobody_wants_and_that_is_not_sent_is_not_spoken_of(dynacast):
    dynacast.want(VP8, OFF, 0.0, settled=False)
    dynacast.want(VP9, HIGH, 0.0, settled=True)
    assert dynacast.take() == ((VP9, HIGH),)
    assert said(dynacast, 100.0) is None


def test_the_first_wish_for_the_backup_is_told_at_once_and_the_primary_stands_first(dynacast):
    dynacast.want(VP8, HIGH, 1.0, settled=True)
    assert dynacast.take() == ((VP8, HIGH),)
    dynacast.add_codec(VP8, 1.5)
    assert said(dynacast, SETTLE) == {VP9: OFF, VP8: HIGH}
    dynacast.want(VP9, LOW, SETTLE, settled=True)
    assert dynacast.take() == ((VP9, LOW), (VP8, HIGH))


def test_the_backup_stops_when_it_is_wanted_no_more(dynacast):
    dynacast.want(VP9, HIGH, 0.0, settled=True)
    dynacast.want(VP8, MEDIUM, 1.0, settled=True)
    dynacast.add_codec(VP8, 1.5)
    dynacast.take()
    dynacast.want(VP8, OFF, 2.0, settled=False)
    assert said(dynacast, 2.0 + PAUSE_DELAY) == {VP9: HIGH, VP8: OFF}


def test_a_raise_takes_a_pending_lowering_along(dynacast):
    """When everybody moves to the backup, the primary stops in the same message."""
    dynacast.want(VP9, HIGH, 0.0, settled=True)
    dynacast.take()
    dynacast.want(VP9, OFF, 1.0, settled=True)
    dynacast.want(VP8, HIGH, 1.0, settled=True)
    assert dynacast.take() == ((VP9, OFF), (VP8, HIGH))
    assert dynacast.next_timeout() == 1.0 + REMIND


def test_a_codec_that_does_not_come_is_asked_for_a_few_times(dynacast):
    dynacast.want(VP9, HIGH, 0.0, settled=True)
    dynacast.want(VP8, HIGH, 0.0, settled=True)
    dynacast.take()
    times = []
    for second in range(1, 100):
        if said(dynacast, float(second)) is not None:
            times.append(second)
    assert times == [REMIND * n for n in range(1, MAX_REMINDERS + 1)]


def test_once_it_is_there_no_reminder(dynacast):
    dynacast.want(VP9, HIGH, 0.0, settled=True)
    dynacast.want(VP8, HIGH, 0.0, settled=True)
    dynacast.take()
    dynacast.add_codec(VP8, 1.0)
    assert all(said(dynacast, float(second)) is None for second in range(1, 100))
    dynacast.remove_codec(VP8)
    dynacast.want(VP9, LOW, 100.0, settled=True)
    dynacast.want(VP9, HIGH, 100.0, settled=True)
    assert dynacast.next_timeout() is None
