"""The additions that docs/extending.md shows do what the page says, and touch what it says."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import pinxit
from pinxit import extensions
from pinxit.arrays import Batch, Conditioning
from pinxit.cli.main import main
from pinxit.config import UsageError
from pinxit.data.sources.catalogue import SOURCES, open_source
from pinxit.evaluate.evaluators import EVALUATORS
from pinxit.flow.objective import OBJECTIVES
from pinxit.flow.solvers import SOLVERS
from pinxit.recipes import RECIPES, mock, recipe_of
from pinxit.train.datasets import DATASETS
from pinxit.train.metric_writers.catalogue import TRACKERS
from pinxit.train.run_folder import RunFolder, saved_config
from pinxit.train.settings import TrainConfig

ROOT = Path(__file__).parents[2]
TABLES = {
    "solver": SOLVERS,
    "objective": OBJECTIVES,
    "dataset": DATASETS,
    "source": SOURCES,
    "metric": EVALUATORS,
    "tracker": TRACKERS,
    "recipe": RECIPES,
}
ADDED = {
    "solver": "ralston",
    "objective": "huber",
    "dataset": "discs",
    "source": "gallery",
    "metric": "brightness",
    "tracker": "loss_table",
    "recipe": "mock_long",
}
# The page's command names two of the files: --extensions huber.py,discs.py
FILES = {"objective": "huber", "dataset": "discs"}
# The others have names that nothing else has: they are imported into the tests' own process.
FILES |= {kind: f"extending_{kind}" for kind in ADDED if kind not in FILES}


def blocks_of(section: str) -> list[str]:
    """The Python blocks below a heading of the page."""
    page = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    text = page.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def block_of(kind: str) -> str:
    (block,) = blocks_of(f"A{'n' if kind[0] in 'aeiou' else ''} {kind}")
    return block


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file for each block of the page, named as users name theirs."""
    folder = tmp_path_factory.mktemp("extending")
    for kind, name in FILES.items():
        (folder / f"{name}.py").write_text(block_of(kind))
    return folder


