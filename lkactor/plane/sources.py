"""Which sources a built kernel was made of. On its own, for it is used while lkactor is being installed."""

from __future__ import annotations

import hashlib
from pathlib import Path

UNITS = (
    "gcm.c",
    "seal.c",
    "kernel.c",
    "routes.c",
    "reading.c",
    "steady.c",
    "consent.c",
    "reports.c",
    "take.c",
    "receive.c",
)
"""One after the other they are one translation unit."""


def source_id(folder: Path) -> str:
    """Of the headers and the C files in `folder`; "" where they were not installed."""
    paths = [folder / name for name in ("table.h", "octets.h", *UNITS)]
    if not all(path.exists() for path in paths):
        return ""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]
