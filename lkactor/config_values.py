"""From text, or what a caller passes, to the types of `lkactor.config_sections`.

No message repeats text: it may be a secret that stands in the wrong place.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import yaml

from lkactor.config_reader import Quoted
from lkactor.config_schema import plain_hint
from lkactor.config_sections import Cidr, OneOf, Span

TRUE = ("true", "t", "1", "yes", "y", "on")
FALSE = ("false", "f", "0", "no", "n", "off")
ANY_COUNT = Span(0, 2**53)
WANTED = {bool: "true or false", int: "a whole number", float: "a duration such as 500ms", str: "text"}
UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)"
T = TypeVar("T")


class Invalid(Exception):
    """A value at `path` that cannot be used."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__(path, text)
        self.path = path
        self.text = text


def build(cls: type[T], tree: Mapping[str, Any], path: str) -> T:
    """A dataclass from a mapping; what is absent or None has its default. Raises Invalid."""
    hints = typing.get_type_hints(cls, include_extras=True)
    values = {}
    for entry in dataclasses.fields(cls):  # type: ignore[arg-type]
        if tree.get(entry.name) is not None:
            values[entry.name] = convert(tree[entry.name], hints[entry.name], f"{path}{entry.name}")
        elif entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
            raise Invalid(path.rstrip("."), f"{entry.name} is missing")
    return cls(**values)


def convert(value: Any, hint: Any, path: str) -> Any:
    """Raises Invalid."""
    hint, notes = plain_hint(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise Invalid(path, f"expected a mapping, got {_shown(value)}")
        return build(typing.cast(type[Any], hint), value, f"{path}.")
    if typing.get_origin(hint) is tuple:
        return _list(value, typing.get_args(hint)[0], path)
    if typing.get_origin(hint) is Mapping:
        return check_secrets(value) if typing.get_args(hint)[1] is str else _free(value, path)
    result = _scalar(value, hint, path)
    if hint is int:
        span = next((note for note in notes if isinstance(note, Span)), ANY_COUNT)
        if not span.low <= result <= span.high:
            raise Invalid(path, f"{result} is not within {span.low} to {span.high}")
    for note in notes:
        if isinstance(note, OneOf) and result not in note.words:
            raise Invalid(path, f"expected one of {', '.join(filter(None, note.words))}")
        if isinstance(note, Cidr):
            _check_network(result, path)
    return result


def _list(value: Any, item: Any, path: str) -> tuple[Any, ...]:
    if isinstance(value, OverrideText):
        value = [part.strip() for part in value.split(",")]
    if not isinstance(value, list | tuple):
        raise Invalid(path, f"expected a list, got {_shown(value)}")
    if any(entry is None for entry in value):
        raise Invalid(path, "an item of the list is empty")
    return tuple(convert(entry, item, f"{path}[{index}]") for index, entry in enumerate(value))


class OverrideText(str):
    """Text of a flag or a variable, in which commas part the items of a list."""

    __slots__ = ()


def check_secrets(keys: Any) -> dict[str, str]:
    """A key without a secret would be open to everyone who guesses what YAML makes of nothing. Raises Invalid."""
    if not isinstance(keys, Mapping):
        raise Invalid("keys", "expected `key: secret` lines")
    for key, secret in keys.items():
        if not isinstance(key, str) or not key or not isinstance(secret, str) or not secret:
            raise Invalid("keys", f"{key!r} has no secret in text; write it in quotes if it looks like a number")
    return {str(key): str(secret) for key, secret in keys.items()}


def integer(value: Any, path: str) -> int:
    """Raises Invalid. Reads 0x1f and 1_000_000 like YAML; 1e9 is whole as well."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"[-+]?\d[\d_]{0,20}", text):
            return int(text.replace("_", ""))
        if re.fullmatch(r"0[xXoObB][0-9a-fA-F_]{1,20}", text):
            try:
                return int(text, 0)
            except ValueError:
                raise Invalid(path, f"expected {WANTED[int]}, got {_shown(value)}") from None
        if re.fullmatch(r"[-+]?\d{1,20}(\.0*)?([eE]\+?\d{1,2})?", text) and float(text).is_integer():
            return int(float(text))
    raise Invalid(path, f"expected {WANTED[int]}, got {_shown(value)}")


def _scalar(value: Any, hint: Any, path: str) -> Any:
    if hint is int:
        return integer(value, path)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is bool and isinstance(value, str) and value.lower() in TRUE + FALSE:
        return value.lower() in TRUE
    if hint is float:
        seconds = _duration(value)
        if seconds is not None:
            return seconds
    if hint is str and isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise Invalid(path, f"expected {WANTED.get(hint, hint)}, got {_shown(value)}")


def _duration(value: Any) -> float | None:
    """Go's notation, "1m30s", or a number of seconds; never negative or endless."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if 0 <= value < 1e12 else None
    if not isinstance(value, str):
        return None
    if re.fullmatch(r"\d{1,12}(\.\d*)?|\.\d+", value):
        return float(value)
    if not re.fullmatch(rf"(?:{_PART})+", value):
        return None
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(_PART, value))


def _free(value: Any, path: str) -> dict[str, Any]:
    """A mapping whose values have the types they look like."""
    if not isinstance(value, Mapping):
        raise Invalid(path, f"expected a mapping, got {_shown(value)}")
    return {str(key): _native(item) for key, item in value.items()}


def _native(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _native(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_native(item) for item in value]
    if not isinstance(value, str) or isinstance(value, Quoted):
        return value
    try:
        native = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError):
        return value
    return native if isinstance(native, bool | int | float) else value


def _check_network(text: str, path: str) -> None:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise Invalid(path, "expected a network such as 10.0.0.0/8") from None


def _shown(value: Any) -> str:
    """A value in a message: its kind and, of short plain ones, itself. Secrets are text; text is not repeated."""
    if isinstance(value, bool | int | float) or value is None:
        return repr(value)
    return {"Quoted": "text", "str": "text", "OverrideText": "text"}.get(
        type(value).__name__, f"a {type(value).__name__}"
    )
