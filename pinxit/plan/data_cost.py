"""The cost of a run's data: table rows, bytes fetched and stored, and hours of fetching.

The assumptions and the arithmetic are those of docs/coyo.md. A test recomputes the table there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

PASS = 0.25
"""Estimated fraction of COYO's rows that pass the filters."""
ALIVE = 0.55
"""Estimated fraction of these rows whose image is still online."""
FETCHED = 120e3
"""Bytes of a fetched image."""
KEPT = 30e3
"""Bytes of a stored image of 256 pixels at quality 95, proportional to the area."""
LATENT = 8.4e3
"""Bytes of a 32 x 32 x 4 latent in float16 with its caption and metadata."""
BESIDE_LATENT = LATENT - 32 * 32 * 4 * 2
"""Bytes of the caption and metadata alone."""
T5_ROW = 164e3
"""Bytes of a T5-XXL embedding of 20 tokens."""
T5_WIDTH = 4096
"""Width of T5-XXL's features."""
ATTEMPTS = 1000.0
"""Fetch attempts per second on 16 cores."""
LINE = 1e9
"""Bandwidth of the internet connection in bits per second."""
TABLE = 747e6
"""Number of rows of COYO-700M."""


@dataclass(frozen=True)
class DataPlan:
    """The data that one run needs."""

    seen: float
    """Images that the run trains on, counting repetitions."""
    distinct: float
    """Distinct images: as many as the run trains on, or all that COYO yields if that is fewer."""
    rows: float
    """Table rows that must be read to get these images."""
    fetched_bytes: float
    image_bytes: float
    """Bytes of the stored images."""
    latent_bytes: float
    text_bytes: float
    """Bytes of the stored text embeddings; 0 if none are stored."""
    fetch_seconds: float
    """Seconds of fetching, limited by the attempts or by the bandwidth."""
    streamed: bool = False
    """Whether the images are fetched while the run trains, in each epoch, and not stored."""
    transferred_bytes: float = 0.0
    """Bytes of a stream's images and latents that pass between the host and the devices."""

    @property
    def epochs(self) -> float:
        """The number of times the run trains on each image."""
        return self.seen / self.distinct

    def to_json(self) -> dict[str, Any]:
        """Returns the fields and `epochs` as plain values."""
        values = asdict(self)
        values["kept"] = values.pop("distinct")
        return values | {"epochs": self.epochs}


def stream_needs(images_per_second: float) -> tuple[float, float]:
    """Returns the attempts per second and the bits per second that keep a streamed run busy."""
    return images_per_second / ALIVE, images_per_second * FETCHED * 8


def data_plan(
    images: float,
    *,
    image_size: int,
    latent: Sequence[int] | None,
    stored_width: int,
    streamed: bool = False,
    transferred: int = 0,
) -> DataPlan:
    """Returns the data of a run that trains on `images` images from COYO.

    `latent` is the shape of a latent (height, width, channels), or None if none are stored.
    `stored_width` is the width of the stored text embeddings, or 0 if none are stored. A streamed
    run stores nothing, and moves `transferred` bytes to and from the devices for each image.
    """
    distinct = min(images, TABLE * PASS * ALIVE)
    obtained = images if streamed else distinct
    tried = obtained / ALIVE
    area = 0.0 if streamed else (image_size / 256) ** 2
    stored_width = 0 if streamed else stored_width
    latent_size = BESIDE_LATENT + 2 * math.prod(latent or ())
    fetched = obtained * FETCHED
    return DataPlan(
        seen=images,
        distinct=distinct,
        rows=tried / PASS,
        fetched_bytes=fetched,
        image_bytes=distinct * KEPT * area,
        latent_bytes=distinct * latent_size if latent and not streamed else 0.0,
        text_bytes=distinct * T5_ROW * stored_width / T5_WIDTH,
        fetch_seconds=max(tried / ATTEMPTS, fetched * 8 / LINE),
        streamed=streamed,
        transferred_bytes=images * transferred,
    )
