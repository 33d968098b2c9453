"""The C kernel under AddressSanitizer, UBSan and valgrind, fed with random tables and bursts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import lkactor.plane
from lkactor.plane.sources import UNITS

SOURCES = Path(lkactor.plane.__file__).parent
HERE = Path(__file__).parent
CC = shutil.which("cc") or shutil.which("gcc")

pytestmark = pytest.mark.skipif(CC is None, reason="no C compiler on this machine")


def compile_fuzzer(target: Path, *flags: str) -> None:
    command = [str(CC), "-std=gnu11", "-g", "-pthread", "-Wall", "-Wextra", "-Werror", *flags, "-I", str(SOURCES)]
    subprocess.run([*command, str(HERE / "fuzz_kernel.c"), "-lm", "-o", str(target)], check=True, timeout=100)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_address_and_undefined_behaviour(tmp_path: Path) -> None:
    fuzzer = tmp_path / "fuzz"
    compile_fuzzer(fuzzer, "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    for seed in range(3):
        assert "accounted for" in run(str(fuzzer), str(seed), "4000")


def test_threads_that_share_rows(tmp_path: Path) -> None:
    fuzzer = tmp_path / "fuzz"
    compile_fuzzer(fuzzer, "-O1", "-fsanitize=thread")
    for seed in range(2):
        assert "steady" in run(str(fuzzer), str(seed), "3000", "thread")


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="no valgrind on this machine")
def test_no_uninitialised_memory_and_no_leak(tmp_path: Path) -> None:
    fuzzer = tmp_path / "fuzz"
    compile_fuzzer(fuzzer, "-O1")
    run("valgrind", "-q", "--error-exitcode=9", "--leak-check=full", str(fuzzer), "7", "300")


def test_the_kernel_stays_small() -> None:
    for unit in UNITS:
        assert len((SOURCES / unit).read_text().splitlines()) < 400, unit
