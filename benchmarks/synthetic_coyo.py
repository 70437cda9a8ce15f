"""A synthetic COYO: a table in the release's form, and a server that draws its pictures on request.

The table has COYO-700M's columns, types and file names, and about its distributions: about a
quarter of the rows pass the default filters, a fifth share their perceptual hash with another row.
Its URLs lead to loopback addresses, each of which is a host of its own (Linux answers to all of
127.0.0.0/8). A host's fate follows from its number: most answer, some are slow, some hang, some
refuse connections. Of the answering hosts' URLs a share is gone (404). Every picture is drawn from
its number, so no two are equal.

    python benchmarks/synthetic_coyo.py --table DIR --rows 1000000 --port 8765
    python benchmarks/synthetic_coyo.py --serve --port 8765
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import io
import resource
import sys
import time
import uuid
from pathlib import Path

import numpy as np

HOSTS = 4_000
"""Number of hosts. Few hosts have most of the URLs, as on the web."""
HANGING, SLOW, REFUSED, GONE = 0.04, 0.04, 0.05, 0.36
"""Shares of the hosts that never answer, that answer after one to three seconds, and that refuse
connections, and the share of the other hosts' URLs that are gone."""
SIDE = (320, 240)
"""Width and height of the pictures, in pixels. The table states twice that size, so that the
default filters for 256 pixels keep them."""
WORDS = (
    *("a", "the", "red", "green", "old", "small", "house", "tree", "river", "boat", "street"),
    *("market", "with", "near", "under", "morning", "light", "photo", "of", "in", "winter"),
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--table", type=Path, help="write the table into this folder")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--serve", action="store_true", help="serve the pictures until killed")
    parser.add_argument("--port", type=int, default=8765)
    return parser.parse_args()


# --- hosts ------------------------------------------------------------------------------------


def share(number: int, salt: int) -> float:
    """Returns a number in [0, 1) that follows from two others."""
    mixed = (number * 0x9E3779B97F4A7C15 + salt * 0xBF58476D1CE4E5B9) % 2**64
    return ((mixed ^ mixed >> 31) * 0x94D049BB133111EB % 2**64) / 2**64


def origin(host: int, port: int) -> str:
    """Returns the address and port of a host. At those that refuse, nobody listens."""
    address = f"127.1.{host // 250}.{host % 250 + 1}"
    return f"http://{address}:{1 if fate(host) == 'refused' else port}"


def host_at(address: str) -> int:
    """Returns the number of the host with this address."""
    third, fourth = (int(part) for part in address.split(".")[2:])
    return 250 * third + fourth - 1


@functools.cache
def fate(host: int) -> str:
    """Returns what a host does: hanging, slow, refused or answering."""
    at = share(host, 1)
    for name, size in (("hanging", HANGING), ("slow", SLOW), ("refused", REFUSED)):
        if at < size:
            return name
        at -= size
    return "answering"


# --- the table --------------------------------------------------------------------------------


def columns(first: int, rows: int, port: int) -> dict:
    """Returns COYO's columns for rows `first` to `first + rows - 1`."""
    import pyarrow as pa

    rng = np.random.default_rng([7, first])
    numbers = np.arange(first, first + rows)
    hosts = (HOSTS * rng.random(rows) ** 3).astype(int)
    words = rng.integers(0, len(WORDS), (rows, 8))
    counts = rng.integers(3, 9, rows)
    texts = [" ".join(WORDS[w] for w in line[:n]) for line, n in zip(words, counts, strict=True)]
    hashed = np.where(rng.random(rows) < 0.2, rng.integers(0, max(1, first + rows), rows), numbers)
    floats = {
        "clip_similarity_vitb32": rng.normal(0.291, 0.03, rows),
        "clip_similarity_vitl14": rng.normal(0.2546, 0.035, rows),
        "nsfw_score_opennsfw2": rng.beta(0.3, 6, rows) / 2,
        "nsfw_score_gantman": rng.beta(0.3, 6, rows) / 2,
        "watermark_score": rng.beta(0.5, 2.3, rows),
        "aesthetic_score_laion_v2": rng.normal(4.769, 0.6, rows),
    }
    return {
        "id": pa.array(841_814_333_321 + 7 * numbers, pa.int64()),
        "url": [f"{origin(h, port)}/{n}.jpg" for h, n in zip(hosts.tolist(), numbers, strict=True)],
        "text": [f"{text} {number}" for text, number in zip(texts, numbers, strict=True)],
        "width": pa.array(2 * SIDE[0] + numbers % 7, pa.int32()),
        "height": pa.array(2 * SIDE[1] + numbers % 5, pa.int32()),
        "image_phash": [f"{int(n) * 2654435761 % 2**64:016x}" for n in hashed],
        "text_length": pa.array([len(text) for text in texts], pa.int32()),
        "word_count": pa.array(counts, pa.int32()),
        "num_tokens_bert": pa.array(counts + 2, pa.int32()),
        "num_tokens_gpt": pa.array(counts + 3, pa.int32()),
        "num_faces": pa.array(rng.poisson(0.6, rows), pa.int32()),
        **{name: pa.array(values, pa.float32()) for name, values in floats.items()},
    }


