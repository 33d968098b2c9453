"""A participant: joins, publishes, subscribes, reports. Two peer connections, as every LiveKit server has them.

| phase     | leaves it                                                                                          |
|-----------|----------------------------------------------------------------------------------------------------|
| joining   | JoinResponse: joined; a refusal: SignalError out of `open_session`                                  |
| joined    | the signal connection is lost or silent, a media connection failed, Leave(RESUME): resuming;        |
|           | Leave(RECONNECT): rejoining; Leave(DISCONNECT), `leave`: left (event `Left`)                        |
| resuming  | ReconnectResponse: joined, with SyncState sent and ICE restarted on both connections;                |
|           | Leave, a refusal, or three attempts in vain: rejoining                                              |
| rejoining | JoinResponse: joined, as a new participant, tracks published again; refused, or seven in vain: left |

A media connection that fails twice without having been up in between ends the session: its network does not let
media through. `reconnect=False` is for who measures: then the first break is the end.
"""

from __future__ import annotations

import contextlib
import json
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

import trio
from livekit.protocol import models, rtc
from trio_websocket import ConnectionRejected
from wsproto.utilities import LocalProtocolError

from lkactor.client.events import (
    Joined,
    Left,
    ParticipantChanged,
    ParticipantJoined,
    ParticipantLeft,
    QualityChanged,
    Reconnected,
    Reconnecting,
    RoomChanged,
    SessionEvent,
    SpeakersChanged,
    TrackPublished,
    TrackUnpublished,
)
from lkactor.client.paths import Way
from lkactor.client.publication import Publisher
from lkactor.client.signal import CONNECT_TIMEOUT, SignalClient, SignalError, host_of, leaf, refusal
from lkactor.client.subscription import Subscriber
from lkactor.client.tracks import LocalTrack, RemoteTrack, TrackSpec
from lkactor.client.transport import Transport
from lkactor.dtls import Certificate
from lkactor.errors import ProtocolViolation
from lkactor.ice import Candidate
from lkactor.ice.candidate import priority
from lkactor.peer import PeerEvent, PeerState, PeerStateChanged
from lkactor.turn.message import Peer

JOIN_TIMEOUT = 15.0
DEFAULT_PING, DEFAULT_PONG = 10.0, 20.0
RESUMES = (0.05, 0.3, 1.2)
REJOINS = (0.0, 0.3, 1.2, 2.7, 4.8, 7.0, 7.0)
"""Seconds before each attempt. A server that ends takes connections for some milliseconds more, and forgets them."""
AGAIN_TIMEOUT = 3.0
FLAP, MAX_FLAPS = 5.0, 5
"""A connection that lives shorter than this is no success; so many of them in a row are the end."""
FINAL = (400, 401, 403)
DISCONNECTED = models.ParticipantInfo.State.DISCONNECTED
Action = rtc.LeaveRequest.Action


