"""`pinxit train`: trains a recipe, whose settings the command line may change."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from pinxit import extensions
from pinxit.cli import xla_environment

if TYPE_CHECKING:
    from pinxit.cli.training_settings import TrainingSettings
    from pinxit.train.settings import TrainConfig


def train_command(argv: Sequence[str], *, restart: bool = False, prog: str = "pinxit train") -> int:
    """Trains a model, and returns the exit code.

    `restart` allows the process to restart itself in a tuned environment.
    """
    from pinxit.cli.train_studio import without_studio
    from pinxit.extras import check_studio_extra

    argv, port = without_studio(argv)
    if port is not None:
        check_studio_extra("pinxit train --studio")
    if restart and not {"-h", "--help"} & set(argv):
        xla_environment.restart_tuned()
    extensions.load()
    from pinxit.cli.training_settings import training_settings
    from pinxit.recipes import RECIPES

    settings = training_settings(
        argv,
        prog=prog,
        description="Trains a model with the settings of a recipe (--recipe "
        f"{'|'.join(RECIPES)}; selected: {{recipe}}), which options change. --studio [PORT] "
        "shows the run in a browser while it trains.",
    )
    from pinxit.cli.cpu_products import choose_products
    from pinxit.train.attended_work import end_without_waiting

    _check_used(settings)
    if settings.note:
        _say(settings.note)
    choose_products(settings.config, _say, meanwhile=_import_training)
    from pinxit.train.run import run

    command = [*prog.split(), *argv]
    with _beside(settings.config, port):
        code = run(settings.config, argv=command).exit_code
    if restart:
        end_without_waiting(code)
    return code


def _import_training() -> None:
    """Imports what training needs. JAX reads XLA's flags later, at its first computation."""
    import pinxit.train.run  # noqa: F401


def _say(line: str) -> None:
    print(f"pinxit: {line}", file=sys.stderr)


def _beside(config: TrainConfig, port: int | None) -> AbstractContextManager[None]:
    """Returns a context with the studio beside the run, if it has a port, on process 0 only."""
    if port is None:
        return nullcontext()
    from pinxit.cli.train_studio import studio_beside
    from pinxit.devices.processes import initialise, is_first

    initialise(config.distributed)
    return studio_beside(config.output_dir, config.name, port) if is_first() else nullcontext()


def _check_used(settings: TrainingSettings) -> None:
    """Raises for an option that has no effect, unless the run was started with it."""
    from pinxit.train.run_folder import folder_of, saved_config
    from pinxit.train.unused_settings import check_used

    folder = folder_of(settings.config)
    saved = saved_config(folder) if folder.config.is_file() else None
    check_used(settings.config.resolved(), settings.default, settings.names, saved=saved)
