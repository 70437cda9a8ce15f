"""Trains on image-caption pairs of COYO-700M: `python train_coyo_vae.py [--test] [any setting]`.

Without options it is the full recipe (`pinxit train --recipe coyo_256`): 256 x 256 pixels, the
Stable Diffusion autoencoder, CLIP-L, the large preset, 500k steps of 256. With `--test` it is the
whole path in a few minutes on any CPU, at 64 pixels, with the tiny preset and the encoders that
come with Pinxit; `--vae` and `--text_encoder` name others.

`--dataset_path` takes a local copy of the metadata (parquet in COYO's form), or a folder that
`pinxit prepare coyo --out DIR` made. Every setting of `pinxit train` can be given.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pinxit import extensions
from pinxit.cli import xla_environment
from pinxit.cli.main import guarded
from pinxit.cli.train import train_command

PROGRAM = "python train_coyo_vae.py"


def words_for(argv: Sequence[str]) -> list[str]:
    """The words for `pinxit train`: the recipe, then what was given, `--test` taken out."""
    names = {"--test", "--test=1", "--test=true"}
    test = bool(names & set(argv))
    rest = [word for word in argv if word not in names]
    return ["--recipe", "coyo_test" if test else "coyo_256", *rest]


def main() -> int:
    """Trains."""
    words = words_for(extensions.take(sys.argv[1:]))
    if not {"-h", "--help"} & set(words):
        xla_environment.restart_tuned()
        if "coyo_test" in words:
            said = "test: 64 pixels, the tiny preset and the encoders that come with Pinxit"
            print(f"{said} (--vae and --text_encoder take others)", file=sys.stderr)
    return train_command(words, prog=PROGRAM)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
