"""What the tests of the pages Draw and Compare do in Chromium."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

DROP = """([data, name, type]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  const how = { dataTransfer: transfer, bubbles: true, cancelable: true };
  document.body.dispatchEvent(new DragEvent("dragenter", how));
  document.body.dispatchEvent(new DragEvent("drop", how));
}"""
WATCH_PREVIEWS = """() => {
  window.previews = [];
  new MutationObserver((changes) => {
    for (const { target } of changes) {
      if (target.matches?.("img.forming")) window.previews.push(target.src);
    }
  }).observe(document.body, { subtree: true, attributes: true, attributeFilter: ["src"] });
}"""


def until(page: Any, condition: str, *, seconds: float = 20) -> None:
    """Waits until an expression is true on the page, whose policy forbids Playwright's own way."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"not true after {seconds} seconds: {condition}"
        page.wait_for_timeout(30)


def drop(page: Any, data: bytes, name: str = "picture.png", type: str = "image/png") -> None:
    """Drops a file on the page."""
    page.evaluate(DROP, [base64.b64encode(data).decode(), name, type])


def fill(page: Any, **values: object) -> None:
    """Fills in fields by their labels."""
    for label, value in values.items():
        page.get_by_label(label.replace("_", " "), exact=True).first.fill(str(value))


def draw(page: Any, **values: object) -> None:
    """Fills in fields and draws, without waiting."""
    fill(page, **values)
    page.get_by_role("button", name="Draw", exact=True).click()


def drawn(page: Any, count: int = 1) -> None:
    """Waits until the stage has as many finished pictures and the gallery shows them."""
    until(page, f"document.querySelectorAll('button.tile').length === {count}")
    page.wait_for_selector(".stage-head", state="hidden")


def thumbnails(page: Any, count: int) -> None:
    """Waits until the gallery has as many pictures."""
    until(page, f"document.querySelectorAll('.thumbnail').length === {count}")


def tab_to(page: Any, name: str, *, most: int = 80) -> None:
    """Presses Tab until the focused element has a name."""
    script = """() => { const e = document.activeElement;
      const label = e.getAttribute("aria-label") ?? e.labels?.[0]?.textContent;
      return (label ?? e.textContent).trim() }"""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate(script) == name:
            return
    raise AssertionError(f"Tab does not reach {name!r}")


def newest(folder: Path) -> Path:
    """Returns the picture of the folder with the largest number."""
    return max(folder.glob("0*.png"))


@contextmanager
def relay(url: str) -> Iterator[tuple[str, Any]]:
    """Passes connections on to a server. Yields its address and a function that cuts everything,
    as when the server is killed."""
    target, listener = urlsplit(url), socket.create_server(("127.0.0.1", 0))
    both: list[socket.socket] = []

    def pass_on(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):  # cut
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            end.close()

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection((target.hostname, target.port))
            except OSError:
                return
            both.extend((client, server))
            for pair in ((client, server), (server, client)):
                threading.Thread(target=pass_on, args=pair, daemon=True).start()

    def cut() -> None:
        for end in (listener, *both):
            with suppress(OSError):  # already closed
                end.shutdown(socket.SHUT_RDWR)  # ends the calls that wait for it
            end.close()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", cut
    finally:
        cut()
