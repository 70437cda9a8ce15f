"""Names of settings that people know from other programs, and the settings of ours to use instead.

None of these names is accepted, because its meaning may differ (a batch per device, epochs). The
error names our setting, with the value translated where that is possible. To add a name, add it to
the table of its command.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Habit:
    """Our setting for a name from another program."""

    target: str
    """Our setting, or an empty string if there is none, in which case `note` says what to do."""
    note: str = ""
    """Explanation in brackets; ``{value}`` stands for the value that was typed."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Translations of values; any other value stays as it is."""
    value: str | None = None
    """The value to use, if it does not follow from the one that was typed."""

    def advice(self, typed: str) -> str:
        """Returns what to type instead, for an error message."""
        note = self.note.replace("{value}", typed or "N")
        if not self.target:
            return note
        value = self.value if self.value is not None else self.values.get(typed, typed)
        option = f"--{self.target} {value}".rstrip()
        return f"{option} ({note})" if note else option


Habits = Mapping[str, Habit]
"""Our settings by the names of others."""


def advice_for(habits: Habits, name: str, typed: str) -> str:
    """Returns what to type instead of a name, or an empty string if the name is in no table."""
    habit = habits.get(name) or habits.get(name.rpartition(".")[2])
    return habit.advice(typed) if habit else ""


def _table(*rows: tuple[str, Habit]) -> dict[str, Habit]:
    """Returns the table of rows whose first entry lists one or more names."""
    return {name: habit for names, habit in rows for name in names.split()}


_FLAGS = {"": "1", "yes": "1", "true": "1", "True": "1", "no": "0", "false": "0", "False": "0"}
_PRECISIONS = _FLAGS | {"bf16": "1", "fp16": "1", "fp32": "0", "float32": "0", "none": "0"}
_PRECISIONS |= {"bfloat16": "1", "float16": "1", "16": "1", "32": "0", "16-mixed": "1"}
_PRECISIONS |= {"bf16-mixed": "1"}
_DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32", "half": "float16"}
_AMP = Habit(
    "use_amp", "bfloat16 where the hardware has it, else float16 with loss scaling", _PRECISIONS
)
_GLOBAL = "of all devices and accumulated pieces together, not of one device"
_EPOCHS = "steps = epochs x rows / batch_size: 10 epochs of 20,000 rows at batch_size 16 are 12500"
_RESUME = (
    "the default: the same command continues the run of its --name from its newest checkpoint; "
    "--resume_step N continues from an older one; --init_from RUN starts another run from it"
)
_SCHEDULES = {"constant_with_warmup": "constant", "cosine_with_restarts": "cosine"}
_OPTIMIZERS = {"adamw_torch": "adamw", "adamw_8bit": "adamw", "adam": "adamw", "AdamW": "adamw"}
_TRACKERS = {"all": "tensorboard,wandb,trackio"}
_LOG = "tensorboard, wandb, trackio, separated by commas, or none"
_BACKEND = "the variable JAX_PLATFORMS chooses: JAX_PLATFORMS=cpu pinxit ..."

