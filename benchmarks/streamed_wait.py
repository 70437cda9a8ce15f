"""Measures how long a training step on a CPU waits for streamed data from a loopback server.

A separate server process serves JPEG images of 640 x 480, and a share of the links is dead. A run
of the `base` preset at 256 x 256 streams them: filter, fetch, decode, autoencoder, step. The same
run on rows in memory, encoded before the first step, gives the time of a step that does not share
the machine. The script prints the share of the streamed run's time that its step waited for a
batch, and both times of a step. The first steps do not count: they compile, and they find batches
that were prepared during the compilation.

The encoders have the real size and architecture (the Stable Diffusion autoencoder, CLIP ViT-L/14),
with random weights: their time does not depend on the weights, and it causes the waiting. On a CPU
the autoencoder's encoder costs about as much as the step itself, and both share the cores, so a
large share shows little about the fetching. `--encoders bundled` uses the small encoders that come
with Pinxit, so that mainly fetching and decoding are measured.

    python benchmarks/streamed_wait.py
    python benchmarks/streamed_wait.py --encoders bundled --preset tiny --image_size 64 --steps 8
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import fetch_vs_img2dataset

from pinxit.cli.xla_environment import prepare_environment, restart_tuned

WARM = 6
"""Steps that are left out: as many as batches may be waiting at the start, and some."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="base")
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10, help="measured steps")
    parser.add_argument("--alive", type=float, default=0.6, help="share of the links that work")
    parser.add_argument("--encoders", choices=("real", "bundled"), default="real")
    return parser.parse_args()


@contextmanager
def serving() -> Iterator[int]:
    """The port of a server of images."""
    server = subprocess.Popen(
        [sys.executable, fetch_vs_img2dataset.__file__, "--serve"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    try:
        yield int(server.stdout.readline().split()[0])
    finally:
        server.communicate()


def write_table(path: Path, port: int, count: int, alive: float) -> Path:
    """A table of links, of which some are dead, evenly mixed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = ["" if int((i + 1) * alive) > int(i * alive) else "dead/" for i in range(count)]
    urls = [f"http://127.0.0.1:{port}/{kind}{i}.jpg" for i, kind in enumerate(kinds)]
    captions = [f"a picture of waves, number {i}" for i in range(count)]
    pq.write_table(pa.table({"url": urls, "caption": captions}), path)
    return path


def real_encoders(root: Path) -> Path:
    """Directories in the Hugging Face form with random weights of the real shapes."""
    import jax

    from pinxit.encoders.clip import ClipConfig, ClipTextConfig, init_clip, save_clip
    from pinxit.encoders.clip_tokenizer import train_clip_tokenizer
    from pinxit.encoders.vae import AutoencoderKLConfig, init_vae, save_vae

    vae = AutoencoderKLConfig(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=256
    )
    save_vae(root / "vae", init_vae(vae, jax.random.key(0)), vae)
    words = ["a picture of waves", "number 1 2 3 4 5 6 7 8 9 0"] * 9
    size = train_clip_tokenizer(words, 1_000, root / "tokenizer")
    tower = ClipTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        bos_token_id=size - 2,
        eos_token_id=size - 1,
        pad_token_id=size - 1,
    )
    config = ClipConfig(text=tower, projection_dim=None)
    save_clip(root / "text_encoder", init_clip(config, jax.random.key(1)), config)
    return root


def measured(rows: Sequence[dict[str, float]]) -> tuple[float, float]:
    """Seconds of a step, and the share of them spent waiting, over the measured steps."""
    some = [row for row in rows if row["step"] > WARM and row.get("seconds_per_step")]
    total = sum(row["seconds_per_step"] for row in some)
    waited = sum(row["seconds_per_step"] * row["data_wait_share"] for row in some)
    return total / len(some), waited / total


def main() -> int:
    args = arguments()
    prepare_environment()
    restart_tuned()
    from rich.console import Console

    from pinxit.data.fetch.fetcher import FetchConfig
    from pinxit.data.images.decode import ImageConfig
    from pinxit.train.metric_rows import read_rows
    from pinxit.train.run import run
    from pinxit.train.settings import (
        EvalConfig,
        ModelConfig,
        SampleGridConfig,
        Sampling,
        TrainConfig,
    )

    with tempfile.TemporaryDirectory() as folder, serving() as port:
        root, steps = Path(folder), WARM + args.steps
        encoders = str(real_encoders(root / "encoders")) if args.encoders == "real" else "tiny"
        needed = (steps + 16) * args.batch + 512
        table = write_table(root / "table.parquet", port, int(needed / args.alive), args.alive)
        config = TrainConfig(
            name="streamed",
            dataset_name="parquet",
            dataset_path=str(table),
            image_size=args.image_size,
            batch_size=args.batch,
            max_steps=steps,
            text_encoder=encoders,
            vae=encoders,
            log_interval=1,
            save_interval=10**6,
            sample_interval=0,
            output_dir=str(root / "runs"),
            fetch=FetchConfig(allow_networks=("127.0.0.1/32",), per_host=16),
            images=ImageConfig(workers=1),
            model=ModelConfig(preset=args.preset),
            sampling=Sampling(steps=1),
            samples=SampleGridConfig(prompts=("waves",), seeds=(0,)),
            evaluation=EvalConfig(prompts=0, images=0),
        )
        memory = replace(
            config, name="memory", dataset_name="mock", dataset_path=None,
            dataset_size=4 * args.batch,
        )  # fmt: skip
        found = {}
        for one in (config, memory):
            result = run(one, ["benchmark"], console=Console(file=sys.stderr, width=120))
            assert result.status == "finished", result.reason
            rows = read_rows(result.folder / "metrics.jsonl")
            found[one.name] = measured([row for row in rows if "loss" in row])
    (streamed, share), (alone, _) = found["streamed"], found["memory"]
    print(
        f"{args.preset} at {args.image_size} x {args.image_size}, batch {args.batch}, "
        f"{args.encoders} encoders, {args.alive:.0%} of the links alive, {args.steps} steps"
    )
    print(f"share of a step spent waiting for streamed data: {share:.3f}")
    print(f"seconds of a step: streamed {streamed:.2f}, from memory {alone:.2f}")
    print(f"ratio (streamed over memory): {streamed / alone:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
