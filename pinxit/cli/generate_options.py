"""The options of `pinxit generate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pinxit.cli.sampling_options import SamplingOptions


@dataclass(frozen=True)
class GenerateOptions(SamplingOptions):
    """Options of `pinxit generate`."""

    prompt: tuple[str, ...] = ()
    """Prompts to draw, with or without --prompt: pinxit generate "a red house" "a blue tent". Names
    of pictures (a.png, b.webp, c.jpg) draw those pictures again from the recipes inside them; the
    other options then change the recipe."""
    prompts_file: str | None = None
    """A text file with one prompt on each line, in UTF-8 or UTF-16. A line may end with options:
    --w 512 --h 384 (or --size 512x384) --d SEED --s STEPS --l GUIDANCE --n NEGATIVE PROMPT. Lines
    that begin with # are comments."""
    text_encoding: str | None = None
    """Encoding of the prompts file if it is another one, such as cp1252 or gb18030."""
    checkpoint: str | None = None
    """A run, one of its checkpoints, a release, a PRX directory of diffusers, an exported
    .safetensors file, or a repository id on the Hub (owner/name); none means the model shipped with
    Pinxit, or for a picture the model that drew it."""
    out: str = "outputs"
    """Directory for the pictures. Existing files are never overwritten, and pictures that are
    already there are not drawn again."""
    format: Literal["png", "webp", "jpeg"] | None = None
    """Format of the files: png, webp or jpeg; none means png, or for a picture its own format."""
    quality: int | None = None
    """Quality of WebP and JPEG files, 1 to 100; none means 100 for WebP, which is lossless, and 95
    for JPEG."""
    seed: int = 0
    """Seed of the first picture; picture i is drawn from seed + i."""
    n: int = 1
    """Number of pictures for each prompt."""
    size: str | None = None
    """Side of the pictures in pixels, or WIDTHxHEIGHT, such as 320x192; none means the size that
    the model was trained on."""
    negative_prompt: str = ""
    """Text that guidance steers away from."""
    image: str | None = None
    """A picture to start from instead of noise alone."""
    mask: str | None = None
    """A picture that is white where --image is drawn again and black where it stays."""
    strength: float | None = None
    """The part of the path from noise to a picture that is drawn again, above 0 and up to 1. At 1
    nothing of --image is left."""
    ema: str | None = None
    """The run's average to draw with, or raw; none means the run's best."""
    encoder_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the text encoder and the autoencoder. bfloat16 takes half the memory."""
    batch_size: int | None = None
    """Number of pictures that each accelerator computes together; none means 4. The last bits of a
    picture may depend on it. A CPU computes pictures one by one, so it has no effect there."""
