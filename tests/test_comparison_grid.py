"""Comparison grids: axes, cells that equal single pictures, one model in memory, the sheet."""

from __future__ import annotations

import gc
import json
import shlex
import weakref

import numpy as np
import pytest
from tiny_pipeline import tiny_pipeline

from pinxit import load_checkpoint
from pinxit.comparison_grid import sheet as grid_sheet
from pinxit.comparison_grid.axes import AXES, Axis
from pinxit.comparison_grid.cells import OneModel, prepared_grid
from pinxit.comparison_grid.grid import Grid
from pinxit.comparison_grid.sheet import GridSheet, grid_bytes, grid_json, stored_grid
from pinxit.config import UsageError
from pinxit.drawing import solve
from pinxit.sampling import Sampling


@pytest.fixture(scope="module")
def model(bundle):
    return tiny_pipeline(bundle)


def grid_of(*axes: str, **settings: object) -> Grid:
    return Grid(tuple(map(Axis.parse, axes)), {"prompt": "red light", **settings})


def drawn(grid: Grid, model: object, **how: object) -> list[bytes]:
    """The bytes of the pictures of all cells."""
    prepared = prepared_grid(grid, load=lambda checkpoint, ema: model)
    pictures = dict(prepared.pictures(**how))
    return [np.asarray(pictures[i]).tobytes() for i in sorted(pictures)]


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("seed=0-2,7", "seed", (0, 1, 2, 7)),
        ("seed = 4294967295, 0", "seed", (4294967295, 0)),
        ("cfg_scale=1,2.5", "guidance_scale", (1.0, 2.5)),
        ("num-inference-steps=8,4,16", "steps", (8, 4, 16)),
        ("--steps=1e1,4", "steps", (10, 4)),
        ("solver=euler,heun", "solver", ("euler", "heun")),
        ("size=64,96x64", "size", ((64, 64), (96, 64))),
        ("guidance_interval=0-1,0.2-0.8", "guidance_interval", ((0.0, 1.0), (0.2, 0.8))),
        ("cfg_zero_star=0,1", "cfg_zero_star", (False, True)),
        ("prompt=a, b|c", "prompt", ("a, b", "c")),
        ("negative_prompt=|fog", "negative_prompt", ("", "fog")),
        ("prompt_sr=red|blue|", "prompt_sr", ("red", "blue", "")),
        ("checkpoint=none,runs/a", "checkpoint", (None, "runs/a")),
        ("checkpoint=a,b|c", "checkpoint", ("a,b", "c")),
        ("ema=raw,0.05", "ema", ("raw", "0.05")),
    ],
)
def test_an_axis_is_read_in_the_order_given_and_written_again(text, name, values):
    axis = Axis.parse(text)
    assert (axis.name, axis.values) == (name, values)
    assert Axis.parse(axis.written) == axis
    assert len(axis.labels) == len(values) and all(axis.labels)


