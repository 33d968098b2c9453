"""What an operator asks a running server: why did a join fail; please make room; go on.

    lkactor explain join alice --room demo     the latest attempts of alice, step by step
    lkactor drain --deadline 600               no new rooms; after 600 s everyone is told to leave
    lkactor undrain

LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET say which server; the key signs the token.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from lkactor.auth import issue_token

DEFAULT_URL = "http://127.0.0.1:7880"
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
        parser.add_argument("--json", action="store_true", help="the server's own answer")
        parser.add_argument("--url", help=f"the server (env LIVEKIT_URL; {DEFAULT_URL})")
        parser.add_argument("--api-key", metavar="KEY", help="env LIVEKIT_API_KEY")
        parser.add_argument("--api-secret", metavar="SECRET", help="env LIVEKIT_API_SECRET")
        parser.set_defaults(run=lambda arguments: run(arguments, os.environ))


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Exit status: 0 done, 1 refused or not reached, 2 wrong use; `explain` also 1 when nothing is known."""
    key = arguments.api_key or environ.get("LIVEKIT_API_KEY") or ""
    secret = arguments.api_secret or environ.get("LIVEKIT_API_SECRET") or ""
    if not key or not secret:
        return _fail("set LIVEKIT_API_KEY and LIVEKIT_API_SECRET, or --api-key and --api-secret", 2)
    url = (arguments.url or environ.get("LIVEKIT_URL") or DEFAULT_URL).rstrip("/")
    if url.startswith("ws"):
        url = "http" + url[2:]
    token = issue_token(key, secret, identity="", video={"room_list": True, "room_create": True}, now_unix=time.time())
    try:
        answer = _call(url + _path(arguments), "GET" if arguments.command == "explain" else "POST", token)
    except urllib.error.HTTPError as error:
        return _fail(f"{url}: {error.code} {error.read(300).decode(errors='replace')}", 1)
    except (OSError, ValueError) as error:
        return _fail(f"{url}: {error}: is the server running, and is this its address?", 1)
    if arguments.json:
        print(json.dumps(answer))
        return 0
    return _show(arguments, answer)


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
        cause = f" ({verdict['cause']})" if verdict["cause"] else ""
        print(f"{verdict['identity'] or '?'} in {verdict['room'] or '?'}: {verdict['outcome']}{cause}")
        if verdict.get("fix"):
            print(f"  to do: {verdict['fix']}")
        for step in verdict["steps"]:
            when = "" if step["ms"] is None else f"{step['ms']:.1f} ms"
            print(f"  {step['name']:7} {step['status']:8} {when:>11}  {step['detail']}".rstrip())
    if not answer["joins"]:
        return _fail("no such attempt is remembered", 1)
    return 0


def _fail(text: str, status: int) -> int:
    print(f"lkactor: {text}", file=sys.stderr)
    return status
