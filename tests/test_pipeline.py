from __future__ import annotations

import inspect
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from toy_pipeline import Doubler, Words, compilations, pixels, toy_model

from pinxit import stored_model as release
from pinxit.config import UsageError
from pinxit.model_loading import load_checkpoint, save_release
from pinxit.pipeline import Sampling, TextToImage
from pinxit.sampling import ALIASES, HABITS, OTHERS, check_seeds


@pytest.fixture(scope="module")
def model():
    return toy_model()


def test_kinds_of_result(model):
    image = model.generate("a red house")
    assert isinstance(image, Image.Image)
    assert image.size == (16, 16)
    assert len(model.generate("a red house", n=2)) == 2
    assert len(model.generate(["a house", "a tree"], n=2)) == 4
    assert model.generate("a", n=2, output_type="np").shape == (2, 16, 16, 3)
    latents = model.generate("a", output_type="latent")
    assert latents.shape == (8, 8, 3)
    assert pixels([model.vae.decode(latents)]) == pixels([model.generate("a")])
    assert len(model.vae.decode(jnp.stack([latents] * 2))) == 2


def test_a_picture_depends_on_its_prompt_settings_and_seed_alone(model):
    four = pixels(model.generate("a tree", seed=5, n=4))
    assert len(set(four)) == 4
    assert pixels([model.generate("a tree", seed=5)]) == four[:1]
    assert pixels([model.generate("a tree", seed=7)]) == four[2:3]
    assert pixels(model.generate(["a tree"] * 2, seed=[8, 5])) == [four[3], four[0]]
    for size in (1, 2, 8):
        assert pixels(model.generate("a tree", seed=5, n=4, batch_size=size)) == four


@pytest.fixture
def batched(monkeypatch):
    """Pictures are computed in batches, as on an accelerator."""
    for place in ("pinxit.pipeline", "pinxit.drawing"):
        monkeypatch.setattr(f"{place}.one_by_one", lambda: False)


def test_on_a_cpu_pictures_are_computed_one_by_one(model):
    order = model.order("a tree", n=8, batch_size=8)
    assert order.batch_size == 1 and "batch_size" not in model.recipe(order, 0)


def test_the_batch_size_of_an_accelerator_is_in_the_recipe(model, batched):
    order = model.order("a tree", n=8)
    assert model.recipe(order, 0)["batch_size"] == order.batch_size == 4
    eight, one = model.generate("a tree", n=8), model.generate("a tree", seed=5)
    assert pixels(eight)[5:6] == pixels([one])


def test_a_picture_depends_on_its_place_in_no_batch(model, batched):
    """Also with one negative prompt for each picture, and when others of its batch are left out."""
    prompts, negative = ["a tree", "a house", "a tent", "a hill"], ["fog", "", "rain", "fog"]
    four = model.generate(prompts, negative_prompt=negative, seed=[9, 2, 7, 7], batch_size=4)
    for i in range(4):
        one = model.generate(
            prompts[i], negative_prompt=negative[i], seed=[9, 2, 7, 7][i], batch_size=4
        )
        assert pixels([one]) == pixels(four)[i : i + 1]
    order = model.order(prompts, negative_prompt=negative, seed=[9, 2, 7, 7], batch_size=3)
    rest = dict(model.pictures(order, skip={0, 3}))
    assert (
        list(rest) == [1, 2]
        and pixels(rest.values()) == pixels(dict(model.pictures(order)).values())[1:3]
    )
    assert not list(model.pictures(order, skip=range(4)))


def test_a_negative_prompt_for_each_prompt(model):
    both = model.generate(["a tree", "a house"], n=2, negative_prompt=["fog", "rain"])
    tree = model.generate("a tree", n=2, negative_prompt="fog")
    house = model.generate("a house", n=2, seed=2, negative_prompt=["rain"])
    assert pixels(both) == pixels([*tree, *house])


