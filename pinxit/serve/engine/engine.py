"""The engine, which draws the pictures of all requests."""

from __future__ import annotations

from pinxit.serve.settings import StudioConfig


class DrawingEngine:
    """Draws the pictures of all requests."""

    def __init__(self, config: StudioConfig) -> None:
        self.config = config

    def close(self) -> None:
        """Ends all work."""
