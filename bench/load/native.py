"""Our own C, built when it is first needed: `cc` must be there, nothing else."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path


def build(source: Path, *arguments: str) -> Path:
    """The program, or with `-shared` the library. Kept by content in the user's own folder below the temporary one.

    Raises FileNotFoundError without a compiler, CalledProcessError for what it does not take."""
    options: Sequence[str] = ("-O2", "-Wall", "-Wextra", "-Werror", *arguments)
    key = hashlib.sha256(source.read_bytes() + repr(options).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"lkactor-bench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    built = folder / f"{source.stem}-{key}"
    if not built.exists():
        fresh = built.with_suffix(f".{os.getpid()}")
        libraries = [option for option in options if option.startswith("-l")]
        others = [option for option in options if not option.startswith("-l")]
        subprocess.run(["cc", *others, "-o", str(fresh), str(source), *libraries], check=True)
        fresh.rename(built)
    return built
