"""What `join`, `publish`, `subscribe` and `load` share: who joins which room, and how a run ends."""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from lkactor.cli.common import (
    FAILED,
    INTERRUPTED,
    NOT_FOUND,
    NOT_PERMITTED,
    TOKEN,
    UNREACHABLE,
    USAGE,
    CliError,
    pair,
    server_of,
    server_options,
    url_of,
)

if TYPE_CHECKING:
    import trio

TOKEN_LIFE = 6 * 3600.0
WAYS = ("auto", "udp", "tcp", "relay", "relay-udp", "relay-tls")
"""Those of `lkactor.client.paths`, which is imported only by who joins."""


def participant_options(parser: argparse.ArgumentParser, *, identity: str) -> None:
    """`identity` is the beginning of the default one."""
    parser.add_argument("room_name", nargs="?", metavar="ROOM")
    parser.add_argument("--room", help="the same as ROOM")
    parser.add_argument("--identity", help=f"who joins ({identity}-<random>)")
    parser.add_argument("--name", default="", help="shown to the others")
    parser.add_argument("--metadata", default="", metavar="TEXT")
    parser.add_argument("--attribute", action="append", default=[], type=pair, metavar="K=V")
    parser.add_argument("--token", help="join with this token instead of one made from the API key (env LIVEKIT_TOKEN)")
    parser.add_argument(
        "--transport",
        choices=WAYS,
        default="auto",
        help="the media's way: auto (UDP, and TCP and TURN when it does not answer), udp, tcp, or a TURN relay",
    )
    parser.set_defaults(identity_prefix=identity)
    server_options(parser)


def room_of(arguments: argparse.Namespace) -> str:
    room = arguments.room_name or arguments.room
    if not room:
        raise CliError(f"which room? lkactor {arguments.command} ROOM", USAGE)
    return str(room)


def access_of(arguments: argparse.Namespace, *, identity: str = "", **grants: object) -> tuple[str, str]:
    """(server's URL, token). A token that is given decides room and identity by itself. Raises CliError."""
    from lkactor.auth import issue_token

    given = arguments.token or ("" if arguments.dev else os.environ.get("LIVEKIT_TOKEN", ""))
    if given:
        return url_of(arguments), str(given)
    room, server = room_of(arguments), server_of(arguments)
    who = identity or arguments.identity or f"{arguments.identity_prefix}-{secrets.token_hex(3)}"
    token = issue_token(
        server.key,
        server.secret,
        identity=who,
        name=arguments.name,
        metadata=arguments.metadata,
        attributes=dict(arguments.attribute),
        video={"room": room, "room_join": True, **grants},
        ttl=TOKEN_LIFE,
        now_unix=time.time(),
    )
    return server.url, token


def run_client(main: Callable[[Stop], Awaitable[int]], url: str) -> int:
    """`main` on Trio; INT and TERM set its `Stop`. Returns its status, 130 after INT. Raises CliError."""
    import trio

    from lkactor.client.signal import SignalError, leaf

    async def run() -> int:
        stop = Stop(trio.Event())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop.listen)
            status = await main(stop)
            nursery.cancel_scope.cancel()
        return INTERRUPTED if stop.interrupted and not status else status

    try:
        return trio.run(run)
    except BaseException as error:
        cause = leaf(error)
        if isinstance(cause, SignalError):
            raise CliError(*explain_signal(str(cause), cause.status, url)) from None
        if isinstance(cause, ValueError) and "address" in str(cause):
            raise CliError(f"{url} is {cause}", USAGE) from None
        if cause is error:
            raise
        raise cause from None


class Stop:
    """Set by INT or TERM: finish what was begun, then end."""

    def __init__(self, event: trio.Event) -> None:
        self.event = event
        self.interrupted = False

    async def listen(self) -> None:
        import trio

        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                if self.event.is_set():
                    raise KeyboardInterrupt
                self.interrupted = number == signal.SIGINT
                self.event.set()

    async def wait(self, *others: Any, within: float | None) -> None:
        """For a signal, for any of the events, or for so many seconds."""
        import trio

        async def one(event: Any) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        with trio.move_on_after(float("inf") if within is None else within):
            async with trio.open_nursery() as nursery:
                for event in (self.event, *others):
                    nursery.start_soon(one, event)


def explain_signal(text: str, status: int, url: str) -> tuple[str, int]:
    """Text and exit status of a join that failed."""
    text = TOKEN.sub("<token>", text)
    if status in (401, 403):
        hint = "; lkactor token explain says what a token allows" if status == 401 else ""
        return f"{url} does not let us in: {text}{hint}", NOT_PERMITTED
    if status == 404:
        return f"{url}: {text}", NOT_FOUND
    if status:
        return f"{url} answered {status}: {text}", FAILED
    return f"{url}: {text}; is the server running?", UNREACHABLE
