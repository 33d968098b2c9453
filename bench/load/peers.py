"""Participants of the load generator: full signalling, ICE and DTLS on `/rtc` with two peer connections."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import trio
from livekit.protocol import models, rtc
from load.pace import Departures
from load.pool import STAMP, Pool, Transport
from load.reports import TRANSPORT_CC_ID, with_transport_cc
from load.servers import Server
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

from lkactor.auth import issue_token
from lkactor.peer import PeerEvent
from lkactor.peer.negotiation import AnswerNegotiation, AnswerReady, OfferNegotiation, OfferReady
from lkactor.sctp import ChannelOpened
from lkactor.sdp import Answerer, Offerer, SendTrack
from lkactor.wire.extensions import AUDIO_LEVEL
from lkactor.wire.rtp import build_rtp

CODECS = ("audio/opus", "video/vp8", "video/rtx")
KEY_FRAME = b"\x90\x80\x80\x01\x10\x02\x00\x9d\x01\x2a\x00\x05\xd0\x02"
DELTA_FRAME = b"\x90\x80\x80\x02\x11"
REST_OF_FRAME = b"\x80\x80\x80\x02\x11"
"""Of a packet that begins no partition."""
SPEECH = bytes((0x80 | 30,))
"""RFC 6464: voice, at -30 dBov."""
PROTOCOL = 16


@dataclass(frozen=True, slots=True)
class Stream:
    """A track of `rate` packets a second with `size` octets of RTP each. `together`: packets of a picture, which leave
    one right after the other; 1: all are evenly spaced."""

    kind: str
    rate: float
    size: int
    together: int = 1


VIDEO, VIDEO_FAST = Stream("video", 200, 1100), Stream("video", 1000, 1100)
MEETING_VIDEO, AUDIO = Stream("video", 150, 1100), Stream("audio", 50, 120)
PICTURES, MEETING_PICTURES = Stream("video", 200, 1100, together=8), Stream("video", 150, 1100, together=6)
"""25 a second."""


class Member:
    """One participant. `full`: what it receives is decrypted and checked; others only count. `browser`: its packets
    have transport-wide numbers, and it is told when they came."""

    def __init__(
        self,
        server: Server,
        pool: Pool,
        room: str,
        identity: str,
        *,
        streams: Sequence[Stream] = (),
        full: bool = False,
        data: bool = False,
        subscribe: bool = True,
        browser: bool = False,
    ) -> None:
        video = {"room": room, "room_join": True}
        token = issue_token(server.key, server.secret, identity=identity, video=video, now_unix=time.time())
        query = f"access_token={token}&protocol={PROTOCOL}&auto_subscribe={int(subscribe)}&sdk=go"
        self.url = f"{server.url}/rtc?{query}"
        self.identity = identity
        self.streams = {f"{identity}-{stream.kind}-{n}": stream for n, stream in enumerate(streams)}
        self.joined, self.channel_open = trio.Event(), trio.Event()
        self.sent = self.crowded = 0
        """Packets, and those of them that came less than half an interval after the one before: the generator's own
        bursts, since it spaces packets, or pictures, evenly and makes up for what it is late."""
        self.rate = 0.0
        """Packets a second of each stream, instead of the stream's own; may change while it runs."""
        self._browser, self._wide = browser, 0
        self.reliable = 0
        """The channel for reliable data."""
        self.subscriber = Transport(pool, controlling=False, full=full)
        self._answers = AnswerNegotiation(Answerer(codecs=CODECS), self.subscriber.peer)
        self.publisher: Transport | None = None
        self._announced = 0
        if streams or data:
            publisher = self.publisher = Transport(pool, controlling=True)
            self._offers = OfferNegotiation(Offerer(codecs=CODECS), publisher.peer, publisher.rng)
            publisher.on_event = self._on_publisher
        self._pool = pool

    async def run(self) -> None:
        """The signal connection, until it ends or is cancelled."""
        async with open_websocket_url(self.url, max_message_size=1 << 24) as websocket:
            self._websocket: WebSocketConnection = websocket
            try:
                while True:
                    response = rtc.SignalResponse()
                    response.ParseFromString(_octets(await websocket.get_message()))
                    await self._handle(response)
            except ConnectionClosed:
                return

    def close(self) -> None:
        for transport in (self.subscriber, self.publisher):
            if transport is not None:
                self._pool.drop(transport)

    async def ready(self) -> None:
        """Joined, and connected with all that it has."""
        await self.joined.wait()
        if self.publisher is not None:
            await self.publisher.connected.wait()
        if self.reliable:
            await self.channel_open.wait()

    async def send(self, **request: Any) -> None:
        await self._websocket.send_message(rtc.SignalRequest(**request).SerializeToString())

    # -- signalling -------------------------------------------------------------------------------------------------

    async def _handle(self, response: rtc.SignalResponse) -> None:
        match response.WhichOneof("message"):
            case "join":
                self.joined.set()
                for cid, stream in self.streams.items():
                    await self.send(add_track=_add_track(cid, stream))
                if self.publisher is not None and not self.streams:
                    await self._offer()
            case "track_published":
                self._announced += 1
                if self._announced == len(self.streams):
                    await self._offer()
            case "offer":
                await self._answer(response.offer)
            case "answer" if self.publisher is not None:
                self._offers.receive_answer(response.answer.sdp, trio.current_time())
                self.publisher.flush()
                if self.publisher.peer.sctp is not None and not self.reliable:
                    self.reliable = self.publisher.peer.sctp.open_channel("_reliable")

    async def _offer(self) -> None:
        tracks = [
            SendTrack(cid, "-", stream.kind, self._ssrc(cid), mimes=(_mime(stream),))
            for cid, stream in self.streams.items()
        ]
        now = trio.current_time()
        self._offers.set_send_tracks(tracks, now)
        self._offers.start(now)
        event = self._offers.next_event()
        assert isinstance(event, OfferReady)
        sdp = with_transport_cc(event.sdp) if self._browser else event.sdp
        await self.send(offer=rtc.SessionDescription(type="offer", sdp=sdp, id=event.offer_id))

    async def _answer(self, offer: rtc.SessionDescription) -> None:
        self._answers.receive_offer(offer.sdp, offer.id, {}, trio.current_time())
        while (event := self._answers.next_event()) is not None:
            if isinstance(event, AnswerReady):
                answer = rtc.SessionDescription(type="answer", sdp=event.sdp, id=event.offer_id)
                await self.send(answer=answer)
        self.subscriber.flush()

    def _on_publisher(self, event: PeerEvent) -> None:
        if isinstance(event, ChannelOpened) and event.channel_id == self.reliable:
            self.channel_open.set()

    # -- media ------------------------------------------------------------------------------------------------------

    def _ssrc(self, cid: str) -> int:
        return 0x10000 + list(self.streams).index(cid)

    async def stream(self, cid: str) -> None:
        """Send this track until cancelled. A key frame whenever one is asked for."""
        stream, transport = self.streams[cid], self.publisher
        assert transport is not None
        media = next(media for media in self._offers.send_media() if media.track_id == cid)
        payload_type = next(codec.payload_type for codec in media.codecs if codec.mime == _mime(stream))
        level = media.extensions.get(AUDIO_LEVEL)
        extensions = {level: SPEECH} if level and stream.kind == "audio" else {}
        clock = 90000 if stream.kind == "video" else 48000
        ssrc, padding = self._ssrc(cid), bytes(stream.size)

        def packet(number: int) -> bytes:
            head, place = b"", number % stream.together
            if place:
                head = REST_OF_FRAME
            elif stream.kind == "video":
                head = KEY_FRAME if transport.key_frame_wanted else DELTA_FRAME
                transport.key_frame_wanted = False
            if self._browser:
                extensions[TRANSPORT_CC_ID] = (self._wide & 0xFFFF).to_bytes(2, "big")
                self._wide += 1
            stamp = time.time_ns().to_bytes(STAMP, "big")
            return build_rtp(
                payload_type=payload_type,
                sequence=number & 0xFFFF,
                timestamp=int((number - place) * clock / stream.rate) & 0xFFFFFFFF,
                ssrc=ssrc,
                marker=stream.kind == "video" and place == stream.together - 1,
                payload=head + padding[: stream.size - 12 - len(head) - STAMP] + stamp,
                extensions=extensions,
            )

        number = 0
        with Departures(stream.together) as departures:
            while True:
                self.crowded += await departures.next(self.rate or stream.rate)
                transport.send(packet(number))
                number += 1
                self.sent += 1

    # -- data -------------------------------------------------------------------------------------------------------

    def send_reliable(self, payload: bytes) -> None:
        """Raises SctpSendBufferFull. Call `publisher.flush` after some."""
        assert self.publisher is not None and self.publisher.peer.sctp is not None
        packet = models.DataPacket(kind=models.DataPacket.RELIABLE, user=models.UserPacket(payload=payload))
        self.publisher.peer.sctp.send(self.reliable, packet.SerializeToString(), now=trio.current_time())


def _octets(message: str | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.encode()


def _mime(stream: Stream) -> str:
    return "video/vp8" if stream.kind == "video" else "audio/opus"


def _add_track(cid: str, stream: Stream) -> rtc.AddTrackRequest:
    video = stream.kind == "video"
    return rtc.AddTrackRequest(
        cid=cid,
        name=cid,
        type=models.TrackType.VIDEO if video else models.TrackType.AUDIO,
        source=models.TrackSource.CAMERA if video else models.TrackSource.MICROPHONE,
        disable_red=True,
    )