def test_every_sampling_setting_can_be_an_axis():
    assert set(Sampling.__dataclass_fields__) <= set(AXES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps", "axis: 'steps' is not NAME=VALUE,VALUE; valid: steps=4,8,16"),
        ("colour=red,blue", "axis: 'colour' is unknown; valid: seed, size, prompt"),
        ("sampler=euler,heun", "axis: 'sampler' is unknown; valid: solver"),
        ("width=64,96", "axis: 'width' is unknown; valid: size=WIDTHxHEIGHT"),
        ("steps=4", "axis: '4' is a single value of steps"),
        ("prompt=a, b", "axis: 'a, b' is a single value of prompt.*texts separated by |"),
        ("steps=4,8,4.0", "axis: 'steps' is given 4 more than once"),
        ("seed=0-3,2", "axis: 'seed' is given 2 more than once"),
        ("seed=7-3", "seed: '7-3' is a range that ends before it begins"),
        ("seed=0-99999", "seed: '0-99999' is a range of 100,000 seeds; valid: at most 1,000"),
        ("seed=-1,2", "seed: '-1' is not understood"),
        ("seed=1,4294967296", "seed: 4294967296 is out of range"),
        ("steps=4,x", "steps: 'x' is not understood; valid: an integer"),
        ("steps=4,", "steps: '' is not understood"),
        ("steps=4,8.5", "steps: '8.5' is not understood; valid: an integer"),
        ("steps=4,0", "steps: 0 is too small; valid: at least 1"),
        ("guidance_scale=1,nan", "guidance_scale: 'nan' is not understood"),
        ("guidance_scale=1,inf", "guidance_scale: 'inf' is not understood; valid: a number"),
        ("shift=1,0", "shift: 0.0 is not positive"),
        ("solver=euler,eular", "solver: unknown 'eular'"),
        ("spacing=even,odd", "spacing: 'odd' is unknown; valid: even, diffusers"),
        ("cfg_zero_star=0,2", "cfg_zero_star: '2' is not understood; valid: 0, 1"),
        ("guidance_interval=0-1,0.5", "guidance_interval: '0.5' is not understood; valid: LOW"),
        ("guidance_interval=0-1,0.8-0.2", "guidance_interval"),
        ("size=64,64x", "size: '64x' is not understood; valid: one side, or WIDTHxHEIGHT"),
        ("size=64,0", "size: '0' is too small"),
        ("prompt=a|", "prompt: '' is an empty text"),
        ("checkpoint=a,,b", "checkpoint: '' is not a name"),
    ],
)
def test_a_wrong_axis_is_refused_in_one_line(text, message):
    with pytest.raises(UsageError, match=message) as refusal:
        Axis.parse(text)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("axes", "settings", "message"),
    [
        (["seed=1,2"], {"seed": 3}, "seed: 3 is fixed, but the axis x varies seed"),
        (
            ["steps=1,2", "size=8,16"],
            {"size": (8, 8)},
            "size: '8x8' is fixed, but the axis y varies",
        ),
        (["prompt=a|b"], {}, "prompt: 'red light' is fixed, but the axis x"),
        (["steps=1,2", "steps=3,4"], {}, "y: 'steps' is the setting of two axes|x: 'steps'"),
        (["prompt_sr=blue|green"], {}, "prompt_sr: 'blue' is not in the prompt 'red light'"),
        (["prompt_sr=|green"], {}, "prompt_sr: '' is not in the prompt"),
        (["steps=1,2"], {"solver": "eular"}, "solver: unknown 'eular'"),
        (["steps=1,2"], {"seed": -1}, "seed: -1 is out of range"),
        (["steps=1,2"], {"colour": 1}, "setting: 'colour' is unknown"),
        (["steps=1,2"], {"size": (0, 8)}, "size: '0x8' is not a size"),
        (["steps=1,2"], {"batch_size": 0}, "batch_size: 0 is too small"),
        (["seed=0-999", "steps=1,2,3,4,5,6", "shift=1,2,3,4"], {}, "24,000 cells .*89,478,485"),
        (["seed=0-399"], {"size": (512, 512)}, "400 cells would have 104,857,600 or more pixels"),
        (["size=8192,9000"], {}, "2 cells would have 148,108,864 or more pixels"),
    ],
)
def test_a_wrong_grid_is_refused_before_a_model_is_loaded(axes, settings, message):
    with pytest.raises(UsageError, match=message) as refusal:
        grid_of(*axes, **settings)
    assert "\n" not in str(refusal.value)


def test_a_grid_without_a_prompt_or_axes_is_refused():
    with pytest.raises(UsageError, match="prompt: none is missing"):
        Grid((Axis("seed", (1, 2)),))
    with pytest.raises(UsageError, match="not one, two or three axes"):
        Grid((), {"prompt": "a"})


def test_axes_made_in_python_are_checked_too():
    for name, values in [("size", (8, 16)), ("seed", (1, "2")), ("steps", (1, True)), ("ema", "")]:
        with pytest.raises(UsageError):
            Axis(name, (*values,))
    with pytest.raises(UsageError, match=r"texts without \|"):
        Axis("prompt", ("a|b", "c"))


def test_cells_are_in_the_order_of_rows_and_panels():
    grid = grid_of("seed=5,3", "steps=1,2,3", "solver=euler,heun")
    cells = [
        tuple(cell.settings[name] for name in ("solver", "steps", "seed")) for cell in grid.cells()
    ]
    assert cells == [(s, n, k) for s in ("euler", "heun") for n in (1, 2, 3) for k in (5, 3)]