def test_a_stream_gives_each_picture_when_it_is_ready_with_its_recipe(model, batched, monkeypatch):
    batches = []
    finished = TextToImage.finished
    monkeypatch.setattr(
        TextToImage, "finished", lambda *args: batches.append(1) or finished(*args), False
    )
    stream = model.stream("a tree", n=400, seed=5, batch_size=2, negative_prompt="fog")
    ready = []
    for place in range(3):
        ready.append(next(stream))
        assert len(batches) == place // 2 + 1
    for place, (picture, recipe) in enumerate(ready):
        assert (recipe["seed"], recipe["prompt"]) == (5 + place, "a tree")
        about = ("model", "model_hash", "version")
        again = {name: value for name, value in recipe.items() if name not in about}
        again = {name: tuple(v) if isinstance(v, list) else v for name, v in again.items()}
        assert pixels([model.generate(**again)]) == pixels([picture])
    with pytest.raises(UsageError, match="n: 0"):
        model.stream("a tree", n=0)


@pytest.mark.parametrize("kind", [np.int32, np.uint32, np.int64, np.uint8])
def test_numpy_integers_are_integers(model, kind):
    plain = model.generate("a tree", seed=5, n=2, size=8, steps=3)
    numpy = {"seed": kind(5), "n": kind(2), "size": kind(8), "steps": kind(3)}
    assert pixels(model.generate("a tree", **numpy)) == pixels(plain)
    assert pixels(model.generate(["a tree"] * 2, seed=np.array([5, 6], kind), size=8, steps=3)) == (
        pixels(plain)
    )
    _, recipe = next(model.stream("a tree", batch_size=kind(1), **numpy))
    assert json.loads(json.dumps(recipe)) == recipe
    assert (recipe["seed"], recipe["steps"], recipe["size"]) == (5, 3, [8, 8])


def test_settings_change_the_picture(model):
    plain = pixels([model.generate("a tree")])
    for change in (
        {"guidance_scale": 1.0},
        {"steps": 3},
        {"solver": "heun"},
        {"shift": 3.0},
        {"negative_prompt": "fog"},
        {"cfg_zero_star": True},
        {"guidance_interval": (0.0, 0.7)},
    ):
        assert pixels([model.generate("a tree", **change)]) != plain, change
    same = model.generate("a tree", cfg_scale=2.0)
    assert pixels([same]) == plain


@pytest.mark.parametrize("devices", ["cpu", "batched"])
def test_one_program_for_each_shape(model, devices, request):
    """Prompts, seeds and the numbers of the settings are arguments of the compiled programs."""
    if devices == "batched":
        request.getfixturevalue("batched")
    limited = {"guidance_interval": (0.1, 0.9), "zero_init": 0.1, "size": 12}
    model.generate("a tree", size=12)
    model.generate("a tree", **limited)
    model.generate("a tree", size=12, guidance_scale=1.0)
    with compilations() as events:
        model.generate(["a house", "a hill"], n=3, negative_prompt=["fog", "rain"], size=12)
        model.generate("a hill", seed=7, guidance_scale=5.5, shift=2.0, size=12)
        model.generate("a hill", size=12, spacing="diffusers")
        model.generate("a hut", **limited | {"guidance_interval": (0.2, 1.0), "zero_init": 0.3})
        model.generate("a hut", size=12, guidance_scale=1.0, cfg_zero_star=True)
    assert not events
    for change in ({"steps": 5}, {"solver": "midpoint"}, {"size": 20}, {"cfg_zero_star": True}):
        with compilations() as events:
            model.generate("a tree", **{"size": 12} | change)
        assert events, change


def test_each_text_of_a_call_is_encoded_once(model, monkeypatch):
    seen = []
    encode = model.text_encoder.__class__.__call__
    monkeypatch.setattr(
        Words, "__call__", lambda self, texts: seen.append(texts) or encode(self, texts), False
    )
    prompts, negative = ["a tree", "a house", "a tree"], ["fog", "", "fog"]
    model.generate(prompts, n=3, negative_prompt=negative)
    assert seen == [["a tree"], ["fog"], ["a house"], [""]]
    seen.clear()
    model.generate(prompts, n=3, guidance_scale=1.0)
    assert seen == [["a tree"], ["a house"]]