def write_table(folder: Path, rows: int, *, files: int, port: int) -> None:
    """Writes the table as snappy parquet files with the release's names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "data").mkdir(parents=True, exist_ok=True)
    tag = uuid.UUID(int=7)
    for number in range(files):
        first, last = rows * number // files, rows * (number + 1) // files
        table = pa.table(columns(first, last - first, port))
        path = folder / "data" / f"part-{number:05d}-{tag}-c000.snappy.parquet"
        pq.write_table(table, path, compression="snappy", row_group_size=100_000)


# --- the server -------------------------------------------------------------------------------


@functools.cache
def _waves() -> list[np.ndarray]:
    """Returns the backgrounds that pictures are mixed from."""
    y, x = np.mgrid[0 : 1 : SIDE[1] * 1j, 0 : 1 : SIDE[0] * 1j]
    rng = np.random.default_rng(3)
    shifts = rng.uniform(-2, 2, (64, 3))
    waves = [np.sin(6.28 * (a * x + b * y + c)) for a, b, c in shifts]
    return [(60 * wave + rng.normal(0, 5, wave.shape)).astype(np.int16) for wave in waves]


def picture(number: int) -> bytes:
    """Returns the JPEG of a number: three of 64 waves, one for each colour."""
    from PIL import Image

    waves = _waves()
    chosen = [waves[int(64 * share(number, salt))] for salt in (11, 12, 13)]
    pixels = np.clip(128 + np.stack(chosen, -1), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


class Pictures(asyncio.Protocol):
    """Answers requests for pictures on one connection."""

    busy: dict[str, int] = {}  # noqa: RUF012 - of the whole server
    """Number of requests under way, by host."""
    most: dict[str, int] = {}  # noqa: RUF012 - of the whole server
    """The largest number of requests that one host had at once, by what the host does. Hosts that
    hang are asked anew when a request has ended for the client, which this server learns later."""
    served = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.data = transport, b""
        self.host = transport.get_extra_info("sockname")[0]
        self.open = 0

    def connection_lost(self, error: Exception | None) -> None:
        self._end(self.open)

    def data_received(self, data: bytes) -> None:
        self.data += data
        while b"\r\n\r\n" in self.data:
            head, _, self.data = self.data.partition(b"\r\n\r\n")
            self._begin()
            kind = fate(host_at(self.host))
            number = int(head.split(b" ", 2)[1].strip(b"/").partition(b".")[0] or b"0")
            if kind == "hanging":
                return
            pause = 1 + 2 * share(number, 5) if kind == "slow" else 0.0
            asyncio.get_running_loop().call_later(pause, self._answer, number)

    def _begin(self) -> None:
        busy = Pictures.busy[self.host] = Pictures.busy.get(self.host, 0) + 1
        kind = fate(host_at(self.host))
        Pictures.most[kind] = max(Pictures.most.get(kind, 0), busy)
        self.open += 1

    def _end(self, count: int) -> None:
        if count:
            Pictures.busy[self.host] -= count
            self.open -= count

    def _answer(self, number: int) -> None:
        if self.transport.is_closing():
            return
        if share(number, 4) < GONE:
            head = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
            body = b""
        else:
            body = picture(number)
            head = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
            head %= len(body)
        Pictures.served += 1
        self._end(1)
        self.transport.write(head + body)


async def serve(port: int) -> None:
    """Serves until standard input closes, then prints what was seen."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _waves()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Pictures, "0.0.0.0", port, backlog=4096)
    print(f"serving on port {port}", flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, lambda: sys.stdin.read(1) or ended.set())
    with contextlib.suppress(asyncio.CancelledError):
        await ended.wait()
    server.close()
    most = ", ".join(f"{count} ({kind})" for kind, count in sorted(Pictures.most.items()))
    print(f"{Pictures.served} {time.process_time():.1f} {most}", flush=True)


def main() -> None:
    args = arguments()
    if args.table:
        write_table(args.table, args.rows, files=args.files, port=args.port)
    if args.serve:
        asyncio.run(serve(args.port))


if __name__ == "__main__":
    main()
