"""Everything a run is told: one frozen dataclass, checked when made, saved with the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from pinxit.config import UsageError, choice, from_json, one_of
from pinxit.config import positive as positive_or_none
from pinxit.data.fetch.fetcher import FetchConfig
from pinxit.data.filters.row_filter import FilterConfig
from pinxit.data.images.decode import ImageConfig
from pinxit.data.prepared.manifest import is_prepared
from pinxit.data.sources.columns import named_columns
from pinxit.devices.processes import DistributedConfig
from pinxit.flow.objective import OBJECTIVES, FlowMatching
from pinxit.sampling import Sampling
from pinxit.train.datasets import (
    DATASETS,
    PREPARED,
    dataset_names,
)
from pinxit.train.ema import EmaConfig
from pinxit.train.optimizer import OptimizerConfig

PIXEL_PATCH = 8
"""Side of a token of a pixel model, where the settings leave it open."""

__all__ = [
    "EmaConfig",
    "EvalConfig",
    "FetchConfig",
    "FilterConfig",
    "FlowMatching",
    "ImageConfig",
    "ModelConfig",
    "OptimizerConfig",
    "SampleGridConfig",
    "Sampling",
    "TrainConfig",
    "config_from_json",
]


def _require(
    prefix: str, config: Any, *, positive: tuple[str, ...], natural: tuple[str, ...]
) -> None:
    """Raises for the first field that is not above 0 (`positive`) or is below 0 (`natural`)."""
    for names, least in ((positive, 1), (natural, 0)):
        for name in names:
            value = getattr(config, name)
            positive_or_none(f"{prefix}{name}", value, minimum=least)


@dataclass(frozen=True)
class ModelConfig:
    """The network: a preset, and what differs from it (none: as the preset says)."""

    preset: str = "tiny"
    """Named size: debug, tiny, small, base, large or xlarge."""
    use_stable_vae: bool = True
    """Train on the autoencoder's latents; off: on pixels."""
    patch_size: int | None = None
    """Side of a token, in latent cells (pixels, without the autoencoder)."""
    hidden_size: int | None = None
    """Width of the model."""
    depth: int | None = None
    """Number of blocks."""
    num_heads: int | None = None
    """Attention heads; must divide hidden_size."""
    mlp_ratio: float | None = None
    """Width of the MLP over hidden_size."""
    modulation_rank: int | None = None
    """Rank of the modulation that each block adds to the shared one; 0 for none."""
    rope_theta: float | None = None
    """Base of the rotary frequencies."""
    bottleneck_size: int | None = None
    """Width of the patch embedding's bottleneck (pixel models)."""
    prediction: Literal["velocity", "latents"] | None = None
    """What the last layer outputs; "latents" is converted to a velocity."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Arithmetic of the forward pass; none: float32, or what use_amp picks for the device."""
    attention: Literal["xla", "cudnn", "pallas"] | None = None
    """The program that computes attention; none: the one made for the device, if it works there."""
    remat: Literal["none", "dots", "full", "offload"] | None = None
    """What the backward pass computes again instead of storing: nothing, all but matrix products,
    whole blocks; or as dots, with the products kept in the host's memory."""
    scan_blocks: bool | None = None
    """Compile one block and loop over it; off: unroll."""
    scan_unroll: int | None = None
    """Blocks in one turn of that loop."""

    def __post_init__(self) -> None:
        """Refuses sizes that are not positive; the transformer's own config checks the rest."""
        names = ("patch_size", "hidden_size", "depth", "num_heads")
        names += ("bottleneck_size", "scan_unroll")
        _require("model.", self, positive=names, natural=("modulation_rank",))

    def overrides(self) -> dict[str, Any]:
        """The fields that differ from the preset, named as in `TransformerConfig`."""
        own = ("preset", "use_stable_vae")
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in own}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class SampleGridConfig:
    """The pictures of the sample grids, the same all run long."""

    prompts: tuple[str, ...] = (
        "A beautiful sunset over mountains",
        "a small red house on the left under a full moon",
        "a large yellow tree on a foggy beach at dawn",
        "a purple castle in the middle of a desert at noon",
    )
    """A row of pictures for each prompt."""
    seeds: tuple[int, ...] = (0, 1)
    """One picture of each prompt for each seed."""

    def __post_init__(self) -> None:
        """Refuses empty lists."""
        for name in ("prompts", "seeds"):
            if not getattr(self, name):
                raise UsageError(f"samples.{name}", (), problem="empty", valid="one or more")


@dataclass(frozen=True)
class EvalConfig:
    """The held-out evaluation at the end of a run (and on the way, every eval_interval steps)."""

    prompts: int = 256
    """Held-out prompts drawn and judged at the end; 0: none."""
    batch_size: int = 32
    """Pictures or rows computed together."""
    images: int = 512
    """Held-out rows for the validation loss; 0: none."""

    def __post_init__(self) -> None:
        """Refuses negative counts."""
        _require("evaluation.", self, positive=("batch_size",), natural=("prompts", "images"))
        if 0 < self.images < 10:
            raise UsageError(
                "evaluation.images", self.images, problem="too few", valid="0, or 10 or more"
            )


