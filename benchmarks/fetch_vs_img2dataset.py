"""Compares our fetching, decoding and resizing with img2dataset's, on one loopback server.

A separate server process serves JPEG images of 640 x 480 from memory, over TLS as most of the web
does (`--plain` turns TLS off), at 200 addresses of the loopback network. Both programs verify its
certificate, which ``SSL_CERT_FILE`` lists along with the usual trusted ones. They fetch the same
list, crop to the middle, scale to 256 x 256 and write JPEG images of quality 95 into shards (ours:
`pinxit prepare --stage images`; theirs: WebDataset tars). They take turns, with the same number of
concurrent requests. The script compares the CPU time per image of all their processes. The start-up
is subtracted, as measured by a run over few images. Above 1, ours needs less.

TLS needs the command ``openssl``, which makes the certificate.

    python -m venv /tmp/other && /tmp/other/bin/pip install img2dataset==1.47.0   # Python 3.11
    python benchmarks/fetch_vs_img2dataset.py --img2dataset /tmp/other/bin/img2dataset

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
from collections.abc import Callable
from pathlib import Path
from statistics import median

FEW = 32
"""Images of the runs that measure the start-up."""
HOSTS = [f"127.0.0.{number}" for number in range(1, 201)]
"""The server's addresses."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument(
        "--img2dataset", help="path of img2dataset's command, in a separate environment"
    )
    parser.add_argument("--plain", action="store_true", help="use HTTP instead of HTTPS")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--certificate", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


# --- the server -------------------------------------------------------------------------------


def pictures(count: int = 32) -> list[bytes]:
    """JPEG images of 640 x 480: waves and noise of all scales, about 100 kB each."""
    import numpy as np
    from PIL import Image

    found = []
    for number in range(count):
        rng = np.random.default_rng(number)
        total = np.zeros((480, 640, 3))
        for level in range(6):
            side = (max(2, 480 >> level), max(2, 640 >> level))
            noise = rng.normal(0, 20, (*side, 3)).clip(-127, 127) + 128
            layer = Image.fromarray(noise.astype(np.uint8)).resize((640, 480))
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


async def serve(certificate: Path | None) -> None:
    """Serves until its input closes."""
    from aiohttp import web

    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)

    bodies = pictures()

    async def answer(request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        return web.Response(body=bodies[number % len(bodies)], content_type="image/jpeg")

    app = web.Application()
    app.router.add_get(r"/{number:\d+}.jpg", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", 0, backlog=4096, ssl_context=context).start()
    print(runner.addresses[0][1], sum(map(len, bodies)) // len(bodies), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


# --- the two programs -------------------------------------------------------------------------


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


def measure(command: list[str], out: Path) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds of it and all its processes, and images written."""
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


def main() -> int:
    args = arguments()
    if args.serve:
        asyncio.run(serve(args.certificate))
        return 0
    programs: dict[str, Callable[[Path, Path, argparse.Namespace], list[str]]] = {"pinxit": ours}
    if args.img2dataset and shutil.which(args.img2dataset):
        programs["img2dataset"] = theirs
    else:
        print("img2dataset is skipped: give the path of its command with --img2dataset, see --help")
    cost: dict[str, list[float]] = {name: [] for name in programs}
    speed: dict[str, list[float]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        command = [sys.executable, __file__, "--serve"]
        if not args.plain:
            command += ["--certificate", str(certify(root))]
            os.environ["SSL_CERT_FILE"] = str(root / "certificates.pem")
        server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        assert server.stdout is not None
        port, mean = server.stdout.readline().split()
        scheme = "http" if args.plain else "https"
        print(f"{args.images} images of 640 x 480, {int(mean) / 1000:.0f} kB on average, {scheme}")
        origin = f"{scheme}://{{host}}:{port}"
        tables = [write_table(root / f"{n}.parquet", origin, n) for n in (FEW, args.images)]
        for _ in range(args.repeats):
            for name, program in programs.items():
                runs = [measure(program(t, root / name, args), root / name) for t in tables]
                (wall, cpu, few), (wall_all, cpu_all, count) = runs
                cost[name].append((cpu_all - cpu) / (count - few))
                speed[name].append((count - few) / (wall_all - wall))
                print(f"  {name}: {count} kept, {cost[name][-1] * 1e3:.2f} ms of CPU an image")
        server.communicate()
    for name in programs:
        rate = 1 / median(cost[name])
        print(f"{name}: {rate:.0f} images a CPU-second, {median(speed[name]):.0f} a second")
    if "img2dataset" in programs:
        ratio = median(cost["img2dataset"]) / median(cost["pinxit"])
        print(f"ratio (above 1, ours is faster): {ratio:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