def test_an_accelerator_encodes_texts_in_chunks_of_one_size(model, batched, monkeypatch):
    seen = []
    encode = model.text_encoder.__class__.__call__
    monkeypatch.setattr(
        Words, "__call__", lambda self, texts: seen.append(texts) or encode(self, texts), False
    )
    model.generate([f"house {i}" for i in range(9)], batch_size=2)
    assert [len(texts) for texts in seen] == [8, 8]
    assert len({text for texts in seen for text in texts}) == 10


def test_the_times_are_those_of_the_chosen_spacing(model):
    noise = model.generate("a house", steps=1, output_type="latent", spacing="even")
    assert Sampling(steps=3).times().tolist() == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert Sampling(steps=3, spacing="diffusers").times().tolist() == pytest.approx(
        [1, 0.5005, 0.001, 0]
    )
    other = model.generate("a house", steps=1, output_type="latent", spacing="diffusers")
    assert np.array_equal(other, noise)  # both take one step from 1 to 0
    two = {"steps": 2, "output_type": "latent"}
    assert not np.array_equal(
        model.generate("a house", **two), model.generate("a house", **two, spacing="diffusers")
    )
    with pytest.raises(UsageError, match="spacing"):
        model.generate("a house", spacing="karras")


def test_other_sizes_and_parameters(model):
    assert model.generate("a", size=8).size == (8, 8)
    assert model.generate("a", size=(24, 8)).size == (24, 8)
    other = model.with_params(jax.tree.map(lambda leaf: leaf * 0.5, model.params))
    assert other.model_hash != model.model_hash
    assert pixels([other.generate("a")]) != pixels([model.generate("a")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": []}, "prompt"),
        ({"n": 0}, "n: 0"),
        ({"steps": 0}, "steps: 0"),
        ({"guidance_scale": -1.0}, "guidance_scale"),
        ({"solver": "eular"}, "euler, heun"),
        ({"shift": 0.0}, "shift"),
        ({"seed": -1}, "seed: -1"),
        ({"seed": [1, 2]}, "2 seeds for 1"),
        ({"seed": np.int64(-1)}, "seed: -1"),
        ({"negative_prompt": ["a", "b"]}, "2 negative prompts for 1 prompts; valid: one for all"),
        ({"size": 18}, r"size: 18 is not a multiple of 4 .* such as 16 and 20"),
        ({"output_type": "jpg"}, "pil, np, latent"),
        ({"guidance_interval": (0.5, 0.2)}, "interval"),
        ({"cfg_scale": 1.0, "guidance_scale": 2.0}, "cfg_scale"),
    ],
)
def test_wrong_input_is_named(model, options, message):
    options = {"prompt": "a", **options}
    with pytest.raises(ValueError, match=message):
        model.generate(options.pop("prompt"), **options)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("width", r"size=\(width, height\)"),
        ("num_images_per_prompt", "n"),
        ("generator", "seed, an integer"),
        ("guidance", "guidance_scale"),
        ("scheduler", "solver"),
        ("batchsize", "batch_size"),
        ("stepz", "steps"),
    ],
)
def test_an_argument_of_another_library_is_answered_with_ours(model, name, ours):
    with pytest.raises(UsageError, match=f"setting: '{name}' is unknown; valid: {ours}"):
        model.generate("a", **{name: 8})


def test_the_lists_of_arguments_are_those_of_generate():
    order = inspect.signature(TextToImage.order).parameters
    names = {*order, *inspect.signature(TextToImage.generate).parameters}
    assert set(OTHERS) == names - {"self", "prompt", "sampling", "how"}
    for ours in HABITS.values():
        assert re.match(r"\w+", ours)[0] in {*OTHERS, *Sampling.__dataclass_fields__}
    assert not set(HABITS) & {*OTHERS, *ALIASES, *Sampling.__dataclass_fields__}


