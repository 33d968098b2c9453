"""YAML to a tree of text, with the line of every key: unknown and repeated keys are refused here.

Every scalar stays text until `lkactor.config` knows which type is wanted, as with Go's typed decoder: a secret 0123 is
no octal number, a region `no` no boolean. A plain empty scalar or `null` is None.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Any

import yaml

from lkactor.config_schema import Listed, Node, Schema

MAX_DEPTH = 32
NULLS = ("", "~", "null", "Null", "NULL")
MERGE = "<<"


class ConfigError(Exception):
    """The configuration cannot be used."""


class Quoted(str):
    """A scalar in quotes or a block: text, whatever it looks like."""

    __slots__ = ()


@dataclass(slots=True)
class Reader:
    """One document. `lines` has the line of each key by dotted path; list items are `name[0]`."""

    lines: dict[str, int] = field(default_factory=dict)
    strict: bool = True
    """Else keys that nobody knows are left out, and are in `unknown`."""
    unknown: list[str] = field(default_factory=list)

    def read(self, text: str, schema: Schema | None) -> dict[str, Any]:
        """Raises ConfigError, which says the line and repeats no value."""
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            where = f"line {mark.line + 1}: " if mark is not None else ""
            raise ConfigError(f"{where}this is not YAML: {getattr(error, 'problem', 'malformed')}") from None
        if root is None or _is_null(root):
            return {}
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError("the configuration must be a mapping of keys to values")
        return self._mapping(root, schema, "", 0)

    def _value(self, node: yaml.Node, schema: Node, path: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ConfigError(f"line {_line(node)}: {path} is nested too deeply")
        if _is_null(node):
            return None
        if isinstance(node, yaml.MappingNode):
            if isinstance(schema, Listed):
                return self._listed(node, schema, path, depth)
            return self._mapping(node, schema, f"{path}.", depth)
        if isinstance(schema, dict):
            raise ConfigError(f"line {_line(node)}: {path}: expected a mapping, got something else")
        if isinstance(node, yaml.SequenceNode):
            item = schema.item if isinstance(schema, Listed) else None
            self.lines |= {f"{path}[{n}]": _line(entry) for n, entry in enumerate(node.value)}
            return [self._value(entry, item, f"{path}[{n}]", depth + 1) for n, entry in enumerate(node.value)]
        if isinstance(schema, Listed):
            raise ConfigError(f"line {_line(node)}: {path}: expected a list, got something else")
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        return str(node.value) if plain else Quoted(node.value)

    def _listed(self, node: yaml.MappingNode, schema: Listed, path: str, depth: int) -> dict[str, Any]:
        """A mapping by free names whose values are all alike."""
        names = {str(key.value): schema.item for key, _ in node.value}
        return self._mapping(node, {**names}, f"{path}.", depth)

    def _mapping(self, node: yaml.MappingNode, schema: Schema | None, prefix: str, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"line {_line(key_node)}: a key must be plain text")
            name, line = str(key_node.value), _line(key_node)
            if name == MERGE and key_node.style is None:
                merged |= self._merged(value_node, schema, prefix, depth)
                continue
            if not self.strict and schema is not None and name not in schema:
                self.unknown.append(prefix + name)
                continue
            if name in values:
                raise ConfigError(f"line {line}: {prefix}{name} is there twice")
            self.lines[prefix + name] = line
            below = None if schema is None else find(schema, name, prefix, f"line {line}: ")
            values[name] = self._value(value_node, below, prefix + name, depth + 1)
        return merged | values

    def _merged(self, node: yaml.Node, schema: Schema | None, prefix: str, depth: int) -> dict[str, Any]:
        """`<<: *anchor`, or a list of them, of which the first wins."""
        if depth > MAX_DEPTH:
            raise ConfigError(f"line {_line(node)}: {prefix}{MERGE} is nested too deeply")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, schema, prefix, depth + 1)
        if not isinstance(node, yaml.SequenceNode):
            raise ConfigError(f"line {_line(node)}: {prefix}{MERGE} takes a mapping")
        values: dict[str, Any] = {}
        for entry in node.value:
            values = self._merged(entry, schema, prefix, depth + 1) | values
        return values


def find(schema: Schema, name: str, prefix: str, where: str = "") -> Node:
    """What is below a key. Raises ConfigError with the nearest key there is."""
    if name not in schema:
        near = difflib.get_close_matches(name, schema, 1)
        hint = f"; did you mean {prefix}{near[0]}?" if near else ""
        raise ConfigError(f"{where}unknown key {prefix}{name}{hint}")
    return schema[name]


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value in NULLS


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
