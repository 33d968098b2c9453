"""`lkactor completion bash|zsh|fish`: a script made from the parser itself, so that it cannot fall behind."""

from __future__ import annotations

import argparse
from typing import Any

from lkactor.cli.common import add_command

Tree = dict[str, list[tuple[str, str]]]
"""Command path ("room create") to its next words with their help."""


def add_parser(commands: Any) -> None:
    parser = add_command(
        commands,
        "completion",
        _run,
        "print a completion script for a shell",
        example="source <(lkactor completion bash)",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def _run(arguments: argparse.Namespace) -> int:
    from lkactor.cli.main import build_parser

    tree = words_of(build_parser())
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[arguments.shell](tree), end="")
    return 0


def words_of(parser: argparse.ArgumentParser, path: str = "") -> Tree:
    """Subcommands and flags below every command."""
    words: list[tuple[str, str]] = []
    tree: Tree = {path: words}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, below in action.choices.items():
                words.append((name, helps.get(name, "")))
                tree |= words_of(below, f"{path} {name}".strip())
        else:
            shown = [] if action.help == argparse.SUPPRESS else action.option_strings
            words += [(option, action.help or "") for option in shown if option.startswith("--")]
            if action.choices and not action.option_strings:
                words += [(str(choice), "") for choice in action.choices]
    return tree


def _cases(tree: Tree) -> str:
    lines = [f'    "{path}") words="{" ".join(word for word, _ in words)}" ;;' for path, words in tree.items()]
    return "\n".join(lines)


def _paths(tree: Tree) -> str:
    return "|".join(f'"{path}"' for path in tree if path)


def _bash(tree: Tree) -> str:
    return f"""_lkactor() {{
  local words="" path="" word next
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    next="${{path:+$path }}$word"
    case "$next" in {_paths(tree)}) path="$next" ;; esac
  done
  case "$path" in
{_cases(tree)}
  esac
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _lkactor lkactor
"""


def _zsh(tree: Tree) -> str:
    return f"""#compdef lkactor
_lkactor() {{
  local words_="" path_="" word next
  for word in "${{(@)words[2,CURRENT-1]}}"; do
    next="${{path_:+$path_ }}$word"
    case "$next" in {_paths(tree)}) path_="$next" ;; esac
  done
  case "$path_" in
{_cases(tree).replace("words=", "words_=")}
  esac
  compadd -- ${{(z)words_}}
  _files
}}
compdef _lkactor lkactor
"""


def _fish(tree: Tree) -> str:
    paths = " ".join(f"'{path}'" for path in tree if path)
    lines = [
        "function __lkactor_at",
        "  set -l path ''",
        "  for word in (commandline -opc)[2..-1]",
        '    set -l next (string trim -- "$path $word")',
        f"    contains -- $next {paths}; and set path $next",
        "  end",
        '  test "$path" = "$argv[1]"',
        "end",
    ]
    for path, words in tree.items():
        condition = f"-n \"__lkactor_at '{path}'\""
        for word, help in words:
            text = help.replace("\\", "").replace("'", "").replace("%%", "%")
            option = f"-l {word[2:]}" if word.startswith("--") else f"-f -a {word}"
            lines.append(f"complete -c lkactor {condition} {option} -d '{text}'")
    return "\n".join(lines) + "\n"
