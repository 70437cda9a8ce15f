"""Trains on image-caption pairs of COYO-700M: `python train_coyo_vae.py [--test]`.

The path from COYO's URLs to images has not arrived yet; this command says so and exits with 2.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from pinxit.cli import guarded
from pinxit.config import UsageError, parse


@dataclass(frozen=True)
class Options:
    """Options of train_coyo_vae.py."""

    test: bool = False
    """Read a few rows and take a few steps, to see that everything works."""


def main() -> int:
    """Refuses, with one line that names what can be used instead."""
    parse(Options, sys.argv[1:], prog="python train_coyo_vae.py", description=__doc__)
    from pinxit.train.datasets import DATASETS

    raise UsageError(
        "dataset_name",
        "coyo",
        problem="not available yet: the path from COYO's URLs to images has not arrived",
        valid=f"{', '.join(DATASETS)} (python train_text_to_image.py --dataset_name ...)",
    )


if __name__ == "__main__":
    raise SystemExit(guarded(main))
