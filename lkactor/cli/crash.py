"""The traceback of an exception that ends the process, or a thread of it, without what nobody may read.

Python prints these by itself, past every log: what the exception says may repeat a token, a password or a key.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from lkactor.redaction import redacted

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_secrets: set[str] = set()


def hide_secrets_in_tracebacks() -> None:
    """Of this process, from now on, of every thread."""
    sys.excepthook = _ended
    threading.excepthook = _thread_ended
    sys.unraisablehook = _unraisable


def hide(secrets: Iterable[str]) -> None:
    """These, too, beside what is recognised by its form: the operator's own. Old ones stay hidden."""
    _secrets.update(secrets)


def _ended(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _print("".join(traceback.format_exception(kind, error, trace)))


def _thread_ended(arguments: threading.ExceptHookArgs) -> None:
    name = arguments.thread.name if arguments.thread is not None else "?"
    lines = traceback.format_exception(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
    _print(f"in thread {name}:\n{''.join(lines)}")


def _unraisable(arguments: UnraisableHookArgs) -> None:
    lines = traceback.format_exception(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
    _print(f"{arguments.err_msg or 'exception ignored'}:\n{''.join(lines)}")


def _print(text: str) -> None:
    print(redacted(text, _secrets).rstrip(), file=sys.stderr, flush=True)
