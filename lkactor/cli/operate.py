"""What an operator asks a running server: why did a join fail; please make room; go on.

    lkactor explain join alice --room demo     the latest attempts of alice, step by step
    lkactor drain --deadline 600               no new rooms; after 600 s everyone is told to leave
    lkactor undrain

LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET say which server; the key signs the token.
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from lkactor.auth import issue_token
from lkactor.cli.common import (
    FAILED,
    NOT_FOUND,
    NOT_PERMITTED,
    TOKEN,
    UNREACHABLE,
    USAGE,
    CliError,
    Server,
    print_json,
    server_of,
    server_options,
    shown,
)
from lkactor.client.twirp import http_url

TIMEOUT = 15.0


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    explain = commands.add_parser("explain", help="why something happened")
    topics = explain.add_subparsers(dest="topic", metavar="TOPIC", required=True)
    join = topics.add_parser(
        "join", help="what became of a join", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    join.add_argument("identity", nargs="?", default="", help="of this identity only")
    join.add_argument("--room", default="", help="of this room only")
    join.add_argument("--last", type=int, default=5, metavar="N", help="the newest N attempts (5)")
    drain = commands.add_parser("drain", help="no new rooms, and after a deadline everyone leaves")
    drain.add_argument("--deadline", type=int, default=300, metavar="SECONDS")
    undrain = commands.add_parser("undrain", help="take new rooms again")
    for parser in (join, drain, undrain):
        server_options(parser)
        parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Raises CliError, with the statuses of every command."""
    server = server_of(arguments)
    url = http_url(server.url)
    grants = {"room_list": True, "room_create": True}
    token = issue_token(server.key, server.secret, identity="", video=grants, now_unix=time.time())
    try:
        answer = _call(url + _path(arguments), "GET" if arguments.command == "explain" else "POST", token)
    except urllib.error.HTTPError as error:
        raise _refusal(error, server, arguments.command) from None
    except OSError as error:
        raise CliError(f"cannot reach {url}: {error}; is the server running?", UNREACHABLE) from None
    except ValueError as error:
        raise CliError(f"{url}: {error}", USAGE) from None
    if arguments.json:
        print_json(answer)
        return NOT_FOUND if answer.get("joins") == [] else 0
    return _show(arguments, answer)


def _refusal(error: urllib.error.HTTPError, server: Server, command: str) -> CliError:
    text = TOKEN.sub("<token>", error.read(300).decode(errors="replace").strip())
    if error.code == 404:
        return CliError(f"{server.url} knows no {command}: only lkactor has it, other servers do not", FAILED)
    if error.code in (401, 403):
        return CliError(f"{server.url} does not accept API key {server.key!r} for this: {text}", NOT_PERMITTED)
    return CliError(f"{server.url} answered {error.code}: {text}", FAILED)


def _path(arguments: argparse.Namespace) -> str:
    match arguments.command:
        case "explain":
            query = {"room": arguments.room, "identity": arguments.identity, "limit": max(0, arguments.last)}
            return f"/debug/joins?{urllib.parse.urlencode(query)}"
        case "drain":
            return f"/admin/drain?deadline={arguments.deadline}"
        case _:
            return "/admin/undrain"


def _call(url: str, method: str, token: str) -> Any:
    request = urllib.request.Request(url, method=method, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        return json.loads(response.read())


def _show(arguments: argparse.Namespace, answer: Mapping[str, Any]) -> int:
    if arguments.command != "explain":
        print(f"draining: everyone leaves in {answer['deadline']} s" if answer["draining"] else "takes new rooms")
        return 0
    for verdict in answer["joins"]:
        cause = f" ({shown(verdict['cause'])})" if verdict["cause"] else ""
        print(f"{shown(verdict['identity'] or '?')} in {shown(verdict['room'] or '?')}: {verdict['outcome']}{cause}")
        if verdict.get("fix"):
            print(f"  to do: {verdict['fix']}")
        for step in verdict["steps"]:
            when = "" if step["ms"] is None else f"{step['ms']:.1f} ms"
            print(f"  {step['name']:7} {step['status']:8} {when:>11}  {shown(step['detail'])}".rstrip())
    if not answer["joins"]:
        raise CliError("no such attempt is remembered", NOT_FOUND)
    return 0
