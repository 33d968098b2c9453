"""For all tests: no wall clock decides. Hypothesis would fail an example that a busy machine was slow to make.

LKACTOR_PLANE=python runs the servers that tests start in their own process with that forwarding plane.
"""

import functools
import os

from hypothesis import HealthCheck, settings

import actors.node
from lkactor.plane import choose

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

if plane := os.environ.get("LKACTOR_PLANE"):
    actors.node.choose = functools.partial(lambda name, asked: choose(name), plane)  # type: ignore[attr-defined]
