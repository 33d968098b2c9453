"""What a changed configuration changes in a server that runs, and what it must be restarted for.

Keys, limits, what new rooms get, webhooks, the log's level and what else is asked for anew each time it is needed
(`RELOADED`) hold from the reload on; sessions and rooms that exist keep what they began with. Everything else stays as
it was and is named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lkactor.config import Config
from lkactor.config_schema import fields_of

RELOADED = (
    "keys", "limit", "room", "webhook", "logging.level", "audio", "video", "prometheus.username", "prometheus.password",
    "rtc.turn_servers", "rtc.stun_servers",
)  # fmt: skip
"""Paths, each with all below it."""
MAX_SHOWN = 64
MAX_NAMED = 20


@dataclass(frozen=True, slots=True)
class Reload:
    """`config` is the one to go on with. The texts name keys and numbers, never a secret."""

    config: Config
    applied: tuple[str, ...] = ()
    """What holds from now on: "limit.num_tracks: 10, was 0"."""
    restart: tuple[str, ...] = ()
    """Keys that changed and need a restart."""
    without_effect: tuple[str, ...] = ()
    """Keys that were set anew and do nothing in this version."""


def reload(old: Config, new: Config) -> Reload:
    """From the configuration that runs and the one that was read again."""
    config, applied, restart = old, [], []
    for path in fields_of(Config):
        before, after = value_at(old, path), value_at(new, path)
        if before == after:
            continue
        if path in (*old.inert, *new.inert):
            config = _with(config, path.split("."), after)
        elif any(path == prefix or path.startswith(f"{prefix}.") for prefix in RELOADED):
            config = _with(config, path.split("."), after)
            applied.append(_change(path, before, after))
        else:
            restart.append(path)
    inert = tuple(key for key in new.inert if key not in old.inert)
    return Reload(dataclasses.replace(config, inert=new.inert), tuple(applied), tuple(restart), inert)


def value_at(config: Config, path: str) -> Any:
    """The value of a dotted path."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _with(section: Any, path: list[str], value: Any) -> Any:
    name, *rest = path
    return dataclasses.replace(section, **{name: _with(getattr(section, name), rest, value) if rest else value})


def _change(path: str, before: Any, after: Any) -> str:
    """Only numbers, switches and the log's level are shown: a URL or a name may hold a secret."""
    if path == "keys":
        return _key_changes(before, after)
    if isinstance(after, bool | int | float) or path == "logging.level":
        return f"{path}: {after!r}, was {before!r}"
    return path


def _key_changes(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    parts = {
        "added": after.keys() - before.keys(),
        "removed": before.keys() - after.keys(),
        "with a new secret": {key for key in before.keys() & after.keys() if before[key] != after[key]},
    }
    return "keys: " + "; ".join(f"{what}: {_names(keys)}" for what, keys in parts.items() if keys)


def _names(keys: set[str]) -> str:
    shown = [key[:MAX_SHOWN] for key in sorted(keys)]
    more = len(shown) - MAX_NAMED
    return ", ".join(shown[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
