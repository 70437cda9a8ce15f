"""Pinxit: train text-to-image models from scratch, end to end, in one JAX program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pinxit.version import __version__

if TYPE_CHECKING:
    from pinxit.evaluate.evaluate_model import evaluate_model
    from pinxit.model_loading import load_checkpoint
    from pinxit.pipeline import TextToImage

__all__ = ["TextToImage", "__version__", "evaluate_model", "load_checkpoint"]


def __getattr__(name: str) -> Any:
    # JAX is imported when a model is first used, not when the package is imported.
    if name == "TextToImage":
        from pinxit.pipeline import TextToImage

        return TextToImage
    if name == "load_checkpoint":
        from pinxit.model_loading import load_checkpoint

        return load_checkpoint
    if name == "evaluate_model":
        from pinxit.evaluate.evaluate_model import evaluate_model

        return evaluate_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
