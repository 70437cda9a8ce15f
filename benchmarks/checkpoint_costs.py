"""Measures what it costs to save a checkpoint, and to read a model from one.

    python benchmarks/checkpoint_costs.py --what save --preset base
    python benchmarks/checkpoint_costs.py --what save --preset xlarge --depth 4 --devices 8 \\
        --processes 4
    python benchmarks/checkpoint_costs.py --what draw --preset large --depth 8

The script prints a Markdown table. `save` gives the time for which `Checkpoints.save` blocks the
training step, the time until the checkpoint is on the disk, the growth of memory beyond the state
itself, and the bytes that each process wrote. `draw` gives the bytes that `read_model` reads, its
time, and the growth of memory, for a checkpoint with Adam's moments and two averages.

The states have the shapes of real ones and random values, and nothing is trained. Each measurement
runs in processes of its own, with fake CPU devices, over which `fsdp` shards the state. `--depth`
reduces the number of blocks. To measure an older version, put its checkout first into PYTHONPATH;
the first column names the package that was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MIB = 2**20
STEPS = (100, 200)
"""The steps of the checkpoints that are saved one after the other."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--what", choices=("save", "draw"), required=True)
    parser.add_argument("--preset", default="base")
    parser.add_argument("--depth", type=int, help="number of blocks, instead of the preset's")
    parser.add_argument("--devices", type=int, default=1, help="fake devices of all processes")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--averages", type=int, default=2, help="averages of the parameters")
    parser.add_argument("--saves", type=int, choices=(1, 2), default=2, help="the last is measured")
    parser.add_argument("--folder", help="where checkpoints are written (a temporary folder)")
    options = parser.parse_args()
    if options.devices % options.processes:
        parser.error("--devices must be divisible by --processes")
    return options


class Usage:
    """The memory and the reading of this process from now on."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        self.memory = self._status("VmRSS")
        self.read = self._read()

    def growth(self) -> float:
        """Returns the MiB by which the peak exceeds the memory at the beginning."""
        return (self._status("VmHWM") - self.memory) / 1024

    def read_mib(self) -> float:
        """Returns the MiB that were read since the beginning."""
        return (self._read() - self.read) / MIB

    @staticmethod
    def _status(name: str) -> int:
        text = Path("/proc/self/status").read_text()
        return int(re.findall(rf"{name}:\s+(\d+) kB", text)[0])

    @staticmethod
    def _read() -> int:
        return int(re.findall(r"rchar: (\d+)", Path("/proc/self/io").read_text())[0])


def random_state(options: argparse.Namespace) -> Any:
    """Returns a state of random values, of which this process has its devices' part."""
    import jax
    import numpy as np

    from pinxit.devices.mesh import make_mesh, state_shardings
    from pinxit.models.transformer import init_params, preset
    from pinxit.train.ema import EmaConfig
    from pinxit.train.optimizer import OptimizerConfig, build_optimizer
    from pinxit.train.state import init_state

    depth = {} if options.depth is None else {"depth": options.depth}
    model = preset(options.preset, **depth)
    optimizer = build_optimizer(OptimizerConfig(name="adamw"), 1000, num_heads=model.num_heads)
    ema = EmaConfig(lengths=(0.05, 0.1, 0.2)[: options.averages])
    shapes = jax.eval_shape(
        lambda: init_state(init_params(model, jax.random.key(0)), optimizer, ema=ema)
    )
    mesh = make_mesh(f"fsdp={jax.device_count()}", jax.devices())
    rng = np.random.default_rng(jax.process_index())

    def values(leaf: Any, sharding: Any) -> jax.Array:
        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            shape = np.empty(leaf.shape, np.int8)[index or ...].shape
            if leaf.ndim == 0:
                return np.asarray(STEPS[0], leaf.dtype)
            return rng.random(shape, np.float32).astype(leaf.dtype)

        return jax.make_array_from_callback(leaf.shape, sharding, part)

    return jax.block_until_ready(jax.tree.map(values, shapes, state_shardings(shapes, mesh)))


