"""Counts the bytes of a remote table that the workers of one machine download.

A server on loopback serves a table by ranges and counts what it sends. Local workers read all its
units, as `pinxit prepare` does, but fetch no images. Every worker takes part: each waits at its
first unit until all have started. Each run begins with an empty cache. The figures are bytes sent
over the table's size; a parquet table may have less than 1, since columns that are not needed are
not read.

    python benchmarks/table_bytes.py
    python benchmarks/table_bytes.py --machines 1 2 4 8
    git worktree add /tmp/before v1.0 && python benchmarks/table_bytes.py --before /tmp/before
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "stand_ins"))

from range_server import RangeServer, serve_ranges

PATIENCE = 120.0
"""Seconds for which a worker waits for the others at its first unit."""
TABLES = {"parquet": "parquet", "parquet, 8 row groups": "parquet", "csv.gz": "csv", "csv": "csv"}
"""The tables, and the source that reads each."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=64_000)
    parser.add_argument("--unit_rows", type=int, default=2000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument(
        "--machines", type=int, nargs="*", default=[], help="ranks with a cache each, instead"
    )
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--before", type=Path, help="an older checkout, which is measured too")
    parser.add_argument("--share", type=int, nargs=2, default=[0, 1], help=argparse.SUPPRESS)
    parser.add_argument("--child", nargs=2, metavar=("SOURCE", "URL"), help=argparse.SUPPRESS)
    return parser.parse_args()


def table(name: str, rows: int) -> bytes:
    """A table of URLs, captions, sizes and scores that hardly compress. A third of a parquet table
    is in columns that are not needed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = random.Random(rows)
    urls = [f"http://images.test/{rng.randbytes(30).hex()}.jpg" for _ in range(rows)]
    captions = [f"a picture of {rng.randbytes(50).hex()}" for _ in range(rows)]
    if not name.startswith("parquet"):
        lines = [f"{url},{caption}\n" for url, caption in zip(urls, captions, strict=True)]
        text = "".join(["url,caption\n", *lines]).encode()
        return gzip.compress(text) if name.endswith("gz") else text
    columns = {
        "id": list(range(rows)),
        "url": urls,
        "text": captions,
        "hash": [rng.randbytes(40).hex() for _ in range(rows)],
        "width": [rng.randrange(200, 2000) for _ in range(rows)],
        "height": [rng.randrange(200, 2000) for _ in range(rows)],
        "aesthetic": [rng.random() for _ in range(rows)],
    }
    body = io.BytesIO()
    group = rows // 8 if "8" in name else rows
    pq.write_table(pa.table(columns), body, row_group_size=group, compression="snappy")
    return body.getvalue()


class Reading:
    """Counts the rows of a unit, once as many workers have started as there are."""

    def __init__(self, source: Any, folder: Path, workers: int) -> None:
        self.source, self.folder, self.workers = source, folder, workers

    def __call__(self, unit: Any) -> int:
        (self.folder / str(os.getpid())).touch()
        end = time.monotonic() + PATIENCE
        while len(list(self.folder.iterdir())) < self.workers and time.monotonic() < end:
            time.sleep(0.05)
        return sum(1 for _ in self.source.read(unit))


def read_share(source: str, url: str, args: argparse.Namespace) -> int:
    """Reads the units of a rank in local workers, and returns the number of rows."""
    from pinxit.data.sources.catalogue import open_source
    from pinxit.prepare.engines.local import LocalEngine
    from pinxit.prepare.engines.ranks import RankEngine

    opened = open_source(source, path=url, unit_rows=args.unit_rows)
    units = RankEngine(*args.share).share(opened.units())
    workers = args.workers[0]
    with tempfile.TemporaryDirectory() as folder:
        work = Reading(opened, Path(folder), min(workers, len(units)))
        results = list(LocalEngine().map(work, units, workers=workers))
    assert not any(result.failed for result in results), results
    return sum(result.value for result in results)


def measured(
    args: argparse.Namespace, checkout: Path, name: str, body: bytes, workers: int, ranks: int = 1
) -> RangeServer:
    """Reads a table with the code of a checkout, in new processes and with empty caches."""
    rows = 0
    file = "table." + name.partition(",")[0]
    with serve_ranges({file: body}) as server:
        for rank in range(ranks):
            with tempfile.TemporaryDirectory() as cache:
                environ = {**os.environ, "PYTHONPATH": str(checkout), "PINXIT_TABLES": cache}
                options = ["--workers", str(workers), "--unit_rows", str(args.unit_rows)]
                options += [
                    "--share",
                    str(rank),
                    str(ranks),
                    "--child",
                    TABLES[name],
                    server.url(file),
                ]
                command = [sys.executable, __file__, *options]
                output = subprocess.run(command, env=environ, check=True, capture_output=True)
                rows += int(output.stdout.split()[-1])
        assert rows == args.rows, f"{rows} of {args.rows} rows were read"
        return server


def main() -> None:
    args = arguments()
    if args.child:
        print(read_share(*args.child, args))
        return
    here = Path(__file__).resolve().parents[1]
    checkouts = {"before": args.before, "now": here} if args.before else {"now": here}
    runs = [(1, ranks, f"machines: {ranks}") for ranks in args.machines]
    runs = runs or [(workers, 1, f"workers: {workers}") for workers in args.workers]
    print("| table | size | code | " + " | ".join(title for *_, title in runs) + " |")
    print("|---|---|---|" + "---|" * len(runs))
    for name in args.tables:
        body = table(name, args.rows)
        for code, checkout in checkouts.items():
            cells = []
            for workers, ranks, _ in runs:
                server = measured(args, checkout.resolve(), name, body, workers, ranks)
                count = server.requests.total()
                cells.append(f"{server.sent / len(body):.2f} ({count})")
            size = f"{len(body) / 1e6:.1f} MB"
            print(f"| {name} | {size} | {code} | " + " | ".join(cells) + " |", flush=True)
    print("\nBytes sent over the table's size, and requests in brackets.")


if __name__ == "__main__":
    main()
