"""Janus (Debian's package) to compare with: its streaming plugin takes plain RTP and sends it to N viewers.

That is less than an SFU does for a track, nothing is unprotected and nobody publishes: it is the nearest thing that
runs without a room. Viewers are ours: ICE, DTLS and SRTP as with every other server, signalling by Janus' HTTP API.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio
from load.peers import CODECS
from load.pool import Pool, Transport
from load.servers import CORES, Server

from lkactor.peer.negotiation import AnswerNegotiation, AnswerReady
from lkactor.sdp import Answerer

PORT, RTP_PORT = 17950, 17952
PAYLOAD_TYPE = 96
FOLDERS = "/usr/lib/x86_64-linux-gnu/janus"
GENERAL = """
general: {{
    configs_folder = "{configs}"
    plugins_folder = "{folders}/plugins"
    transports_folder = "{folders}/transports"
    events_folder = "{folders}/events"
    loggers_folder = "{folders}/loggers"
    debug_level = 2
    session_timeout = 0
    interface = "127.0.0.1"
}}
media: {{ rtp_port_range = "18100-19100" }}
nat: {{ ice_enforce_list = "{ip}" }}
plugins: {{ disable = "{others}" }}
transports: {{ disable = "libjanus_websockets.so,libjanus_pfunix.so,libjanus_mqtt.so,libjanus_rabbitmq.so,libjanus_nanomsg.so" }}
"""  # noqa: E501 (one value, one line)
HTTP = """
general: {{
    json = "plain"
    base_path = "/janus"
    http = true
    port = {port}
    ip = "127.0.0.1"
}}
admin: {{}}
"""
STREAMING = """
bench: {{
    type = "rtp"
    id = 1
    media = ({{ type = "video", mid = "v", port = {port}, pt = {pt}, codec = "vp8" }})
}}
"""


class Janus(Server):
    def __init__(self, pid: int) -> None:
        super().__init__("janus", f"ws://127.0.0.1:{PORT}", "", "", pid)

    def loop(self) -> None:
        return None


@contextlib.contextmanager
def janus() -> Iterator[Janus]:
    """Pinned as every server. Raises FileNotFoundError when it is not installed."""
    program = shutil.which("janus")
    if program is None:
        raise FileNotFoundError("janus: apt-get install janus")
    with tempfile.TemporaryDirectory() as folder:
        configs = Path(folder)
        plugins = sorted(path.name for path in Path(FOLDERS, "plugins").glob("*.so"))
        others = ",".join(name for name in plugins if name != "libjanus_streaming.so")
        text = GENERAL.format(configs=configs, folders=FOLDERS, others=others, ip=own_address())
        (configs / "janus.jcfg").write_text(text)
        (configs / "janus.transport.http.jcfg").write_text(HTTP.format(port=PORT))
        (configs / "janus.plugin.streaming.jcfg").write_text(STREAMING.format(port=RTP_PORT, pt=PAYLOAD_TYPE))
        command = ["taskset", "-c", str(CORES[0]), program, "-F", folder, "-C", str(configs / "janus.jcfg")]
        with (configs / "log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                trio.run(_answers)
                yield Janus(process.pid)
            finally:
                process.kill()
                process.wait()


def own_address() -> str:
    """Of this machine; libnice gathers no loopback candidates. Packets to it go through the loopback interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))  # Sends nothing.
        found: str = sock.getsockname()[0]
    return found


async def _answers() -> None:
    with trio.fail_after(10):
        while True:
            try:
                await _ask("GET", "/janus/info")
                return
            except OSError:
                await trio.sleep(0.05)


class Viewer:
    """One who watches. What `count` wants of a sink."""

    def __init__(self, pool: Pool, identity: str, *, full: bool) -> None:
        self.identity = identity
        self.subscriber = Transport(pool, controlling=False, full=full, ip=own_address())
        self._answers = AnswerNegotiation(Answerer(codecs=CODECS), self.subscriber.peer)

    async def watch(self) -> None:
        """Until the first packet has come."""
        session = (await _ask("POST", "/janus", janus="create"))["data"]["id"]
        path = f"/janus/{session}"
        handle = (await _ask("POST", path, janus="attach", plugin="janus.plugin.streaming"))["data"]["id"]
        await _ask("POST", f"{path}/{handle}", janus="message", body={"request": "watch", "id": 1})
        offer = None
        while offer is None:
            offer = (await _ask("GET", f"{path}?maxev=1")).get("jsep")
        self._answers.receive_offer(offer["sdp"], 1, {}, trio.current_time())
        event = self._answers.next_event()
        assert isinstance(event, AnswerReady), event
        answer = {"type": "answer", "sdp": event.sdp}
        await _ask("POST", f"{path}/{handle}", janus="message", body={"request": "start"}, jsep=answer)
        self.subscriber.flush()
        await self.subscriber.first_media.wait()


async def _ask(method: str, path: str, **request: Any) -> dict[str, Any]:
    """Raises OSError when nobody listens, RuntimeError for what Janus calls an error."""
    body = json.dumps(request | {"transaction": str(time.monotonic_ns())}).encode() if request else b""
    stream = await trio.open_tcp_stream("127.0.0.1", PORT)
    async with stream:
        head = f"{method} {path} HTTP/1.0\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n"
        await stream.send_all(head.encode() + body)
        answer = b"".join([bytes(part) async for part in stream])
    found: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    if found.get("janus") == "error":
        raise RuntimeError(found["error"]["reason"])
    return found
