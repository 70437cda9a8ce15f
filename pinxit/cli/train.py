"""`pinxit train`: trains a recipe, whose settings the command line may change."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from pinxit import extensions
from pinxit.cli import xla_environment
from pinxit.cli.arguments import parse, typed_names
from pinxit.cli.habits import TRAIN_HABITS

if TYPE_CHECKING:
    from pinxit.train.settings import TrainConfig

TRAIN_ALIASES = {
    "learning_rate": "optimizer.learning_rate",
    "weight_decay": "optimizer.weight_decay",
    "warmup_steps": "optimizer.warmup_steps",
    "text_dropout_prob": "objective.caption_dropout",
    "caption_dropout": "objective.caption_dropout",
    "preset": "model.preset",
    "patch_size": "model.patch_size",
    "use_stable_vae": "model.use_stable_vae",
    "steps": "max_steps",
    "sampling.prompts": "samples.prompts",
    "sampling.seeds": "samples.seeds",
}
"""Short names of training settings, and names that older versions used."""


def train_command(argv: Sequence[str], *, restart: bool = False, prog: str = "pinxit train") -> int:
    """Trains a model, and returns the exit code.

    `restart` allows the process to restart itself in a tuned environment.
    """
    if restart and not {"-h", "--help"} & set(argv):
        xla_environment.restart_tuned()
    extensions.load()
    from pinxit import recipes
    from pinxit.train.settings import TrainConfig

    recipe, rest = recipes.recipe_of(argv)
    default = recipes.RECIPES[recipe]()
    config = parse(
        TrainConfig,
        rest,
        default=default,
        aliases=TRAIN_ALIASES,
        prog=prog,
        description=f"Trains a model with the settings of a recipe (--recipe "
        f"{'|'.join(recipes.RECIPES)}; selected: {recipe}), which options change.",
        habits=TRAIN_HABITS,
    )
    from pinxit.train.attended_work import end_without_waiting

    names = typed_names(TrainConfig, rest, default=default, aliases=TRAIN_ALIASES)
    _check_used(config, default, names)
    from pinxit.train.run import run

    command = [*prog.split(), *argv]
    code = run(config, argv=command).exit_code
    if restart:
        end_without_waiting(code)
    return code


def _check_used(config: TrainConfig, default: TrainConfig, names: Collection[str]) -> None:
    """Raises for an option that has no effect, unless the run was started with it."""
    from pinxit.train.run_folder import folder_of, saved_config
    from pinxit.train.unused_settings import check_used

    folder = folder_of(config)
    saved = saved_config(folder) if folder.config.is_file() else None
    check_used(config.resolved(), default, names, saved=saved)
