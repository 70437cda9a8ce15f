"""Puts a mixed load on `pinxit studio` for hours, and says whether its memory stays flat.

The server is a process of its own. Clients ask it over HTTP, all at the same time: for pictures,
for streams with previews, for edits, for jobs that some of them cancel, and for what is refused.
Some leave before their answer. Memory, descriptors and threads of the server are read while they
ask. At the end the server gets SIGTERM in the middle of the load, and has to end by itself.

    python benchmarks/serving_soak.py --seconds 7200

The script fails if an answer is none of those that the request allows, or if the median memory of
the last fifth of the time exceeds that of the second fifth by more than 50 MB.
"""

from __future__ import annotations

import argparse
import io
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil
from PIL import Image

PROMPTS = ["a small red house under a full moon", "two blue tents in the rain", "", "rain " * 90]
SIZES = ["auto", "64x48", "32x64"]
MOST_GROWTH = 50e6
"""Bytes by which the last fifth may exceed the second one."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", help="a model; none means the shipped one")
    parser.add_argument("--seconds", type=float, default=7200, help="duration of the load")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--pause", type=float, default=0.2, help="seconds between two requests")
    parser.add_argument("--growth", type=float, default=MOST_GROWTH, help="bytes allowed")
    return parser.parse_args()


def fields(chance: random.Random) -> dict[str, Any]:
    """Returns the fields of a random request for pictures."""
    return {
        "prompt": chance.choice(PROMPTS),
        "seed": chance.randrange(2**31),
        "n": chance.choice([1, 1, 1, 3]),
        "size": chance.choice(SIZES),
        "num_inference_steps": chance.choice([1, 4, 9]),
        "guidance_scale": chance.choice([1.0, 3.0]),
    }


def picture(chance: random.Random) -> bytes:
    """Returns a PNG of a random colour."""
    color = (chance.randrange(256), chance.randrange(256), chance.randrange(256))
    file = io.BytesIO()
    Image.new("RGB", (chance.choice([64, 90, 300]), 70), color).save(file, "PNG")
    return file.getvalue()


def generate(http: httpx.Client, chance: random.Random) -> int:
    return http.post("/v1/images/generations", json=fields(chance)).status_code


def stream(http: httpx.Client, chance: random.Random) -> int:
    """Reads a stream, or leaves it after its first event."""
    body = {**fields(chance), "n": 1, "stream": True, "partial_images": 2}
    leaves = chance.random() < 0.3
    with http.stream("POST", "/v1/images/generations", json=body) as answer:
        for _ in answer.iter_bytes():
            if leaves:
                break
    return answer.status_code


def edit(http: httpx.Client, chance: random.Random) -> int:
    form = {name: str(value) for name, value in fields(chance).items()}
    form["prompt"] = form["prompt"] or "a tree"
    files = {"image": ("picture.png", picture(chance), "image/png")}
    return http.post("/v1/images/edits", data=form, files=files).status_code


def job(http: httpx.Client, chance: random.Random) -> int:
    """Begins a job, and waits for it, cancels it, or forgets it."""
    answer = http.post("/v1/jobs", json={**fields(chance), "num_inference_steps": 20})
    if answer.status_code >= 300:
        return answer.status_code
    address, way = f"/v1/jobs/{answer.json()['id']}", chance.choice(["wait", "cancel", "forget"])
    if way == "cancel":
        http.delete(address)
    while way == "wait" and http.get(address).json().get("status") in ("queued", "running"):
        time.sleep(0.1)
    return answer.status_code


def malformed(http: httpx.Client, chance: random.Random) -> int:
    body = chance.choice([b"{", b"[" * 9000, b'{"prompt": 3}', b'{"prompt": "a", "n": 1e9}'])
    headers = {"Content-Type": "application/json"}
    return http.post("/v1/images/generations", content=body, headers=headers).status_code


def too_long(http: httpx.Client, chance: random.Random) -> int:
    return http.post("/v1/images/generations", json={"prompt": "x" * 5_000_000}).status_code


def watch(http: httpx.Client, chance: random.Random) -> int:
    """Reads what the page and a monitor read."""
    paths = ["/metrics", "/ready", "/v1/models", "/v1/jobs", "/studio/gallery", "/studio/runs"]
    return http.get(chance.choice(paths)).status_code


BUSY = {429}
KINDS: dict[Any, tuple[int, set[int]]] = {
    generate: (6, {200} | BUSY),
    stream: (4, {200} | BUSY),
    edit: (3, {200} | BUSY),
    job: (3, {200, 201, 202} | BUSY),
    malformed: (2, {400, 422}),
    too_long: (1, {400, 413, 422}),
    watch: (3, {200}),
}
"""How often each kind of request is made, and the statuses that it may get."""


def client(url: str, number: int, pause: float, ended: threading.Event, counts: Counter) -> None:
    """Asks until the end."""
    chance = random.Random(number)
    kinds, weights = list(KINDS), [weight for weight, _ in KINDS.values()]
    with httpx.Client(base_url=url, timeout=300) as http:
        while not ended.is_set():
            kind = chance.choices(kinds, weights)[0]
            try:
                status = kind(http, chance)
            except httpx.TransportError as error:
                if not ended.is_set():
                    counts[kind.__name__, f"unexpected {type(error).__name__}"] += 1
                continue
            expected = status in KINDS[kind][1] or (ended.is_set() and status == 503)
            counts[kind.__name__, str(status) if expected else f"unexpected {status}"] += 1
            ended.wait(pause)


def start(args: argparse.Namespace, folder: str) -> tuple[subprocess.Popen[bytes], str]:
    """Starts the server, and returns it with its address when it accepts requests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pinxit", "studio", "--port", str(port), "--open", "0"]
    command += [*([args.checkpoint] if args.checkpoint else [])]
    command += ["--runs", f"{folder}/runs", "--out", f"{folder}/outputs"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit(f"the server ended with exit code {server.returncode}")
        try:
            if httpx.get(f"{url}/ready").status_code == 200:
                return server, url
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise SystemExit("the server was not ready after two minutes")


def watched(server: psutil.Process, seconds: float, counts: Counter) -> list[float]:
    """Returns the memory of the server over the time, in bytes, and prints it now and then."""
    begin, values, said = time.monotonic(), [], -1
    while (now := time.monotonic() - begin) < seconds:
        values.append(float(server.memory_info().rss))
        if (tenth := int(20 * now / seconds)) > said:
            said = tenth
            print(
                f"{now / 60:6.1f} min  {values[-1] / 1e6:7.0f} MB  {server.num_fds():4} descriptors"
                f"  {server.num_threads():3} threads  {sum(counts.values()):7} answers",
                flush=True,
            )
        time.sleep(max(0.5, seconds / 2000))
    return values


def main() -> None:
    args = arguments()
    counts: Counter[tuple[str, str]] = Counter()
    ended = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("runs", "outputs"):
            (Path(folder) / name).mkdir()
        server, url = start(args, folder)
        threads = [
            threading.Thread(target=client, args=(url, i, args.pause, ended, counts))
            for i in range(args.clients)
        ]
        for thread in threads:
            thread.start()
        try:
            values = watched(psutil.Process(server.pid), args.seconds, counts)
        finally:
            ended.set()
            server.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        code = server.wait(120)
        took = time.monotonic() - begin
        for thread in threads:
            thread.join()
    for (kind, what), count in sorted(counts.items()):
        print(f"{kind:10} {what:24} {count:7}")
    fifth = max(1, len(values) // 5)
    early, late = median(values[fifth : 2 * fifth]), median(values[-fifth:])
    print(f"memory: {early / 1e6:.0f} MB in the second fifth, {late / 1e6:.0f} MB in the last one")
    print(f"after SIGTERM: exit code {code} in {took:.1f} s")
    wrong = sum(count for (_, what), count in counts.items() if what.startswith("unexpected"))
    if wrong or code or late - early > args.growth:
        raise SystemExit(f"failed: {wrong} unexpected answers, exit code {code}, or memory grows")


if __name__ == "__main__":
    main()
