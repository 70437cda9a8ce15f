"""`pinxit plan`: estimates a run's memory, time and cost on a machine, which need not be present.

The options are the planner's own and all training settings::

    pinxit plan --recipe coyo_256 --target tpu-v3-8 --batch_size 512 --price 1.1
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from pinxit.cli.arguments import parse
from pinxit.cli.training_settings import training_settings
from pinxit.config import UsageError, choice, positive
from pinxit.files import whole
from pinxit.output_paths import check_local
from pinxit.plan.targets import HERE, get_target
from pinxit.plan.vendor_compilers import MODULES, install
from pinxit.recipes import RECIPES, recipe_of
from pinxit.train.model_settings import POLICIES
from pinxit.train.settings import TrainConfig

PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class PlanOptions:
    """Options of `pinxit plan`, in addition to the settings of training."""

    target: str = HERE
    """The machine: tpu-v3-8, tpu-v4-32, v5e-256, v6e-8, a100-40, a100-80, v100-16, v100-32, h100,
    h200, several cards as in 8xa100-80, or here."""
    policies: tuple[str, ...] = POLICIES
    """Rematerialisation policies for which to find the largest batch; an empty list skips the
    search. Each policy takes a few compilations, whose results are cached."""
    price: float | None = None
    """Price of one device (a TPU v3 core, a card) for one hour, in any currency."""
    json: str | None = None
    """Also write the plan as JSON to this file; - prints only the JSON to standard output."""
    picture: str | None = None
    """Also plot memory against the batch size, to a PNG, SVG or PDF file."""
    install_compiler: str | None = None
    """Install a vendor's compiler, tpu or cuda12, and exit."""

    def __post_init__(self) -> None:
        """Rejects invalid options before anything is compiled."""
        if self.target != HERE:
            get_target(self.target)
        for name in self.policies:
            choice("policies", name, (*POLICIES, "offload"))
        positive("price", self.price, minimum=0)
        check_local("json", self.json)
        check_local("picture", self.picture)
        if self.picture is not None and Path(self.picture).suffix not in PICTURES:
            problem = "not a picture file"
            raise UsageError("picture", self.picture, problem=problem, valid=PICTURES)
        for name, path in (("json", self.json), ("picture", self.picture)):
            if path is not None and path != "-":
                check_output(name, path)
        if self.install_compiler is not None:
            choice("install_compiler", self.install_compiler, MODULES)


def check_output(name: str, path: str) -> None:
    """Raises `UsageError` if no file can be written to `path`. Missing folders are no obstacle."""
    file = Path(path)
    if file.is_dir():
        raise UsageError(name, path, problem="a folder", valid="the path of a file")
    folder = next(one for one in file.absolute().parents if one.exists())
    if not folder.is_dir():
        raise UsageError(name, path, problem=f"not possible: {folder} is not a folder")
    if not os.access(folder, os.W_OK):
        raise UsageError(name, path, problem=f"not possible: {folder} is not writable")


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits arguments into the planner's own and those of the training settings."""
    own_names = {field.name for field in fields(PlanOptions)}
    own: list[str] = []
    others: list[str] = []
    into = others
    for word in argv:
        if word.startswith("--") and len(word) > 2:
            name = word[2:].partition("=")[0].replace("-", "_")
            into = own if name in own_names else others
        into.append(word)
    return own, others


def plan_command(argv: Sequence[str]) -> int:
    """Makes and prints a plan; returns 0 if the run fits, 1 if it does not."""
    wants_help = bool({"-h", "--help"} & set(argv))
    own, others = split(argv)
    recipe, _ = recipe_of(others)
    description = (
        "Estimates a run's memory, time and cost on a machine. The machine's compiler does this, "
        "so the machine itself need not be present. All settings of pinxit train are options too "
        f"(--recipe {'|'.join(RECIPES)}; selected: {recipe}). pinxit train --help lists them."
    )
    if wants_help:
        parse(PlanOptions, ["--help"], prog="pinxit plan", description=description)
    options = parse(PlanOptions, own, prog="pinxit plan", description=description)
    if options.install_compiler is not None:
        print(install(options.install_compiler))
        return 0
    config = training_settings(others, prog="pinxit plan").config
    return _plan(options, config, recipe)


def _plan(options: PlanOptions, config: TrainConfig, recipe: str) -> int:
    from rich.console import Console

    from pinxit.plan.plan import make_plan
    from pinxit.plan.terminal_report import show_plan

    with _watching() as report:
        plan = make_plan(
            config,
            options.target,
            recipe=recipe,
            policies=options.policies,
            price=options.price,
            on_progress=report,
        )
    as_json = json.dumps(plan.to_json(), indent=2, allow_nan=False)
    if options.json == "-":
        print(as_json)
    else:
        show_plan(plan, Console())
        if options.json is not None:
            with whole(Path(options.json)) as temporary:
                temporary.write_text(as_json + "\n", "utf-8")
            print(options.json)
    if options.picture is not None:
        from pinxit.plan.memory_chart import draw

        print(draw(plan, Path(options.picture)), file=sys.stderr)
    return 0 if plan.memory.fits else 1


@contextmanager
def _watching() -> Iterator[Callable[[str, float], None]]:
    """Shows on stderr the program that is being compiled and the seconds it takes.

    If stderr is not a terminal, one line is printed for each compilation.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("compiling") as status:
            yield lambda program, seconds: status.update(f"compiling {program}: {seconds:.0f} s")
        return
    started: set[str] = set()

    def report(program: str, seconds: float) -> None:
        if program not in started:
            started.add(program)
            console.print(f"compiling {program}", highlight=False)

    yield report
