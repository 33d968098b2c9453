"""A participant of a call by each of LiveKit's three ways in, with aiortc as its media and the wire as its signalling.

| way         | path and query                | connections |
|-------------|-------------------------------|-------------|
| `rtc`       | `/rtc`, fields in the query   | two         |
| `rtc-join`  | `/rtc`, a `join_request`      | one         |
| `rtc-v1`    | `/rtc/v1`, a `join_request`   | one         |

Unlike `support.signal_media.Media` it takes part: it hears what data comes, answers a wish for more media sections,
and knows which tracks the server's last description carries.
"""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from typing import Any
from urllib.parse import urlencode

from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.sdp import SessionDescription
from livekit.protocol import models, rtc
from support.signal_client import LIMIT, Heard, Scene, SignalClient, query
from support.signal_media import ACTIVE

WAYS = ("rtc", "rtc-join", "rtc-v1")


def carried(sdp: str) -> dict[str, str]:
    """Track sid -> publisher's sid, of the sections that the server sends on."""
    found = {}
    for section in SessionDescription.parse(sdp).media:
        stream, _, track = (section.msid or "").partition(" ")
        if section.direction in ("sendonly", "sendrecv") and "|" in stream:
            found[track] = stream.partition("|")[0]
    return found


class Call:
    """What `SignalClient.media` is here."""

    def __init__(self, client: SignalClient, *, single: bool) -> None:
        self.client, self.single = client, single
        self.publisher = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.subscriber = self.publisher if single else RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.reliable = self.publisher.createDataChannel("_reliable")
        self.lossy = self.publisher.createDataChannel("_lossy", ordered=False, maxRetransmits=0)
        self.data_track = self.publisher.createDataChannel("_data_track", ordered=False, maxRetransmits=0)
        self.packets: list[models.DataPacket] = []
        self.frames: list[bytes] = []
        self.carried: dict[str, str] = {}
        self.answers: list[str] = []
        self._answered: asyncio.Queue[rtc.SessionDescription] = asyncio.Queue()
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._offers = 0
        for channel in (self.reliable, self.lossy, self.data_track):
            self._listen(channel)
        self.subscriber.on("datachannel", self._listen)

    def _listen(self, channel: Any) -> None:
        def on_message(data: bytes) -> None:
            if channel.label == "_data_track":
                self.frames.append(data)
            else:
                self.packets.append(models.DataPacket.FromString(data))

        channel.on("message", on_message)

    async def handle(self, heard: Heard) -> None:
        if heard.kind == "offer":
            offer = heard.body
            self.carried = carried(offer.sdp)
            await self.subscriber.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
            await self.subscriber.setLocalDescription(await self.subscriber.createAnswer())
            sdp = self.subscriber.localDescription.sdp
            await self.client.ask(answer=rtc.SessionDescription(type="answer", sdp=sdp, id=offer.id))
        elif heard.kind == "answer":
            self.answers.append(heard.body.sdp)
            if self.single:
                self.carried = carried(heard.body.sdp)
            await self.publisher.setRemoteDescription(RTCSessionDescription(heard.body.sdp, "answer"))
            self._answered.put_nowait(heard.body)
        elif heard.kind == "media_sections_requirement":
            # The answer is read by who calls this: somebody else must wait for it.
            task = asyncio.create_task(self._grow(heard.body))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _grow(self, wanted: rtc.MediaSectionsRequirement) -> None:
        for kind, number in (("audio", wanted.num_audios), ("video", wanted.num_videos)):
            for _ in range(number):
                self.publisher.addTransceiver(kind, direction="recvonly")
        await self.negotiate()

    async def negotiate(self) -> rtc.SessionDescription:
        """The answer to an offer of what the publisher connection has."""
        async with self._turn:
            self._offers += 1
            await self.publisher.setLocalDescription(await self.publisher.createOffer())
            sdp = self.publisher.localDescription.sdp
            await self.client.ask(offer=rtc.SessionDescription(type="offer", sdp=sdp, id=self._offers))
            return await asyncio.wait_for(self._answered.get(), LIMIT)

    async def received(self) -> Counter[str]:
        """RTP packets by kind."""
        counts: Counter[str] = Counter()
        for report in (await self.subscriber.getStats()).values():
            if report.type == "inbound-rtp":
                counts[report.kind] += report.packetsReceived
        return counts

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.publisher.close()
        await self.subscriber.close()


