"""Compares our fetching, decoding and resizing with img2dataset's, on one loopback server.

A separate server process serves JPEG images of one size or several (`--sizes`) from memory, over
TLS as most of the web does (`--plain` turns TLS off), at 200 addresses of the loopback network.
Both programs verify its certificate, which ``SSL_CERT_FILE`` lists along with the usual trusted
ones. They fetch the same list, crop to the middle, scale to 256 x 256 and write JPEG images of
quality 95 into shards (ours: `pinxit prepare --stage images`; theirs: WebDataset tars). They take
turns, with the same number of concurrent requests. The script compares the CPU time per image of
all their processes. The start-up is subtracted, as measured by a run over few images. Above 1, ours
needs less.

TLS needs the command ``openssl``, which makes the certificate.

    python -m venv /tmp/other && /tmp/other/bin/pip install img2dataset==1.47.0   # Python 3.11
    python benchmarks/fetch_vs_img2dataset.py --img2dataset /tmp/other/bin/img2dataset
    python benchmarks/fetch_vs_img2dataset.py --plain --sizes 640x480 1280x720 1600x1200 ...

img2dataset does less per image: it neither refuses private addresses nor limits sizes and times,
and it decodes in the same process.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import resource
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

FEW = 32
"""Images of the runs that measure the start-up."""
HOSTS = [f"127.0.0.{number}" for number in range(1, 201)]
"""The server's addresses."""
SIZE = (640, 480)
"""Width and height of the images unless `--sizes` is given."""


def size(text: str) -> tuple[int, int]:
    """Reads a size such as 640x480."""
    width, height = text.split("x")
    return int(width), int(height)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument(
        "--img2dataset", help="path of img2dataset's command, in a separate environment"
    )
    parser.add_argument("--plain", action="store_true", help="use HTTP instead of HTTPS")
    parser.add_argument(
        "--sizes", nargs="+", type=size, default=[SIZE], metavar="WxH", help="sizes of the images"
    )
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--certificate", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


# --- the server -------------------------------------------------------------------------------


def pictures(count: int = 32, size: tuple[int, int] = SIZE) -> list[bytes]:
    """JPEG images of one size: waves and noise of all scales, about 100 kB each at 640 x 480."""
    import numpy as np
    from PIL import Image

    width, height = size
    found = []
    for number in range(count):
        rng = np.random.default_rng(number)
        total = np.zeros((height, width, 3))
        for level in range(6):
            side = (max(2, height >> level), max(2, width >> level))
            noise = rng.normal(0, 20, (*side, 3)).clip(-127, 127) + 128
            layer = Image.fromarray(noise.astype(np.uint8)).resize(size)
            total += np.asarray(layer, float) - 128
        buffer = io.BytesIO()
        pixels = np.clip(128 + total / 1.5, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
        found.append(buffer.getvalue())
    return found


def certify(folder: Path) -> Path:
    """A key and a certificate of `HOSTS`, in one file, and all certificates that programs here
    trust, with this one, in ``certificates.pem``: reading these is part of a connection's cost."""
    trusted = ssl.get_default_verify_paths().cafile
    path, names = folder / "server.pem", ",".join(f"IP:{host}" for host in HOSTS)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=loopback", "-addext", f"subjectAltName={names}",
         "-keyout", str(path), "-out", str(own := folder / "certificate.pem")],
        check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    path.write_bytes(path.read_bytes() + own.read_bytes())
    others = Path(trusted).read_bytes() if trusted else b""
    (folder / "certificates.pem").write_bytes(own.read_bytes() + others)
    return path


def name(size: tuple[int, int]) -> str:
    """Writes a size as in the URLs."""
    return f"{size[0]}x{size[1]}"


