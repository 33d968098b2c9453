"""The try page of dev mode in two tabs of a real Chromium: a call at once, chat, and a layer chosen by button."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright
from support.browser import CHROMIUM, FLAGS

from lkactor.testing import LkServer

pytestmark = [
    pytest.mark.interop,
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no Chromium at {CHROMIUM}"),
]

PATIENCE = 30_000  # ms; a join takes one or two seconds on an idle machine
PICTURE = "video[data-sid]"
FRAMES = "video => video.getVideoPlaybackQuality().totalVideoFrames"
WIDTH = "video => video.videoWidth"
TWENTY_MORE = "([selector, seen]) => document.querySelector(selector)" + (
    ".getVideoPlaybackQuality().totalVideoFrames >= seen + 20"
)
WIDER = "([selector, width]) => document.querySelector(selector)?.videoWidth >= width"
NARROWER = "([selector, width]) => document.querySelector(selector).videoWidth <= width"


@pytest.fixture(scope="module")
def lk_dev_server() -> Iterator[LkServer]:
    """A server with the try page: only dev mode has it."""
    with LkServer(dev=True) as server:
        yield server


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS, headless=True)
        yield launched
        launched.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the pages' consoles said of errors, the missing favicon apart."""
    return []


@pytest.fixture
def tabs(
    lk_dev_server: LkServer, chromium: Browser, complaints: list[str], request: pytest.FixtureRequest
) -> Iterator[tuple[Page, Page]]:
    """alice's page and bob's, both connected and each with the other's picture in it. No permission is granted."""
    context = chromium.new_context()

    def said(message: ConsoleMessage) -> None:
        if message.type == "error" and "favicon" not in message.location.get("url", ""):
            complaints.append(message.text)

    def tab(identity: str) -> Page:
        page = context.new_page()
        page.on("console", said)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{lk_dev_server.http_url}/try?room={request.node.name}&identity={identity}")
        return page

    alice, bob = tab("alice"), tab("bob")
    for page in (alice, bob):
        expect(page.locator("html")).to_have_attribute("data-state", "connected", timeout=PATIENCE)
        expect(page.locator(PICTURE)).to_have_count(1, timeout=PATIENCE)
    yield alice, bob
    context.close()


def test_two_tabs_see_each_other_without_a_prompt(tabs: tuple[Page, Page], complaints: list[str]) -> None:
    for page, other in zip(tabs, ("bob", "alice"), strict=True):
        expect(page.locator(".person:not(#me) h2")).to_have_text(other)
        seen = page.locator(PICTURE).evaluate(FRAMES)
        page.wait_for_function(TWENTY_MORE, arg=[PICTURE, seen], timeout=PATIENCE)
    assert complaints == []  # the content security policy is among those who would complain


def test_chat_goes_both_ways_with_the_senders_name(tabs: tuple[Page, Page]) -> None:
    alice, bob = tabs
    for sender, receiver, name, words in (
        (alice, bob, "alice", "grüß dich 👋 <b>bob</b>"),
        (bob, alice, "bob", "x" * 700),
    ):
        expect(sender.locator("#send")).to_be_enabled(timeout=PATIENCE)
        sender.fill("#text", words)
        sender.click("#send")
        expect(receiver.locator("#messages li").last).to_have_text(name + words, timeout=PATIENCE)


def test_low_makes_the_received_picture_smaller_and_high_large_again(tabs: tuple[Page, Page]) -> None:
    alice, _ = tabs
    alice.wait_for_function(WIDER, arg=[PICTURE, 512], timeout=PATIENCE)
    before = alice.locator(PICTURE).evaluate(WIDTH)
    alice.click("button[data-level=LOW]")
    alice.wait_for_function(NARROWER, arg=[PICTURE, before // 2], timeout=PATIENCE)
    expect(alice.locator("button[data-level=LOW]")).to_have_attribute("aria-pressed", "true")
    alice.click("button[data-level=HIGH]")
    alice.wait_for_function(WIDER, arg=[PICTURE, before], timeout=PATIENCE)


def test_leave_takes_the_tile_away_and_join_brings_it_back(tabs: tuple[Page, Page]) -> None:
    alice, bob = tabs
    alice.click("#leave")
    expect(alice.locator("html")).to_have_attribute("data-state", "left")
    expect(bob.locator(".person:not(#me)")).to_have_count(0, timeout=PATIENCE)
    alice.click("#leave")
    expect(bob.locator(PICTURE)).to_have_count(1, timeout=PATIENCE)
    expect(alice.locator(PICTURE)).to_have_count(1, timeout=PATIENCE)