TRAIN_HABITS: Habits = _table(
    ("lr base_lr max_lr", Habit("learning_rate")),
    ("mixed_precision precision amp fp16 bf16 half", _AMP),
    ("dtype weight_dtype torch_dtype", Habit("model.dtype", "or --use_amp 1 for mixed precision")),
    ("output out outdir out_dir output_path save_dir", Habit("output_dir", "RUNS/NAME is the run")),
    ("logging_dir log_dir logdir", Habit("output_dir", "logs are in the run's folder")),
    ("run_name experiment_name exp_name tracker_project_name", Habit("name")),
    ("resume_from_checkpoint resume_from resume_path", Habit("resume", _RESUME, value="1")),
    ("train_batch_size total_batch_size batch bs", Habit("batch_size", _GLOBAL)),
    ("per_device_train_batch_size batch_size_per_gpu", Habit("batch_size", _GLOBAL)),
    ("grad_accum accumulate_grad_batches grad_accum_steps", Habit("gradient_accumulation_steps")),
    ("num_train_epochs num_epochs epochs n_epochs", Habit("max_steps", _EPOCHS, value="STEPS")),
    ("max_train_steps num_train_steps train_steps", Habit("max_steps")),
    ("num_steps total_steps num_iterations iterations max_iters", Habit("max_steps")),
    ("resolution size img_size image_resolution", Habit("image_size")),
    ("width height", Habit("image_size", "one side; --images.bucket_step 64 trains other shapes")),
    ("pretrained_vae_model_name_or_path vae_path vae_model", Habit("vae")),
    (
        "pretrained_model_name_or_path model_name_or_path pretrained_model",
        Habit("init_from", "a trained model; --vae and --text_encoder take encoders"),
    ),
    ("model_size model_name", Habit("model.preset")),
    (
        "gradient_checkpointing enable_gradient_checkpointing activation_checkpointing",
        Habit("model.remat", values={v: "full" if _FLAGS[v] == "1" else "none" for v in _FLAGS}),
    ),
    (
        "lr_scheduler learning_rate_scheduler lr_scheduler_type scheduler lr_schedule",
        Habit("optimizer.schedule", values=_SCHEDULES),
    ),
    ("lr_warmup_steps num_warmup_steps warmup", Habit("warmup_steps")),
    ("checkpointing_steps save_steps save_every save_freq", Habit("save_interval")),
    ("keep_every_n_steps permanent_every", Habit("keep_every")),
    ("checkpoints_total_limit save_total_limit max_checkpoints", Habit("keep_checkpoints")),
    ("report_to logger log_with tracker", Habit("log", _LOG, _TRACKERS)),
    ("use_wandb wandb_project", Habit("log", value="tensorboard,wandb")),
    ("logging_steps log_every log_steps log_freq", Habit("log_interval")),
    ("validation_steps eval_steps eval_every validation_epochs", Habit("eval_interval")),
    ("sample_steps sample_every sample_freq", Habit("sample_interval")),
    ("validation_prompt validation_prompts sample_prompts", Habit("samples.prompts")),
    ("num_validation_images", Habit("samples.seeds", "one image of each prompt per seed")),
    ("guidance cfg cfg_scale scale", Habit("sampling.guidance_scale")),
    ("num_inference_steps sampling_steps ddim_steps", Habit("sampling.steps")),
    ("sampler", Habit("sampling.solver")),
    ("adam_beta1 beta1", Habit("optimizer.b1")),
    ("adam_beta2 beta2", Habit("optimizer.b2")),
    ("adam_epsilon epsilon", Habit("optimizer.eps")),
    ("adam_weight_decay wd decay", Habit("weight_decay")),
    ("max_grad_norm clip_grad_norm gradient_clip_val grad_clip", Habit("optimizer.clip_norm")),
    ("optim optimizer optimizer_type", Habit("optimizer.name", values=_OPTIMIZERS)),
    ("use_8bit_adam", Habit("optimizer.name", "there is no 8-bit optimiser", value="adamw")),
    ("ema_decay use_ema", Habit("ema.lengths", "fractions of the run; on by default", value="")),
    ("train_data_dir data_dir data_path data root", Habit("dataset_path")),
    ("dataset train_data dataset_id", Habit("dataset_name")),
    ("max_train_samples num_samples", Habit("dataset_size", "rows of a generated dataset")),
    ("caption_column text_column", Habit("columns", values={"": "caption=COLUMN"})),
    ("image_column url_column", Habit("columns", "image=COLUMN or url=COLUMN", value="")),
    ("center_crop crop", Habit("images.crop", value="center")),
    ("dataloader_num_workers num_workers workers", Habit("images.workers")),
    (
        "proportion_empty_prompts uncond_prob cfg_dropout cond_dropout text_dropout",
        Habit("text_dropout_prob"),
    ),
    ("tokenizer_max_length max_sequence_length max_length", Habit("text_max_tokens")),
    ("num_gpus gpus devices num_devices num_processes", Habit("mesh", "auto uses all", value="")),
    ("device", Habit("", _BACKEND)),
)
"""The names for `pinxit train` and `pinxit plan` are in this table."""

