"""The command line: `serve` and `generate-keys`. The rest of LiveKit's commands is in docs/status.md."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Sequence

from lkactor import __version__
from lkactor.cli.events import add_parser as add_events_parser
from lkactor.cli.gst_signalling import add_parser as add_gst_parser
from lkactor.config import ConfigError

KEY_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 could not do it, 2 wrong use."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command == "generate-keys":
        return generate_keys()
    if arguments.command == "serve":
        from lkactor.cli.serve import serve

        try:
            return serve(arguments, os.environ)
        except (ConfigError, OSError) as error:
            print(f"lkactor: {error}", file=sys.stderr)
            return 1
    if arguments.command == "events":
        from lkactor.cli import events

        return events.run(arguments, os.environ)
    if arguments.command == "gst-signalling":
        from lkactor.cli import gst_signalling

        return gst_signalling.run(arguments)
    parser.print_help()
    return 2


def generate_keys() -> int:
    """A key and a secret as LiveKit makes them: "API" + 12 characters, 43 characters."""
    print(f"API Key:  API{''.join(secrets.choice(KEY_ALPHABET) for _ in range(12))}")
    print(f"API Secret:  {secrets.token_urlsafe(32)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lkactor", description="A LiveKit-compatible WebRTC server (SFU).")
    parser.add_argument("--version", action="version", version=f"lkactor {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    serve = commands.add_parser("serve", help="run the server")
    serve.add_argument("--dev", action="store_true", help="development mode: key devkey, secret 'secret', loopback")
    serve.add_argument("--config", metavar="FILE", help="LiveKit YAML")
    serve.add_argument("--config-body", metavar="YAML", help="the YAML itself (env LIVEKIT_CONFIG)")
    serve.add_argument("--keys", metavar="'KEY: SECRET'", help="API keys (env LIVEKIT_KEYS)")
    serve.add_argument("--key-file", metavar="FILE", help="a file of API keys")
    serve.add_argument("--bind", action="append", metavar="IP", help="listen on this address; repeatable")
    serve.add_argument("--port", type=int, help="HTTP and WebSocket port (7880)")
    serve.add_argument("--udp-port", metavar="PORT", help="media over UDP (7882; env UDP_PORT)")
    serve.add_argument("--node-ip", metavar="IP", help="the address to announce (env NODE_IP)")
    commands.add_parser("generate-keys", help="print a new API key and secret")
    add_events_parser(commands)
    add_gst_parser(commands)
    return parser
