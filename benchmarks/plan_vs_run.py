"""Compares the memory that a plan predicts with that of real runs on this machine's CPU.

    python benchmarks/plan_vs_run.py
    python benchmarks/plan_vs_run.py --counts --devices 8

Four runs are built as `pinxit train` builds them: latents with CLIP in the step, latents with
stored T5 embeddings, images with the autoencoder and T5 in the step, and pixels. Their encoders
have the architecture of the published ones with random weights, and a size of hundreds of megabytes
(with ``--counts``, of kilobytes).

The parts of the plan are compared with `jax.live_arrays()`: the bytes on the fullest device, each
buffer counted once. ``--counts`` stops there. Otherwise each run has a process of its own and takes
five steps, and the peak of the plan is compared with the growth of the process's resident memory,
from before the build to the highest value during the steps. The resident memory also has the
program's code, the heap of the host and what the allocator keeps, which no plan contains.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

RUNS = (
    "latents, CLIP",
    "latents, T5 stored",
    "images, VAE and T5 in the step",
    "pixels, CLIP + T5",
)
STEPS = 5


# --- encoders with random weights ---------------------------------------------------------------


def write_encoders(root: Path, *, tiny: bool) -> None:
    """Writes a pipeline's folders: a CLIP, a T5 and an autoencoder, with their tokenizers."""
    import jax
    from tokenizers import Tokenizer, processors
    from tokenizers.models import Unigram

    from pinxit.data.mock import COLOURS
    from pinxit.encoders import clip, t5, vae
    from pinxit.encoders.clip_tokenizer import train_clip_tokenizer

    captions = [f"{colour} light" for colour in COLOURS]
    size = train_clip_tokenizer(captions, 540, root / "tokenizer", max_tokens=16)
    tower = clip.ClipTextConfig(
        vocab_size=size if tiny else 49408,
        hidden_size=16 if tiny else 512,
        intermediate_size=32 if tiny else 2048,
        num_hidden_layers=2 if tiny else 12,
        num_attention_heads=2 if tiny else 8,
        max_position_embeddings=16,
    )
    config = clip.ClipConfig(text=tower, projection_dim=tower.hidden_size)
    clip.save_clip(root / "text_encoder", clip.init_clip(config, jax.random.key(0)), config)

    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("\u2581light", -2.0),
        ("\u2581", -9.0),
    ]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", None, [("</s>", 1)])
    (root / "tokenizer_2").mkdir()
    tokenizer.save(str(root / "tokenizer_2" / "tokenizer.json"))
    # the proportions of T5 v1.1, whose small one has a width of 512 and eight layers
    shape = t5.T5Config(
        vocab_size=64 if tiny else 32128,
        d_model=16 if tiny else 512,
        d_kv=8 if tiny else 64,
        d_ff=40 if tiny else 1024,
        num_layers=2 if tiny else 8,
        num_heads=2 if tiny else 6,
        feed_forward_proj="gated-gelu",
    )
    t5.save_t5(root / "text_encoder_2", t5.init_t5(shape, jax.random.key(1)), shape)
    widths = (8, 8, 16, 16) if tiny else (64, 128, 256, 256)
    autoencoder = vae.AutoencoderKLConfig(
        block_out_channels=widths, layers_per_block=2, norm_num_groups=4
    )
    vae.save_vae(root / "vae", vae.init_vae(autoencoder, jax.random.key(2)), autoencoder)


def settings(name: str, root: Path, *, tiny: bool) -> Any:
    """Returns the settings of one of `RUNS` with the encoders in `root`."""
    from pinxit.recipes import mock
    from pinxit.train.settings import ModelConfig

    pair = f"{root}+{root}"
    changes: dict[str, Any] = {
        "latents, CLIP": {"text_encoder": str(root)},
        "latents, T5 stored": {"text_encoder": str(root / "text_encoder_2")},
        "images, VAE and T5 in the step": {
            "text_encoder": str(root / "text_encoder_2"),
            "cache_text": False,
            "encode_in_step": True,
        },
        "pixels, CLIP + T5": {"text_encoder": pair},
    }[name]
    pixels = name.startswith("pixels")
    model = ModelConfig(preset="debug" if tiny else "small", use_stable_vae=not pixels)
    base = replace(
        mock(),
        dataset_size=32,
        batch_size=8 if tiny else 16,
        image_size=32 if tiny else 128,
        vae=str(root),
        model=model,
        **changes,
    )
    return base.resolved()


# --- one run --------------------------------------------------------------------------------------


def held() -> int:
    """Returns the bytes of all arrays on the fullest device; a shared buffer counts once."""
    import jax

    sizes: Counter[int] = Counter()
    buffers = set()
    for array in jax.live_arrays():
        for shard in array.addressable_shards:
            key = (shard.device.id, shard.data.unsafe_buffer_pointer())
            if key not in buffers:
                buffers.add(key)
                sizes[shard.device.id] += shard.data.nbytes
    return max(sizes.values(), default=0)


def resident() -> int:
    """Returns the resident memory of this process, after freed memory went back to the system."""
    import psutil

    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return psutil.Process().memory_info().rss


@contextmanager
def highest() -> Iterator[Callable[[], int]]:
    """Watches the resident memory; the function returns the highest value so far."""
    import psutil

    process, values, stop = psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            values[0] = max(values[0], process.memory_info().rss)
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: values[0]
    finally:
        stop.set()
        thread.join()