GENERATE_HABITS: Habits = _table(
    ("guidance cfg scale guidance_weight", Habit("guidance_scale")),
    ("num_steps inference_steps sampling_steps ddim_steps", Habit("steps")),
    ("sampler scheduler sampling_method", Habit("solver")),
    ("width height w W h H", Habit("size", "one side, or both", value="WIDTHxHEIGHT")),
    ("resolution image_size", Habit("size")),
    ("negative neg_prompt negative_prompts uncond_prompt", Habit("negative_prompt")),
    ("output output_dir outdir out_dir output_path save_dir", Habit("out", "a folder")),
    ("num_images num_images_per_prompt num_samples n_samples n_iter count", Habit("n")),
    ("ckpt ckpt_path model model_path model_id run weights", Habit("checkpoint")),
    ("pretrained_model_name_or_path model_name_or_path", Habit("checkpoint")),
    ("prompts", Habit("prompt", "several prompts may follow")),
    ("prompt_file from_file", Habit("prompts_file")),
    ("output_format image_format file_format extension", Habit("format", "png, webp or jpeg")),
    ("jpeg_quality webp_quality output_compression compression", Habit("quality", "1 to 100")),
    ("init_image init_img input_image image_path source_image", Habit("image")),
    ("mask_image mask_path inpaint_mask", Habit("mask", "white where the picture is repainted")),
    ("denoise denoising_strength img2img_strength", Habit("strength", "above 0 and up to 1")),
    (
        "redraw recipe from_recipe from_picture png_info",
        Habit("prompt", "the name of a picture draws it again", value="PICTURE.png"),
    ),
    ("seeds random_seed manual_seed", Habit("seed", "of the first picture; the next is seed + 1")),
    ("use_ema ema_decay average", Habit("ema", "the name of an average, or raw", value="")),
    ("device", Habit("", _BACKEND)),
)
"""The names for `pinxit generate` are in this table."""

GRID_HABITS: Habits = {
    name: habit
    for name, habit in GENERATE_HABITS.items()
    if habit.target not in ("out", "n", "prompts_file", "prompt", "seed", "format", "quality")
    and habit.target not in ("image", "mask", "strength")
} | _table(
    ("output output_path output_file save_path filename", Habit("out", "a PNG file")),
    ("x_type x_axis X columns cols", Habit("x", "SETTING=VALUE,VALUE", value="steps=4,8,16")),
    ("y_type y_axis Y rows", Habit("y", "SETTING=VALUE,VALUE", value="steps=4,8,16")),
    ("z_type z_axis Z panels", Habit("z", "SETTING=VALUE,VALUE", value="steps=4,8,16")),
    ("seeds n num_images num_samples", Habit("x", "an axis of seeds", value="seed=0-7")),
    ("prompts", Habit("x", "an axis of prompts", value="'prompt=a red house|a blue tent'")),
    ("prompt_sr search_replace", Habit("x", "an axis", value="'prompt_sr=red|blue|green'")),
    ("random_seed manual_seed", Habit("seed")),
    ("output_dir outdir out_dir save_dir cells_dir", Habit("cells", "a folder for single cells")),
)
"""The names for `pinxit grid` are in this table."""

EVALUATE_HABITS: Habits = {
    name: habit for name, habit in GENERATE_HABITS.items() if habit.target in ("", "checkpoint")
} | _table(
    ("guidance cfg scale", Habit("guidance_scale")),
    ("num_steps inference_steps sampling_steps", Habit("steps")),
    ("sampler scheduler", Habit("solver")),
    ("output output_dir outdir output_path", Habit("out", "a JSON file")),
    ("num_prompts num_samples n", Habit("prompts")),
    ("num_images rows max_eval_samples", Habit("images")),
    ("metrics metric tasks", Habit("evaluators")),
    ("inception_path fid_weights inception_weights", Habit("inception")),
    ("clip_model clip_path clip_model_name_or_path", Habit("clip", "a folder")),
    ("fid_stats ref_stats stats_path ref_batch", Habit("reference_statistics", "a .npz file")),
    ("num_real_images num_reference_images", Habit("reference_images")),
    ("eval_batch_size per_device_eval_batch_size", Habit("batch_size")),
)
"""The names for `pinxit evaluate` are in this table."""

