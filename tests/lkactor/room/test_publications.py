"""Announced tracks find their media (livekit-media 2.5 and 3.1)."""

import random

import pytest
from livekit.protocol import models, rtc

from lkactor.room.publications import MAX_PENDING, MAX_QUEUED_PER_CID, Publication, Publications, Refused
from lkactor.sdp import ReceiveMedia
from lkactor.sdp.codecs import Codec

Reason = rtc.RequestResponse.Reason
AUDIO, VIDEO = models.TrackType.AUDIO, models.TrackType.VIDEO


def made():
    return Publications(random.Random(1))


def asked(cid="c", kind=VIDEO, **fields):
    return rtc.AddTrackRequest(cid=cid, type=kind, **fields)


def section(mid="0", cid="c", kind="video", mime="video/vp8"):
    return ReceiveMedia(mid, kind, cid, "stream", (Codec(mime, 96, 90000),), {})


def add(publications, *arguments, **fields):
    return publications.add(asked(*arguments, **fields), lambda source: True)


def test_from_announcement_to_media_to_the_end():
    publications = made()
    pending = add(publications, "c", VIDEO, name="cam", source=models.TrackSource.CAMERA)
    assert isinstance(pending, Publication)
    assert publications.find(pending.info.sid) is pending
    assert not list(publications.infos())
    change = publications.media_changed([section()])
    assert [(publication, media.mid) for publication, media in change.published] == [(pending, "0")]
    assert (pending.info.mid, pending.info.mime_type, pending.info.stream) == ("0", "video/vp8", "camera")
    assert list(publications.infos()) == [pending.info]
    assert publications.media_changed([section()]).published == ()
    assert publications.media_changed([]).withdrawn == (pending,)
    assert publications.find(pending.info.sid) is None


def test_media_may_come_first():
    publications = made()
    assert publications.media_changed([section()]).published == ()
    pending = add(publications)
    assert [publication for publication, _ in publications.match()] == [pending]


def test_an_exact_cid_wins_over_the_first_of_the_kind():
    publications = made()
    first, second = add(publications, "a"), add(publications, "b")
    change = publications.media_changed([section("0", "other"), section("1", "b")])
    assert {media.mid: publication.cid for publication, media in change.published} == {"0": "a", "1": "b"}
    assert first.info.codecs[0].sdp_cid == "other"
    assert second.info.codecs[0].sdp_cid == ""


def test_the_kind_must_be_right():
    publications = made()
    add(publications, "a", AUDIO)
    assert publications.media_changed([section("0", "x", "video")]).published == ()


def test_refusals():
    publications = made()
    assert publications.add(asked(), lambda source: False).reason == Reason.NOT_ALLOWED
    assert add(publications, "c", models.TrackType.DATA).reason == Reason.UNSUPPORTED_TYPE
    assert add(publications, sid="TR_unknown").reason == Reason.NOT_FOUND
    for n in range(MAX_PENDING):
        assert isinstance(add(publications, str(n)), Publication)
    assert add(publications, "more").reason == Reason.LIMIT_EXCEEDED


def test_a_cid_in_use_queues():
    publications = made()
    first = add(publications)
    refused = [add(publications, name=str(n)) for n in range(MAX_QUEUED_PER_CID + 1)]
    assert [answer.reason for answer in refused] == [Reason.QUEUED] * MAX_QUEUED_PER_CID + [Reason.LIMIT_EXCEEDED]
    assert all(isinstance(answer, Refused) for answer in refused)
    assert publications.remove(first.info.sid) is first
    assert [publications.next_queued("c").name for _ in range(MAX_QUEUED_PER_CID)] == ["0", "1", "2"]
    assert publications.next_queued("c") is None
    assert publications.queued == {}


def test_remove_takes_pending_and_published():
    publications = made()
    pending = add(publications)
    assert publications.remove(pending.info.sid) is pending
    assert publications.remove(pending.info.sid) is None
    assert not publications.pending


@pytest.mark.parametrize(("layers", "simulcast"), [(0, False), (1, False), (2, True), (3, True), (9, True)])
def test_layers_are_sorted_and_bounded(layers, simulcast):
    wish = [models.VideoLayer(quality=quality % 3, width=quality) for quality in reversed(range(layers))]
    info = add(made(), layers=wish).info
    assert len(info.layers) == min(layers, 3)
    assert [layer.quality for layer in info.layers] == sorted(layer.quality for layer in info.layers)
    assert info.simulcast is simulcast


@pytest.mark.parametrize("codec", ["vp9", "VP9", "av1", "video/av1", "video/VP9"])
def test_svc_is_no_simulcast(codec):
    wish = [models.VideoLayer(quality=n) for n in range(3)]
    info = add(made(), layers=wish, simulcast_codecs=[rtc.SimulcastCodec(codec=codec, cid="c")]).info
    assert not info.simulcast


def test_old_and_new_audio_flags():
    publication = add(made(), "c", AUDIO, stereo=True, disable_dtx=True, disable_red=True)
    features = set(publication.info.audio_features)
    assert features == {models.AudioTrackFeature.TF_STEREO, models.AudioTrackFeature.TF_NO_DTX}
    preference = publication.preference
    assert (preference.stereo, preference.no_dtx, preference.disable_red, preference.mime) == (True, True, True, None)
    assert (publication.info.stereo, publication.info.disable_dtx) == (True, True)
