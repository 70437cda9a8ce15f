"""Names from other programs: the error names our setting, and every one that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pinxit.cli.compare import CompareOptions
from pinxit.cli.evaluate import EvaluateOptions
from pinxit.cli.export import ExportOptions
from pinxit.cli.generate import GenerateOptions
from pinxit.cli.grid import GridOptions
from pinxit.cli.habits import (
    COMPARE_HABITS,
    EVALUATE_HABITS,
    EXPORT_HABITS,
    GENERATE_HABITS,
    GRID_HABITS,
    PREPARE_HABITS,
    TRAIN_HABITS,
    Habit,
    Habits,
    advice_for,
)
from pinxit.cli.main import main
from pinxit.cli.train_aliases import TRAIN_ALIASES
from pinxit.config import leaves
from pinxit.prepare.options import PrepareOptions
from pinxit.sampling import ALIASES
from pinxit.train.settings import TrainConfig

TABLES: dict[str, tuple[Habits, set[str]]] = {
    "train": (TRAIN_HABITS, {*leaves(TrainConfig, TrainConfig()), *TRAIN_ALIASES}),
    "generate": (GENERATE_HABITS, {*leaves(GenerateOptions), *ALIASES}),
    "grid": (GRID_HABITS, {*leaves(GridOptions), *ALIASES}),
    "evaluate": (EVALUATE_HABITS, {*leaves(EvaluateOptions), *ALIASES}),
    "compare": (COMPARE_HABITS, {*leaves(CompareOptions), *ALIASES}),
    "export": (EXPORT_HABITS, {*leaves(ExportOptions)}),
    "prepare": (PREPARE_HABITS, {*leaves(PrepareOptions), "revision"}),
}


def cases() -> list[tuple[str, str]]:
    return [(command, name) for command, (habits, _) in TABLES.items() for name in habits]


@pytest.mark.parametrize(("command", "name"), cases())
def test_a_name_from_another_program_names_a_setting_of_ours(command, name, capsys):
    habits, known = TABLES[command]
    assert name not in known, "a name that works is no habit"
    habit = habits[name]
    assert habit.target in known or (not habit.target and habit.note)
    positional = {"generate": ["a"], "grid": ["a"], "prepare": ["coyo"]}.get(command, [])
    assert main([command, *positional, f"--{name}", "7"]) == 2
    message = capsys.readouterr().err
    expected = f"--{habit.target}" if habit.target else habit.note.split("{")[0]
    assert message.startswith(f"pinxit: error: setting: '{name}' is unknown; valid: {expected}")
    assert message.count("\n") == 1
    for option in re.findall(r"--([a-z_.0-9]+)", message):
        assert option in known, f"the advice names --{option}"


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("train --mixed_precision bf16", "--use_amp 1 (bfloat16 where the hardware has it, else"),
        ("train --mixed_precision=fp16", "--use_amp 1 (bfloat16 where"),
        ("train --mixed-precision no", "--use_amp 0 (bfloat16 where"),
        ("train --fp16", "--use_amp 1 (bfloat16 where"),
        ("train --lr 1e-4", "--learning_rate 1e-4"),
        ("train --optimizer.lr 1e-4", "--learning_rate 1e-4"),
        ("train --output models/cat", "--output_dir models/cat"),
        ("train --resume_from_checkpoint latest", "--resume 1 (the default: the same command"),
        ("train --train_batch_size 4", "--batch_size 4 (of all devices and accumulated pieces"),
        ("train --num_train_epochs 10", "--max_steps STEPS (steps = epochs x rows / batch_size"),
        ("train --resolution 512", "--image_size 512"),
        ("train --pretrained_vae_model_name_or_path madebyollin/x", "--vae madebyollin/x"),
        ("train --gradient_checkpointing", "--model.remat full"),
        ("train --lr_scheduler cosine", "--optimizer.schedule cosine"),
        ("train --lr_scheduler constant_with_warmup", "--optimizer.schedule constant"),
        ("train --lr_warmup_steps 500", "--warmup_steps 500"),
        ("train --checkpointing_steps 500", "--save_interval 500"),
        ("train --max_train_steps 1000", "--max_steps 1000"),
        ("train --report_to wandb", "--log wandb (tensorboard, wandb, trackio"),
        ("train --report_to all", "--log tensorboard,wandb,trackio ("),
        ("train --use_wandb 1", "--log tensorboard,wandb"),
        ("train --cfg_scale 7.5", "--sampling.guidance_scale 7.5"),
        ("train --num_inference_steps 20", "--sampling.steps 20"),
        ("plan --mixed_precision bf16", "--use_amp 1 ("),
        ("plan --train_batch_size 4", "--batch_size 4 ("),
        ("generate a --guidance 7.5", "--guidance_scale 7.5"),
        ("generate a --width 320 --height 192", "--size WIDTHxHEIGHT"),
        ("generate a --output_dir pictures", "--out pictures (a folder)"),
        ("generate a --num_images_per_prompt 4", "--n 4"),
        ("generate a --sampler euler", "--solver euler"),
        ("evaluate --model runs/cat", "--checkpoint runs/cat"),
        ("prepare coyo --output_folder data", "--out data (a folder)"),
    ],
)
def test_the_value_is_translated(line, advice, capsys):
    assert main(line.split()) == 2
    message = capsys.readouterr().err
    assert f"is unknown; valid: {advice}" in message


def test_the_page_has_the_advice_of_the_program():
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    page = page.partition("## Settings that have other names elsewhere")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+) ?(.*?)` \| `(--.*?)`", page, re.MULTILINE)
    assert len(rows) >= 16
    for name, value, ours in rows:
        assert advice_for(TRAIN_HABITS, name, value).startswith(ours), name


def test_an_epoch_example_is_right():
    assert "10 epochs of 20,000 rows at batch_size 16 are 12500" in TRAIN_HABITS["epochs"].note
    assert 10 * 20_000 / 16 == 12500


def test_a_habit_without_a_setting_says_what_to_do():
    assert Habit("", "set {value} elsewhere").advice("7") == "set 7 elsewhere"
    assert Habit("steps").advice("") == "--steps"
