"""Results in a file, kept from run to run: what was measured, when, of which commit, with which command."""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from load.window import Row


@dataclass(slots=True)
class Results:
    """`rows[case][size][server]` are medians; `taken[case][size]` says how they came about."""

    rows: dict[str, dict[str, dict[str, Row]]] = field(default_factory=dict)
    taken: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    machine: str = ""

    @classmethod
    def load(cls, path: Path | None) -> Results:
        """What an earlier run has left there, or nothing."""
        if path is None or not path.exists():
            return cls(machine=machine())
        found = json.loads(path.read_text())
        return cls(found["rows"], found["taken"], machine())

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"machine": self.machine, "taken": self.taken, "rows": self.rows}, indent=1) + "\n")

    def add(self, case: str, size: int, medians: dict[str, Row], runs: int, seconds: float) -> None:
        """Servers that were not measured this time lose the row that they had: figures are compared in one run only."""
        self.rows.setdefault(case, {})[str(size)] = medians
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")
        self.taken.setdefault(case, {})[str(size)] = {"when": now, "commit": commit(), "runs": runs, "seconds": seconds}

    def get(self, case: str, size: int, server: str) -> Row | None:
        return self.rows.get(case, {}).get(str(size), {}).get(server)


def machine() -> str:
    """What figures depend on."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    cores = sum(line.startswith("processor") for line in Path("/proc/cpuinfo").read_text().splitlines())
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{cores} cores of {model}, Linux {platform.release()}, {python}"


def commit() -> str:
    """Of the folder that is measured; with a plus if something there is not committed."""
    folder = Path(__file__).parent.parent.parent
    try:
        name = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=folder, capture_output=True, text=True)
        paths = ["lkactor", "actors"]
        changed = subprocess.run(["git", "status", "--short", *paths], cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return name.stdout.strip() + ("+" if changed.stdout.strip() else "")


def command() -> str:
    """Ours, as it was typed."""
    return " ".join(["python", "bench/suite.py", *sys.argv[1:]])
