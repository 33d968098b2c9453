"""For all tests: no wall clock decides. Hypothesis would fail an example that a busy machine was slow to make.

LKACTOR_PLANE=python runs the servers that tests start in their own process with that forwarding plane.
"""

import functools
import os

import pytest
from hypothesis import HealthCheck, settings

import actors.node
from lkactor.plane import choose

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

if plane := os.environ.get("LKACTOR_PLANE"):
    actors.node.choose = functools.partial(lambda name, asked: choose(name), plane)  # type: ignore[attr-defined]


@pytest.fixture
def turns_that_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one turn of the Python plane's pump brings does not depend on how long the machine takes for it."""
    monkeypatch.setattr("actors.pump.TURN", 60.0)
