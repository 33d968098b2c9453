"""Signalling on the wire, as a table: every request of one client with its answers, in protobuf and in JSON.

Each row was proven against livekit-server 1.13.5. To do so again, start it with `support.signal_client.CONFIG` and

    LK_SIGNAL_URL=ws://127.0.0.1:7880 python -m pytest tests/interop -k "signal_protocol or signal_stories"
"""

import itertools
from typing import Any

import pytest
from livekit.protocol import models, rtc
from support.interop import MARKS, run
from support.signal_client import Server, scene
from support.signal_table import (
    Ask,
    Ends,
    Hears,
    Raw,
    RefusedWith,
    Row,
    Some,
    ask,
    play,
    silence,
)

pytestmark = MARKS
ROOMS = itertools.count(1)
MIB = 1024 * 1024
Source, Type, Feature = models.TrackSource, models.TrackType, models.AudioTrackFeature


def starts(prefix: str) -> Any:
    return lambda text: isinstance(text, str) and text.startswith(prefix)


def mic(cid: str = "c1", **more: Any) -> Ask:
    return ask(add_track=rtc.AddTrackRequest(cid=cid, type=Type.AUDIO, source=Source.MICROPHONE, **more))


def camera(cid: str = "v1", **more: Any) -> Ask:
    return ask(add_track=rtc.AddTrackRequest(cid=cid, type=Type.VIDEO, source=Source.CAMERA, **more))


def published(cid: str = "c1", **track: Any) -> Hears:
    return Hears("track_published", {"cid": cid, "track": Some(sid=starts("TR_"), **track)})


def of_track(kind: str, **more: Any) -> Ask:
    """A request about the track that was published last."""

    def request(client: Any) -> dict[str, Any]:
        sid = client.said("track_published")[-1].body.track.sid
        name, message = {
            "mute": ("sid", rtc.MuteTrackRequest),
            "update_audio_track": ("track_sid", rtc.UpdateLocalAudioTrack),
            "update_video_track": ("track_sid", rtc.UpdateLocalVideoTrack),
        }[kind]
        return {kind: message(**{name: sid}, **more)}

    return Ask(request)


def metadata(**fields: Any) -> Ask:
    return ask(update_metadata=rtc.UpdateParticipantMetadata(**fields))


def self_info(**fields: Any) -> Hears:
    return Hears("update", {"participants": [Some(identity="alice", **fields)]})


def data_track(handle: int = 1, name: str = "t", **more: Any) -> Ask:
    return ask(publish_data_track_request=rtc.PublishDataTrackRequest(pub_handle=handle, name=name, **more))


def data_published(handle: int = 1, name: str = "t", **more: Any) -> Hears:
    info = {"pub_handle": handle, "sid": starts("DTR_"), "name": name, **more}
    return Hears("publish_data_track_response", {"info": info})


def store(request_id: int, blob: models.DataBlob | None = None) -> Ask:
    return ask(store_data_blob_request=rtc.StoreDataBlobRequest(request_id=request_id, blob=blob))


def key(name: str) -> Any:
    return models.DataBlobKey(generic=name)


def blob(name: str, contents: bytes = b"abc") -> models.DataBlob:
    return models.DataBlob(key=key(name), contents=contents)


def fetch(request_id: int, identity: str, name: str | None) -> Ask:
    wanted = key(name) if name else None
    request = rtc.GetDataBlobRequest(request_id=request_id, participant_identity=identity, key=wanted)
    return ask(get_data_blob_request=request)


def simulate(**scenario: Any) -> Ask:
    return ask(simulate=rtc.SimulateScenario(**scenario))


OWN = {"canUpdateOwnMetadata": True}
SIZES = [models.VideoLayer(quality=q, width=w, height=h) for q, w, h in ((2, 640, 360), (0, 160, 90), (1, 320, 180))]
LAYERS = [Some(width=160, height=90), Some(width=320, height=180, quality="MEDIUM"), Some(quality="HIGH")]
LOUD = pytest.approx(0.9, abs=0.01)
TOKEN = Hears("refresh_token", starts("ey"))
NO_BLOB = RefusedWith("INVALID_REQUEST", "data blob is invalid")
UNKNOWN_TRACK = rtc.MuteTrackRequest(sid="TR_nobody", muted=True)

