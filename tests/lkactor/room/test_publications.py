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


def section(mid="0", cid="c", kind="video", mime="video/vp8", *more, **fields):
    codecs = tuple(Codec(name, 96 + n, 90000) for n, name in enumerate((mime, *more)))
    return ReceiveMedia(mid, kind, cid, "stream", codecs, {}, **fields)


def add(publications, *arguments, **fields):
    return publications.add(asked(*arguments, **fields), lambda source: True)


def test_from_announcement_to_media_to_the_end():
    publications = made()
    pending = add(publications, "c", VIDEO, name="cam", source=models.TrackSource.CAMERA)
    assert isinstance(pending, Publication)
    assert publications.find(pending.info.sid) is pending
    assert not list(publications.infos())
    change = publications.media_changed([section()])
    assert [(publication, media.mid, codec) for publication, media, codec in change.published] == [(pending, "0", 0)]
    assert (pending.info.mid, pending.info.mime_type, pending.info.stream) == ("0", "video/VP8", "camera")
    assert list(publications.infos()) == [pending.info]
    assert publications.media_changed([section()]).published == ()
    assert publications.media_changed([]).withdrawn == (pending,)
    assert publications.find(pending.info.sid) is None


def test_media_may_come_first():
    publications = made()
    assert publications.media_changed([section()]).published == ()
    pending = add(publications)
    assert [matched.publication for matched in publications.match()] == [pending]


def test_an_exact_cid_wins_over_the_first_of_the_kind():
    publications = made()
    first, second = add(publications, "a"), add(publications, "b")
    change = publications.media_changed([section("0", "other"), section("1", "b")])
    assert {media.mid: publication.cid for publication, media, _ in change.published} == {"0": "a", "1": "b"}
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
    preference = publication.preference()
    assert (preference.stereo, preference.no_dtx, preference.disable_red, preference.mime) == (True, True, True, None)
    assert (publication.info.stereo, publication.info.disable_dtx) == (True, True)


# -- backup codecs (livekit-media 3.11)  -------------------------------------------------------------------------------

LAYERS = [models.VideoLayer(quality=n, width=160 << n, height=90 << n) for n in range(3)]


def with_backup(publications, cid="c", backup_cid="", **fields):
    codecs = [rtc.SimulcastCodec(codec="vp9", cid=cid), rtc.SimulcastCodec(codec="vp8", cid=backup_cid)]
    publication = add(publications, cid, VIDEO, layers=LAYERS, simulcast_codecs=codecs, **fields)
    assert isinstance(publication, Publication)
    return publication


def ask_for_backup(publications, sid, cid="c2", codec="vp8", **fields):
    return add(publications, cid, VIDEO, sid=sid, simulcast_codecs=[rtc.SimulcastCodec(codec=codec, cid=cid, **fields)])


def vp9(mid="0", cid="c", **fields):
    return section(mid, cid, "video", "video/vp9", "video/vp8", **fields)


def vp8(mid="1", cid="c2", **fields):
    return section(mid, cid, "video", "video/vp8", "video/vp9", **fields)


def test_both_codecs_are_announced_from_the_start():
    publication = with_backup(made())
    modes = models.VideoLayer.Mode
    assert [(codec.mime_type, codec.cid, codec.video_layer_mode) for codec in publication.info.codecs] == [
        ("video/vp9", "c", modes.MULTIPLE_SPATIAL_LAYERS_PER_STREAM),
        ("video/vp8", "", modes.ONE_SPATIAL_LAYER_PER_STREAM),
    ]
    assert [len(codec.layers) for codec in publication.info.codecs] == [3, 3]
    assert not publication.info.simulcast


def test_a_backup_gets_its_own_section_and_keeps_the_sid():
    publications = made()
    publication = with_backup(publications)
    publications.media_changed([vp9()])
    assert publication.mimes == ("video/vp9", "video/vp8")
    layers = [models.VideoLayer(quality=n, width=80 << n) for n in (1, 0)]
    assert ask_for_backup(publications, publication.info.sid, layers=layers) is publication
    assert publications.preferences()["c2"].mime == "video/vp8"
    change = publications.media_changed([vp9(), vp8(rids=("q", "h"))], 77)
    assert [(m.publication, m.section.mid, m.codec) for m in change.published] == [(publication, "1", 1)]
    backup = publication.info.codecs[1]
    assert (backup.mime_type, backup.mid, backup.cid) == ("video/VP8", "1", "c2")
    assert [(layer.width, layer.rid, layer.spatial_layer) for layer in backup.layers] == [(80, "q", 0), (160, "h", 1)]
    assert (publication.info.mid, publication.info.mime_type) == ("0", "video/VP9")
    assert publication.info.sid in publications.tracks
    assert publications.media_changed([vp9(), vp8()]).published == ()


def test_the_backups_section_is_not_given_to_another_track():
    publications = made()
    publication = with_backup(publications)
    publications.media_changed([vp9()])
    ask_for_backup(publications, publication.info.sid)
    publications.media_changed([vp9(), vp8()])
    other = add(publications, "other")
    assert publications.match() == ()
    assert other.info.sid not in publications.tracks
    assert add(publications, "c2").reason == Reason.QUEUED


