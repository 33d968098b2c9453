"""A participant: joins, publishes, subscribes, reports. Two peer connections, as every LiveKit server has them.

| phase     | leaves it                                                                    |
|-----------|------------------------------------------------------------------------------|
| joining   | JoinResponse: joined; a refusal: SignalError out of `open_session`            |
| joined    | Leave, an end of the signal connection, or `leave`: left (event `Left`)       |

There is no resume: a tool that measures or records must say that the connection broke, not hide it.
"""

from __future__ import annotations

import contextlib
import json
import random
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

import trio
from google.protobuf.message import DecodeError
from livekit.protocol import models, rtc
from trio_websocket import ConnectionRejected

from lkactor.client.events import (
    DataReceived,
    Joined,
    Left,
    ParticipantChanged,
    ParticipantJoined,
    ParticipantLeft,
    QualityChanged,
    RoomChanged,
    SessionEvent,
    SpeakersChanged,
    TrackEnded,
    TrackPublished,
    TrackSubscribed,
    TrackUnpublished,
)
from lkactor.client.signal import SignalClient, SignalError, host_of, leaf, refusal
from lkactor.client.tracks import LocalTrack, RemoteTrack, TrackSpec
from lkactor.client.transport import Transport
from lkactor.dtls import Certificate
from lkactor.errors import ProtocolViolation
from lkactor.peer import PeerEvent
from lkactor.peer.negotiation import AnswerNegotiation, AnswerReady, OfferNegotiation, OfferReady
from lkactor.sctp import MessageReceived
from lkactor.sdp import Answerer, Codec, Offerer, ReceiveMedia, SendTrack
from lkactor.sdp.codecs import pick_codec, read_codecs
from lkactor.sdp.description import SessionDescription
from lkactor.sfu.twcc import TwccRecorder
from lkactor.wire.extensions import DEPENDENCY_DESCRIPTOR, MID, TRANSPORT_CC, text
from lkactor.wire.rtcp import RtcpPacket, SenderReport
from lkactor.wire.rtp import RtpPacket, unwrap_rtx

CODECS = ("audio/opus", "video/vp8", "video/h264", "video/vp9", "video/av1", "video/rtx")
H264_FMTP = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
"""Mode 1, for the packetizer fragments (RFC 6184 section 5.4)."""
JOIN_TIMEOUT = 15.0
PUBLISH_TIMEOUT = 10.0
DEFAULT_PING = 10.0
MAX_UNBOUND = 64
DISCONNECTED = models.ParticipantInfo.State.DISCONNECTED


