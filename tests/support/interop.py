"""The Python SDK as a test client: every room event recorded, every wait bounded and driven by events, never by a nap.

No asyncio plugin: a test hands its coroutine function to `run`. The server comes from the fixture `lk_server`
(`.url`, `.http_url`, `.api_key`, `.api_secret`, `.token(identity=, room=, **grants)`).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, get_args

import jwt
import numpy as np
import numpy.typing as npt
import pytest
from livekit import rtc
from livekit.rtc.room import EventTypes

LIMIT = 25.0
"""Seconds any single wait may take. Generous: it only bounds a failure."""

MARKS = [
    pytest.mark.interop,
    # PyJWT, also inside livekit-api, on the six letters of "secret", the secret every LiveKit dev server has
    pytest.mark.filterwarnings("ignore:The HMAC key is"),
]
"""`pytestmark` of every module here: third-party warnings are let pass per module, never for all tests."""

SAMPLE_RATE = 48000
Colour = tuple[int, int, int]
RED: Colour = (220, 30, 30)
GREEN: Colour = (30, 200, 30)
BLUE: Colour = (30, 30, 220)
YELLOW: Colour = (220, 220, 30)


class Server(Protocol):
    """What the fixture `lk_server` gives."""

    url: str
    http_url: str
    api_key: str
    api_secret: str

    def token(self, identity: str = ..., room: str | None = ..., **grants: Any) -> str: ...
    def actors(self) -> list[Any]: ...
    def kill(self, path: str) -> None: ...
    def crash(self, path: str) -> None: ...


def run(test: Callable[[], Coroutine[Any, Any, None]], limit: float = 100.0) -> None:
    """Runs one test coroutine on a fresh loop, at most `limit` seconds."""

    async def bounded() -> None:
        async with asyncio.timeout(limit):
            await test()

    asyncio.run(bounded())


def raw_token(server: Server, *, key: str | None = None, secret: str | None = None, **claims: Any) -> str:
    """A token with exactly these claims beside `iss`, `nbf` and `exp` (a claim of None is left out)."""
    now = int(time.time())
    body = {"iss": key or server.api_key, "nbf": now - 10, "exp": now + 600, **claims}
    return jwt.encode({k: v for k, v in body.items() if v is not None}, secret or server.api_secret, "HS256")


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    args: tuple[Any, ...]
    at: float
    """Seconds since the client was made."""


class Client:
    """One participant. `events` holds everything the SDK reported, in order."""

    def __init__(self, server: Server, identity: str) -> None:
        self.server = server
        self.identity = identity
        self.room = rtc.Room()
        self.events: list[Event] = []
        self._born = time.monotonic()
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        for name in get_args(EventTypes):
            self.room.on(name, partial(self._record, name))

    def _record(self, name: str, *args: Any) -> None:
        self.events.append(Event(name, args, time.monotonic() - self._born))
        self._changed.set()

    @property
    def local(self) -> rtc.LocalParticipant:
        return self.room.local_participant

    async def connect(
        self, room: str, *, single_pc: bool = True, auto_subscribe: bool = True, token: str | None = None, **grants: Any
    ) -> "Client":
        options = rtc.RoomOptions(auto_subscribe=auto_subscribe, single_peer_connection=single_pc)
        token = token or self.server.token(identity=self.identity, room=room, **grants)
        await asyncio.wait_for(self.room.connect(self.server.url, token, options), LIMIT)
        return self

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.room.isconnected():
            await asyncio.wait_for(self.room.disconnect(), LIMIT)

    def background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs beside the test until the client closes."""
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """`background` for the SDK's callbacks, which must return nothing."""
        self.background(work)

    def mark(self) -> int:
        """A place in `events`, for waits that must not be satisfied by what already happened."""
        return len(self.events)

    def story(self) -> str:
        """All events, one a line, for the message of a failed wait."""
        return "\n".join(f"{event.at:7.3f} {event.name} {str(event.args)[:160]}" for event in self.events)

    def seen(self, name: EventTypes, where: Callable[..., bool] = lambda *_: True, *, since: int = 0) -> list[Event]:
        return [event for event in self.events[since:] if event.name == name and where(*event.args)]

    async def event(
        self, name: EventTypes, where: Callable[..., bool] = lambda *_: True, *, since: int = 0, limit: float = LIMIT
    ) -> Event:
        """The first event of that name that fits, past or future."""
        await self.until(lambda: bool(self.seen(name, where, since=since)), f"event {name}", limit=limit)
        return self.seen(name, where, since=since)[0]

    async def until(self, holds: Callable[[], bool], what: str, *, limit: float = LIMIT) -> None:
        """Returns when `holds()`; looks again after every event."""
        try:
            async with asyncio.timeout(limit):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{self.identity}: no {what} within {limit} s; events:\n{self.story()}") from None

    async def until_polled(self, holds: Callable[[], bool], what: str, *, limit: float = LIMIT) -> None:
        """For what no event of the client tells: looks every 20 ms."""
        async with asyncio.timeout(limit):
            while not holds():  # noqa: ASYNC110 - nothing tells us
                await asyncio.sleep(0.02)

    def remote(self, identity: str) -> rtc.RemoteParticipant:
        return self.room.remote_participants[identity]

    async def meets(self, *identities: str) -> None:
        """Until all these are in the room and can receive data."""

        def active() -> bool:
            people = self.room.remote_participants
            return all(
                i in people and people[i].state == rtc.ParticipantState.PARTICIPANT_STATE_ACTIVE for i in identities
            )

        await self.until(active, f"sight of {identities}")

    def publication(self, identity: str, name: str) -> rtc.RemoteTrackPublication | None:
        person = self.room.remote_participants.get(identity)
        if person is None:
            return None
        return next((pub for pub in person.track_publications.values() if pub.name == name), None)

    async def published(self, identity: str, name: str) -> rtc.RemoteTrackPublication:
        """The publication of that name, once it is announced."""
        await self.until(lambda: self.publication(identity, name) is not None, f"publication {identity}/{name}")
        publication = self.publication(identity, name)
        assert publication is not None
        return publication

    async def track(self, identity: str, name: str, *, since: int = 0) -> rtc.Track:
        """The subscribed track of that name, once it is there."""
        event = await self.event(
            "track_subscribed", lambda _t, pub, who: who.identity == identity and pub.name == name, since=since
        )
        track: rtc.Track = event.args[0]
        return track

    async def publish_tone(self, frequency: float = 440.0, name: str = "tone", *, red: bool = True) -> "Published":
        source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=100)
        track = rtc.LocalAudioTrack.create_audio_track(name, source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=False, red=red)
        publication = await asyncio.wait_for(self.local.publish_track(track, options), LIMIT)
        return Published(track, publication, self.background(_play_tone(source, frequency)))

    async def publish_picture(
        self,
        left: Colour,
        right: Colour | None = None,
        name: str = "picture",
        *,
        size: tuple[int, int] = (320, 180),
        simulcast: bool = False,
        codec: "rtc.VideoCodec.ValueType" = rtc.VideoCodec.VP8,
    ) -> "Published":
        """A camera that shows one colour, or one on each half."""
        source = rtc.VideoSource(*size)
        track = rtc.LocalVideoTrack.create_video_track(name, source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_CAMERA, simulcast=simulcast, video_codec=codec)
        publication = await asyncio.wait_for(self.local.publish_track(track, options), LIMIT)
        frame = _two_colours(*size, left, right or left)
        return Published(track, publication, self.background(_show(source, frame)))


