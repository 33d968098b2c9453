"""Minutes long, and left out of the gate: `bash tests/run.sh -m soak`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.browser import missing
from support.interop import MARKS

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = [*MARKS, pytest.mark.browser, pytest.mark.soak]


@pytest.mark.timeout(900)
def test_ten_minutes_of_three_pages_under_loss() -> None:
    """No picture stands still for a second, and no task, actor or descriptor is left over."""
    reason = missing(ROOT / "tests" / "interop" / "web")
    if reason:
        pytest.skip(reason)
    command = [sys.executable, "bench/soak.py", "--pages", "3", "--seconds", "600", "--loss", "0.02", "--strict"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert json.loads(done.stdout)["tracks_watched"] == 6
