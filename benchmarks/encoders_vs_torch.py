"""Compares our encoders with torch's, at their real sizes, with the same weights and machine.

The tasks are (1) the Stable Diffusion autoencoder's encoder and (2) decoder on pictures of
256 x 256 against diffusers' `AutoencoderKL`, (3) the text tower of CLIP ViT-L/14 on captions of 77
tokens against transformers' `CLIPTextModel`, and (4) two blocks of the width of T5-XXL on the same
captions against `T5EncoderModel`: all 24 blocks have 4.7 billion parameters, which is too much for
most machines, and each block takes the same time. The weights are random, because the time does not
depend on them.

Each side (ours, torch, and torch with `torch.compile`) is alone in its process, and the processes
take turns (see `process_turns`). The script prints the largest difference of the outputs, relative
to the largest output, the medians of wall time, CPU time and peak memory, and torch's over ours:
above 1, ours needs less. Memory is tuned as in training, for both libraries alike.

    python benchmarks/encoders_vs_torch.py
    python benchmarks/encoders_vs_torch.py --tasks "CLIP text" --captions 64 --rounds 1

It needs the ``parity`` extra and three gigabytes of temporary disk. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from process_turns import (
    add_turn_options,
    answer,
    begin_report,
    by_task,
    measure,
    medians,
    new_cache,
    peaks_while_compiling,
    prepare_sides,
    print_table,
    side_words,
    take_turns,
)
from processor_class import processor, side_environment, usable_cores, versions

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
T5_BLOCKS = 2
T5_XXL = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": T5_BLOCKS,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
ENCODE, DECODE, CLIP, T5 = "VAE encode", "VAE decode", "CLIP text", "T5-XXL, 2 of 24 blocks"
TASKS = (ENCODE, DECODE, CLIP, T5)
OURS, EAGER, COMPILED = "pinxit", "torch eager", "torch compiled"
SIDES = (OURS, EAGER, COMPILED)
PREPARE = "inputs"
"""The side that writes weights and inputs for the others."""
Run = Callable[[], Any]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=1, help="images in a batch")
    parser.add_argument("--captions", type=int, default=8, help="captions in a batch")
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    add_turn_options(parser, seconds=2.0)
    parser.add_argument("--channels_last", action="store_true", help="use the NHWC layout in torch")
    return parser.parse_args()


def write_inputs(args: argparse.Namespace) -> None:
    """Writes inputs and random weights, in the files of diffusers and transformers."""
    import numpy as np
    import torch
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    rng = np.random.default_rng(0)
    token_ids = rng.integers(0, 32000, (args.captions, TOKENS))
    token_ids[:, 0], token_ids[:, -1] = 49406, 49407
    np.savez(
        args.folder / "inputs.npz",
        images=rng.uniform(-1, 1, (args.images, SIDE, SIDE, 3)).astype(np.float32),
        raw=rng.normal(size=(args.images, SIDE // 8, SIDE // 8, 4)).astype(np.float32),
        token_ids=token_ids.astype(np.int32),
    )
    torch.manual_seed(0)
    if {ENCODE, DECODE} & set(args.tasks):
        AutoencoderKL(**SD_VAE).save_pretrained(args.folder / "vae")
    if CLIP in args.tasks:
        CLIPTextModel(CLIPTextConfig(**CLIP_L)).save_pretrained(args.folder / "clip")
    if T5 in args.tasks:
        T5EncoderModel(T5Config(**T5_XXL)).save_pretrained(args.folder / "t5")


def t5_inputs(token_ids: Any) -> tuple[Any, Any]:
    """Returns token ids of T5's vocabulary, and a mask that hides padding of up to a half."""
    import numpy as np

    lengths = np.linspace(TOKENS // 2, TOKENS, len(token_ids)).astype(int)
    return token_ids % T5_XXL["vocab_size"], np.arange(TOKENS)[None, :] < lengths[:, None]


def theirs(task: str, args: argparse.Namespace, inputs: dict[str, Any]) -> Run:
    """Returns a task with torch in inference mode, from its files. Outputs have our layout."""
    import torch
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel, T5EncoderModel

    torch.set_num_threads(usable_cores())
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    if task in (ENCODE, DECODE):
        vae = AutoencoderKL.from_pretrained(args.folder / "vae").eval().to(memory_format=layout)
        name = "images" if task == ENCODE else "raw"
        grid = torch.from_numpy(inputs[name].transpose(0, 3, 1, 2).copy())
        grid = grid.contiguous(memory_format=layout)

        def run(x: Any) -> Any:
            return vae.encode(x).latent_dist.mean if task == ENCODE else vae.decode(x).sample

        values: tuple[Any, ...] = (grid,)
    elif task == CLIP:
        clip = CLIPTextModel.from_pretrained(args.folder / "clip").eval()

        def run(x: Any) -> Any:
            return clip(x).last_hidden_state

        values = (torch.from_numpy(inputs["token_ids"]).long(),)
    else:
        t5 = T5EncoderModel.from_pretrained(args.folder / "t5").eval()
        ids, mask = t5_inputs(inputs["token_ids"])

        def run(x: Any, mask: Any) -> Any:
            return t5(x, attention_mask=mask).last_hidden_state

        values = (torch.from_numpy(ids).long(), torch.from_numpy(mask))
    function = torch.compile(run) if args.side == COMPILED else run

    def call() -> Any:
        with torch.inference_mode():
            output = function(*values)
        return (output.permute(0, 2, 3, 1) if output.ndim == 4 else output).numpy()

    return call


def ours(task: str, args: argparse.Namespace, inputs: dict[str, Any]) -> Run:
    """Returns the same task, jitted, from the same files."""
    import jax

    from pinxit.callers_thread import run_in_callers_thread
    from pinxit.encoders import clip, t5, vae
    from pinxit.free_memory import return_after_compiling

    run_in_callers_thread()
    return_after_compiling()
    if task in (ENCODE, DECODE):
        params, config = vae.load_vae(args.folder / "vae")
        values = (jax.device_put(inputs["images" if task == ENCODE else "raw"]),)

        def run(params: Any, x: Any) -> Any:
            if task == ENCODE:
                return vae.encode_moments(params, config, x)[0]
            return vae.decode_latents(params, config, x)

    elif task == CLIP:
        params, clip_config = clip.load_clip(args.folder / "clip")
        values = (jax.device_put(inputs["token_ids"]),)

        def run(params: Any, x: Any) -> Any:
            return clip.text_forward(params, clip_config, x).hidden

    else:
        params, t5_config = t5.load_t5(args.folder / "t5")
        values = tuple(map(jax.device_put, t5_inputs(inputs["token_ids"])))

        def run(params: Any, x: Any, mask: Any) -> Any:
            return t5.t5_forward(params, t5_config, x, mask)

    jitted = jax.jit(run)
    return lambda: jax.device_get(jitted(params, *values))


def measure_side(args: argparse.Namespace) -> None:
    """Measures one task of one side in this process, or writes the files of all."""
    import numpy as np

    if args.side == PREPARE:
        write_inputs(args)
        return answer({})
    side, _, task = args.side.partition(": ")
    args.side = side
    with np.load(args.folder / "inputs.npz") as file:
        inputs = dict(file)
    run = (ours if side == OURS else theirs)(task, args, inputs)
    np.save(args.folder / f"{side}, {task}.npy", run())
    return answer({task: measure(run, seconds=args.seconds)})


def difference(task: str, side: str, folder: Path) -> float | None:
    """Returns the largest difference from our output, relative to the largest output."""
    import numpy as np

    paths = [folder / f"{name}, {task}.npy" for name in (OURS, side)]
    if not all(path.exists() for path in paths):
        return None
    mine, other = (np.load(path) for path in paths)
    if task == T5:  # what stands behind the caption's end means nothing
        lengths = t5_inputs(np.zeros((len(mine), TOKENS), int))[1].sum(-1)
        mine, other = (
            np.concatenate([row[:n] for row, n in zip(x, lengths, strict=True)])
            for x in (mine, other)
        )
    return float(np.abs(mine - other).max() / np.abs(other).max())


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Measures every task of all sides in turns, each in a process; returns the results."""
    environment = side_environment(args.cap)
    tasks, differences = {}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        failure = "the inputs could not be written"
        prepare_sides(__file__, PREPARE, folder, environment, failure=failure)
        environment = new_cache(environment, folder)
        for task in args.tasks:
            commands = {s: side_words(__file__, f"{s}: {task}", folder) for s in args.sides}
            compiling = peaks_while_compiling(commands, OURS, environment)
            answers = take_turns(commands, rounds=args.rounds, environment=environment)
            medians_of_sides = {side: medians(each) for side, each in answers.items()}
            tasks |= by_task(medians_of_sides, [task], compiling=compiling)
            differences[task] = {
                side: value
                for side in args.sides
                if side != OURS and (value := difference(task, side, folder)) is not None
            }
    return {
        "tasks": tasks,
        "differences": differences,
        "about": f"{args.images} picture of {SIDE} x {SIDE}, {args.captions} captions of {TOKENS} "
        f"tokens{', channels last in torch' if args.channels_last else ''}",
        "processor": processor(args.cap),
        "versions": versions(),
    }


def main() -> None:
    args = arguments()
    if args.side:
        return measure_side(args)
    results = compare(args)
    begin_report(results, args.json)
    for task, sides in results["differences"].items():
        for side, value in sides.items():
            print(f"{task}: largest relative difference of {side} from {OURS}: {value:.1e}")
    print_table(results["tasks"], OURS)


if __name__ == "__main__":
    main()
