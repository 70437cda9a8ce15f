"""The gallery's folder, recipes in uploaded pictures, and requests for comparison grids."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import time

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pinxit.config import UsageError, to_json
from pinxit.picture_files import picture_bytes, read_recipe
from pinxit.sampling import Sampling
from pinxit.serve.engine.models import ModelEntry
from pinxit.serve.gallery.folder import DELETED, Gallery, UnknownPicture
from pinxit.serve.gallery.foreign_recipe import foreign_settings
from pinxit.serve.gallery.grid_request import planned_grid
from pinxit.serve.gallery.uploaded_picture import uploaded_recipe
from pinxit.serve.settings import StudioConfig

RECIPE = {
    "prompt": "a red <img src=x onerror=alert(1)>",
    "negative_prompt": "",
    "seed": 7,
    "size": [8, 8],
    "model": "tiny",
    "model_hash": "0123456789",
    "version": "0.0.1",
    "steps": 4,
    "guidance_scale": 2.0,
    "solver": "euler",
}
A1111 = """a small red house, <b>bold</b>
in two lines
Negative prompt: fog
Steps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 5, Size: 512x768, Model: "a, b: c", Clip: 2"""


def picture(shade: int = 0) -> Image.Image:
    return Image.new("RGB", (8, 8), (shade, shade, shade))


@pytest.fixture
def gallery(tmp_path) -> Gallery:
    return Gallery(tmp_path / "outputs")


def fill(gallery: Gallery, count: int) -> list[str]:
    """Stores pictures, each a second newer than the one before. Returns their names."""
    names = [gallery.save(picture(i), RECIPE | {"seed": i}) for i in range(count)]
    for i, name in enumerate(names):
        os.utime(gallery.folder / name, (1000 + i, 1000 + i))
    return names


# --- the folder -------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_an_empty_gallery(gallery):
    assert gallery.entries() == [] and gallery.page(5) == ([], False)


def test_pictures_are_listed_newest_first_in_pages(gallery):
    names = fill(gallery, 5)
    first, more = gallery.page(2)
    assert [entry.name for entry in first] == [names[4], names[3]] and more
    rest, more = gallery.page(10, before=names[3])
    assert [entry.name for entry in rest] == [names[2], names[1], names[0]] and not more
    with pytest.raises(UnknownPicture):
        gallery.page(2, before="00009-nothing.png")


def test_the_state_changes_with_every_picture(gallery):
    states = {gallery.state}
    name = fill(gallery, 1)[0]
    states.add(gallery.state)
    gallery.save(picture(9), RECIPE)
    states.add(gallery.state)
    gallery.delete(name)
    states.add(gallery.state)
    assert len(states) == 4


def test_a_picture_is_described_with_its_recipe(gallery):
    name = fill(gallery, 1)[0]
    described = gallery.description(gallery.entry(name))
    assert (described["width"], described["height"]) == (8, 8)
    assert described["recipe"] == read_recipe(gallery.folder / name)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"seed": NaN}', "[" * 100_000])
def test_a_damaged_recipe_or_picture_is_listed_without_one(gallery, text):
    gallery.folder.mkdir()
    info = PngInfo()
    info.add_itxt("pinxit", text)
    picture().save(gallery.folder / "a.png", pnginfo=info)
    (gallery.folder / "b.png").write_bytes(b"no picture")
    assert "recipe" not in gallery.description(gallery.entry("a.png"))
    assert gallery.description(gallery.entry("b.png")) == {"width": 0, "height": 0}
    with pytest.raises(UnknownPicture):
        gallery.thumbnail(gallery.entry("b.png"))


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "/etc/passwd", "secret.png", "..", "", ".hidden.png", "notes.txt", "a\0.png"],
)
def test_no_name_leads_out_of_the_folder(gallery, tmp_path, name):
    fill(gallery, 1)
    picture().save(tmp_path / "secret.png")
    (gallery.folder / "secret.png").symlink_to(tmp_path / "secret.png")
    picture().save(gallery.folder / ".hidden.png")
    (gallery.folder / "notes.txt").write_text("private")
    for act in (gallery.entry, gallery.delete, gallery.restore):
        with pytest.raises(UnknownPicture):
            act(name)
    assert (tmp_path / "secret.png").exists()


def test_a_picture_that_becomes_a_link_is_not_read(gallery, tmp_path):
    name = fill(gallery, 1)[0]
    entry = gallery.entry(name)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (gallery.folder / name).unlink()
    (gallery.folder / name).symlink_to(tmp_path / "secret.png")
    with pytest.raises(UnknownPicture):
        gallery.read(entry)


def test_a_deleted_picture_can_be_restored_for_an_hour(gallery):
    name = fill(gallery, 2)[0]
    data = (gallery.folder / name).read_bytes()
    gallery.delete(name)
    assert name not in [entry.name for entry in gallery.entries()]
    assert gallery.restore(name) == name
    assert (gallery.folder / name).read_bytes() == data
    gallery.delete(name)
    old = time.time() - 3700
    os.utime(gallery.folder / DELETED / name, (old, old))
    gallery.forget()
    assert not (gallery.folder / DELETED).exists()
    with pytest.raises(UnknownPicture):
        gallery.restore(name)


def test_another_format_has_the_recipe(gallery, tmp_path):
    name = fill(gallery, 1)[0]
    for format in ("webp", "jpeg"):
        path = tmp_path / f"copy.{format}"
        path.write_bytes(gallery.converted(gallery.entry(name), format))
        assert read_recipe(path)["prompt"] == RECIPE["prompt"]


# --- uploaded pictures ------------------------------------------------------------------------


def test_the_recipe_of_a_picture_restores_every_setting():
    data = picture_bytes(picture(), RECIPE)
    answer = uploaded_recipe(data, name="a.png", hashes={"one": "0123456789"})
    assert answer["kind"] == "pinxit" and answer["model"] == "one"
    assert {name: answer["recipe"][name] for name in RECIPE} == RECIPE
    assert answer["recipe"]["shift"] == 1.0
    assert len(answer["warnings"]) == 1 and "0.0.1" in answer["warnings"][0]


def test_a_picture_of_another_model_is_said_to_be_one():
    data = picture_bytes(picture(), RECIPE)
    answer = uploaded_recipe(data, name="a.png", hashes={"one": "other"})
    assert answer["model"] is None and "another model, 'tiny'" in answer["warnings"][0]
    unknown = uploaded_recipe(data, name="a.png", hashes={"one": None})
    assert not any("another model" in text for text in unknown["warnings"])


def test_the_prompt_of_another_program_is_taken():
    info = PngInfo()
    info.add_itxt("parameters", A1111)
    buffer = io.BytesIO()
    picture().save(buffer, "PNG", pnginfo=info)
    answer = uploaded_recipe(buffer.getvalue(), name="a.png")
    assert answer["kind"] == "other" and "another program" in answer["message"]
    assert answer["settings"] == {
        "prompt": "a small red house, <b>bold</b>\nin two lines",
        "negative_prompt": "fog",
        "seed": 5,
        "steps": 20,
        "guidance_scale": 7.5,
        "size": [512, 768],
    }


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", {"prompt": ""}),
        ("only a prompt", {"prompt": "only a prompt"}),
        ("x\nSteps: 0, Seed: -1, CFG scale: nan, Size: 0x9", {"prompt": "x"}),
        ("x\nSteps: 9" + "9" * 50 + ", Seed: 4294967296", {"prompt": "x"}),
        ("x\nSteps: \u0661, Seed: 3", {"prompt": "x", "seed": 3}),
        ("Steps: 4 is my prompt\nmore", {"prompt": "Steps: 4 is my prompt\nmore"}),
    ],
)
def test_wrong_settings_of_another_program_are_left_out(text, settings):
    assert foreign_settings(text) == settings


def test_a_picture_without_a_recipe_is_for_image_to_image():
    buffer = io.BytesIO()
    picture().save(buffer, "JPEG")
    answer = uploaded_recipe(buffer.getvalue(), name="photo.jpg")
    assert (answer["kind"], answer["format"], answer["width"]) == ("none", "jpeg", 8)
    assert "recipe" in answer["message"]


def test_files_that_are_no_pictures_are_refused():
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    gif = io.BytesIO()
    picture().save(gif, "GIF")
    damaged = picture_bytes(picture(), RECIPE)[:-30]
    wrong = picture_bytes(picture(), RECIPE | {"steps": 0})
    strange = picture_bytes(picture(), RECIPE | {"unknown": 1})
    for data in (b"", b"text", bomb.getvalue(), gif.getvalue(), damaged, wrong, strange):
        with pytest.raises(UsageError) as refusal:
            uploaded_recipe(data, name="x" * 500)
        assert len(str(refusal.value)) < 600


# --- comparison grids -------------------------------------------------------------------------

FACTS = {"sampling": to_json(Sampling()), "image_size": 64, "unit": 8}
MODEL = ModelEntry(id="first", name="tiny", path=None, loaded=True, created=0, defaults=FACTS)
OTHER = ModelEntry(id="other", name="two", path="runs/two", loaded=True, created=0, defaults=FACTS)


def find(name: str | None) -> ModelEntry:
    models = {None: MODEL, "first": MODEL, "other": OTHER}
    if name not in models:
        raise UsageError("checkpoint", name, problem="no model of the studio")
    return models[name]


def plan(*axes: str, model: str | None = None, **settings: object):
    settings = {"prompt": "a red house", **settings}
    data = {"axes": list(axes), "settings": settings, "model": model}
    return planned_grid(json.loads(json.dumps(data)), find, StudioConfig())


def test_a_request_becomes_the_grid_of_the_command():
    made = plan("steps=4, 8", "seed=0-2", size="64x96", guidance_scale=3)
    assert made.grid.command == (
        "pinxit grid --x steps=4,8 --y seed=0,1,2 --size 64x96 --guidance_scale 3 -- 'a red house'"
    )
    requests = made.requests()
    assert [request.seed for request in requests] == [0, 0, 1, 1, 2, 2]
    assert requests[1].sampling["steps"] == 8 and requests[1].size == (64, 96)
    assert sorted(made.order()) == list(range(6)) and made.order()[:3] == [0, 2, 4]
    assert min(made.sheet_size) > 100


def test_models_have_the_studio_s_names_and_the_command_their_paths():
    made = plan("checkpoint=first,other", "seed=1,2")
    assert made.grid.command.startswith("pinxit grid --x checkpoint=none,runs/two --y seed=1,2")
    assert [request.model for request in made.requests()] == ["first", "other"] * 2
    alone = plan("seed=1,2", model="other")
    assert "--checkpoint runs/two" in alone.grid.command
    assert {request.model for request in alone.requests()} == {"other"}
    assert "--checkpoint" not in plan("seed=1,2", model="first").grid.command


def test_a_model_s_own_size_is_allowed_though_it_is_larger_than_the_server_s_limit():
    large = dataclasses.replace(MODEL, defaults={**FACTS, "image_size": 128})
    data = {"axes": ["seed=1,2"], "settings": {"prompt": "a red house"}, "model": None}
    made = planned_grid(data, lambda name: large, StudioConfig(max_side=64))
    assert made.sizes == ((128, 128),) * 2
    data["settings"]["size"] = "136x64"
    with pytest.raises(UsageError, match=r"size: 136 is too large.* up to 128"):
        planned_grid(data, lambda name: large, StudioConfig(max_side=64))


@pytest.mark.parametrize(
    ("axes", "settings", "message"),
    [
        ([], {}, "axes"),
        (["steps=4,x"], {}, "steps: 'x' is not understood"),
        (["steps=4,9999"], {}, "steps: 9999 is too large"),
        (["size=64,4096"], {}, "size: 4096 is too large"),
        (["size=64,65"], {}, "size: 65 is not drawable"),
        (["seed=0-999", "steps=1,2"], {}, "axes: 2000 is too large"),
        (["seed=0,1"], {"prompt": None}, "prompt: none is missing"),
        (["seed=0,1"], {"prompt": 7}, "prompt: '7' is not a text"),
        (["seed=0,1"], {"prompt": "x" * 40_000}, "prompt: .* is too long"),
        (["steps=4,8"], {"seed": True}, "seed"),
        (["steps=4,8"], {"seed": -1}, "seed"),
        (["seed=0,1"], {"size": "1e3x4"}, "size"),
        (["seed=0,1"], {"size": [64, 64]}, "size: .* is not a size"),
        (["seed=0,1"], {"steps": "many"}, "steps"),
        (["seed=0,1"], {"checkpoint": "/etc/passwd"}, "checkpoint"),
        (["checkpoint=first,/etc/passwd"], {}, "checkpoint: '/etc/passwd' is no model"),
        (["ema=raw,0.05"], {}, "ema: 'raw' is not possible"),
        (["seed=0,1"], {"batch_size": 4}, "batch_size"),
        (["seed=0,1"], {"colour": 4}, "setting: 'colour' is unknown"),
        (["seed=0,1"], {"guidance_scale": 1, "negative_prompt": "fog"}, "negative_prompt"),
        (["seed=0,1", "steps=1,2", "size=64,72", "shift=1,2"], {}, "axes"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_is_drawn(axes, settings, message):
    with pytest.raises(UsageError, match=message):
        plan(*axes, **settings)
