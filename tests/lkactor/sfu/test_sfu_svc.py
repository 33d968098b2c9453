"""Layers inside one stream: what a leg gets of VP9 and AV1 SVC, and how it changes (livekit-media 4.2)."""

import pytest
from support.dependency import KeyedSvc
from support.media import THREE_LAYERS, Sink, forwarder_for, video_format, video_leg

from lkactor.sdp import Codec
from lkactor.wire.dependency_descriptor import parse
from lkactor.wire.rtcp import Pli
from lkactor.wire.rtp import build_rtp, parse_rtp

VP9 = Codec("video/vp9", 98, 90000, feedback=("nack", "nack pli"), rtx_payload_type=99)
AV1 = Codec("video/av1", 35, 90000, feedback=("nack", "nack pli"), rtx_payload_type=36)
DD_IN, DD_OUT = 7, 11
LOW, MEDIUM, HIGH = 0, 1, 2


class Stage:
    """A forwarder, one leg, and a publisher that sends pictures 33 ms apart."""

    def __init__(self, codec, **changes):
        values = {"codecs": (codec,), "layers": THREE_LAYERS, "simulcast": False, "dependency_id": DD_IN}
        self.forwarder, self.publisher = forwarder_for(video_format(**(values | changes)))
        self.codec = codec
        self.now, self.sequence, self.timestamp = 0.0, 65530, 1000
        self.sinks, self.legs = [], []
        self.add_leg()

    def add_leg(self):
        sink = Sink()
        leg = video_leg(sink, subscriber=f"PA_{len(self.legs)}", ssrc=1000 * (len(self.legs) + 1))
        leg.payload_types, leg.rtx_payload_types = {self.codec.payload_type: 100}, {100: 101}
        leg.dependency_id = DD_OUT
        self.sinks.append(sink)
        self.legs.append(leg)
        self.forwarder.add_leg(leg, self.now)
        return leg, sink

    @property
    def leg(self):
        return self.legs[0]

    def send(self, packets, *, lose=()):
        """(payload, extensions) of one picture; the last one has the marker. What each leg got."""
        made = []
        for index, (payload, extensions) in enumerate(packets):
            data = build_rtp(
                payload_type=self.codec.payload_type, sequence=self.sequence & 0xFFFF, timestamp=self.timestamp,
                ssrc=5, marker=index == len(packets) - 1, payload=payload, extensions=extensions,
            )  # fmt: skip
            self.sequence += 1
            made.append(parse_rtp(data, self.now))
        self.forwarder.receive(0, [p for n, p in enumerate(made) if n not in lose], self.now)
        self.forwarder.handle_timeout(self.now)
        self.now += 1 / 30
        self.timestamp += 3000
        self.made = made
        return [sink.take() for sink in self.sinks]

    def want(self, quality, leg=None):
        self.forwarder.set_wanted(leg or self.leg, quality, 0, 0, self.now)

    def asked_for_key_frame(self):
        return bool(self.publisher.take_rtcp(Pli))


# -- VP9


class Vp9Pictures:
    """LsTt in non-flexible mode, one packet a frame; `switch` marks the switching points (U)."""

    def __init__(self):
        self.picture = 0

    def __call__(self, *, key=False, tid=0, layers=3, switch=True):
        out = []
        for sid in range(layers):
            first = 0x80 | 0x20 | 0x08 | 0x04 | (0 if key else 0x40)
            layer = tid << 5 | (0x10 if switch and tid else 0) | sid << 1 | (1 if sid else 0)
            out.append((bytes((first, self.picture & 0x7F, layer, 9)) + bytes((sid,)) * 20, {}))
        self.picture += 1
        return out


def sids(packets):
    return [packet.payload[4] for packet in packets]


def test_vp9_everything_is_wanted_everything_goes_as_it_is():
    stage, pictures = Stage(VP9), Vp9Pictures()
    got = [stage.send(pictures(key=True))[0], stage.send(pictures(tid=2))[0]]
    assert [sids(packets) for packets in got] == [[0, 1, 2], [0, 1, 2]]
    assert [packet.marker for packets in got for packet in packets] == [False, False, True] * 2
    assert [packet.sequence for packets in got for packet in packets] == [65530, 65531, 65532, 65533, 65534, 65535]


def test_vp9_down_at_the_next_picture_without_a_key_frame_and_without_a_gap():
    stage, pictures = Stage(VP9), Vp9Pictures()
    stage.send(pictures(key=True))
    stage.publisher.take_rtcp(Pli)
    stage.want(LOW)
    got = [stage.send(pictures())[0] for _ in range(3)]
    assert [sids(packets) for packets in got] == [[0]] * 3
    assert all(packet.marker for packets in got for packet in packets)
    assert [packet.sequence for packets in got for packet in packets] == [65533, 65534, 65535]
    stage.now += 5
    stage.send(pictures())
    assert not stage.asked_for_key_frame()


