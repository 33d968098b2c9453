"""`limit.num_tracks` and `limit.bytes_per_sec`: when a node has enough (livekit-surface 12)."""

import pytest

from lkactor.config import Config, LimitConfig
from lkactor.node_load import MAX_SAMPLES, NodeLoad


@pytest.mark.parametrize(
    ("limit", "tracks", "reached"), [(0, 10**9, False), (-1, 5, False), (5, 4, False), (5, 5, True), (5, 6, True)]
)
def test_tracks(limit, tracks, reached):
    assert NodeLoad().reached(LimitConfig(num_tracks=limit), tracks) is reached


def test_bytes_are_averaged_over_ten_seconds():
    load = NodeLoad()
    limit = LimitConfig(bytes_per_sec=1000)
    assert load.bytes_per_second == 0 and not load.reached(limit, 0)
    for second in range(60):
        load.sample(float(second), second * 1000)
        assert not load.reached(limit, 0) or second > 0
    assert load.bytes_per_second == 1000
    assert load.reached(limit, 0) and not load.reached(LimitConfig(bytes_per_sec=1001), 0)
    for second in range(60, 70):
        load.sample(float(second), 59_000)
    assert load.bytes_per_second < 100
    load.sample(70.0, 59_000)
    assert load.bytes_per_second == 0


def test_a_clock_that_stands_still_is_no_load():
    load = NodeLoad()
    for _ in range(MAX_SAMPLES * 2):
        load.sample(1.0, 10**9)
    assert load.bytes_per_second == 0


def test_the_keys_have_an_effect():
    assert Config.load("limit: {num_tracks: 5, bytes_per_sec: 7}").inert_keys() == []
