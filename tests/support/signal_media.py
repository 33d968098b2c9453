"""The media side of a signal client, by aiortc: enough to be ACTIVE, to publish and to be sent something."""

from __future__ import annotations

import asyncio
from typing import Any

from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from livekit.protocol import models, rtc
from support.aiortc_client import Tone
from support.signal_client import LIMIT, Heard, SignalClient

ACTIVE = models.ParticipantInfo.State.ACTIVE


class Media:
    """Two peer connections, or one (`single`). It answers offers and takes answers that `client` hears."""

    def __init__(self, client: SignalClient, *, single: bool = False) -> None:
        self.client = client
        self.publisher = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.subscriber = self.publisher if single else RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.publisher.createDataChannel("_reliable")
        self.publisher.createDataChannel("_lossy", ordered=False, maxRetransmits=0)
        self._answered: asyncio.Queue[rtc.SessionDescription] = asyncio.Queue()
        self.offers = 0

    async def handle(self, heard: Heard) -> None:
        if heard.kind == "offer":
            offer = heard.body
            await self.subscriber.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
            await self.subscriber.setLocalDescription(await self.subscriber.createAnswer())
            sdp = self.subscriber.localDescription.sdp
            await self.client.ask(answer=rtc.SessionDescription(type="answer", sdp=sdp, id=offer.id))
        elif heard.kind == "answer":
            await self.publisher.setRemoteDescription(RTCSessionDescription(heard.body.sdp, "answer"))
            self._answered.put_nowait(heard.body)

    async def negotiate(self) -> rtc.SessionDescription:
        """The answer to an offer of what the publisher connection has."""
        self.offers += 1
        await self.publisher.setLocalDescription(await self.publisher.createOffer())
        sdp = self.publisher.localDescription.sdp
        await self.client.ask(offer=rtc.SessionDescription(type="offer", sdp=sdp, id=self.offers))
        return await asyncio.wait_for(self._answered.get(), LIMIT)

    async def close(self) -> None:
        await self.publisher.close()
        await self.subscriber.close()


async def connect(client: SignalClient, *, single: bool = False) -> SignalClient:
    """Until the server says that this client is ACTIVE."""
    client.media = media = Media(client, single=single)
    for heard in client.said("offer"):
        await media.handle(heard)
    if single or not client.join.subscriber_primary:
        await media.negotiate()
    await client.info(client.identity, lambda info: info.state == ACTIVE)
    return client


async def publish(client: SignalClient, cid: str = "", track: MediaStreamTrack | None = None, **more: Any) -> str:
    """A microphone, until the server says that it is published. Returns the track's sid."""
    track = track or Tone()
    source = more.pop("source", models.TrackSource.MICROPHONE)
    wanted = rtc.AddTrackRequest(cid=cid or track.id, type=models.TrackType.AUDIO, source=source, **more)
    since = await client.ask(add_track=wanted)
    published = await client.expect("track_published", lambda body: body.cid == wanted.cid, since=since)
    sid: str = published.track.sid
    client.media.publisher.addTrack(track)
    await client.media.negotiate()
    await client.info(client.identity, lambda info: any(track.sid == sid for track in info.tracks), since=since)
    return sid
