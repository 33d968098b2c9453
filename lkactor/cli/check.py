"""`lkactor check` says whether a server configuration is right and where each value comes from; `lkactor ports` what
must be open for it. Neither starts anything."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lkactor.addressing import udp_ports
from lkactor.cli.common import FAILED, CliError, add_command, note, print_json, table
from lkactor.cli.server_flags import flag_values, server_config_options
from lkactor.config import ENVIRONMENT, UNLIMITED, Config, ConfigError, environment_overrides
from lkactor.config_reader import Reader
from lkactor.config_schema import EXTRA, fields_of, schema_of

SECRETS = ("keys", "password", "secret", "credential", "api_key")
BY_DEV = ("development", "keys", "bind_addresses", "rtc.udp_port", "turn.relay_range_start", "turn.relay_range_end")


@dataclass(frozen=True, slots=True)
class Setting:
    path: str
    value: str
    origin: str


def add_parser(commands: Any) -> None:
    check = add_command(
        commands,
        "check",
        _check,
        "check a server configuration and say where each value comes from",
        example="lkactor check --config livekit.yaml",
    )
    ports = add_command(
        commands,
        "ports",
        _ports,
        "the ports that a server configuration uses",
        example="lkactor ports --config livekit.yaml",
    )
    for parser in (check, ports):
        server_config_options(parser)
        parser.add_argument("--json", action="store_true", help="print JSON")
    check.add_argument("--all", action="store_true", help="also what is left at its default")


def _load(arguments: argparse.Namespace, *, need_keys: bool = True) -> Config:
    from lkactor.cli.serve import load

    try:
        return load(arguments, os.environ, need_keys=need_keys)
    except (ConfigError, OSError) as error:
        raise CliError(str(error), FAILED) from None


def _check(arguments: argparse.Namespace) -> int:
    config = _load(arguments)
    settings = explain(config, arguments, os.environ)
    shown = [setting for setting in settings if arguments.all or setting.origin != "default"]
    inert = config.inert_keys()
    if arguments.json:
        print_json(
            {
                "ok": True,
                "values": [{"key": s.path, "value": s.value, "from": s.origin} for s in shown],
                "without_effect": inert,
            }
        )
        return 0
    print(table(("KEY", "VALUE", "FROM"), [(s.path, s.value, s.origin) for s in shown]))
    print("\nthe configuration is right" + ("" if arguments.all else "; --all shows the defaults, too"))
    if inert:
        note(f"set, but without effect in this version: {', '.join(inert)}")
    return 0


def explain(config: Config, arguments: argparse.Namespace, environ: Mapping[str, str]) -> list[Setting]:
    """Every scalar key with its final value and what set it: the last one of default, file, env, flag that did."""
    file = _file_lines(arguments, environ)
    by_env, by_flag = environment_overrides(environ), {path: flag for path, (flag, _) in flag_values(arguments).items()}
    if arguments.keys:
        by_flag["keys"] = "--keys"
    found = []
    for path in fields_of(Config):
        value = _value(config, path)
        if any(word in path for word in SECRETS):
            count = len(value) if isinstance(value, Mapping) else 1
            text = f"({count} hidden)" if value else ""
        else:
            text = ", ".join(map(_text, value)) if isinstance(value, tuple) else _text(value)
        if path == "rtc.udp_port" and config.rtc.udp_port_end:
            text = f"{text}-{config.rtc.udp_port_end}"
        found.append(Setting(path, text, _origin(path, arguments, environ, by_env, by_flag, file)))
    return found


def _text(value: Any) -> str:
    if dataclasses.is_dataclass(value):
        fields = [(entry.name, getattr(value, entry.name)) for entry in dataclasses.fields(value) if entry.repr]
        return " ".join(f"{name}={field}" for name, field in fields if field)
    return "no limit" if value == UNLIMITED else str(value)


def _origin(
    path: str,
    arguments: argparse.Namespace,
    environ: Mapping[str, str],
    by_env: Mapping[str, object],
    by_flag: Mapping[str, str],
    file: Mapping[str, str],
) -> str:
    if path in by_flag:
        return f"flag {by_flag[path]}"
    if path == "keys" and environ.get("LIVEKIT_KEYS"):
        return "env LIVEKIT_KEYS"
    if path in by_env:
        fixed = next((name for name, target in ENVIRONMENT.items() if target == path and environ.get(name)), "")
        return f"env {fixed or 'LIVEKIT_' + path.upper().replace('.', '_')}"
    if path in file:
        return file[path]
    return "--dev" if arguments.dev and path in BY_DEV else "default"


def _file_lines(arguments: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, str]:
    """ "file.yaml line 3" by dotted path."""
    from lkactor.cli.serve import read_text

    name, text = "", ""
    if arguments.config:
        name, text = arguments.config, read_text(Path(arguments.config))
    elif arguments.config_body:
        name, text = "--config-body", arguments.config_body
    elif environ.get("LIVEKIT_CONFIG"):
        name, text = "env LIVEKIT_CONFIG", environ["LIVEKIT_CONFIG"]
    reader = Reader(strict=not arguments.disable_strict_config)
    reader.read(text, schema_of(Config, EXTRA))
    return {path: f"{name} line {line}" for path, line in reader.lines.items()}


def _value(config: Config, path: str) -> Any:
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _ports(arguments: argparse.Namespace) -> int:
    config = _load(arguments, need_keys=False)
    rows = list(ports_of(config))
    if arguments.json:
        print_json([{"port": port, "transport": transport, "use": use} for port, transport, use in rows])
    else:
        print(table(("PORT", "TRANSPORT", "USE"), rows))
    return 0


def ports_of(config: Config) -> list[tuple[str, str, str]]:
    """(port or range, tcp or udp, what for)."""
    rtc, turn = config.rtc, config.turn
    rows = [(str(config.port), "tcp", "HTTP, WebSocket, API")]
    udp = udp_ports(rtc, 1)
    if udp.first:
        rows.append((f"{udp.first}-{udp.last}" if udp.last > udp.first else str(udp.first), "udp", "media"))
    if rtc.tcp_port:
        rows.append((str(rtc.tcp_port), "tcp", "media where UDP is blocked (ICE/TCP)"))
    if turn.enabled:
        if turn.udp_port:
            rows.append((str(turn.udp_port), "udp", "TURN"))
        if turn.tls_port:
            rows.append((str(turn.tls_port), "tcp", "TURN over TLS"))
        rows.append((f"{turn.relay_range_start}-{turn.relay_range_end}", "udp", "TURN relay"))
    if config.prometheus.port:
        rows.append((str(config.prometheus.port), "tcp", "Prometheus metrics"))
    if config.gst_signalling.port:
        rows.append((str(config.gst_signalling.port), "tcp", "GStreamer signalling"))
    return rows