class Session:
    """Made by `open_session`. `on_event` is called for everything that happens and must not block."""

    def __init__(
        self,
        signal: SignalClient,
        join: rtc.JoinResponse,
        host: str,
        certificate: Certificate,
        on_event: Callable[[SessionEvent], None],
    ) -> None:
        self.signal, self.join = signal, join
        self.on_event = on_event
        self.participants = {info.sid: info for info in join.other_participants}
        self.local_tracks: dict[str, LocalTrack] = {}
        self.remote_tracks: dict[str, RemoteTrack] = {}
        self.left = trio.Event()
        self.reason = ""
        self._rng = random.Random(secrets.randbits(64))
        self.publisher = Transport(host, controlling=True, certificate=certificate, rng=self._rng)
        self.subscriber = Transport(host, controlling=False, certificate=certificate, rng=self._rng)
        self._offers = OfferNegotiation(Offerer(codecs=CODECS), self.publisher.peer, self._rng)
        self._answers = AnswerNegotiation(Answerer(codecs=CODECS), self.subscriber.peer)
        self.publisher.negotiation, self.subscriber.negotiation = self._offers, self._answers
        self.publisher.on_rtcp = self._publisher_rtcp
        self.publisher.on_turn = self._publisher_turn
        self.subscriber.on_rtp, self.subscriber.on_rtcp = self._subscriber_rtp, self._subscriber_rtcp
        self.subscriber.on_event, self.subscriber.on_turn = self._subscriber_event, self._subscriber_turn
        self._published: dict[str, trio.Event] = {}
        self._outbox, self._posted = trio.open_memory_channel[rtc.SessionDescription](8)
        self._started = False
        self._agreed = trio.Event()
        self._media: dict[str, ReceiveMedia] = {}
        self._by_ssrc: dict[int, tuple[RemoteTrack, ReceiveMedia]] = {}
        self._feedback_ssrc = self._rng.randrange(1, 1 << 32)
        self._twcc = TwccRecorder()
        self._twcc_id = 0
        self.refused = ""

    # -- publishing -------------------------------------------------------------------------------------------------

    async def publish(self, specs: Sequence[TrackSpec]) -> list[LocalTrack]:
        """Returns when the server has agreed to all of them. Raises SignalError if it does not."""
        tracks = []
        for spec in specs:
            cid = f"TR_{secrets.token_hex(8)}"
            track = self.local_tracks[cid] = LocalTrack(spec, cid, self.publisher, self._rng)
            self._published[cid] = trio.Event()
            await self.signal.send(add_track=_add_track(spec, cid))
            tracks.append(track)
        with trio.move_on_after(PUBLISH_TIMEOUT) as limit:
            for track in tracks:
                await self._published[track.cid].wait()
            self._raise_if_over()
            self._agreed = trio.Event()
            sends = [SendTrack(track.cid, "-", track.spec.kind, track.ssrc) for track in self.local_tracks.values()]
            self._offers.set_send_tracks(sends, trio.current_time())
            self._offers.start(trio.current_time())
            self.publisher.wake()
            await self._agreed.wait()
            self._raise_if_over()
            await self.publisher.connected.wait()
        if limit.cancelled_caught:
            stage = "the media connection was not made" if self._agreed.is_set() else "no answer to the publication"
            raise SignalError(f"{stage} within {PUBLISH_TIMEOUT:g} s{self.refused and f': {self.refused}'}")
        return tracks

    def _raise_if_over(self) -> None:
        if self.left.is_set() or self.refused:
            raise SignalError(self.refused or self.reason)

    def _on_answer(self, sdp: str) -> None:
        try:
            self._offers.receive_answer(sdp, trio.current_time())
        except ProtocolViolation as violation:
            self.refused = f"the server's answer cannot be used: {violation}"
        for media in self._offers.send_media():
            track = self.local_tracks.get(media.track_id)
            if track is None:
                continue
            codec = pick_codec(media, track.spec.mime, H264_FMTP if track.spec.mime == "video/h264" else "")
            if codec is None:
                self.refused = f"the server does not take {track.spec.mime}"
            else:
                track.agreed(codec.payload_type)
        if any(not track.sid or track._payload_type is None for track in self.local_tracks.values()):
            self.refused = self.refused or "the server did not accept a track's section"
        self._agreed.set()
        self.publisher.wake()

    def _publisher_rtcp(self, packets: list[RtcpPacket]) -> None:
        for track in self.local_tracks.values():
            track.receive_rtcp(packets)

    def _publisher_turn(self, now: float) -> None:
        while (event := self._offers.next_event()) is not None:
            if isinstance(event, OfferReady):
                sdp = _as_sender(event.sdp, {cid: track.spec.mime for cid, track in self.local_tracks.items()})
                self._post(rtc.SessionDescription(type="offer", sdp=sdp, id=event.offer_id))
        for track in self.local_tracks.values():
            self.publisher.send_rtcp(track.report(now))

    def _post(self, description: rtc.SessionDescription) -> None:
        with contextlib.suppress(trio.WouldBlock, trio.BrokenResourceError):
            self._outbox.send_nowait(description)

    # -- subscribing ------------------------------------------------------------------------------------------------

    def _on_offer(self, offer: rtc.SessionDescription) -> None:
        try:
            self._answers.receive_offer(offer.sdp, offer.id, {}, trio.current_time())
        except ProtocolViolation as violation:
            self._end(f"the server's offer cannot be answered: {violation}")
            return
        while (event := self._answers.next_event()) is not None:
            if isinstance(event, AnswerReady):
                self._post(rtc.SessionDescription(type="answer", sdp=event.sdp, id=event.offer_id))
                self._bind(event.media)
        self.subscriber.wake()

    def _bind(self, media: Sequence[ReceiveMedia]) -> None:
        """Which section carries which track, after each offer."""
        self._media = {section.mid: section for section in media}
        found: dict[str, RemoteTrack] = {}
        self._by_ssrc.clear()
        for section in media:
            self._twcc_id = section.extensions.get(TRANSPORT_CC, self._twcc_id)
            sid = next((name for name in (section.cid, section.stream_id.partition("|")[2]) if name[:2] == "TR"), "")
            if not sid:
                continue
            known = self.remote_tracks.get(sid)
            track = known if known is not None and known.mid == section.mid else self._remote_track(sid, section)
            found[sid] = track
            for ssrc in section.ssrcs:
                self._by_ssrc[ssrc] = (track, section)
        for sid, track in list(self.remote_tracks.items()):
            if found.get(sid) is not track:
                track.finish()
                del self.remote_tracks[sid]
                self.on_event(TrackEnded(track))
        for sid, track in found.items():
            if sid not in self.remote_tracks:
                self.remote_tracks[sid] = track
                self.on_event(TrackSubscribed(track))

    def _remote_track(self, sid: str, section: ReceiveMedia) -> RemoteTrack:
        for participant in self.participants.values():
            for info in participant.tracks:
                if info.sid == sid:
                    return RemoteTrack(info, participant, section.mid)
        kind = models.TrackType.AUDIO if section.kind == "audio" else models.TrackType.VIDEO
        owner = models.ParticipantInfo(sid=section.stream_id.partition("|")[0])
        return RemoteTrack(models.TrackInfo(sid=sid, type=kind), owner, section.mid)

    def _subscriber_rtp(self, packets: list[RtpPacket]) -> None:
        self._twcc.note_packets(packets, self._twcc_id)
        for packet in packets:
            bound = self._by_ssrc.get(packet.ssrc) or self._bind_late(packet)
            if bound is None:
                continue
            track, section = bound
            original = section.rtx_of.get(packet.ssrc)
            codec = _codec_of(section, packet.payload_type, original is not None)
            if codec is None:
                continue
            if original is not None:
                inner = unwrap_rtx(packet, payload_type=codec.payload_type, ssrc=original)
                if inner is None:
                    continue
                packet = inner
            track.receive(packet, codec.mime, codec.clock_rate)

    def _bind_late(self, packet: RtpPacket) -> tuple[RemoteTrack, ReceiveMedia] | None:
        """A source the offer does not name says its section itself (RFC 8843 section 9.2)."""
        if len(self._by_ssrc) > MAX_UNBOUND + 4 * len(self._media):
            return None
        for section in self._media.values():
            value = packet.extension(section.extensions.get(MID, 0)) if MID in section.extensions else None
            if value is not None and text(value) == section.mid:
                for track in self.remote_tracks.values():
                    if track.mid == section.mid:
                        self._by_ssrc[packet.ssrc] = (track, section)
                        return track, section
        return None

    def _subscriber_rtcp(self, packets: list[RtcpPacket]) -> None:
        now = trio.current_time()
        for packet in packets:
            if isinstance(packet, SenderReport) and packet.ssrc in self._by_ssrc:
                receiver = self._by_ssrc[packet.ssrc][0].receiver
                if receiver is not None:
                    receiver.on_report(packet, now)

    def _subscriber_turn(self, now: float) -> None:
        self._answers.next_event()
        for track in self.remote_tracks.values():
            self.subscriber.send_rtcp(track.feedback(now, self._feedback_ssrc))
        self.subscriber.send_rtcp(list(self._twcc.feedback(now)))

    def _subscriber_event(self, event: PeerEvent) -> None:
        if isinstance(event, MessageReceived):
            packet = models.DataPacket()
            with contextlib.suppress(DecodeError):
                packet.ParseFromString(event.data)
                self.on_event(DataReceived(packet))

    # -- signalling -------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until the session has ended, or cancelled."""
        async with trio.open_nursery() as nursery:
            for task in (self.publisher.run, self.subscriber.run, self._write, self._ping):
                nursery.start_soon(task)
            task_status.started()
            try:
                while not self.left.is_set():
                    self._on_response(await self.signal.receive())
            except SignalError as error:
                self._end(str(error))
            nursery.cancel_scope.cancel()

    async def leave(self) -> None:
        """Say goodbye. What ends the session after this is our own doing."""
        self._end("CLIENT_INITIATED")
        request = rtc.LeaveRequest(reason=models.DisconnectReason.CLIENT_INITIATED)
        with contextlib.suppress(SignalError), trio.move_on_after(1) as scope:
            scope.shield = True
            await self.signal.send(leave=request)
        self.publisher.say_goodbye()
        self.subscriber.say_goodbye()
        with trio.CancelScope(shield=True):
            await self.signal.aclose()

    def close(self) -> None:
        """The sockets, after `run` has ended."""
        self.publisher.close()
        self.subscriber.close()

    async def _write(self) -> None:
        async for description in self._posted:
            with contextlib.suppress(SignalError):
                if description.type == "offer":
                    await self.signal.send(offer=description)
                else:
                    await self.signal.send(answer=description)

    async def _ping(self) -> None:
        while True:
            await trio.sleep(self.join.ping_interval or DEFAULT_PING)
            with contextlib.suppress(SignalError):
                await self.signal.ping()

    def _on_response(self, response: rtc.SignalResponse) -> None:
        match response.WhichOneof("message"):
            case "offer":
                self._on_offer(response.offer)
            case "answer":
                self._on_answer(response.answer.sdp)
            case "trickle":
                self._on_trickle(response.trickle)
            case "update":
                for info in response.update.participants:
                    self._on_participant(info)
            case "track_published":
                track = self.local_tracks.get(response.track_published.cid)
                if track is not None:
                    track.sid = response.track_published.track.sid
                    self._published[track.cid].set()
            case "request_response":
                self._on_refusal(response.request_response)
            case "speakers_changed":
                self.on_event(SpeakersChanged(tuple(response.speakers_changed.speakers)))
            case "connection_quality":
                self.on_event(QualityChanged(tuple(response.connection_quality.updates)))
            case "room_update":
                self.on_event(RoomChanged(response.room_update.room))
            case "leave":
                self._end(models.DisconnectReason.Name(response.leave.reason))
            case _:
                pass

    def _on_refusal(self, answer: rtc.RequestResponse) -> None:
        if answer.reason in (rtc.RequestResponse.Reason.OK, rtc.RequestResponse.Reason.QUEUED):
            return
        name = rtc.RequestResponse.Reason.Name(answer.reason)
        self.refused = f"{name}: {answer.message}" if answer.message else name
        for event in self._published.values():
            event.set()

    def _on_trickle(self, trickle: rtc.TrickleRequest) -> None:
        try:
            init = json.loads(trickle.candidateInit)
        except ValueError:
            return
        candidate = init.get("candidate") if isinstance(init, dict) else None
        if isinstance(candidate, str) and candidate:
            publisher = trickle.target == rtc.SignalTarget.PUBLISHER
            transport = self.publisher if publisher else self.subscriber
            transport.peer.add_remote_candidate(candidate, trio.current_time())
            transport.wake()

    def _on_participant(self, info: models.ParticipantInfo) -> None:
        if info.sid == self.join.participant.sid:
            return
        known = self.participants.get(info.sid)
        if info.state == DISCONNECTED:
            if self.participants.pop(info.sid, None) is not None:
                self._compare_tracks(info, known, ())
                self.on_event(ParticipantLeft(info))
            return
        self.participants[info.sid] = info
        self.on_event(ParticipantJoined(info) if known is None else ParticipantChanged(info))
        self._compare_tracks(info, known, info.tracks)

    def _compare_tracks(
        self, info: models.ParticipantInfo, known: models.ParticipantInfo | None, now: Sequence[models.TrackInfo]
    ) -> None:
        before = {track.sid: track for track in (known.tracks if known is not None else ())}
        after = {track.sid: track for track in now}
        for sid, track in after.items():
            if sid in self.remote_tracks:
                self.remote_tracks[sid].info = track
            if sid not in before:
                self.on_event(TrackPublished(info, track))
        for sid, track in before.items():
            if sid not in after:
                self.on_event(TrackUnpublished(info, track))

    def _end(self, reason: str) -> None:
        if self.left.is_set():
            return
        self.reason = reason
        self.left.set()
        self._agreed.set()
        for event in self._published.values():
            event.set()
        for track in self.remote_tracks.values():
            track.finish()
        self.on_event(Left(reason))


