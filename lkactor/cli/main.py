"""The command line. Each command is a module with `add_parser`; docs/cli.md lists them with their exit codes."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import warnings
from collections.abc import Sequence

from lkactor import __version__
from lkactor.cli import check, completion, join, load, participants, rooms, subscribe, tokens
from lkactor.cli.common import FAILED, INTERRUPTED, USAGE, CliError, add_command, print_json
from lkactor.cli.crash import hide_secrets_in_tracebacks
from lkactor.cli.doctor import add_parser as add_doctor_parser
from lkactor.cli.events import add_parser as add_events_parser
from lkactor.cli.gst_signalling import add_parser as add_gst_parser
from lkactor.cli.operate import add_parsers as add_operate_parsers
from lkactor.cli.server_flags import server_config_options
from lkactor.config import ConfigError

KEY_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: see `lkactor.cli.common`."""
    if argv is None:  # Else the process is not ours.
        hide_secrets_in_tracebacks()
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and (not hasattr(arguments, "files") or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        # argparse ends a list of words at the first flag: `publish ROOM --url URL FILE` leaves FILE over.
        arguments.files += rest
    if not hasattr(arguments, "run"):
        parser.print_help()
        return USAGE
    # A development secret is short on purpose, and the server's logs are the place to complain about others.
    warnings.filterwarnings("ignore", message="The HMAC key is")
    try:
        status = arguments.run(arguments)
        sys.stdout.flush()
        return int(status)
    except CliError as error:
        print(f"lkactor: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone: no traceback, also not from the flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lkactor", description="A LiveKit-compatible WebRTC server (SFU) and client.")
    parser.add_argument("--version", action="version", version=f"lkactor {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_serve(commands)
    generate = add_command(
        commands,
        "generate-keys",
        generate_keys,
        "print a new API key and secret",
        example="lkactor generate-keys --json",
    )
    generate.add_argument("--json", action="store_true", help='{"api_key": ..., "api_secret": ...}')
    for module in (rooms, participants, tokens, join, subscribe, load, check, completion):
        module.add_parser(commands)
    add_events_parser(commands)
    add_gst_parser(commands)
    add_doctor_parser(commands)
    add_operate_parsers(commands)
    commands.choices["events"].set_defaults(run=_run_events)
    commands.choices["gst-signalling"].set_defaults(run=_run_gst)
    return parser


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser("serve", help="run the server")
    server_config_options(serve)
    serve.set_defaults(run=_run_serve)


def _run_serve(arguments: argparse.Namespace) -> int:
    from lkactor.cli.serve import serve

    try:
        return serve(arguments, os.environ)
    except (ConfigError, OSError) as error:
        raise CliError(str(error), FAILED) from None


def _run_events(arguments: argparse.Namespace) -> int:
    from lkactor.cli import events

    return events.run(arguments)


def _run_gst(arguments: argparse.Namespace) -> int:
    from lkactor.cli import gst_signalling

    return gst_signalling.run(arguments)


def generate_keys(arguments: argparse.Namespace) -> int:
    """A key and a secret as LiveKit makes them: "API" + 12 characters, 43 characters."""
    key, secret = f"API{''.join(secrets.choice(KEY_ALPHABET) for _ in range(12))}", secrets.token_urlsafe(32)
    if arguments.json:
        print_json({"api_key": key, "api_secret": secret})
    else:
        print(f"API Key:  {key}")
        print(f"API Secret:  {secret}")
    return 0
