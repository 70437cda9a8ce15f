"""What the tests of the mesh do on eight fake devices; each function is run in a fresh process."""

from __future__ import annotations

import io
import json
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import toys
from rich.console import Console
from toys import FROZEN, encode, loader

import pinxit
from pinxit import pipeline
from pinxit.data.loader import ArrayRows, Loader
from pinxit.data.scenes.dataset import Scenes
from pinxit.devices import mesh as meshes
from pinxit.devices import partition_rules as sharding
from pinxit.devices.mesh import (
    batch_sharding,
    frozen_shardings,
    make_mesh,
    replicated,
    state_shardings,
    weight_sharding,
)
from pinxit.devices.transfer import place, spread
from pinxit.encoders import clip, t5
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.evaluators import EVALUATORS, measure
from pinxit.evaluate.extractors.judge_features import JudgeFeatures
from pinxit.evaluate.judge import load_judge
from pinxit.flow.objective import FlowMatching
from pinxit.model_loading import load_checkpoint
from pinxit.models.transformer import apply, init_params, preset
from pinxit.train.checkpoint import Checkpoints
from pinxit.train.checkpoint_writing import write_folder
from pinxit.train.ema import EmaConfig
from pinxit.train.optimizer import OptimizerConfig, build_optimizer
from pinxit.train.run import run
from pinxit.train.settings import EvalConfig, ModelConfig, SampleGridConfig, Sampling, TrainConfig
from pinxit.train.state import init_state
from pinxit.train.state_arrays import by_full_name, own_pieces, state_parts, whole_pieces
from pinxit.train.step import make_train_step
from pinxit.train.stored_state import load_state

USED = ("prompt_accuracy", "details", "distances", "clip_score")
"""Evaluators of pictures that are quick."""
MODEL = preset("debug", hidden_size=32, num_heads=4, context_dim=1, patch_size=1)
EMA = EmaConfig(lengths=(0.1,))


def transformer() -> Any:
    """Parameters whose last layer is not zero, as that would leave the others no gradient."""
    params = init_params(MODEL, jax.random.key(0))
    shape = params["final_out"]["kernel"].shape
    params["final_out"]["kernel"] = 0.1 * jax.random.normal(jax.random.key(1), shape)
    return params


MODELS = {"toy": (toys.params, toys.apply), "transformer": (transformer, partial(apply, MODEL))}


def parts(name: str, mesh: Any, *, accumulation: int = 1, model: str = "toy") -> tuple[Any, ...]:
    """A step, a fresh state on its devices, and where that lies."""
    config = OptimizerConfig(name=name, learning_rate=1e-2, warmup_steps=2)
    optimizer = build_optimizer(config, 50, num_heads=MODEL.num_heads)
    params, apply_fn = MODELS[model]

    def fresh() -> Any:
        return init_state(params(), optimizer, ema=EMA)

    shardings = state_shardings(jax.eval_shape(fresh), mesh)
    step = make_train_step(
        FlowMatching(),
        apply_fn,
        optimizer,
        encode=encode,
        accumulation=accumulation,
        ema=EMA,
        out_shardings=(shardings, replicated(mesh)),
    )
    return step, jax.jit(fresh, out_shardings=shardings)(), shardings


def advanced(step: Any, state: Any, mesh: Any, count: int) -> tuple[Any, list[float], list[int]]:
    """The state after so many more steps, the losses, and the samples' numbers."""
    losses, numbers = [], []
    frozen = place(FROZEN, frozen_shardings(FROZEN, mesh))
    for raw in loader(16).batches(int(state.step), int(state.step) + count):
        state, metrics = step(state, frozen, jax.device_put(raw, batch_sharding(mesh)))
        losses.append(float(metrics["loss"]))
        numbers += raw["index"].tolist()
    assert step._cache_size() == 1
    return state, losses, numbers


def on(spec: str, count: int = 8) -> Any:
    return make_mesh(spec, jax.devices()[:count])


