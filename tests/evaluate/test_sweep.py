"""Sweeps: each combination once, resumable within a cell, with the values of single evaluations."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_pipeline import toy_model

from pinxit.arrays import Example
from pinxit.comparison_grid.axes import Axis
from pinxit.config import UsageError
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.evaluators import Evaluator, measure
from pinxit.evaluate.picture_sets import DrawnPictures
from pinxit.evaluate.sweep.cells import Sweep
from pinxit.evaluate.sweep.picture import draw_sweep
from pinxit.evaluate.sweep.running import SweepRunner
from pinxit.evaluate.sweep.storing import MeasuredCell, SweepFile
from pinxit.evaluate.sweep.table import sweep_table
from pinxit.evaluate.sweep.time_left import cost, seconds_left
from pinxit.sampling import Sampling

TEXTS = [f"a {colour} light" for colour in ("red", "green", "blue", "white")]


class MeanColour:
    """An extractor: the mean of each channel."""

    name, width = "toy", 3

    def about(self):
        return {"name": self.name}

    def __call__(self, pictures, prompts):
        return np.array([picture.mean((0, 1)) for picture in pictures], np.float32)


def _distance(context):
    drawn, real = (
        context.observations.features(pictures, MeanColour()).take(range(len(context.prompted)))
        for pictures in (context.drawn, context.real)
    )
    yield "prompts/accuracy/mean", float(drawn.mean() / 255)
    yield "prompts/accuracy/red", float(drawn[:, 0].mean() / 255)
    yield "prompts/ceiling/mean", float(real.mean() / 255)
    yield "distances/value/frechet_toy", float(((drawn - real) ** 2).mean())


def _needs(context):
    if len(context.prompted):
        yield from ((pictures, MeanColour()) for pictures in (context.drawn, context.real))


def _rows_only(context):
    yield "validation/loss", float(len(context.rows))


EVALUATORS = {"distance": Evaluator(_distance, needs=_needs), "rows": Evaluator(_rows_only)}


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def context(model):
    """Four rows, whose captions are the prompts."""
    rng = np.random.default_rng(0)
    rows = [Example(rng.integers(0, 256, (16, 16, 3), np.uint8), text) for text in TEXTS]
    return EvaluationContext(model, rows, prompts=len(TEXTS))


@pytest.fixture
def drawn(model, monkeypatch):
    """Counts the pictures that are drawn, by prompt and settings, in pieces of two. Their colours
    follow from both."""
    pictures: Counter = Counter()

    def counting(self, prompts, *, seed, steps=None, guidance_scale=None, **how):
        images = []
        for prompt, number in zip(prompts, seed, strict=True):
            what = (prompt, steps, guidance_scale, self.model_hash)
            pictures[what] += 1
            rng = np.random.default_rng(zlib.crc32(repr((what, number)).encode()))
            images.append(rng.integers(0, 256, (16, 16, 3), np.uint8))
        return np.stack(images)

    monkeypatch.setattr(type(model), "generate", counting)
    monkeypatch.setattr(DrawnPictures, "together", 2)
    return pictures


def swept(tmp_path, axes, context, *, lines=None, once=False, chosen=EVALUATORS) -> SweepFile:
    """Runs a sweep in the folder, with one model for all averages."""
    file = SweepFile.open(tmp_path / "sweep.json", Sweep.parse(axes), ["pinxit", "evaluate"])
    say = (lambda line: None) if lines is None else lines.append
    return SweepRunner(file, chosen, lambda ema: replace(context), once=once, say=say).run()


AXES = ["guidance_scale=1,2", "steps=1,2"]


def test_the_cells_are_the_product_of_the_axes():
    sweep = Sweep.parse(["cfg_scale=1,2.5", "--steps=4,8,16", "ema=raw,0.05"])
    cells = sweep.cells()
    assert len(sweep) == len(cells) == 12 == len({cell.words for cell in cells})
    assert cells[0].words == "guidance_scale 1, steps 4, ema raw"
    assert cells[-1].settings == {"guidance_scale": 2.5, "steps": 16, "ema": "0.05"}
    assert cells[-1].ema == "0.05" and cells[-1].sampling == {"guidance_scale": 2.5, "steps": 16}
    assert sweep.written == ("guidance_scale=1,2.5", "steps=4,8,16", "ema=raw,0.05")


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (["prompt=a|b"], "sweep: 'prompt' is no setting that a sweep varies (all cells have the"),
        (["size=64,128"], "see pinxit grid"),
        (["checkpoint=a,b"], "see pinxit compare"),
        (["stepz=1,2"], "sweep: 'stepz' is no setting that a sweep varies; valid: steps, guidance"),
        (["steps"], "sweep: 'steps' is not NAME=VALUE,VALUE"),
        (["steps=4"], "sweep: '4' is a single value of steps"),
        (["steps=4,4"], "sweep: 'steps' is given 4 more than once"),
        (["steps=0,4"], "steps: 0 is too small"),
        (["solver=euler,eular"], "solver: unknown 'eular'"),
        (["steps=4,8", "num_inference_steps=2,3"], "sweep: 'steps' is the name of two axes"),
        (["steps=" + ",".join(map(str, range(1, 41))), "shift=" + ",".join(map(str, range(1, 42)))],
         "is a sweep of 1,640 cells; valid: at most 1,000"),
        ([], "without axes"),
    ],
)  # fmt: skip
def test_wrong_axes_are_refused(axes, message):
    with pytest.raises(UsageError) as error:
        Sweep.parse(axes)
    assert message in str(error.value)


def test_a_setting_is_fixed_or_varied():
    with pytest.raises(UsageError, match="steps: 4 is fixed, but the sweep varies it"):
        Sweep.parse(AXES).check_free({"steps": 4})
    Sweep.parse(AXES).check_free({"steps": None, "shift": 2.0})


def test_each_cell_has_the_values_of_a_single_evaluation(tmp_path, context):
    file = swept(tmp_path, ["steps=1,2", "ema=a,b"], replace(context, sampling={"shift": 2.0}))
    for cell in file.in_order():
        settings = {"steps": cell.settings["steps"], "shift": 2.0}
        alone = replace(context, sampling=settings)
        assert cell.values == {"distance": measure(EVALUATORS["distance"], alone)}
        assert cell.pictures == len(TEXTS)
        assert cell.settings["ema"] == "b" or (cell.seconds or 0) > 0
        assert cell.sampling["steps"] == cell.settings["steps"]
        assert cell.sampling["solver"] == "euler"
    stored = json.loads((tmp_path / "sweep.json").read_text())
    assert [cell["settings"] for cell in stored["cells"]] == [
        {"steps": steps, "ema": ema} for steps in (1, 2) for ema in ("a", "b")
    ]
    assert not (tmp_path / "drawn").exists(), "features of drawn pictures are removed at the end"


@pytest.mark.parametrize("at", [1, 4, 6])
def test_an_interrupted_sweep_goes_on_within_the_cell(tmp_path, context, drawn, monkeypatch, at):
    whole = swept(tmp_path / "whole", AXES, context)
    drawn.clear()
    observed, calls = MeanColour.__call__, []

    def interrupted(self, pictures, prompts):
        calls.append(len(pictures))
        if len(calls) == at + 1:  # the real pictures are the first call
            raise KeyboardInterrupt
        return observed(self, pictures, prompts)

    monkeypatch.setattr(MeanColour, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        swept(tmp_path, AXES, context)
    before = sum(drawn.values())
    assert 0 < before < 16
    monkeypatch.setattr(MeanColour, "__call__", observed)
    lines = []
    file = swept(tmp_path, AXES, context, lines=lines)
    assert [cell.values for cell in file.in_order()] == [c.values for c in whole.in_order()]
    # Only the piece that was being looked at is drawn again.
    assert sum(drawn.values()) == 16 + 2 and max(drawn.values()) == 2
    finished = (before - 2) // 4
    assert lines[0] == "4 cells of 4 pictures: 16 pictures"
    assert finished == 0 or lines[1].startswith(f"{finished} of 4 cells: stored in ")
    drawn.clear()
    swept(tmp_path, AXES, context)
    assert not drawn, "a finished sweep draws nothing"


def test_another_command_keeps_the_cells_that_still_apply(tmp_path, context, model, drawn):
    swept(tmp_path, AXES, context)
    drawn.clear()
    lines = []
    wider = swept(tmp_path, ["steps=2,3", "guidance_scale=2,1"], context, lines=lines)
    assert lines[1].startswith("2 of 4 cells: stored in ")
    assert {steps for _, steps, *_ in drawn} == {3} and sum(drawn.values()) == 8
    assert [cell.settings["steps"] for cell in wider.earlier] == [1, 1], "and none is lost"

    drawn.clear()
    fewer = replace(context, prompts=2)
    lines = []
    swept(tmp_path, AXES, fewer, lines=lines)
    assert sum(drawn.values()) == 8
    assert "4 cells in" in lines[-1] and lines[-1].endswith("measured again")
    other = context.varied(model=model.with_params(model.params))
    other.model.__dict__["model_hash"] = "another"
    drawn.clear()
    swept(tmp_path, AXES, other)
    assert sum(drawn.values()) == 16, "the values of another model are never used"
    drawn.clear()
    swept(tmp_path, AXES, context)
    assert not drawn, "those of the first model still are"


def test_averages_are_loaded_once_and_measured_once_on_rows(tmp_path, context, drawn):
    loaded = []

    def context_of(ema):
        loaded.append(ema)
        return replace(context)

    file = SweepFile.open(
        tmp_path / "sweep.json", Sweep.parse(["steps=1,2", "ema=raw,0.05"]), ["pinxit"]
    )
    SweepRunner(file, EVALUATORS, context_of, once=True).run()
    assert loaded == ["raw", "0.05"]
    assert [cell.settings for cell in file.averages.values()] == [{"ema": "raw"}, {"ema": "0.05"}]
    assert [cell.all_values for cell in file.averages.values()] == [{"validation/loss": 4.0}] * 2
    assert all("rows" not in cell.values for cell in file.in_order())
    # Both averages are one model here, so that the second one's values are stored already.
    assert sum(drawn.values()) == 8
    assert "| raw | **4.0000** |" in sweep_table(file)


def test_a_sweep_that_draws_nothing_is_refused(tmp_path, context):
    with pytest.raises(UsageError, match="without evaluators of drawn pictures"):
        swept(tmp_path, AXES, context, chosen={"rows": EVALUATORS["rows"]})
    with pytest.raises(UsageError, match="without evaluators of drawn pictures"):
        swept(tmp_path, AXES, replace(context, prompts=0))
    assert not (tmp_path / "sweep.json").exists()


@pytest.mark.parametrize("text", ['{"format": "other"}', "{}", '{"format": "pinxit-sweep"}'])
def test_a_file_of_another_kind_is_refused(tmp_path, text):
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(UsageError, match="a file that no sweep of this version has written"):
        SweepFile.open(tmp_path / "sweep.json", Sweep.parse(AXES), [])
    assert (tmp_path / "sweep.json").read_text() == text


def cells_of(axes, values) -> list[MeasuredCell]:
    """Cells with an accuracy and a distance that `values` returns for the settings."""
    names = ("prompts/accuracy/mean", "distances/value/frechet_toy")
    return [
        MeasuredCell(
            dict(cell.settings),
            values={"all": dict(zip(names, values(**cell.settings), strict=True))},
            keys={"all": cell.words},
        )
        for cell in Sweep(axes).cells()
    ]


def test_the_table_has_a_row_for_each_cell_and_the_best_in_bold(tmp_path):
    axes = tuple(map(Axis.parse, AXES))
    file = SweepFile(tmp_path / "x", Sweep(axes), ["pinxit", "evaluate", "--sweep", *AXES])
    for cell, measured in zip(
        file.sweep.cells(),
        cells_of(axes, lambda guidance_scale, steps: (steps / 4, guidance_scale * 10 + steps)),
        strict=True,
    ):
        measured.values["all"]["prompts/ceiling/mean"] = 0.99
        file.cells[cell.words] = measured
    page = sweep_table(file)
    assert "| guidance_scale | steps | prompt accuracy (fraction of attributes) ↑ | " in page
    assert "| 1 | 1 | 0.2500 | **11.00** |" in page and "| 2 | 2 | **0.5000** | 22.00 |" in page
    assert "    pinxit evaluate --sweep guidance_scale=1,2 steps=1,2" in page
    assert "The same in all cells: prompt accuracy of real pictures 0.9900." in page


@pytest.mark.parametrize(
    "texts",
    [
        ["guidance_scale=1,2,4", "steps=4,16"],
        ["solver=euler,heun"],
        ["ema=raw,0.05", "guidance_interval=0-1,0.2-0.8", "guidance_scale=1,3"],
    ],
)
def test_the_picture_changes_with_the_values(tmp_path, texts):
    axes = tuple(map(Axis.parse, texts))
    paths: list[Path] = []
    for shift in (0.0, 0.2):
        cells = cells_of(
            axes, lambda shift=shift, **settings: (len(str(settings)) + shift, 5 + shift)
        )
        for number, cell in enumerate(cells):
            cell.values["all"]["distances/value/frechet_toy"] += number
            cell.values["all"]["prompts/accuracy/mean"] += number * shift
            cell.settings = json.loads(json.dumps(cell.settings))  # as from the file
        paths.append(tmp_path / f"{shift}.png")
        draw_sweep(axes, cells, paths[-1], title="toy")
    pictures = [np.asarray(Image.open(path)) for path in paths]
    assert min(pictures[0].shape[:2]) > 200
    assert not np.array_equal(pictures[0], pictures[1]), "other values, another picture"
    guidance = any(axis.name == "guidance_scale" for axis in axes)
    assert (pictures[0].shape[1] > 1000) == guidance, "the trade-off is a plot of its own"


def test_the_time_left_follows_from_the_cost_of_the_cells():
    cheap, dear = Sampling(steps=4, guidance_scale=1), Sampling(steps=16, solver="heun")
    assert cost(dear) == 4 + 16 * 2 * 2 and cost(cheap) == 8
    assert seconds_left([(8.0, 4.0)], [8.0, 16.0]) == pytest.approx(12.0)
    assert seconds_left([], [8.0]) is None
