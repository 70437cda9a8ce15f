"""What a run's data take: rows of the table, bytes fetched and kept, hours of fetching.

The assumptions and the arithmetic are those of docs/coyo.md, whose table a test works out anew.
"""

from __future__ import annotations

from dataclasses import dataclass

PASS = 0.25
"""Share of COYO's rows that pass the filters: an estimate."""
ALIVE = 0.55
"""Share of these whose image is still there: an estimate."""
FETCHED = 120e3
"""Bytes of an image as fetched."""
KEPT = 30e3
"""Bytes of an image as kept: 256 pixels, quality 95; goes with the area."""
LATENT = 8.4e3
"""Bytes of a latent with its caption: 32 x 32 x 4 in float16; goes with the area."""
T5_ROW = 164e3
"""Bytes of a T5-XXL embedding of 20 tokens."""
T5_WIDTH = 4096
"""Width of T5-XXL's features."""
ATTEMPTS = 1000.0
"""Addresses tried a second on 16 cores."""
LINE = 1e9
"""Bits a second."""
TABLE = 747e6
"""Rows of COYO-700M."""


@dataclass(frozen=True)
class DataPlan:
    """The data of one run."""

    seen: float
    """Images that the run sees, with repetitions."""
    kept: float
    """Different images: as many as the run sees, or all that COYO gives."""
    rows: float
    """Rows of the table to go through."""
    fetched_bytes: float
    image_bytes: float
    """Of the images as kept."""
    latent_bytes: float
    text_bytes: float
    """Bytes of stored text embeddings; 0 where there are none."""
    fetch_seconds: float
    """The longer of attempts and bytes."""

    @property
    def epochs(self) -> float:
        """How often the run sees each image."""
        return self.seen / self.kept


def data_plan(images: float, *, image_size: int, latents: bool, stored_width: int) -> DataPlan:
    """The data of a run that sees so many images, taken from COYO.

    `stored_width` is the width of the text embeddings that are stored, 0 where none are.
    """
    kept = min(images, TABLE * PASS * ALIVE)
    tried = kept / ALIVE
    area = (image_size / 256) ** 2
    fetched = kept * FETCHED
    return DataPlan(
        seen=images,
        kept=kept,
        rows=tried / PASS,
        fetched_bytes=fetched,
        image_bytes=kept * KEPT * area,
        latent_bytes=kept * LATENT * area if latents else 0.0,
        text_bytes=kept * T5_ROW * stored_width / T5_WIDTH,
        fetch_seconds=max(tried / ATTEMPTS, fetched * 8 / LINE),
    )
