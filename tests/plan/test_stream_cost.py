"""Plans of streamed runs: the autoencoder beside the step, its time, memory and bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from pinxit.devices import flops
from pinxit.encoders.abstract_autoencoder import abstract_autoencoder
from pinxit.plan.compile_cache import Compiled
from pinxit.plan.compile_worker import work
from pinxit.plan.data_cost import ALIVE, FETCHED, data_plan, stream_needs
from pinxit.plan.memory import memory_of
from pinxit.plan.plan import planned
from pinxit.plan.step_time import prepared_step_time, step_time
from pinxit.plan.targets import HERE, get_target
from pinxit.train.settings import ModelConfig, TrainConfig


def config_of(bundle: Path) -> TrainConfig:
    return TrainConfig(
        dataset_name="coyo", image_size=32, batch_size=16, text_encoder=str(bundle),
        vae=str(bundle), model=ModelConfig(preset="debug", hidden_size=16, num_heads=2, depth=1),
    ).resolved()  # fmt: skip


def test_the_encoder_of_a_stream_is_compiled_beside_the_step(bundle: Path, tmp_path: Path):
    config = config_of(bundle)
    result = work(config, HERE, programs=tmp_path)
    stream = result["stream"]
    autoencoder = abstract_autoencoder(str(bundle))
    images = jax.ShapeDtypeStruct((stream["images"], 32, 32, 3), jnp.float32)
    traced = jax.make_jaxpr(autoencoder.encode)(autoencoder.params, images)
    assert stream["flops"] == flops.count(traced) > 0
    assert stream["images"] == 16 and stream["chunks_per_step"] == 1.0
    side = 32 // autoencoder.stats.downsample
    assert stream["transferred"] == 32 * 32 * 3 + 2 * 4 * side**2 * autoencoder.stats.channels
    assert stream["fits"] and stream["memory"]["peak"] > 0
    prepared = work(replace(planned(config), max_steps=config.max_steps), HERE, programs=tmp_path)
    assert "stream" not in prepared
    for name in ("flops", "memory", "parameters"):
        assert prepared[name] == result[name], "the step itself is the same program"


def invented() -> dict[str, Any]:
    """What a worker might say of a streamed step on a v3-8."""

    def cycles(count: float) -> dict[str, Any]:
        return {"by_part": {"forward": count}, "collective_bytes": {"all-gather": 1e6}}

    return {
        "bytes_by_part": {"parameters": 10, "encoders": 5},
        "unread_bytes": 5,
        "memory": {"peak": 100, "arguments": 10},
        "fits": True,
        "cycles": cycles(0.94e9),
        "stream": {"cycles": cycles(0.094e9), "chunks_per_step": 8.0, "fits": True,
                   "memory": {"peak": 10}, "weights": 3},
    }  # fmt: skip


def test_time_and_memory_add_to_those_of_the_step():
    result, target = invented(), get_target("tpu-v3-8")
    alone, both = prepared_step_time(result, target), step_time(result, target)
    assert alone is not None and both is not None
    assert both.device == pytest.approx(alone.device + 8 * 0.1)
    assert both.by_part == alone.by_part | {"autoencoder": pytest.approx(0.8)}
    assert both.links == pytest.approx(9 * alone.links)
    assert both.low / both.seconds == pytest.approx(alone.low / alone.seconds)
    assert both.high / both.seconds == pytest.approx(alone.high / alone.seconds)
    memory = memory_of(Compiled(TrainConfig(), target.name, result, cached=False), target)
    assert memory.peak == 100 + 5 + 10 - 3 == sum(memory.parts.values())
    assert memory.parts["autoencoder of the stream"] == 7
    del result["stream"]
    assert step_time(result, target) == alone


def test_a_stream_stores_nothing_and_fetches_in_every_epoch():
    sizes = {"image_size": 256, "latent": (32, 32, 4), "stored_width": 4096}
    many = 500_000 * 256
    stored = data_plan(many, **sizes)
    stream = data_plan(many, **sizes, streamed=True, transferred=1000)
    assert stream.image_bytes == stream.latent_bytes == stream.text_bytes == 0
    assert stream.fetched_bytes == many * FETCHED > stored.fetched_bytes
    assert stream.rows > stored.rows and stream.transferred_bytes == many * 1000
    assert stored.transferred_bytes == 0
    assert stream_needs(407) == (407 / ALIVE, 407 * FETCHED * 8)


def test_the_page_on_coyo_needs_what_the_plan_of_its_recipe_says():
    docs = Path(__file__).parents[2] / "docs"
    plan, coyo = ((docs / name).read_text() for name in ("plan.md", "coyo.md"))
    row = next(line for line in plan.splitlines() if line.startswith("| tpu-v3-8 | `coyo_256` |"))
    rate = int(row.split("|")[-2])
    attempts, bits = stream_needs(rate)
    text = " ".join(coyo.split())
    assert f"Streamed training at {rate} images a second" in text
    assert f"needs about {attempts:.0f} attempts a second and {bits / 1e9:.2f} Gbit/s" in text
