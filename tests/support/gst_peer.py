"""A GStreamer WebRTC peer, run by the system's Python: `webrtcbin` and nothing of ours.

It speaks the dialect of GStreamer's own examples: in a session the caller offers, in a room the newcomer offers to
everyone listed. It sends a tone and a picture of one colour, measures what it receives, and prints JSON lines:

    {"event": "said", "text": "SESSION_OK"}          what the signalling server said, payloads apart
    {"event": "state", "peer": "p", "state": "..."}  the connection of one peer
    {"event": "tone", "peer": "p", "pad": 1, "hz": 440.0, "loudness": 3000.0}
    {"event": "picture", "peer": "p", "pad": 2, "left": [r, g, b], "right": [r, g, b]}

Lines on its standard input are sent to the signalling server as they are.
"""

import argparse
import array
import asyncio
import itertools
import json
import math
import re
import ssl
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
import websockets  # noqa: E402
from gi.repository import Gst, GstSdp, GstWebRTC  # noqa: E402

SEND_AUDIO = (
    "audiotestsrc is-live=true freq={tone} volume=0.3 ! audioconvert ! audioresample"
    " ! audio/x-raw,rate=48000,channels=2 ! opusenc ! rtpopuspay pt={opus}"
    " ! application/x-rtp,media=audio,encoding-name=OPUS,payload={opus} ! {name}. "
)
SEND_VIDEO = (
    "videotestsrc is-live=true pattern=solid-color foreground-color={colour}"
    " ! video/x-raw,width=320,height=240,framerate=15/1 ! videoconvert"
    " ! vp8enc deadline=1 cpu-used=8 keyframe-max-dist=60 ! rtpvp8pay picture-id-mode=15-bit pt={vp8}"
    " ! application/x-rtp,media=video,encoding-name=VP8,payload={vp8} ! {name}. "
)
PRINT = threading.Lock()


def say(**event):
    with PRINT:
        print(json.dumps(event), flush=True)


def payload_type(offer, codec, otherwise):
    found = re.search(rf"a=rtpmap:(\d+) {codec}/", offer, re.IGNORECASE)
    return int(found[1]) if found else otherwise


class Call:
    """One webrtcbin, towards one peer."""

    def __init__(self, peer, options, send, offer=""):
        """With the peer's offer: what is sent must have its payload types."""
        self.peer, self.options, self.send = peer, options, send
        self.pads = 0
        media = SEND_AUDIO + ("" if options.audio_only else SEND_VIDEO)
        if options.silent:
            media = ""
        text = "webrtcbin name=w bundle-policy=max-bundle latency=50 " + media.format(
            name="w", tone=options.tone, colour=int(f"ff{options.colour}", 16),
            opus=payload_type(offer, "opus", 97), vp8=payload_type(offer, "vp8", 96),
        )  # fmt: skip
        self.pipeline = Gst.parse_launch(text)
        self.webrtc = self.pipeline.get_by_name("w")
        self.webrtc.connect("on-ice-candidate", self.on_candidate)
        self.webrtc.connect("pad-added", self.on_pad)
        self.webrtc.connect("notify::connection-state", self.on_state)
        self.kept = []

    def start(self, offer):
        if offer:
            self.webrtc.connect("on-negotiation-needed", self.on_negotiation_needed)
        self.pipeline.set_state(Gst.State.PLAYING)

    def stop(self):
        self.pipeline.set_state(Gst.State.NULL)

    def on_state(self, *_):
        say(event="state", peer=self.peer, state=self.webrtc.get_property("connection-state").value_nick)

    # negotiation

    def on_negotiation_needed(self, *_):
        self.webrtc.emit("create-offer", None, Gst.Promise.new_with_change_func(self.on_created, "offer"))

    def on_created(self, promise, kind):
        promise.wait()
        reply = promise.get_reply()
        self.kept.append(reply)  # the description lives in it
        description = reply.get_value(kind)
        text = description.sdp.as_text()
        done = Gst.Promise.new()
        self.webrtc.emit("set-local-description", description, done)
        done.interrupt()
        self.send(self.peer, json.dumps({"sdp": {"type": kind, "sdp": text}}))

    def on_candidate(self, _, index, candidate):
        self.send(self.peer, json.dumps({"ice": {"candidate": candidate, "sdpMLineIndex": index}}))

    def on_payload(self, text):
        message = json.loads(text)
        if "ice" in message:
            self.webrtc.emit("add-ice-candidate", message["ice"]["sdpMLineIndex"], message["ice"]["candidate"])
            return
        kind, sdp = message["sdp"]["type"], message["sdp"]["sdp"]
        if self.options.verbose:
            sys.stderr.write(f"{self.peer} {kind}:\n{sdp}\n")
        say(event="sdp", peer=self.peer, kind=kind, sections=sdp.count("m="))
        _, parsed = GstSdp.SDPMessage.new_from_text(sdp)
        sdp_type = GstWebRTC.WebRTCSDPType.OFFER if kind == "offer" else GstWebRTC.WebRTCSDPType.ANSWER
        description = GstWebRTC.WebRTCSessionDescription.new(sdp_type, parsed)
        promise = Gst.Promise.new_with_change_func(self.on_remote_set, kind)
        self.webrtc.emit("set-remote-description", description, promise)

    def on_remote_set(self, promise, kind):
        reply = promise.get_reply()
        if reply is not None and reply.has_field("error"):
            say(event="error", peer=self.peer, text=str(reply.get_value("error")))
        if kind == "offer":
            self.webrtc.emit("create-answer", None, Gst.Promise.new_with_change_func(self.on_created, "answer"))

    # media

    def on_pad(self, _, pad):
        if pad.direction != Gst.PadDirection.SRC:
            return
        decode = Gst.ElementFactory.make("decodebin")
        decode.connect("pad-added", self.on_decoded)
        self.pipeline.add(decode)
        decode.sync_state_with_parent()
        pad.link(decode.get_static_pad("sink"))

    def on_decoded(self, _, pad):
        self.pads += 1
        number = self.pads
        audio = pad.get_current_caps().to_string().startswith("audio")
        if audio:
            text = "audioconvert ! audioresample ! audio/x-raw,format=S16LE,rate=48000,channels=1"
        else:
            text = "videoconvert ! video/x-raw,format=RGB"
        sink = Gst.parse_bin_from_description(f"queue ! {text} ! appsink name=s emit-signals=true sync=false", True)
        meter = Tone(self.peer, number) if audio else Picture(self.peer, number)
        sink.get_by_name("s").connect("new-sample", meter.on_sample)
        self.pipeline.add(sink)
        sink.sync_state_with_parent()
        pad.link(sink.get_static_pad("sink"))


