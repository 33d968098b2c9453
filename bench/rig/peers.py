"""Cheap clients for load: full signalling, ICE and DTLS on our own stack; a sink counts datagrams and opens few."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from livekit.protocol import models, rtc
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

from lkactor.auth import issue_token
from lkactor.dtls import Certificate
from lkactor.ice import host_candidates
from lkactor.peer import PeerConnection, PeerState
from lkactor.peer.negotiation import AnswerNegotiation, AnswerReady, OfferNegotiation, OfferReady
from lkactor.sdp import Answerer, Offerer, SendTrack
from lkactor.wire.address import Address
from lkactor.wire.rtcp import Pli
from lkactor.wire.rtp import build_rtp

CERTIFICATE = Certificate.generate()
CODECS = ("audio/opus", "video/vp8", "video/rtx")
KEY_FRAME = b"\x90\x80\x80\x01\x10\x02\x00\x9d\x01\x2a\x00\x05\xd0\x02"
DELTA_FRAME = b"\x90\x80\x80\x02\x11"
CID, SSRC = "bench-video", 0x1234567


class Transport:
    """One peer connection on a UDP socket of its own."""

    def __init__(self, *, controlling: bool) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        self.socket.bind(("127.0.0.1", 0))
        rng = random.Random(self.socket.getsockname()[1])
        candidates = host_candidates(["127.0.0.1"], self.socket.getsockname()[1], None)
        self.peer = PeerConnection(rng=rng, certificate=CERTIFICATE, candidates=candidates, controlling=controlling)
        self.rng = rng
        self.media_packets = self.media_bytes = 0
        self.connected = trio.Event()
        self.first_media = trio.Event()
        self.latencies: list[float] = []
        self.key_frame_wanted = True

    def flush(self) -> None:
        now = trio.current_time()
        while self.peer.next_event() is not None:
            pass
        if self.peer.state is PeerState.CONNECTED:
            self.connected.set()
        for data, address in self.peer.datagrams_to_send(now):
            self.socket.sendto(data, (address.ip, address.port))

    async def run(self) -> None:
        peer, sock = self.peer, self.socket
        while True:
            self.flush()
            deadline = peer.next_timeout()
            with trio.move_on_at(deadline if deadline is not None else trio.current_time() + 1.0):
                await trio.lowlevel.wait_readable(sock)
                self._drain(sock)
            now = trio.current_time()
            if deadline is not None and now >= deadline:
                peer.handle_timeout(now)

    def _drain(self, sock: socket.socket) -> None:
        now = trio.current_time()
        for _ in range(256):
            try:
                data, source = sock.recvfrom(2048)
            except BlockingIOError:
                return
            if data[0] >= 128 and not 192 <= data[1] <= 223:
                self.media_packets += 1
                self.media_bytes += len(data)
                if self.media_packets == 1 or self.media_packets % 20 == 0:
                    self._open(data, source, now)
            else:
                self.peer.receive_datagram(data, Address("udp", *source), now)
                if any(isinstance(packet, Pli) for packet in self.peer.take_rtcp()):
                    self.key_frame_wanted = True

    def _open(self, data: bytes, source: tuple[str, int], now: float) -> None:
        """1 packet in 20 is authenticated, and says when it was sent."""
        self.peer.receive_datagram(data, Address("udp", *source), now)
        for packet in self.peer.take_rtp():
            self.first_media.set()
            stamp = bytes(packet.payload[-8:])
            self.latencies.append(time.monotonic() - int.from_bytes(stamp, "big") / 1e9)


class Client:
    """One participant on `/rtc` (two connections); only the connection it needs is built."""

    def __init__(self, url: str, key: str, secret: str, room: str, identity: str) -> None:
        video = {"room": room, "room_join": True}
        token = issue_token(key, secret, identity=identity, video=video, now_unix=time.time())
        self.url = f"{url}/rtc?access_token={token}&protocol=16&auto_subscribe=1&sdk=go"
        self.joined = trio.Event()
        self.started = time.monotonic()

    async def session(self, handle: Callable[[WebSocketConnection, rtc.SignalResponse], Awaitable[None]]) -> None:
        async with open_websocket_url(self.url, max_message_size=1 << 24) as websocket:
            self.websocket = websocket
            try:
                while True:
                    response = rtc.SignalResponse()
                    response.ParseFromString(await websocket.get_message())
                    if response.HasField("join"):
                        self.joined.set()
                    await handle(websocket, response)
            except ConnectionClosed:
                return

    async def send(self, **request: Any) -> None:
        await self.websocket.send_message(rtc.SignalRequest(**request).SerializeToString())


class Sink(Client):
    """Subscribes to everything."""

    async def run(self, nursery: trio.Nursery) -> None:
        self.transport = Transport(controlling=False)
        self.negotiation = AnswerNegotiation(Answerer(codecs=CODECS), self.transport.peer)
        nursery.start_soon(self.transport.run)
        nursery.start_soon(self.session, self._handle)

    async def _handle(self, websocket: WebSocketConnection, response: rtc.SignalResponse) -> None:
        if not response.HasField("offer"):
            return
        self.negotiation.receive_offer(response.offer.sdp, response.offer.id, {}, trio.current_time())
        while (event := self.negotiation.next_event()) is not None:
            if isinstance(event, AnswerReady):
                answer = rtc.SessionDescription(type="answer", sdp=event.sdp, id=event.offer_id)
                await self.send(answer=answer)
        self.transport.flush()


class Publisher(Client):
    """Publishes one video track of `rate` packets of 1100 bytes a second."""

    async def run(self, nursery: trio.Nursery) -> None:
        self.transport = Transport(controlling=True)
        self.negotiation = OfferNegotiation(Offerer(codecs=CODECS), self.transport.peer, self.transport.rng)
        self.sent = 0
        nursery.start_soon(self.transport.run)
        nursery.start_soon(self.session, self._handle)

    async def _handle(self, websocket: WebSocketConnection, response: rtc.SignalResponse) -> None:
        match response.WhichOneof("message"):
            case "join":
                track = rtc.AddTrackRequest(
                    cid=CID, name="bench", type=models.TrackType.VIDEO, source=models.TrackSource.CAMERA
                )
                await self.send(add_track=track)
            case "track_published":
                send = SendTrack(track_id=CID, stream_id="-", kind="video", ssrc=SSRC, rtx_ssrc=None, stereo=False)
                self.negotiation._plan.set_target([send])
                self.negotiation._offerer.set_send_tracks([send])
                self.negotiation.start(trio.current_time())
                event = self.negotiation.next_event()
                assert isinstance(event, OfferReady)
                await self.send(offer=rtc.SessionDescription(type="offer", sdp=event.sdp, id=event.offer_id))
            case "answer":
                self.negotiation.receive_answer(response.answer.sdp, trio.current_time())
                self.transport.flush()

    async def stream(self, rate: float, burst: int = 1) -> None:
        """Until cancelled. A key frame whenever one is asked for."""
        await self.transport.connected.wait()
        sender, path = self.transport.peer.sender, self.transport.peer.ice.selected
        assert sender is not None and path is not None
        (media,) = self.negotiation.send_media()
        payload_type = next(codec.payload_type for codec in media.codecs if codec.mime == "video/vp8")
        begun, number = time.monotonic(), 0
        while True:
            for _ in range(burst):
                head = KEY_FRAME if self.transport.key_frame_wanted else DELTA_FRAME
                self.transport.key_frame_wanted = False
                stamp = time.monotonic_ns().to_bytes(8, "big")
                packet = build_rtp(
                    payload_type=payload_type,
                    sequence=number & 0xFFFF,
                    timestamp=int(number * 90000 / rate) & 0xFFFFFFFF,
                    ssrc=SSRC,
                    marker=True,
                    payload=head + bytes(1088 - len(head) - 8) + stamp,
                )
                path = self.transport.peer.ice.selected or path
                self.transport.socket.sendto(sender.protect_rtp(packet), (path.ip, path.port))
                number += 1
            self.sent = number
            await trio.sleep(max(0.0, begun + number / rate - time.monotonic()))
