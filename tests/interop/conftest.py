"""What all interop tests share: both signalling generations, and one Chromium for the session."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import Browser, missing
from support.signal_client import CONFIG, Server

from lkactor.testing import LkServer

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


@pytest.fixture(scope="session")
def signal_server() -> Iterator[Server]:
    """For the tests of signalling: ours, or the one that LK_SIGNAL_URL names."""
    url = os.environ.get("LK_SIGNAL_URL")
    if url:
        yield Server(url, reference=True)
        return
    with LkServer(CONFIG) as server:
        yield Server(server.url, reference=False)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-matrix", action="store_true", help="write docs/compatibility.md")