@dataclass(frozen=True)
class TrainConfig:
    """A training run."""

    name: str = "scenes"
    """The run's folder inside output_dir."""
    dataset_name: str = "scenes"
    """Where images and captions come from: scenes or mock are drawn; coyo, laion2b, laion-art,
    cc12m, monet, parquet, csv, tsv, jsonl, folder, webdataset and hf are streamed; prepared is read
    from dataset_path."""
    dataset_path: str | None = None
    """A file, folder, glob, URL or dataset of the Hugging Face hub, in place of the released one;
    or a folder that `pinxit prepare` made."""
    dataset_revision: str | None = None
    """Commit or branch of a dataset on the hub; none: the newest."""
    columns: tuple[str, ...] = ()
    """Names of a dataset's columns, where they are unusual: caption=long_caption url=link."""
    dataset_size: int = 20_000
    """Rows that are drawn and encoded once, at the start, and kept in memory (scenes, mock)."""
    image_size: int = 0
    """Side of the images, in pixels; 0: 64 for the debug and tiny presets, else 256."""
    batch_size: int = 16
    """Samples per update, over all devices and accumulation steps."""
    max_steps: int = 2_000
    """Updates."""
    seed: int = 0
    """Everything random follows from it."""
    gradient_accumulation_steps: int = 1
    """Cut the batch in this many pieces, to save memory; the result is the same."""
    use_amp: bool = False
    """Mixed precision: bfloat16 where the hardware has it, else float16 with loss scaling."""
    text_encoder: str = "auto"
    """tiny, clip, t5, clip+t5, a Hugging Face directory or a repository id; auto: tiny for the
    debug and tiny presets, else clip (ViT-L/14)."""
    text_max_tokens: int | None = None
    """Tokens of a caption that are read; none: 77, or as many as the text encoder has."""
    cache_text: bool | None = None
    """Encode captions once, before training, and keep the result; off: encode them in each step.
    None: T5 is kept, CLIP is not."""
    caption_cleaning: Literal["stock", "light", "none"] = "stock"
    """What is done to captions and prompts: stock is what stock diffusers pipelines do."""
    vae: str = "auto"
    """tiny, sd, sdxl, a Hugging Face directory or a repository id; auto: tiny for the debug and
    tiny presets, else sd."""
    encoder_dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic and memory of the frozen encoders; bfloat16 is float32 on GPUs before the A100."""
    encode_in_step: bool = False
    """Read images and run the autoencoder inside the training step; off: train on latents that
    were encoded before, or, of streams, meanwhile."""
    encoder_chunk: int = 0
    """Rows that the encoders inside the step take at once, over all devices; 0: a whole batch (or
    piece of it)."""
    log_interval: int = 20
    """Steps between rows of metrics."""
    save_interval: int = 500
    """Steps between checkpoints."""
    sample_interval: int = 500
    """Steps between sample grids; 0: only at the end."""
    eval_interval: int = 0
    """Steps between validation losses; 0: only at the end."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept."""
    max_skipped: int = 20
    """Non-finite steps in a row after which the run stops."""
    output_dir: str = "runs"
    """Where runs are written."""
    init_from: str | None = None
    """A run, checkpoint or release whose parameters this run begins with (its best average), such
    as a run at a smaller image size; none: fresh ones."""
    resume: bool = True
    """Continue the run of this name if there is one; off: refuse to touch it."""
    mesh: str = "auto"
    """How the devices share the work: sizes of the axes data, fsdp and tensor, such as
    data=2,fsdp=4, one of which may be *; auto: copies of a small state, else fsdp."""
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    """How several processes (hosts) that train together find one another."""
    wandb: bool = False
    """Also send metrics to Weights & Biases (extra: wandb)."""
    filters: FilterConfig = field(default_factory=FilterConfig)
    """Which rows are worth fetching (streamed datasets)."""
    fetch: FetchConfig = field(default_factory=FetchConfig)
    """How images are fetched (streamed datasets)."""
    images: ImageConfig = field(default_factory=ImageConfig)
    """How images are decoded and cropped (streamed datasets); their size is image_size."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How the gradient moves the parameters."""
    objective: Any = field(
        default_factory=FlowMatching,
        metadata=one_of(OBJECTIVES, wiring="pinxit.flow.objective.OBJECTIVES"),
    )
    """The loss: an `Objective` of a class in OBJECTIVES."""
    ema: EmaConfig = field(default_factory=EmaConfig)
    """Averages of the parameters."""
    sampling: Sampling = field(default_factory=lambda: Sampling(steps=16))
    """How sample grids and evaluation pictures are drawn. Training never reads it."""
    samples: SampleGridConfig = field(default_factory=SampleGridConfig)
    """What sample grids show."""
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    """The held-out evaluation."""

    def __post_init__(self) -> None:
        """Refuses what can be known to be wrong before anything is loaded."""
        positive = ("dataset_size", "batch_size", "max_steps", "log_interval")
        positive += ("gradient_accumulation_steps", "save_interval", "keep_checkpoints")
        positive += ("text_max_tokens",)
        natural = ("image_size", "seed", "sample_interval", "eval_interval", "max_skipped")
        natural += ("encoder_chunk",)
        _require("", self, positive=positive, natural=natural)
        self._check_dataset()
        if self.batch_size % self.gradient_accumulation_steps:
            raise UsageError(
                "gradient_accumulation_steps",
                self.gradient_accumulation_steps,
                problem="not a divisor of batch_size",
                valid=f"divisors of {self.batch_size}",
            )
        piece = self.batch_size // self.gradient_accumulation_steps
        if self.encoder_chunk and piece % self.encoder_chunk:
            problem = "not a divisor of the rows that are encoded together"
            raise UsageError(
                "encoder_chunk", self.encoder_chunk, problem=problem, valid=f"divisors of {piece}"
            )
        if self.encode_in_step and not self.model.use_stable_vae:
            problem = "nothing to encode: the model is trained on pixels"
            raise UsageError("encode_in_step", True, problem=problem, valid="0")
        if not self.name or self.name in (".", "..") or set(self.name) & set("/\\\0"):
            raise UsageError("name", self.name, problem="not the name of a folder")

    @property
    def encodes_ahead(self) -> bool:
        """Whether the step gets latents, rather than images."""
        return self.model.use_stable_vae and not self.encode_in_step

    def _check_dataset(self) -> None:
        """Refuses what cannot be read, wherever it is."""
        choice("dataset_name", self.dataset_name, dataset_names())
        named_columns(self.columns)
        drawn = self.dataset_name in DATASETS and self.dataset_path is None
        if drawn and self.images.bucketed:
            name = "buckets" if self.images.buckets else "bucket_step"
            problem = f"of no use here: {self.dataset_name} has images of one size"
            raise UsageError(f"images.{name}", getattr(self.images, name), problem=problem)

    @property
    def autoencoder(self) -> str:
        """What `load_autoencoder` is asked for: `vae`, or "none" for a model of pixels."""
        return self.vae if self.model.use_stable_vae else "none"

    def resolved(self) -> TrainConfig:
        """These settings with every choice made that was left open; what is saved with the run.

        The debug and tiny presets are made for the bundled encoders and 64 pixels, the others for
        the Stable Diffusion autoencoder, CLIP ViT-L/14 and 256 pixels. Pixel models have tokens of
        8 x 8 pixels.
        """
        small = self.model.preset in ("debug", "tiny")
        model = self.model
        if model.patch_size is None and not model.use_stable_vae:
            model = replace(model, patch_size=PIXEL_PATCH)
        clip, vae = ("tiny", "tiny") if small else ("clip", "sd")
        image_size = self.image_size or (64 if small else 256)
        if self.images.size not in (ImageConfig.size, image_size):
            problem = "not the size of this run's images"
            valid = f"image_size, which is {image_size} here"
            raise UsageError("images.size", self.images.size, problem=problem, valid=valid)
        images = replace(self.images, size=image_size)
        _ = images.targets  # raises for a step that does not divide the size
        return replace(
            self,
            dataset_name=self._dataset(),
            image_size=image_size,
            images=images,
            text_encoder=clip if self.text_encoder == "auto" else self.text_encoder,
            vae=vae if self.vae == "auto" else self.vae,
            model=model,
        )

    def _dataset(self) -> str:
        """The dataset's name: "prepared" where dataset_path is. Refuses what does not fit."""
        path, name = self.dataset_path, self.dataset_name
        if path is None:
            if name == PREPARED:
                valid = "a folder that `pinxit prepare` made"
                raise UsageError("dataset_path", None, problem="missing", valid=valid)
            return name
        if is_prepared(path):
            return PREPARED
        if name == PREPARED:
            raise UsageError("dataset_path", path, problem="not made by `pinxit prepare`")
        if name in DATASETS:
            names = [other for other in dataset_names() if other not in (*DATASETS, PREPARED)]
            if not Path(path).expanduser().exists():
                valid = "a folder that `pinxit prepare` made, or also a --dataset_name of: "
                valid += ", ".join(names)
                raise UsageError("dataset_path", path, problem="not there", valid=valid)
            problem = "not read from dataset_path"
            raise UsageError("dataset_name", name, problem=problem, valid=names)
        return name


RENAMED = {("sampling", "prompts"): "samples", ("sampling", "seeds"): "samples"}
"""Settings of older versions: (record, field) to the record that has the field now."""


def config_from_json(data: Mapping[str, Any]) -> TrainConfig:
    """The settings in a run's config.json, also in one that an older version wrote."""
    values = {n: dict(v) if isinstance(v, Mapping) else v for n, v in data.items()}
    for (record, name), now in RENAMED.items():
        if isinstance(values.get(record), dict) and name in values[record]:
            values.setdefault(now, {})[name] = values[record].pop(name)
    return from_json(TrainConfig, values)
