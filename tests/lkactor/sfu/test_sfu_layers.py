"""rid, quality, size and switching rules (vectors-and-chaos section 1 rows 11 and 12, livekit-media 4.2, 4.14)."""

import pytest
from livekit.protocol import models

from lkactor.sdp import ReceiveMedia
from lkactor.sfu.layers import (
    effective_target,
    layer_for_dimensions,
    layer_for_quality,
    layers_of,
    takes_keyframe,
)

LOW, MEDIUM, HIGH, OFF = range(4)


def section(*rids):
    return ReceiveMedia("0", "video", "cid", "stream", (), {}, rids)


def announced(*qualities, sizes=()):
    sizes = sizes or [(0, 0)] * len(qualities)
    return [models.VideoLayer(quality=q, width=w, height=h) for q, (w, h) in zip(qualities, sizes, strict=True)]


@pytest.mark.parametrize(
    ("rids", "expected"),
    [
        (("q", "h", "f"), {"q": 0, "h": 1, "f": 2}),
        (("f", "h", "q"), {"q": 0, "h": 1, "f": 2}),
        (("2", "1", "0"), {"2": 0, "1": 1, "0": 2}),
        (("q", "h"), {"q": 0, "h": 1}),
        (("q", "f"), {"q": 0, "f": 1}),
        (("f",), {"f": 0}),
        (("low", "high"), {"low": 0, "high": 1}),
        ((), {}),
    ],
)
def test_rid_to_layer(rids, expected):
    assert layers_of(models.TrackInfo(), section(*rids)) == expected


def test_no_more_than_three_layers():
    assert len(layers_of(models.TrackInfo(), section("a", "b", "c", "d"))) == 3


@pytest.mark.parametrize(
    ("qualities", "expected"),
    [
        ((LOW, MEDIUM, HIGH), (0, 1, 2)),
        ((LOW, MEDIUM), (0, 1, 1)),
        ((LOW, HIGH), (0, 0, 1)),
        ((MEDIUM, HIGH), (0, 0, 1)),
        ((HIGH,), (0, 0, 0)),
        ((), (0, 1, 2)),
        ((LOW, OFF), (0, 0, 0)),
    ],
)
def test_quality_to_layer(qualities, expected):
    assert tuple(layer_for_quality(quality, announced(*qualities)) for quality in (LOW, MEDIUM, HIGH)) == expected


LANDSCAPE = announced(LOW, MEDIUM, HIGH, sizes=[(270, 180), (540, 360), (1080, 720)])
PORTRAIT = announced(LOW, MEDIUM, HIGH, sizes=[(180, 270), (360, 540), (720, 1080)])


@pytest.mark.parametrize(
    ("layers", "wanted", "expected"),
    [
        (LANDSCAPE, (120, 120), LOW),
        (LANDSCAPE, (700, 480), HIGH),
        (LANDSCAPE, (1080, 720), HIGH),
        (LANDSCAPE, (4000, 3000), HIGH),
        (PORTRAIT, (200, 400), LOW),
        (PORTRAIT, (400, 700), MEDIUM),
        (PORTRAIT, (720, 1080), HIGH),
    ],
)
def test_size_to_layer(layers, wanted, expected):
    assert layer_for_dimensions(*wanted, layers) == expected


def test_the_source_decides_which_side_counts():
    assert layer_for_dimensions(200, 250, LANDSCAPE) == MEDIUM


def test_of_equal_layers_the_better():
    layers = announced(LOW, MEDIUM, HIGH, sizes=[(540, 360), (540, 360), (1080, 720)])
    assert layer_for_dimensions(320, 200, layers) == MEDIUM


@pytest.mark.parametrize(
    ("target", "live", "expected"),
    [
        (2, (True, True, True), 2),
        (2, (True, True, False), 1),
        (1, (True, False, True), 0),
        (0, (False, False, True), 2),
        (2, (False, False, False), -1),
    ],
)
def test_what_can_be_had(target, live, expected):
    assert effective_target(target, live) == expected


@pytest.mark.parametrize(
    ("layer", "current", "target", "taken"),
    [
        (0, -1, 2, True),
        (2, -1, 0, False),
        (1, 0, 2, True),
        (2, 0, 1, False),
        (0, 1, 2, False),
        (1, 2, 0, True),
        (0, 2, 0, True),
        (0, 2, 1, False),
        (1, 1, 1, False),
    ],
)
def test_only_steps_towards_the_target(layer, current, target, taken):
    assert takes_keyframe(layer, current, target) is taken