ROWS = [
    Row("an empty request is ignored", (Raw(b""), Raw("{}"), silence())),
    Row("unknown fields in JSON are dropped", (Raw('{"pong": 3, "nonsense": {"a": [1]}}'), silence())),
    # 2.1: 1, 2, 3
    # With two connections somebody does wait for an answer, and cannot use this one: the client is to start over.
    Row("an answer of no use", (ask(answer=rtc.SessionDescription(type="answer", id=99)), silence(or_end=True))),
    Row(
        "trickle that is no JSON",
        (ask(trickle=rtc.TrickleRequest(candidateInit="nonsense")), RefusedWith("UNCLASSIFIED_ERROR")),
    ),
    Row(
        "trickle of a candidate, of none and the last one",
        (
            ask(trickle=rtc.TrickleRequest(candidateInit='{"candidate":"candidate:1 1 udp 2 192.0.2.9 9 typ host"}')),
            ask(trickle=rtc.TrickleRequest(candidateInit='{"candidate":""}', final=True)),
            silence(),
        ),
    ),
    # 2.1: 4, and 2.4
    Row(
        "add a microphone",
        (
            mic(name="voice", stereo=True, disable_dtx=True, muted=True),
            published(
                source="MICROPHONE",
                name="voice",
                muted=True,
                stereo=True,
                disable_dtx=True,
                stream="camera",
                backup_codec_policy="SIMULCAST",
                audio_features=["TF_STEREO", "TF_NO_DTX"],
                codecs=[Some(cid="c1")],
            ),
        ),
    ),
    Row(
        "add a camera: layers are put in order",
        (
            camera(width=640, height=360, layers=SIZES, simulcast_codecs=[rtc.SimulcastCodec(codec="vp8", cid="v1")]),
            published(
                "v1",
                type="VIDEO",
                source="CAMERA",
                width=640,
                height=360,
                stream="camera",
                simulcast=True,
                layers=LAYERS,
                codecs=[Some(mime_type="video/vp8", cid="v1", layers=LAYERS)],
            ),
        ),
    ),
    Row(
        "an SVC codec is no simulcast",
        (
            camera(layers=SIZES, simulcast_codecs=[rtc.SimulcastCodec(codec="vp9", cid="v1")]),
            published(
                "v1",
                simulcast=None,
                codecs=[Some(mime_type="video/vp9", video_layer_mode="MULTIPLE_SPATIAL_LAYERS_PER_STREAM")],
            ),
        ),
    ),
    Row(
        "a codec that is not enabled is replaced",
        (
            camera(simulcast_codecs=[rtc.SimulcastCodec(codec="video/nonsense", cid="v1")]),
            published("v1", codecs=[Some(mime_type=lambda mime: mime.lower() == "video/vp8")]),
        ),
    ),
    Row(
        "the stream of a screen and of a source that is not named",
        (
            ask(add_track=rtc.AddTrackRequest(cid="s", type=Type.VIDEO, source=Source.SCREEN_SHARE)),
            published("s", stream="screen"),
            ask(add_track=rtc.AddTrackRequest(cid="u", type=Type.VIDEO)),
            published("u", stream="unknown"),
            ask(add_track=rtc.AddTrackRequest(cid="w", type=Type.VIDEO, stream="mine")),
            published("w", stream="mine"),
        ),
    ),
    Row("add_track without canPublish", (mic(), RefusedWith("NOT_ALLOWED")), {"canPublish": False}),
    Row(
        "add_track of a source that the token does not name",
        (camera(), RefusedWith("NOT_ALLOWED"), mic(), published()),
        {"canPublishSources": ["microphone"]},
    ),
    Row(
        "add_track of data",
        (ask(add_track=rtc.AddTrackRequest(cid="d", type=Type.DATA)), RefusedWith("UNSUPPORTED_TYPE")),
    ),
    Row("add_track for a codec of an unknown track", (camera(sid="TR_nobody"), RefusedWith("NOT_FOUND"))),
    Row("add_track of a pending cid waits", (mic(), published(), mic(), RefusedWith("QUEUED"))),
    Row(
        "a cid may wait three times",
        (mic(), published(), *([mic(), RefusedWith("QUEUED")] * 3), mic(), RefusedWith("LIMIT_EXCEEDED")),
        ours="the reference sets no limit",
    ),
    Row(
        "twenty tracks may be pending",
        (
            *itertools.chain.from_iterable((mic(f"c{n}"), published(f"c{n}")) for n in range(20)),
            mic("c20"),
            RefusedWith("LIMIT_EXCEEDED"),
        ),
        ours="the reference sets no limit",
    ),
    Row(
        "what a track says about itself is kept",
        (
            camera(
                name="cam",
                disable_red=True,
                encryption=models.Encryption.Type.GCM,
                backup_codec_policy=models.BackupCodecPolicy.REGRESSION,
                packet_trailer_features=[models.PacketTrailerFeature.PTF_USER_TIMESTAMP] * 2,
            ),
            published(
                "v1",
                disable_red=True,
                encryption="GCM",
                backup_codec_policy="REGRESSION",
                packet_trailer_features=["PTF_USER_TIMESTAMP"],
            ),
        ),
        protocol=17,
    ),
    Row(
        "a microphone may ask for regression",
        (
            mic(backup_codec_policy=models.BackupCodecPolicy.REGRESSION),
            published(backup_codec_policy="REGRESSION"),
            mic("c2", backup_codec_policy=models.BackupCodecPolicy.PREFER_REGRESSION),
            published("c2", backup_codec_policy="SIMULCAST"),
        ),
    ),
    Row(
        "a microphone with the same feature twice, and its flags",
        (
            mic(audio_features=[Feature.TF_STEREO, Feature.TF_STEREO, Feature.TF_NOISE_SUPPRESSION]),
            published(audio_features=["TF_STEREO", "TF_NOISE_SUPPRESSION"]),
        ),
    ),
    # 2.1: 5, 17, 18
    Row("mute of an unknown track", (ask(mute=UNKNOWN_TRACK), RefusedWith("NOT_FOUND"))),
    Row("mute of a pending track", (mic(), published(), of_track("mute", muted=True), silence())),
    Row(
        "audio features of an unknown track",
        (ask(update_audio_track=rtc.UpdateLocalAudioTrack(track_sid="TR_nobody")), RefusedWith("NOT_FOUND")),
    ),
    Row(
        "audio features of a pending track",
        (mic(), published(), of_track("update_audio_track", features=[Feature.TF_STEREO]), silence()),
    ),
    Row(
        "size of an unknown track",
        (ask(update_video_track=rtc.UpdateLocalVideoTrack(track_sid="TR_nobody", width=1)), RefusedWith("NOT_FOUND")),
    ),
    Row("size of a pending track", (camera(), published("v1"), of_track("update_video_track", width=9), silence())),
    # 2.1: 6, 7, 10, 11, 12, 13
    Row(
        "wishes about unknown tracks are no errors",
        (
            ask(subscription=rtc.UpdateSubscription(track_sids=["TR_nobody"], subscribe=True)),
            ask(
                subscription=rtc.UpdateSubscription(
                    participant_tracks=[models.ParticipantTracks(participant_sid="PA_x", track_sids=["TR_y"])]
                )
            ),
            ask(track_setting=rtc.UpdateTrackSettings(track_sids=["TR_nobody"], quality=models.VideoQuality.LOW)),
            ask(update_layers=rtc.UpdateVideoLayers(track_sid="TR_nobody")),
            ask(subscription_permission=rtc.SubscriptionPermission(track_permissions=[rtc.TrackPermission()])),
            ask(sync_state=rtc.SyncState()),
            ask(update_data_subscription=rtc.UpdateDataSubscription()),
            simulate(),
            silence("request_response", "leave", "subscription_response"),
        ),
    ),
    Row(
        "sync_state with an unknown track",
        (
            ask(sync_state=rtc.SyncState(publish_tracks=[rtc.TrackPublishedResponse(track={"sid": "TR_nobody"})])),
            Hears("leave", {"reason": "STATE_MISMATCH", "action": "RECONNECT"}),
            Ends(1000),
        ),
    ),
    Row(
        "sync_state with a track that says nothing",
        (
            ask(sync_state=rtc.SyncState(publish_tracks=[rtc.TrackPublishedResponse(cid="c")])),
            Hears("leave", {"reason": "STATE_MISMATCH", "action": "RECONNECT"}),
            Ends(1000),
        ),
        protocol=13,
    ),
    Row(
        "sync_state with an unknown data track",
        (
            ask(sync_state=rtc.SyncState(publish_data_tracks=[rtc.PublishDataTrackResponse(info={"sid": "DTR_x"})])),
            Hears("leave", {"reason": "STATE_MISMATCH", "can_reconnect": True}),
            Ends(1000),
        ),
        protocol=12,
    ),
    Row(
        "sync_state with a pending track",
        (
            mic(),
            published(),
            Ask(lambda client: {"sync_state": rtc.SyncState(publish_tracks=[client.said("track_published")[0].body])}),
            silence("leave"),
        ),
    ),
    # 2.1: 8, and 2.6
    *[
        Row(
            f"leave: {name}",
            (
                ask(leave=rtc.LeaveRequest(reason=name)),
                Hears("leave", {"reason": heard}),
                Ends(1000),
            ),
        )
        for name, heard in (
            ("UNKNOWN_REASON", "CLIENT_INITIATED"),
            ("CLIENT_INITIATED", "CLIENT_INITIATED"),
            ("USER_UNAVAILABLE", "USER_UNAVAILABLE"),
            ("USER_REJECTED", "USER_REJECTED"),
            ("AGENT_ERROR", "AGENT_ERROR"),
            ("SERVER_SHUTDOWN", "CLIENT_INITIATED"),
            ("ROOM_DELETED", "CLIENT_INITIATED"),
        )
    ],
    # 2.1: 14, 16
    Row("ping", (ask(ping=5), Hears("pong", lambda ms: ms > 1_700_000_000_000))),
    Row(
        "ping_req",
        (
            ask(ping_req=rtc.Ping(timestamp=123, rtt=4)),
            Hears("pong_resp", {"last_ping_timestamp": "123", "timestamp": lambda text: int(text) > 1_700_000_000_000}),
        ),
    ),
    # 2.1: 15
    Row(
        "metadata, name and attributes",
        (
            metadata(name="Al", metadata="m", attributes={"a": "1", "b": "2"}, request_id=7),
            self_info(name="Al", metadata="m", attributes={"a": "1", "b": "2"}),
            TOKEN,
            RefusedWith("OK", ""),
            metadata(attributes={"a": ""}),
            self_info(name="Al", metadata="m", attributes={"b": "2"}),
            TOKEN,
            RefusedWith("OK", ""),
        ),
        OWN,
    ),
    Row(
        "metadata below protocol 15: no word of success",
        (metadata(name="Al", request_id=7), self_info(name="Al"), TOKEN, silence(), silence()),
        OWN,
        protocol=14,
    ),
    Row(
        "metadata without the right to it",
        (
            metadata(name="Al", request_id=7),
            RefusedWith("NOT_ALLOWED", "does not have permission to update own metadata"),
            silence("update", "refresh_token"),
        ),
    ),
    Row(
        "metadata without the right to it, of an old client",
        (metadata(name="Al"), RefusedWith("NOT_ALLOWED", "does not have permission to update own metadata")),
        protocol=3,
    ),
    Row(
        "a name that is too long",
        (metadata(name="x" * 257, request_id=1), RefusedWith("LIMIT_EXCEEDED", "exceeds name length limit")),
        OWN,
    ),
    Row(
        "metadata that is too long",
        (
            metadata(metadata="x" * 524_289, request_id=2),
            RefusedWith("LIMIT_EXCEEDED", "exceeds metadata size limit"),
            silence("update", "refresh_token"),
        ),
        OWN,
    ),
    Row(
        "attributes that are too long",
        (
            metadata(attributes={"k": "x" * 65_536}, request_id=3),
            RefusedWith("LIMIT_EXCEEDED", "exceeds attributes size limit"),
        ),
        OWN,
    ),
    # 2.1: 19, 20
    Row(
        "publish and unpublish a data track",
        (
            data_track(encryption=models.Encryption.Type.GCM),
            data_published(encryption="GCM"),
            ask(unpublish_data_track_request=rtc.UnpublishDataTrackRequest(pub_handle=1)),
            Hears("unpublish_data_track_response", {"info": Some(pub_handle=1, sid=starts("DTR_"))}),
            data_track(),
            data_published(),
        ),
    ),
    Row(
        "a data track without canPublishData",
        (data_track(), RefusedWith("NOT_ALLOWED", "does not have permission to publish data")),
        {"canPublishData": False},
    ),
    *[
        Row(f"a data track by the handle {handle}", (data_track(handle), RefusedWith("INVALID_HANDLE")))
        for handle in (0, 65536)
    ],
    Row("a data track by the last handle", (data_track(65535), data_published(65535))),
    *[
        Row(f"a data track with a name of {size}", (data_track(name="x" * size), RefusedWith("INVALID_NAME")))
        for size in (0, 257)
    ],
    Row("a data track with the longest name", (data_track(name="x" * 256), data_published(name="x" * 256))),
    *[
        Row(
            f"a data track with an encoding of {size}",
            (
                data_track(frame_encoding=models.DataTrackFrameEncoding(custom="x" * size)),
                RefusedWith("INVALID_REQUEST", "encoding identifier is empty or exceeds the maximum length"),
            ),
        )
        for size in (0, 33)
    ],
    Row(
        "a data track with the handle or the name of another",
        (
            data_track(1, "t"),
            data_published(),
            data_track(1, "u"),
            RefusedWith("DUPLICATE_HANDLE", "a data track with same handle already exists"),
            data_track(2, "t"),
            RefusedWith("DUPLICATE_NAME", "a data track with same name already exists"),
        ),
    ),
    Row(
        "unpublish an unknown data track",
        (
            ask(unpublish_data_track_request=rtc.UnpublishDataTrackRequest(pub_handle=3)),
            RefusedWith("NOT_FOUND", ""),
        ),
    ),
    # 2.1: 22, 23
    Row(
        "store and get a data blob",
        (
            store(4, blob("k")),
            Hears("store_data_blob_response", {"request_id": 4, "key": {"generic": "k"}}),
            fetch(5, "alice", "k"),
            Hears("get_data_blob_response", {"request_id": 5, "blob": {"key": {"generic": "k"}, "contents": "YWJj"}}),
        ),
    ),
    Row("a data blob that is none", (store(4), NO_BLOB)),
    Row("an empty data blob", (store(4, blob("k", b"")), RefusedWith("INVALID_REQUEST", "data blob is empty"))),
    Row("a data blob by a long key", (store(4, blob("k" * 257)), NO_BLOB)),
    Row(
        "data blobs that are too large",
        (
            store(4, blob("k", b"x" * 40_000)),
            Hears("store_data_blob_response", Some(request_id=4)),
            store(5, blob("l", b"x" * 40_000)),
            RefusedWith("LIMIT_EXCEEDED", "async attribute definition exceeds limit"),
        ),
    ),
    Row(
        "get a data blob that is not there",
        (
            fetch(6, "alice", None),
            RefusedWith("INVALID_REQUEST", "data blob key is required"),
            fetch(6, "carol", "k"),
            RefusedWith("NOT_FOUND", "participant not found"),
            fetch(6, "alice", "k"),
            RefusedWith("NOT_FOUND", "data blob not found"),
        ),
    ),
    # 2.8
    Row(
        "simulate a speaker",
        (
            simulate(speaker_update=1),
            Hears("speakers_changed", {"speakers": [{"sid": starts("PA_"), "level": LOUD, "active": True}]}),
            Hears("speakers_changed", {"speakers": [{"sid": starts("PA_")}]}),
        ),
        protocol=3,
    ),
    Row(
        "simulate a speaker: a client that does not know the message",
        (simulate(speaker_update=0), silence("speakers_changed"), silence("speakers_changed")),
        protocol=2,
    ),
    Row(
        "simulate a server that leaves",
        (simulate(server_leave=True), Hears("leave", {"reason": "SERVER_SHUTDOWN"}), Ends(1000)),
        protocol=13,
    ),
    Row("simulate a node that fails", (simulate(node_failure=True), Ends(1000))),
    Row("simulate a migration", (simulate(migration=True), Ends(1000))),
    Row("simulate another protocol", (simulate(switch_candidate_protocol=rtc.CandidateProtocol.TCP), silence())),
    Row("simulate a thin line", (simulate(subscriber_bandwidth=100_000), simulate(subscriber_bandwidth=0), silence())),
    Row(
        "simulate a full reconnect",
        (simulate(leave_request_full_reconnect=True), Hears("leave", {"action": "RECONNECT"}), Ends(1000)),
        ours="the reference does not handle it",
    ),
]


@pytest.mark.parametrize("v1", [False, True], ids=["two", "one"])
@pytest.mark.parametrize("json", [False, True], ids=["protobuf", "json"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name.replace(" ", "-"))
def test_row(signal_server: Server, row: Row, json: bool, v1: bool) -> None:
    if v1 != json and row.protocol == 16:
        pytest.skip("two of the four ways are enough where nothing depends on the generation")
    if row.ours and signal_server.reference:
        pytest.skip(row.ours)

    async def test() -> None:
        async with scene(signal_server, f"row-{next(ROOMS)}") as stage:
            await play(row, stage, json=json, v1=v1)

    run(test, 40.0)
