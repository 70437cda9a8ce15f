"""Exported folders in the stock pipelines of diffusers: they load, and draw what Pinxit draws."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from stock_t5gemma import t5gemma_class
from strange_captions import strange_captions

from pinxit.arrays import Conditioning, to_uint8
from pinxit.drawing import solve
from pinxit.model_loading import load_checkpoint
from pinxit.models.transformer import apply
from pinxit.pipeline import TextToImage
from pinxit.sampling import Sampling

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
NAMES = ("shipped", "clip", "dc_ae", "t5", "t5gemma", "pixel")
PROMPT = "a small red house on the left under a full moon"
STEPS, GUIDANCE = 20, 4.5
LIGHT = {"t5": {"skip_text_cleaning": True}}
"""Arguments for a pipeline of a model whose captions were cleaned lightly."""


@pytest.fixture(scope="module")
def pipelines(exports):
    diffusers = pytest.importorskip("diffusers")
    t5gemma_class()
    return {name: diffusers.DiffusionPipeline.from_pretrained(str(exports[name])) for name in NAMES}


@pytest.fixture(scope="module")
def models(releases):
    return {name: load_checkpoint(releases.get(name)) for name in NAMES}


def noise_for(model: TextToImage) -> np.ndarray:
    shape = (1, *model.latent_shape(model.image_size))
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def channels_first(x):
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def channels_last(x) -> np.ndarray:
    return np.moveaxis(x.numpy(), 1, -1)


def stock(pipeline, model, name, **how):
    """Calls the stock pipeline with fixed noise."""
    return pipeline(
        PROMPT,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        use_resolution_binning=False,
        latents=channels_first(noise_for(model)),
        **LIGHT.get(name, {}),
        **how,
    ).images


def latents_of(model: TextToImage) -> np.ndarray:
    """Returns our latents from the same noise, with the times of diffusers' scheduler."""
    settings = {"steps": STEPS, "guidance_scale": GUIDANCE, "spacing": "diffusers"}
    sampling = Sampling(**settings, shift=model.sampling.shift)
    guidance = sampling.guidance()
    return np.asarray(
        solve(
            model.params,
            sampling.times(),
            guidance.numbers(),
            None,
            jnp.asarray(noise_for(model)),
            model.encode([PROMPT]),
            model.encode([""]),
            config=model.config,
            solver="euler",
            form=guidance.form,
        )
    )