class Tone:
    """Zero crossings of half-second windows: right for a pure tone."""

    def __init__(self, peer, pad):
        self.peer, self.pad = peer, pad
        self.samples = array.array("h")

    def on_sample(self, sink):
        buffer = sink.emit("pull-sample").get_buffer()
        self.samples.frombytes(buffer.extract_dup(0, buffer.get_size()))
        while len(self.samples) >= 24000:
            window, self.samples = self.samples[:24000], self.samples[24000:]
            crossings = sum(1 for a, b in itertools.pairwise(window) if a < 0 <= b)
            loudness = math.sqrt(sum(s * s for s in window[::16]) / (len(window) / 16))
            say(event="tone", peer=self.peer, pad=self.pad, hz=crossings * 2.0, loudness=loudness)
        return Gst.FlowReturn.OK


class Picture:
    """The colours of the middles of both halves, of every fifth frame."""

    def __init__(self, peer, pad):
        self.peer, self.pad = peer, pad
        self.count = 0

    def on_sample(self, sink):
        sample = sink.emit("pull-sample")
        self.count += 1
        if self.count % 5 == 0:
            shape = sample.get_caps().get_structure(0)
            width, height = shape.get_value("width"), shape.get_value("height")
            buffer = sample.get_buffer()
            data = buffer.extract_dup(0, buffer.get_size())
            row = (height // 2) * ((width * 3 + 3) // 4 * 4)
            left, right = row + width // 4 * 3, row + 3 * width // 4 * 3
            say(
                event="picture", peer=self.peer, pad=self.pad,
                left=list(data[left : left + 3]), right=list(data[right : right + 3]),
            )  # fmt: skip
        return Gst.FlowReturn.OK


class Peer:
    def __init__(self, options):
        self.options = options
        self.calls = {}
        self.loop = asyncio.get_running_loop()
        self.socket = None

    async def run(self):
        context = None
        if self.options.server.startswith("wss:"):
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        async with websockets.connect(self.options.server, ssl=context) as self.socket:
            await self.socket.send(f"HELLO {self.options.id}")
            reader = asyncio.create_task(self.commands())
            try:
                async for message in self.socket:
                    await self.on_message(message)
            except websockets.ConnectionClosed:
                pass
            finally:
                say(event="closed", code=self.socket.close_code)
                reader.cancel()
                for call in self.calls.values():
                    call.stop()

    async def commands(self):
        stream = asyncio.StreamReader()
        await self.loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), sys.stdin)
        while line := await stream.readline():
            await self.socket.send(line.decode().rstrip("\n"))
        await self.socket.close()

    def send(self, peer, text):
        if self.options.room:
            text = f"ROOM_PEER_MSG {peer} {text}"
        asyncio.run_coroutine_threadsafe(self.socket.send(text), self.loop)

    def call(self, peer, offer, payload="{}"):
        sdp = json.loads(payload).get("sdp", {}).get("sdp", "")
        self.calls[peer] = Call(peer, self.options, self.send, sdp)
        self.calls[peer].start(offer)

    async def on_message(self, message):
        word, _, rest = message.partition(" ")
        if word == "ROOM_PEER_MSG":
            peer, _, payload = rest.partition(" ")
            if peer not in self.calls:
                self.call(peer, False, payload)
            self.calls[peer].on_payload(payload)
            return
        if message.startswith("{"):
            if not self.calls:
                self.call("session", False, message)
            self.calls["session"].on_payload(message)
            return
        say(event="said", text=message)
        if word == "HELLO" and self.options.room:
            await self.socket.send(f"ROOM {self.options.room}")
        elif word == "HELLO" and self.options.call:
            await self.socket.send(f"SESSION {self.options.call}")
        elif word == "SESSION_OK" and self.options.remote_offerer:
            await self.socket.send("OFFER_REQUEST")
        elif word == "SESSION_OK" or word == "OFFER_REQUEST":
            self.call("session", offer=True)
        elif word == "ROOM_OK":
            for peer in rest.split():
                self.call(peer, offer=True)
        elif word == "ROOM_PEER_LEFT" and rest in self.calls:
            self.calls.pop(rest).stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--id", required=True)
    parser.add_argument("--call")
    parser.add_argument("--room")
    parser.add_argument("--remote-offerer", action="store_true")
    parser.add_argument("--tone", default="440")
    parser.add_argument("--colour", default="dc1e1e")
    parser.add_argument("--audio-only", action="store_true")
    parser.add_argument("--silent", action="store_true", help="send nothing")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    Gst.init(None)

    async def run():
        await Peer(options).run()

    asyncio.run(run())


if __name__ == "__main__":
    main()
