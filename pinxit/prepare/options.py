"""The settings of `pinxit prepare`, and their checks before anything is fetched."""

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
from pinxit.output_paths import check_local
from pinxit.prepare.engines.choose import ENGINES
from pinxit.text_decoding import known_encoding

TEXT = ("text_encoder", "text_max_tokens", "caption_cleaning")
"""The settings that only `store_text` uses."""
THEN_PACKED = (
    "a folder on this machine or a mounted one, --out DIR; then `pinxit pack DIR --out URL` copies "
    "the finished dataset, and --dataset_path URL trains on it (docs/object_stores.md)"
)
"""The way to a dataset in an object store."""
FETCHING = ("limit", "retry_failed", "skip_failed", "outage_hours", "previews")
"""The settings that only the first stage uses."""


@dataclass(frozen=True)
class PrepareOptions:
    """Options of `pinxit prepare`."""

    source: tuple[str, ...] = ()
    """Name of the source, with or without --source: pinxit prepare coyo --out DIR."""
    out: str | None = None
    """The folder of the prepared dataset."""
    find_duplicates: str | None = None
    """Only write the list of the whole source's duplicates to this file, for a later preparation
    with filters.duplicates; no dataset is prepared."""
    dataset_path: str | None = None
    """A file, folder, glob, URL or Hub dataset to read instead of the source's default."""
    dataset_revision: str | None = None
    """Commit or branch of a dataset on the Hub."""
    columns: tuple[str, ...] = ()
    """Names of columns that differ from the usual ones: caption=long_caption url=link."""
    text_encoding: str | None = None
    """Encoding of captions that are not Unicode, such as cp1252 or shift_jis; without it, their
    rows are dropped as bad_text."""
    unit_rows: int = 10_000
    """Approximate rows in a unit of work, which is the most that a crash can lose."""
    limit: int | None = None
    """Number of the source's rows to process, rounded up to whole units; none means all."""
    stage: Literal["all", "images", "latents"] = "all"
    """The stages to run: images (fetch them), latents (encode the existing images), or all, which
    encodes units while the images of others are fetched."""
    follow: bool = False
    """With --stage latents, also wait for the units whose images another command is still
    preparing, and encode them as they are finished."""
    verify: bool = False
    """Compare the SHA-256 of all files of finished units, and make units with damaged ones again.
    Without it, missing files and those of another size are made again."""
    retry_failed: bool = False
    """Retry the rows that failed for a reason that may be temporary."""
    skip_failed: bool = False
    """Leave out units that fail because of their own data, such as a damaged file, and finish the
    others. The manifest lists the units left out, and the next run tries them again."""
    outage_hours: float = 6.0
    """Hours that the preparation waits for the network when no host answers any more; 0 means not
    at all. Then it stops, and the same command goes on. Single hosts that had answered before are
    waited for at most 45 seconds."""
    previews: int = 2
    """Number of rejected images of each unit that the report shows for each reason, from the first
    units. 0 fetches and shows none."""
    engine: str = "local"
    """The engine: local (processes), inline, rank (a static share, for Slurm and pods) or ray."""
    address: str | None = None
    """Address of a Ray cluster; none starts a cluster on this machine."""
    rank: int | None = None
    """This command's number among `world`, from 0; none means Slurm's."""
    world: int | None = None
    """Number of commands that share the units; none means Slurm's."""
    workers: int = 2
    """Number of units done at the same time, each with `images.workers` decoding processes."""
    latent_workers: int = 1
    """Number of processes that encode, each on all devices that it sees. On TPUs and GPUs this
    must be 1, which is this process."""
    image_size: int = 256
    """Side of the images, in pixels."""
    vae: str = "sd"
    """The autoencoder: tiny, sd, sdxl, dc_ae, a directory, a repository id, or none (store only
    images)."""
    store_text: bool = False
    """Also store text embeddings. This pays off for T5 and T5Gemma; CLIP is cheaper to run in each
    step."""
    text_encoder: str = "t5"
    """The text encoder for `store_text`; of two joined by +, the embeddings of the T5 or
    T5Gemma are stored."""
    text_max_tokens: int | None = None
    """Maximum number of tokens of a caption; none means the text encoder's own."""
    caption_cleaning: Literal["stock", "light", "none"] = "stock"
    """The cleaning of captions before they are encoded; the shards hold the original captions."""
    encoder_dtype: Literal["float32", "bfloat16"] = "float32"
    """The dtype in which the encoders compute."""
    encode_batch: int = 64
    """Number of images encoded together."""
    filters: FilterConfig = field(default_factory=FilterConfig)
    """Settings that select the rows to fetch. auto depends on the source."""
    fetch: FetchConfig = field(default_factory=FetchConfig)
    """Settings for fetching images."""
    images: ImageConfig = field(default_factory=ImageConfig)
    """Settings for decoding and cropping images; image_size sets their size."""

    def __post_init__(self) -> None:
        choice("engine", self.engine, ENGINES)
        positives = ("unit_rows", "limit", "workers", "latent_workers", "image_size")
        for name in (*positives, "encode_batch", "text_max_tokens"):
            positive(name, getattr(self, name))
        positive("outage_hours", self.outage_hours, minimum=0)
        positive("previews", self.previews, minimum=0)
        check_local("out", self.out, valid=THEN_PACKED)
        check_local("find_duplicates", self.find_duplicates)
        named_columns(self.columns)
        known_encoding("text_encoding", self.text_encoding)
        self._check_use()

    def _check_use(self) -> None:
        """Raises for a setting that would have no effect."""
        unused: list[tuple[str, object, str]] = []
        if not self.store_text:
            reason = "not used without --store_text 1"
            unused += [(name, getattr(PrepareOptions, name), reason) for name in TEXT]
        if self.stage == "latents":
            reason = "not used by --stage latents, which encodes all existing images"
            unused += [(name, getattr(PrepareOptions, name), reason) for name in FETCHING]
        else:
            unused.append(("follow", False, "not used without --stage latents"))
        if self.vae == "none":
            unused.append(("store_text", False, "not used with --vae none, which encodes nothing"))
        for name, default, problem in unused:
            if getattr(self, name) != default:
                raise UsageError(name, getattr(self, name), problem=problem)
        if self.images.size not in (ImageConfig.size, self.image_size):
            problem = "not used here: set image_size instead"
            raise UsageError("images.size", self.images.size, problem=problem)
        if self.stage == "latents" and self.vae == "none":
            raise UsageError("vae", "none", problem="not possible with --stage latents")

    @property
    def encodes(self) -> bool:
        """Whether this command runs the second stage."""
        return self.stage != "images" and self.vae != "none"

    @property
    def name(self) -> str:
        """The source's name."""
        if len(self.source) != 1:
            names = " ".join(self.source) or None
            raise UsageError("source", names, problem="not one name", valid=list(SOURCES))
        choice("source", self.source[0], SOURCES)
        return self.source[0]

    @property
    def folder(self) -> Path:
        """The output folder."""
        if self.out is None:
            raise UsageError("out", None, problem="missing", valid="a folder: --out DIR")
        folder = Path(self.out).expanduser()
        if folder.exists() and not folder.is_dir():
            raise UsageError("out", self.out, problem="a file", valid="a folder")
        return folder