def steps(model: str, *cases: str) -> None:
    """Ten steps on one device and on eight, for each case: optimiser, mesh, accumulation."""
    one: dict[str, Any] = {}
    for case in cases:
        name, spec, accumulation = case.split(";")
        if name not in one:
            mesh = on("data=1", 1)
            one[name] = advanced(*parts(name, mesh, model=model)[:2], mesh, 10)[:2]
        state, losses = one[name]
        mesh = on(spec)
        step, fresh, shardings = parts(name, mesh, accumulation=int(accumulation), model=model)
        cut = [not s.is_fully_replicated for s in jax.tree.leaves(shardings.params)]
        assert any(cut) == ("fsdp" in spec or "tensor" in spec), case
        eight, found, _ = advanced(step, fresh, mesh, 10)
        for leaf, where in zip(jax.tree.leaves(eight), jax.tree.leaves(shardings), strict=True):
            assert leaf.sharding == where
        assert losses[-1] != losses[0]
        np.testing.assert_allclose(found, losses, rtol=0, atol=1e-5, err_msg=case)
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(eight), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-4, err_msg=case)


def checkpoints() -> None:
    """What eight devices wrote, one, two and four go on with, and the other way round."""
    through = advanced(*parts("muon", on("fsdp=4,data=2"))[:2], on("fsdp=4,data=2"), 4)
    for first, second in (
        (("fsdp=4,data=2", 8), ("data=1", 1)),
        (("fsdp=4,data=2", 8), ("fsdp=2", 2)),
        (("fsdp=4,data=2", 8), ("fsdp=4", 4)),
        (("data=1", 1), ("fsdp=4,data=2", 8)),
        (("fsdp=2", 2), ("fsdp=4,data=2", 8)),
        (("fsdp=4", 4), ("fsdp=2,data=4", 8)),
    ):
        with tempfile.TemporaryDirectory() as folder:
            saved = Checkpoints(Path(folder))
            mesh = on(*first)
            state, losses, numbers = advanced(*parts("muon", mesh)[:2], mesh, 2)
            saved.save(state, {})
            saved.wait()
            mesh = on(*second)
            step, fresh, shardings = parts("muon", mesh)
            restored = saved.restore(fresh)
            assert restored is not None
            for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(restored.state), strict=True):
                np.testing.assert_array_equal(np.asarray(a), b)
            state = spread(restored.state, fresh, shardings)
            state, more, others = advanced(step, state, mesh, 2)
        np.testing.assert_allclose(losses + more, through[1], rtol=0, atol=1e-5)
        assert numbers + others == through[2] == list(range(64))
        for a, b in zip(jax.tree.leaves(through[0]), jax.tree.leaves(state), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-4)


MESHES = (
    *(("data=1", 1), ("fsdp=2", 2), ("tensor=2", 2), ("fsdp=2,tensor=2", 4), ("data=2,fsdp=2", 4)),
    *(("fsdp=8", 8), ("data=2,fsdp=2,tensor=2", 8), ("fsdp=2,tensor=4", 8)),
)
"""Meshes with their numbers of devices."""


def from_any_mesh_to_any() -> None:
    """Prints how many pairs of meshes there are, and for how many of them a state that is saved on
    one, whole or in pieces, is bit-equal on the other."""
    step, fresh, _ = parts("muon", on("data=1", 1), model="transformer")
    state = jax.device_get(advanced(step, fresh, on("data=1", 1), 2)[0])
    expected = by_full_name(state_parts(state))
    pairs = equal = 0
    for spec in MESHES:
        placed = place(state, state_shardings(state, on(*spec)))
        for pieces_of in (whole_pieces, own_pieces):
            with tempfile.TemporaryDirectory() as folder:
                checkpoint = Path(folder) / "step_00000002"
                pieces = pieces_of(placed)
                cut = any(piece.key != piece.name for piece in pieces["params"])
                assert cut == (pieces_of is own_pieces and spec[1] > 1)
                write_folder(checkpoint, pieces, {})
                for other in MESHES:
                    pairs += 1
                    shardings = state_shardings(state, on(*other))
                    restored = by_full_name(state_parts(load_state(checkpoint, state, shardings)))
                    targets = by_full_name(state_parts(shardings))
                    equal += restored.keys() == expected.keys() and all(
                        array.sharding == targets[name]
                        and np.asarray(array).tobytes() == expected[name].tobytes()
                        for name, array in restored.items()
                    )
    print(json.dumps([pairs, equal]))


