"""A track in two codecs, from its announcement to its end, in virtual time: what the publisher and the others are told.

Source: livekit-media 3.11, livekit-surface 2.4.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from livekit.protocol import models
from livekit.protocol import rtc as signal
from support.actor_leaks import run_actors
from support.domain_world import Guest, World, settle, world

from actors.messages.participant import StreamBound, WantedAudioCodecs, WantedQualityChanged

LAYERS = [models.VideoLayer(quality=n, width=320 << n, height=180 << n) for n in range(3)]
FINGERPRINT = ":".join(["AB"] * 32)


def in_world(test: Callable[[World], Awaitable[None]], config: str = "") -> None:
    async def main() -> None:
        async with world(config) as hall:
            await test(hall)

    run_actors(main)


def section(mid: str, cid: str, direction: str = "sendonly") -> str:
    return (
        "m=video 9 UDP/TLS/RTP/SAVPF 96 98\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\n"
        "a=ice-pwd:0123456789012345678901\r\na=setup:actpass\r\n"
        f"a=mid:{mid}\r\na={direction}\r\na=rtcp-mux\r\na=msid:- {cid}\r\n"
        "a=rtpmap:96 VP8/90000\r\na=rtpmap:98 VP9/90000\r\na=fmtp:98 profile-id=0\r\n"
    )


def offer(*sections: str) -> signal.SessionDescription:
    mids = " ".join(str(n) for n in range(len(sections)))
    head = f"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=fingerprint:sha-256 {FINGERPRINT}\r\n"
    return signal.SessionDescription(type="offer", sdp=f"{head}a=group:BUNDLE {mids}\r\n" + "".join(sections), id=1)


def add_track(cid: str, *codecs: tuple[str, str], **fields: object) -> signal.AddTrackRequest:
    return signal.AddTrackRequest(
        cid=cid,
        type=models.TrackType.VIDEO,
        layers=LAYERS,
        simulcast_codecs=[signal.SimulcastCodec(codec=codec, cid=own) for codec, own in codecs],
        **fields,  # type: ignore[arg-type]
    )


async def publish(ann: Guest, **fields: object) -> str:
    """VP9 with VP8 as its backup, announced and offered. The track's sid."""
    await ann.ask(add_track=add_track("c", ("vp9", "c"), ("vp8", ""), **fields))
    await ann.ask(offer=offer(section("0", "c")))
    return str(ann.heard("track_published")[0].track.sid)


async def publish_backup(ann: Guest, sid: str) -> None:
    await ann.ask(add_track=add_track("c2", ("vp8", "c2"), sid=sid))
    await ann.ask(offer=offer(section("0", "c"), section("1", "c2")))


def track_seen_by(guest: Guest) -> models.TrackInfo:
    infos = [info for update in guest.heard("update") for info in update.participants if info.identity == "ann"]
    return infos[-1].tracks[0]


def test_one_sid_two_codecs() -> None:
    async def test(hall: World) -> None:
        ann, ben = await hall.join("ann"), await hall.join("ben")
        sid = await publish(ann)
        assert [codec.mid for codec in track_seen_by(ben).codecs] == ["0", ""]
        await publish_backup(ann, sid)
        published = ann.heard("track_published")
        assert [(answer.cid, answer.track.sid) for answer in published] == [("c", sid), ("c2", sid)]
        seen = track_seen_by(ben)
        assert [(codec.mime_type, codec.mid, codec.cid) for codec in seen.codecs] == [
            ("video/VP9", "0", "c"),
            ("video/VP8", "1", "c2"),
        ]
        assert (seen.mime_type, seen.mid, seen.version.unix_micro > 0) == ("video/VP9", "0", True)
        answer = ann.heard("answer")[-1].sdp
        assert [line.split()[3] for line in answer.splitlines() if line.startswith("m=video")] == ["98", "96"]
        assert not ann.heard("request_response")
        assert "track.backup" in hall.events()

    in_world(test)