async def eventually(holds: Any, what: str, limit: float = LIMIT) -> None:
    """Until `holds()`, which may be a coroutine function. For what no signal tells: media and data that arrive."""
    try:
        async with asyncio.timeout(limit):
            while True:
                found = holds()
                if await found if asyncio.iscoroutine(found) else found:
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not in time: {what}") from None


def _address(way: str, token: str, info: models.ClientInfo, settings: rtc.ConnectionSettings) -> str:
    """Path and query."""
    if way == "rtc":
        fields: dict[str, Any] = {"auto_subscribe": int(settings.auto_subscribe)}
        if settings.HasField("auto_subscribe_data_track"):
            fields["auto_subscribe_data_track"] = int(settings.auto_subscribe_data_track)
        fields |= {name: getattr(info, name) for name in ("os", "device_model") if getattr(info, name)}
        return f"/rtc?{query(token, **fields)}"
    known = models.ClientInfo(sdk=models.ClientInfo.SDK.PYTHON, protocol=16, version="1.2.3")
    known.MergeFrom(info)
    inner = rtc.JoinRequest(client_info=known, connection_settings=settings)
    wrapped = rtc.WrappedJoinRequest(join_request=inner.SerializeToString())
    encoded = base64.urlsafe_b64encode(wrapped.SerializeToString()).decode()
    path = "/rtc/v1" if way == "rtc-v1" else "/rtc"
    return f"{path}?{urlencode({'access_token': token, 'join_request': encoded})}"


async def sign_in(
    stage: Scene,
    identity: str,
    way: str,
    *,
    info: models.ClientInfo | None = None,
    settings: rtc.ConnectionSettings | None = None,
    **grants: Any,
) -> SignalClient:
    """The signal connection, with its first message read. `grants`: claims and grants as in `Server.token`."""
    token = stage.server.token(identity, stage.room, **grants)
    client = SignalClient(stage.server, stage.room, identity)
    stage.clients.append(client)
    settings = settings or rtc.ConnectionSettings(auto_subscribe=True)
    await client.open(stage.server.url + _address(way, token, info or models.ClientInfo(), settings))
    await client.until(lambda: client.heard or client.closed is not None, "first message")
    return client


async def arrive(stage: Scene, identity: str, way: str, **more: Any) -> SignalClient:
    """`sign_in`, and media up: returns when the server says that the participant is ACTIVE."""
    client = await sign_in(stage, identity, way, **more)
    single = way != "rtc"
    client.media = call = Call(client, single=single)
    for heard in client.said("offer"):
        await call.handle(heard)
    if single or not client.join.subscriber_primary:
        await call.negotiate()
    await client.info(identity, lambda info: info.state == ACTIVE)
    return client


async def show(client: SignalClient, track: MediaStreamTrack, *, codec: str = "", **more: Any) -> str:
    """Publish. The track's sid, once the participant's info has it. `codec`: the only one to offer, like VP8."""
    kind = models.TrackType.AUDIO if track.kind == "audio" else models.TrackType.VIDEO
    since = await client.ask(add_track=rtc.AddTrackRequest(cid=track.id, type=kind, **more))
    published = await client.expect("track_published", lambda body: body.cid == track.id, since=since)
    sid: str = published.track.sid
    call: Call = client.media
    sender = call.publisher.addTrack(track)
    if codec:
        (own,) = [t for t in call.publisher.getTransceivers() if t.sender is sender]
        known = RTCRtpSender.getCapabilities(track.kind).codecs
        own.setCodecPreferences([c for c in known if c.mimeType == f"{track.kind}/{codec}"])
    await call.negotiate()
    await client.info(client.identity, lambda info: any(track.sid == sid for track in info.tracks), since=since)
    return sid


async def gets(client: SignalClient, publisher: SignalClient, *sids: str) -> None:
    """Until the server carries exactly these of that participant's tracks to the client."""
    call: Call = client.media

    def of_it() -> set[str]:
        return {track for track, sid in call.carried.items() if sid == publisher.sid}

    await eventually(lambda: of_it() == set(sids), f"{client.identity} has {sorted(sids)}")