def encoders(bundle: str) -> None:
    """A T5 and a CLIP whose weights are cut over the devices say what whole ones say, by
    themselves and inside a program with a batch that is cut, too."""
    mesh = on("data=2,fsdp=4")
    config = t5.T5Config(
        **{"vocab_size": 192, "d_model": 16, "d_kv": 4, "d_ff": 40, "num_layers": 2},
        **{"num_heads": 4, "relative_attention_num_buckets": 8, "feed_forward_proj": "gated-gelu"},
        relative_attention_max_distance=20,
    )
    ids = np.random.default_rng(0).integers(3, 190, (8, 12)).astype(np.int32)
    mask = np.arange(12)[None] < np.arange(5, 13)[:, None]
    with tempfile.TemporaryDirectory() as folder:
        t5.save_t5(folder, t5.init_t5(config, jax.random.key(0)), config)
        whole, cut = (t5.load_t5(folder, sharding=s)[0] for s in (None, weight_sharding(mesh)))
    compared(lambda p, i, m: t5.t5_forward(p, config, i, m), whole, cut, mesh, (ids, mask))

    source = Path(bundle) / "text_encoder"
    (whole, shape), (cut, _) = (
        clip.load_clip(source, only="text", sharding=s) for s in (None, weight_sharding(mesh))
    )
    compared(lambda p, i: clip.text_forward(p, shape, i), whole, cut, mesh, (ids,))


def compared(forward: Any, whole: Any, cut: Any, mesh: Any, rows: tuple[np.ndarray, ...]) -> None:
    """The outputs are equal, and the weights are indeed cut."""
    expected = jax.jit(forward)(whole, *rows)
    bytes_of = [leaf.nbytes for leaf in jax.tree.leaves(cut)]
    held = [leaf.addressable_data(0).nbytes for leaf in jax.tree.leaves(cut)]
    assert sum(held) < 0.3 * sum(bytes_of)
    inside = place(cut, frozen_shardings(cut, mesh))
    assert sum(leaf.addressable_data(0).nbytes for leaf in jax.tree.leaves(inside)) == sum(held)
    batch = jax.device_put(rows, batch_sharding(mesh))
    for found in (jax.jit(forward)(cut, *rows), jax.jit(forward)(inside, *batch)):
        for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def whole_run(bundle: str) -> None:
    """A run, its samples, its evaluation, and its continuation on another mesh."""
    sizes = {"hidden_size": 16, "depth": 1, "num_heads": 2}
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            name="eight",
            dataset_name="mock",
            dataset_size=24,
            image_size=16,
            batch_size=8,
            max_steps=4,
            text_encoder=bundle,
            vae=bundle,
            sample_interval=2,
            mesh="data=2,fsdp=4",
            output_dir=folder,
            model=ModelConfig(preset="debug", **sizes),
            ema=EMA,
            sampling=Sampling(steps=1),
            samples=SampleGridConfig(prompts=("red light",), seeds=(0,)),
            evaluation=EvalConfig(images=10, batch_size=10),
        )
        said = io.StringIO()
        result = run(config, ["pinxit"], console=Console(file=said, width=200))
        assert result.status == "finished", said.getvalue()
        assert "mesh: 8 devices (cpu) as data=2,fsdp=4" in said.getvalue()
        assert (result.folder / "samples" / "step_00000002.png").is_file()
        assert set(result.results["validation"]) == {"raw", "ema_0.1"}
        longer = replace(config, max_steps=6, mesh="fsdp=2,tensor=2,data=2")
        result = run(longer, ["pinxit"], console=Console(file=said, width=200))
        assert result.step == 6 and "resuming after step 4" in said.getvalue()


