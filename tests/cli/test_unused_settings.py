"""Settings that would have no effect are refused by `pinxit train`, each with its line."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pinxit.cli.main import main
from pinxit.config import UsageError, flattened, leaves, replace
from pinxit.recipes import RECIPES
from pinxit.train.run_folder import write_values
from pinxit.train.settings import TrainConfig
from pinxit.train.unused_settings import CHECKED_ELSEWHERE, RULES, check_used, unused

DOCS = Path(__file__).parents[2] / "docs" / "training.md"
LINKS = "by streamed datasets of links, whose rows do not hold their images"
STREAMED = "by streamed datasets; `pinxit prepare` has its own"
REMOTE = "by streamed datasets and by packed ones in object stores; `pinxit prepare` has its own"

REFUSED = {
    "--dataset_name coyo --dataset_size 1000": "dataset_size: 1000|by datasets made by code",
    "--recipe coyo_256 --cache_gb 3": "cache_gb: 3.0|by datasets made by code",
    "--filters.min_side 300": f"filters.min_side: 300|{STREAMED}",
    "--filters.unique_url 0": f"filters.unique_url: 0|{STREAMED}",
    "--fetch.timeout 3": f"fetch.timeout: 3.0|{LINKS}",
    "--recipe mock --fetch.honour_opt_out 0": f"fetch.honour_opt_out: 0|{LINKS}",
    "--dataset_name folder --dataset_path . --fetch.per_host 2": f"fetch.per_host: 2|{LINKS}",
    "--images.crop random": f"images.crop: 'random'|{STREAMED}",
    "--columns caption=text": f"columns: caption=text|{STREAMED}",
    "--text_encoding cp1252": f"text_encoding: 'cp1252'|{STREAMED}",
    "--dataset_revision main": f"dataset_revision: 'main'|{STREAMED}",
    "--outage_hours 2": f"outage_hours: 2.0|{REMOTE}",
    "--use_stable_vae 0 --vae sdxl": "vae: 'sdxl'|by models of latents (--model.use_stable_vae 1)",
    "--text_max_tokens 77": "text_max_tokens: 77|by text encoders with T5",
    "--recipe coyo_256 --text-max-tokens=77": "text_max_tokens: 77|by text encoders with T5",
    "--cache_text 1 --encoder_chunk 4": "encoder_chunk: 4|by encoders inside the step",
    "--model.dtype bfloat16 --use_amp 1": "use_amp: 1|without --model.dtype",
    "--model.modulation per_block --model.modulation_rank 4": (
        "model.modulation_rank: 4|by --model.modulation shared"
    ),
    "--model.scan_blocks 0 --model.scan_unroll 2": "model.scan_unroll: 2|by the loop over blocks",
    "--optimizer.name adamw --optimizer.momentum 0.9": "optimizer.momentum: 0.9|by --optimizer.na",
    "--optimizer.decay_steps 9": "optimizer.decay_steps: 9|by --optimizer.schedule wsd",
    "--optimizer.schedule constant --optimizer.final_fraction 0.1": (
        "optimizer.final_fraction: 0.1|by --optimizer.schedule cosine, linear and wsd"
    ),
    "--objective.time.distribution uniform --objective.time.mean 1": (
        "objective.time.mean: 1.0|by --objective.time.distribution logit_normal"
    ),
    "--objective.time.distribution uniform --objective.time.std 2": (
        "objective.time.std: 2.0|by --objective.time.distribution logit_normal"
    ),
    "--ema.lengths --ema.kind decay": "ema.kind: 'decay'|with averages (--ema.lengths)",
    "--sampling.guidance_scale 1 --sampling.guidance_interval 0.1 0.9": (
        "sampling.guidance_interval: 0.1 0.9|with guidance (--sampling.guidance_scale"
    ),
    "--sampling.guidance_scale 1 --sampling.cfg_zero_star 1": (
        "sampling.cfg_zero_star: 1|with guidance (--sampling.guidance_scale"
    ),
    "--sampling.guidance_scale 1 --samples.negative_prompt blurred": (
        "samples.negative_prompt: 'blurred'|with guidance (--sampling.guidance_scale"
    ),
    "--recipe coyo_256 --evaluation.prompts 16": "evaluation.prompts: 16|by scenes, and with a net",
    "--evaluation.mid_run caption_effect": (
        "evaluation.mid_run: caption_effect|with --eval_interval"
    ),
    "--eval_interval 9 --evaluation.mid_run_prompts 9": (
        "evaluation.mid_run_prompts: 9|with --eval_interval above 0 and an evaluator of pictures"
    ),
    "--recipe mock --evaluation.inception a.npz": (
        "evaluation.inception: 'a.npz'|by evaluations of pictures"
    ),
    "--recipe mock --evaluation.clip b": "evaluation.clip: 'b'|by evaluations of pictures",
    "--recipe mock --evaluation.reference_images 9": (
        "evaluation.reference_images: 9|by evaluations of pictures"
    ),
    "--evaluation.reference_statistics s.npz": (
        "evaluation.reference_statistics: 's.npz'|with --evaluation.inception"
    ),
    "--evaluation.composition_prompts 9": (
        "evaluation.composition_prompts: 9|with composition in --evaluation.evaluators"
    ),
    "--evaluation.variety_prompts 9": (
        "evaluation.variety_prompts: 9|with variety in --evaluation.evaluators"
    ),
    "--evaluation.images 0 --evaluation.prompts 0 --evaluation.batch_size 9": (
        "evaluation.batch_size: 9|with --evaluation.images or --evaluation.prompts above 0"
    ),
    "--evaluation.images 0 --eval_interval 50": "eval_interval: 50|with held-out rows",
    "--distributed.coordinator off --distributed.timeout 9": (
        "distributed.timeout: 9|by several processes"
    ),
}
"""The command and the line that it gets: the setting with its value, and who reads it."""

ALWAYS = """
name dataset_name dataset_path image_size batch_size max_steps seed gradient_accumulation_steps
text_encoder cache_text caption_cleaning encoder_dtype encode_in_step log_interval save_interval
sample_interval keep_checkpoints keep_every max_skipped watch_timeout output_dir init_from resume
resume_step change mesh log wandb model.preset model.use_stable_vae model.patch_size
model.hidden_size model.depth model.num_heads model.mlp_ratio model.modulation model.rope_theta
model.time_factor model.time_max_period model.bottleneck_size model.resolution_embeds
model.prediction model.dtype model.attention model.remat model.scan_blocks
optimizer.name optimizer.learning_rate optimizer.b1 optimizer.b2 optimizer.eps
optimizer.weight_decay optimizer.warmup_steps optimizer.schedule optimizer.clip_norm
objective.caption_dropout objective.time.distribution objective.time.shift ema.lengths
sampling.steps sampling.guidance_scale sampling.solver sampling.shift sampling.spacing
sampling.zero_init samples.prompts samples.seeds samples.size evaluation.images
evaluation.evaluators
distributed.coordinator distributed.process_id objective.bins decay_from profile_steps
""".split()  # noqa: SIM905
"""The settings that have an effect in every run, or whose wrong use has its own message."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """The settings of the runs that would have been started."""
    configs: list[TrainConfig] = []

    def run(config: TrainConfig, argv: Any) -> Any:
        configs.append(config)
        return SimpleNamespace(exit_code=0)

    monkeypatch.setattr("pinxit.train.run.run", run)
    return configs


@pytest.mark.parametrize("command", REFUSED)
def test_settings_without_effect_are_refused(
    command: str,
    started: list[TrainConfig],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *command.split()]) == 2 and not started
    setting, reader = REFUSED[command].split("|")
    [line] = capsys.readouterr().err.splitlines()
    before = f"pinxit: error: {setting} is without effect in this run, since it is read only "
    assert line.startswith(before + reader) and line.endswith("; valid: leave it out"), line


@pytest.mark.parametrize(
    "command",
    [
        "--dataset_size 1000",
        "--recipe mock --dataset_size 99 --fetch.timeout 15",  # the default's own value
        "--dataset_name coyo --filters.min_side 300 --fetch.timeout 9 --outage_hours 1",
        "--dataset_name webdataset --dataset_path . --images.crop random --filters.min_words 1",
        "--use_stable_vae 0 --vae tiny",  # what auto means here
        "--recipe coyo_256 --text_encoder clip+t5 --text_max_tokens 77",
        "--optimizer.name muon --optimizer.momentum 0.9",
        "--samples.negative_prompt blurred",
    ],
)
def test_settings_with_an_effect_are_accepted(
    command: str, started: list[TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *command.split()]) == 0 and len(started) == 1


def test_a_run_that_was_started_with_such_a_setting_can_be_resumed(
    started: list[TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "old"
    folder.mkdir(parents=True)
    from pinxit.config import to_json

    old = dataclasses.replace(RECIPES["coyo_256"](), name="old", dataset_size=1000)
    write_values(folder / "config.json", to_json(old.resolved()))
    command = ["train", "--recipe", "coyo_256", "--name", "old", "--dataset_size"]
    assert main([*command, "1000"]) == 0 and len(started) == 1
    assert main([*command, "1001"]) == 2


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_run_as_they_are(name: str):
    config = RECIPES[name]()
    for path in (None, "/data"):
        config = dataclasses.replace(config, dataset_path=None if "256" not in name else path)
        check_used(config.resolved(), config, set(flattened(config)))


def test_a_python_program_may_set_what_it_likes():
    config = replace(RECIPES["mock"](), {"filters.min_side": 8})
    assert ("filters.min_side", RULES[1]) in list(unused(config.resolved()))
    check_used(config.resolved(), RECIPES["mock"](), names=())
    with pytest.raises(UsageError, match=r"^filters\.min_side: 8 is without effect"):
        check_used(config.resolved(), RECIPES["mock"](), names=("filters.min_side",))


def test_each_setting_is_decided_on():
    """A new setting goes into RULES, or into ALWAYS if every run reads it."""
    every = set(leaves(TrainConfig, TrainConfig()))
    ruled = {name for name in every if any(rule.covers(name) for rule in RULES)}
    always = {*ALWAYS, *CHECKED_ELSEWHERE}
    assert every - ruled - always == set()
    assert always - every == set() and ruled & set(ALWAYS) == set()
    assert all(any(rule.covers(name) for name in every) for rule in RULES)
    refused = {re.split(r"[:|]", line)[0] for line in REFUSED.values()}
    for rule in RULES:
        assert any(rule.covers(name) for name in refused), rule.settings


def test_the_documents_have_the_table():
    text = DOCS.read_text()
    for rule in RULES:
        groups = {name.rpartition(".")[0] for name in leaves(TrainConfig, TrainConfig())}
        written = [f"`{name}.*`" if name in groups else f"`{name}`" for name in rule.settings]
        names = ", ".join(written)
        assert f"| {names} | {rule.readers} |" in text