def test_vp9_up_at_a_key_picture_which_is_asked_for():
    stage, pictures = Stage(VP9), Vp9Pictures()
    stage.want(LOW)
    assert sids(stage.send(pictures(key=True))[0]) == [0]
    stage.publisher.take_rtcp(Pli)
    stage.want(HIGH)
    stage.now += 1
    assert sids(stage.send(pictures())[0]) == [0]
    stage.now += 1
    stage.send(pictures())
    assert stage.asked_for_key_frame()
    got = stage.send(pictures(key=True))[0]
    assert sids(got) == [0, 1, 2]
    assert [packet.marker for packet in got] == [False, False, True]
    stage.now += 3
    stage.send(pictures())
    stage.publisher.take_rtcp(Pli)
    stage.now += 3
    stage.send(pictures())
    assert not stage.asked_for_key_frame()


def test_vp9_layers_that_are_not_sent_are_not_asked_for():
    stage, pictures = Stage(VP9), Vp9Pictures()
    stage.send(pictures(key=True, layers=1))
    stage.publisher.take_rtcp(Pli)
    for _ in range(10):
        stage.now += 1
        assert sids(stage.send(pictures(layers=1))[0]) == [0]
    assert not stage.asked_for_key_frame()


def test_vp9_the_middle_layer_gets_the_marker():
    stage, pictures = Stage(VP9), Vp9Pictures()
    stage.want(MEDIUM)
    got = stage.send(pictures(key=True))[0]
    assert [(packet.payload[4], packet.marker) for packet in got] == [(0, False), (1, True)]


def test_vp9_rates():
    """Temporal layers: fewer at once, more at a switching point."""
    stage, pictures = Stage(VP9), Vp9Pictures()
    stage.leg.target_temporal = 0
    stage.send(pictures(key=True))
    assert [len(stage.send(pictures(tid=tid))[0]) for tid in (2, 1, 2, 0)] == [0, 0, 0, 3]
    stage.leg.target_temporal = 2
    assert [len(stage.send(pictures(tid=1, switch=False))[0]), len(stage.send(pictures(tid=2))[0])] == [0, 3]
    assert [len(stage.send(pictures(tid=tid))[0]) for tid in (1, 2, 0)] == [3, 3, 3]
    stage.leg.target_temporal = 1
    assert [len(stage.send(pictures(tid=tid))[0]) for tid in (2, 1, 2, 0)] == [0, 3, 0, 3]


def test_vp9_two_legs_two_sizes_and_retransmission_with_the_marker_that_was_sent():
    stage, pictures = Stage(VP9), Vp9Pictures()
    small, _ = stage.add_leg()
    stage.want(LOW, small)
    large_got, small_got = stage.send(pictures(key=True))
    assert (sids(large_got), sids(small_got)) == ([0, 1, 2], [0])
    stage.forwarder.on_nack(small, [small_got[0].sequence], stage.now + 1)
    (again,) = stage.sinks[1].take()
    assert (again.payload_type, again.marker, again.payload[2:]) == (101, True, small_got[0].payload)


def test_vp9_a_leg_that_was_paused_begins_at_a_key_frame_again():
    stage, pictures = Stage(VP9), Vp9Pictures()
    stage.send(pictures(key=True))
    stage.forwarder.set_paused(stage.leg, True, stage.now)
    stage.send(pictures())
    stage.forwarder.set_paused(stage.leg, False, stage.now)
    assert stage.send(pictures())[0] == []
    assert sids(stage.send(pictures(key=True))[0]) == [0, 1, 2]


def test_vp9_truncated_is_counted():
    stage, pictures = Stage(VP9), Vp9Pictures()
    stage.send(pictures(key=True))
    assert stage.send([(b"\xe0", {})])[0] == []
    assert stage.forwarder.counters["vp9.truncated"] == 1


def test_simulcast_is_left_alone():
    stage, pictures = Stage(VP9, simulcast=True), Vp9Pictures()
    stage.want(LOW)
    assert sids(stage.send(pictures(key=True))[0]) == [0, 1, 2]


# -- AV1


class Av1Pictures:
    """Packets of `KeyedSvc`: a payload that says the spatial layer, N on the first packet of a key picture."""

    def __init__(self, **encoder):
        self.encoder = KeyedSvc(**encoder)

    def __call__(self, *, key=False, layers=None, **fields):
        sent = layers if layers is not None else range(self.encoder.spatial)
        descriptors = self.encoder.picture(key=key, layers=layers, **fields)
        return [
            (bytes((0x18 if key and n == 0 else 0x10,)) + b"\x30\x00\x00" + bytes((sid,)) * 10, {DD_IN: descriptor})
            for n, (sid, descriptor) in enumerate(zip(sent, descriptors, strict=True))
        ]