@dataclass(frozen=True, slots=True)
class Published:
    track: rtc.LocalAudioTrack | rtc.LocalVideoTrack
    publication: rtc.LocalTrackPublication
    feeder: asyncio.Task[None]

    async def unpublish(self, client: Client) -> None:
        await asyncio.wait_for(client.local.unpublish_track(self.publication.sid), LIMIT)

    async def keep_widths(self, widths: dict[str, int]) -> None:
        """Columns of each simulcast layer as it is sent, by rid: fewer where libwebrtc is too slow to encode more."""
        while True:
            for entry in await self.track.get_stats():
                if entry.WhichOneof("stats") == "outbound_rtp":
                    layer = entry.outbound_rtp.outbound
                    widths[layer.rid] = layer.frame_width
            await asyncio.sleep(0.2)


class Party:
    """The Python clients of one test, all in one room with one signalling generation."""

    def __init__(self, server: Server, room: str, single_pc: bool) -> None:
        self.server = server
        self.room = room
        self.single_pc = single_pc
        self.clients: list[Client] = []

    async def join(self, identity: str, **options: Any) -> Client:
        """Options are those of `Client.connect`: auto_subscribe, token, and grants such as hidden=True."""
        client = Client(self.server, identity)
        self.clients.append(client)
        options.setdefault("single_pc", self.single_pc)
        return await client.connect(self.room, **options)

    async def pair(self, first: str = "alice", second: str = "bob", **options: Any) -> tuple[Client, Client]:
        """Two clients, joined at the same time. They need not have met yet: the Go server tells of people who publish
        nothing only every 3 s, and media needs no such wait."""
        a, b = await asyncio.gather(self.join(first, **options), self.join(second, **options))
        return a, b

    async def meeting(self, *identities: str, **options: Any) -> list[Client]:
        """Clients that all see each other as active, so ready for data."""
        clients = list(await asyncio.gather(*(self.join(identity, **options) for identity in identities)))
        await asyncio.gather(*(c.meets(*(i for i in identities if i != c.identity)) for c in clients))
        return clients


