"""`lkactor gst-signalling`: GStreamer's WebRTC signalling server by itself, without a bridge to LiveKit rooms.

Beside a LiveKit server it is started by `gst_signalling:` in the configuration of `lkactor serve`.
"""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.gst.server import GstServerSpec


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The subcommand's arguments, into argparse's subparsers."""
    parser = commands.add_parser("gst-signalling", help="run GStreamer's WebRTC signalling server (no LiveKit rooms)")
    parser.add_argument("--addr", action="append", metavar="IP", help="listen on this address; repeatable (all)")
    parser.add_argument("--port", type=int, default=8443, help="8443; 0 picks one")
    parser.add_argument("--cert", metavar="FILE", default="", help="TLS certificate, PEM; without one it is plain ws")
    parser.add_argument("--key", metavar="FILE", default="", help="its key, if that is not in the same file")
    parser.add_argument("--keepalive", type=float, default=30.0, metavar="SECONDS", help="silence before a ping (30)")
    parser.add_argument("--health", default="/health", metavar="PATH", help="answers 200 OK; empty: none (/health)")


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 stopped by a signal, 1 could not start, 2 wrong use."""
    import trio

    from actors.gst.server import GstServerSpec, listen, tls_context

    if arguments.key and not arguments.cert:
        print("lkactor: --key needs --cert", file=sys.stderr)
        return 2
    try:
        tls = tls_context(arguments.cert, arguments.key)
        listeners = listen(arguments.addr or (), arguments.port)
    except OSError as error:  # ssl.SSLError is one
        print(f"lkactor: {error}", file=sys.stderr)
        return 1
    spec = GstServerSpec(listeners=listeners, tls=tls, keepalive=arguments.keepalive, health=arguments.health)
    try:
        trio.run(_serve, spec)
    finally:
        spec.close()
    return 0


async def _serve(spec: GstServerSpec) -> None:
    import trio

    from actors.gst.server import GstServerActor
    from actors.kernel import ActorSystem, Restart

    def report(kind: str, path: str, detail: str) -> None:
        print(f"{kind} {path}: {detail}", file=sys.stderr)

    async with ActorSystem(on_event=report) as system:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            await system.spawn(lambda: GstServerActor(spec), "gst", restart=Restart.PERMANENT)
            host, port = spec.listeners[0].getsockname()[:2]
            scheme = "ws" if spec.tls is None else "wss"
            print(f"GStreamer signalling on {scheme}://{host}:{port}", flush=True)
            await anext(aiter(signals))