def test_a_small_room_regresses_a_large_one_does_not() -> None:
    async def test(hall: World) -> None:
        ann = await hall.join("ann")
        await publish_backup(ann, await publish(ann))
        assert "track.regressed" in hall.events()

    async def crowd(hall: World) -> None:
        ann = await hall.join("ann")
        others = [await hall.join(f"guest {n}") for n in range(4)]
        await publish_backup(ann, await publish(ann))
        assert "track.regressed" not in hall.events()
        assert len(others) == 4

    in_world(test)
    in_world(crowd)


def test_the_publisher_decides_if_it_says_so() -> None:
    async def never(hall: World) -> None:
        ann = await hall.join("ann")
        await publish_backup(ann, await publish(ann, backup_codec_policy=models.BackupCodecPolicy.SIMULCAST))
        assert "track.regressed" not in hall.events()

    async def always(hall: World) -> None:
        ann = await hall.join("ann")
        await hall.join("ben")
        await publish_backup(ann, await publish(ann, backup_codec_policy=models.BackupCodecPolicy.REGRESSION))
        assert "track.regressed" in hall.events()

    in_world(never)
    in_world(always, "video: {codec_regression_threshold: 1}")


def test_the_backup_ends_then_the_track() -> None:
    async def test(hall: World) -> None:
        ann, ben = await hall.join("ann"), await hall.join("ben")
        sid = await publish(ann)
        await publish_backup(ann, sid)
        await ann.ask(offer=offer(section("0", "c"), section("1", "c2", "inactive")))
        assert "track.backup_ended" in hall.events()
        assert "track.unpublished" not in hall.events()
        await ann.ask(offer=offer(section("0", "c", "inactive"), section("1", "c2", "inactive")))
        assert "track.unpublished" in hall.events()
        infos = [info for update in ben.heard("update") for info in update.participants if info.identity == "ann"]
        assert len(infos[-1].tracks) == 0

    in_world(test)


def test_a_backup_of_an_unknown_track_is_refused() -> None:
    async def test(hall: World) -> None:
        ann = await hall.join("ann")
        await ann.ask(add_track=add_track("c2", ("vp8", "c2"), sid="TR_nobody"))
        (answer,) = ann.heard("request_response")
        assert answer.reason == signal.RequestResponse.Reason.NOT_FOUND

    in_world(test)


def test_wishes_are_told_codec_by_codec() -> None:
    async def test(hall: World) -> None:
        ann = await hall.join("ann")
        sid = await publish(ann)
        ann.ref.tell(WantedQualityChanged(sid, (("video/vp9", -1), ("video/vp8", 1))))
        ann.ref.tell(WantedAudioCodecs(sid, ("audio/opus", "audio/pcmu")))
        await settle()
        (update,) = ann.heard("subscribed_quality_update")
        told = {entry.codec: [q.enabled for q in entry.qualities] for entry in update.subscribed_codecs}
        assert told == {"vp9": [False, False, False], "vp8": [True, True, False]}
        assert [q.enabled for q in update.subscribed_qualities] == [False, False, False]
        (audio,) = ann.heard("subscribed_audio_codec_update")
        assert [(entry.codec, entry.enabled) for entry in audio.subscribed_audio_codecs] == [
            ("opus", True),
            ("pcmu", True),
        ]

    in_world(test)


def test_after_ten_seconds_a_track_that_nobody_wants_is_stopped() -> None:
    async def test(hall: World) -> None:
        ann = await hall.join("ann")
        await publish(ann)
        await trio.sleep(10.5)
        (update,) = ann.heard("subscribed_quality_update")
        assert [entry.codec for entry in update.subscribed_codecs] == ["vp9"]
        assert not any(quality.enabled for quality in update.subscribed_qualities)

    in_world(test)


def test_numbers_of_streams_are_for_the_rooms_copy() -> None:
    async def test(hall: World) -> None:
        ann, ben = await hall.join("ann"), await hall.join("ben")
        await publish(ann)
        before = len(ben.sink.heard)
        ann.ref.tell(StreamBound("0", 1, 77, 78))
        await settle()
        assert len(ben.sink.heard) == before
        late = await hall.join("late")
        (info,) = [p for p in late.heard("join")[0].other_participants if p.identity == "ann"]
        assert (info.tracks[0].layers[1].ssrc, info.tracks[0].layers[1].repair_ssrc) == (77, 78)

    in_world(test)
