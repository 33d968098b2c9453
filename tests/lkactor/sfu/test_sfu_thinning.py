"""VP8 with fewer frames per second: which pictures go out, and what their numbers are (RFC 7741 section 4.2)."""

import random

import pytest
from support.media import Sink, VideoSource, forwarder_for, ids_of, video_format, video_leg, vp8_payload

from lkactor.sfu.thinning import REMEMBERED, Vp8Thinner
from lkactor.wire.codecs.vp8 import parse_descriptor
from lkactor.wire.rtp import unwrap_rtx

PATTERN = (0, 2, 1, 2)
SYNC = 0x20


def descriptor(picture, tid, *, sync=False):
    payload = bytearray(vp8_payload(picture, 0, 0, tid, key=False))
    payload[5] |= SYNC if sync else 0
    return parse_descriptor(bytes(payload))


def take(thinner, picture, tid, target, *, sync=False, keyframe=False, contiguous=True):
    found = descriptor(picture, tid, sync=sync)
    return thinner.takes(found, target, keyframe=keyframe, contiguous=contiguous)[0]


# -- the decision


@pytest.mark.parametrize(("target", "going"), [(0, "1000"), (1, "1010"), (2, "1111"), (3, "1111")])
def test_layers_up_to_the_wish_go(target, going):
    thinner = Vp8Thinner(3)
    assert "".join(str(int(take(thinner, n, PATTERN[n], target))) for n in range(4)) == going


def test_up_only_where_nothing_left_out_is_needed():
    thinner = Vp8Thinner(0)
    assert not take(thinner, 1, 2, 2)
    assert take(thinner, 2, 0, 2)
    assert not take(thinner, 3, 1, 2)
    assert take(thinner, 4, 1, 2, sync=True)
    assert take(thinner, 5, 1, 2)
    assert not take(thinner, 6, 2, 2)
    assert take(thinner, 7, 2, 2, sync=True)
    assert not take(thinner, 8, 2, 1, sync=True)  # Down at once.


def test_a_key_frame_brings_everything():
    thinner = Vp8Thinner(0)
    assert take(thinner, 1, 0, 3, keyframe=True)
    assert take(thinner, 2, 2, 3)


def test_behind_a_gap_a_picture_goes_and_its_other_packets_with_it():
    thinner = Vp8Thinner(0)
    assert take(thinner, 1, 2, 0, contiguous=False)
    assert take(thinner, 1, 2, 0)
    assert not take(thinner, 2, 2, 0)
    assert not take(thinner, 2, 2, 0, contiguous=False)


def test_without_picture_ids_everything_goes():
    thinner = Vp8Thinner(0)
    found = parse_descriptor(b"\x90\x20\x80\x11")
    assert found.picture_id < 0
    assert thinner.takes(found, 0, keyframe=False, contiguous=True) == (True, False)


def test_late_packets_know_how_many_were_left_out_after_them_even_wrapped():
    thinner = Vp8Thinner(0)
    for number in range(0x7FFD, 0x8005):
        take(thinner, number & 0x7FFF, PATTERN[number % 4], 0)
    assert thinner.was_dropped(descriptor(0x7FFF, 2))
    assert not thinner.was_dropped(descriptor(0, 0))
    assert [thinner.dropped_since(descriptor(number & 0x7FFF, 0)) for number in (0x7FFC, 0x8000, 0x8004)] == [6, 3, 0]


def test_idle_once_nothing_was_left_out_for_long():
    thinner = Vp8Thinner(3)
    take(thinner, 0, 0, 3)
    take(thinner, 1, 2, 0)
    take(thinner, 2, 0, 3, keyframe=True)
    assert not thinner.idle(3)
    for number in range(REMEMBERED):
        take(thinner, 3 + number, number % 3, 3)
    assert thinner.idle(3)
    assert not thinner.idle(1)


# -- in the forwarder


class Stage:
    def __init__(self):
        self.forwarder, _ = forwarder_for(video_format())
        self.sink = Sink()
        self.leg = video_leg(self.sink)
        self.forwarder.add_leg(self.leg, 0.0)
        self.source = VideoSource(5, picture=0x7FF0, sequence=65500)
        self.now, self.number = 0.0, 0
        self.send(key=True)

    def make(self, *, key=False, packets=2, sync=False, tid=None):
        tid = PATTERN[self.number % 4] if tid is None else tid
        self.number += 1
        self.now += 1 / 30
        return self.source.frame(self.now, key=key, packets=packets, tid=tid)

    def send(self, **how):
        self.push(self.make(**how))

    def push(self, packets):
        self.forwarder.receive(0, packets, self.now)

    def limit(self, temporal, layer=2):
        self.forwarder.set_limit(self.leg, layer, temporal, False, self.now)


