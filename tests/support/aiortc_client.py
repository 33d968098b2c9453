"""aiortc as a LiveKit client: an independent WebRTC stack behind a signalling client of a page's length.

Two peer connections (`/rtc`), as the older SDKs; what the server sends down arrives on `subscriber`.
"""

import asyncio
import fractions
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from av import AudioFrame, VideoFrame
from livekit.protocol import models
from livekit.protocol import rtc as signal
from support.interop import LIMIT, Colour, Server, dominant_frequency, halves, near

RATE, FRAME = 48000, 960


class Tone(MediaStreamTrack):
    """440 Hz, 20 ms at a time."""

    kind = "audio"

    def __init__(self, frequency: float = 440.0) -> None:
        super().__init__()
        self._frequency = frequency
        self._sent = 0
        self._begun = 0.0

    async def recv(self) -> AudioFrame:
        now = asyncio.get_running_loop().time()
        self._begun = self._begun or now
        await asyncio.sleep(max(0.0, self._begun + self._sent / RATE - now))
        phase = 2 * np.pi * self._frequency * np.arange(self._sent, self._sent + FRAME) / RATE
        samples = (10000 * np.sin(phase)).astype(np.int16).reshape(1, -1)
        frame = AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._sent, fractions.Fraction(1, RATE)
        self._sent += FRAME
        return frame


class Picture(MediaStreamTrack):
    """One colour, 15 times a second."""

    kind = "video"

    def __init__(self, colour: Colour, size: tuple[int, int] = (320, 180)) -> None:
        super().__init__()
        self._pixels = np.full((size[1], size[0], 3), colour, dtype=np.uint8)
        self._number = 0

    async def recv(self) -> VideoFrame:
        await asyncio.sleep(1 / 15)
        frame = VideoFrame.from_ndarray(self._pixels, format="rgb24")
        frame.pts, frame.time_base = self._number * 6000, fractions.Fraction(1, 90000)
        self._number += 1
        return frame


class AiortcClient:
    """One participant. Use `aiortc_client`."""

    def __init__(self) -> None:
        self.publisher = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.subscriber = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.joined: asyncio.Future[signal.JoinResponse] = asyncio.get_running_loop().create_future()
        self.tracks: asyncio.Queue[MediaStreamTrack] = asyncio.Queue()
        self.packets: asyncio.Queue[tuple[str, models.DataPacket]] = asyncio.Queue()
        self.channels = {
            "_reliable": self.publisher.createDataChannel("_reliable"),
            "_lossy": self.publisher.createDataChannel("_lossy", ordered=False, maxRetransmits=0),
        }
        self._socket: Any = None
        self._published: asyncio.Queue[signal.TrackPublishedResponse] = asyncio.Queue()
        self._answered: asyncio.Queue[None] = asyncio.Queue()
        self.subscriber.on("track", self.tracks.put_nowait)
        self.subscriber.on("datachannel", self._on_channel)

    def _on_channel(self, channel: Any) -> None:
        @channel.on("message")
        def on_message(data: bytes) -> None:
            self.packets.put_nowait((channel.label, models.DataPacket.FromString(data)))

    async def run(self, url: str) -> None:
        """The signal connection, until it ends."""
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as self._socket:
            async for frame in self._socket:
                await self._handle(signal.SignalResponse.FromString(frame.data))

    async def _handle(self, response: signal.SignalResponse) -> None:
        match response.WhichOneof("message"):
            case "join":
                self.joined.set_result(response.join)
            case "offer":
                offer = response.offer
                await self._connected_once()
                await self.subscriber.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
                await self.subscriber.setLocalDescription(await self.subscriber.createAnswer())
                sdp = self.subscriber.localDescription.sdp
                await self.send(answer=signal.SessionDescription(type="answer", sdp=sdp, id=offer.id))
            case "answer":
                await self.publisher.setRemoteDescription(RTCSessionDescription(response.answer.sdp, "answer"))
                self._answered.put_nowait(None)
            case "track_published":
                self._published.put_nowait(response.track_published)

    async def _connected_once(self) -> None:
        """aiortc never starts a receiver that it is offered while its DTLS handshake for an earlier offer goes on."""
        if self.subscriber.remoteDescription is None:
            return
        async with asyncio.timeout(LIMIT):
            while self.subscriber.connectionState in ("new", "connecting"):  # noqa: ASYNC110 - as in `open`
                await asyncio.sleep(0.02)

    async def send(self, **request: Any) -> None:
        await self._socket.send_bytes(signal.SignalRequest(**request).SerializeToString())

    async def negotiate(self) -> None:
        """Offer what the publisher connection has, and wait for the answer."""
        await self.publisher.setLocalDescription(await self.publisher.createOffer())
        sdp = self.publisher.localDescription.sdp
        await self.send(offer=signal.SessionDescription(type="offer", sdp=sdp, id=1))
        await asyncio.wait_for(self._answered.get(), LIMIT)

    async def publish(self, *tracks: MediaStreamTrack) -> None:
        sources = {"audio": models.TrackSource.MICROPHONE, "video": models.TrackSource.CAMERA}
        for track in tracks:
            self.publisher.addTrack(track)
            kind = models.TrackType.AUDIO if track.kind == "audio" else models.TrackType.VIDEO
            request = signal.AddTrackRequest(cid=track.id, name=track.kind, type=kind, source=sources[track.kind])
            await self.send(add_track=request)
            await asyncio.wait_for(self._published.get(), LIMIT)
        await self.negotiate()

    async def audio_and_video(self) -> tuple[MediaStreamTrack, MediaStreamTrack]:
        """The next two tracks that come down, one of each."""
        first = await asyncio.wait_for(self.tracks.get(), LIMIT)
        second = await asyncio.wait_for(self.tracks.get(), LIMIT)
        return (first, second) if first.kind == "audio" else (second, first)

    async def open(self, label: str) -> Any:
        channel = self.channels[label]
        async with asyncio.timeout(LIMIT):
            while channel.readyState != "open":  # noqa: ASYNC110 - its event may have come before
                await asyncio.sleep(0.02)
        return channel


