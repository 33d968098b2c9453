"""The kernel could be lifted out of this project: it stands on the standard library and Trio alone."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import actors.kernel

ALLOWED = sys.stdlib_module_names | {"trio"}


def imported(source: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


def test_standard_library_and_trio_only() -> None:
    sources = list(Path(actors.kernel.__path__[0]).glob("**/*.py"))
    names = {(source.name, name) for source in sources for name in imported(source)}
    foreign = {(source, name) for source, name in names if name.partition(".")[0] not in ALLOWED}
    assert len(sources) > 5
    assert not {name for name in foreign if not f"{name[1]}.".startswith("actors.kernel.")}
