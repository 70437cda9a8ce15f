"""Resizes pictures as clean-fid 0.1.35 does in its mode "clean" (Parmar et al., arXiv:2104.11222).

Each channel becomes a PIL image of floats (mode ``F``), which PIL resizes to 299 x 299 with its
bicubic filter. That filter widens with the reduction, so that nothing is aliased. The result is
clipped to 0 to 255 and is not rounded. A picture that already has this size is unchanged.

clean-fid converts files to RGB before this: it repeats the channel of a grey picture, and drops an
alpha channel. Pinxit's pictures are always RGB, and others are refused here.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32
from PIL import Image

from pinxit.config import UsageError

SIZE = 299
"""The side of Inception's input, in pixels."""
DESCRIPTION = f"clean-fid: PIL bicubic on floats to {SIZE}, not rounded"


def clean_resize(picture: np.ndarray, size: int = SIZE) -> Float32[np.ndarray, "s s 3"]:
    """Returns an RGB picture of bytes, of any size, as floats from 0 to 255 with the side `size`.

    Raises `UsageError` for other arrays, such as pictures that are grey or have an alpha channel.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise UsageError(
            f"a picture is an array of {picture.dtype} with shape {picture.shape}; valid: uint8 "
            "with shape (height, width, 3)"
        )
    channels = []
    for channel in np.moveaxis(picture.astype(np.float32), 2, 0):
        image = Image.fromarray(np.ascontiguousarray(channel))
        channels.append(np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)))
    return np.stack(channels, axis=2).clip(0, 255)