def test_search_and_replace_follows_the_other_axes():
    axes = ["prompt_sr=red|blue", "prompt_sr=light|house|", "negative_prompt=red fog|"]
    cells = [cell.settings for cell in grid_of(*axes).cells()]
    assert [cell["prompt"] for cell in cells] == [
        *("red light", "blue light", "red house", "blue house", "red ", "blue ")
    ] * 2
    assert [cell["negative_prompt"] for cell in cells] == ["red fog", "blue fog"] * 3 + [""] * 6
    axes = ["prompt=a red house|a blue tent", "prompt_sr=red|green"]
    with pytest.raises(UsageError, match="not in the prompt 'a blue tent'"):
        Grid(tuple(map(Axis.parse, axes)))


def test_each_cell_equals_the_single_picture(model):
    """Every kind of axis but the models', in three grids."""
    grids = [
        grid_of("guidance_scale=1,3", "steps=2,3", "solver=euler,heun", seed=4),
        grid_of("seed=1,5", "size=16,32x16", "negative_prompt=|blue"),
        grid_of("prompt_sr=red|blue", "shift=1,2", "guidance_interval=0-1,0.2-0.6", steps=3),
    ]
    for grid in grids:
        single = []
        for cell in grid.cells():
            settings = dict(cell.settings)
            single.append(np.asarray(model.generate(settings.pop("prompt"), **settings)).tobytes())
        assert drawn(grid, model) == single
        assert len(set(single)) == len(grid), "an axis without effect shows nothing"


def test_cells_equal_the_single_picture_in_batches(model, monkeypatch):
    monkeypatch.setattr("pinxit.pipeline.one_by_one", lambda: False)  # as on an accelerator
    axes = Axis("seed", (0, 1, 2, 3, 4)), Axis("prompt", ("red", "blue light"))
    grid = Grid(axes, {"batch_size": 2})
    prepared = prepared_grid(grid, load=lambda *_: model)
    assert [group.order.batch_size for group in prepared.groups] == [2]
    for i, picture in prepared.pictures(skip={0, 3}):
        how = dict(grid.cells()[i].settings)
        assert picture.tobytes() == model.generate(how.pop("prompt"), **how).tobytes()
        assert i not in (0, 3)


def test_the_recipe_of_a_cell_draws_it_again(model):
    prepared = prepared_grid(grid_of("steps=1,2", "seed=3,4"), load=lambda *_: model)
    pictures = dict(prepared.pictures())
    for i, recipe in enumerate(prepared.recipes):
        others = ("prompt", "model", "model_hash", "version")
        how = {name: value for name, value in recipe.items() if name not in others}
        how["size"] = tuple(how["size"])
        assert model.generate(recipe["prompt"], **how).tobytes() == pictures[i].tobytes()


def test_a_program_is_compiled_once_and_texts_are_encoded_once(bundle, monkeypatch):
    first, second = tiny_pipeline(bundle), tiny_pipeline(bundle, seed=9)
    calls: list[list[str]] = []

    def counting(encode):
        """Counts the batches of texts that reach the text encoder."""
        return lambda captions: calls.append(list(captions)) or encode(captions)

    for one in (first, second):
        one.encode = counting(one.encode)
    grid = grid_of("seed=0-3", "steps=6,7", "checkpoint=a,b", guidance_scale=2.25)
    prepared = prepared_grid(grid, load=lambda path, ema: {"a": first, "b": second}[path])
    before = solve._cache_size()
    assert len(list(prepared.pictures())) == 16
    assert solve._cache_size() - before == 2, "one program for each number of steps"
    assert calls == [["red light"], [""]] * 2, "one call for each text and model"


