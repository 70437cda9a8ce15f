"""Measures how far real scenes are from real scenes, by each distance and number of pictures.

``python benchmarks/evaluation_noise.py --write`` writes the table that comes with the package
(`pinxit/evaluate/distances/noise.json`), and shows it in docs/evaluation.md; without ``--write``
the table goes to a temporary file. Each repeat renders two disjoint sets of held-out scenes, and
compares the first 256, 1,000, ... of one with as many of the other. So the sets of different
repeats have no picture in common. Three pairs take 23 minutes on two busy cores.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from marked_table import write_table

from pinxit.data.scenes.dataset import Scenes
from pinxit.encoders.clip import load_clip
from pinxit.encoders.weights import bundled
from pinxit.evaluate.distances.feature_rows import SelectedRows
from pinxit.evaluate.distances.figures import Comparison, figure_groups
from pinxit.evaluate.distances.noise_table import NOISE, measured_noise, noise_table
from pinxit.evaluate.extractors.base import Extractor
from pinxit.evaluate.extractors.clip_features import ClipImages
from pinxit.evaluate.extractors.judge_features import JudgeFeatures
from pinxit.evaluate.feature_store import FeatureStore
from pinxit.evaluate.judge import load_judge
from pinxit.evaluate.picture_sets import RealPictures
from pinxit.files import write_json
from pinxit.version import __version__

PAGE = Path(__file__).parents[1] / "docs" / "evaluation.md"
BEGIN, END = "<!-- noise table -->\n", "<!-- end of the noise table -->"
SEED = 40_000
"""The seed of the first set of scenes."""
TOGETHER = 250
"""Number of scenes that are rendered together."""


def scenes_clip() -> ClipImages:
    """The image tower of the CLIP that comes with Pinxit."""
    return ClipImages(*load_clip(bundled("tiny"), subfolder="text_encoder"), name="scenes_clip")


def features(seed: int, count: int, extractors: list[Extractor], folder: Path) -> list[Any]:
    """The features of a set of held-out scenes, by each network."""
    pictures = RealPictures(Scenes(count, seed=seed, split="heldout", full_captions=True))
    stores = [FeatureStore(folder / f"{seed}-{e.name}", width=e.width) for e in extractors]
    for start in range(0, count, TOGETHER):
        images = pictures.pictures(range(start, min(start + TOGETHER, count)))
        for extractor, store in zip(extractors, stores, strict=True):
            store.append(extractor(images, [""] * len(images)), name=extractor.name)
    return stores


def figures(network: str, first: Any, second: Any, count: int) -> dict[str, float]:
    """All figures between the first pictures of two sets, by kind."""
    chosen = [SelectedRows(rows, range(count)) for rows in (first, second)]
    values: dict[str, float] = {}
    for compute in figure_groups(network, Comparison(*chosen)):
        values |= compute()
    return {name.removesuffix(f"_{network}"): value for name, value in values.items()}


def table(measured: dict[tuple[str, int], list[dict[str, float]]], widths: dict[str, int]) -> dict:
    """The figures' means and standard deviations, as they are stored."""
    networks: dict[str, Any] = {name: {"features": w, "sets": []} for name, w in widths.items()}
    for (name, count), repeats in measured.items():
        row: dict[str, Any] = {"count": count}
        for kind in repeats[0]:
            values = np.array([repeat[kind] for repeat in repeats])
            row[kind] = [float(f"{x:.4g}") for x in (values.mean(), values.std(ddof=1))]
        networks[name]["sets"].append(row)
    return networks


def write_page(networks: list[str]) -> None:
    """Writes the package's tables into the page."""
    write_table(PAGE, BEGIN, END, "\n\n".join(map(noise_table, networks)).splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[256, 1000, 2000, 5000, 10_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write the package's table")
    options = parser.parse_args()
    if options.repeats < 2:
        parser.error("--repeats: at least 2, for a standard deviation")
    extractors: list[Extractor] = [JudgeFeatures(load_judge()), scenes_clip()]
    measured: dict[tuple[str, int], list[dict[str, float]]] = {
        (e.name, count): [] for e in extractors for count in options.counts
    }
    began = time.monotonic()
    for repeat in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            seeds = (SEED + 2 * repeat, SEED + 2 * repeat + 1)
            sets = [features(s, max(options.counts), extractors, Path(folder)) for s in seeds]
            print(f"{time.monotonic() - began:.0f} s: repeat {repeat}, rendered", file=sys.stderr)
            for extractor, first, second in zip(extractors, *sets, strict=True):
                for count in options.counts:
                    row = figures(extractor.name, first, second, count)
                    measured[extractor.name, count].append(row)
                    print(f"{time.monotonic() - began:.0f} s: {count} {row}", file=sys.stderr)
        if repeat:
            record = {
                "command": shlex.join(["python", "benchmarks/evaluation_noise.py", *sys.argv[1:]]),
                "version": __version__,
                "pictures": "renders of held-out scenes, 64 x 64",
                "repeats": f"{repeat + 1} pairs of disjoint sets",
                "networks": table(measured, {e.name: e.width for e in extractors}),
            }
            path = NOISE if options.write else Path(tempfile.gettempdir()) / NOISE.name
            write_json(path, record, sort_keys=False, indent=1)
            print(path, file=sys.stderr)
    if options.write:
        measured_noise.cache_clear()
        write_page([extractor.name for extractor in extractors])


if __name__ == "__main__":
    main()