async def serve(certificate: Path | None, sizes: Sequence[tuple[int, int]]) -> None:
    """Prints its port and the mean bytes of an image of each size, and serves until its input
    closes."""
    from aiohttp import web

    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)

    all_bodies = {name(one): pictures(32 if one == SIZE else 8, one) for one in sizes}

    async def answer(request: web.Request) -> web.Response:
        bodies = all_bodies[request.match_info.get("size", name(SIZE))]
        number = int(request.match_info["number"])
        return web.Response(body=bodies[number % len(bodies)], content_type="image/jpeg")

    app = web.Application()
    app.router.add_get(r"/{number:\d+}.jpg", answer)
    app.router.add_get(r"/{size}/{number:\d+}.jpg", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", 0, backlog=4096, ssl_context=context).start()
    means = [sum(map(len, bodies)) // len(bodies) for bodies in all_bodies.values()]
    print(runner.addresses[0][1], *means, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


# --- the two programs -------------------------------------------------------------------------


Program = Callable[[Path, Path, argparse.Namespace], list[str]]
"""A function from a table, an output folder and the settings to the command to run."""


def write_table(path: Path, origin: str, count: int) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    urls = [
        f"{origin.format(host=HOSTS[number % len(HOSTS)])}/{number}.jpg" for number in range(count)
    ]
    pq.write_table(pa.table({"url": urls, "caption": ["a picture of waves"] * count}), path)
    return path


def ours(table: Path, out: Path, args: argparse.Namespace) -> list[str]:
    command = [sys.executable, "-m", "pinxit", "prepare", "parquet", "--dataset_path", str(table)]
    command += ["--out", str(out), "--stage", "images", "--engine", "inline", "--workers", "1"]
    command += ["--fetch.allow_networks", "127.0.0.0/24", "--fetch.retries", "0"]
    number = str(args.concurrency)
    return [*command, "--fetch.concurrency", number, "--fetch.per_host", number]


def theirs(table: Path, out: Path, args: argparse.Namespace) -> list[str]:
    command = [args.img2dataset, "--url_list", str(table), "--input_format", "parquet"]
    command += ["--url_col", "url", "--caption_col", "caption", "--output_folder", str(out)]
    command += ["--output_format", "webdataset", "--image_size", "256", "--encode_quality", "95"]
    command += ["--resize_mode", "center_crop", "--processes_count", "1", "--retries", "0"]
    return [*command, "--thread_count", str(args.concurrency), "--enable_wandb", "False"]


def measure(command: list[str], out: Path, *, keep: bool = False) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds of it and all its processes, and images written to `out`, which is
    emptied before unless `keep`."""
    if not keep:
        shutil.rmtree(out, ignore_errors=True)
    quiet = {"NO_ALBUMENTATIONS_UPDATE": "1", "CUDA_VISIBLE_DEVICES": ""}
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        command, env=os.environ | quiet, check=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, kept(out)


def kept(out: Path) -> int:
    """Images in the shards, whoever wrote them."""
    if (out / "manifest.json").is_file():
        from pinxit.data.prepared.manifest import Manifest

        return Manifest.read(out).kept
    import tarfile

    count = 0
    for path in out.glob("*.tar"):
        with tarfile.open(path) as tar:
            count += sum(name.endswith(".jpg") for name in tar.getnames())
    return count


def compare(
    programs: dict[str, Program], tables: tuple[Path, Path], root: Path, args: argparse.Namespace
) -> None:
    """Runs the programs in turns over a small and a large table of one size, and prints costs."""
    cost: dict[str, list[float]] = {name: [] for name in programs}
    speed: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(args.repeats):
        for title, program in programs.items():
            runs = [measure(program(t, root / title, args), root / title) for t in tables]
            (wall, cpu, few), (wall_all, cpu_all, count) = runs
            cost[title].append((cpu_all - cpu) / (count - few))
            speed[title].append((count - few) / (wall_all - wall))
            print(f"  {title}: {count} kept, {cost[title][-1] * 1e3:.2f} ms of CPU an image")
    for title in programs:
        rate = 1 / median(cost[title])
        print(f"{title}: {rate:.0f} images a CPU-second, {median(speed[title]):.0f} a second")
    if "img2dataset" in programs:
        ratio = median(cost["img2dataset"]) / median(cost["pinxit"])
        print(f"ratio (above 1, ours is faster): {ratio:.2f}", flush=True)


def main() -> int:
    args = arguments()
    if args.serve:
        asyncio.run(serve(args.certificate, args.sizes))
        return 0
    programs: dict[str, Program] = {"pinxit": ours}
    if args.img2dataset and shutil.which(args.img2dataset):
        programs["img2dataset"] = theirs
    else:
        print("img2dataset is skipped: give the path of its command with --img2dataset, see --help")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        command = [sys.executable, __file__, "--serve", "--sizes", *map(name, args.sizes)]
        if not args.plain:
            command += ["--certificate", str(certify(root))]
            os.environ["SSL_CERT_FILE"] = str(root / "certificates.pem")
        server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        assert server.stdout is not None
        port, *means = server.stdout.readline().split()
        scheme = "http" if args.plain else "https"
        for one, mean in zip(args.sizes, means, strict=True):
            kilobytes = int(mean) / 1000
            print(f"{args.images} images of {name(one)}, {kilobytes:.0f} kB on average, {scheme}")
            origin = f"{scheme}://{{host}}:{port}/{name(one)}"
            few, many = (
                write_table(root / f"{count}.parquet", origin, count)
                for count in (FEW, args.images)
            )
            compare(programs, (few, many), root, args)
        server.communicate()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
