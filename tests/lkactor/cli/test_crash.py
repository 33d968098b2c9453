"""What ends the whole process says why, and nothing that nobody may read. In processes of their own: they end."""

from __future__ import annotations

import subprocess
import sys

import pytest

SECRET = "a-secret-of-the-operator-4711"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
COMMAND = f"""
import sys, threading
import lkactor.cli.main as cli
def boom(arguments):
    raise RuntimeError("broke at access_token={TOKEN}")
def in_a_thread(arguments):
    thread = threading.Thread(target=boom, args=(arguments,))
    thread.start()
    thread.join()
    return 1
class Unraisable:
    def __del__(self):
        boom(None)
def while_collecting(arguments):
    Unraisable()
    return 1
cli.generate_keys = globals()[sys.argv.pop()]
sys.exit(cli.main())
"""
SERVER = f"""
import contextlib, sys
import lkactor.cli.serve as serve
from lkactor.cli.main import main
@contextlib.asynccontextmanager
async def run_node(config):
    raise ExceptionGroup("all", [ValueError(repr(dict(config.keys))), KeyError("{TOKEN}")])
    yield
serve.run_node = run_node
sys.exit(main())
"""


def ended(program: str, *words: str) -> str:
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("where", ["boom", "in_a_thread", "while_collecting"])
def test_a_command(where: str) -> None:
    said = ended(COMMAND, "generate-keys", where)
    assert "RuntimeError: broke at access_token=<secret>" in said
    assert "in boom" in said
    assert TOKEN not in said


def test_the_server_hides_its_operators_secrets_too() -> None:
    said = ended(SERVER, "serve", "--keys", f"key1: {SECRET}", "--port", "0")
    assert "ExceptionGroup: all" in said
    assert "ValueError: {'key1': '<secret>'}" in said
    assert SECRET not in said
    assert TOKEN not in said