@contextlib.asynccontextmanager
async def open_session(
    url: str,
    token: str,
    *,
    on_event: Callable[[SessionEvent], None] = lambda _: None,
    auto_subscribe: bool = True,
    certificate: Certificate | None = None,
) -> AsyncIterator[Session]:
    """Join, and leave at the end. Raises SignalError; ValueError for an address that is none."""
    host = host_of(url)
    with contextlib.ExitStack() as sockets, _refusals(token):
        async with trio.open_nursery() as nursery:
            signal = await SignalClient.connect(nursery, url, token, auto_subscribe=auto_subscribe)
            join = await _joined(signal)
            try:
                session = Session(signal, join, host, certificate or Certificate.generate(), on_event)
            except OSError as error:
                raise SignalError(f"no way to {host}: {error}") from None
            sockets.callback(session.close)
            await nursery.start(session.run)
            on_event(Joined(join))
            for info in join.other_participants:
                on_event(ParticipantJoined(info))
                session._compare_tracks(info, None, info.tracks)
            try:
                yield session
            finally:
                await session.leave()
                nursery.cancel_scope.cancel()


@contextlib.contextmanager
def _refusals(token: str) -> Iterator[None]:
    """A refusal with a body comes out of the WebSocket's own task, in a group."""
    try:
        yield
    except BaseExceptionGroup as group:
        cause = leaf(group)
        if isinstance(cause, ConnectionRejected):
            raise refusal(cause, token) from None
        raise


async def _joined(signal: SignalClient) -> rtc.JoinResponse:
    try:
        with trio.fail_after(JOIN_TIMEOUT):
            first = await signal.receive()
    except trio.TooSlowError:
        raise SignalError(f"no JoinResponse within {JOIN_TIMEOUT:g} s") from None
    if first.WhichOneof("message") != "join":
        reason = models.DisconnectReason.Name(first.leave.reason) if first.HasField("leave") else "no JoinResponse"
        raise SignalError(f"not let in: {reason}", 403)
    return first.join


def _as_sender(sdp: str, mimes: Mapping[str, str]) -> str:
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


def _codec_of(section: ReceiveMedia, payload_type: int, rtx: bool) -> Codec | None:
    for codec in section.codecs:
        if payload_type == (codec.rtx_payload_type if rtx else codec.payload_type):
            return codec
    return None


def _add_track(spec: TrackSpec, cid: str) -> rtc.AddTrackRequest:
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