@asynccontextmanager
async def aiortc_client(server: Server, room: str, identity: str, sdk: str = "python") -> AsyncIterator[AiortcClient]:
    """Joined; closed at the end."""
    client = AiortcClient()
    token = server.token(identity=identity, room=room)
    query = urlencode({"access_token": token, "protocol": 16, "auto_subscribe": 1, "sdk": sdk})
    session = asyncio.create_task(client.run(f"{server.url}/rtc?{query}"))
    try:
        await asyncio.wait_for(asyncio.shield(client.joined), LIMIT)
        yield client
        await client.send(leave=signal.LeaveRequest())
    finally:
        session.cancel()
        await asyncio.gather(session, return_exceptions=True)
        await client.publisher.close()
        await client.subscriber.close()


async def hears(track: MediaStreamTrack, frequency: float = 440.0) -> None:
    """Until half a second is nothing but that tone."""
    window = np.zeros(0, dtype=np.int16)
    last: Any = None
    try:
        async with asyncio.timeout(LIMIT):
            while True:
                frame = await track.recv()
                samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0]
                window = np.concatenate([window, samples])[-RATE // 2 :]
                if len(window) == RATE // 2:
                    last = dominant_frequency(window)
                    if abs(last[0] - frequency) <= 4 and last[1] > 0.9 and last[2] > 1000:
                        return
    except TimeoutError:
        raise AssertionError(f"no tone of {frequency} Hz within {LIMIT} s; last window: {last}") from None


async def sees(track: MediaStreamTrack, colour: Colour) -> None:
    """Until five frames show this colour."""
    seen, last = 0, None
    try:
        async with asyncio.timeout(LIMIT):
            while seen < 5:
                frame = await track.recv()
                last = halves(frame.to_ndarray(format="rgb24"))
                seen += near(last[0], colour) and near(last[1], colour)
    except TimeoutError:
        raise AssertionError(f"no picture of {colour} within {LIMIT} s; last: {last}") from None
