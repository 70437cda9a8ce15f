"""Meshes: what may be asked for, what is chosen, and that eight (fake) devices compute what one
computes."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import pytest

from pinxit.config import UsageError
from pinxit.devices.mesh import check_batch, check_tensor, choose, make_mesh, parse_mesh
from pinxit.devices.partition_rules import spec_of
from pinxit.models.transformer import PRESETS, abstract, preset
from pinxit.train.ema import EmaConfig
from pinxit.train.optimizer import OptimizerConfig, build_optimizer
from pinxit.train.state import init_state

HERE = Path(__file__).parents[1] / "stand_ins"
GIB = 2**30


def eight(*arguments: str) -> None:
    """Runs a function of `on_eight`."""
    environment = os.environ | {
        # what compiles fast is good enough here
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 "
        "--xla_llvm_disable_expensive_passes=true",
        "PYTHONPATH": f"{HERE.parents[1]}:{HERE}",
    }
    command = [sys.executable, str(HERE / "on_eight.py"), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_eight_devices_train_as_one_does():
    cases = ["data=8;1", "data=2,fsdp=4;1", "data=4,fsdp=2;2"]
    eight("steps", "toy", *(f"{name};{case}" for name in ("adamw", "muon") for case in cases))
    eight("steps", "transformer", "muon;data=2,fsdp=2,tensor=2;1")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_mesh_trains_the_transformer_as_one_device_does(name: str):
    cases = ["data=8;1", "fsdp=8;1", "data=2,fsdp=4;2", "fsdp=4,tensor=2;1", "tensor=4,data=2;2"]
    eight("steps", "transformer", *(f"{name};{case}" for case in cases))


@pytest.mark.slow
def test_checkpoints_go_from_any_devices_to_any():
    eight("checkpoints")


def test_encoders_that_are_cut_say_the_same(bundle: Path):
    eight("encoders", str(bundle))


def test_batches_reach_the_devices_whole():
    eight("batches")


@dataclass(frozen=True)
class Described:
    """A device as `jax.experimental.topologies` gives it: without `memory_stats`."""

    id: int
    platform: str
    device_kind: str
    process_index: int


@pytest.mark.slow
def test_a_whole_run_on_eight_devices(bundle: Path):
    eight("whole_run", str(bundle))


def devices(count: int, *, hosts: int = 1, kind: str = "TPU v3", platform: str = "tpu") -> Any:
    return [Described(i, platform, kind, i * hosts // count) for i in range(count)]


@pytest.mark.parametrize(
    ("spec", "count", "shape"),
    [
        ("data=8", 8, (8, 1, 1)),
        ("data=2,fsdp=4", 8, (2, 4, 1)),
        ("tensor=2, fsdp=*", 8, (1, 4, 2)),
        ("data=-1,tensor=2", 8, (4, 1, 2)),
        ("fsdp=*", 1, (1, 1, 1)),
    ],
)
def test_what_may_be_asked_for(spec: str, count: int, shape: tuple[int, ...]):
    assert parse_mesh(spec, count) == shape


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("data=3,fsdp=*", r"of 8 devices.*product is 8 .*1, 2, 4, 8"),
        ("data=4", "of 8 devices"),
        ("model=8", "'model'; valid: data, fsdp, tensor"),
        ("data=*,fsdp=*", "for two axes"),
        ("data=2,data=4", "twice"),
        ("data", "at 'data'; valid: auto, or sizes"),
        ("fsdp=0", "at 'fsdp=0'"),
    ],
)
def test_what_may_not(spec: str, says: str):
    with pytest.raises(UsageError, match=rf"mesh.*{says}"):
        parse_mesh(spec, 8)


@pytest.mark.parametrize(
    ("found", "state", "shape", "why"),
    [
        (devices(8), 1 * GIB, (8, 1, 1), "replicated.*6% of a device's 16"),
        (devices(8), 10 * GIB, (1, 8, 1), "sharded 8 ways"),
        (devices(32, hosts=4), 10 * GIB, (4, 8, 1), "sharded 8 ways"),
        (devices(32, hosts=4), 100 * GIB, (2, 16, 1), "sharded 16 ways"),
        (devices(32, hosts=4), 900 * GIB, (1, 32, 1), "sharded 32 ways"),
        (devices(8, hosts=8), 10 * GIB, (4, 2, 1), "sharded 2 ways"),  # a process for each device
        (devices(8, kind="unknown", platform="gpu"), 1 * GIB, (1, 8, 1), "an unknown share"),
        (devices(8, kind="cpu", platform="cpu"), 99 * GIB, (8, 1, 1), "share their memory"),
        (devices(1), 99 * GIB, (1, 1, 1), ""),
    ],
)
def test_what_auto_chooses(found: Any, state: int, shape: tuple[int, ...], why: str):
    memory = 16 * GIB if found[0].device_kind == "TPU v3" else None
    layout = choose("auto", found, state_bytes=state, memory_bytes=memory)
    assert layout.shape == shape and re.search(why, layout.why), layout


@pytest.mark.parametrize("process", [0, 1])
def test_all_processes_choose_alike(monkeypatch: pytest.MonkeyPatch, process: int):
    """A process can ask its own devices only, and allocators differ a little."""

    class Card(Described):
        def memory_stats(self) -> dict[str, int]:
            if self.process_index != process:
                raise jax.errors.JaxRuntimeError("MemoryStats is for addressable devices")
            return {"bytes_limit": 75 * GIB + 1000 * (1 + process)}

    monkeypatch.setattr("jax.process_index", lambda: process)
    cards = [Card(i, "gpu", "NVIDIA X", i // 4) for i in range(8)]
    assert (
        choose("auto", cards, state_bytes=GIB).why
        == "replicated: the state is 1.0 GiB, 1% of a device's 75 GiB"
    )


def test_the_choice_is_said_and_the_memory_may_be_given():
    said: list[str] = []
    found = devices(4, kind="NVIDIA X", platform="gpu")
    mesh = make_mesh("auto", found, state_bytes=10 * GIB, memory_bytes=80 * GIB, say=said.append)
    assert dict(mesh.shape) == {"data": 4, "fsdp": 1, "tensor": 1}
    assert said == [
        "mesh: 4 devices (NVIDIA X) as data=4 "
        "(replicated: the state is 10.0 GiB, 12% of a device's 80 GiB)"
    ]
    assert make_mesh().size == jax.device_count()


def test_batches_and_heads_that_do_not_divide_are_named():
    mesh = make_mesh("data=2,fsdp=2,tensor=2", devices(8, platform="gpu"))
    check_batch(8, 2, mesh)
    with pytest.raises(ValueError, match=r"batch_size: 12 .*times the 4 devices"):
        check_batch(12, 2, mesh)
    check_tensor(mesh, heads=6)
    with pytest.raises(UsageError, match=r"tensor=2.*divide the model's 9 heads.*1, 3, 9"):
        check_tensor(mesh, heads=9)


def states(name: str) -> Any:
    """The shapes of a state of a preset, with AdamW and with Muon, for latents and pixels."""
    for optimizer in ("adamw", "muon"):
        for more in ({}, {"in_channels": 3, "patch_size": 8, "bottleneck_size": 128}):
            heads = preset(name).num_heads
            built = build_optimizer(OptimizerConfig(name=optimizer), 10, num_heads=heads)
            params = abstract(preset(name, context_dim=4096, **more))[1]
            yield jax.eval_shape(lambda p, b=built: init_state(p, b, ema=EmaConfig()), params)


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_array_of_every_preset_is_cut_into_equal_parts(name: str):
    for mesh in ({"fsdp": 8}, {"fsdp": 4, "tensor": 2}, {"fsdp": 256}, {"fsdp": 5, "tensor": 3}):
        for state in states(name):
            specs: dict[str, Any] = {}
            kept = whole = 0
            for path, leaf in jax.tree_util.tree_leaves_with_path(state):
                key = jax.tree_util.keystr(path, simple=True, separator="/")
                spec = specs[key] = spec_of(key, leaf.shape, mesh)
                ways = [mesh[axis] if axis else 1 for axis in spec]
                assert all(size % n == 0 for size, n in zip(leaf.shape, ways, strict=False)), key
                assert len({axis for axis in spec if axis}) == len([axis for axis in spec if axis])
                whole += leaf.size
                kept += leaf.size / math.prod(ways)
            params = {k.removeprefix("params/"): v for k, v in specs.items() if "params/" in k}
            followers = [
                (key, spec, next((params[p] for p in params if key.endswith(f"/{p}")), None))
                for key, spec in specs.items()
                if not key.startswith("params/")
            ]
            assert all(spec == wanted for _, spec, wanted in followers if wanted is not None)
            if name in ("large", "xlarge") and mesh == {"fsdp": 8}:
                assert kept < 0.13 * whole  # an eighth, and what is too small to cut


def test_blocks_are_cut_the_way_tensor_parallelism_wants():
    mesh = {"fsdp": 4, "tensor": 2}
    shape = (24, 1024, 1024)
    assert tuple(spec_of("x/blocks/attention/query/kernel", shape, mesh)) == (
        None,
        "fsdp",
        "tensor",
    )
    assert tuple(spec_of("x/blocks/attention/out/kernel", shape, mesh)) == (None, "tensor", "fsdp")
    assert tuple(spec_of("x/blocks/mlp/down/kernel", (24, 3584, 1024), mesh)) == (
        None,
        "tensor",
        "fsdp",
    )
    assert tuple(spec_of("x/blocks/attention/query_norm/scale", (24, 64), mesh)) == ()
    assert tuple(spec_of("x/blocks/modulation/kernel", (16, 1792, 10752), mesh)) == (None, "fsdp")
    assert tuple(spec_of("x/blocks/modulation/bias", (16, 10752), mesh)) == (None, "fsdp")
    assert tuple(spec_of("x/modulation/kernel", (1792, 10752), mesh)) == ("fsdp",)
    assert tuple(spec_of("unheard/of", (3, 4096, 16), mesh)) == (None, "fsdp")
