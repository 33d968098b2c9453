"""Codecs that one client has and another lacks, in virtual time: refused tracks leave the offer, others still come.

Source: livekit-surface 2.5 and 2.10.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from livekit.protocol import models
from livekit.protocol import rtc as signal
from support.actor_leaks import run_actors
from support.domain_world import Guest, World, world

FINGERPRINT = ":".join(["AB"] * 32)
VP8, H264 = "96 VP8/90000", "108 H264/90000"


def in_world(test: Callable[[World], Awaitable[None]], config: str = "") -> None:
    async def main() -> None:
        async with world(config) as hall:
            await test(hall)

    run_actors(main)


def section(mid: str, direction: str, *codecs: str, cid: str = "") -> str:
    lines = [
        "m=video 9 UDP/TLS/RTP/SAVPF " + " ".join(codec.split()[0] for codec in codecs), "c=IN IP4 0.0.0.0",
        "a=ice-ufrag:abcd", "a=ice-pwd:0123456789012345678901", "a=setup:actpass", f"a=mid:{mid}", f"a={direction}",
        "a=rtcp-mux", *(f"a=rtpmap:{codec}" for codec in codecs), *([f"a=msid:- {cid}"] if cid else []),
    ]  # fmt: skip
    return "\r\n".join(lines) + "\r\n"


async def offer(guest: Guest, *sections: str) -> list[str]:
    """The answer's video sections, each from its m= line on."""
    mids = " ".join(str(n) for n in range(len(sections)))
    head = f"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=fingerprint:sha-256 {FINGERPRINT}\r\n"
    sdp = f"{head}a=group:BUNDLE {mids}\r\n" + "".join(sections)
    await guest.ask(offer=signal.SessionDescription(type="offer", sdp=sdp, id=1))
    return ["m=video" + part for part in guest.heard("answer")[-1].sdp.split("m=video")[1:]]


async def publish(guest: Guest, cid: str) -> str:
    await guest.ask(add_track=signal.AddTrackRequest(cid=cid, type=models.TrackType.VIDEO))
    return str(guest.heard("track_published")[-1].track.sid)


def test_a_track_that_cannot_be_decoded_leaves_the_offer_and_others_still_come() -> None:
    async def test(hall: World) -> None:
        ann, ben = await hall.join("ann"), await hall.join("ben")
        first, second = section("0", "sendonly", H264, cid="a"), section("1", "sendonly", VP8, cid="b")
        refused = await publish(ann, "a")
        await offer(ann, first)
        (answer,) = await offer(ben, section("0", "recvonly", VP8))
        assert f"|{refused}" in answer
        (said,) = ben.heard("subscription_response")
        assert (said.track_sid, said.err) == (refused, models.SubscriptionError.SE_CODEC_UNSUPPORTED)

        taken = await publish(ann, "b")
        await offer(ann, first, second)
        await trio.sleep(1)
        assert ben.heard("media_sections_requirement")
        lines = [section("0", "recvonly", VP8), section("1", "recvonly", VP8)]
        answers = await offer(ben, *lines)
        assert "a=inactive" in answers[0] and refused not in "".join(answers)
        assert any(f"|{taken}" in answer for answer in await offer(ben, *lines))
        assert len(ben.heard("subscription_response")) == 1
        # Who asks again is answered again.
        await ben.ask(subscription=signal.UpdateSubscription(track_sids=[refused], subscribe=True))
        await trio.sleep(1)
        answers = await offer(ben, *lines)
        assert len(ben.heard("subscription_response")) == 2 and any(f"|{taken}" in answer for answer in answers)

    in_world(test)


@pytest.mark.parametrize("single", [True, False])
def test_a_device_that_encodes_h264_badly_is_not_asked_for_it(single: bool) -> None:
    async def test(hall: World) -> None:
        client = models.ClientInfo(protocol=16, os="android", device_model="Xiaomi 2201117TI")
        ann = await hall.join("ann", client=client, single=single)
        join = ann.heard("join")[0]
        assert "video/h264" not in {codec.mime.lower() for codec in join.enabled_publish_codecs}
        assert [codec.mime for codec in join.client_configuration.disabled_codecs.publish] == ["video/H264"]
        await publish(ann, "a")
        (answer,) = await offer(ann, section("0", "sendonly", H264, VP8, cid="a"))
        assert "VP8/90000" in answer and "H264" not in answer

    in_world(test)
