"""What all interop tests share: both signalling generations, and one Chromium for the session."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import Browser, missing

WEB = Path(__file__).parent / "web"


@pytest.fixture(params=[True, False], ids=["one-connection", "two-connections"])
def single_pc(request: pytest.FixtureRequest) -> bool:
    """True: /rtc/v1 and one peer connection; False: /rtc and two."""
    return bool(request.param)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium with fake devices; a test opens pages in it by `support.browser.pages`."""
    reason = missing(WEB)
    if reason:
        pytest.skip(reason)
    with Browser(WEB) as chromium:
        yield chromium