@asynccontextmanager
async def party(server: Server, room: str, single_pc: bool = True) -> AsyncIterator[Party]:
    guests = Party(server, room, single_pc)
    try:
        yield guests
    finally:
        await asyncio.gather(*(client.close() for client in guests.clients))


# media made and measured


async def _play_tone(source: rtc.AudioSource, frequency: float) -> None:
    """10 ms frames for ever; the source's own queue sets the pace."""
    step = SAMPLE_RATE // 100
    position = 0
    while True:
        phase = 2 * np.pi * frequency * np.arange(position, position + step) / SAMPLE_RATE
        samples = (12000 * np.sin(phase)).astype(np.int16)
        await source.capture_frame(rtc.AudioFrame(samples.tobytes(), SAMPLE_RATE, 1, step))
        position += step


def _two_colours(width: int, height: int, left: Colour, right: Colour) -> rtc.VideoFrame:
    pixels = np.zeros((height, width, 4), np.uint8)
    pixels[:, : width // 2, :3] = left
    pixels[:, width // 2 :, :3] = right
    pixels[:, :, 3] = 255
    frame = rtc.VideoFrame(width, height, rtc.VideoBufferType.RGBA, pixels.tobytes())
    return frame.convert(rtc.VideoBufferType.I420)


async def _show(source: rtc.VideoSource, frame: rtc.VideoFrame, fps: int = 15) -> None:
    while True:
        source.capture_frame(frame)
        await asyncio.sleep(1 / fps)


def dominant_frequency(samples: npt.NDArray[np.int16]) -> tuple[float, float, float]:
    """(strongest frequency in Hz, its share of the power, RMS of the samples)."""
    signal = samples.astype(np.float64)
    rms = float(np.sqrt(np.mean(signal**2)))
    power = np.abs(np.fft.rfft(signal * np.hanning(len(signal)))) ** 2
    peak = int(np.argmax(power[1:])) + 1
    near = float(power[max(peak - 3, 0) : peak + 4].sum())
    return peak * SAMPLE_RATE / len(signal), near / max(float(power.sum()), 1e-9), rms


async def _listen(
    track: rtc.Track, fits: Callable[[npt.NDArray[np.int16]], bool], describe: Callable[[], str], limit: float
) -> None:
    """Feeds half-second windows, a new one every 100 ms, until one fits."""
    stream = rtc.AudioStream(track, sample_rate=SAMPLE_RATE, num_channels=1)
    window = SAMPLE_RATE // 2
    heard = np.zeros(0, np.int16)
    fresh = 0
    try:
        async with asyncio.timeout(limit):
            async for event in stream:
                piece = np.frombuffer(event.frame.data, np.int16)
                heard = np.concatenate([heard, piece])[-window:]
                fresh += len(piece)
                if len(heard) == window and fresh >= SAMPLE_RATE // 10:
                    fresh = 0
                    if fits(heard):
                        return
        raise AssertionError(f"the audio stream ended; {describe()}")
    except TimeoutError:
        raise AssertionError(f"not heard within {limit} s; {describe()}") from None
    finally:
        await stream.aclose()


async def hears_tone(track: rtc.Track, frequency: float = 440.0, *, limit: float = LIMIT) -> None:
    """Until half a second is nothing but that tone (within 4 Hz, 90 % of the power)."""
    last = (0.0, 0.0, 0.0)

    def fits(samples: npt.NDArray[np.int16]) -> bool:
        nonlocal last
        last = dominant_frequency(samples)
        return abs(last[0] - frequency) <= 4 and last[1] > 0.9 and last[2] > 1000

    await _listen(track, fits, lambda: f"last window: {last[0]:.0f} Hz, share {last[1]:.2f}, RMS {last[2]:.0f}", limit)


async def hears_silence(track: rtc.Track, *, limit: float = LIMIT) -> None:
    """Until half a second is as good as silent (RMS below 20 of 32767)."""
    loudness = 0.0

    def fits(samples: npt.NDArray[np.int16]) -> bool:
        nonlocal loudness
        loudness = dominant_frequency(samples)[2]
        return loudness < 20

    await _listen(track, fits, lambda: f"last RMS {loudness:.0f}", limit)


async def sees_frame(
    track: rtc.Track, fits: Callable[[npt.NDArray[np.uint8]], bool], *, limit: float = LIMIT, count: int = 5
) -> npt.NDArray[np.uint8]:
    """Until `count` frames in all (height x width x RGBA) fit; the last of them."""
    stream = rtc.VideoStream(track, format=rtc.VideoBufferType.RGBA)
    last, total, good = "none", 0, 0
    try:
        async with asyncio.timeout(limit):
            async for event in stream:
                frame = event.frame
                pixels = np.frombuffer(frame.data, np.uint8).reshape(frame.height, frame.width, 4)
                total += 1
                last = f"{frame.width}x{frame.height} {halves(pixels)}"
                good += fits(pixels)
                if good >= count:
                    return pixels
        raise AssertionError(f"the video stream ended after {total} frames; last {last}")
    except TimeoutError:
        raise AssertionError(f"not seen within {limit} s in {total} frames; last {last}") from None
    finally:
        await stream.aclose()


def halves(pixels: npt.NDArray[np.uint8]) -> tuple[Colour, Colour]:
    """Mean colours of the middles of the left and right half."""
    height, width = pixels.shape[:2]
    rows = slice(height // 4, 3 * height // 4)
    left = pixels[rows, width // 8 : 3 * width // 8, :3].reshape(-1, 3).mean(axis=0)
    right = pixels[rows, 5 * width // 8 : 7 * width // 8, :3].reshape(-1, 3).mean(axis=0)
    return tuple(int(v) for v in left), tuple(int(v) for v in right)  # type: ignore[return-value]


def near(seen: Colour, wanted: Colour, tolerance: int = 64) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(seen, wanted, strict=True))


async def sees_colours(track: rtc.Track, left: Colour, right: Colour | None = None, *, limit: float = LIMIT) -> None:
    """Until five frames show these colours on their halves."""

    def fits(pixels: npt.NDArray[np.uint8]) -> bool:
        a, b = halves(pixels)
        return near(a, left) and near(b, right or left)

    await sees_frame(track, fits, limit=limit)


async def eventually(check: Callable[[], Awaitable[bool]], what: str, *, limit: float = LIMIT) -> None:
    """For state that only a request can read (the API): asks every 50 ms."""
    try:
        async with asyncio.timeout(limit):
            while not await check():  # noqa: ASYNC110 (what is asked is another process)
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not so within {limit} s: {what}") from None
