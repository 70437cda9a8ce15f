"""Measures the time and memory of a set's statistics, from 1,000 to 10,000 pictures.

``python benchmarks/evaluation_statistics.py`` prints a Markdown table. Each row is measured in a
process of its own. *pictures* renders scenes, runs the judge's network on them, writes 256 features
of each to a file, and reads them again for mean and covariance: the way of `pinxit evaluate`.
*features* writes and reads random features of Inception's width (2048), without a network.

Times are seconds of the processor, which other programs hardly change, with one thread of BLAS.
Memory is the peak of the process (VmHWM), and the growth of its own memory (RssAnon, sampled) since
the network was loaded. Files of features are mapped while they are read, and their pages returned.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

MIB = 1024
"""Number of kilobytes, the unit of /proc, in a MiB."""
TOGETHER = 256
"""Number of rows that are written together."""
INCEPTION = 2048
"""The number of Inception's features."""


def memory(name: str) -> float:
    """A figure of this process in MiB: RssAnon (its own memory now) or VmHWM (the peak)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / MIB for line in lines if line.startswith(name))


class Usage:
    """The time and the memory from now on."""

    def __init__(self) -> None:
        self.before, self.began, self.seen = memory("RssAnon"), time.process_time(), 0.0
        self.most, self.ended = self.before, threading.Event()
        self.sampler = threading.Thread(target=self.sample)
        self.sampler.start()

    def sample(self) -> None:
        while not self.ended.wait(0.01):
            self.most = max(self.most, memory("RssAnon"))

    def features_are_stored(self) -> None:
        self.seen = time.process_time()

    def ends(self) -> dict[str, float]:
        """The seconds of both parts, the peak, and the growth of the process's own memory."""
        now = time.process_time()
        self.ended.set()
        self.sampler.join()
        seconds = {"features": self.seen - self.began, "statistics": now - self.seen}
        return {**seconds, "peak": memory("VmHWM"), "more": self.most - self.before}


def of_pictures(count: int, folder: Path) -> dict[str, float]:
    """Statistics of rendered scenes by the judge's features."""
    from pinxit.data.scenes.dataset import Scenes
    from pinxit.evaluate.distances.statistics import statistics_of
    from pinxit.evaluate.extractors.judge_features import JudgeFeatures
    from pinxit.evaluate.judge import load_judge
    from pinxit.evaluate.observations import Observations
    from pinxit.evaluate.picture_sets import RealPictures

    extractor = JudgeFeatures(load_judge())
    warm = RealPictures(Scenes(40, seed=1))
    Observations().features(warm, extractor)  # compiles the network
    usage = Usage()
    observations = Observations(folder)
    store = observations.features(RealPictures(Scenes(count, seed=2)), extractor)
    usage.features_are_stored()
    statistics_of(store)
    return usage.ends()


def of_features(count: int, folder: Path) -> dict[str, float]:
    """Statistics of random features of Inception's width."""
    from pinxit.evaluate.distances.statistics import statistics_of
    from pinxit.evaluate.feature_store import FeatureStore

    store, rng = FeatureStore(folder / "rows", width=INCEPTION), np.random.default_rng(0)
    usage = Usage()
    for start in range(0, count, TOGETHER):
        size = min(TOGETHER, count - start)
        store.append(rng.random((size, INCEPTION), np.float32), name="random")
    usage.features_are_stored()
    statistics_of(store)
    return usage.ends()


KINDS = {"pictures": of_pictures, "features": of_features}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 2500, 5000, 10_000])
    parser.add_argument("--kind", choices=KINDS, help="measures one row in this process")
    options = parser.parse_args()
    if options.kind:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(KINDS[options.kind](options.counts[0], Path(folder))))
        return
    alone = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    print("| of | number | features, CPU s | statistics, CPU s | peak, MiB | growth, MiB |")
    print("|---|---:|---:|---:|---:|---:|")
    for kind in KINDS:
        for count in options.counts:
            words = [sys.executable, __file__, "--kind", kind, "--counts", str(count)]
            output = subprocess.run(words, capture_output=True, text=True, check=True, env=alone)
            row = json.loads(output.stdout)
            print(
                f"| {kind} | {count:,} | {row['features']:.1f} | {row['statistics']:.2f} "
                f"| {row['peak']:.0f} | {row['more']:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
