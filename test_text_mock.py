"""Checks the whole path on mock data, on a CPU: `python test_text_mock.py`.

Captions become tokens and images become latents. A small network trains on them, stops, resumes bit
for bit, draws pictures that carry their recipe, and is measured. Each check is one line. The exit
code is 0 when every check holds; otherwise the log of the failing part is printed below it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from pinxit.cli import xla_environment

Check = tuple[str, bool, str]
"""The check in words, whether it holds, and the figures."""

STEPS = 40


def by(shape: tuple[int, ...]) -> str:
    """The shape as `4 x 32 x 32 x 3`."""
    return " x ".join(map(str, shape))


def encoders(config: Any) -> Iterator[Check]:
    """Shapes of tokens, of the null conditioning and of latents."""
    import numpy as np

    from pinxit.data.mock import MockImages
    from pinxit.encoders.autoencoder import load_autoencoder
    from pinxit.encoders.text_encoder_catalogue import load_text_encoder

    encoder, autoencoder = load_text_encoder(config.text_encoder), load_autoencoder(config.vae)
    rows = [MockImages(4, config.image_size)[i] for i in range(4)]
    encoded = encoder([row.caption for row in rows])
    expected = (4, encoder.max_tokens, encoder.width)
    yield "captions become tokens", encoded.tokens.shape == expected, by(encoded.tokens.shape)
    null = encoder([""])
    real = int(np.asarray(null.mask).sum())
    encoded_null = real >= 1 and bool(np.abs(np.asarray(null.tokens)).max() > 0)
    yield "the empty prompt is encoded, not zeros", encoded_null, f"{real} real tokens"

    images = np.stack([row.image for row in rows]).astype(np.float32) / 127.5 - 1
    latents = autoencoder.encode(autoencoder.params, images)
    side = config.image_size // autoencoder.stats.downsample
    shape = (4, side, side, autoencoder.stats.channels)
    yield "images become latents", latents.shape == shape, by(latents.shape)
    decoded = autoencoder.decode(autoencoder.params, latents)
    yield "latents become images", decoded.shape == images.shape, by(decoded.shape)


def training(config: Any, root: Path) -> Iterator[Check]:
    """A run, and the same run stopped half-way and resumed."""
    from rich.console import Console

    from pinxit.train.run import run as train

    def run(config: Any) -> Any:
        return train(config, console=Console(file=sys.stderr))

    whole = run(replace(config, output_dir=str(root / "whole")))
    rows = [json.loads(line) for line in (whole.folder / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    figures = f"{losses[0]:.3f} to {losses[-1]:.3f} in {STEPS} steps"
    yield "the loss goes down", losses[-1] < 0.9 * losses[0], figures
    yield (
        "no step was skipped",
        whole.results["skipped"] == 0,
        f"{whole.results['skipped']} of {STEPS}",
    )
    written = ("config.json", "curves.png", "report.html", "results.json", "samples/final.png")
    missing = [name for name in written if not (whole.folder / name).is_file()]
    yield (
        "config, curves, samples and report are written",
        not missing,
        f"{len(written) - len(missing)} of {len(written)} files",
    )

    half = replace(config, output_dir=str(root / "half"), max_steps=STEPS // 2)
    run(half)
    resumed = run(replace(half, max_steps=STEPS))
    same, figures = same_parameters(whole.folder, resumed.folder)
    yield "a resumed run is bitwise the uninterrupted one", same, figures


def same_parameters(one: Path, two: Path) -> tuple[bool, str]:
    """Whether two runs ended with the same bits in parameters and averages."""
    import jax
    import numpy as np

    from pinxit.stored_model import read_model

    count, equal = 0, True
    for ema in ("raw", "0.1"):
        first, second = (jax.tree.leaves(read_model(path, ema=ema).params) for path in (one, two))
        count += sum(leaf.size for leaf in first)
        equal &= len(first) == len(second)
        equal &= all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    return equal, f"{count:,} numbers compared"


def drawing(root: Path) -> Iterator[Check]:
    """Pictures from the run, their recipes, and the command line."""
    from pinxit.cli.main import main
    from pinxit.picture_files import read_recipe

    run, out = str(root / "whole" / "mock"), root / "pictures"
    words = ["generate", "red light from the left", "--checkpoint", run, "--steps", "4"]
    code = main([*words, "--n", "2", "--seed", "7", "--out", str(out / "both")])
    code += main([*words, "--seed", "8", "--out", str(out / "one")])
    pictures = sorted((out / "both").glob("*.png")) + sorted((out / "one").glob("*.png"))
    yield "generate writes pictures", code == 0 and len(pictures) == 3, f"{len(pictures)} PNG files"
    recipe = read_recipe(pictures[0])
    carried = (recipe["prompt"], recipe["seed"]) == ("red light from the left", 7)
    yield "a picture carries its recipe", carried, f"seed {recipe['seed']}"
    same = pictures[1].read_bytes() == pictures[2].read_bytes()
    yield "the same seed gives the same file", same, f"{pictures[1].stat().st_size} bytes"
    code = main(["generate", "x", "--checkpoint", run, "--solver", "eular", "--out", str(out)])
    yield "a wrong solver is refused with exit code 2", code == 2, f"exit code {code}"


def measuring(root: Path) -> Iterator[Check]:
    """The validation loss of the run."""
    from pinxit.data.mock import MockImages
    from pinxit.evaluate.context import EvaluationContext
    from pinxit.evaluate.validation_loss import validation_loss
    from pinxit.model_loading import load_checkpoint

    model = load_checkpoint(root / "whole" / "mock")
    rows = MockImages(20, model.image_size, seed=1)
    values = dict(validation_loss(EvaluationContext(model, rows, batch_size=8)))
    loss = values["validation/loss"]
    yield "the validation loss is finite and below 2", 0 < loss < 2, f"{loss:.3f}"


def report(part: Callable[[], Iterator[Check]]) -> tuple[int, int]:
    """Prints a part's checks and returns how many there were and how many failed.

    What the library prints meanwhile is kept back, and shown only when a check fails or raises.
    """
    count, failed, log = 0, 0, io.StringIO()
    checks = part()
    try:
        while True:
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                check = next(checks, None)
            if check is None:
                break
            name, holds, figures = check
            count, failed = count + 1, failed + (not holds)
            print(f"  {'ok' if holds else 'FAILED':<6}  {name:<48}  {figures}", flush=True)
    except BaseException:
        print(log.getvalue(), file=sys.stderr)
        raise
    if failed:
        print(log.getvalue(), file=sys.stderr)
    return count, failed


def main() -> int:
    """Runs every check; 0 when all of them hold."""
    started = time.perf_counter()
    xla_environment.prepare_environment()
    from pinxit.recipes import mock

    config = replace(mock(), max_steps=STEPS, save_interval=STEPS // 2).resolved()
    count, failed = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        parts: dict[str, Callable[[], Iterator[Check]]] = {
            "the encoders": lambda: encoders(config),
            f"training, {STEPS} steps, then again in two halves": lambda: training(config, root),
            "drawing": lambda: drawing(root),
            "measuring": lambda: measuring(root),
        }
        for title, part in parts.items():
            print(title, flush=True)
            done, wrong = report(part)
            count, failed = count + done, failed + wrong
    seconds = time.perf_counter() - started
    outcome = f"{failed} of {count} checks failed" if failed else f"all {count} checks hold"
    print(f"{outcome} ({seconds:.0f} s)")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(__doc__)
        raise SystemExit(0 if sys.argv[1] in ("-h", "--help") else 2)
    raise SystemExit(main())
