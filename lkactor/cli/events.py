"""`lkactor events tail`: the event log of a running server, from any place in it.

    lkactor events tail                      the last 10 events
    lkactor events tail --follow             and what happens from then on
    lkactor events tail --cursor 0           all that is kept
    lkactor events tail --cursor 17 --json   what came after cursor 17, one JSON object a line

LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET say which server; the key signs a token that may see everything.
With --follow a connection that breaks is made again, from the last cursor; nothing is missed.
"""

from __future__ import annotations

import argparse

from lkactor.cli.common import (
    FAILED,
    NOT_PERMITTED,
    TOKEN,
    UNREACHABLE,
    USAGE,
    CliError,
    server_of,
    server_options,
)

DEFAULT_LAST = 10


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    events = commands.add_parser("events", help="what happened in the rooms")
    verbs = events.add_subparsers(dest="verb", metavar="VERB", required=True)
    tail = verbs.add_parser(
        "tail", help="print the event log", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    tail.add_argument("--follow", "-f", action="store_true", help="go on with what happens from now on")
    tail.add_argument("--cursor", type=_cursor, metavar="N", help="events behind this cursor; 0: all that are kept")
    tail.add_argument("--last", type=_cursor, metavar="N", help=f"the newest N events ({DEFAULT_LAST})")
    tail.add_argument("--room", metavar="NAME", help="of this room only")
    server_options(tail)


def run(arguments: argparse.Namespace) -> int:
    """Raises CliError, with the statuses of every command."""
    import trio

    from actors.httpclient import HttpError
    from lkactor.cli.events_tail import Refused, Tail
    from lkactor.client.twirp import http_url

    server = server_of(arguments)
    try:
        tail = Tail(
            http_url(server.url),
            server.key,
            server.secret,
            follow=arguments.follow,
            as_json=arguments.json,
            room=arguments.room or "",
            cursor=arguments.cursor,
            last=DEFAULT_LAST if arguments.last is None else arguments.last,
        )
    except ValueError as error:
        raise CliError(f"{server.url} is {error}", USAGE) from None
    try:
        trio.run(tail.run)
    except Refused as error:
        text = TOKEN.sub("<token>", str(error))
        if text.startswith("HTTP 404"):
            raise CliError(f"{server.url} has no event log: only lkactor has it", FAILED) from None
        status = NOT_PERMITTED if text.startswith(("HTTP 401", "HTTP 403")) else FAILED
        raise CliError(f"{server.url}: {text}", status) from None
    except HttpError as error:
        raise CliError(f"cannot reach {server.url}: {error}; is the server running?", UNREACHABLE) from None
    return 0


def _cursor(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise argparse.ArgumentTypeError(f"{text!r} is no cursor: a whole number")
    return int(text)