def test_one_model_is_in_memory_and_each_is_loaded_once_to_check_and_once_to_draw(bundle):
    loaded: list[str] = []
    alive: list[weakref.ref] = []

    def load(path, ema):
        gc.collect()
        assert [one() for one in alive if one() is not None] == []
        made = tiny_pipeline(bundle, seed=len(path), name=path)
        alive.append(weakref.ref(made.autoencoder))
        loaded.append(path)
        return made

    grid = grid_of("checkpoint=a,bb,ccc", "seed=0,1")
    prepared = prepared_grid(grid, load=load)
    assert loaded == ["a", "bb", "ccc"]
    pictures = dict(prepared.pictures())
    assert loaded == ["a", "bb", "ccc", "a", "bb"], "the last one draws first"
    assert len({picture.tobytes() for picture in pictures.values()}) == 6
    assert [recipe["model"] for recipe in prepared.recipes] == ["a", "bb", "ccc"] * 2
    del loaded[:]
    assert [i for i, _ in prepared.pictures(skip={0, 1, 3, 4})] == [2, 5]
    assert loaded == ["ccc"], "models whose cells are there already are not loaded"


def test_a_single_model_is_loaded_once(model):
    loads = []
    prepared = prepared_grid(grid_of("seed=0,1"), load=lambda *key: loads.append(key) or model)
    list(prepared.pictures())
    assert loads == [(None, None)]
    assert "encode" not in vars(model), "the caller's model is unchanged"


def test_a_checkpoint_that_changes_meanwhile_is_refused(bundle):
    versions = iter([tiny_pipeline(bundle, seed=i) for i in range(3)])
    prepared = prepared_grid(grid_of("checkpoint=run,b"), load=lambda *_: next(versions))
    with pytest.raises(UsageError, match="checkpoint: 'run' is another model than when the grid"):
        list(prepared.pictures())


def test_a_failed_load_leaves_no_model_behind(model):
    def load(path, ema):
        if path == "b":
            raise UsageError("checkpoint", path, problem="missing")
        return model

    models = OneModel(load)
    models.get(("a", None))
    with pytest.raises(UsageError):
        models.get(("b", None))
    assert models.key is None and models.get(("a", None)).name == "toy"


@pytest.mark.parametrize(
    ("axes", "settings", "message"),
    [
        (
            ["seed=1,2"],
            {"negative_prompt": "fog", "guidance_scale": 1},
            "negative_prompt: 'fog' is",
        ),
        (["guidance_interval=0-1,0-0.5"], {"guidance_scale": 1}, "guidance_interval"),
        (["size=16,17"], {}, "size: 17 is not a multiple of"),
    ],
)
def test_settings_that_the_model_refuses(model, axes, settings, message):
    with pytest.raises(UsageError, match=message):
        prepared_grid(grid_of(*axes, **settings), load=lambda *_: model)


def test_a_setting_that_has_an_effect_in_a_single_cell_is_accepted(model):
    grid = grid_of("guidance_scale=1,2", negative_prompt="fog")
    assert len(drawn(grid, model)) == 2


def test_the_sheet_has_its_pixels_and_says_what_it_shows(model, tmp_path):
    axes = ("guidance_scale=1,3", "size=16,32x16", "solver=euler,heun")
    grid = grid_of(*axes, seed=4, steps=2, encoder_dtype="bfloat16")
    prepared = prepared_grid(grid, load=lambda *_: model)
    sheet = GridSheet(prepared)
    pictures = [picture for _, picture in sorted(prepared.pictures())]
    image = sheet.draw(pictures)
    assert image.size == sheet.size and sheet.scale == 6
    pixels = np.asarray(image)
    for picture in pictures:
        large = np.asarray(picture).repeat(6, 0).repeat(6, 1)
        corner = (pixels == large[0, 0]).all(-1)
        height, width = large.shape[:2]
        assert any(
            np.array_equal(pixels[y : y + height, x : x + width], large)
            for y, x in np.argwhere(corner)
        ), "a picture is not on the sheet as it was drawn"
    path = tmp_path / "sheet.png"
    path.write_bytes(grid_bytes(prepared, image))
    about = stored_grid(path)
    assert about == grid_json(prepared)
    assert about["axes"] == [
        {"name": "guidance_scale", "values": [1.0, 3.0]},
        {"name": "size", "values": [[16, 16], [32, 16]]},
        {"name": "solver", "values": ["euler", "heun"]},
    ]
    assert about["models"] == [{"name": "toy", "hash": model.model_hash}]
    assert (about["settings"]["seed"], about["settings"]["steps"]) == (4, 2)
    assert about["settings"]["encoder_dtype"] == "bfloat16"
    assert "--encoder_dtype bfloat16" in about["command"]
    assert not {"solver", "size", "guidance_scale"} & set(about["settings"])
    text = grid_sheet.grid_parameters(prepared)
    assert text.startswith(
        "red light\nSteps: 2, Sampler: euler, CFG scale: 1, Seed: 4, Size: 16x16"
    )
    assert 'Script: X/Y/Z plot, X Type: guidance_scale, X Values: "1,3", Y Type: size' in text
    again = prepared_grid(grid, load=lambda *_: model)
    other = GridSheet(again).draw([picture for _, picture in sorted(again.pictures())])
    assert grid_bytes(again, other) == path.read_bytes()


