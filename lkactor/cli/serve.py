"""`lkactor serve`: configuration, banner, signals.

The first INT or TERM stops gracefully, the second at once. HUP reads the configuration again (docs/configuration.md).
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import stat
import time
import warnings
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import trio
from jwt.warnings import InsecureKeyLengthWarning

from actors.collecting import CollectorActor, Need, tune
from actors.kernel import Restart
from actors.node import Node, run_node
from lkactor import __version__
from lkactor.auth import issue_token
from lkactor.cli import crash
from lkactor.cli.banner import network_lines
from lkactor.cli.logs import ServerLog
from lkactor.cli.server_flags import flag_values
from lkactor.config import Config, ConfigError, environment_overrides, parse_keys
from lkactor.redaction import secrets_of

LEAST_SECRET = 32
"""Characters: as many octets as HMAC-SHA-256 gives (RFC 2104 section 3)."""


def serve(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Raises ConfigError, or OSError when a port is taken."""
    config = load(arguments, environ)
    crash.hide(secrets_of(config))
    if config.development:
        # The development secret is short on purpose and known to everyone.
        warnings.filterwarnings("ignore", category=InsecureKeyLengthWarning)
    trio.run(_serve, config, functools.partial(load, arguments, environ))
    return 0


def load(arguments: argparse.Namespace, environ: Mapping[str, str], *, need_keys: bool = True) -> Config:
    """Flags win over the environment, the environment over the file."""
    text = arguments.config_body or environ.get("LIVEKIT_CONFIG", "")
    if arguments.config:
        text = read_text(Path(arguments.config))
    overrides = environment_overrides(environ)
    keys = arguments.keys or environ.get("LIVEKIT_KEYS", "")
    if keys:
        overrides["keys"] = parse_keys(keys)
    overrides |= {path: value for path, (_, value) in flag_values(arguments).items()}
    strict = not getattr(arguments, "disable_strict_config", False)
    config = Config.load(text, overrides=overrides, dev=arguments.dev, strict=strict)
    if config.key_file:  # wins over `keys` from wherever
        config = config.with_keys(parse_keys(_read_key_file(Path(config.key_file).expanduser())))
    if need_keys and not config.keys:
        raise ConfigError(
            "no API keys: add `keys:` to the configuration, set LIVEKIT_KEYS='key: secret', or use --dev "
            "(`lkactor generate-keys` makes a pair)"
        )
    return config


def _read_key_file(path: Path) -> str:
    if path.stat().st_mode & stat.S_IRWXO:
        raise ConfigError(f"{path} can be read by others: chmod o-rwx {path}")
    return read_text(path)


def read_text(path: Path) -> str:
    """Raises ConfigError, which repeats nothing of it, or OSError."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (octet {error.start + 1})") from None


async def _serve(config: Config, load_again: Callable[[], Config]) -> None:
    async with run_node(config) as node:
        services, need = node.services, Need()
        services.events.listen(need.observe)
        await node.system.spawn(lambda: CollectorActor(services, need), "collector", restart=Restart.PERMANENT)
        tune()
        terminal = os.isatty(0)
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP) as signals:
            # Who reads the banner may send one at once.
            print(banner(config, node), flush=True)
            log = ServerLog(config.logging, services.joins, services.server_info.node_id)
            services.events.listen(log.observe)
            _name_weak_secrets(node, config)
            # HUP is also what a terminal says that is closed: then there is nobody left to serve.
            while await anext(signals) == signal.SIGHUP and not (terminal and not os.isatty(0)):
                await reload(node, load_again, log)
            print("stopping: everyone is told to leave; a second signal stops at once", flush=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_force, signals)
                await node.drain()
                nursery.cancel_scope.cancel()


async def _force(signals: AsyncIterator[int]) -> None:
    async for number in signals:
        if number != signal.SIGHUP:
            os._exit(1)


async def reload(node: Node, load_again: Callable[[], Config], log: ServerLog) -> None:
    """Take over what has changed and say so; a configuration that cannot be used changes nothing."""

    def say(event: str, detail: str) -> None:
        node.services.events.record(trio.current_time(), "", "", event, detail)

    try:
        result = await node.reload(await trio.to_thread.run_sync(load_again))
    except (ConfigError, OSError) as error:
        say("config.kept", str(error))
        return
    crash.hide(secrets_of(result.config))
    log.set_level(result.config.logging.level)
    _name_weak_secrets(node, result.config)
    if result.restart:
        say("config.restart_needed", ", ".join(result.restart))
    if result.without_effect:
        say("config.without_effect", ", ".join(result.without_effect))
    say("config.reloaded", "; ".join(result.applied) or "nothing has changed")


def _name_weak_secrets(node: Node, config: Config) -> None:
    """By their keys. The development mode's own is no secret."""
    weak = [] if config.development else [key for key, secret in config.keys.items() if len(secret) < LEAST_SECRET]
    if weak:
        node.services.events.record(trio.current_time(), "", "", "config.weak_secret", ", ".join(weak))


def banner(config: Config, node: Node) -> str:
    """What a new user needs next. Secrets are shown in dev mode only, where they are no secret."""
    host = config.bind_addresses[0] if config.bind_addresses else "127.0.0.1"
    http = f"http://{f'[{host}]' if ':' in host else host}:{node.port}"
    lines = [f"lkactor {__version__}{' (development mode)' if config.development else ''}", ""]
    lines.append(f"  URL          {http.replace('http', 'ws', 1)}")
    lines += network_lines(config, node)
    plane = node.services.ports.plane
    lines.append(f"  forwarding   {'C kernel' if plane.name == 'kernel' else 'Python'} ({plane.why})")
    if config.development:
        key, secret = next(iter(config.keys.items()))
        video = {"room": "demo", "room_join": True}
        token = issue_token(key, secret, identity="you", video=video, ttl=86400.0, now_unix=time.time())
        lines += ["", f"  API key      {key}", f"  API secret   {secret}"]
        lines += ["", "  try it       open this in two tabs:", f"               {http}/try"]
        lines += ["", f"  a token      room demo, identity you, one day:\n               {token}"]
    inert = config.inert_keys()
    if inert:
        lines += ["", f"  no effect    {', '.join(inert)}: set, but not implemented yet (docs/status.md)"]
    return "\n".join(lines) + "\n"
