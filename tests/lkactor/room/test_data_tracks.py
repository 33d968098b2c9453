"""Data tracks: who may publish what, which handles subscribers get, what is read of a packet (livekit-media 5.3)."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit.protocol import models, rtc

from lkactor.errors import ProtocolViolation
from lkactor.room.data_blobs import DataBlobs
from lkactor.room.data_tracks import MAX_TRACKS, DataTrackPublications, DataTrackSubscriptions
from lkactor.room.publications import Refused
from lkactor.wire.data_track import handle_of, with_handle

Reason = rtc.RequestResponse.Reason


def publications():
    return DataTrackPublications(random.Random(1), max_encoding_length=32)


def request(handle=1, name="sensor", **fields):
    return rtc.PublishDataTrackRequest(pub_handle=handle, name=name, **fields)


def custom(name):
    return models.DataTrackFrameEncoding(custom=name)


def test_published_tracks_carry_what_was_asked():
    tracks = publications()
    info = tracks.publish(request(frame_encoding=custom("cbor")), allowed=True)
    assert isinstance(info, models.DataTrackInfo)
    assert (info.pub_handle, info.name, info.frame_encoding.custom) == (1, "sensor", "cbor")
    assert info.sid.startswith("DTR_") and tracks.knows(info.sid)
    assert not tracks.publish(request(2, "plain"), allowed=True).HasField("frame_encoding")
    assert tracks.unpublish(1) == info and tracks.unpublish(1) is None


@pytest.mark.parametrize(
    ("asked", "allowed", "reason"),
    [
        (request(), False, Reason.NOT_ALLOWED),
        (request(0), True, Reason.INVALID_HANDLE),
        (request(65536), True, Reason.INVALID_HANDLE),
        (request(name=""), True, Reason.INVALID_NAME),
        (request(name="x" * 257), True, Reason.INVALID_NAME),
        (request(frame_encoding=custom("")), True, Reason.INVALID_REQUEST),
        (request(frame_encoding=custom("x" * 33)), True, Reason.INVALID_REQUEST),
        (request(7, "other"), True, Reason.DUPLICATE_HANDLE),
        (request(8, "taken"), True, Reason.DUPLICATE_NAME),
    ],
)
def test_refusals(asked, allowed, reason):
    tracks = publications()
    tracks.publish(request(7, "taken"), allowed=True)
    refused = tracks.publish(asked, allowed=allowed)
    assert isinstance(refused, Refused) and refused.reason == reason


def test_the_number_of_tracks_is_bounded():
    tracks = publications()
    for handle in range(1, MAX_TRACKS + 1):
        tracks.publish(request(handle, f"n{handle}"), allowed=True)
    assert tracks.publish(request(9999, "one more"), allowed=True).reason == Reason.LIMIT_EXCEEDED


def person(sid, *tracks, state=models.ParticipantInfo.State.ACTIVE):
    infos = [models.DataTrackInfo(sid=track) for track in tracks]
    return models.ParticipantInfo(sid=sid, identity=sid.lower(), data_tracks=infos, state=state)


def test_handles_come_with_the_wish_and_the_track_in_either_order():
    tracks = DataTrackSubscriptions(random.Random(1), auto_subscribe=False)
    tracks.wish("DTR_1", True)
    assert not tracks.sync(allowed=True)
    tracks.observe([person("PA_a", "DTR_1", "DTR_2")], but="PA_me")
    assert tracks.sync(allowed=True) and list(tracks.handles) == ["DTR_1"]
    handle = tracks.handles["DTR_1"]
    assert tracks.describe().sub_handles[handle].publisher_identity == "pa_a"
    assert not tracks.sync(allowed=True)
    assert tracks.sync(allowed=False) and not tracks.handles


def test_handles_of_what_goes_are_not_given_again_at_once():
    tracks = DataTrackSubscriptions(random.Random(1), auto_subscribe=True)
    tracks.observe([person("PA_a", "DTR_1"), person("PA_me", "DTR_own")], but="PA_me")
    tracks.sync(allowed=True)
    first = tracks.handles["DTR_1"]
    tracks.observe([person("PA_a", state=models.ParticipantInfo.State.DISCONNECTED)], but="PA_me")
    tracks.observe([person("PA_b", "DTR_2")], but="PA_me")
    assert tracks.sync(allowed=True) and list(tracks.handles) == ["DTR_2"]
    assert tracks.handles["DTR_2"] != first


def test_handles_wrap_past_zero_and_those_in_use():
    tracks = DataTrackSubscriptions(random.Random(1), auto_subscribe=True)
    tracks._next_handle = 65534
    tracks.observe([person("PA_a", "DTR_1", "DTR_2", "DTR_3")], but="")
    tracks.sync(allowed=True)
    assert sorted(tracks.handles.values()) == [1, 2, 65535]


HEADER = bytes([0b0001_1000, 0, 0, 7, 0, 1, 0, 2, 0, 0, 0, 3])


def test_a_packet_is_readdressed_and_nothing_else():
    packet = HEADER + b"payload"
    assert handle_of(packet) == 7
    assert with_handle(packet, 513) == packet[:2] + b"\x02\x01" + packet[4:]


def test_extensions_must_be_there():
    extended = bytes([HEADER[0] | 4]) + HEADER[1:]
    assert handle_of(extended + b"\x00\x00\x01\x00") == 7
    for tail in (b"", b"\x00", b"\x00\x00\x01", b"\x00\x01\x01\x00"):
        with pytest.raises(ProtocolViolation):
            handle_of(extended + tail)


@pytest.mark.parametrize("packet", [HEADER[:n] for n in range(12)] + [b"\xe0" + HEADER[1:], HEADER[:2] + bytes(10)])
def test_broken_headers(packet):
    with pytest.raises(ProtocolViolation):
        handle_of(packet)


@given(st.binary(max_size=64))
def test_any_bytes(packet):
    try:
        handle_of(packet)
    except ProtocolViolation:
        pass


def blob(key, contents):
    return models.DataBlob(key=models.DataBlobKey(generic=key), contents=contents)


def test_blobs_are_bounded_in_key_and_sum():
    blobs = DataBlobs(max_key_length=20, max_size=100)
    assert blobs.store(blob("a", b"x" * 60)) is None
    assert blobs.store(blob("a", b"x" * 80)) is None, "the same key is replaced"
    assert blobs.store(blob("b", b"x" * 30)).reason == Reason.LIMIT_EXCEEDED
    assert blobs.store(blob("a", b"x")) is None
    assert blobs.store(blob("b", b"x" * 30)) is None
    assert blobs.store(blob("k" * 30, b"x")).reason == Reason.INVALID_REQUEST
    assert blobs.store(blob("c", b"")).reason == Reason.INVALID_REQUEST
    assert blobs.store(models.DataBlob(contents=b"x")).reason == Reason.INVALID_REQUEST
