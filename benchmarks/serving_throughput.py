"""Measures the studio's engine: many requests at once against one at a time, and the latency.

Rounds of both kinds take turns in one process, so the ratio of their pictures per second does not
depend on what else the machine does. Then clients ask the server over HTTP, all at the same time,
and the script prints the median and the 95th percentile of their waiting times. The pictures of
both kinds are compared byte by byte.

    python benchmarks/serving_throughput.py                       # the shipped model, 64 clients
    python benchmarks/serving_throughput.py --concurrency 4 --clients 16
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import jax
import numpy as np
import uvicorn

from pinxit.drawing import one_by_one
from pinxit.serve.app import create_app
from pinxit.serve.engine.engine import DrawingEngine
from pinxit.serve.engine.jobs import DrawRequest, Job
from pinxit.serve.settings import StudioConfig

PROMPT = "a small red house under a full moon"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", help="a model; none means the shipped one")
    parser.add_argument("--pictures", type=int, default=32, help="requests of each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=64, help="concurrent requests over HTTP")
    parser.add_argument("--concurrency", type=int, help="pictures at once on a CPU")
    return parser.parse_args()


def processor() -> str:
    """Returns the name of the processor or of the accelerator."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown CPU'}, {os.cpu_count()} cores"


def submit(engine: DrawingEngine, seed: int) -> Job:
    return engine.submit(DrawRequest(PROMPT, seed=seed))


def drawn(job: Job) -> bytes:
    picture = job.wait(600).pictures[0]
    assert picture is not None
    return np.asarray(picture.image).tobytes()


def rounds(engine: DrawingEngine, count: int, pictures: int) -> None:
    """Prints the pictures per second of both ways."""
    for seed in range(2):
        drawn(submit(engine, seed))  # compiles
    alone, together = [], []
    for _ in range(count):
        start = time.perf_counter()
        one = [drawn(submit(engine, seed)) for seed in range(pictures)]
        alone.append(pictures / (time.perf_counter() - start))
        start = time.perf_counter()
        jobs = [submit(engine, seed) for seed in range(pictures)]
        many = [drawn(job) for job in jobs]
        together.append(pictures / (time.perf_counter() - start))
        assert one == many, "the bytes depend on the load"
    ratios = [many / one for one, many in zip(alone, together, strict=True)]
    print(f"one request at a time:   {median(alone):6.2f} images/s (median of {count} rounds)")
    print(f"{pictures} requests at once:     {median(together):6.2f} images/s, the same bytes")
    print(f"ratio: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def over_http(url: str, clients: int) -> None:
    """Prints the waiting times of clients that ask at the same time."""
    gate = threading.Barrier(clients)

    def ask(seed: int) -> float:
        body = json.dumps({"prompt": PROMPT, "seed": seed, "response_format": "b64_json"})
        request = urllib.request.Request(
            f"{url}/v1/images/generations", body.encode(), {"Content-Type": "application/json"}
        )
        gate.wait()
        start = time.perf_counter()
        with urllib.request.urlopen(request, timeout=600) as answer:
            assert json.load(answer)["data"][0]["b64_json"]
        return time.perf_counter() - start

    with ThreadPoolExecutor(clients) as pool:
        seconds = sorted(pool.map(ask, range(clients)))
    p50, p95 = np.percentile(seconds, [50, 95])
    rate = clients / seconds[-1]
    print(
        f"{clients} clients over HTTP: p50 {p50:.2f} s, p95 {p95:.2f} s, "
        f"slowest {seconds[-1]:.2f} s, {rate:.2f} images/s"
    )


def main() -> None:
    args = arguments()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    with tempfile.TemporaryDirectory() as folder:
        config = StudioConfig(
            checkpoints=(args.checkpoint,) if args.checkpoint else (),
            runs=folder,
            out=folder,
            concurrency=args.concurrency,
            max_waiting=max(64, args.clients, args.pictures),
        )
        app = create_app(config)
        engine = app.state.studio.engine
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        lanes = len(engine._threads) - 1
        shared = f"{lanes} threads" if one_by_one() else "one batch"
        print(f"{processor()}; {shared}; jax {jax.__version__}")
        rounds(engine, args.rounds, args.pictures)
        over_http(f"http://127.0.0.1:{listener.getsockname()[1]}", args.clients)
        server.should_exit = True
        thread.join(60)


if __name__ == "__main__":
    main()