class Viewer:
    """The subscriber's decoder, as far as descriptors go."""

    def __init__(self):
        self.structure, self.active, self.frames = None, 0, set()

    def see(self, packets):
        """(spatial, temporal, marker) of each; AssertionError for one that refers to what was never seen."""
        out = []
        for packet in packets:
            found = parse(packet.extension(DD_OUT), self.structure)
            if found.attached:
                self.frames.clear()
            self.structure = found.structure
            self.active = self.active if found.active is None else found.active
            refers_to = {(found.frame_number - diff) & 0xFFFF for diff in found.frame.fdiffs}
            assert refers_to <= self.frames, f"frame {found.frame_number} needs {refers_to - self.frames}"
            self.frames.add(found.frame_number)
            out.append((found.frame.spatial, found.frame.temporal, packet.marker))
        return out


def test_av1_the_top_target_is_all_that_goes():
    """In mode KEY the lower layers of other pictures are of no use to who sees the highest."""
    stage, pictures, viewer = Stage(AV1), Av1Pictures(), Viewer()
    assert viewer.see(stage.send(pictures(key=True))[0]) == [(0, 0, False), (1, 0, False), (2, 0, True)]
    assert [viewer.see(stage.send(pictures())[0]) for _ in range(4)] == [
        [(2, 2, True)],
        [(2, 1, True)],
        [(2, 2, True)],
        [(2, 0, True)],
    ]
    assert viewer.active == 0b111111111
    assert [packet.sequence for packet in stage.send(pictures())[0]] == [(65530 + 3 + 4) & 0xFFFF]


def test_av1_a_small_wish_gets_the_lowest_layer_and_says_so():
    stage, pictures, viewer = Stage(AV1), Av1Pictures(), Viewer()
    stage.want(LOW)
    assert viewer.see(stage.send(pictures(key=True))[0]) == [(0, 0, True)]
    assert [viewer.see(stage.send(pictures())[0]) for _ in range(2)] == [[(0, 2, True)], [(0, 1, True)]]
    assert viewer.active == 0b111
    assert stage.leg.svc.wants_key_frame is False


def test_av1_down_goes_on_above_until_the_key_frame_that_is_asked_for():
    stage, pictures, viewer = Stage(AV1), Av1Pictures(), Viewer()
    viewer.see(stage.send(pictures(key=True))[0])
    for _ in range(5):
        viewer.see(stage.send(pictures())[0])
    stage.publisher.take_rtcp(Pli)
    stage.want(LOW)
    stage.now += 1
    seen = [viewer.see(stage.send(pictures())[0]) for _ in range(4)]
    assert all(picture and picture[0][0] == 2 for picture in seen)
    stage.now += 1
    stage.send(pictures())
    assert stage.asked_for_key_frame()
    assert viewer.see(stage.send(pictures(key=True))[0]) == [(0, 0, True)]
    assert viewer.see(stage.send(pictures())[0]) == [(0, 2, True)]
    assert viewer.active == 0b111


def test_av1_down_at_once_while_the_lower_layer_is_whole():
    stage, pictures, viewer = Stage(AV1), Av1Pictures(), Viewer()
    viewer.see(stage.send(pictures(key=True))[0])
    viewer.see(stage.send(pictures())[0])
    stage.want(LOW)
    assert viewer.see(stage.send(pictures())[0]) == [(0, 1, True)]
    assert not stage.leg.svc.wants_key_frame


def test_av1_up_at_a_key_frame():
    stage, pictures, viewer = Stage(AV1), Av1Pictures(), Viewer()
    stage.want(LOW)
    viewer.see(stage.send(pictures(key=True))[0])
    viewer.see(stage.send(pictures())[0])
    stage.want(MEDIUM)
    assert [picture[0] for picture in viewer.see(stage.send(pictures())[0])] == [0]
    assert stage.leg.svc.wants_key_frame
    assert viewer.see(stage.send(pictures(key=True))[0]) == [(0, 0, False), (1, 0, True)]
    assert not stage.leg.svc.wants_key_frame
    assert viewer.see(stage.send(pictures())[0]) == [(1, 2, True)]
    assert viewer.active == 0b111111


def test_av1_rates():
    stage, pictures, viewer = Stage(AV1), Av1Pictures(), Viewer()
    stage.leg.target_temporal = 1
    viewer.see(stage.send(pictures(key=True))[0])
    assert [len(viewer.see(stage.send(pictures())[0])) for _ in range(8)] == [0, 1, 0, 1] * 2
    stage.leg.target_temporal = 2
    seen = [viewer.see(stage.send(pictures())[0]) for _ in range(8)]
    assert [len(picture) for picture in seen[4:]] == [1, 1, 1, 1]