def run_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what a run stores beside its state, as far as `read_model` needs it."""
    model: dict[str, Any] = {"preset": options.preset, "depth": options.depth}
    config = {"model": model, "text_encoder": "none", "vae": "none", "image_size": 256}
    return {"config": config | {"name": "costs"}}


def save(options: argparse.Namespace, root: Path) -> dict[str, float]:
    """Saves one or two checkpoints. The last is measured, since the first one may compile."""
    import dataclasses

    import jax
    import numpy as np

    from pinxit.devices.transfer import place
    from pinxit.train.checkpoint import Checkpoints

    state = random_state(options)
    bytes_of = sum(
        shard.data.nbytes for leaf in jax.tree.leaves(state) for shard in leaf.addressable_shards
    )
    checkpoints = Checkpoints(root)
    usage, first, second = Usage(), 0.0, 0.0
    begin = end = 0.0
    for step in STEPS[-options.saves :]:
        number = place(np.int32(step), state.step.sharding)
        state = dataclasses.replace(state, step=number)
        begin = time.perf_counter()
        checkpoints.save(state, run_settings(options))
        first, second = second, time.perf_counter() - begin
        checkpoints.wait()
        end = time.perf_counter() - begin
    return {
        "first": first,
        "stall": second,
        "until": end,
        "growth": usage.growth(),
        "held": bytes_of / MIB,
    }


def draw(options: argparse.Namespace, root: Path) -> dict[str, float]:
    """Reads the parameters from the newest checkpoint."""
    import jax

    from pinxit.encoders.weights import flatten
    from pinxit.stored_model import read_model

    jax.devices()
    usage, begin = Usage(), time.perf_counter()
    stored = read_model(root, ema="raw")
    seconds = time.perf_counter() - begin
    growth, read = usage.growth(), usage.read_mib()
    size = sum(array.nbytes for array in flatten(stored.params).values()) / MIB
    return {"seconds": seconds, "read": read, "growth": growth, "params": size}


def work(options: argparse.Namespace, what: str, root: Path, process: int, port: int) -> None:
    """Measures in this process, and prints the result as the last line."""
    from pinxit.devices.processes import DistributedConfig, disconnect, initialise

    if options.processes > 1 and what == "save":
        import jax

        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        address = f"127.0.0.1:{port}"
        initialise(DistributedConfig(address, options.processes, process, timeout=600))
    result = {"save": save, "draw": draw}[what](options, root)
    print(json.dumps(result), flush=True)
    disconnect()


def measured(options: argparse.Namespace, what: str, root: Path) -> list[dict[str, float]]:
    """Measures in new processes. Returns the result of each."""
    count = options.processes if what == "save" else 1
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    devices = options.devices // options.processes if what == "save" else 1
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    workers = []
    for process in range(count):
        order = {"what": what, "root": str(root), "process": process, "port": port}
        command = [sys.executable, __file__, *sys.argv[1:]]
        workers.append(
            subprocess.Popen(
                command,
                env=environment | {"PINXIT_COSTS": json.dumps(order)},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    outputs = [worker.communicate()[0] for worker in workers]
    if any(worker.returncode for worker in workers):
        raise SystemExit("a process failed")
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def written_by(root: Path, process: int) -> float:
    """Returns the MiB of the last checkpoint that a process wrote. Files without the number of a
    process are written by process 0."""
    total = 0
    for path in (root / f"step_{STEPS[-1]:08d}").rglob("*"):
        number = re.search(r"\.(\d{5})\.safetensors$", path.name)
        total += path.stat().st_size * (
            path.is_file() and int(number[1] if number else 0) == process
        )
    return total / MIB


def save_table(options: argparse.Namespace, root: Path) -> list[str]:
    """Returns the table of a save, with a row for each process."""
    columns = "process | state on its devices | stall of the step | of the first save | on the disk"
    lines = [f"| package | {columns} after | memory beyond the state | written |"]
    lines.append("|---" * 8 + "|")
    for process, result in enumerate(measured(options, "save", root)):
        lines.append(
            f"| {package()} | {process} | {result['held']:.0f} MiB | {result['stall']:.2f} s "
            f"| {result['first']:.2f} s | {result['until']:.2f} s | {result['growth']:.0f} MiB "
            f"| {written_by(root, process):.0f} MiB |"
        )
    return lines


def draw_table(options: argparse.Namespace, root: Path) -> list[str]:
    """Returns the table of reading a model."""
    measured(options, "save", root)
    size = sum(written_by(root, process) for process in range(options.processes))
    result = measured(options, "draw", root)[0]
    return [
        "| package | checkpoint | parameters | read | memory | time |",
        "|---" * 6 + "|",
        f"| {package()} | {size:.0f} MiB | {result['params']:.0f} MiB | {result['read']:.0f} MiB "
        f"| {result['growth']:.0f} MiB | {result['seconds']:.2f} s |",
    ]


def package() -> str:
    """Returns the folder of the package that is measured."""
    import pinxit

    return Path(pinxit.__file__).parents[1].name


def main() -> None:
    options = arguments()
    if order := os.environ.get("PINXIT_COSTS"):
        value = json.loads(order)
        work(options, value["what"], Path(value["root"]), value["process"], value["port"])
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        table = {"save": save_table, "draw": draw_table}[options.what]
        print("\n".join(table(options, Path(folder) / "checkpoints")))


if __name__ == "__main__":
    main()
