"""One headless Chromium for the session, in a thread with a loop of its own, so that a test may drive pages and Python
clients from one coroutine (`asyncio.run`), which playwright's own synchronous interface forbids.

The page is tests/interop/web/index.html, served on loopback; `Page.call` runs one of the functions it offers as `lk`.
"""

import asyncio
import functools
import http.server
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from playwright import async_api as playwright

T = TypeVar("T")

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # 12 pictures a second are enough to count and spare the encoder
    "--use-fake-device-for-media-stream=fps=12",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    # loopback is where the server is: real host candidates instead of mDNS names, and 127.0.0.1 among them
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    "--allow-loopback-in-peer-connection",
    # several pages at once, none of them in front
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
    "--disable-background-timer-throttling",
]


def missing(web: Path) -> str | None:
    """Why no browser test can run here, or None."""
    if not CHROMIUM.exists():
        return f"no Chromium at {CHROMIUM}"
    if not (web / "node_modules" / "livekit-client").is_dir():
        return f"the npm clients are not installed: run `npm ci` in {web}"
    return None


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """A test's output is no access log."""


class Page:
    """One page in a fresh context. `log` collects what its console said."""

    def __init__(self, browser: "Browser", page: playwright.Page) -> None:
        self._browser = browser
        self._page = page
        self.log: list[str] = []
        page.on("console", lambda message: self.log.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.log.append(f"error: {error}"))

    async def call(self, function: str, *args: Any) -> Any:
        """`await lk[function](...args)` in the page; JSON in, JSON out. A rejection raises playwright's Error."""
        script = "([name, args]) => lk[name](...args)"
        return await self._browser.run(self._page.evaluate(script, [function, list(args)]))


class Browser:
    """Context manager: the thread, the web server and Chromium itself."""

    def __init__(self, web: Path, *, extra_flags: tuple[str, ...] = ()) -> None:
        self._flags = [*FLAGS, *extra_flags]
        handler = functools.partial(_Quiet, directory=str(web))
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._loop = asyncio.new_event_loop()
        self._threads = [
            threading.Thread(target=self._loop.run_forever, name="browser", daemon=True),
            threading.Thread(target=self._http.serve_forever, name="browser-http", daemon=True),
        ]
        self._playwright: playwright.Playwright
        self._chromium: playwright.Browser

    @property
    def page_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/index.html"

    def __enter__(self) -> "Browser":
        for thread in self._threads:
            thread.start()
        asyncio.run_coroutine_threadsafe(self._launch(), self._loop).result(60)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._quit(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._http.shutdown()
        for thread in self._threads:
            thread.join(10)
        self._http.server_close()
        self._loop.close()

    async def _launch(self) -> None:
        self._playwright = await playwright.async_playwright().start()
        self._chromium = await self._playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=self._flags, headless=True
        )

    async def _quit(self) -> None:
        await self._chromium.close()
        await self._playwright.stop()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits, from any loop, what has to run on the browser's."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def open(self) -> tuple[Page, playwright.BrowserContext]:
        async def work() -> tuple[Page, playwright.BrowserContext]:
            context = await self._chromium.new_context(permissions=["camera", "microphone"])
            page = Page(self, await context.new_page())
            await page._page.goto(self.page_url)
            return page, context

        return await self.run(work())

    @asynccontextmanager
    async def pages(self, count: int = 1) -> AsyncIterator[list[Page]]:
        """Fresh pages, each in its own context. What their consoles said is printed, for pytest to show on failure."""
        opened = await asyncio.gather(*(self.open() for _ in range(count)))
        try:
            yield [page for page, _ in opened]
        finally:
            for number, (page, context) in enumerate(opened):
                for line in page.log:
                    print(f"page {number}: {line}")
                await self.run(context.close())