def test_av1_only_targets_that_are_active_are_wished_for():
    stage, pictures, viewer = Stage(AV1), Av1Pictures(), Viewer()
    viewer.see(stage.send(pictures(key=True, layers=(0, 1)))[0])
    seen = [viewer.see(stage.send(pictures(layers=(0, 1), active=0b111111))[0]) for _ in range(4)]
    assert all(picture[-1][0] == 1 for picture in seen)
    assert stage.leg.svc.wants_key_frame is False


def test_av1_a_missed_key_frame_is_waited_for():
    """Frames of a structure that never came cannot be placed; nothing of them goes out."""
    stage, pictures, viewer = Stage(AV1), Av1Pictures(), Viewer()
    viewer.see(stage.send(pictures(key=True))[0])
    assert stage.send(pictures(key=True), lose=(0,))[0] == []
    assert stage.send(pictures())[0] == []
    assert stage.forwarder.counters["dependency_descriptor.template"] == 5
    assert viewer.see(stage.send(pictures(key=True))[0])[-1] == (2, 0, True)


def test_av1_a_late_packet_shares_its_frames_fate():
    stage, pictures, viewer = Stage(AV1), Av1Pictures(), Viewer()
    viewer.see(stage.send(pictures(key=True))[0])
    assert stage.send(pictures(), lose=(2,))[0] == []
    late = stage.made[2]
    viewer.see(stage.send(pictures())[0][:0])
    stage.forwarder.receive(0, [late], stage.now)
    (packet,) = stage.sinks[0].take()
    assert viewer.see([packet]) == [(2, 2, True)]


def test_av1_without_descriptors_goes_as_it_is():
    stage, pictures = Stage(AV1), Av1Pictures()
    stage.want(LOW)
    plain = [(payload, {}) for payload, _ in pictures(key=True)]
    got = stage.send(plain)[0]
    assert len(got) == 3
    assert all(packet.extension_profile == 0 for packet in got)


def test_av1_a_subscriber_without_the_extension_gets_none():
    stage, pictures = Stage(AV1), Av1Pictures()
    stage.leg.dependency_id = 0
    got = stage.send(pictures(key=True))[0]
    assert [packet.extension_profile for packet in got] == [0, 0, 0]


def test_av1_descriptors_travel_beside_the_send_time():
    stage, pictures = Stage(AV1), Av1Pictures()
    stage.leg.abs_send_time_id = 3
    got = stage.send(pictures(key=True))[0] + stage.send(pictures())[0]
    assert [packet.extension_profile for packet in got] == [0x1000, 0xBEDE, 0xBEDE, 0xBEDE]
    assert all(len(packet.extension(3)) == 3 and packet.extension(DD_OUT) for packet in got)
    stage.forwarder.on_nack(stage.leg, [got[0].sequence], stage.now + 1)
    (again,) = stage.sinks[0].take()
    assert again.extension(DD_OUT) == got[0].extension(DD_OUT)


def test_av1_descriptors_travel_beside_the_playout_delay():
    stage, pictures = Stage(AV1), Av1Pictures()
    stage.leg.playout_delay = 0x42_00A0C8
    for stage.leg.abs_send_time_id in (0, 3):
        got = stage.send(pictures(key=True))[0] + stage.send(pictures())[0]
        assert [packet.extension_profile for packet in got] == [0x1000, 0xBEDE, 0xBEDE, 0xBEDE]
        assert all(packet.extension(4) == b"\x00\xa0\xc8" and packet.extension(DD_OUT) for packet in got)
        assert all((packet.extension(3) is not None) == (stage.leg.abs_send_time_id == 3) for packet in got)


def test_av1_frame_numbers_that_begin_anew():
    stage, viewer = Stage(AV1), Viewer()
    pictures = Av1Pictures(number=40000)
    viewer.see(stage.send(pictures(key=True))[0])
    pictures = Av1Pictures(number=20000, structure_id=30)
    assert viewer.see(stage.send(pictures(key=True))[0])[-1] == (2, 0, True)
    assert viewer.see(stage.send(pictures())[0]) == [(2, 2, True)]


@pytest.mark.parametrize("number", [65530, 0, 32000])
def test_av1_frame_numbers_wrap(number):
    stage, pictures, viewer = Stage(AV1), Av1Pictures(number=number), Viewer()
    viewer.see(stage.send(pictures(key=True))[0])
    assert all(viewer.see(stage.send(pictures())[0]) for _ in range(40))
