"""A real headless Chromium for tests of the page: what its console says, and whom it calls, is held against it."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, BrowserContext, Page, Request, async_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TIMEOUT_MS = 60_000
"""Long: other work may share the cores. What is waited for is a condition."""


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Run the system's Chromium, with a profile of its own."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


class Tab:
    """An open page, and what it did."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.origin = origin
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.set_default_timeout(TIMEOUT_MS)
        page.on("console", lambda said: self._complain(said.type, said.text))
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        page.on("request", self._requested)

    def _complain(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def _requested(self, request: Request) -> None:
        self.requests.append(request.url)

    @property
    def elsewhere(self) -> list[str]:
        """What it asked of anybody but the server."""
        origin = urlsplit(self.origin)
        return [url for url in self.requests if urlsplit(url)[:2] != (origin.scheme, origin.netloc)]

    def forgive(self, pattern: str) -> None:
        """Take back complaints that the test provoked; there must be some."""
        kept = [one for one in self.complaints if not re.search(pattern, one)]
        assert len(kept) < len(self.complaints), f"none of {self.complaints} says {pattern!r}"
        self.complaints = kept


@asynccontextmanager
async def tab(browser: Browser, port: int, **context: Any) -> AsyncIterator[Tab]:
    """Open a tab in a context of its own; the test fails if it complained, or called anybody but the server."""
    opened: BrowserContext = await browser.new_context(**context)
    try:
        one = Tab(await opened.new_page(), f"http://127.0.0.1:{port}")
        yield one
        await asyncio.sleep(0)
        assert one.complaints == []
        assert one.elsewhere == []
    finally:
        await opened.close()
