"""Opens the studio's page in a browser of this computer."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from collections.abc import Mapping


def on_desktop(environment: Mapping[str, str], *, terminal: bool, platform: str) -> bool:
    """Returns whether a user sits in front of this computer: there is a screen, the command was
    typed in a terminal, and not from another computer."""
    if not terminal or "SSH_CONNECTION" in environment or "CI" in environment:
        return False
    if platform in ("darwin", "win32"):
        return True
    return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def should_open(choice: str) -> bool:
    """Returns whether to open a browser for the option ``--open``."""
    if choice != "auto":
        return choice == "1"
    return on_desktop(os.environ, terminal=sys.stderr.isatty(), platform=sys.platform)


def open_page(address: str) -> threading.Thread:
    """Opens an address in the browser, without waiting for it."""
    thread = threading.Thread(target=webbrowser.open, args=(address,), daemon=True)
    thread.start()
    return thread
