"""Faults of the stock pipelines in diffusers 0.42.1, which docs/export.md lists.

Each test states what a user would expect, and is expected to fail. If one passes, a newer diffusers
has mended the fault: remove the test, its line in docs/export.md and the advice on the card.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
PROMPT = "a small red house"
FEW = {"num_inference_steps": 2, "use_resolution_binning": False, "output_type": "np"}


@pytest.fixture(scope="module")
def latent(exports):
    diffusers = pytest.importorskip("diffusers")
    return diffusers.DiffusionPipeline.from_pretrained(str(exports["clip"]))


@pytest.fixture(scope="module")
def pixel(exports):
    diffusers = pytest.importorskip("diffusers")
    return diffusers.DiffusionPipeline.from_pretrained(str(exports["pixel"]))


@pytest.fixture(params=["latent", "pixel"])
def pipe(request):
    return request.getfixturevalue(request.param)


def test_the_calls_of_these_tests_work_without_the_faults(pipe):
    """Otherwise the tests below would fail for another reason."""
    assert pipe(PROMPT, guidance_scale=2.0, **FEW).images.shape == (1, 16, 16, 3)
    assert pipe([PROMPT, "a tree"], guidance_scale=1.0, **FEW).images.shape == (2, 16, 16, 3)


@pytest.mark.xfail(strict=True, raises=RuntimeError, reason="the time has the wrong length")
def test_several_prompts_with_guidance(pipe):
    assert len(pipe([PROMPT, "a tree"], guidance_scale=2.0, **FEW).images) == 2


@pytest.mark.xfail(strict=True, raises=RuntimeError, reason="the time has the wrong length")
def test_several_pictures_of_a_prompt_with_guidance(pipe):
    assert len(pipe(PROMPT, guidance_scale=2.0, num_images_per_prompt=2, **FEW).images) == 2


@pytest.mark.xfail(strict=True, raises=TypeError, reason="a shift of null is added to latents")
def test_an_autoencoder_without_a_shift(exports, tmp_path):
    from diffusers import DiffusionPipeline

    folder = shutil.copytree(exports["clip"], tmp_path / "null")
    config = json.loads((folder / "vae" / "config.json").read_text())
    (folder / "vae" / "config.json").write_text(json.dumps(config | {"shift_factor": None}))
    DiffusionPipeline.from_pretrained(str(folder))(PROMPT, **FEW)


@pytest.mark.xfail(strict=True, raises=NameError, reason="ftfy is called though it is optional")
def test_a_call_without_ftfy(pipe, monkeypatch):
    from diffusers.pipelines.prx import pipeline_prx, pipeline_prx_pixel

    for module in (pipeline_prx, pipeline_prx_pixel):
        monkeypatch.delattr(module, "ftfy")
    pipe(PROMPT, **FEW)


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="the values that a callback returns are not used"
)
def test_a_callback_changes_the_latents(pipe):
    def zero(pipeline, step, time, values):
        return {"latents": values["latents"] * 0}

    how = FEW | {"output_type": "latent"}
    latents = pipe(PROMPT, callback_on_step_end=zero, **how).images
    assert float(abs(latents).max()) == 0.0


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="the transformer takes no adapters")
def test_the_transformer_takes_lora(pipe):
    from diffusers.loaders import PeftAdapterMixin

    assert isinstance(pipe.transformer, PeftAdapterMixin)


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="the transformer does not load from one file"
)
def test_the_transformer_loads_from_one_file(pipe):
    assert hasattr(type(pipe.transformer), "from_single_file")


@pytest.mark.xfail(strict=True, raises=ValueError, reason="few sizes have aspect ratios")
def test_a_call_at_a_small_size(pipe):
    how = {name: value for name, value in FEW.items() if name != "use_resolution_binning"}
    pipe(PROMPT, **how)


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="the last step covers a thousandth of the path"
)
def test_every_step_counts(latent):
    latent.scheduler.set_timesteps(4)
    assert float(latent.scheduler.sigmas[-2]) > 0.1


@pytest.mark.xfail(strict=True, raises=ValueError, reason="only PRXPipeline is in the table")
def test_the_automatic_pipeline_knows_pixel_models(exports):
    from diffusers import AutoPipelineForText2Image

    AutoPipelineForText2Image.from_pretrained(str(exports["pixel"]))


@pytest.mark.xfail(
    strict=True,
    raises=subprocess.CalledProcessError,
    reason="the class of T5Gemma is added to a module that transformers 5 replaces",
)
def test_t5gemma_by_the_name_of_its_pipeline(exports):
    code = f"from diffusers import PRXPipeline as P; P.from_pretrained({str(exports['t5gemma'])!r})"
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-c", code]
    subprocess.run(words, check=True, capture_output=True, env=environment, timeout=300)
