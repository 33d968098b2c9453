"""What `load` measures with: the age of payloads by their ends, samples that stay few, percentiles."""

from __future__ import annotations

import random

from lkactor.cli.sources import DEMO
from lkactor.client.load import MAX_SAMPLES, MAX_STAMPS, Load, LoadPlan, Medium, Samples, Stamps, percentiles
from lkactor.client.tracks import TrackSpec
from lkactor.media.files import read_media
from lkactor.media.frame import Frame


def payload(number: int, size: int = 100) -> bytes:
    return random.Random(number).randbytes(size)


def test_the_end_of_a_payload_says_when_it_left() -> None:
    stamps = Stamps()
    stamps.note(payload(1), 10.0)
    assert stamps.age(b"another descriptor" + payload(1), 10.25) == 0.25
    assert stamps.age(payload(2), 10.25) is None


def test_short_payloads_are_not_measured() -> None:
    stamps = Stamps()
    stamps.note(payload(1, 39), 1.0)
    assert stamps.age(payload(1, 39), 1.1) is None


def test_the_same_payload_twice_at_once_is_not_measured_but_a_loop_is() -> None:
    stamps = Stamps()
    stamps.note(payload(1), 1.0)
    stamps.note(payload(1), 1.5)
    assert stamps.age(payload(1), 1.6) is None, "which of the two?"
    stamps.note(payload(1), 9.0)
    assert stamps.age(payload(1), 9.5) == 0.5, "the file began again"


def test_stamps_are_bounded() -> None:
    stamps = Stamps()
    for number in range(MAX_STAMPS + 5):
        stamps.note(payload(number, 40), float(number))
    assert stamps.age(payload(4, 40), 0.0) is None
    assert stamps.age(payload(5, 40), 6.0) == 1.0


def test_samples_are_thinned_evenly() -> None:
    samples = Samples()
    for number in range(3 * MAX_SAMPLES):
        samples.add(float(number))
    assert len(samples.values) < MAX_SAMPLES
    gaps = {after - before for before, after in zip(samples.values, samples.values[1:], strict=False)}
    assert len(gaps) == 1


def test_percentiles_in_milliseconds() -> None:
    assert percentiles([]) == {"p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}
    found = percentiles([number / 1000 for number in range(100, 0, -1)])
    assert found == {"p50": 51.0, "p95": 96.0, "p99": 100.0, "max": 100.0}


def medium(rate: float, bitrate: float) -> Medium:
    file = read_media(memoryview((DEMO / "demo.ivf").read_bytes()), ".ivf")
    return Medium(TrackSpec("video/vp8", "load", 1), file, rate, bitrate)


def filled(what: Medium, frame: Frame) -> Frame:
    plan = LoadPlan([(what, 1)], 0, 1.0, 1.0)
    return Load(plan, lambda *_: ("", ""), "auto")._filled(what, frame)


def test_pictures_are_filled_up_to_the_bitrate_and_begin_as_they_were() -> None:
    what = medium(25.0, 1e6)
    first = next(iter(what.file.frames()))
    made = filled(what, first)
    assert len(made.data) == 1e6 / 8 / 25
    assert made.data.startswith(bytes(first.data))
    assert (made.time, made.keyframe) == (first.time, first.keyframe)


def test_a_picture_that_is_large_enough_or_of_a_users_file_is_sent_as_it_is() -> None:
    frame = Frame(bytes(9000), 0.0, True)
    assert filled(medium(25.0, 1e6), frame) is frame
    assert filled(medium(0.0, 0.0), Frame(b"x", 0.0)) == Frame(b"x", 0.0)