def batches() -> None:
    """Parts that readers take of a batch, whatever the mesh, are the batch."""
    rows = ArrayRows({"value": np.arange(50, dtype=np.float32)})
    for spec in ("data=8", "data=2,fsdp=4", "fsdp=2,tensor=4"):
        part = meshes.local_rows(on(spec), 16)
        np.testing.assert_array_equal(part, np.arange(16))
        batch = Loader(rows, batch_size=16, part=part).batch(3)
        placed = jax.device_put(batch, batch_sharding(on(spec)))
        np.testing.assert_array_equal(jnp.asarray(placed["value"]), batch["value"])


def drawing() -> None:
    """Pictures of the shipped model have the same bytes on one device, on two and on eight."""
    model = load_checkpoint()
    assert list(model.devices) == jax.devices()
    prompts = [f"a small house number {i}" for i in range(11)]
    negative = [("", "fog")[i % 3 == 0] for i in range(11)]

    used: list[int] = []
    solve = pipeline.solve

    def watched(*args: Any, **how: Any) -> Any:
        latents = solve(*args, **how)
        used.append(len(latents.sharding.device_set))
        return latents

    pipeline.solve = watched

    def drawn(count: int, **how: Any) -> np.ndarray:
        model.devices = jax.devices()[:count]
        return model.generate(prompts, seed=5, steps=2, output_type="np", **how)

    mask = np.zeros((64, 64), np.uint8)
    mask[:30] = 255
    inpainted = {"image": model.generate("a red house", steps=2), "mask": mask, "strength": 0.6}
    for how in ({}, {"batch_size": 2}, {"negative_prompt": negative, "batch_size": 3}, inpainted):
        one = drawn(1, **how)
        assert len({picture.tobytes() for picture in one}) == len(prompts)
        for count in (2, 8):
            used.clear()
            np.testing.assert_array_equal(drawn(count, **how), one, err_msg=f"{count} {how}")
            assert used == [count] * -(-len(prompts) // count), how
        alone = model.generate(
            prompts[4],
            seed=9,
            steps=2,
            output_type="np",
            **(how | ({"negative_prompt": negative[4]} if "negative_prompt" in how else {})),
        )
        np.testing.assert_array_equal(alone, one[4], err_msg=f"alone {how}")


def measuring() -> None:
    """The figures of the shipped model are the same on one device, on two and on eight."""
    model = load_checkpoint()
    rows = [*Scenes(length=21, seed=1, image_size=64), *Scenes(length=6, seed=2, image_size=32)]
    losses = []
    for count in (1, 2, 8):
        model.devices = jax.devices()[:count]
        context = EvaluationContext(model=model, rows=rows, batch_size=2)
        losses.append(measure(EVALUATORS["validation_loss"], context))
    assert len(losses[0]) == 11 and losses[0] == losses[1] == losses[2]
    pictures = [row.image for row in Scenes(length=70, seed=3, image_size=64)]
    features = JudgeFeatures(load_judge())
    expected = np.concatenate([features(pictures[i : i + 1], [""]) for i in (0, 37, 69)])
    np.testing.assert_array_equal(features(pictures, [""] * 70)[[0, 37, 69]], expected)
    values, sets = [], []
    for count in (1, 8):
        model.devices = jax.devices()[:count]
        how = {"prompts": 9, "sampling": {"steps": 1}, "evaluators": USED} | {
            "reference_images": 70
        }
        record = pinxit.evaluate_model(model, **how)
        values.append(record["values"])
        sets.append(record["protocol"]["sets"])
    groups = {name.partition("/")[0] for name in values[0]}
    assert groups == {"prompts", "details", "distances", "clip_score"}
    assert values[0] == values[1] and sets[0] == sets[1]


if __name__ == "__main__":
    import sys

    assert jax.device_count() == 8
    sharding.MINIMUM, meshes.FROZEN_MINIMUM = 1, 0
    globals()[sys.argv[1]](*sys.argv[2:])
