"""What a publisher is told of the wishes of its subscribers, and when (livekit-media 3.10)."""

from lkactor.sfu.dynacast import OFF, PAUSE_DELAY, SETTLE, Dynacast

LOW, MEDIUM, HIGH = 0, 1, 2


def said(dynacast, now):
    dynacast.handle_timeout(now)
    return dynacast.take()


def test_nothing_is_said_until_somebody_wishes():
    dynacast = Dynacast(0.0)
    dynacast.want(HIGH, 1.0, settled=False)
    assert dynacast.take() is None
    assert dynacast.next_timeout() == SETTLE
    dynacast.want(LOW, 2.0, settled=True)
    assert dynacast.take() == LOW


def test_after_ten_seconds_it_is_said_anyway():
    dynacast = Dynacast(0.0)
    assert said(dynacast, SETTLE - 0.1) is None
    assert said(dynacast, SETTLE) == OFF
    assert said(dynacast, SETTLE + 60) is None


def test_more_at_once_less_after_a_while():
    dynacast = Dynacast(0.0)
    dynacast.want(LOW, 0.0, settled=True)
    assert dynacast.take() == LOW
    dynacast.want(HIGH, 1.0, settled=True)
    assert dynacast.take() == HIGH
    dynacast.want(MEDIUM, 2.0, settled=True)
    assert dynacast.take() is None
    assert dynacast.next_timeout() == 2.0 + PAUSE_DELAY
    assert said(dynacast, 2.0 + PAUSE_DELAY - 0.01) is None
    assert said(dynacast, 2.0 + PAUSE_DELAY) == MEDIUM


def test_a_wish_that_comes_back_in_time_changes_nothing():
    dynacast = Dynacast(0.0)
    dynacast.want(HIGH, 0.0, settled=True)
    dynacast.take()
    dynacast.want(OFF, 1.0, settled=True)
    dynacast.want(HIGH, 3.0, settled=True)
    assert dynacast.next_timeout() is None
    assert said(dynacast, 60.0) is None


def test_lowering_twice_counts_from_the_first_and_says_the_last():
    dynacast = Dynacast(0.0)
    dynacast.want(HIGH, 0.0, settled=True)
    dynacast.take()
    dynacast.want(MEDIUM, 1.0, settled=True)
    dynacast.want(OFF, 4.0, settled=True)
    assert said(dynacast, 1.0 + PAUSE_DELAY) == OFF


def test_silent_while_muted_and_said_again_after():
    dynacast = Dynacast(0.0)
    dynacast.want(HIGH, 0.0, settled=True)
    dynacast.take()
    dynacast.set_muted(True)
    dynacast.want(OFF, 1.0, settled=True)
    assert said(dynacast, 10.0) is None
    dynacast.want(LOW, 11.0, settled=True)
    dynacast.set_muted(False)
    assert dynacast.take() == LOW