def test_the_sheet_of_models_with_different_defaults_says_so(bundle, monkeypatch):
    models = {name: tiny_pipeline(bundle, name=name, steps=len(name)) for name in ("a", "bb")}
    grid = grid_of("checkpoint=a,bb", "seed=0-1")
    prepared = prepared_grid(grid, load=lambda path, ema: models[path])
    lines = grid_sheet._lines(grid, prepared.recipes)
    assert "steps 1 or 2 (by model)" in lines[0]
    assert lines[1].startswith("models a (") and "bb (" in lines[1]
    assert grid_json(prepared)["settings"]["steps"] == [1, 2]


def test_labels_that_look_the_same_are_numbered(model, monkeypatch):
    monkeypatch.setattr("pinxit.drawn_text.font_file", lambda character: None)
    assert grid_sheet._different(["中文", "日本"]) == ["1. 中文", "2. 日本"]
    monkeypatch.undo()
    assert grid_sheet._different(["ab", "cd"]) == ["ab", "cd"]


def test_a_sheet_that_is_too_large_is_refused_before_anything_is_drawn(model, monkeypatch):
    prepared = prepared_grid(grid_of("seed=0-9", "steps=1,2"), load=lambda *_: model)
    monkeypatch.setattr(grid_sheet, "LIMIT", 100_000)
    with pytest.raises(
        UsageError, match=r"sheet of 20 cells would have [\d,]+ x [\d,]+ = [\d,]+ pix"
    ):
        GridSheet(prepared)


def test_the_command_in_the_sheet_makes_the_same_grid():
    from pinxit.cli.arguments import parse
    from pinxit.cli.grid import GridOptions, _grid
    from pinxit.sampling import ALIASES

    settings = {"negative_prompt": "a 'b' | c", "size": (96, 64), "seed": 7, "shift": 1.5}
    settings |= {"guidance_interval": (0.0, 0.5), "cfg_zero_star": True, "checkpoint": "runs/a b"}
    for prompt in ("a small red house", "--odd prompt", 'it\'s "red"\n中文'):
        grid = grid_of("steps=4,8", "solver=euler,heun", **settings | {"prompt": prompt})
        words = shlex.split(grid.command)
        assert words[:2] == ["pinxit", "grid"]
        again = _grid(parse(GridOptions, words[2:], aliases=ALIASES, positional="prompt"))
        assert (again.axes, again.settings) == (grid.axes, grid.settings)
        assert again.command == grid.command


def test_no_sheet_is_read_from_other_files(tmp_path):
    path = tmp_path / "a.png"
    for data in (b"", b"\x89PNG\r\n\x1a\nrest", json.dumps({}).encode()):
        path.write_bytes(data)
        assert stored_grid(path) is None
    assert stored_grid(tmp_path / "missing.png") is None


def test_a_grid_of_the_shipped_model_equals_its_pictures():
    grid = Grid((Axis("steps", (1, 2)), Axis("seed", (0, 3))), {"prompt": "a small red house"})
    prepared = prepared_grid(grid)
    pictures = dict(prepared.pictures())
    model = load_checkpoint()
    for i, cell in enumerate(grid.cells()):
        how = {"steps": cell.settings["steps"], "seed": cell.settings["seed"]}
        assert model.generate("a small red house", **how).tobytes() == pictures[i].tobytes()
