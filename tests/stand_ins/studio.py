"""Starts a studio in a thread, and opens its page in Chromium."""

from __future__ import annotations

import gc
import os
import shutil
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from pinxit.serve.app import create_app
from pinxit.serve.settings import StudioConfig
from pinxit.serve.studio import Studio

CHROMIUM = os.environ.get("PINXIT_CHROMIUM") or shutil.which("chromium")
"""The browser of the tests. The variable names another one."""


@dataclass(frozen=True)
class RunningStudio:
    """A studio that answers on a port of this machine."""

    url: str
    """The address of the page, without a slash at its end."""
    app: FastAPI

    @property
    def studio(self) -> Studio:
        """The state of the server."""
        return self.app.state.studio

    @property
    def engine(self) -> Any:
        """The engine that draws."""
        return self.studio.engine


@contextmanager
def serving(app: FastAPI, **options: Any) -> Iterator[str]:
    """Serves an application in a thread, and yields its address."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_level="error", timeout_graceful_shutdown=2, ws="none", **options
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline, "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server did not end"
        listener.close()
        with warnings.catch_warnings():  # of connections that were open when the loop ended
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


@contextmanager
def running_studio(config: StudioConfig | None = None, **options: Any) -> Iterator[RunningStudio]:
    """Starts a studio with these settings, and ends it after the block."""
    app = create_app(config or StudioConfig(**options))
    with serving(app) as url:
        yield RunningStudio(url, app)


def folders_in(root: Path) -> dict[str, Any]:
    """Returns settings with empty folders for runs, pictures and data below `root`."""
    for name in ("runs", "outputs", "data"):
        (root / name).mkdir()
    return {"runs": str(root / "runs"), "out": str(root / "outputs"), "data": (str(root / "data"),)}


@contextmanager
def chromium(**options: Any) -> Iterator[Any]:
    """Starts Chromium without a window, and yields Playwright's browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"], **options
        )
        try:
            yield browser
        finally:
            browser.close()


class WatchedPage:
    """Collects what must not happen on a page: errors, and requests to other origins."""

    def __init__(self, page: Any, origin: str) -> None:
        self.page = page
        self.problems: list[str] = []
        self.expected: list[str] = []
        """Parts of messages that a test expects."""
        self._origin = origin
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("request", self._request)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self._origin, "data:", "blob:")):
            self.problems.append(f"a request to {request.url}")

    def check(self) -> None:
        """Raises if anything happened that no test expects."""
        left = [each for each in self.problems if not any(part in each for part in self.expected)]
        assert left == []


@contextmanager
def opened(browser: Any, url: str, path: str = "/", **options: Any) -> Iterator[WatchedPage]:
    """Opens a page of the studio in a context of its own, and checks at the end that nothing went
    wrong on it. `options` are those of Playwright's ``new_context``."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(60_000)
    try:
        watched = WatchedPage(context.new_page(), url)
        watched.page.goto(url + path)
        yield watched
        watched.check()
    finally:
        context.close()


def accessibility(page: Any) -> list[str]:
    """Returns the findings of axe-core on a page, each with its rule, impact and elements."""
    import axe_playwright_python
    from playwright.sync_api import Page

    assert isinstance(page, Page)
    folder = Path(axe_playwright_python.__file__).parent
    script = next(folder.rglob("axe.min.js")).read_text(encoding="utf-8")
    page.evaluate(script + "\n;undefined")
    found = page.evaluate("axe.run()")["violations"]
    return [
        f"{each['id']} ({each['impact']}): {[node['html'][:160] for node in each['nodes']]}"
        for each in found
    ]
