"""Copies a finished run's model into the bundle, in float16.

python scripts/ship.py runs/scenes
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from fitting import asset_directory

from pinxit import stored_model as release


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    stored = release.read_model(parser.parse_args().run / "model")
    target = release.write_release(
        asset_directory("scenes"), replace(stored, name="pinxit-scenes"), dtype="float16"
    )
    print(f"{target}: {sum(file.stat().st_size for file in target.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
