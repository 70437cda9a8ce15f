"""Pinxit: train text-to-image models from scratch, end to end, in one JAX program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pinxit.version import __version__

if TYPE_CHECKING:
    from pinxit.model_loading import load_checkpoint
    from pinxit.pipeline import TextToImage

__all__ = ["TextToImage", "__version__", "load_checkpoint"]


def __getattr__(name: str) -> Any:
    # JAX is imported when a model is first used, not when the package is imported.
    if name == "TextToImage":
        from pinxit.pipeline import TextToImage

        return TextToImage
    if name == "load_checkpoint":
        from pinxit.model_loading import load_checkpoint

        return load_checkpoint
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
