"""Measures the cost of dead links: a list with a share of bad links against an all-good one.

A separate server process (the tests' hostile server) answers both lists, which have the same number
of URLs and of hosts. Bad links are dead, slow, hanging, redirecting in a loop, oversized,
mislabelled or corrupt. The lists are fetched in turns, with the time limit and the retries of the
options. The script prints the medians of the wall times and their ratio. The goal is a ratio below
1.5 at 30 % bad links. A test (``tests/data/fetch/test_fetcher.py``), not this script, checks that
every good image is kept and that every bad link has its reason.

    python benchmarks/fetch_bad_links.py --urls 20000 --repeats 5
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "stand_ins"))

from hostile_server import BADS, LOOPBACK, HostileServer, mixed

from pinxit.data.fetch.fetcher import FetchConfig
from pinxit.data.fetch.shared_fetcher import fetch_all


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--urls", type=int, default=20_000)
    parser.add_argument("--bad", type=float, default=0.3, help="share of bad links")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument(
        "--timeout", type=float, default=3.0, help="time limit of an attempt in seconds"
    )
    return parser.parse_args()


def seconds(args: argparse.Namespace, *, bad: float) -> tuple[float, float]:
    """Wall time of one list, and the share of its good images that came."""
    config = FetchConfig(
        timeout=args.timeout,
        backoff=0.1,
        max_bytes=2**20,
        concurrency=args.concurrency,
        allow_networks=(LOOPBACK,),
    )
    mixture = mixed(args.urls, bad, seed=1)
    with HostileServer(process=True) as server:
        begun = time.perf_counter()
        found = dict(fetch_all(server.urls(mixture), config, lookup=server.lookup))
        took = time.perf_counter() - begun
    good = [found[i].status == "ok" for i, (_, kind, _) in enumerate(mixture) if kind not in BADS]
    return took, sum(good) / len(good)


def main() -> int:
    args = arguments()
    print(f"{args.urls} URLs, {args.concurrency} at once, {args.timeout:g} s for an attempt")
    ratios, walls = [], {0.0: [], args.bad: []}
    for number in range(args.repeats):
        kept = {}
        for bad in walls:
            took, kept[bad] = seconds(args, bad=bad)
            walls[bad].append(took)
        ratios.append(walls[args.bad][-1] / walls[0.0][-1])
        said = ", ".join(
            f"{bad:.0%} bad {walls[bad][-1]:.1f} s ({kept[bad]:.2%} of the good kept)"
            for bad in walls
        )
        print(f"  turn {number + 1}: {said}; ratio {ratios[-1]:.2f}")
    medians = ", ".join(f"{bad:.0%} bad {median(times):.1f} s" for bad, times in walls.items())
    print(f"medians: {medians}")
    print(f"ratio of the wall times, median of {args.repeats} turns: {median(ratios):.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
