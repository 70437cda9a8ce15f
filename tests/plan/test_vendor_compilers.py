"""Cells of docs/plan.md's table, compiled anew: minutes each, with the vendors' compilers.

``pinxit plan --install-compiler tpu`` and ``cuda12`` install what these tests need; then
``pytest -m slow tests/plan/test_vendor_compilers.py``.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from markdown_blocks import ROOT

from pinxit.plan.compile_cache import compile_step
from pinxit.plan.memory import memory_of, with_batch
from pinxit.plan.plan import planned
from pinxit.plan.step_time import step_time
from pinxit.plan.targets import GIB, get_target
from pinxit.plan.vendor_compilers import CompilerMissing, find_compiler
from pinxit.recipes import RECIPES, coyo_256
from pinxit.train.settings import ModelConfig, TrainConfig

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "plan.md").read_text()
LARGEST = PAGE.split("memory table -->")[1]
CELLS = re.findall(
    r"\| (\S+) \| (with VAE|pixels) \| \S+ \| full \| \*\*(\d+)\*\* \| (\S+) of", LARGEST
)
assert len(CELLS) == 6, LARGEST


def compiler_or_skip(name: str) -> None:
    try:
        find_compiler(get_target(name).platform, target=name)
    except CompilerMissing as error:
        pytest.skip(str(error))


def settings(*, vae: bool) -> TrainConfig:
    model = ModelConfig(preset="large", use_stable_vae=vae, remat="full")
    config = replace(coyo_256(), model=model, gradient_accumulation_steps=1)
    return planned(config.resolved())


@pytest.mark.parametrize(("target", "kind", "batch", "peak"), CELLS)
def test_a_cell_of_the_table_holds(target: str, kind: str, batch: str, peak: str):
    compiler_or_skip(target)
    config = with_batch(settings(vae=kind == "with VAE"), int(batch), "full")
    found = compile_step(config, target)
    memory = memory_of(found, get_target(target))
    assert memory.fits, f"{-memory.free / GIB:.2f} GiB too much"
    assert memory.peak / GIB == pytest.approx(float(peak), rel=0.02)
    assert sum(memory.parts.values()) == memory.peak
    assert found.result["dtype"] == ("float16" if target.startswith("v100") else "bfloat16")


@pytest.mark.parametrize(("recipe", "most"), [("coyo_256", 12.5), ("coyo_256_pixels", 14.9)])
def test_a_recipe_fits_a_v3_8(recipe: str, most: float):
    """GiB of each core; barriers that only a CPU needs once took 14.4 and 36.6."""
    compiler_or_skip("tpu-v3-8")
    found = compile_step(planned(RECIPES[recipe]().resolved()), "tpu-v3-8")
    memory = memory_of(found, get_target("tpu-v3-8"))
    assert memory.fits and memory.peak < most * GIB, f"{memory.peak / GIB:.2f} GiB"


def test_what_is_too_large_is_refused_with_its_size():
    compiler_or_skip("tpu-v3-8")
    found = compile_step(with_batch(settings(vae=True), 4096, "none"), "tpu-v3-8")
    memory = memory_of(found, get_target("tpu-v3-8"))
    assert not memory.fits and memory.peak > 2 * memory.limit


def test_cycles_cover_the_step_of_a_tpu():
    compiler_or_skip("tpu-v3-8")
    config = replace(settings(vae=True), batch_size=64)
    model = replace(config.model, preset="base", remat="full", scan_blocks=True)
    found = compile_step(replace(config, model=model), "tpu-v3-8")
    time = step_time(found.result, get_target("tpu-v3-8"))
    assert time is not None
    assert {"encoders", "forward", "backward", "recomputed"} <= time.by_part.keys()
    assert found.result["cycles"]["unresolved"] == []
    share = found.result["flops"] / time.seconds / 8 / get_target("tpu-v3-8").peak("bfloat16")
    assert 0.1 < share < 0.8
    assert time.by_part["recomputed"] == pytest.approx(time.by_part["forward"], rel=0.5)