COMPARE_HABITS: Habits = {
    name: habit for name, habit in EVALUATE_HABITS.items() if habit.target != "out"
} | _table(
    ("output output_dir outdir out_dir output_path", Habit("out", "a folder")),
    ("runs run checkpoints ckpt ckpt_path model model_path", Habit("models")),
    ("seed random_seed", Habit("seeds", "of the pictures on the sheet")),
    ("prompt", Habit("sheet_prompts")),
)
"""The names for `pinxit compare` are in this table."""

EXPORT_HABITS: Habits = {
    name: habit
    for name, habit in GENERATE_HABITS.items()
    if habit.target in ("", "checkpoint") and name != "run"
} | _table(
    ("output output_dir outdir out_dir output_path save_dir dump_path", Habit("out", "a folder")),
    ("precision torch_dtype weight_dtype save_precision", Habit("dtype", values=_DTYPES)),
    ("half fp16 to_half", Habit("dtype", value="float16")),
    ("bf16", Habit("dtype", value="bfloat16")),
    ("hub_model_id repo_id repository", Habit("push_to_hub", "OWNER/NAME")),
    ("hub_private_repo", Habit("private", values=_FLAGS)),
    ("licence", Habit("license")),
    ("use_ema ema_decay average", Habit("ema", "the name of an average, or raw", value="")),
    ("prompts num_samples n", Habit("samples", "the number of fixed prompts to draw", value="4")),
    ("hub_token token", Habit("", "the token comes from HF_TOKEN in the environment")),
)
"""The names for `pinxit export` are in this table."""

PREPARE_HABITS: Habits = _table(
    ("output output_dir outdir out_dir output_path output_folder", Habit("out", "a folder")),
    ("resolution size", Habit("image_size")),
    ("pretrained_vae_model_name_or_path vae_path vae_model", Habit("vae")),
    ("dataset dataset_name", Habit("source")),
    ("url_list input input_path data_dir train_data_dir data_path", Habit("dataset_path")),
    ("num_workers processes_count num_processes", Habit("workers")),
    ("thread_count threads", Habit("fetch.concurrency")),
    ("max_rows max_samples max_train_samples num_samples", Habit("limit", "rows")),
    ("number_sample_per_shard shard_size", Habit("unit_rows")),
    ("min_image_size", Habit("filters.min_side")),
    ("url_col", Habit("columns", value="url=COLUMN")),
    ("caption_col caption_column", Habit("columns", value="caption=COLUMN")),
    ("encode_batch_size vae_batch_size batch_size", Habit("encode_batch")),
)
"""The names for `pinxit prepare` are in this table."""

STUDIO_HABITS: Habits = _table(
    ("checkpoint model models model_path ckpt ckpt_path", Habit("checkpoints")),
    ("listen server_name address bind ip", Habit("host")),
    (
        "share",
        Habit(
            "host", "with a token; the page is never shared through other servers", value="0.0.0.0"
        ),
    ),
    ("server_port", Habit("port")),
    ("api_key auth password gradio_auth", Habit("token", "better in PINXIT_TOKEN")),
    ("autolaunch inbrowser open_browser browser", Habit("open", values=_FLAGS)),
    ("output_dir outputs out_dir outdir output", Habit("out", "the folder of the gallery")),
    ("run runs_dir logdir", Habit("runs", "the folder of training runs")),
    ("dataset dataset_path data_dir datasets", Habit("data", "folders of prepared datasets")),
    ("queue_size max_queue max_num_seqs", Habit("max_waiting", "pictures")),
    ("allowed_hosts", Habit("allow_host")),
    ("allowed_origins cors cors_allow_origins", Habit("allow_origin")),
    ("subpath base_path", Habit("root_path")),
    ("dtype precision", Habit("encoder_dtype", values=_DTYPES)),
)
"""The names for `pinxit studio` are in this table."""