def whole(packets):
    """Numbers of packets and of pictures go up by one, whatever was left out."""
    sequences = [packet.sequence for packet in packets]
    assert sequences == [(sequences[0] + n) & 0xFFFF for n in range(len(sequences))]
    pictures = list(dict.fromkeys(ids_of(packet).picture_id for packet in packets))
    assert pictures == [(pictures[0] + n) & 0x7FFF for n in range(len(pictures))]
    return pictures


def test_numbers_close_up_over_what_is_left_out():
    stage = Stage()
    for _ in range(7):
        stage.send()
    stage.limit(1)
    for _ in range(12):
        stage.send()
    stage.limit(0)
    for _ in range(12):
        stage.send()
    assert len(whole(stage.sink.rtp)) == 8 + 6 + 3
    assert [ids_of(packet).tid for packet in stage.sink.rtp[-6::2]] == [0, 0, 0]
    assert stage.leg.thinner is not None


def test_all_come_again_after_a_key_frame_and_then_nothing_is_looked_at_any_more():
    stage = Stage()
    stage.limit(0)
    for _ in range(4):
        stage.send()
    stage.limit(3)
    stage.send(key=True, tid=0)
    stage.sink.take()
    for _ in range(REMEMBERED + 4):
        stage.send()
    assert len(whole(stage.sink.rtp)) == REMEMBERED + 4
    assert stage.leg.thinner is None
    stage.send()
    whole(stage.sink.rtp)


def test_a_late_packet_of_a_picture_left_out_stays_out_and_of_another_finds_its_place():
    stage = Stage()
    stage.limit(0)
    left_out, kept = stage.make(packets=2), None
    stage.push(left_out[:1])
    stage.send(tid=1)
    kept = stage.make(tid=0, packets=3)
    stage.push([kept[0], kept[2]])
    for tid in (2, 1, 2, 0):
        stage.send(tid=tid)
    before = len(stage.sink.rtp)
    stage.push(left_out[1:])
    assert len(stage.sink.rtp) == before
    stage.push(kept[1:2])
    late = stage.sink.rtp[-1]
    same = [packet for packet in stage.sink.rtp if ids_of(packet).tl0picidx == ids_of(late).tl0picidx]
    assert len(same) == 3
    assert len({ids_of(packet).picture_id for packet in same}) == 1
    assert sorted(packet.sequence for packet in same) == list(range(same[0].sequence, same[0].sequence + 3))


def test_what_is_asked_for_again_has_the_numbers_that_it_had():
    stage = Stage()
    stage.limit(1)
    for _ in range(8):
        stage.send()
    sent = {packet.sequence: bytes(packet.payload) for packet in stage.sink.take()}
    stage.forwarder.on_nack(stage.leg, list(sent), stage.now + 1)
    again = [unwrap_rtx(packet, ssrc=stage.leg.ssrc, payload_type=100) for packet in stage.sink.take()]
    assert {packet.sequence: bytes(packet.payload) for packet in again} == sent


def test_any_order_and_loss_leaves_pictures_whole_and_numbers_unique():
    for seed in range(30):
        rng = random.Random(seed)
        stage = Stage()
        stage.limit(1)
        pending = []
        for step in range(60):
            if step == 30:
                stage.limit(rng.choice([0, 2]))
            for packet in stage.make(packets=rng.randint(1, 3)):
                pending.append((step + (rng.randint(1, 4) if rng.random() < 0.15 else 0), len(pending), packet))
            due = sorted((entry for entry in pending if entry[0] <= step), key=lambda entry: entry[:2])
            pending = [entry for entry in pending if entry[0] > step]
            stage.push([packet for *_, packet in due if rng.random() > 0.05])
        found = {}
        for packet in stage.sink.rtp:
            assert packet.sequence not in found
            found[packet.sequence] = packet
        numbers = {}
        for packet in found.values():
            ids = ids_of(packet)
            numbers.setdefault(ids.picture_id, set()).add(packet.timestamp)
        assert all(len(times) == 1 for times in numbers.values())
