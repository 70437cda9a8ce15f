"""The settings of `pinxit prepare`, and what is refused before anything is fetched."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pinxit.config import UsageError, choice, positive
from pinxit.data.fetch.fetcher import FetchConfig
from pinxit.data.filters.row_filter import FilterConfig
from pinxit.data.images.decode import ImageConfig
from pinxit.data.sources.catalogue import SOURCES
from pinxit.data.sources.columns import named_columns
from pinxit.prepare.engines.choose import ENGINES

TEXT = ("text_encoder", "text_max_tokens", "caption_cleaning")
"""Settings of the text that `store_text` stores."""
FETCHING = ("limit", "retry_failed", "skip_failed")
"""Settings of the first stage that change what it does with the source."""


@dataclass(frozen=True)
class PrepareOptions:
    """Options of `pinxit prepare`."""

    source: tuple[str, ...] = ()
    """Name of the source, also as a plain word: pinxit prepare coyo --out DIR."""
    out: str | None = None
    """The folder of the prepared dataset."""
    find_duplicates: str | None = None
    """Prepare nothing, but write the list of the whole set's duplicates to this file, to be named
    in filters.duplicates then."""
    dataset_path: str | None = None
    """A file, folder, glob, URL or dataset of the hub, in place of the released one."""
    dataset_revision: str | None = None
    """Commit or branch of a dataset on the hub."""
    columns: tuple[str, ...] = ()
    """Names of columns, where they are unusual: caption=long_caption url=link."""
    unit_rows: int = 10_000
    """Rows of a unit of work, about: what a crash costs at most."""
    limit: int | None = None
    """Rows of the source to look at, rounded up to whole units; none: all."""
    stage: Literal["all", "images", "latents"] = "all"
    """What to do: fetch images, encode those that are there, or one after the other."""
    retry_failed: bool = False
    """Take up the rows again that failed in a way that may heal."""
    skip_failed: bool = False
    """Leave out units of the source that fail by themselves, such as a damaged file, and finish the
    others; the manifest names them, and the next run tries them again."""
    engine: str = "local"
    """local (processes), inline, rank (a static share, for Slurm and pods) or ray."""
    address: str | None = None
    """Address of a Ray cluster; none: one on this machine."""
    rank: int | None = None
    """This command's number among `world`; none: as Slurm says."""
    world: int | None = None
    """Commands that share the units."""
    workers: int = 2
    """Units fetched at the same time, each with `images.workers` decoding processes."""
    latent_workers: int = 1
    """Processes that encode, each on all devices it sees: 1 (this process) on TPUs and GPUs."""
    image_size: int = 256
    """Side of the images, in pixels."""
    vae: str = "sd"
    """tiny, sd, sdxl, none (keep images alone), a directory or a repository id."""
    store_text: bool = False
    """Also store text embeddings (worth it for T5; CLIP is cheaper to run in each step)."""
    text_encoder: str = "t5"
    """Whose embeddings `store_text` stores; of two joined by +, those of the T5."""
    text_max_tokens: int | None = None
    """Tokens of a caption that are read; none: as many as the text encoder's own default."""
    caption_cleaning: Literal["stock", "light", "none"] = "stock"
    """What is done to captions before they are encoded; the shards keep them as they are."""
    encoder_dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the encoders."""
    encode_batch: int = 64
    """Images encoded together."""
    filters: FilterConfig = field(default_factory=FilterConfig)
    """Which rows are worth fetching."""
    fetch: FetchConfig = field(default_factory=FetchConfig)
    """How images are fetched."""
    images: ImageConfig = field(default_factory=ImageConfig)
    """How images are decoded and cropped; their size is image_size."""

    def __post_init__(self) -> None:
        choice("engine", self.engine, ENGINES)
        positives = ("unit_rows", "limit", "workers", "latent_workers", "image_size")
        for name in (*positives, "encode_batch", "text_max_tokens"):
            positive(name, getattr(self, name))
        named_columns(self.columns)
        self._check_use()

    def _check_use(self) -> None:
        """Raises for a setting that would do nothing."""
        nothing: list[tuple[str, object, str]] = []
        if not self.store_text:
            why = "of no use without store_text"
            nothing += [(name, getattr(PrepareOptions, name), why) for name in TEXT]
        if self.stage == "latents":
            why = "of no use to stage latents, which takes the images that are there"
            nothing += [(name, getattr(PrepareOptions, name), why) for name in FETCHING]
        if self.vae == "none":
            nothing.append(("store_text", False, "of no use with vae none, which encodes nothing"))
        for name, default, problem in nothing:
            if getattr(self, name) != default:
                raise UsageError(name, getattr(self, name), problem=problem)
        if self.images.size not in (ImageConfig.size, self.image_size):
            problem = "of no use here: the size is image_size"
            raise UsageError("images.size", self.images.size, problem=problem)
        if self.stage == "latents" and self.vae == "none":
            raise UsageError("vae", "none", problem="without latents to make")

    @property
    def encodes(self) -> bool:
        """Whether there is a second stage."""
        return self.stage != "images" and self.vae != "none"

    @property
    def name(self) -> str:
        """The source's name."""
        if len(self.source) != 1:
            given = " ".join(self.source) or None
            raise UsageError("source", given, problem="not one name", valid=list(SOURCES))
        choice("source", self.source[0], SOURCES)
        return self.source[0]

    @property
    def folder(self) -> Path:
        """Where to."""
        if self.out is None:
            raise UsageError("out", None, problem="missing", valid="a folder: --out DIR")
        folder = Path(self.out).expanduser()
        if folder.exists() and not folder.is_dir():
            raise UsageError("out", self.out, problem="a file", valid="a folder")
        return folder
