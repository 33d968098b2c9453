"""`lkactor token create|explain` and `lkactor create-join-token`. The only commands that print a token."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

from lkactor.cli.common import (
    FAILED,
    USAGE,
    CliError,
    add_command,
    duration,
    pair,
    print_json,
    server_of,
    server_options,
    url_of,
)

DEFAULT_LIFE = 6 * 3600.0
JOIN_TOKEN_LIFE = 30 * 86400.0
SOURCES = ("camera", "microphone", "screen_share", "screen_share_audio")


def add_parser(commands: Any) -> None:
    verbs = commands.add_parser("token", help="access tokens: create, explain").add_subparsers(
        dest="verb", metavar="VERB", required=True
    )
    _add_create(verbs, "create")
    explain = add_command(
        verbs,
        "explain",
        _explain,
        "what a token allows and what it lacks; needs no secret, verifies when there is one",
        example="lkactor token explain eyJhbGciOi...   (or - to read it from standard input)",
    )
    explain.add_argument("token", metavar="TOKEN")
    server_options(explain)
    join = add_command(
        commands,
        "create-join-token",
        _create_join,
        "a token to join a room, valid for 30 days",
        example="lkactor create-join-token --room demo --identity alice --dev",
    )
    join.add_argument("--room", required=True)
    join.add_argument("--identity", required=True)
    join.add_argument("--recorder", action="store_true", help="hidden, subscribes only")
    server_options(join)
    _add_create(commands, "create-token")


def _add_create(commands: Any, name: str) -> None:
    create = add_command(
        commands,
        name,
        _create,
        "make an access token",
        example=f"lkactor {'token create' if name == 'create' else name} --join --room demo --identity alice --dev",
    )
    create.add_argument("--identity", default="", help="who: needed to join")
    create.add_argument("--name", default="", help="shown to the others")
    create.add_argument("--room", default="", help="the room the grants are for")
    create.add_argument("--join", action="store_true", help="may join --room (the default with --room alone)")
    create.add_argument("--create", action="store_true", help="may create and delete rooms")
    create.add_argument("--list", action="store_true", help="may list rooms")
    create.add_argument("--admin", action="store_true", help="may act on participants of --room")
    create.add_argument("--record", "--egress", action="store_true", help="may start egress")
    create.add_argument("--ingress", action="store_true", help="may manage ingress")
    create.add_argument("--agent", action="store_true", help="is an agent")
    create.add_argument("--hidden", action="store_true", help="not shown to the others")
    create.add_argument("--no-publish", action="store_true", help="may not publish media or data")
    create.add_argument("--no-subscribe", action="store_true", help="may not subscribe")
    create.add_argument("--allow-update-metadata", action="store_true")
    create.add_argument("--allow-source", action="append", default=[], choices=SOURCES, help="only these; repeatable")
    create.add_argument("--metadata", default="", metavar="TEXT")
    create.add_argument("--attribute", action="append", default=[], type=pair, metavar="K=V")
    create.add_argument(
        "--grant", default="", metavar="JSON", help='more of the video grant: {"canPublishData": false}'
    )
    create.add_argument("--valid-for", type=duration, default=DEFAULT_LIFE, metavar="TIME", help="10m, 6h, 30d (6h)")
    create.add_argument("--token-only", action="store_true", help="print nothing but the token")
    server_options(create)


def _create(arguments: argparse.Namespace) -> int:
    video = _grants(arguments)
    if video.get("room_join") and not (arguments.room and arguments.identity):
        raise CliError("a token to join needs --room and --identity", USAGE)
    if not video:
        raise CliError("a token without any grant is of no use: --join, --create, --list, --admin, ...", USAGE)
    token = _issue(
        arguments,
        video,
        arguments.valid_for,
        name=arguments.name,
        metadata=arguments.metadata,
        attributes=dict(arguments.attribute),
    )
    if arguments.json:
        print_json({"identity": arguments.identity, "grants": video, "url": url_of(arguments), "token": token})
    elif arguments.token_only:
        print(token)
    else:
        print(f"Token grants: {json.dumps(video)}\n\nProject URL:  {url_of(arguments)}\nAccess token: {token}")
    return 0


def _grants(arguments: argparse.Namespace) -> dict[str, object]:
    flags = {
        "room_create": arguments.create,
        "room_list": arguments.list,
        "room_admin": arguments.admin,
        "room_record": arguments.record,
        "ingress_admin": arguments.ingress,
        "agent": arguments.agent,
        "hidden": arguments.hidden,
        "can_update_own_metadata": arguments.allow_update_metadata,
        "can_publish_sources": arguments.allow_source,
    }
    video: dict[str, object] = {name: value for name, value in flags.items() if value}
    if arguments.join or (arguments.room and not video.keys() & {"room_create", "room_admin", "room_record"}):
        video["room_join"] = True
    if arguments.room:
        video["room"] = arguments.room
    if arguments.no_publish:
        video["can_publish"] = video["can_publish_data"] = False
    if arguments.no_subscribe:
        video["can_subscribe"] = False
    if arguments.grant:
        try:
            more = json.loads(arguments.grant)
        except ValueError as error:
            raise CliError(f"--grant is no JSON: {error}", USAGE) from None
        if not isinstance(more, dict):
            raise CliError('--grant takes an object: {"canPublishData": false}', USAGE)
        video.update(more)
    return video


def _create_join(arguments: argparse.Namespace) -> int:
    video: dict[str, object] = {"room_join": True, "room": arguments.room}
    if arguments.recorder:
        video |= {"recorder": True, "hidden": True, "can_publish": False, "can_publish_data": False}
    token = _issue(arguments, video, JOIN_TOKEN_LIFE)
    if arguments.json:
        print_json({"identity": arguments.identity, "grants": video, "token": token})
    else:
        print(f"Token:  {token}")
    return 0


def _issue(arguments: argparse.Namespace, video: dict[str, object], life: float, **more: Any) -> str:
    from lkactor.auth import issue_token

    server = server_of(arguments)
    try:
        return issue_token(
            server.key,
            server.secret,
            identity=arguments.identity,
            video=video,
            ttl=life,
            now_unix=time.time(),
            **more,
        )
    except ValueError as error:
        raise CliError(str(error), USAGE) from None


def _explain(arguments: argparse.Namespace) -> int:
    from lkactor.cli.token_report import explain

    token = sys.stdin.readline().strip() if arguments.token == "-" else arguments.token.strip()
    secret = arguments.api_secret or ("secret" if arguments.dev else os.environ.get("LIVEKIT_API_SECRET", ""))
    report = explain(token, secret, time.time())
    if arguments.json:
        print_json(report.as_json())
    else:
        print(report)
    return 0 if report.usable else FAILED
