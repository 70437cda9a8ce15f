"""Which evaluators run, with what: nothing that was asked for is left out without a word."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy_features import ToyFeatures

from pinxit.config import UsageError
from pinxit.evaluate.equipment import check_paths, equipment
from pinxit.evaluate.evaluators import EVALUATORS, Evaluator
from pinxit.evaluate.selection import BUILT_IN, BY_NAME, Request, Selection, select
from pinxit.train.settings import EvalConfig

LEFT_OUT = "not measured: clip_score (without pictures), distances (without pictures)"


@pytest.fixture(autouse=True)
def all_built_in(monkeypatch: pytest.MonkeyPatch):
    """Every built-in evaluator exists, and so do its networks and functions."""
    for name in sorted(BUILT_IN):
        if name not in EVALUATORS:
            monkeypatch.setitem(EVALUATORS, name, Evaluator(lambda context: iter(())))
    networks = SimpleNamespace(feature_networks=lambda **paths: ([ToyFeatures()], paths["clip"]))
    monkeypatch.setitem(sys.modules, "pinxit.evaluate.networks", networks)
    load = lambda text, option="detector": (text, option)  # noqa: E731
    monkeypatch.setattr("pinxit.evaluate.equipment.load_detector", load)
    monkeypatch.setattr("pinxit.evaluate.equipment.load_answerer", load)


def chosen(
    *names: str, scenes: bool = True, rows: int = 20, usual: int = 8, **options
) -> Selection:
    dataset = "scenes" if scenes else "mock"
    request = Request(evaluators=names, **options)
    return select(request, dataset=dataset, scenes=scenes, rows=rows, prompts=usual)


def test_the_usual_evaluators_read_the_same_pictures():
    selection = chosen()
    assert {*selection.names} == {*EVALUATORS} - {*BY_NAME} and selection.prompts == 8
    assert str(selection) == ""
    other = chosen(scenes=False)
    assert other.names == ("validation_loss", "caption_effect") and other.prompts == 0
    assert set(str(other)[14:].split(", ")) == set(LEFT_OUT[14:].split(", "))
    without = chosen(prompts=0, rows=0)
    assert without.names == () and "validation_loss (without held-out rows)" in str(without)


def test_other_data_are_drawn_on_request():
    for options in ({"prompts": 5}, {"inception": "i.npz"}, {"clip": "c"}):
        assert chosen(scenes=False, **options).prompts == options.get("prompts", 8)
    assert chosen("distances", scenes=False, usual=99).prompts == 20  # as many as there are rows
    selection = chosen(scenes=False, prompts=5)
    assert "distances" in selection.names and "clip_score (without a CLIP)" in str(selection)
    assert "clip_score" in chosen(scenes=False, prompts=5, clip="c").names


def test_options_ask_for_the_evaluators_that_draw_pictures_of_their_own():
    assert "composition" in chosen(composition_prompts=3).names
    fields = equipment(chosen(composition_prompts=3, variety_prompts=2))
    assert fields["composition_prompts"] == 3 and fields["variety_prompts"] == 2
    assert equipment(chosen("composition"))["composition_prompts"] == 50
    assert equipment(chosen("variety"))["variety_prompts"] == 16
    selection = chosen(scenes=False, detector="d.py:find", geneval_prompts=7)
    assert selection.names[-1] == "geneval" and selection.prompts == 0
    fields = equipment(selection)
    assert fields["detect"] == ("d.py:find", "detector") and fields["geneval_prompts"] == 7
    fields = equipment(chosen(scenes=False, answer="a.py:say", dpg_questions="q.csv"))
    assert fields["answer"] == ("a.py:say", "answer") and fields["dpg_questions"] == Path("q.csv")


def test_networks_are_loaded_for_those_that_read_them():
    fields = equipment(chosen(clip="c", reference_images=9, reference_statistics="s.npz"))
    assert [one.name for one in fields["networks"]] == ["colour"] and fields["clip"] == "c"
    assert fields["reference_images"] == 9 and fields["reference_statistics"] == Path("s.npz")
    assert fields["judge"] is not None
    for selection in (chosen("validation_loss"), chosen(scenes=False), chosen("prompt_accuracy")):
        assert "networks" not in equipment(selection)
    assert equipment(chosen("validation_loss"))["judge"] is None
    assert equipment(chosen("distances", scenes=False))["judge"] is None


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["details"], {"scenes": False}, r"'details' is not possible on mock: only pictures of sc"),
        (["distances"], {"prompts": 0}, "not possible without pictures; valid: --prompts above 0"),
        (["validation_loss"], {"rows": 0}, "without held-out rows; valid: --images above 0"),
        (["geneval"], {"scenes": False}, "not possible without --detector"),
        (["dpg"], {"answer": "a.py:f"}, "not possible without --dpg_questions"),
        (["clip_score"], {"scenes": False}, "not possible without a CLIP; valid: --clip"),
        (["composition"], {"composition_prompts": 0}, "--composition_prompts above 0"),
        (["nothing"], {}, "evaluators: 'nothing' is unknown; valid: "),
        ([], {"prompts": 21, "scenes": False}, "prompts: 21 is more than the 20 held-out rows"),
        ([], {"reference_images": 1}, "reference_images: 1 is too small; valid: at least 2"),
        (["validation_loss"], {"clip": "c"}, "clip: 'c' is without effect on validation_loss: it "),
        (["variety"], {"reference_images": 9}, "it is read by distances; valid: leave it out"),
        ([], {"geneval_prompts": 9}, "geneval_prompts: 9 is without effect on "),
        (["distances"], {"composition_prompts": 9}, "it is read by composition"),
    ],
)
def test_what_cannot_be_measured_is_refused(names: list[str], options: dict, message: str):
    with pytest.raises(UsageError, match=message):
        chosen(*names, **options)


def test_missing_files_are_named_before_anything_is_loaded(tmp_path: Path):
    with pytest.raises(UsageError, match=r"inception: '.*none.npz' is missing; valid: a file"):
        check_paths(Request(inception=str(tmp_path / "none.npz")))
    with pytest.raises(UsageError, match=r"reference_statistics: .* is not a file"):
        check_paths(Request(reference_statistics=str(tmp_path)))


def test_a_user_s_evaluator_may_read_every_option(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(EVALUATORS, "own", Evaluator(lambda context: iter(())))
    assert equipment(chosen("own", clip="c"))["clip"] == "c"
    assert "networks" not in equipment(chosen("own"))


def test_the_evaluators_of_a_run():
    settings = EvalConfig(prompts=12, mid_run_prompts=5)
    assert {*settings.at_end("scenes", 20).names} == {*EVALUATORS} - {*BY_NAME}
    on_the_way = settings.in_mid_run("scenes", 20)
    assert on_the_way.names == ("validation_loss", "caption_effect")
    assert settings.at_end("mock", 20).names == on_the_way.names
    settings = EvalConfig(mid_run=("prompt_accuracy",), mid_run_prompts=5, composition_prompts=9)
    on_the_way = settings.in_mid_run("scenes", 20)
    assert on_the_way.names == ("prompt_accuracy",) and on_the_way.prompts == 5
    assert "composition" not in settings.at_end("scenes", 20).names
    settings = EvalConfig(evaluators=("composition",), composition_prompts=9, clip="c")
    selection = settings.at_end("scenes", 20)
    assert selection.names == ("composition", "validation_loss")  # the loss chooses the average
    assert equipment(selection)["composition_prompts"] == 9
    assert EvalConfig(clip="c").at_end("mock", 20).prompts == 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"evaluators": ("details",)},
            r"evaluation\.evaluators: 'details' is not possible on mock",
        ),
        ({"mid_run": ("variety",)}, r"evaluation\.mid_run: 'variety' is not possible on mock"),
        (
            {"evaluators": ("distances",), "prompts": 0},
            r"evaluation\.evaluators: 'distances' is n",
        ),
    ],
)
def test_a_run_refuses_what_it_cannot_measure(settings: dict, message: str):
    with pytest.raises(UsageError, match=message):
        EvalConfig(**settings).check("mock")
    with pytest.raises(UsageError, match=r"evaluation\.evaluators: 'geneval' is unknown; valid: "):
        EvalConfig(evaluators=("geneval",))