class Session:
    """Made by `open_session`. `on_event` is called for everything that happens and must not block."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        on_event: Callable[[SessionEvent], None],
        auto_subscribe: bool,
        certificate: Certificate,
        way: Way,
        reconnect: bool,
    ) -> None:
        self.on_event = on_event
        self.join = rtc.JoinResponse()
        self.participants: dict[str, models.ParticipantInfo] = {}
        self.left = trio.Event()
        self.reason = ""
        self.resumes = self.rejoins = 0
        self.publisher: Publisher
        self.subscriber: Subscriber
        self._url, self._host, self._token = url, host_of(url), token
        self._auto_subscribe, self._certificate = auto_subscribe, certificate
        self._way, self._reconnect = way, reconnect
        self._rng = random.Random(secrets.randbits(64))
        self._signal: SignalClient | None = None
        self._heard = 0.0
        self._reading = trio.CancelScope()
        self._media = trio.CancelScope()
        self._media_over = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._outbox: list[Callable[[SignalClient], Awaitable[None]]] = []
        self._posted = trio.Event()
        self._lost = ""
        self._lost_at = 0.0
        self._must_rejoin = False
        self._broken = False
        self._media_failures: dict[Transport, int] = {}
        self._flaps = 0

    @property
    def local_tracks(self) -> dict[str, LocalTrack]:
        return self.publisher.tracks

    @property
    def remote_tracks(self) -> dict[str, RemoteTrack]:
        return self.subscriber.tracks

    async def publish(self, specs: Sequence[TrackSpec]) -> list[LocalTrack]:
        """Returns when the server has agreed to all of them. Raises SignalError if it does not."""
        tracks = [LocalTrack(spec, f"TR_{secrets.token_hex(8)}", self._rng) for spec in specs]
        await self.publisher.publish(tracks)
        return tracks

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until the session has ended, or cancelled. Started when joined; raises SignalError if it is not let in."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await self._connection(resume=False, up=task_status.started)
            while not self.left.is_set():
                await self._recover()
            nursery.cancel_scope.cancel()

    async def leave(self) -> None:
        """Say goodbye. What ends the session after this is our own doing."""
        signal = self._signal
        self._finish("CLIENT_INITIATED")
        request = rtc.LeaveRequest(reason=models.DisconnectReason.CLIENT_INITIATED)
        with trio.CancelScope(shield=True):
            with contextlib.suppress(SignalError), trio.move_on_after(1):
                if signal is not None:
                    await signal.send(leave=request)
            self.publisher.transport.say_goodbye()
            self.subscriber.transport.say_goodbye()
            await trio.sleep(0.01)  # streams have writers of their own
            self._reading.cancel()
            if signal is not None:
                await signal.aclose()

    def close(self) -> None:
        """The sockets, after `run` has ended."""
        if hasattr(self, "publisher"):
            self.publisher.transport.close()
            self.subscriber.transport.close()

    # -- connections ------------------------------------------------------------------------------------------------

    async def _recover(self) -> None:
        """Come back, or end."""
        if not self._reconnect:
            self._end(self._lost)
            return
        self.on_event(Reconnecting(self._lost))
        attempts = [] if self._must_rejoin else [(delay, True) for delay in RESUMES]
        attempts += [(delay, False) for delay in REJOINS]
        why = self._lost
        for delay, resume in attempts:
            if resume and self._must_rejoin:
                continue
            with trio.move_on_after(delay):
                await self.left.wait()
            if self.left.is_set():
                return
            begun = trio.current_time()
            try:
                await self._connection(resume=resume)
            except SignalError as error:
                why = str(error)
                if error.status in FINAL:
                    break
                continue
            self._flaps = self._flaps + 1 if trio.current_time() - begun < FLAP else 0
            if self._flaps < MAX_FLAPS:
                return
            why = self._lost
            break
        self._end(f"{self._lost}; no way back: {why}" if why != self._lost else why)

    async def _connection(self, *, resume: bool, up: Callable[[], None] = lambda: None) -> None:
        """One signal connection from its first message to its end. Raises SignalError if it is not taken."""
        taken = False
        try:
            with unwrapped(self._token):
                async with trio.open_nursery() as nursery:
                    signal = await SignalClient.connect(
                        nursery,
                        self._url,
                        self._token,
                        auto_subscribe=self._auto_subscribe,
                        resume=self.join.participant.sid if resume else "",
                        within=AGAIN_TIMEOUT if self.join.participant.sid else CONNECT_TIMEOUT,
                    )
                    try:
                        first = await self._first(signal, resume=resume)
                        await self._take(signal, first, resume=resume)
                        taken = True
                        up()
                        nursery.start_soon(self._write, signal)
                        nursery.start_soon(self._ping, signal)
                        await self._read(signal)
                    finally:
                        self._signal = None
                        await signal.aclose()
                    nursery.cancel_scope.cancel()
        except SignalError:
            self._signal = None
            if not taken:
                raise

    async def _take(self, signal: SignalClient, first: rtc.SignalResponse, *, resume: bool) -> None:
        self._signal, self._heard, self._broken = signal, trio.current_time(), False
        self._outbox.clear()
        if resume:
            await self._on_resumed(signal, first.reconnect)
        else:
            await self._on_joined(first.join)

    async def _first(self, signal: SignalClient, *, resume: bool) -> rtc.SignalResponse:
        """What answers a join or a resume. Raises SignalError for anything else."""
        try:
            with trio.fail_after(JOIN_TIMEOUT):
                first = await signal.receive()
        except trio.TooSlowError:
            raise SignalError(f"no answer to the join within {JOIN_TIMEOUT:g} s") from None
        kind = first.WhichOneof("message")
        if kind == ("reconnect" if resume else "join"):
            return first
        if kind == "leave" and resume and first.leave.action == Action.RECONNECT:
            self._must_rejoin = True
        reason = models.DisconnectReason.Name(first.leave.reason) if kind == "leave" else f"{kind} instead of an answer"
        raise SignalError(f"not let in: {reason}", 0 if resume else 403)

    async def _on_joined(self, join: rtc.JoinResponse) -> None:
        tracks = list(self.publisher.tracks.values()) if hasattr(self, "publisher") else []
        again = bool(self.join.participant.sid)
        if again:
            self.rejoins += 1
            self.subscriber.finish()
            for half in (self.publisher, self.subscriber):
                half.transport.say_goodbye()
            await trio.sleep(0.01)  # streams have writers of their own
            self._media.cancel()
            await self._media_over.wait()
            self.close()
        self.join = join
        self._must_rejoin = False
        self._media_failures.clear()
        self._make_connections()
        for info in [known for sid, known in self.participants.items()]:
            if info.sid not in {other.sid for other in join.other_participants}:
                self._forget(info)
        if again:
            self.on_event(Reconnected(False, round(trio.current_time() - self._lost_at, 3)))
        else:
            self.on_event(Joined(join))
        for info in join.other_participants:
            self._on_participant(info)
        if tracks and self._nursery is not None:
            self._nursery.start_soon(self._publish_again, tracks)

    def _make_connections(self) -> None:
        """Raises SignalError without a route to the server."""
        try:
            there = Transport(self._host, controlling=True, certificate=self._certificate, rng=self._rng, way=self._way)
            back = Transport(self._host, controlling=False, certificate=self._certificate, rng=self._rng, way=self._way)
        except OSError as error:
            raise SignalError(f"no way to {self._host}: {error}") from None
        self.publisher = Publisher(there, self._rng, self._describe, self._request)
        self.subscriber = Subscriber(back, self._rng, self._describe, self.on_event, self.participants)
        for transport, target in ((there, rtc.SignalTarget.PUBLISHER), (back, rtc.SignalTarget.SUBSCRIBER)):
            transport.ice_servers = list(self.join.ice_servers)
            transport.on_relayed = self._trickler(target)
            transport.on_event = self._watcher(transport)
        self._media, self._media_over = trio.CancelScope(), trio.Event()
        if self._nursery is not None:
            self._nursery.start_soon(self._run_media, self._media, self._media_over, there, back)

    async def _run_media(self, scope: trio.CancelScope, over: trio.Event, there: Transport, back: Transport) -> None:
        try:
            with scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(there.run)
                    nursery.start_soon(back.run)
        finally:
            over.set()

    async def _publish_again(self, tracks: Sequence[LocalTrack]) -> None:
        try:
            await self.publisher.publish(tracks)
        except SignalError as error:
            # Lost again, and with it the next attempt; or this server does not want the tracks any more.
            if self._signal is not None:
                self._end(f"the tracks could not be published again: {error}")

    async def _on_resumed(self, signal: SignalClient, response: rtc.ReconnectResponse) -> None:
        """SyncState comes first: without it the server does not know which offer our answer belongs to."""
        self.resumes += 1
        for transport in (self.publisher.transport, self.subscriber.transport):
            if response.ice_servers:
                transport.ice_servers = list(response.ice_servers)
        state = rtc.SyncState()
        if self.subscriber.last_answer.sdp:
            state.answer.CopyFrom(self.subscriber.last_answer)
        state.subscription.subscribe = not self._auto_subscribe
        self.publisher.sync(state)
        await signal.send(sync_state=state)
        if self.publisher.begun:
            self.publisher.restart_ice()
        self.on_event(Reconnected(True, round(trio.current_time() - self._lost_at, 3)))

    # -- one signal connection --------------------------------------------------------------------------------------

    async def _read(self, signal: SignalClient) -> None:
        """Until it is lost, or given up."""
        with trio.CancelScope() as self._reading:
            try:
                while not self.left.is_set() and not self._broken:
                    self._on_response(await signal.receive())
                    self._heard = trio.current_time()
            except SignalError as error:
                self._lose(str(error))

    def _lose(self, why: str) -> None:
        self._lost, self._lost_at, self._broken = why, trio.current_time(), True
        self._reading.cancel()

    async def _write(self, signal: SignalClient) -> None:
        while True:
            while self._outbox:
                with contextlib.suppress(SignalError):
                    await self._outbox.pop(0)(signal)
            self._posted = trio.Event()
            await self._posted.wait()

    async def _ping(self, signal: SignalClient) -> None:
        """A connection that is half open answers nothing; the server names its patience."""
        patience = float(self.join.ping_timeout or DEFAULT_PONG)
        while True:
            await trio.sleep(self.join.ping_interval or DEFAULT_PING)
            if trio.current_time() - self._heard > patience:
                self._lose(f"the server said nothing for {patience:g} s")
            with contextlib.suppress(SignalError):
                await signal.ping()

    def _describe(self, description: rtc.SessionDescription) -> None:
        self.post(**{description.type: description})

    def post(self, **request: object) -> None:
        """Lost without a connection: a resume begins with SyncState and new offers."""
        if self._signal is not None:
            self._outbox.append(lambda signal: signal.send(**request))
            self._posted.set()

    async def _request(self, request: rtc.AddTrackRequest) -> None:
        if self._signal is None:
            raise SignalError("the connection is closed")
        await self._signal.send(add_track=request)

    def _trickler(self, target: rtc.SignalTarget) -> Callable[[Peer], None]:
        def trickle(relayed: Peer) -> None:
            """The server needs no candidate of ours, but it can say then that the path is a relayed one."""
            text = Candidate("relay", 1, "udp", priority("relay", 65535), relayed.ip, relayed.port, "relay").to_sdp()
            init = json.dumps({"candidate": text, "sdpMid": "0", "sdpMLineIndex": 0})
            self.post(trickle=rtc.TrickleRequest(candidateInit=init, target=target))

        return trickle

    def _watcher(self, transport: Transport) -> Callable[[PeerEvent], None]:
        def watch(event: PeerEvent) -> None:
            if isinstance(event, PeerStateChanged):
                if event.state is PeerState.CONNECTED:
                    self._media_failures.pop(transport, None)
                elif event.state is PeerState.FAILED:
                    self._on_media_failed(transport, event.detail)
            elif transport is self.subscriber.transport:
                self.subscriber.on_peer_event(event)

        return watch

    def _on_media_failed(self, transport: Transport, detail: str) -> None:
        """Both connections fail in one outage: each counts its own failures."""
        failures = self._media_failures[transport] = self._media_failures.get(transport, 0) + 1
        why = transport.describe_failure() if detail.startswith("ice") else detail
        if failures > 1:
            self._end(f"no media connection: {why}")
        else:
            self._lose(f"the media connection failed: {why}")

    # -- what the server says ---------------------------------------------------------------------------------------

    def _on_response(self, response: rtc.SignalResponse) -> None:
        if self.left.is_set():
            return  # What was on its way while we said goodbye: `Left` is the last event.
        match response.WhichOneof("message"):
            case "offer":
                try:
                    self.subscriber.on_offer(response.offer)
                except ProtocolViolation as violation:
                    self._end(f"the server's offer cannot be answered: {violation}")
            case "answer":
                self.publisher.on_answer(response.answer.sdp)
            case "trickle":
                self._on_trickle(response.trickle)
            case "update":
                for info in response.update.participants:
                    self._on_participant(info)
            case "track_published":
                self.publisher.on_published(response.track_published)
            case "request_response":
                self.publisher.on_refusal(response.request_response)
            case "speakers_changed":
                self.on_event(SpeakersChanged(tuple(response.speakers_changed.speakers)))
            case "connection_quality":
                self.on_event(QualityChanged(tuple(response.connection_quality.updates)))
            case "room_update":
                self.join.room.CopyFrom(response.room_update.room)
                self.on_event(RoomChanged(response.room_update.room))
            case "room_moved":
                self._on_moved(response.room_moved)
            case "refresh_token":
                self._token = response.refresh_token
            case "leave":
                self._on_leave(response.leave)
            case _:
                pass

    def _on_leave(self, leave: rtc.LeaveRequest) -> None:
        reason = models.DisconnectReason.Name(leave.reason)
        if leave.action == Action.DISCONNECT:
            self._end(reason)
        else:
            self._must_rejoin = leave.action == Action.RECONNECT
            self._lose(f"the server wants a new connection ({reason})")

    def _on_moved(self, moved: rtc.RoomMovedResponse) -> None:
        self._token = moved.token or self._token
        self.join.room.CopyFrom(moved.room)
        self.join.participant.CopyFrom(moved.participant)
        for info in list(self.participants.values()):
            self._forget(info)
        self.on_event(RoomChanged(moved.room))
        for info in moved.other_participants:
            self._on_participant(info)

    def _on_trickle(self, trickle: rtc.TrickleRequest) -> None:
        try:
            init = json.loads(trickle.candidateInit)
        except ValueError:
            return
        candidate = init.get("candidate") if isinstance(init, dict) else None
        if isinstance(candidate, str) and candidate:
            half = self.publisher if trickle.target == rtc.SignalTarget.PUBLISHER else self.subscriber
            half.transport.peer.add_remote_candidate(candidate, trio.current_time())
            half.transport.wake()

    def _on_participant(self, info: models.ParticipantInfo) -> None:
        if info.sid == self.join.participant.sid:
            return
        known = self.participants.get(info.sid)
        if info.state == DISCONNECTED:
            self._forget(info)
            return
        self.participants[info.sid] = info
        self.on_event(ParticipantJoined(info) if known is None else ParticipantChanged(info))
        self._compare_tracks(info, known, info.tracks)

    def _forget(self, info: models.ParticipantInfo) -> None:
        known = self.participants.pop(info.sid, None)
        if known is not None:
            self._compare_tracks(info, known, ())
            self.on_event(ParticipantLeft(info))

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
        self._finish(reason)
        self._reading.cancel()

    def _finish(self, reason: str) -> None:
        if self.left.is_set():
            return
        self.reason = reason
        self.left.set()
        self.publisher.end(reason)
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
    way: Way = "auto",
    reconnect: bool = True,
) -> AsyncIterator[Session]:
    """Join, and leave at the end. Raises SignalError; ValueError for an address that is none."""
    session = Session(
        url,
        token,
        on_event=on_event,
        auto_subscribe=auto_subscribe,
        certificate=certificate or Certificate.generate(),
        way=way,
        reconnect=reconnect,
    )
    with contextlib.closing(session):
        async with trio.open_nursery() as nursery:
            await nursery.start(session.run)
            try:
                yield session
            finally:
                await session.leave()
                nursery.cancel_scope.cancel()


@contextlib.contextmanager
def unwrapped(token: str) -> Iterator[None]:
    """A SignalError as itself, not in a nursery's group. A refusal with a body comes out of the WebSocket's task."""
    try:
        yield
    except BaseExceptionGroup as group:
        cause = leaf(group)
        if isinstance(cause, ConnectionRejected):
            raise refusal(cause, token) from None
        if isinstance(cause, SignalError):
            raise cause from None
        if isinstance(cause, LocalProtocolError):
            raise SignalError("the connection was closed") from None  # a ping came while we said goodbye
        raise
