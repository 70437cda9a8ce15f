"""Reads batches of records from an S3 server on loopback: requests, bytes, seconds and CPU time.

    python benchmarks/store_reading.py                    # two minutes on two cores
    python benchmarks/store_reading.py --latency 0 0.1 --parallel 64

A batch of training at COYO's size is 256 records of 8.4 kB at random places of packs of about a
gigabyte. The server, a process of its own, begins each answer `--latency` seconds after its
request, as object stores do. The last table trains for nothing: each step sleeps, and a thread
reads up to four batches ahead, as in a run.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pinxit.data.loader import Loader
from pinxit.data.stores.byte_store import Range
from pinxit.data.stores.remote_store import RemoteStore

RECORD = 8_400
SERVER = Path(__file__).parents[1] / "tests" / "stand_ins" / "s3_server.py"
NAME = "latents-00000.pack"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclasses.dataclass(frozen=True)
class Server:
    """The server's process, as this one sees it."""

    port: int

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self.port}"

    def counts(self) -> dict[str, int]:
        """Returns the server's counters."""
        with urllib.request.urlopen(f"{self.url}/_counts") as answer:
            return json.load(answer)


@contextlib.contextmanager
def serving(file: Path, latency: float) -> Iterator[Server]:
    """Serves a file from another process, which the environment leads to."""
    command = [sys.executable, str(SERVER), str(file), "--latency", str(latency)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        server = Server(int(process.stdout.readline()))
        os.environ["AWS_ENDPOINT_URL_S3"] = server.url
        yield server
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def places(rows: int, batch: int, step: int) -> list[Range]:
    """Returns the ranges of a batch's records, at random places."""
    numbers = np.random.default_rng(step).choice(rows, batch, replace=False)
    return [(NAME, int(n) * RECORD, int(n) * RECORD + RECORD) for n in numbers]


def measured(
    read: Callable[[Sequence[Range]], list[bytes]], server: Server, args: argparse.Namespace
) -> str:
    """Returns the cells of a row: what a batch costs, as the median of several."""
    read(places(args.rows, args.batch_size, 10**6))  # connects
    before, seconds, cpu = server.counts(), [], []
    for step in range(args.batches):
        ranges = places(args.rows, args.batch_size, step)
        start, used = time.perf_counter(), time.process_time()
        records = read(ranges)
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
        assert [len(record) for record in records] == [RECORD] * args.batch_size
    after, rows = server.counts(), args.batches * args.batch_size
    requests = (after["requests"] - before["requests"]) / args.batches
    size = (after["bytes"] - before["bytes"]) / rows
    return (
        f"{requests:8.0f} {after['most_at_once']:8d} {size:11,.0f} "
        f"{np.median(seconds):9.3f} {np.median(cpu):9.3f}"
    )


def with_pyarrow(server: Server, threads: int) -> Callable[[Sequence[Range]], list[bytes]]:
    """Returns a reader of ranges by Arrow's own S3 client, in threads, for comparison."""
    from pyarrow.fs import S3FileSystem

    file_system = S3FileSystem(endpoint_override=server.url, background_writes=False)
    file = file_system.open_input_file(f"bucket/{NAME}")
    pool = ThreadPoolExecutor(threads)
    return lambda ranges: list(pool.map(lambda r: file.read_at(r[2] - r[1], r[1]), ranges))


class StoredRows:
    """Rows of a `Loader`, each a record of the store."""

    def __init__(self, store: RemoteStore, rows: int) -> None:
        self.store, self.rows = store, rows

    def __len__(self) -> int:
        return self.rows

    def take(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the bytes of the rows' records."""
        ranges = [(NAME, int(n) * RECORD, int(n) * RECORD + RECORD) for n in rows]
        records = self.store.ranges(ranges)
        return {"records": np.stack([np.frombuffer(record, np.uint8) for record in records])}


def share_of_waiting(store: RemoteStore, args: argparse.Namespace) -> float:
    """Returns the share of the time for which steps that sleep wait for their batches, after the
    first batch."""
    loader = Loader(StoredRows(store, args.rows), batch_size=args.batch_size)
    batches = loader.batches(0, args.batches + 1)
    next(batches)
    loader.wait_seconds, start = 0.0, time.perf_counter()
    for _ in batches:
        time.sleep(args.step_seconds)
    return loader.wait_seconds / (time.perf_counter() - start)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--latency", type=float, nargs="+", default=[0.0, 0.03])
    parser.add_argument("--parallel", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--step_seconds", type=float, default=0.5)
    args = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / NAME
        file.write_bytes(np.random.default_rng(0).bytes(args.rows * RECORD))
        print(f"a batch of {args.batch_size} records of {RECORD:,} bytes (medians)")
        print(" latency parallel  requests  at once  bytes/row   seconds   CPU sec.")
        for latency in args.latency:
            with serving(file, latency) as server:
                for parallel in args.parallel:
                    store = RemoteStore("s3://bucket", parallel=parallel)
                    cells = measured(store.ranges, server, args)
                    print(f"{latency * 1000:5.0f} ms {parallel:8d} {cells}", flush=True)
                    store.close()
                threads = max(args.parallel)
                cells = measured(with_pyarrow(server, threads), server, args)
                print(f"{latency * 1000:5.0f} ms    Arrow {cells}", flush=True)
        print(f"\nsteps of {args.step_seconds} s, up to four batches ahead")
        print(" latency parallel  share of waiting")
        for latency in args.latency:
            for parallel in args.parallel:
                with serving(file, latency):
                    store = RemoteStore("s3://bucket", parallel=parallel)
                    share = share_of_waiting(store, args)
                    print(f"{latency * 1000:5.0f} ms {parallel:8d} {share:17.1%}", flush=True)
                    store.close()


if __name__ == "__main__":
    main()
