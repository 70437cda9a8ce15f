"""The files that docs/geneval.md shows do what the page says."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from painting_model import PaintingModel

import pinxit.model_loading
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.dpg.evaluator import check_dpg, load_answerer
from pinxit.evaluate.dpg.questions import COLUMNS
from pinxit.evaluate.geneval.detection import Detector
from pinxit.evaluate.geneval.evaluator import GenEvalVerdicts, load_detector
from pinxit.evaluate.geneval.prompts import balanced

PAGE = (Path(__file__).parents[2] / "docs/geneval.md").read_text("utf-8")
DETECTOR, EVALUATION, ANSWER, MEANS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    (tmp_path / "apples.py").write_text(DETECTOR)
    (tmp_path / "answers.py").write_text(ANSWER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def disc(rgb: tuple[int, int, int]) -> np.ndarray:
    image = np.full((32, 32, 3), 255, np.uint8)
    y, x = np.indices((32, 32)) - 16
    image[x**2 + y**2 < 64] = rgb
    return image


def test_the_example_detector_scores_pictures(folder: Path):
    verdicts = GenEvalVerdicts(Detector(load_detector("apples.py:detect")))
    red, blue, white = (disc(rgb) for rgb in ((250, 10, 10), (10, 10, 250), (255, 255, 255)))
    any_colour = verdicts([red, blue, white], ["a photo of an apple"] * 3)
    assert any_colour[:, 0].tolist() == [1, 1, 0]
    assert verdicts([red, blue], ["a photo of a red apple"] * 2)[:, 0].tolist() == [1, 0]
    assert verdicts([red], ["a photo of three apples"])[:, 0].tolist() == [0]


def test_the_evaluation_runs(folder: Path, monkeypatch, capsys):
    model = PaintingModel([prompt.text for prompt in balanced(12)])
    monkeypatch.setattr(pinxit.model_loading, "load_checkpoint", lambda: model)
    names: dict = {}
    exec(EVALUATION, names)
    assert len(model.painted) == 48 and "geneval_12_of_553/accuracy/mean" in names["values"]
    assert capsys.readouterr().out.startswith("GenEval 0.")


def test_the_answering_function_is_accepted(folder: Path):
    table = folder / "dpg_bench.csv"
    table.write_text(f"{','.join(COLUMNS)}\na,a house,1,0,entity - whole (house),A house?\n")
    answer = load_answerer("answers.py:answer")
    check_dpg(EvaluationContext(PaintingModel([]), answer=answer, dpg_questions=table))
    assert (
        answer(disc((0, 0, 0)), "") is True and answer(np.zeros((8, 8, 3), np.uint8), "") is False
    )


def test_the_means_are_those_of_the_comment():
    names: dict = {}
    lines = MEANS.strip().splitlines()
    exec("\n".join(lines[:-1]), names)
    code, _, value = lines[-1].partition("  # ")
    assert eval(code, names) == pytest.approx(eval(value))