def test_the_classes_are_the_stock_ones(exports, pipelines):
    import diffusers

    expected = {"shipped": "PRXPipeline", "clip": "PRXPipeline", "t5": "PRXPipeline"}
    expected |= {"dc_ae": "PRXPipeline", "t5gemma": "PRXPipeline", "pixel": "PRXPixelPipeline"}
    assert {name: type(pipe).__name__ for name, pipe in pipelines.items()} == expected
    encoders = {name: type(pipe.text_encoder).__name__ for name, pipe in pipelines.items()}
    assert (encoders["t5"], encoders["t5gemma"]) == ("T5EncoderModel", "T5GemmaEncoder")
    assert {encoders[name] for name in ("shipped", "clip", "dc_ae", "pixel")} == {"CLIPTextModel"}
    assert type(pipelines["dc_ae"].vae).__name__ == "AutoencoderDC"
    automatic = diffusers.AutoPipelineForText2Image.from_pretrained(str(exports["shipped"]))
    assert type(automatic).__name__ == "PRXPipeline"


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_of_the_encoder_is_in_the_file(exports, pipelines, name):
    import transformers

    encoder = type(pipelines[name].text_encoder)
    known = (transformers.CLIPTextModel, transformers.T5EncoderModel, t5gemma_class())
    assert encoder in known
    _, info = encoder.from_pretrained(exports[name] / "text_encoder", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


@pytest.mark.parametrize("name", NAMES)
def test_the_tokenizer_gives_the_same_ids(pipelines, models, name):
    strange = [caption for caption in strange_captions() if caption.strip()][:150]
    captions = [*strange, "", PROMPT, "red " * 100]
    pipe, model = pipelines[name], models[name]
    length = model.text_encoder.max_tokens
    if name == "pixel":
        assert pipe.config.prompt_max_tokens == length
    assert pipe.tokenizer.model_max_length == length
    clean = model.text_encoder._rows._clean or str
    theirs = pipe.tokenizer(
        [clean(caption) for caption in captions],
        padding="max_length",
        max_length=length,
        truncation=True,
        return_attention_mask=True,
    )
    ours = model.text_encoder.tokenize(captions)
    np.testing.assert_array_equal(np.array(theirs["input_ids"]), ours)
    # Where a caption itself contains an end-of-text token, ours ends there. A <pad> of T5Gemma in a
    # caption counts as padding where it borders on the padding.
    endings = ("<|endoftext|>", "<pad>")
    usual = [not any(ending in caption for ending in endings) for caption in captions]
    assert sum(usual) > 100
    mask = np.asarray(model.text_encoder.mask(ours))
    np.testing.assert_array_equal(np.array(theirs["attention_mask"], bool)[usual], mask[usual])


@pytest.mark.parametrize("name", NAMES)
def test_the_forward_pass_is_the_same(pipelines, models, name):
    import torch

    pipe, model = pipelines[name], models[name]
    conditioning = model.encode([PROMPT])
    x, t = noise_for(model), np.array([0.4], np.float32)
    with torch.no_grad():
        theirs = pipe.transformer(
            hidden_states=channels_first(x),
            timestep=torch.from_numpy(t),
            encoder_hidden_states=torch.from_numpy(np.asarray(conditioning.tokens)),
            attention_mask=torch.from_numpy(np.asarray(conditioning.mask)),
            return_dict=False,
        )[0]
    output = channels_last(theirs)
    if name == "pixel":
        output = (x - output) / t[0]
    ours = apply(model.config, model.params, jnp.asarray(x), jnp.asarray(t), conditioning)
    error = np.abs(np.asarray(ours) - output).max()
    print(name, "forward: max error", error, "output std", output.std())
    assert output.std() > 0.1
    assert error <= 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_encodings_are_the_same(pipelines, models, name):
    pipe, model = pipelines[name], models[name]
    embeddings, mask, null, null_mask = pipe.encode_prompt(PROMPT, **LIGHT.get(name, {}))
    for text, tokens, valid in ((PROMPT, embeddings, mask), ("", null, null_mask)):
        ours: Conditioning = model.encode([text])
        np.testing.assert_array_equal(np.asarray(ours.mask), valid.numpy())
        real = np.asarray(ours.mask)
        difference = np.abs(np.asarray(ours.tokens)[real] - tokens.numpy()[real])
        assert difference.max() <= 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_guided_latents_and_pictures_are_the_same(pipelines, models, name):
    pipe, model = pipelines[name], models[name]
    theirs = channels_last(stock(pipe, model, name, output_type="latent"))
    ours = latents_of(model)
    error = np.abs(ours - theirs).max()
    print(name, "latents: max error", error, "largest", np.abs(theirs).max())
    assert np.abs(theirs).max() > 0.5
    assert error <= 1e-4
    picture = np.asarray(stock(pipe, model, name, output_type="pil")[0], np.int32)
    drawn = np.asarray(to_uint8(model.vae.pixels(ours))[0], np.int32)
    assert picture.std() > 5
    assert np.abs(picture - drawn).max() <= 1


def test_t5gemma_loads_in_a_new_process(exports):
    """Here the class is in transformers without the help of `t5gemma_class`."""
    code = "from diffusers import DiffusionPipeline as D; print(type(D.from_pretrained({!r})))"
    done = subprocess.run(
        [sys.executable, "-c", code.format(str(exports["t5gemma"]))],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        timeout=300,
    )
    assert "PRXPipeline" in done.stdout


def test_code_on_the_card_runs(exports, tmp_path):
    """The card's own Python block, in its own process, as a reader would run it."""
    card = (exports["shipped"] / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    code = code.replace('"."', repr(str(exports["shipped"]))).replace("steps=33", "steps=2")
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, env=environment, timeout=300
    )
    assert (tmp_path / "picture.png").stat().st_size > 1000


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["clip", "t5", "pixel"])
def test_narrower_files_load_as_float32(releases, tmp_path, dtype, name):
    """Without torch_dtype every part is float32, so that their types never differ."""
    import torch
    from diffusers import DiffusionPipeline

    from pinxit.cli.main import main

    words = ["export", str(releases[name]), "--out", str(tmp_path / "x"), "--samples", "0"]
    assert main([*words, "--dtype", dtype]) == 0
    pipe = DiffusionPipeline.from_pretrained(str(tmp_path / "x"))
    parts = [pipe.transformer, pipe.text_encoder, *([pipe.vae] if name != "pixel" else [])]
    assert {part.dtype for part in parts} == {torch.float32}
    how = {"num_inference_steps": 2, "use_resolution_binning": False, "output_type": "np"}
    assert np.isfinite(pipe(PROMPT, **how).images).all()


def test_a_split_file_loads(releases, exports, tmp_path, monkeypatch):
    from diffusers import DiffusionPipeline

    from pinxit.cli.main import main
    from pinxit.export import tensor_files

    monkeypatch.setattr(tensor_files, "LARGEST_FILE", 20_000)
    out = tmp_path / "split"
    assert main(["export", str(releases["clip"]), "--out", str(out), "--samples", "0"]) == 0
    for part in ("transformer", "text_encoder", "vae"):
        assert list((out / part).glob("*-00002-of-*.safetensors")), part
    whole = DiffusionPipeline.from_pretrained(str(exports["clip"]))
    pipe = DiffusionPipeline.from_pretrained(str(out))
    for part in ("transformer", "text_encoder", "vae"):
        a, b = getattr(whole, part).state_dict(), getattr(pipe, part).state_dict()
        assert a.keys() == b.keys()
        assert all(bool((a[name] == b[name]).all()) for name in a)


def diffusers_cli(*words: str) -> str:
    """Runs `diffusers-cli` without a network, and returns its output."""
    command = Path(sys.executable).parent / "diffusers-cli"
    if not command.exists():
        pytest.skip("diffusers-cli is not installed")
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [str(command), *words], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_schema_of_the_folder(exports):
    text = diffusers_cli("schema", "--model", str(exports["shipped"]))
    assert "PRXPipeline" in text
    assert "guidance_scale" in text


def test_a_run_of_the_folder(exports, tmp_path):
    pytest.importorskip("accelerate", reason="`diffusers-cli run` needs accelerate")
    how = {"prompt": PROMPT, "num_inference_steps": 2, "use_resolution_binning": False}
    words = ["--pipeline-kwargs", json.dumps(how), "--output", str(tmp_path / "picture.png")]
    diffusers_cli("run", "--model", str(exports["shipped"]), *words)
    assert (tmp_path / "picture.png").is_file()
