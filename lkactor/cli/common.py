"""What the client commands share: which server, how they fail, how they print.

| status | meaning                                                          |
|--------|------------------------------------------------------------------|
| 0      | done                                                             |
| 1      | refused or failed                                                |
| 2      | wrong use: flags, missing keys, an address that is none          |
| 3      | the server cannot be reached                                     |
| 4      | not permitted: wrong keys, or a token without the grant          |
| 5      | not found: room, participant, track                              |
| 130    | interrupted                                                      |
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

FAILED, USAGE, UNREACHABLE, NOT_PERMITTED, NOT_FOUND, INTERRUPTED = 1, 2, 3, 4, 5, 130
DEFAULT_URL = "ws://localhost:7880"
DEV_KEY, DEV_SECRET = "devkey", "secret"
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
TOKEN = re.compile(r"eyJ[\w-]*(\.[\w-]*)*")
SECRET_FIELDS = ("turn_password",)
T = TypeVar("T")


class CliError(Exception):
    """What, why and what to do; never a secret."""

    def __init__(self, text: str, status: int = FAILED) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Server:
    """Where, and with which key. Secrets stay out of `repr`."""

    url: str
    key: str
    secret: str

    def __repr__(self) -> str:
        return f"Server({self.url!r}, {self.key!r})"


def server_options(parser: argparse.ArgumentParser) -> None:
    """--url, --api-key, --api-secret, --dev and --json."""
    group = parser.add_argument_group("server")
    group.add_argument("--url", help=f"ws:// or http:// address (env LIVEKIT_URL; {DEFAULT_URL})")
    group.add_argument("--api-key", metavar="KEY", help="env LIVEKIT_API_KEY")
    group.add_argument("--api-secret", metavar="SECRET", help="env LIVEKIT_API_SECRET")
    group.add_argument("--dev", action="store_true", help="the keys of a --dev server at localhost:7880")
    group.add_argument("--json", action="store_true", help="print JSON")


def url_of(arguments: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> str:
    return str(arguments.url or ("" if arguments.dev else environ.get("LIVEKIT_URL")) or DEFAULT_URL)


def server_of(arguments: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> Server:
    """Flags win over the environment; --dev stands for both. Raises CliError."""
    key, secret = arguments.api_key, arguments.api_secret
    if arguments.dev:
        key, secret = key or DEV_KEY, secret or DEV_SECRET
    key = key or environ.get("LIVEKIT_API_KEY")
    secret = secret or environ.get("LIVEKIT_API_SECRET")
    if not key or not secret:
        raise CliError(
            "no API key: set LIVEKIT_API_KEY and LIVEKIT_API_SECRET, give --api-key and --api-secret, "
            "or --dev for a development server",
            USAGE,
        )
    return Server(url_of(arguments, environ), key, secret)


def call_api(server: Server, calls: Callable[[Any], Awaitable[T]]) -> T:
    """Run `calls(TwirpClient)` on Trio. Raises CliError for everything that a server or a network may do."""
    import trio

    from actors.httpclient import HttpError
    from lkactor.api.twirp import TwirpError
    from lkactor.client.twirp import TwirpClient

    async def run() -> T:
        client = TwirpClient(server.url, server.key, server.secret)
        try:
            return await calls(client)
        finally:
            await client.aclose()

    try:
        return trio.run(run)
    except ValueError as error:
        raise CliError(f"{server.url} is {error}", USAGE) from None
    except TwirpError as error:
        raise CliError(*explain_refusal(error.code, error.message, server)) from None
    except HttpError as error:
        raise CliError(f"cannot reach {server.url}: {error}; is the server running?", UNREACHABLE) from None


def explain_refusal(code: str, message: str, server: Server) -> tuple[str, int]:
    """Text and exit status of a Twirp error. Servers repeat a bad token to its sender: we do not."""
    # The Go server wraps its own words once more.
    message = TOKEN.sub("<token>", message).removeprefix("twirp error unknown: ")
    if code == "not_found":
        return f"{message or 'not found'} ({server.url})", NOT_FOUND
    if code in ("unauthenticated", "permission_denied"):
        return f"{server.url} does not accept API key {server.key!r} for this: {message}", NOT_PERMITTED
    return f"{server.url}: {code}: {message}", FAILED


# -- printing


def shown(value: object) -> str:
    """One cell: control characters escaped, so that a name cannot move the cursor."""
    text = str(value)
    return text if text.isprintable() else json.dumps(text)[1:-1]


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as they need be."""
    cells = [[shown(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(header), *cells]) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *cells]]
    return "\n".join(line.rstrip() for line in lines)


def as_dict(message: Message) -> dict[str, Any]:
    """As LiveKit's own JSON: the proto's names, unset fields written out; without what is secret."""
    fields = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return {name: value for name, value in fields.items() if name not in SECRET_FIELDS}


def print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False), flush=True)


def progress(text: str, *, end: bool = False) -> None:
    """One line that is overwritten, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="\n" if end else "", file=sys.stderr, flush=True)


def note(text: str) -> None:
    print(f"lkactor: {text}", file=sys.stderr, flush=True)


# -- reading arguments


def duration(text: str) -> float:
    """ "90", "10m", "1h30m" as seconds."""
    total, number = 0.0, ""
    for character in text + " ":
        if character.isascii() and (character.isdigit() or character == "."):
            number += character
            continue
        unit = character.strip()
        if not number and not unit and total:
            break
        if not number or number.count(".") > 1 or number == "." or unit not in UNITS or len(number) > 12:
            raise argparse.ArgumentTypeError(f"{text!r} is no duration: 90, 30s, 10m, 1h30m, 2d")
        total, number = total + float(number) * UNITS[unit], ""
    return total


def pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=VALUE")
    return name, value


def whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], help: str, *, example: str, **more: Any
) -> argparse.ArgumentParser:
    """A subcommand whose --help ends with an example."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **more,
    )
    parser.set_defaults(run=run)
    return parser
