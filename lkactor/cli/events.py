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
import sys
import warnings
from collections.abc import Mapping

DEFAULT_URL = "http://127.0.0.1:7880"
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
    tail.add_argument("--json", action="store_true", help='one line each: {"cursor": ..., "event": {...}}')
    tail.add_argument("--url", help=f"the server (env LIVEKIT_URL; {DEFAULT_URL})")
    tail.add_argument("--api-key", metavar="KEY", help="env LIVEKIT_API_KEY")
    tail.add_argument("--api-secret", metavar="SECRET", help="env LIVEKIT_API_SECRET")


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Exit status: 0 done, 1 could not do it, 2 wrong use, 130 interrupted."""
    import trio
    from jwt.warnings import InsecureKeyLengthWarning

    from actors.httpclient import HttpError
    from lkactor.cli.events_tail import Refused, Tail

    url = arguments.url or environ.get("LIVEKIT_URL") or DEFAULT_URL
    if url.startswith("ws"):
        url = "http" + url[2:]
    key = arguments.api_key or environ.get("LIVEKIT_API_KEY") or ""
    secret = arguments.api_secret or environ.get("LIVEKIT_API_SECRET") or ""
    if not key or not secret:
        return _fail("set LIVEKIT_API_KEY and LIVEKIT_API_SECRET, or --api-key and --api-secret", 2)
    try:
        tail = Tail(
            url.rstrip("/"),
            key,
            secret,
            follow=arguments.follow,
            as_json=arguments.json,
            room=arguments.room or "",
            cursor=arguments.cursor,
            last=DEFAULT_LAST if arguments.last is None else arguments.last,
        )
    except ValueError as error:
        return _fail(f"{url} is {error}", 2)
    # The secret is the operator's choice; the development one is short and known to everyone.
    warnings.filterwarnings("ignore", category=InsecureKeyLengthWarning)
    try:
        trio.run(tail.run)
    except (Refused, HttpError) as error:
        return _fail(f"{url}: {error}", 1)
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        return 130
    return 0


def _cursor(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise argparse.ArgumentTypeError(f"{text!r} is no cursor: a whole number")
    return int(text)


def _fail(text: str, status: int) -> int:
    print(f"lkactor: {text}", file=sys.stderr)
    return status
