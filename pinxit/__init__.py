"""Pinxit: train text-to-image models from scratch, end to end, in one JAX program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pinxit.version import __version__

if TYPE_CHECKING:
    from pinxit.pipeline import TextToImage, load_checkpoint

__all__ = ["TextToImage", "__version__", "load_checkpoint"]


def __getattr__(name: str) -> Any:
    # JAX is imported when a model is first used, not when the package is imported.
    if name in ("TextToImage", "load_checkpoint"):
        from pinxit import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
