"""Allocation tables, cooperative changes, and what always holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lkactor.sfu.allocator import NOTHING, PROBE_MIN, UNLIMITED, AllocatedTrack, Layer, StreamAllocator

CAMERA = ((150_000, 0, 0, 0), (500_000, 0, 0, 0), (1_700_000, 0, 0, 0))
THREE_RATES = ((60_000, 90_000, 150_000, 0), (200_000, 300_000, 500_000, 0), (700_000, 1_000_000, 1_700_000, 0))
ONE = ((800_000, 0, 0, 0),)


def short(capacity, *tracks, allow_pause=False):
    allocator = StreamAllocator(allow_pause=allow_pause)
    for track in tracks:
        allocator.add(track)
    allocator.congested(capacity)
    return allocator


def targets(allocator):
    return [track.target for track in allocator.tracks.values()]


@pytest.mark.parametrize(
    ("capacity", "allow_pause", "expected"),
    [
        (5_000_000, False, [Layer(2, 0), Layer(2, 0)]),
        (2_300_000, False, [Layer(2, 0), Layer(1, 0)]),
        (1_000_000, False, [Layer(1, 0), Layer(1, 0)]),
        (700_000, False, [Layer(1, 0), Layer(0, 0)]),
        (300_000, False, [Layer(0, 0), Layer(0, 0)]),
        (200_000, False, [Layer(0, 0), Layer(0, 0)]),
        (200_000, True, [Layer(0, 0), NOTHING]),
        (0, False, [Layer(0, 0), Layer(0, 0)]),
        (0, True, [NOTHING, NOTHING]),
    ],
)
def test_two_cameras_share(capacity, allow_pause, expected):
    allocator = short(
        capacity, AllocatedTrack("a", rates=CAMERA), AllocatedTrack("b", rates=CAMERA), allow_pause=allow_pause
    )
    assert targets(allocator) == expected
    assert [track.paused for track in allocator.tracks.values()] == [layer == NOTHING for layer in expected]
    assert allocator.deficient == (expected != [Layer(2, 0), Layer(2, 0)])


@pytest.mark.parametrize(
    ("capacity", "expected"),
    [
        (60_000, Layer(0, 0)),
        (149_000, Layer(0, 1)),
        (250_000, Layer(1, 0)),
        (600_000, Layer(1, 2)),
        (900_000, Layer(2, 0)),
        (1_699_999, Layer(2, 1)),
        (1_700_000, Layer(2, 2)),
    ],
)
def test_frame_rates_are_steps_too(capacity, expected):
    assert targets(short(capacity, AllocatedTrack("a", rates=THREE_RATES))) == [expected]


def test_the_wish_is_the_upper_bound():
    assert targets(short(5_000_000, AllocatedTrack("a", wanted=Layer(1, 3), rates=CAMERA))) == [Layer(1, 0)]


def test_a_wish_below_all_that_is_sent_gets_the_lowest():
    only_high = ((0,) * 4, (0,) * 4, (1_700_000, 0, 0, 0))
    assert targets(short(5_000_000, AllocatedTrack("a", wanted=Layer(0, 3), rates=only_high))) == [Layer(2, 0)]


def test_a_screen_of_one_layer_is_exempt_and_taken_off_first():
    allocator = short(
        1_000_000,
        AllocatedTrack("camera", rates=CAMERA),
        AllocatedTrack("screen", priority=255, managed=False, rates=ONE),
        allow_pause=True,
    )
    assert targets(allocator) == [Layer(0, 0), Layer(0, 0)]
    allocator.congested(500_000)
    assert allocator.tracks["camera"].paused
    assert not allocator.tracks["screen"].paused


def test_priority_goes_first_within_a_layer():
    allocator = short(650_000, AllocatedTrack("low", rates=CAMERA), AllocatedTrack("high", priority=200, rates=CAMERA))
    assert targets(allocator) == [Layer(0, 0), Layer(1, 0)]


def test_nothing_is_limited_while_nothing_is_short():
    allocator = short(50_000_000, AllocatedTrack("a", rates=CAMERA))
    allocator.add(AllocatedTrack("b", rates=CAMERA))
    assert [track.limit for track in allocator.tracks.values()] == [UNLIMITED, UNLIMITED]
    assert not allocator.deficient


def change(allocator, sid, **what):
    track = allocator.tracks[sid]
    known = {"wanted": track.wanted, "muted": track.muted, "rates": track.rates}
    allocator.change(sid, **(known | what))


def test_a_playing_track_does_not_rise_by_asking():
    allocator = short(700_000, AllocatedTrack("a", wanted=Layer(0, 3), rates=CAMERA), AllocatedTrack("b", rates=CAMERA))
    assert targets(allocator) == [Layer(0, 0), Layer(1, 0)]
    change(allocator, "a", wanted=Layer(2, 3))
    assert targets(allocator) == [Layer(0, 0), Layer(1, 0)]


def test_what_a_mute_gives_back_is_used_and_unmuting_takes_what_is_free():
    allocator = short(700_000, AllocatedTrack("a", rates=CAMERA), AllocatedTrack("b", rates=CAMERA))
    change(allocator, "a", muted=True)
    assert targets(allocator) == [NOTHING, Layer(1, 0)]
    change(allocator, "a", muted=False)
    assert targets(allocator) == [Layer(0, 0), Layer(1, 0)]


def test_starting_takes_from_the_one_closest_to_its_wish_the_step_that_saves_most():
    allocator = short(
        1_000_000,
        AllocatedTrack("a", rates=CAMERA),
        AllocatedTrack("b", wanted=Layer(1, 3), rates=THREE_RATES),
    )
    assert targets(allocator) == [Layer(1, 0), Layer(1, 2)]
    allocator.add(AllocatedTrack("c", rates=CAMERA))
    assert targets(allocator) == [Layer(1, 0), Layer(1, 1), Layer(0, 0)]


def test_with_pause_allowed_a_track_that_cannot_start_waits():
    allocator = short(150_000, AllocatedTrack("a", rates=CAMERA), allow_pause=True)
    allocator.add(AllocatedTrack("b", rates=CAMERA))
    assert targets(allocator) == [Layer(0, 0), NOTHING]
    assert allocator.tracks["b"].paused


def test_a_layer_that_ends_is_left_and_one_not_measured_yet_begins_small():
    allocator = short(700_000, AllocatedTrack("a", rates=CAMERA), AllocatedTrack("b", rates=CAMERA))
    change(allocator, "a", rates=(CAMERA[0], (0,) * 4, CAMERA[2]))
    assert targets(allocator) == [Layer(0, 0), Layer(1, 0)]
    allocator.add(AllocatedTrack("c"))
    assert allocator.tracks["c"].limit.spatial == 0
    assert not allocator.tracks["c"].paused


def test_a_good_probe_lets_the_farthest_rise_first_and_ends_the_shortage():
    allocator = short(300_000, AllocatedTrack("a", rates=CAMERA), AllocatedTrack("b", rates=CAMERA))
    assert allocator.probe_goal() == (300_000, 300_000 + 420_000)
    allocator.proven(700_000)
    assert sorted(targets(allocator)) == [Layer(0, 0), Layer(1, 0)]
    allocator.proven(4_000_000)
    assert targets(allocator) == [Layer(2, 0), Layer(2, 0)]
    assert not allocator.deficient
    assert allocator.tracks["a"].limit == UNLIMITED
    assert allocator.probe_goal() is None


def test_a_probe_is_never_too_small_to_tell():
    allocator = short(60_000, AllocatedTrack("a", rates=THREE_RATES))
    assert allocator.probe_goal() == (60_000, 60_000 + PROBE_MIN)


def test_an_imposed_capacity_holds_for_newcomers_and_growth_and_ends_at_once():
    allocator = StreamAllocator(allow_pause=False)
    allocator.add(AllocatedTrack("a", rates=CAMERA))
    allocator.impose(2_000_000)
    assert targets(allocator) == [Layer(2, 0)]
    allocator.add(AllocatedTrack("b", rates=CAMERA))
    assert targets(allocator) == [Layer(1, 0), Layer(1, 0)]
    change(allocator, "a", rates=((150_000, 0, 0, 0), (1_900_000, 0, 0, 0)))
    assert targets(allocator) == [Layer(0, 0), Layer(2, 0)]
    allocator.impose(0)
    assert targets(allocator) == [Layer(1, 0), Layer(2, 0)]
    assert allocator.tracks["b"].limit == UNLIMITED


def test_leaving_gives_back():
    allocator = short(700_000, AllocatedTrack("a", rates=CAMERA), AllocatedTrack("b", rates=CAMERA))
    allocator.remove("a")
    assert targets(allocator) == [Layer(1, 0)]
    allocator.remove("b")
    assert not allocator.deficient


# -- what always holds ----------------------------------------------------------------------------------------------

rates = (
    st.lists(st.integers(1, 3_000_000), min_size=1, max_size=6)
    .map(sorted)
    .map(lambda values: tuple((*values[i : i + 2], 0, 0, 0)[:4] for i in range(0, len(values), 2)))
)
tracks = st.lists(
    st.builds(
        lambda rates, priority, spatial, temporal, muted: (rates, priority, Layer(spatial, temporal), muted),
        rates,
        st.integers(1, 3),
        st.integers(0, 2),
        st.integers(0, 3),
        st.booleans(),
    ),
    max_size=6,
)


def build(specs):
    return [
        AllocatedTrack(str(index), priority, True, wanted, rates, muted)
        for index, (rates, priority, wanted, muted) in enumerate(specs)
    ]


@given(tracks, st.integers(0, 6_000_000), st.booleans())
def test_never_more_than_the_capacity_but_for_lowest_layers(specs, capacity, allow_pause):
    allocator = short(capacity, *build(specs), allow_pause=allow_pause)
    if allocator.usage > capacity:
        assert not allow_pause
        for track in allocator.tracks.values():
            assert track.target == NOTHING or track.usage == track.rate(track.choices()[0])
    for track in allocator.tracks.values():
        assert track.target == NOTHING or track.target in track.choices()
        assert not (track.paused and (track.muted or not allow_pause))


@given(rates, st.integers(0, 4_000_000), st.integers(0, 4_000_000), st.booleans())
def test_one_track_is_never_worse_with_more(rates, first, second, allow_pause):
    low, high = sorted((first, second))
    [poor] = targets(short(low, AllocatedTrack("a", rates=rates), allow_pause=allow_pause))
    [rich] = targets(short(high, AllocatedTrack("a", rates=rates), allow_pause=allow_pause))
    assert poor <= rich


@given(tracks, st.integers(0, 3_000_000), st.integers(0, 6_000_000), st.booleans())
def test_a_good_probe_takes_nothing_from_anybody(specs, capacity, proven, allow_pause):
    allocator = short(capacity, *build(specs), allow_pause=allow_pause)
    before = targets(allocator)
    allocator.proven(proven)
    assert all(old <= new for old, new in zip(before, targets(allocator), strict=True))
    if allow_pause:
        assert allocator.usage <= max(capacity, proven)
