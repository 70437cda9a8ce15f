"""Gives transformers the class that diffusers' PRX pipelines load T5Gemma with."""

from __future__ import annotations

from typing import Any


def t5gemma_class() -> Any:
    """Returns diffusers' T5GemmaEncoder, after adding it to transformers.

    diffusers 0.42.1 adds it on import, but to a module that transformers 5 replaces when it is used
    for the first time, so that it is there in a new process only for `DiffusionPipeline`.
    """
    import transformers
    from diffusers.pipelines import prx

    assert transformers.CLIPTextModel  # replaces the module, if that has not happened
    import sys

    known = sys.modules["transformers"]
    if not hasattr(known, "T5GemmaEncoder"):
        known.T5GemmaEncoder = prx.T5GemmaEncoder
    return prx.T5GemmaEncoder
