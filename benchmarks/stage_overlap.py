"""Measures how long both stages of a preparation take together, and each of them alone.

The images come from a server of this machine that answers each request after a pause, so the first
stage waits most of the time. The second stage encodes with the small autoencoder that comes with
Pinxit (``tiny``), or waits for each batch as it would for an accelerator (``pause``), which is the
default since it needs no cores. The three ways take turns, and each prepares a dataset of its own.

    python benchmarks/stage_overlap.py
    python benchmarks/stage_overlap.py --encoder tiny --image_size 128
"""

from __future__ import annotations

import argparse
import csv
import io
import multiprocessing
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

BATCH = 16
"""Images encoded together."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=2400)
    parser.add_argument("--unit_rows", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pause", type=float, default=0.2, help="seconds before each answer")
    parser.add_argument("--encoder", choices=("pause", "tiny"), default="pause")
    parser.add_argument("--batch_pause", type=float, default=0.2, help="seconds for each batch")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def serve(pause: float, pipe: Any) -> None:
    """Serves another small JPEG for every address, each after a pause, until it is killed."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            time.sleep(pause)
            rng = np.random.default_rng(abs(hash(self.path)))
            pixels = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((16, 16, 1)))
            buffer = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG")
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(buffer.tell()))
            self.end_headers()
            self.wfile.write(buffer.getvalue())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pipe.send(server.server_address[1])
    server.serve_forever()


@dataclass(frozen=True)
class Waiting:
    """Encoders that wait for each batch, and return the means over 8 x 8 pixels."""

    pause: float

    def __call__(self) -> Any:
        from pinxit.prepare.latents import Encoders

        def encode(images: np.ndarray) -> np.ndarray:
            time.sleep(self.pause)
            b, h, w, _ = images.shape
            return images.reshape(b, h // 8, 8, w // 8, 8, 3).mean(axis=(2, 4)) / 127.5 - 1

        return Encoders(encode)


def make_stage(options: argparse.Namespace, out: Path) -> tuple[Any, Mapping[str, Any]]:
    """Returns the second stage, and the identity of its encoders."""
    from pinxit.prepare.encoders import MakeEncoders
    from pinxit.prepare.latents import LatentStage

    if options.encoder == "pause":
        return LatentStage(out, Waiting(options.batch_pause), batch_size=BATCH), {"name": "pause"}
    loaded = MakeEncoders("tiny", "float32", None, None, "stock").load()
    return LatentStage(out, loaded.ready, batch_size=BATCH), loaded.identity()


def seconds_of(way: str, options: argparse.Namespace, table: Path, out: Path) -> float:
    """Prepares the dataset in one of the ways, and returns the seconds that it took."""
    from pinxit.data.fetch.fetcher import FetchConfig
    from pinxit.data.images.decode import ImageConfig
    from pinxit.data.sources.catalogue import open_source
    from pinxit.prepare.both_stages import EncodeSettings, encode_finished, run_both
    from pinxit.prepare.engines.local import InlineEngine, LocalEngine
    from pinxit.prepare.images import ImageStage
    from pinxit.prepare.stages import run_images

    stage = ImageStage(
        open_source("csv", path=str(table), unit_rows=options.unit_rows),
        out,
        fetch=FetchConfig(allow_networks=("127.0.0.1/32",), retries=0),
        image=ImageConfig(size=options.image_size, workers=1),
        previews=0,
    )
    encode = EncodeSettings(lambda: make_stage(options, out), InlineEngine())
    started = time.monotonic()
    if way == "images":
        results = [run_images(stage, LocalEngine(), workers=options.workers)]
    elif way == "latents":
        results = [encode_finished(out, encode)]
    else:
        results = run_both(stage, LocalEngine(), encode, workers=options.workers)
    seconds = time.monotonic() - started
    if any(result.exit_code for result in results) or results[-1].manifest is None:
        raise RuntimeError(f"{way} failed: {results}")
    return seconds


def main() -> None:
    options = arguments()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(options.pause, theirs), daemon=True)
    server.start()
    port = ours.recv()
    times: dict[str, list[float]] = {"images": [], "latents": [], "both": []}
    with tempfile.TemporaryDirectory() as temporary:
        table = Path(temporary) / "table.csv"
        with table.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["url", "caption"])
            for number in range(options.rows):
                url = f"http://127.0.0.1:{port}/{number}.jpg"
                rows.writerow([url, f"a picture with the number {number}"])
        for turn in range(options.repeats):
            for way in times:
                out = Path(temporary) / f"{turn}-{'both' if way == 'both' else 'apart'}"
                times[way].append(seconds_of(way, options, table, out))
    server.kill()
    images, latents, both = (median(times[way]) for way in ("images", "latents", "both"))
    print(f"{options.rows:,} rows, medians of {options.repeats}, load {os.getloadavg()[0]:.1f}:")
    print(
        f"images {images:.1f} s, latents {latents:.1f} s, "
        f"one after the other {images + latents:.1f} s"
    )
    print(f"both {both:.1f} s, which is {both / max(images, latents):.3f} times the longer stage")


if __name__ == "__main__":
    main()
