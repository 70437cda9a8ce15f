"""The settings for which images are accepted, and how they are cropped and scaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pinxit.config import UsageError, choice, positive
from pinxit.data.images.aspect_ratios import Size, make_buckets
from pinxit.data.images.formats import FORMATS, WEB

AUTO = "auto"
"""The value of a setting that depends on the source (see `pinxit.data.filters.resolve`)."""


@dataclass(frozen=True)
class ImageConfig:
    """Settings for which images are accepted and how they are cropped and scaled."""

    size: int = 256
    """Side of the square that an image is scaled to, in pixels, unless `buckets` are set."""
    crop: Literal["center", "random"] = "center"
    """Part of the image to keep if its aspect ratio differs; random depends on the key alone."""
    max_pixels: int = 64 * 2**20
    """Largest number of pixels; an image whose header announces more is not decoded."""
    min_side: int = 0
    """Smallest shorter side of the image itself, in pixels; filters.min_side applies to it too. 0
    accepts and enlarges all that the filters accept."""
    max_aspect: float | None = None
    """Largest ratio of the longer side to the shorter side of the image itself; filters.max_aspect
    applies to it too."""
    blank: Literal["auto", "keep", "drop"] = "auto"
    """Whether to keep or drop images of one colour. auto drops those from the web and keeps one's
    own."""
    max_repeats: int | Literal["auto"] = "auto"
    """Number of URLs of one host that may lead to the same picture with different captions. If
    there are more in a unit of work, all of them are placeholders and dropped. 0 keeps them. auto
    means 4."""
    formats: tuple[str, ...] = (AUTO,)
    """Accepted formats. auto means JPEG, PNG, WEBP, GIF, BMP, AVIF, HEIF and JXL, and of one's own
    images also TIFF. HEIF and JXL need the extra pinxit[formats]."""
    bucket_step: int = 0
    """Above 0, images roughly keep their aspect ratio: sides are multiples of this, and areas at
    most size x size (see `make_buckets`). 0 makes squares."""
    buckets: tuple[tuple[int, int], ...] = ()
    """Target sizes (width, height) to choose from by aspect ratio; they replace `bucket_step`."""
    timeout: float = 20.0
    """Seconds for one image, after which a `DecodePool` kills the decoding process."""
    workers: int | None = None
    """Number of processes of a `DecodePool`; none means one per available core."""
    memory_mb: int = 1024
    """Memory that one image may take in a process of a `DecodePool`, in MiB (Linux only)."""

    def __post_init__(self) -> None:
        for field in ("size", "max_pixels", "max_aspect", "workers", "memory_mb"):
            positive(field, getattr(self, field))
        for field in ("min_side", "bucket_step"):
            positive(field, getattr(self, field), minimum=0)
        positive("timeout", self.timeout, minimum=0.001)
        choice("crop", self.crop, ("center", "random"))
        choice("blank", self.blank, (AUTO, "keep", "drop"))
        if isinstance(self.max_repeats, str):
            choice("max_repeats", self.max_repeats, (AUTO, "0", "4"))
        else:
            positive("max_repeats", self.max_repeats, minimum=0)
        if not self.formats:
            raise UsageError("formats", self.formats, problem="empty", valid=[AUTO, *FORMATS])
        for name in self.formats:
            choice("formats", name, (AUTO, *FORMATS))
        for bucket in self.buckets:
            if len(bucket) != 2 or min(bucket) < 1:
                raise UsageError("buckets", bucket, problem="not a size", valid="(width, height)")

    @property
    def targets(self) -> tuple[Size, ...]:
        """The sizes that an image may be scaled to."""
        if self.bucket_step and not self.buckets:
            return make_buckets(self.size, step=self.bucket_step)
        return self.buckets or ((self.size, self.size),)

    @property
    def bucketed(self) -> bool:
        """Whether images are scaled to more than one size."""
        return bool(self.buckets or self.bucket_step)

    @property
    def accepted(self) -> tuple[str, ...]:
        """The accepted formats, where auto means those that are accepted from the web."""
        named = tuple(name for name in self.formats if name != AUTO)
        return tuple(dict.fromkeys((*WEB, *named))) if AUTO in self.formats else named