@pytest.fixture(scope="module")
def words(folder: Path):
    """`--extensions` with all of the files; what they added is taken back afterwards."""
    before = [(table, dict(table)) for table in TABLES.values()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(extensions.VARIABLE, "")
        patch.setattr(extensions, "_loaded", {})
        patch.setattr(sys, "path", [*sys.path])
        yield ["--extensions", ",".join(str(folder / f"{name}.py") for name in FILES.values())]
    for table, old in before:
        table.clear()
        table.update(old)
    for name in FILES.values():
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def added(words: list[str]) -> dict[str, object]:
    """What the files define, by kind."""
    extensions.take(words)
    extensions.load()
    return {kind: TABLES[kind][name] for kind, name in ADDED.items()}


SMALL = [
    *("--recipe", "mock_long", "--dataset_name", "discs", "--objective", "huber"),
    *(
        "--log",
        "loss_table",
        "--objective.scale",
        "0.3",
        "--sampling.solver",
        "ralston",
        "--sampling.steps",
        "1",
    ),
    *("--samples.prompts", "a red disc", "--samples.seeds", "0", "--dataset_size", "16"),
    *("--batch_size", "4", "--log_interval", "1", "--save_interval", "1", "--eval_interval", "1"),
    *("--image_size", "32", "--evaluation.images", "10", "--evaluation.batch_size", "10"),
    *(
        "--model.depth",
        "1",
        "--model.hidden_size",
        "16",
        "--model.num_heads",
        "2",
        "--name",
        "mine",
    ),
]


@pytest.fixture(scope="module")
def trained(folder: Path, words: list[str]) -> Path:
    """A run of two steps with all of the additions, by a process of its own."""
    command = [sys.executable, "-m", "pinxit", *words, "train", *SMALL, "--max_steps", "2"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "runs" / "mine"


# --- how much each of them touches ---


@pytest.mark.parametrize("kind", list(ADDED))
def test_an_addition_is_one_definition_and_one_line(kind: str):
    body = ast.parse(block_of(kind)).body
    rest = [node for node in body if not isinstance(node, ast.Import | ast.ImportFrom)]
    assert len(rest) == 2 and isinstance(rest[0], ast.FunctionDef | ast.ClassDef)
    wiring = rest[1]
    assert isinstance(wiring, ast.Assign) and wiring.lineno == wiring.end_lineno
    (target,) = wiring.targets
    assert isinstance(target, ast.Subscript) and ast.literal_eval(target.slice) == ADDED[kind]


# --- what each of them does ---


def nothing(count: int) -> Conditioning:
    return Conditioning(jnp.zeros((count, 1, 1)), jnp.ones((count, 1), bool))


def test_the_solver_has_order_two(added):
    """dx/dt = x from t = 1 to 0 ends at x / e."""

    def error(steps: int) -> float:
        times = jnp.linspace(1.0, 0.0, steps + 1)
        x = jnp.ones((1, 1, 1, 1))
        end = added["solver"](lambda x, t, c: x, x, times, nothing(1))
        return abs(float(end[0, 0, 0, 0]) - np.exp(-1))

    assert error(4) / error(8) == pytest.approx(4, rel=0.25)


def test_the_objective_is_zero_for_the_exact_velocity(added):
    objective = added["objective"]()
    latents = jnp.zeros((4, 2, 2, 1))
    batch = Batch(latents, nothing(4), jnp.arange(4), nothing(1))
    # With latents of zero, x_t = t * noise and the velocity is the noise.
    exact = lambda x_t, t, c: x_t / t[:, None, None, None]  # noqa: E731
    loss, _ = objective.loss(exact, batch, key=jax.random.key(0))
    assert float(loss) < 1e-6
    assert float(objective.loss(lambda x, t, c: 0 * x, batch, key=jax.random.key(0))[0]) > 0.3


def test_the_dataset_is_deterministic_and_splits_differ(added):
    rows = added["dataset"](5, 32, seed=0, split="train")
    again = added["dataset"](5, 32, seed=0, split="train")
    np.testing.assert_array_equal(rows[3].image, again[3].image)
    held_out = added["dataset"](5, 32, seed=0, split="heldout")
    assert any((rows[i].image != held_out[i].image).any() for i in range(5))
    assert ("red" in rows[0].caption) == bool(rows[0].image[..., 0].any())


def test_the_source_reads_its_column_and_has_a_recipe(added, tmp_path: Path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "one.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "one.png", "title": "A red square"}\n')
    source = open_source("gallery", path=str(tmp_path))
    (unit,) = source.units()
    (row,) = source.read(unit)
    assert row.caption == "A red square" and row.image is not None
    name, _ = recipe_of(["--dataset_name", "gallery"])
    assert RECIPES[name]().dataset_name == "gallery"
    RECIPES.pop(name)


# --- the whole way: train, resume, plan, doctor, evaluate, generate ---


def in_folder(folder: Path, *words: str) -> int:
    with contextlib.chdir(folder):
        return main(list(words))


def test_a_run_records_what_it_was_made_with(trained: Path, added):
    config = json.loads((trained / "config.json").read_text())
    assert config["objective"]["kind"] == "huber" and config["objective"]["scale"] == 0.3
    assert set(config["extensions"]) == {f"{name}.py" for name in FILES.values()}
    assert saved_config(RunFolder(trained)).objective == added["objective"](scale=0.3)
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    table = [line.split(",") for line in (trained / "loss.csv").read_text().splitlines()]
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    assert [(int(step), float(loss)) for step, loss in table] == losses
    assert not list(trained.glob("events.*"))
    assert any(row.get("brightness/a blue disc") is not None for row in rows if row["step"] == 1)
    results = json.loads((trained / "results.json").read_text())
    assert 0 <= results["evaluation"]["brightness/a blue disc"] <= 1
    assert "<h2>Brightness</h2>" in (trained / "report.html").read_text()
    release = json.loads((trained / "model" / "config.json").read_text())
    assert release["objective"]["kind"] == "huber" and release["sampling"]["solver"] == "ralston"


def test_the_validation_loss_is_the_runs_own(trained: Path, added, capsys):
    """Of the same parameters, the pseudo-Huber loss is below the squared one."""
    folder = trained.parents[1]
    words = ["evaluate", "--checkpoint", str(trained), "--prompts", "0", "--images", "10"]
    names = ["--evaluators", "validation_loss", "brightness"]
    assert in_folder(folder, *words, *names, "--steps", "1") == 0
    shown = capsys.readouterr().out
    record = json.loads((trained / "evaluation.json").read_text())["values"]
    assert "brightness" in shown and "brightness/a blue disc" in record
    assert not any(name.startswith("conditioning/") for name in record)
    checkpoint = max((trained / "checkpoints").glob("step_*"))
    kept = json.loads((checkpoint / "run.json").read_text())["config"]["objective"]
    assert kept["kind"] == "huber"
    release = shutil.copytree(trained / "model", folder / "squared")
    config = json.loads((release / "config.json").read_text())
    (release / "config.json").write_text(json.dumps(config | {"objective": {}}))
    words[2] = str(release)
    assert in_folder(folder, *words, "--evaluators", "validation_loss") == 0
    squared = json.loads((release / "evaluation.json").read_text())["values"]["validation/loss"]
    assert record["validation/loss"] < 0.8 * squared


def test_a_run_is_resumed_and_a_difference_is_named(trained: Path, added, capsys):
    folder = trained.parents[1]
    other = [*SMALL, "--objective.scale", "0.2", "--max_steps", "3"]
    assert in_folder(folder, "train", *other) == 2
    assert "objective.scale (was 0.3, is 0.2)" in capsys.readouterr().err
    plain = ["flow_matching" if word == "huber" else word for word in SMALL]
    plain = [w for i, w in enumerate(plain) if "objective.scale" not in (w[2:], plain[i - 1][2:])]
    assert in_folder(folder, "train", *plain, "--max_steps", "3") == 2
    assert "--objective (was huber, is flow_matching)" in capsys.readouterr().err
    file = folder / f"{FILES['objective']}.py"
    file.write_text(file.read_text() + "# edited\n")
    with pytest.MonkeyPatch.context() as patch:  # as a new process would find it
        patch.setitem(extensions._loaded, file, "the hash of the edited file")
        assert in_folder(folder, "train", *SMALL, "--max_steps", "3") == 0
    shown = capsys.readouterr()
    assert "resuming after step 2" in shown.out + shown.err
    assert f"{file.name} has changed" in shown.out + shown.err


def test_doctor_and_plan_know_the_run(trained: Path, added, capsys, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("PINXIT_PLANS", str(tmp_path))
    folder = trained.parents[1]
    assert in_folder(folder, "doctor", "mine", "--machine", "0") == 0, capsys.readouterr().out
    assert "config: mine: debug on discs" in capsys.readouterr().out
    code = in_folder(folder, "plan", *SMALL, "--target", "here", "--policies")
    assert code == 0, capsys.readouterr().err
    assert len(list(tmp_path.glob("*.json"))) == 1


def test_without_its_extensions_a_run_says_which_are_missing(trained: Path, added, monkeypatch):
    monkeypatch.delitem(OBJECTIVES, "huber")
    monkeypatch.delitem(extensions._loaded, trained.parents[1] / f"{FILES['objective']}.py")
    message = r"objective: 'huber' is unknown; valid: flow_matching; this run used "
    message += r"--extensions huber\.py: add it to the command"
    with pytest.raises(UsageError, match=message):
        saved_config(RunFolder(trained))


# --- objectives ---


def test_a_class_without_a_name_is_refused_before_anything_is_written(added, tmp_path: Path):
    from dataclasses import replace

    from pinxit.train.run import run

    class Unnamed(added["objective"]):
        pass

    config = replace(mock(), objective=Unnamed(), output_dir=str(tmp_path / "runs"))
    with pytest.raises(UsageError, match=r"OBJECTIVES\['unnamed'\] = Unnamed"):
        run(config)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--objective", "hubber"], "objective: 'hubber' is unknown; valid: flow_matching, huber"),
        (["--objective.scale", "1"], "'objective.scale' is unknown; valid: "),
        (["--objective", "huber", "--objective.scael", "1"], "valid: objective.scale"),
        (["--sampling.steps", "0"], "sampling.steps: 0 is too small"),
    ],
)
def test_wrong_settings_of_an_objective_are_named(added, given: list[str], message: str, capsys):
    assert main(["train", "--recipe", "mock", *given]) == 2
    assert message in capsys.readouterr().err


def test_settings_that_two_objectives_share_are_kept(added):
    from pinxit.cli.arguments import parse

    base = RECIPES["scenes"]()
    config = parse(TrainConfig, ["--objective", "huber"], default=base)
    assert config.objective.time == base.objective.time and config.objective.scale == 0.1


# --- a sampling setting ---

WORKS = """
import inspect, json, sys
from pinxit.cli.arguments import parse
from pinxit.cli.evaluate import EvaluateOptions
from pinxit.cli.main import main
from pinxit.cli.sampling_options import sampling_options
from pinxit.model_loading import load_checkpoint
from pinxit.picture_files import read_recipe
from pinxit.train.settings import TrainConfig

run = ["--sampling.noise_scale", "0.5"]
assert parse(TrainConfig, run, default=TrainConfig()).sampling.noise_scale == 0.5
options = parse(EvaluateOptions, ["--noise_scale", "0.5"])
assert sampling_options(options) == {"noise_scale": 0.5}
words = ["a red house", "--steps", "1", "--out", "pictures", "--noise_scale", "0.5"]
assert main(["generate", *words]) == 0
recipe = read_recipe("pictures/" + __import__("os").listdir("pictures")[0])
assert recipe["noise_scale"] == 0.5, recipe
model = load_checkpoint()
half = model.generate("a red house", steps=1, noise_scale=0.5, output_type="np")
assert (half != model.generate("a red house", steps=1, output_type="np")).any()
"""


def test_a_sampling_setting_is_one_field(tmp_path: Path):
    """In a copy of the package: the field and its use, as on the page, and nothing else."""
    field, use = blocks_of("A sampling setting")
    copy = tmp_path / "pinxit"
    shutil.copytree(Path(pinxit.__file__).parent, copy, ignore=shutil.ignore_patterns("*.pyc"))
    lines = field.partition("...\n\n")[2]
    assert len(ast.parse(field).body[0].body) == 3, "the ellipsis, the field and its help"
    for name, before, after in (
        ("sampling.py", "\n    def __post_init__", f"{lines}\n    def __post_init__"),
        ("pipeline.py", "noise = noise_of(seeds, shape=shape, mesh=mesh)", use.strip()),
    ):
        text = (copy / name).read_text()
        assert text.count(before) >= 1, name
        (copy / name).write_text(text.replace(before, after, 1))
    done = subprocess.run(
        [sys.executable, "-c", WORKS],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_line_that_uses_it_is_the_packages_own():
    use = blocks_of("A sampling setting")[1].strip()
    pipeline = inspect.getsource(importlib.import_module("pinxit.pipeline"))
    assert use.replace("sampling.noise_scale * ", "") in pipeline
