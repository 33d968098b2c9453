"""What each row of the compatibility matrix does: "sam" is the SDK under test, "pat" the Python SDK that looks on.

Every scenario ends with something that the other side received.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from livekit import rtc
from support.guests import Guest, listen_streams, noise
from support.interop import (
    BLUE,
    GREEN,
    RED,
    YELLOW,
    Client,
    Published,
    eventually,
    hears_silence,
    hears_tone,
    sees_colours,
)

from lkactor.testing import LkServer

TEXT = "Grüße, 世界 👋. " * 2000
LENGTH = 200_000
PLAIN = {"videoCodec": "vp8", "simulcast": False}
SHUTDOWN = rtc.DisconnectReason.SERVER_SHUTDOWN


@dataclass(frozen=True, slots=True)
class Scene:
    """One cell being played: both are connected."""

    server: LkServer
    room: str
    single_pc: bool
    sam: Guest
    pat: Client

    async def meet(self) -> None:
        """Both are there for the other and can receive data; the Node SDK does not say the latter of pat."""
        await asyncio.gather(self.sam.call("meets", ["pat"]), self.pat.meets("sam"))

        async def active() -> bool:
            entries = self.server.events(self.room)
            return any((entry.participant, entry.event) == ("pat", "active") for entry in entries)

        await eventually(active, "pat's data channels")

    async def tones(self) -> None:
        """Both publish, both are heard."""
        await asyncio.gather(self.pat.publish_tone(440), self.sam.call("publishTone", 1000))
        await self.hear()

    async def hear(self) -> None:
        await asyncio.gather(self.sam.call("frequency", "pat", "tone", 440), self.hears_sam())

    def newest(self, name: str) -> rtc.Track | None:
        """Sam's track that pat subscribed to last: a reconnect brings another one."""
        events = self.pat.seen("track_subscribed", lambda _, pub, who: (who.identity, pub.name) == ("sam", name))
        track: rtc.Track | None = events[-1].args[0] if events else None
        return track

    async def hears_sam(self) -> None:
        async def heard() -> bool:
            track = self.newest("tone")
            try:
                await hears_tone(track, 1000, limit=3) if track else None
            except AssertionError:
                return False
            return track is not None

        await eventually(heard, "sam's tone", limit=40)

    async def talk(self, topic: str) -> None:
        """Reliable data both ways. Sam sends until it arrives: what livekit-client 2.23 is given in the first 2 s after
        a full reconnect it keeps for a resume that never comes, with any server."""
        said, options = f"from sam, {topic}", {"reliable": True, "topic": topic}

        async def arrived() -> bool:
            await self.sam.call("publishData", said, options)
            await asyncio.sleep(0.3)
            return bool(self.pat.seen("data_received", lambda packet: packet.data == said.encode()))

        await eventually(arrived, f"data of sam, {topic}")
        await self.pat.local.publish_data(f"from pat, {topic}", topic=topic)
        await self.sam.call("event", "dataReceived", f"from pat, {topic}")

    async def sid(self) -> str:
        return str((await self.sam.call("me"))["sid"])

    def log(self, event: str) -> list[str]:
        """Details of the server's own entries about sam."""
        entries = self.server.events(self.room)
        return [entry.detail for entry in entries if (entry.participant, entry.event) == ("sam", event)]


