"""Every test of the forwarding plane runs through both of its implementations."""

from __future__ import annotations

import pytest
from support.media import plane  # noqa: F401


@pytest.fixture(autouse=True)
def _both_planes(plane: object) -> None:  # noqa: F811
    pass
