"""The publisher connection of a session: our tracks, and the offers that describe them.

A track outlives the connection: after a full reconnect `publish` is asked for the same tracks again, on a new
transport. Frames that come meanwhile are dropped, as with a camera that nobody watches.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio
from livekit.protocol import models, rtc

from lkactor.client.signal import SignalError
from lkactor.client.tracks import LocalTrack, TrackSpec
from lkactor.client.transport import Transport
from lkactor.errors import ProtocolViolation
from lkactor.peer.negotiation import OfferNegotiation, OfferReady
from lkactor.sdp import Offerer, SendTrack
from lkactor.sdp.codecs import pick_codec, read_codecs
from lkactor.sdp.description import SessionDescription
from lkactor.wire.extensions import DEPENDENCY_DESCRIPTOR
from lkactor.wire.rtcp import RtcpPacket

CODECS = ("audio/opus", "video/vp8", "video/h264", "video/vp9", "video/av1", "video/rtx")
H264_FMTP = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
"""Mode 1, for the packetizer fragments (RFC 6184 section 5.4)."""
PUBLISH_TIMEOUT = 10.0
SLOW_WAY = 10.0
"""Seconds more, where TCP or TURN is tried after UDP."""


class Publisher:
    """`post` takes descriptions for the server, `request` sends an AddTrackRequest (raises SignalError)."""

    def __init__(
        self,
        transport: Transport,
        rng: random.Random,
        post: Callable[[rtc.SessionDescription], None],
        request: Callable[[rtc.AddTrackRequest], Awaitable[None]],
    ) -> None:
        self.transport = transport
        self.tracks: dict[str, LocalTrack] = {}
        self.last_offer = rtc.SessionDescription()
        self.refused = ""
        self._post, self._request = post, request
        self._offers = OfferNegotiation(Offerer(codecs=CODECS), transport.peer, rng)
        self._published: dict[str, trio.Event] = {}
        self._agreed = trio.Event()
        self._over = ""
        transport.negotiation = self._offers
        transport.on_rtcp, transport.on_turn = self._on_rtcp, self._on_turn

    @property
    def begun(self) -> bool:
        """There is a connection that an outage may have hurt."""
        return bool(self.last_offer.sdp)

    async def publish(self, tracks: Sequence[LocalTrack]) -> None:
        """Returns when the server has agreed to all of them, and media can flow. Raises SignalError."""
        for track in tracks:  # all of them first: who joins again publishes what stands here
            track.attach(self.transport)
            self.tracks[track.cid] = track
            self._published[track.cid] = trio.Event()
        for track in tracks:
            await self._request(add_track(track.spec, track.cid))
        self.refused = ""
        with trio.move_on_after(PUBLISH_TIMEOUT + SLOW_WAY) as limit:
            for track in tracks:
                await self._published[track.cid].wait()
            self._raise_if_over()
            self._agreed = trio.Event()
            sends = [SendTrack(track.cid, "-", track.spec.kind, track.ssrc) for track in self.tracks.values()]
            now = trio.current_time()
            self._offers.set_send_tracks(sends, now)
            self._offers.start(now)
            self.transport.wake()
            limit.deadline = now + PUBLISH_TIMEOUT
            await self._agreed.wait()
            self._raise_if_over()
            limit.deadline = trio.current_time() + PUBLISH_TIMEOUT
            await self.transport.connected.wait()
        if limit.cancelled_caught:
            raise SignalError(self._late())

    def restart_ice(self) -> None:
        self._offers.restart_ice(trio.current_time())
        self.transport.wake()

    def end(self, reason: str) -> None:
        """Nobody shall wait any longer."""
        self._over = reason
        self._agreed.set()
        for event in self._published.values():
            event.set()

    def sync(self, state: rtc.SyncState) -> None:
        """What the server is to know of us after a resume."""
        if self.begun:
            state.offer.CopyFrom(self.last_offer)
        for track in self.tracks.values():
            if track.info is not None:
                state.publish_tracks.append(rtc.TrackPublishedResponse(cid=track.cid, track=track.info))

    # -- what the server says ---------------------------------------------------------------------------------------

    def on_published(self, response: rtc.TrackPublishedResponse) -> None:
        track = self.tracks.get(response.cid)
        if track is not None:
            track.info = response.track
            self._published[track.cid].set()

    def on_refusal(self, answer: rtc.RequestResponse) -> None:
        if answer.reason in (rtc.RequestResponse.Reason.OK, rtc.RequestResponse.Reason.QUEUED):
            return
        name = rtc.RequestResponse.Reason.Name(answer.reason)
        self.refused = f"{name}: {answer.message}" if answer.message else name
        for event in self._published.values():
            event.set()

    def on_answer(self, sdp: str) -> None:
        try:
            self._offers.receive_answer(sdp, trio.current_time())
        except ProtocolViolation as violation:
            self.refused = f"the server's answer cannot be used: {violation}"
        for media in self._offers.send_media():
            track = self.tracks.get(media.track_id)
            if track is None:
                continue
            codec = pick_codec(media, track.spec.mime, H264_FMTP if track.spec.mime == "video/h264" else "")
            if codec is None:
                self.refused = f"the server does not take {track.spec.mime}"
            else:
                track.agreed(codec.payload_type)
        if any(track.info is None or not track.has_codec for track in self.tracks.values()):
            self.refused = self.refused or "the server did not accept a track's section"
        self._agreed.set()
        self.transport.wake()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _raise_if_over(self) -> None:
        if self._over or self.refused:
            raise SignalError(self.refused or self._over)

    def _late(self) -> str:
        if not self._agreed.is_set():
            return f"no answer to the publication within {PUBLISH_TIMEOUT:g} s"
        why = self.transport.describe_failure()
        return f"the media connection was not made within {PUBLISH_TIMEOUT:g} s: {why}"

    def _on_rtcp(self, packets: list[RtcpPacket]) -> None:
        for track in self.tracks.values():
            track.receive_rtcp(packets)

    def _on_turn(self, now: float) -> None:
        while (event := self._offers.next_event()) is not None:
            if isinstance(event, OfferReady):
                sdp = as_sender(event.sdp, {cid: track.spec.mime for cid, track in self.tracks.items()})
                self.last_offer = rtc.SessionDescription(type="offer", sdp=sdp, id=event.offer_id)
                self._post(self.last_offer)
        for track in self.tracks.values():
            self.transport.send_rtcp(track.report(now))


def as_sender(sdp: str, mimes: Mapping[str, str]) -> str:
    """An offer that says what is really sent: the codec of each track, by its cid, is the first of its section.

    A server may take the first codec of a section for the track's, and drop packets of another. The rest stays, for
    some read the codecs of all sections off the first. A dependency descriptor is not offered: a server offered one
    waits for it with each picture.
    """
    description = SessionDescription.parse(sdp)
    for section in description.media:
        mime = mimes.get(section.msid[1])
        if mime is None:
            continue
        fitting = [codec for codec in read_codecs(section) if codec.mime == mime]
        mode_1 = [codec for codec in fitting if "packetization-mode=1" in codec.fmtp]
        kept = str((mode_1 or fitting)[0].payload_type)
        section.formats.remove(kept)
        section.formats.insert(0, kept)
        section.attributes[:] = [
            (name, value)
            for name, value in section.attributes
            if not (name == "extmap" and DEPENDENCY_DESCRIPTOR in value)
        ]
    return str(description)


def add_track(spec: TrackSpec, cid: str) -> rtc.AddTrackRequest:
    request = rtc.AddTrackRequest(
        cid=cid,
        name=spec.name,
        type=models.TrackType.AUDIO if spec.kind == "audio" else models.TrackType.VIDEO,
        source=spec.source,
        width=spec.width,
        height=spec.height,
        stereo=spec.kind == "audio" and spec.channels > 1,
    )
    if spec.kind == "video":
        request.layers.append(models.VideoLayer(quality=models.VideoQuality.HIGH, width=spec.width, height=spec.height))
        codec = spec.mime.partition("/")[2]
        request.simulcast_codecs.append(rtc.SimulcastCodec(codec=codec, cid=cid, layers=request.layers))
    return request
