"""The settings of a run: one frozen dataclass, checked on construction and saved with the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pinxit.config import UsageError, choice, from_json, one_of
from pinxit.data.fetch.fetcher import FetchConfig
from pinxit.data.filters.row_filter import FilterConfig
from pinxit.data.images.decode import ImageConfig
from pinxit.data.prepared.dataset import is_dataset, read_manifest
from pinxit.data.sources.columns import named_columns
from pinxit.devices.processes import DistributedConfig
from pinxit.flow.objective import OBJECTIVES, FlowMatching
from pinxit.output_paths import check_local
from pinxit.sampling import Sampling
from pinxit.text_decoding import known_encoding
from pinxit.train.datasets import (
    DATASETS,
    PREPARED,
    dataset_names,
)
from pinxit.train.ema import EmaConfig
from pinxit.train.evaluation_settings import EvalConfig, SampleGridConfig
from pinxit.train.metric_writers.catalogue import NO_TRACKER, tracker_names
from pinxit.train.model_settings import AUTO, SMALL_PRESETS, ModelConfig, require_counts
from pinxit.train.optimizer import OptimizerConfig
from pinxit.train.prepared_settings import known_settings
from pinxit.train.step_profile import steps_to_profile

PIXEL_PATCH = 8
"""Default side of a token in a pixel model, in pixels."""

__all__ = [
    "AUTO",
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


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a training run."""

    name: str = "scenes"
    """Name of the run, which is also its folder inside output_dir."""
    dataset_name: str = "scenes"
    """Source of images and captions. scenes and mock are generated. coyo, laion2b, laion-art,
    cc12m, monet, parquet, csv, tsv, jsonl, folder, webdataset and hf are streamed. prepared is read
    from dataset_path."""
    dataset_path: str | None = None
    """A file, folder, glob, URL or Hugging Face dataset to read instead of the published one, or a
    folder that `pinxit prepare` wrote."""
    dataset_revision: str | None = None
    """Commit or branch of a Hugging Face dataset. none uses the newest."""
    columns: tuple[str, ...] = ()
    """Names of the dataset's columns if they are unusual, such as caption=long_caption url=link."""
    text_encoding: str | None = None
    """Encoding of captions that are not Unicode, such as cp1252 or shift_jis. Without it, their
    rows are dropped as bad_text."""
    dataset_size: int = 20_000
    """Number of rows to generate and encode at the start, and keep in memory (scenes, mock)."""
    cache_gb: float = 20.0
    """Largest size of the encoded datasets in output_dir/.cache, in GB (scenes, mock). Those used
    least recently are removed, but none that a running process uses."""
    image_size: int = 0
    """Side of the images, in pixels. 0 means 64 for the debug and tiny presets, else 256."""
    batch_size: int = 16
    """Number of samples per update, over all devices and accumulation steps."""
    max_steps: int = 2_000
    """Number of training steps (updates)."""
    seed: int = 0
    """Random seed, 0 to 4294967295, which determines everything that is random in a run."""
    gradient_accumulation_steps: int = 1
    """Number of pieces to split the batch into, to save memory. The result is the same. 0 takes the
    number with which the step is fastest on the devices."""
    use_amp: bool = False
    """Mixed precision: bfloat16 if the hardware supports it, else float16 with loss scaling."""
    text_encoder: str = "auto"
    """Text encoder: tiny, clip, t5, t5gemma, clip+t5, a Hugging Face directory or a repository id.
    auto means tiny for the debug and tiny presets, else clip (ViT-L/14)."""
    text_max_tokens: int | None = None
    """Maximum length of a caption, in tokens, for T5 (2 to 512; none means 77) and T5Gemma (2 to
    8192; none means 256). The length of CLIP is fixed."""
    cache_text: bool | None = None
    """Encode captions once, before training, and store the result. 0 encodes them in each step.
    none stores the result of T5 and T5Gemma, but not of CLIP."""
    caption_cleaning: Literal["stock", "light", "none"] = "stock"
    """Cleaning of captions and prompts. stock does the same as stock diffusers pipelines."""
    vae: str = "auto"
    """Autoencoder: tiny, sd, sdxl, dc_ae, a Hugging Face directory or a repository id. auto means
    tiny for the debug and tiny presets, else sd."""
    encoder_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the frozen encoders. On GPUs older than the A100, bfloat16 becomes float32."""
    encode_in_step: bool = False
    """Read images and run the autoencoder inside the training step. 0 trains on latents that are
    encoded beforehand, or, for streams, in the background."""
    encoder_chunk: int = 0
    """Number of rows that encoders inside the step process at once, over all devices. 0 means the
    whole batch (or accumulated piece)."""
    log_interval: int = 20
    """Number of steps between rows of metrics."""
    save_interval: int = 500
    """Number of steps between checkpoints."""
    sample_interval: int = 500
    """Number of steps between sample grids. 0 makes only one, at the end."""
    eval_interval: int = 0
    """Number of steps between evaluations (evaluation.mid_run). 0 makes only one, at the end."""
    keep_checkpoints: int = 2
    """Number of newest checkpoints to keep."""
    keep_every: int = 0
    """Number of steps between checkpoints that are kept permanently, in addition. 0 keeps none."""
    max_skipped: int = 20
    """Number of consecutive non-finite steps that are tolerated. One more stops the run."""
    watch_timeout: int = 1_800
    """Seconds after which a sample grid or an evaluation that has not finished is abandoned. The
    run goes on without it."""
    output_dir: str = "runs"
    """Folder that contains the folders of all runs."""
    init_from: str | None = None
    """A model that provides the initial parameters: a run (its best average), such as one at a
    smaller image size, a checkpoint, a release, a PRX directory of diffusers, or one of these two
    on the Hub (owner/name). The network and its encoders are then those of the model, unless they
    are given. none initialises the parameters randomly."""
    decay_from: str | None = None
    """A run whose newest checkpoint (or that of resume_step) this run starts from, to let the
    learning rate fall until max_steps (see optimizer.schedule wsd)."""
    resume: bool = True
    """Resume the run of this name if it exists. 0 refuses to touch it."""
    resume_step: int | None = None
    """Step of an earlier checkpoint to go back to. Newer checkpoints are moved aside. none resumes
    from the newest one."""
    change: bool = False
    """Allow a resumed run to change its optimiser, schedule or precision from here on."""
    mesh: str = "auto"
    """Distribution over devices: sizes of the axes data, fsdp and tensor, such as data=2,fsdp=4,
    one of which may be *. auto copies a small state to every device and shards a large one
    (fsdp)."""
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    """Discovery of the processes (hosts) that train together."""
    profile_steps: str | None = None
    """Record a profile of these steps in the run's folder, such as 20:25 (the first and the last).
    none records no profile."""
    log: str = "tensorboard"
    """Trackers that record metrics and sample grids, in addition to metrics.jsonl: tensorboard,
    wandb and trackio (the extras of these names), separated by commas. none turns all off."""
    wandb: bool = False
    """Old name of a setting: 1 adds wandb to log."""
    filters: FilterConfig = field(default_factory=FilterConfig)
    """Filters that decide which rows are fetched (streamed datasets)."""
    fetch: FetchConfig = field(default_factory=FetchConfig)
    """Fetching of images over the network (streamed datasets)."""
    outage_hours: float = 6.0
    """Hours for which a streamed run waits, and then goes on, while the network or the source of
    its rows cannot be reached. 0 waits for 90 seconds."""
    images: ImageConfig = field(default_factory=ImageConfig)
    """Decoding and cropping of images (streamed datasets). Their size is image_size."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Size and options of the network."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The optimiser and its schedule."""
    objective: Any = field(
        default_factory=FlowMatching,
        metadata=one_of(OBJECTIVES, wiring="pinxit.flow.objective.OBJECTIVES"),
    )
    """The loss, an `Objective` of a class in OBJECTIVES."""
    ema: EmaConfig = field(default_factory=EmaConfig)
    """Moving averages of the parameters."""
    sampling: Sampling = field(default_factory=lambda: Sampling(steps=16))
    """Sampling of grids and evaluation images. It does not affect training."""
    samples: SampleGridConfig = field(default_factory=SampleGridConfig)
    """Prompts and seeds of the sample grids."""
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    """The held-out evaluation at the end of a run and on the way."""

    def __post_init__(self) -> None:
        """Refuses settings that are known to be wrong before anything is loaded."""
        positive = ("dataset_size", "batch_size", "max_steps", "log_interval")
        positive += ("save_interval", "keep_checkpoints")
        positive += ("text_max_tokens", "watch_timeout")
        natural = ("image_size", "seed", "sample_interval", "eval_interval", "max_skipped")
        natural += ("encoder_chunk", "keep_every", "resume_step", "gradient_accumulation_steps")
        natural += ("outage_hours", "cache_gb")
        require_counts("", self, positive=positive, natural=natural)
        self._check_dataset()
        check_local("output_dir", self.output_dir)
        if self.batch_size % self.pieces:
            raise UsageError(
                "gradient_accumulation_steps",
                self.gradient_accumulation_steps,
                problem="not a divisor of batch_size",
                valid=f"divisors of {self.batch_size}",
            )
        piece = self.batch_size // self.pieces
        if self.encoder_chunk and piece % self.encoder_chunk:
            problem = "not a divisor of batch_size / gradient_accumulation_steps"
            raise UsageError(
                "encoder_chunk", self.encoder_chunk, problem=problem, valid=f"divisors of {piece}"
            )
        if self.encode_in_step and not self.model.use_stable_vae:
            problem = "nothing to encode: the model is trained on pixels"
            raise UsageError("encode_in_step", True, problem=problem, valid="0")
        if self.decay_from is not None and self.init_from is not None:
            problem = "not possible together with init_from"
            raise UsageError("decay_from", self.decay_from, problem=problem, valid="one of both")
        steps_to_profile(self.profile_steps)
        if not self.name or self.name in (".", "..") or set(self.name) & set("/\\\0"):
            raise UsageError("name", self.name, problem="not a valid folder name")

    @property
    def pieces(self) -> int:
        """The number of pieces of a batch; 1 as long as it has not been chosen."""
        return self.gradient_accumulation_steps or 1

    @property
    def encodes_ahead(self) -> bool:
        """Whether the step receives latents, rather than images."""
        return self.model.use_stable_vae and not self.encode_in_step

    @property
    def streamed(self) -> bool:
        """Whether images are fetched while the run trains."""
        return self.dataset_name not in (*DATASETS, PREPARED)

    def _check_dataset(self) -> None:
        """Refuses dataset settings that are wrong for any path."""
        choice("dataset_name", self.dataset_name, dataset_names())
        named_columns(self.columns)
        known_encoding("text_encoding", self.text_encoding)
        generated = self.dataset_name in DATASETS and self.dataset_path is None
        if generated and self.images.bucketed:
            name = "buckets" if self.images.buckets else "bucket_step"
            problem = f"not applicable: {self.dataset_name} has images of one size"
            raise UsageError(f"images.{name}", getattr(self.images, name), problem=problem)

    @property
    def autoencoder(self) -> str:
        """The name to pass to `load_autoencoder`: `vae`, or "none" for a pixel model."""
        return self.vae if self.model.use_stable_vae else "none"

    def resolved(self) -> TrainConfig:
        """Returns these settings with every automatic choice made, as they are saved with the run.

        A prepared dataset determines its encoders and its size. Otherwise the debug and tiny
        presets use the bundled encoders and 64 pixels, the others the Stable Diffusion autoencoder,
        CLIP ViT-L/14 and 256 pixels. Pixel models have tokens of 8 x 8 pixels.
        """
        if changes := self._prepared_choices():
            return replace(self, **changes).resolved()
        small = self.model.preset in SMALL_PRESETS
        model = self.model
        if model.patch_size is None and not model.use_stable_vae:
            model = replace(model, patch_size=PIXEL_PATCH)
        clip, vae = ("tiny", "tiny") if small else ("clip", "sd")
        image_size = self.image_size or (64 if small else 256)
        if self.images.size not in (ImageConfig.size, image_size):
            problem = "different from image_size"
            valid = f"{image_size}, or leave it out"
            raise UsageError("images.size", self.images.size, problem=problem, valid=valid)
        images = replace(self.images, size=image_size)
        _ = images.targets  # raises for a step that does not divide the size
        dataset = self._dataset()
        self.evaluation.check(dataset)
        trackers = (*tracker_names(self.log), *(("wandb",) if self.wandb else ()))
        return replace(
            self,
            log=",".join(dict.fromkeys(trackers)) or NO_TRACKER,
            wandb=False,
            dataset_name=dataset,
            image_size=image_size,
            images=images,
            text_encoder=clip if self.text_encoder == "auto" else self.text_encoder,
            vae=vae if self.vae == "auto" else self.vae,
            model=model,
        )

    def _prepared_choices(self) -> dict[str, Any]:
        """Returns the automatic settings that a prepared dataset determines."""
        open_names = [n for n in ("vae", "text_encoder") if getattr(self, n) == AUTO]
        open_names += [] if self.image_size else ["image_size"]
        if not open_names or self.dataset_path is None or not is_dataset(self.dataset_path):
            return {}
        known = known_settings(read_manifest(self.dataset_path))
        if "text_encoder" in open_names and self.text_max_tokens is None:
            open_names += ["text_max_tokens"]
        return {name: known[name] for name in open_names if name in known}

    def _dataset(self) -> str:
        """Returns the dataset's name, which is "prepared" if dataset_path is a prepared one.
        Refuses names and paths that do not fit together."""
        path, name = self.dataset_path, self.dataset_name
        if path is None:
            if name == PREPARED:
                valid = "a folder that `pinxit prepare` wrote"
                raise UsageError("dataset_path", None, problem="missing", valid=valid)
            return name
        if is_dataset(path):
            return PREPARED
        if name == PREPARED:
            raise UsageError(
                "dataset_path", path, problem="not a folder that `pinxit prepare` wrote"
            )
        if name in DATASETS:
            names = [other for other in dataset_names() if other not in (*DATASETS, PREPARED)]
            if not Path(path).expanduser().exists():
                valid = "a prepared folder, or any path together with a --dataset_name of "
                valid += ", ".join(names)
                raise UsageError("dataset_path", path, problem="missing", valid=valid)
            problem = "not a kind of data that can be read from dataset_path"
            raise UsageError("dataset_name", name, problem=problem, valid=names)
        return name


RENAMED = {("sampling", "prompts"): "samples", ("sampling", "seeds"): "samples"}
"""Settings of older versions: maps (record, field) to the record that now has the field."""


def config_from_json(data: Mapping[str, Any]) -> TrainConfig:
    """Returns the settings in a run's config.json, including one that an older version wrote."""
    values = {n: dict(v) if isinstance(v, Mapping) else v for n, v in data.items()}
    for (record, name), now in RENAMED.items():
        if isinstance(values.get(record), dict) and name in values[record]:
            values.setdefault(now, {})[name] = values[record].pop(name)
    model = values.get("model")
    for name in ("remat", "scan_blocks"):  # null in older files
        if isinstance(model, dict) and name in model and model[name] is None:
            model[name] = AUTO
    return from_json(TrainConfig, values)
