"""Trains on a packed dataset from a disk and from an S3 server on loopback: how long steps wait.

    python benchmarks/store_training.py                       # ten minutes on two cores
    python benchmarks/store_training.py --preset tiny --batch_size 64 --steps 200

The server, a process of its own, begins each answer `--latency` seconds after its request, as
object stores do. The places take turns, and each run is a command of its own. The waiting is that
of the steps after the first row of the metrics, which has the compilation. Latents are noise of the
size that the autoencoder which comes with Pinxit makes of 256 pixels: as many tokens as Stable
Diffusion's, and four times the bytes. The losses of both places must be equal.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from packed_reading import ROWS_OF_SHARD, write_dataset
from processor_class import processor, processor_words
from store_reading import ENVIRONMENT, serving

from pinxit.prepare.encoders import MakeEncoders

DATASET = "set"
SHAPE = (32, 32, 16)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--preset", default="base")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--latency", type=float, default=0.03)
    parser.add_argument("--shards", type=int, default=20, help=f"of {ROWS_OF_SHARD:,} rows each")
    return parser.parse_args()


def pinxit(*words: str) -> None:
    """Runs a command of Pinxit."""
    command = [sys.executable, "-m", "pinxit", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr[-3000:]}")


def train(dataset: str, out: Path, args: argparse.Namespace) -> list[dict[str, float]]:
    """Trains, and returns the rows of the metrics that have a step's time."""
    size = ["--preset", args.preset, "--batch_size", str(args.batch_size), "--image_size", "256"]
    quiet = ["--sample_interval", "0", "--eval_interval", "0", "--log_interval", "2"]
    encoders = ["--text_encoder", "tiny", "--vae", "tiny"]
    steps = ["--steps", str(args.steps), "--name", out.name, "--output_dir", str(out.parent)]
    data = ["--dataset_name", "prepared", "--dataset_path", dataset]
    pinxit("train", *data, *size, *quiet, *encoders, *steps)
    lines = (out / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row.get("seconds_per_step")]
    return rows[1:]


def main() -> None:
    """Prints the table."""
    args = arguments()
    os.environ.update(ENVIRONMENT)
    found: dict[str, list[dict[str, float]]] = {"disk": [], "store": []}
    losses: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        encoders = MakeEncoders("tiny", "float32", None, None, "stock").load().identity()
        write_dataset(root / "unpacked", args.shards, shape=SHAPE, encoders=encoders)
        pinxit("pack", str(root / "unpacked"), "--out", str(root / "bucket" / DATASET))
        with serving(root / "bucket", args.latency) as server:
            for turn in range(args.rounds):
                for place in found:
                    at = "s3://bucket" if place == "store" else str(root / "bucket")
                    rows = train(f"{at}/{DATASET}", root / f"{place}-{turn}", args)
                    found[place] += rows
                    losses[place] = [row["loss"] for row in rows]
            counts = server.counts()
    if losses["disk"] != losses["store"]:
        raise SystemExit("the losses differ")
    print(f"{processor_words(processor())}; {args.preset}, batch {args.batch_size}")
    print("| from | seconds a step | share of waiting | largest |")
    print("|---|---|---|---|")
    for place, rows in found.items():
        waits = [row["data_wait_share"] for row in rows]
        seconds = median(row["seconds_per_step"] for row in rows)
        print(f"| {place} | {seconds:.3f} | {median(waits):.2%} | {max(waits):.2%} |")
    print(f"the store answered {counts['requests']:,} requests with {counts['bytes']:,} bytes")


if __name__ == "__main__":
    main()