def test_both_cids_may_be_known_from_the_start_in_any_order():
    for order in (1, -1):
        publications = made()
        publication = with_backup(publications, backup_cid="c2")
        change = publications.media_changed([vp9(), vp8()][::order])
        assert sorted((m.section.mid, m.codec) for m in change.published) == [("0", 0), ("1", 1)]
        assert [codec.mid for codec in publication.info.codecs] == ["0", "1"]


def test_a_client_that_renames_its_tracks():
    """Firefox: the offer's cids are not those of AddTrack."""
    publications = made()
    publication = with_backup(publications)
    publications.media_changed([vp9(cid="x")])
    ask_for_backup(publications, publication.info.sid)
    change = publications.media_changed([vp9(cid="x"), vp8(cid="y")])
    assert [m.codec for m in change.published] == [1]
    assert [codec.sdp_cid for codec in publication.info.codecs] == ["x", "y"]
    assert publications.preferences()["y"].mime == "video/vp8"


def test_a_pending_track_goes_before_a_backup_unless_the_cid_says_otherwise():
    publications = made()
    publication = with_backup(publications)
    publications.media_changed([vp9()])
    ask_for_backup(publications, publication.info.sid)
    other = add(publications, "other")
    change = publications.media_changed([vp9(), vp8("1", "c2"), vp8("2", "other")])
    assert {(m.publication.cid, m.section.mid, m.codec) for m in change.published} == {("c", "1", 1), ("other", "2", 0)}
    assert other.info.sid in publications.tracks


def test_the_backup_ends_the_track_goes_on_and_the_backup_comes_back():
    publications = made()
    publication = with_backup(publications)
    publications.media_changed([vp9()])
    ask_for_backup(publications, publication.info.sid)
    publications.media_changed([vp9(), vp8()])
    change = publications.media_changed([vp9()])
    assert [(m.publication, m.codec) for m in change.dropped] == [(publication, 1)]
    assert change.withdrawn == ()
    assert (publication.info.codecs[1].mid, publication.info.codecs[1].cid) == ("", "")
    ask_for_backup(publications, publication.info.sid, "c3")
    assert [m.codec for m in publications.media_changed([vp9(), vp8("2", "c3")]).published] == [1]


def test_with_the_primary_the_track_ends():
    publications = made()
    publication = with_backup(publications)
    publications.media_changed([vp9()])
    ask_for_backup(publications, publication.info.sid)
    publications.media_changed([vp9(), vp8()])
    change = publications.media_changed([vp8()])
    assert change.withdrawn == (publication,)
    assert change.dropped == ()


def test_a_codec_that_was_not_announced_is_none_of_the_track():
    publications = made()
    publication = with_backup(publications)
    publications.media_changed([vp9()])
    assert ask_for_backup(publications, publication.info.sid, codec="h264") is publication
    assert publications.media_changed([vp9(), vp8()]).published == ()


def test_codecs_that_the_room_does_not_take_are_replaced():
    publications = Publications(random.Random(1), ("video/h264", "audio/opus"))
    publication = with_backup(publications)
    assert [codec.mime_type for codec in publication.info.codecs] == ["video/h264"]
    assert publication.preference().mime == "video/h264"


def test_a_client_without_codecs_in_its_request():
    publications = made()
    publication = add(publications, "c", AUDIO)
    (codec,) = publication.info.codecs
    assert (codec.mime_type, codec.cid) == ("", "c")
    assert codec.video_layer_mode == models.VideoLayer.Mode.ONE_SPATIAL_LAYER_PER_STREAM
    assert publication.info.backup_codec_policy == models.BackupCodecPolicy.SIMULCAST
    publications.media_changed([section("0", "c", "audio", "audio/opus")], 1234)
    assert (publication.info.codecs[0].mime_type, publication.info.version.unix_micro) == ("audio/opus", 1234)
    assert publication.mimes == ("audio/opus",)


def test_a_version_is_given_once():
    publications = made()
    publication = with_backup(publications)
    publications.media_changed([vp9()], 10)
    ask_for_backup(publications, publication.info.sid)
    publications.media_changed([vp9(), vp8()], 20)
    assert publication.info.version.unix_micro == 10


def test_numbers_of_streams():
    publications = made()
    publication = with_backup(publications)
    publications.media_changed([vp9(ssrcs=(5, 6), rtx_of={6: 5})])
    assert [layer.ssrc for layer in publication.info.codecs[0].layers] == [5, 0, 0]
    ask_for_backup(publications, publication.info.sid, layers=LAYERS)
    publications.media_changed([vp9(), vp8(rids=("q", "h", "f"))])
    assert publications.stream_bound("1", 2, 70, 0)
    assert publications.stream_bound("1", 2, 0, 71)
    assert not publications.stream_bound("1", 2, 70, 71)
    assert not publications.stream_bound("1", 7, 70, 71)
    assert not publications.stream_bound("nowhere", 0, 70, 71)
    layer = publication.info.codecs[1].layers[2]
    assert (layer.ssrc, layer.repair_ssrc) == (70, 71)
    assert [layer.ssrc for layer in publication.info.layers] == [5, 0, 0]
