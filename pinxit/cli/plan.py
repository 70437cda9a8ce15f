"""`pinxit plan`: what a run takes on a machine that need not be there.

Options are the planner's own and all training settings::

    pinxit plan --recipe coyo_256 --target tpu-v3-8 --batch_size 512 --price 1.1
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from pinxit.cli.arguments import parse
from pinxit.cli.train import TRAIN_ALIASES
from pinxit.config import UsageError, choice, positive
from pinxit.files import whole
from pinxit.plan.memory import POLICIES
from pinxit.plan.targets import HERE, get_target
from pinxit.plan.vendor_compilers import MODULES, install
from pinxit.recipes import RECIPES, recipe_of
from pinxit.train.settings import TrainConfig

PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class PlanOptions:
    """Options of `pinxit plan`, besides the settings of training."""

    target: str = HERE
    """The machine: tpu-v3-8, tpu-v4-32, v5e-256, v6e-8, a100-40, a100-80, v100-16, v100-32, h100,
    h200, several cards as in 8xa100-80, or here."""
    policies: tuple[str, ...] = POLICIES
    """Rematerialisation policies whose largest batch is looked for; without any: none. Each takes
    a few compiles, which are kept."""
    price: float | None = None
    """Of one device for an hour (a TPU v3 core, a card), in any currency."""
    json: str | None = None
    """Also write the plan as JSON; - is standard output, and then nothing else is."""
    picture: str | None = None
    """Also draw memory against the batch size: a PNG, SVG or PDF file."""
    install_compiler: str | None = None
    """Install the compiler of a vendor and end: tpu or cuda12."""

    def __post_init__(self) -> None:
        """Refuses what no plan can be made of, before anything is compiled."""
        if self.target != HERE:
            get_target(self.target)
        for name in self.policies:
            choice("policies", name, (*POLICIES, "offload"))
        positive("price", self.price, minimum=0)
        if self.picture is not None and Path(self.picture).suffix not in PICTURES:
            raise UsageError("picture", self.picture, problem="not a picture", valid=PICTURES)
        if self.install_compiler is not None:
            choice("install_compiler", self.install_compiler, MODULES)


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The planner's own words, and those of the training settings."""
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
    """Makes a plan and prints it; 0 if the run fits, 1 if it does not."""
    helped = bool({"-h", "--help"} & set(argv))
    own, others = split(argv)
    recipe, rest = recipe_of(others)
    description = (
        "What a run takes on a machine: memory, time and money, from the machine's compiler, with "
        f"no such machine in reach. All settings of pinxit train are options, too (--recipe "
        f"{'|'.join(RECIPES)}; here: {recipe}): pinxit train --help lists them."
    )
    if helped:
        parse(PlanOptions, ["--help"], prog="pinxit plan", description=description)
    options = parse(PlanOptions, own, prog="pinxit plan", description=description)
    if options.install_compiler is not None:
        print(install(options.install_compiler))
        return 0
    config = parse(
        TrainConfig, rest, default=RECIPES[recipe](), aliases=TRAIN_ALIASES, prog="pinxit plan"
    )
    return _plan(options, config, recipe)


def _plan(options: PlanOptions, config: TrainConfig, recipe: str) -> int:
    from rich.console import Console

    from pinxit.plan.plan import make_plan
    from pinxit.plan.terminal_report import show_plan

    with _watching() as said:
        made = make_plan(
            config,
            options.target,
            recipe=recipe,
            policies=options.policies,
            price=options.price,
            on_progress=said,
        )
    as_json = json.dumps(made.to_json(), indent=2, allow_nan=False)
    if options.json == "-":
        print(as_json)
    else:
        show_plan(made, Console())
        if options.json is not None:
            with whole(Path(options.json)) as temporary:
                temporary.write_text(as_json + "\n", "utf-8")
            print(options.json)
    if options.picture is not None:
        from pinxit.plan.memory_chart import draw

        print(draw(made, Path(options.picture)), file=sys.stderr)
    return 0 if made.memory.fits else 1


@contextmanager
def _watching() -> Iterator[Callable[[str, float], None]]:
    """A line on stderr that tells what is being compiled and for how long; a line for each
    compile where nobody looks at a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("compiling") as status:
            yield lambda what, seconds: status.update(f"compiling {what}: {seconds:.0f} s")
        return
    begun: set[str] = set()

    def say(what: str, seconds: float) -> None:
        if what not in begun:
            begun.add(what)
            console.print(f"compiling {what}", highlight=False)

    yield say
