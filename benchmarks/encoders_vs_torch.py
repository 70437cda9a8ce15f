"""Compares our encoders with torch's, at their real sizes, with the same weights and machine.

It times, in one process and in turns, (1) the Stable Diffusion autoencoder's encoder and (2)
decoder on 256 x 256 images against diffusers' `AutoencoderKL`, and (3) the text tower of CLIP
ViT-L/14 on captions of 77 tokens against transformers' `CLIPTextModel`. The weights are random,
because the time does not depend on them. Each turn has two calls and only the second is timed, so
that the other library's effect on caches and memory does not count. The script prints the medians
of wall and CPU time and their ratios; above 1, ours is faster.

Run it on an idle machine. Torch's threads wait for one another, so another busy program slows torch
far more than ours, and its waiting counts as CPU time. On a busy machine, the CPU time with
``--threads 1`` is the most reliable figure.

    python benchmarks/encoders_vs_torch.py --images 1 --captions 8

It needs the ``parity`` extra and a gigabyte of temporary disk. Memory is tuned as in training
(`pinxit.cli.xla_environment`), for both libraries alike.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from pinxit.cli.xla_environment import prepare_environment, restart_tuned

SIDE, TOKENS = 256, 77
SD_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "sample_size": SIDE,
}
CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": TOKENS,
    "hidden_act": "quick_gelu",
}
TASKS = ("VAE encode", "VAE decode", "CLIP text")
Run = Callable[[], Any]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=1, help="images in a batch")
    parser.add_argument("--captions", type=int, default=8, help="captions in a batch")
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="threads of each library"
    )
    parser.add_argument("--channels_last", action="store_true", help="use the NHWC layout in torch")
    return parser.parse_args()


def theirs(args: argparse.Namespace, inputs: dict[str, Any], saved: Path) -> dict[str, Run]:
    """torch, eager, in inference mode, with random weights; saves them. Outputs in our layout."""
    import torch
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    vae = AutoencoderKL(**SD_VAE).eval()
    clip = CLIPTextModel(CLIPTextConfig(**CLIP_L)).eval()
    vae.save_pretrained(saved / "vae")
    clip.save_pretrained(saved / "clip")
    grids = [
        torch.from_numpy(inputs[name].transpose(0, 3, 1, 2).copy()) for name in ("images", "raw")
    ]
    if args.channels_last:
        vae = vae.to(memory_format=torch.channels_last)
        grids = [grid.contiguous(memory_format=torch.channels_last) for grid in grids]
    images, raw = grids
    token_ids = torch.from_numpy(inputs["token_ids"]).long()

    def in_inference_mode(function: Callable[[], Any]) -> Run:
        def run() -> Any:
            with torch.inference_mode():
                return function().numpy()

        return run

    return {
        "VAE encode": in_inference_mode(
            lambda: vae.encode(images).latent_dist.mean.permute(0, 2, 3, 1)
        ),
        "VAE decode": in_inference_mode(lambda: vae.decode_latents(raw).sample.permute(0, 2, 3, 1)),
        "CLIP text": in_inference_mode(lambda: clip(token_ids).last_hidden_state),
    }


def ours(inputs: dict[str, Any], saved: Path) -> dict[str, Run]:
    """The same, jitted, from the files that `theirs` saved."""
    import jax

    from pinxit.encoders import clip, vae

    vae_params, vae_config = vae.load_vae(saved / "vae")
    clip_params, clip_config = clip.load_clip(saved / "clip")
    images, raw, token_ids = (jax.device_put(inputs[x]) for x in ("images", "raw", "token_ids"))
    encode = jax.jit(lambda params, x: vae.encode_moments(params, vae_config, x)[0])
    decode = jax.jit(lambda params, x: vae.decode_latents(params, vae_config, x))
    text = jax.jit(lambda params, x: clip.text_forward(params, clip_config, x).hidden)
    return {
        "VAE encode": lambda: jax.device_get(encode(vae_params, images)),
        "VAE decode": lambda: jax.device_get(decode(vae_params, raw)),
        "CLIP text": lambda: jax.device_get(text(clip_params, token_ids)),
    }


def make_inputs(args: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    rng = np.random.default_rng(0)
    token_ids = rng.integers(0, 49000, (args.captions, TOKENS))
    token_ids[:, 0], token_ids[:, -1] = 49406, 49407
    return {
        "images": rng.uniform(-1, 1, (args.images, SIDE, SIDE, 3)).astype(np.float32),
        "raw": rng.normal(size=(args.images, SIDE // 8, SIDE // 8, 4)).astype(np.float32),
        "token_ids": token_ids.astype(np.int32),
    }


def measure(run: Run) -> tuple[float, float]:
    run()
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(mine: dict[str, Run], other: dict[str, Run], args: argparse.Namespace) -> None:
    """Compares the outputs, times both in turns, and prints a line for each task."""
    import numpy as np

    print(f"{'':11} {'wall ms':>17} {'ratio':>6}   {'CPU ms':>17} {'ratio':>6}   {'relative':>10}")
    print(f"{'':11} {'ours':>8} {'torch':>8} {'':6}   {'ours':>8} {'torch':>8} {'difference':>20}")
    for task in args.tasks:
        a, b = mine[task](), other[task]()
        difference = np.abs(a - b).max() / np.abs(b).max()
        times: dict[str, list[tuple[float, float]]] = {"ours": [], "torch": []}
        for _ in range(args.repeats):
            for name, functions in (("ours", mine), ("torch", other)):
                times[name].append(measure(functions[task]))
        line = f"{task:11}"
        for kind in (0, 1):
            here, there = (1000 * median(pair[kind] for pair in times[x]) for x in times)
            line += f" {here:8.1f} {there:8.1f} {there / here:6.2f}  "
        print(f"{line} {difference:10.1e}", flush=True)


def main() -> None:
    args = arguments()
    prepare_environment()
    restart_tuned()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    import jax
    import torch

    torch.set_num_threads(args.threads)
    inputs = make_inputs(args)
    with tempfile.TemporaryDirectory() as saved:
        other = theirs(args, inputs, Path(saved))
        mine = ours(inputs, Path(saved))
    print(
        f"{args.images} image(s) of {SIDE} x {SIDE}, {args.captions} captions of {TOKENS} tokens, "
        f"fp32, jax {jax.__version__} on {jax.devices()[0].device_kind}, torch {torch.__version__}"
        f"{' with channels last' if args.channels_last else ''}, {args.threads} threads each"
    )
    compare(mine, other, args)


if __name__ == "__main__":
    main()
