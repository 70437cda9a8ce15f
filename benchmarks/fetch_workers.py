"""Measures how many rows a second `pinxit prepare` fetches with 1, 2, 4 and 8 workers.

A server in a process of its own answers on all addresses of 127.0.0.0/8, each of which is a host:
4 % of the hosts accept a connection and never answer, some refuse it, some have lost the image, and
the others send a small JPEG after a delay. One host has 3 % of all rows. A unit with a host that
hangs takes 15 seconds more, so that what is measured is whether anything waits for it. All hosts
are one process here, so the workers have fewer requests at once than by default. On a machine that
is busy with other work, hosts seem to be away: then more than 4 % of the rows end in a timeout.

Each run prints the rows a second from the first request to the end of the command, the CPU time of
all its processes, and the largest number of requests that one host saw at once. With `--package`,
the same is measured with other checkouts of Pinxit, in turns:

    python benchmarks/fetch_workers.py
    git worktree add /tmp/before COMMIT
    python benchmarks/fetch_workers.py --package . /tmp/before
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

HANGING, DEAD, LOST = 0.04, 0.06, 0.15
"""Shares of hosts that never answer, that refuse connections, and that answer 404."""
POPULAR, POPULAR_HOST = 0.03, "127.9.9.9"
"""The share of rows of one host."""
DELAY = (0.03, 0.3)
"""Shortest and longest time, in seconds, that a host takes to answer."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=12_000)
    parser.add_argument("--unit_rows", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--concurrency", type=int, default=64, help="of a worker, for one server")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument(
        "--package", nargs="+", default=[str(Path(__file__).parents[1])], help="checkouts of Pinxit"
    )
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


# --- the server -------------------------------------------------------------------------------


class Web:
    """The hosts, and the requests that they have seen."""

    def __init__(self) -> None:
        from PIL import Image

        picture = io.BytesIO()
        Image.effect_noise((48, 48), 60).convert("RGB").save(picture, "JPEG")
        self.picture = picture.getvalue()
        self.restart()

    def restart(self) -> None:
        """Forgets what was seen."""
        self.first = 0.0
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.requests = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one connection, which may carry several requests."""
        host = writer.get_extra_info("sockname")[0]
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                path = head.split()[1]
                if path.startswith("/seen"):
                    self.send(writer, 200, json.dumps(self.seen()).encode())
                    self.restart()
                else:
                    await self.serve(host, path, reader, writer)
                if "connection: close" in head.lower():
                    break
        writer.close()

    async def serve(
        self, host: str, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answers one request for an image. A request counts as over before it is answered, and
        when its connection is closed, as a test of the network closes all but the first."""
        self.first = self.first or time.time()
        self.requests += 1
        kind = path.split("/")[1]
        self.now[host] += 1
        self.most[host] = max(self.most[host], self.now[host])
        try:
            delay = None if kind == "hang" else random.Random(host).uniform(*DELAY)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1), delay)
                return  # the client closed the connection
        finally:
            self.now[host] -= 1
        self.send(writer, 404 if kind == "lost" else 200, self.picture)

    def send(self, writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
        """Sends a response."""
        head = f"HTTP/1.1 {status} X\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}"
        writer.write(f"{head}\r\n\r\n".encode() + body)

    def seen(self) -> dict:
        """Returns the time of the first request, the requests, and the most at once of a host."""
        host, most = max(self.most.items(), key=lambda pair: pair[1], default=("", 0))
        return {"first": self.first, "requests": self.requests, "host": host, "most": most}


async def serve() -> None:
    """Serves until standard input closes, and prints the port first."""
    server = await asyncio.start_server(Web().answer, "0.0.0.0", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


# --- the table --------------------------------------------------------------------------------


def write_table(path: Path, rows: int, port: int) -> Path:
    """Writes a table of URLs, the same each time, with three rows a host."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = random.Random(0)
    hosts = [
        f"127.{rng.randrange(10, 250)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
        for _ in range(rows // 3)
    ]
    kinds = {}
    for host in hosts:
        share = rng.random()
        shares = (("hang", HANGING), ("dead", HANGING + DEAD), ("lost", HANGING + DEAD + LOST))
        kinds[host] = next((kind for kind, limit in shares if share < limit), "good")
    urls = []
    for number in range(rows):
        host = POPULAR_HOST if rng.random() < POPULAR else rng.choice(hosts)
        kind = kinds.get(host, "good")
        urls.append(f"http://{host}:{1 if kind == 'dead' else port}/{kind}/{number}.jpg")
    pq.write_table(pa.table({"url": urls, "caption": ["a picture of the waves"] * rows}), path)
    return path


# --- the runs ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """The figures of one command."""

    rate: float
    """Rows a second, from the first request on."""
    cpu: float
    """CPU time of a thousand rows, in seconds, with the start of the processes."""
    most: int
    """The most requests at once of one host."""
    counts: dict[str, int]
    """Rows by status."""


def run(package: Path, table: Path, out: Path, port: int, args: argparse.Namespace, n: int) -> Run:
    """Prepares the table with `n` workers of a checkout."""
    command = [sys.executable, "-m", "pinxit", "prepare", "parquet", "--dataset_path", str(table)]
    command += ["--out", str(out), "--stage", "images", "--workers", str(n), "--previews", "0"]
    command += ["--unit_rows", str(args.unit_rows), "--images.workers", "1", "--image_size", "32"]
    command += ["--fetch.allow_networks", "127.0.0.0/8", "--images.max_repeats", "0"]
    command += ["--fetch.concurrency", str(args.concurrency)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONPATH": str(package), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, cwd=out.parent, capture_output=True, text=True)
    end, after = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/seen") as response:
        seen = json.load(response)
    counts = json.loads((out / "manifest.json").read_text())["counts"]
    shutil.rmtree(out)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    rate = args.rows / (end - seen["first"])
    return Run(rate, 1000 * cpu / args.rows, seen["most"], counts)


def main() -> int:
    args = arguments()
    if args.serve:
        asyncio.run(serve())
        return 0
    packages = [Path(name).resolve() for name in args.package]
    command = [sys.executable, __file__, "--serve"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    port = int(server.stdout.readline())
    print(f"{args.rows} rows in units of {args.unit_rows}; {os.cpu_count()} cores")
    print(
        "| workers | checkout | rows a second | CPU s per 1,000 rows | at once of a host | rows |"
    )
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        table = write_table(Path(folder) / "rows.parquet", args.rows, port)
        for _ in range(args.repeats):
            for workers in args.workers:
                for package in packages:
                    one = run(package, table, Path(folder) / "out", port, args, workers)
                    counts = ", ".join(f"{status} {n}" for status, n in one.counts.items())
                    figures = f"{one.rate:.0f} | {one.cpu:.1f} | {one.most} | {counts}"
                    print(f"| {workers} | {package.name} | {figures} |", flush=True)
    server.communicate()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