Scenario = Callable[[Scene], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(name: str) -> Callable[[Scenario], Scenario]:
    def add(function: Scenario) -> Scenario:
        SCENARIOS[name] = function
        return function

    return add


# media


@scenario("connect")
async def connect(scene: Scene) -> None:
    await scene.meet()
    assert (await scene.sam.call("me"))["identity"] == "sam"
    assert [who["identity"] for who in await scene.sam.call("people")] == ["pat"]
    assert scene.pat.remote("sam").sid == await scene.sid()
    assert len(scene.log("publisher.connecting")) == 1
    assert len(scene.log("subscriber.connecting")) == (0 if scene.single_pc else 1)


@scenario("audio")
async def audio(scene: Scene) -> None:
    await scene.tones()


@scenario("video")
async def video(scene: Scene) -> None:
    await scene.pat.publish_picture(RED, BLUE)
    await scene.sam.call("publishCanvas", "#1ec81e", "#dcdc1e", [320, 180], PLAIN)
    await scene.sam.call("colours", "pat", "picture", RED, BLUE)
    await sees_colours(await scene.pat.track("sam", "canvas"), GREEN, YELLOW)


@scenario("mutes")
async def mutes(scene: Scene) -> None:
    await scene.sam.call("publishTone", 1000)
    track = await scene.pat.track("sam", "tone")
    await hears_tone(track, 1000)
    await scene.sam.call("mute", "tone")
    await scene.pat.event("track_muted", lambda who, pub: (who.identity, pub.name) == ("sam", "tone"))
    await hears_silence(track)
    await scene.sam.call("unmute", "tone")
    await scene.pat.event("track_unmuted", lambda who, pub: (who.identity, pub.name) == ("sam", "tone"))
    await hears_tone(track, 1000)


@scenario("sees-mute")
async def sees_mute(scene: Scene) -> None:
    published = await scene.pat.publish_tone(440)
    await scene.sam.call("frequency", "pat", "tone", 440)
    published.track.mute()
    await scene.sam.call("event", "trackMuted", "pat")
    assert await _muted(scene) is True
    published.track.unmute()
    await scene.sam.call("event", "trackUnmuted", "pat")
    assert await _muted(scene) is False
    await scene.sam.call("frequency", "pat", "tone", 440)


async def _muted(scene: Scene) -> bool:
    """Of pat's tone, as sam has it."""
    (pat,) = await scene.sam.call("people")
    (track,) = pat["tracks"]
    return bool(track["muted"])


@scenario("unpublish")
async def unpublish(scene: Scene) -> None:
    await scene.sam.call("publishCanvas", "#1ec81e", "#dcdc1e", [320, 180], PLAIN)
    await sees_colours(await scene.pat.track("sam", "canvas"), GREEN, YELLOW)
    await scene.sam.call("unpublish", "canvas")
    await scene.pat.event("track_unsubscribed", lambda _, pub, who: pub.name == "canvas")
    await scene.pat.event("track_unpublished", lambda pub, who: pub.name == "canvas")
    mark = scene.pat.mark()
    await scene.sam.call("publishCanvas", "#dc1e1e", "#1e1edc", [320, 180], PLAIN)
    await sees_colours(await scene.pat.track("sam", "canvas", since=mark), RED, BLUE)


# data


@scenario("data-reliable")
async def data_reliable(scene: Scene) -> None:
    await scene.meet()
    sent = [f"packet {number}" for number in range(20)]
    for text in sent:
        await scene.sam.call("publishData", text, {"reliable": True, "topic": "numbers"})

    def packets() -> list[rtc.DataPacket]:
        return [event.args[0] for event in scene.pat.seen("data_received", lambda packet: packet.topic == "numbers")]

    await scene.pat.until(lambda: len(packets()) == len(sent), "all packets")
    assert [packet.data.decode() for packet in packets()] == sent
    assert {packet.kind for packet in packets()} == {rtc.DataPacketKind.KIND_RELIABLE}
    assert {packet.participant and packet.participant.identity for packet in packets()} == {"sam"}
    await scene.talk("answer")


@scenario("data-lossy")
async def data_lossy(scene: Scene) -> None:
    await scene.meet()
    for number in range(10):
        await scene.sam.call("publishData", f"lossy {number}", {"reliable": False, "topic": "game"})
        await scene.pat.local.publish_data(f"lossy back {number}", reliable=False, topic="game")
    packet = (await scene.pat.event("data_received", lambda packet: packet.topic == "game")).args[0]
    assert packet.kind == rtc.DataPacketKind.KIND_LOSSY
    assert packet.data.startswith(b"lossy ")
    await scene.sam.call("event", "dataReceived", "lossy back ")


@scenario("rpc")
async def rpc(scene: Scene) -> None:
    await scene.meet()

    async def answer(call: rtc.RpcInvocationData) -> str:
        return f"{call.caller_identity}:{call.payload[::-1]}"

    scene.pat.local.register_rpc_method("turn", answer)
    assert await scene.sam.call("performRpc", "pat", "turn", "drawer") == "sam:reward"
    await scene.sam.call("serveRpc", "echo")
    assert (
        await scene.pat.local.perform_rpc(destination_identity="sam", method="echo", payload="stressed")
        == "pat:8:desserts"
    )


@scenario("text-stream")
async def text_stream(scene: Scene) -> None:
    listen_streams(scene.pat, "chat")
    await scene.sam.call("listenStreams", "chat")
    await scene.meet()
    await scene.sam.call("sendText", TEXT, {"topic": "chat"})
    await _until_event(scene.pat, "text_stream", ("sam", TEXT))
    await scene.pat.local.send_text(TEXT, topic="chat")
    assert (await scene.sam.call("event", "textStream"))["args"] == ["pat", TEXT]


@scenario("byte-stream")
async def byte_stream(scene: Scene) -> None:
    content = noise(LENGTH)
    digest = hashlib.sha256(content).hexdigest()
    listen_streams(scene.pat, "files")
    await scene.sam.call("listenStreams", "files")
    await scene.meet()
    # the page's generator is of its own arithmetic, so its digest is what it says
    sent = await scene.sam.call("sendBytes", LENGTH, "files")
    await _until_event(scene.pat, "byte_stream", ("sam", sent, "blob"))
    await scene.pat.local.send_bytes(content, name="file", topic="files")
    assert (await scene.sam.call("event", "byteStream"))["args"] == ["pat", digest, "file"]


async def _until_event(client: Client, name: str, args: tuple[str, ...]) -> None:
    """For the events of `listen_streams`, which the SDK does not have."""
    await client.until(lambda: any((e.name, e.args) == (name, args) for e in client.events), f"{name}")


@scenario("updates")
async def updates(scene: Scene) -> None:
    await scene.meet()
    await scene.sam.call("setMetadata", "sam's own")
    await scene.sam.call("setName", "Sam S.")
    await scene.sam.call("setAttributes", {"hand": "raised"})
    await scene.pat.event("participant_metadata_changed", lambda _, __, new: new == "sam's own")
    await scene.pat.event("participant_name_changed", lambda _, __, new: new == "Sam S.")
    await scene.pat.event("participant_attributes_changed", lambda new, who: new == {"hand": "raised"})
    await scene.pat.local.set_metadata("pat's own")
    await scene.pat.local.set_name("Pat P.")
    await scene.pat.local.set_attributes({"role": "host"})

    async def seen() -> bool:
        (pat,) = await scene.sam.call("people")
        return (pat["metadata"], pat["name"], dict(pat["attributes"])) == ("pat's own", "Pat P.", {"role": "host"})

    await eventually(seen, "what pat says of itself")


# reconnects


async def comes_back(scene: Scene, simulated: str, *, same_sid: bool | None, via: str | None = None) -> None:
    """Tones flow, the scenario is played, they flow again and so does data. `same_sid`: a resume, not a new session;
    None where it may be either. `via`: what the media must go over then."""
    await scene.tones()
    before, mark, seen = await scene.sid(), await scene.sam.call("mark"), scene.pat.mark()
    await scene.sam.call("simulate", simulated)
    await scene.sam.call("event", "reconnected", "", mark, 40_000)
    await scene.meet()
    await scene.hear()
    await scene.talk(simulated)
    after = await scene.sid()
    assert scene.pat.remote("sam").sid == after
    assert same_sid is None or (after == before) is same_sid
    if after == before:
        assert not scene.pat.seen("participant_disconnected", since=seen)
    assert not await scene.sam.call("seen", "disconnected")
    if via is not None:
        assert await scene.sam.call("path", "pat", "tone") == via


@scenario("resume")
async def resume(scene: Scene) -> None:
    await comes_back(scene, "signal-reconnect", same_sid=True)


@scenario("full-reconnect")
async def full_reconnect(scene: Scene) -> None:
    await comes_back(scene, "full-reconnect", same_sid=False)


@scenario("failed-resume")
async def failed_resume(scene: Scene) -> None:
    await comes_back(scene, "resume-reconnect", same_sid=False)


@scenario("node-failure")
async def node_failure(scene: Scene) -> None:
    await comes_back(scene, "node-failure", same_sid=False)


@scenario("migration")
async def migration(scene: Scene) -> None:
    await comes_back(scene, "migration", same_sid=False)


@scenario("leave-full-reconnect")
async def leave_full_reconnect(scene: Scene) -> None:
    await comes_back(scene, "leave-full-reconnect", same_sid=False)


@scenario("cut-on-resume")
async def cut_on_resume(scene: Scene) -> None:
    await comes_back(scene, "disconnect-signal-on-resume", same_sid=None)
    assert scene.log("simulate") == ["disconnect_signal_on_resume"]


@scenario("cut-on-resume-no-messages")
async def cut_on_resume_no_messages(scene: Scene) -> None:
    await comes_back(scene, "disconnect-signal-on-resume-no-messages", same_sid=None)
    assert scene.log("simulate") == ["disconnect_signal_on_resume_no_messages"]


@scenario("force-tcp")
async def force_tcp(scene: Scene) -> None:
    await comes_back(scene, "force-tcp", same_sid=None, via="tcp")


@scenario("force-tls")
async def force_tls(scene: Scene) -> None:
    await comes_back(scene, "force-tls", same_sid=None, via="relay/tls")


@scenario("server-leave")
async def server_leave(scene: Scene) -> None:
    await scene.meet()
    await scene.sam.call("simulate", "server-leave")
    assert (await scene.sam.call("event", "disconnected"))["args"] == [int(SHUTDOWN)]
    gone = (await scene.pat.event("participant_disconnected")).args[0]
    assert (gone.identity, gone.disconnect_reason) == ("sam", SHUTDOWN)


# what the server pretends


@scenario("speaker")
async def speaker(scene: Scene) -> None:
    # others are told of speakers they are subscribed to, with whatever track
    await scene.sam.call("publishCanvas", "#1ec81e", "#dcdc1e", [320, 180], PLAIN)
    await scene.pat.track("sam", "canvas")
    await scene.sam.call("simulate", "speaker")
    await scene.sam.call("event", "activeSpeakersChanged", '"sam"')
    await scene.pat.event("active_speakers_changed", lambda people: [who.identity for who in people] == ["sam"])
    await scene.pat.event("active_speakers_changed", lambda people: not people)
    await scene.sam.call("event", "activeSpeakersChanged", "[[]]")


@scenario("bandwidth")
async def bandwidth(scene: Scene) -> None:
    published: Published = await scene.pat.publish_picture(RED, BLUE, size=(960, 540), simulcast=True)
    assert published.publication.simulcasted
    await scene.sam.call("widthBetween", "pat", "picture", 960, 960)
    await scene.sam.call("simulate", "subscriber-bandwidth", 200_000)
    await scene.sam.call("widthBetween", "pat", "picture", 1, 480)
    await scene.sam.call("framesAdvance", "pat", "picture")
    await scene.sam.call("simulate", "subscriber-bandwidth", 0)
    await scene.sam.call("widthBetween", "pat", "picture", 960, 960)
