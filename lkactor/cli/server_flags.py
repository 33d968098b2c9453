"""The flags that decide a server's configuration, for `serve`, `check` and `ports` alike: those of LiveKit's server.

Beside the ones in --help every key with one value is a flag: `--rtc.tcp_port 7881`, `--rtc.use_ice_lite`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from lkactor.config import Config
from lkactor.config_schema import EXTRA, Schema, fields_of, plain_hint, schema_of

FLAGS = {
    "key_file": "--key-file",
    "bind_addresses": "--bind",
    "port": "--port",
    "region": "--region",
    "rtc.udp_port": "--udp-port",
    "rtc.node_ip": "--node-ip",
    "turn.cert_file": "--turn-cert",
    "turn.key_file": "--turn-key",
    "redis.address": "--redis-host",
    "redis.password": "--redis-password",
}
"""By the key that a flag of its own sets; `keys` has --keys, which is YAML."""


def server_config_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dev", action="store_true", help="development mode: key devkey, secret 'secret', loopback")
    parser.add_argument("--config", metavar="FILE", help="LiveKit YAML")
    parser.add_argument("--config-body", metavar="YAML", help="the YAML itself (env LIVEKIT_CONFIG)")
    parser.add_argument("--disable-strict-config", action="store_true", help="pass over keys that nobody knows")
    parser.add_argument("--keys", metavar="'KEY: SECRET'", help="API keys (env LIVEKIT_KEYS)")
    parser.add_argument("--key-file", metavar="FILE", help="a file of API keys")
    parser.add_argument("--bind", action="append", metavar="IP", help="listen on this address; repeatable")
    parser.add_argument("--port", type=int, help="HTTP and WebSocket port (7880)")
    parser.add_argument("--udp-port", metavar="PORT", help="media over UDP, a port or A-B (7882; env UDP_PORT)")
    parser.add_argument("--node-ip", metavar="IP", help="the address to announce (env NODE_IP)")
    parser.add_argument("--region", metavar="NAME", help="of this node (env LIVEKIT_REGION)")
    parser.add_argument("--turn-cert", metavar="FILE", help="TURN's TLS certificate (env LIVEKIT_TURN_CERT)")
    parser.add_argument("--turn-key", metavar="FILE", help="and its key (env LIVEKIT_TURN_KEY)")
    for flag in ("--redis-host", "--redis-password"):
        parser.add_argument(flag, help=argparse.SUPPRESS)
    more = parser.add_argument_group(
        "every other key", "as a flag, too, by its path in the YAML: --rtc.tcp_port 7881 --room.auto_create=false"
    )
    known = fields_of(Config)
    for path in _single_values(schema_of(Config, EXTRA)):
        if f"--{path}" not in parser._option_string_actions:
            boolean = path in known and plain_hint(known[path])[0] is bool
            bare: dict[str, Any] = {"nargs": "?", "const": "true"} if boolean else {}
            more.add_argument(f"--{path}", action=_Key, metavar="VALUE", help=argparse.SUPPRESS, **bare)
    parser.set_defaults(by_key={})


def flag_values(arguments: argparse.Namespace) -> dict[str, tuple[str, object]]:
    """By key of the configuration: the flag that sets it, and to what. Without --keys."""
    values: dict[str, tuple[str, object]] = {}
    for path, flag in FLAGS.items():
        value = getattr(arguments, flag[2:].replace("-", "_"), None)
        if value not in (None, "", []):
            values[path] = flag, value
    by_key = getattr(arguments, "by_key", {})
    return values | {path: (f"--{path}", value) for path, value in by_key.items()}


class _Key(argparse.Action):
    """Into one mapping of the namespace, which is no place for two hundred names."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option: str | None = None,
    ) -> None:
        namespace.by_key = {**namespace.by_key, self.option_strings[0][2:]: values}


def _single_values(schema: Schema, prefix: str = "") -> Iterator[str]:
    for name, below in schema.items():
        if isinstance(below, dict):
            yield from _single_values(below, f"{prefix}{name}.")
        elif below is None and prefix + name != "keys":
            yield prefix + name
