"""Measures what `pinxit prepare` costs on a CPU, from the source to the latents.

It prepares the same JPEG images from a folder, from a tar, and from a loopback server over HTTP and
HTTPS, as images of 256 x 256, and encodes the images of the folder to latents (`--vae`). Each
figure is the CPU time of all processes of the command, per image; the start-up is subtracted, as
measured by a run over few images. The runs take turns. The script prints the images per second of
one core, the core hours of a million images, and the bytes that they take on the disk.

The autoencoder is the small one that comes with Pinxit (``tiny``), or one of the size of Stable
Diffusion's (``sd``) with random weights, since its time does not depend on the weights. On an
accelerator, `pinxit plan` says what encoding costs. HTTPS needs the command ``openssl``.

    python benchmarks/prepare_cost.py --images 2000
    python benchmarks/prepare_cost.py --sources folder --vae sd --encoded 32
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import fetch_vs_img2dataset as fetching

FEW = 32
"""Images of the runs that measure the start-up of the first stage."""
BATCH = 8
"""Images encoded together, and images of the run that measures the start-up of encoding."""
SOURCES = ("folder", "tar", "http", "https")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--encoded", type=int, default=256, help="images that are encoded")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument(
        "--size", type=fetching.size, default=fetching.SIZE, metavar="WxH", help="of the images"
    )
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--vae", choices=("none", "tiny", "sd"), default="tiny")
    return parser.parse_args()


# --- the sources ------------------------------------------------------------------------------


def write_folder(root: Path, bodies: Sequence[bytes], count: int) -> list[str]:
    """A folder of images whose captions are the name of their subfolder."""
    folder = root / f"folder-{count}"
    (folder / "waves").mkdir(parents=True)
    for number in range(count):
        (folder / "waves" / f"{number:07d}.jpg").write_bytes(bodies[number % len(bodies)])
    return ["folder", "--dataset_path", str(folder)]


def write_tar(root: Path, bodies: Sequence[bytes], count: int) -> list[str]:
    """A WebDataset tar of images and captions."""
    path = root / f"{count}.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            for suffix, content in (("jpg", bodies[number % len(bodies)]), ("txt", b"waves")):
                entry = tarfile.TarInfo(f"{number:07d}.{suffix}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return ["webdataset", "--dataset_path", str(path)]


@contextmanager
def served(root: Path, scheme: str, args: argparse.Namespace) -> Iterator[Callable[[int], list]]:
    """A server of images; yields a function from a number of links to prepare's arguments."""
    name = fetching.name(args.size)
    command = [sys.executable, fetching.__file__, "--serve", "--sizes", name]
    if scheme == "https":
        command += ["--certificate", str(fetching.certify(root))]
        os.environ["SSL_CERT_FILE"] = str(root / "certificates.pem")
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    origin = f"{scheme}://{{host}}:{server.stdout.readline().split()[0]}/{name}"

    def links(count: int) -> list[str]:
        table = fetching.write_table(root / f"{scheme}-{count}.parquet", origin, count)
        number = str(args.concurrency)
        options = ["--fetch.allow_networks", "127.0.0.0/24", "--fetch.retries", "0"]
        options += ["--fetch.concurrency", number, "--fetch.per_host", number]
        return ["parquet", "--dataset_path", str(table), *options]

    try:
        yield links
    finally:
        server.communicate()


# --- the runs ---------------------------------------------------------------------------------


def prepare(options: list[str], out: Path) -> list[str]:
    """The command of the first stage, in one process with one decoding process."""
    command = [sys.executable, "-m", "pinxit", "prepare", *options, "--out", str(out)]
    return [*command, "--stage", "images", "--engine", "inline", "--images.workers", "1"]


def encode(options: list[str], out: Path, vae: str) -> list[str]:
    """The command of both stages over a folder, whose first stage is done."""
    command = [sys.executable, "-m", "pinxit", "prepare", *options, "--out", str(out)]
    command += ["--stage", "latents", "--engine", "inline", "--images.workers", "1"]
    return [*command, "--vae", vae, "--encode_batch", str(BATCH)]


@dataclass(frozen=True)
class Cost:
    """What one image costs."""

    cpu: float
    """Seconds of CPU time."""
    size: float
    """Bytes on the disk."""


def stored(out: Path, folder: str) -> int:
    """The bytes of the files in a folder of a dataset."""
    return sum(path.stat().st_size for path in (out / folder).iterdir())


def images_cost(few: list[str], many: list[str], root: Path, args: argparse.Namespace) -> Cost:
    """Runs the first stage over few and over many images."""
    out = root / "out"
    _, cpu, count = fetching.measure(prepare(few, out), out)
    _, cpu_all, count_all = fetching.measure(prepare(many, out), out)
    if (count, count_all) != (FEW, args.images):
        raise SystemExit(f"{count_all} of {args.images} images were kept")
    return Cost((cpu_all - cpu) / (count_all - count), stored(out, "images") / count_all)


def latents_cost(few: list[str], many: list[str], root: Path, vae: str) -> Cost:
    """Encodes few and many images, whose first stage is not counted."""
    found = []
    for options in (few, many):
        out = root / "out"
        _, _, count = fetching.measure(prepare(options, out), out)
        _, cpu, _ = fetching.measure(encode(options, out, vae), out, keep=True)
        found.append((cpu, count))
    (cpu, count), (cpu_all, count_all) = found
    return Cost((cpu_all - cpu) / (count_all - count), stored(out, "latents") / count_all)


def row(title: str, costs: Sequence[Cost]) -> str:
    """A row of the table: medians over the turns."""
    cpu, size = median(cost.cpu for cost in costs), median(cost.size for cost in costs)
    hours = f"{cpu * 1e6 / 3600:.1f}"
    return f"| {title} | {cpu * 1e3:.2f} | {1 / cpu:.0f} | {hours} | {size / 1000:.1f} |"


def main() -> int:
    args = arguments()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        root = Path(folder)
        bodies = fetching.pictures(32, args.size)
        pairs: dict[str, tuple[list[str], list[str]]] = {}
        for source in args.sources:
            if source in ("folder", "tar"):
                write = write_folder if source == "folder" else write_tar
                few, many = (write(root, bodies, count) for count in (FEW, args.images))
            else:
                links = servers.enter_context(served(root, source, args))
                few, many = links(FEW), links(args.images)
            pairs[source] = few, many
        costs: dict[str, list[Cost]] = {source: [] for source in pairs}
        for _ in range(args.repeats):
            for source, (few, many) in pairs.items():
                costs[source].append(images_cost(few, many, root, args))
        if args.vae != "none":
            vae, title = args.vae, f"latents ({args.vae})"
            if vae == "sd":
                from streamed_wait import real_encoders

                vae = str(real_encoders(root / "encoders"))
            few, many = (write_folder(root / "to encode", bodies, n) for n in (BATCH, args.encoded))
            costs[title] = [latents_cost(few, many, root, vae) for _ in range(args.repeats)]
        size = sum(map(len, bodies)) / len(bodies) / 1000
        print(f"{args.images} JPEG images of {fetching.name(args.size)}, {size:.0f} kB each")
        print("| from | CPU ms | images/s and core | core hours per million | kB stored |")
        print("|---|---|---|---|---|")
        for title, found in costs.items():
            print(row(title, found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