def planned_peak(program: Any) -> int:
    """Returns the peak of the plan for a step as shapes, in bytes."""
    import jax

    from pinxit.plan.compile_cache import Compiled
    from pinxit.plan.compile_worker import compiled
    from pinxit.plan.memory import memory_of
    from pinxit.plan.targets import get_target

    traced = program.trace()
    with tempfile.TemporaryDirectory() as folder:
        lowered, platform = traced.lower(), jax.default_backend()
        facts, _ = compiled(lowered, Path(folder), about="", platform=platform)
    facts |= {"bytes_by_part": program.bytes_by_part()}
    facts |= {"unread_bytes": program.unread_bytes(traced)}
    result = Compiled(program.config, "here", facts, cached=False)
    return memory_of(result, get_target("h200")).peak


def work(name: str, root: Path, *, counts_only: bool) -> dict[str, Any]:
    """Builds one run in this process and returns its memory, planned and real."""
    import jax
    from rich.console import Console

    from pinxit.devices.mesh import frozen_shardings, local_rows
    from pinxit.devices.transfer import place, place_batch
    from pinxit.train.abstract_program import abstract_program
    from pinxit.train.build import build, build_state, build_step
    from pinxit.train.display import Display
    from pinxit.train.encode_step import frozen_arrays
    from pinxit.train.input.open import open_feed
    from pinxit.train.loop import IN_FLIGHT
    from pinxit.train.run_folder import claim

    jax.block_until_ready(jax.jit(lambda x: x + 1)(1.0))
    before, at_start = resident(), held()
    with tempfile.TemporaryDirectory() as folder:
        config = replace(settings(name, root, tiny=counts_only), output_dir=folder)
        display = Display("x", max_steps=1, console=Console(quiet=True))
        parts = build(config)
        feed = open_feed(config, parts, claim(config), display, source=None)
        frozen = frozen_arrays(feed.text, feed.text_columns, parts.encoder_in_step(config))
        frozen = place(frozen, frozen_shardings(frozen, parts.mesh))
        gc.collect()
        live = {"encoders": held() - at_start}
        state = build_state(config, parts)
        live["state"] = held() - at_start - live["encoders"]
        rows = local_rows(parts.mesh, config.batch_size)
        batches = [
            place_batch(feed.loader.batch(i), parts.mesh, rows, config.batch_size)
            for i in range(1 + IN_FLIGHT)
        ]
        live["inputs"] = held() - at_start - live["encoders"] - live["state"]
    program = abstract_program(config, columns=feed.text_columns)
    parts_of_plan = program.bytes_by_part()
    result: dict[str, Any] = {"live": live, "planned": grouped(parts_of_plan)}
    if counts_only:
        return result
    step: Any = build_step(config, parts, state, feed.text)
    state, _ = jax.block_until_ready(step(state, frozen, batches[0]))  # compiles
    resident()
    with highest() as peak:
        for i in range(STEPS):
            state, metrics = step(state, frozen, batches[i % len(batches)])
            jax.block_until_ready(metrics)
    return result | {"resident_peak": peak() - before, "planned_peak": planned_peak(program)}


def grouped(parts: dict[str, int]) -> dict[str, int]:
    """Returns the parts of a plan as `held` can tell them apart."""
    return {
        "encoders": parts["encoders"] + parts["encoders beside the step"],
        "state": parts["parameters"] + parts["optimiser"] + parts["ema"],
        "inputs": parts["inputs"],
    }


# --- the table ------------------------------------------------------------------------------------


def measure(names: Sequence[str], root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Runs `work` for these runs in a process of its own."""
    flags = f"--xla_force_host_platform_device_count={options.devices}"
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, __file__, "--work", str(root), *names]
    command += ["--counts"] if options.counts else []
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{', '.join(names)}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a table, in MiB of the fullest device."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--counts", action="store_true", help="compare the parts of tiny runs only")
    parser.add_argument("--devices", type=int, default=1, help="CPU devices to simulate")
    parser.add_argument("--json", action="store_true", help="print bytes as JSON instead")
    parser.add_argument("--work", nargs="+", metavar=("ROOT", "RUN"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.work:
        root, *names = options.work
        print(json.dumps({n: work(n, Path(root), counts_only=options.counts) for n in names}))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_encoders(root, tiny=options.counts)
        groups = [RUNS] if options.counts else [(name,) for name in RUNS]
        results: dict[str, Any] = {}
        if not options.json:
            print("| run | state | encoders | inputs | peak planned | resident | ratio |")
            print("|---|---|---|---|---|---|---|", flush=True)
        for names in groups:
            measured = measure(names, root, options)
            results |= measured
            for name, result in () if options.json else measured.items():
                print("| " + " | ".join([name, *cells(result)]) + " |", flush=True)
    if options.json:
        print(json.dumps(results))
    return 0


def cells(result: dict[str, Any]) -> list[str]:
    """Formats a run: the parts as planned / live, the two peaks and their ratio."""
    texts = [
        f"{result['planned'][part] / 2**20:.1f} / {result['live'][part] / 2**20:.1f}"
        for part in ("state", "encoders", "inputs")
    ]
    if "planned_peak" not in result:
        return [*texts, "", "", ""]
    planned, peak = result["planned_peak"], result["resident_peak"]
    return [*texts, f"{planned / 2**20:.0f}", f"{peak / 2**20:.0f}", f"{peak / planned:.2f}"]


if __name__ == "__main__":
    sys.exit(main())
