"""The picture of a run's curves."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from pinxit.train.report.curves import _others, _validation, draw_curves


def row(step: int, raw: float, average: float) -> dict[str, float]:
    return {"step": step, "validation_loss/raw": raw, "validation_loss/ema_0.1": average}


def test_validation_losses_of_one_step_are_bars_from_zero():
    axes = Figure().subplots()
    _validation(axes, [{"step": 10, "loss": 1.0}, row(20, 0.3341, 0.3347)])
    assert [bar.get_height() for bar in axes.patches] == [0.3347, 0.3341]
    assert [label.get_text() for label in axes.texts] == ["0.3347", "0.3341"]
    assert axes.get_ylim()[0] == 0
    assert axes.get_xlabel() == "step 20"


def test_validation_losses_of_several_steps_are_lines():
    axes = Figure().subplots()
    _validation(axes, [row(10, 0.5, 0.6), row(20, 0.4, 0.4)])
    assert not axes.patches
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert lines == {"ema_0.1": [0.6, 0.4], "raw": [0.5, 0.4]}


@pytest.mark.parametrize("rows", [[], [{"step": 1, "loss": 2.0}], [row(1, 0.5, 0.6)]])
def test_a_run_that_has_hardly_begun_has_curves(rows, tmp_path: Path):
    draw_curves(rows, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (1200, 650)


def test_values_of_an_added_metric_have_a_curve(tmp_path: Path):
    rows = [row(10, 0.5, 0.6), row(20, 0.4, 0.4)]
    draw_curves(rows, tmp_path / "before.png")
    added = [old | {"brightness/mean": 0.1 * old["step"]} for old in rows]
    assert _others(added) == {"brightness": ["brightness/mean"]} and not _others(added[:1])
    draw_curves(added, tmp_path / "after.png")
    for name, height in (("before.png", 650), ("after.png", 975)):
        with Image.open(tmp_path / name) as picture:
            assert picture.height == height


def test_a_group_of_many_values_shows_the_few_that_matter():
    names = [f"prompts/{kind}/{name}" for kind in ("accuracy", "chance") for name in "abcd"]
    names += ["prompts/accuracy/mean", "prompts/chance/mean"]
    names += [f"distances/{kind}/row{i}" for kind in ("value", "noise") for i in range(9)]
    names += ["few/a", "few/b"]
    rows = [{"step": step, **dict.fromkeys(names, 1.0)} for step in (1, 2)]
    shown = _others(rows)
    assert shown["prompts"] == ["prompts/accuracy/mean", "prompts/chance/mean"]
    assert shown["distances"] == [f"distances/value/row{i}" for i in range(7)]
    assert shown["few"] == ["few/a", "few/b"]