@pytest.mark.parametrize("seed", [1.5, np.float32(1), [1.0], "7", None, [[1]]])
def test_a_seed_is_an_integer(seed):
    with pytest.raises(UsageError, match=r"seed: .* is not an integer; valid: 0 to 4294967295"):
        check_seeds(seed, 1)


def test_progress_counts_pictures(model):
    seen = []
    model.generate("a", n=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


@pytest.fixture
def toy_encoders(monkeypatch):
    """Release files name their encoders; these names load the toys."""
    monkeypatch.setattr(
        "pinxit.encoders.text_encoder_catalogue.load_text_encoder", lambda name, **_: Words()
    )
    monkeypatch.setattr("pinxit.encoders.autoencoder.load_autoencoder", lambda name, **_: Doubler())


def test_a_release_draws_the_same(model, tmp_path, toy_encoders):
    save_release(tmp_path, model, text_encoder="words", vae="doubler", details={"step": 3})
    loaded = load_checkpoint(tmp_path)
    assert pixels([loaded.generate("a tree")]) == pixels([model.generate("a tree")])
    assert loaded.model_hash == model.model_hash
    assert loaded.stored.details == {"step": 3}
    assert loaded.sampling == model.sampling


def test_half_precision_files_are_half_the_size(model, tmp_path, toy_encoders):
    for dtype in ("float32", "float16"):
        save_release(tmp_path / dtype, model, text_encoder="w", vae="d", dtype=dtype)
    sizes = [(tmp_path / d / "model.safetensors").stat().st_size for d in ("float32", "float16")]
    assert sizes[1] < 0.7 * sizes[0]
    assert load_checkpoint(tmp_path / "float16").params["final_out"]["kernel"].dtype == jnp.float32


def test_what_is_not_a_model_is_named(model, tmp_path, toy_encoders):
    with pytest.raises(UsageError, match=r"checkpoint: .*missing.* is missing; valid: a run"):
        load_checkpoint(tmp_path / "missing")
    with pytest.raises(UsageError, match="not a Pinxit model"):
        load_checkpoint(tmp_path)
    save_release(tmp_path, model, text_encoder="words", vae="doubler")
    config = json.loads((tmp_path / "config.json").read_text())
    config["model"]["hidden_size"] = 32
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="inconsistent: its parameters do not fit"):
        load_checkpoint(tmp_path)
    config["format"] = "other"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="not a Pinxit model"):
        load_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"junk")
    config["format"] = release.FORMAT
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="damaged"):
        load_checkpoint(tmp_path)


def test_which_average_is_chosen():
    names = ["ema_0.05", "ema_0.1", "ema_0.2"]
    assert release.choose_ema(None, names) == "ema_0.1"
    assert release.choose_ema(None, names, "ema_0.2") == "ema_0.2"
    assert release.choose_ema("0.05", names) == "ema_0.05"
    assert release.choose_ema("raw", names) == "raw"
    assert release.choose_ema(None, []) == "raw"
    with pytest.raises(UsageError, match=r"ema: '0\.3' is unknown; valid: raw, ema_0\.05"):
        release.choose_ema("0.3", names)


def test_a_cut_prompt_is_told(model, monkeypatch):
    monkeypatch.setattr(
        model.text_encoder, "truncated", lambda prompts: ["long" in p for p in prompts], False
    )
    with pytest.warns(UserWarning, match=r"1 of 3 prompts \('a long story'\) have more than"):
        model.generate(["a tree", "a long story"], steps=1)


def test_half_precision_encoders_draw_nearly_the_same_picture():
    prompt, settings = "a small red house on the left", {"steps": 2, "seed": 3}
    half = load_checkpoint(encoder_dtype="bfloat16")
    leaves = jax.tree.leaves(half.autoencoder.params)
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("bfloat16")}
    images = [model.generate(prompt, **settings) for model in (half, load_checkpoint())]
    one, other = (np.asarray(image, np.float32) for image in images)
    assert 0 < np.abs(one - other).mean() < 4
    with pytest.raises(UsageError, match=r"encoder_dtype: 'half'"):
        load_checkpoint(encoder_dtype="half")
