"""`pinxit grid`: draws pictures over one, two or three settings as one labelled sheet."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pinxit.cli.arguments import parse
from pinxit.cli.habits import GRID_HABITS
from pinxit.cli.sampling_options import SamplingOptions
from pinxit.config import UsageError
from pinxit.output_paths import check_writable
from pinxit.progress import counted, showing
from pinxit.sampling import ALIASES

if TYPE_CHECKING:
    from PIL import Image

    from pinxit.comparison_grid.cells import PreparedGrid
    from pinxit.comparison_grid.grid import Grid

DESCRIPTION = """Draws X/Y/Z grids, one labelled picture of every combination of settings:

pinxit grid "a small red house" --x guidance_scale=1,2,4,8 --y steps=4,8,16,32 --z solver=euler,heun

--x varies along the columns, --y along the rows, --z from panel to panel. An axis is \
SETTING=VALUE,VALUE with any of these settings: seed (also ranges, 0-7), size (WIDTHxHEIGHT), \
checkpoint, ema, and every sampling setting below. The axes prompt, negative_prompt and prompt_sr \
take texts separated by |: prompt_sr=red|blue|green replaces red in the prompt by each text. All \
other options apply to every cell."""
FOLDER = Path("outputs")
"""The folder of sheets whose file is not named."""


@dataclass(frozen=True)
class GridOptions(SamplingOptions):
    """Options of `pinxit grid`."""

    prompt: tuple[str, ...] = ()
    """The prompt, with or without --prompt. It may be left out if an axis varies it."""
    x: str | None = None
    """Setting and values of the columns, such as guidance_scale=1,2,4,8."""
    y: str | None = None
    """Setting and values of the rows."""
    z: str | None = None
    """Setting and values of the panels."""
    out: str | None = None
    """The PNG file to write; none means a file in the folder outputs, named after the prompt and
    the settings. An existing file is never overwritten."""
    cells: str | None = None
    """A folder for the picture of each cell, with its recipe. A command that was interrupted and
    runs again draws only the cells that are missing there."""
    checkpoint: str | None = None
    """A run, one of its checkpoints, or a release; none means the model shipped with Pinxit."""
    seed: int | None = None
    """Seed of every cell; none means 0."""
    size: str | None = None
    """Side of the pictures in pixels, or WIDTHxHEIGHT, such as 320x192; none means the size that
    the model was trained on."""
    negative_prompt: str | None = None
    """Text that guidance steers away from."""
    ema: str | None = None
    """The run's average to draw with, or raw; none means the run's best."""
    encoder_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the text encoder and the autoencoder. bfloat16 takes half the memory."""
    batch_size: int | None = None
    """Number of pictures that each device computes together; none means 1 on a CPU and 4 on an
    accelerator. The last bits of a picture may depend on it."""


def grid_command(argv: Sequence[str]) -> int:
    """Draws a comparison grid, and prints the path of its sheet."""
    options = parse(
        GridOptions,
        argv,
        aliases=ALIASES,
        prog="pinxit grid",
        description=DESCRIPTION,
        positional="prompt",
        habits=GRID_HABITS,
    )
    grid = _grid(options)
    out = None if options.out is None else _out(options.out)
    check_writable("out", str(options.out), out.parent if out else FOLDER)
    if options.cells is not None:
        check_writable("cells", options.cells, Path(options.cells))
    from pinxit.comparison_grid.cells import prepared_grid
    from pinxit.comparison_grid.sheet import (
        GridSheet,
        grid_bytes,
        grid_file_name,
        grid_json,
        stored_grid,
    )

    stored = stored_grid(out) if out is not None and out.exists() else None
    if out is not None and out.exists() and (stored or {}).get("command") != grid.command:
        raise _taken(out)
    prepared = prepared_grid(grid)
    sheet = GridSheet(prepared)
    about = grid_json(prepared)
    path = out or FOLDER / grid_file_name(about)
    if path.exists() and stored_grid(path) != about:
        raise _taken(path)
    pictures = _stored_cells(prepared, options.cells)
    done = path.exists() and (options.cells is None or len(pictures) == len(grid))
    if done:
        print(f"pinxit: already there, and not drawn again: {path}", file=sys.stderr)
    else:
        _draw(prepared, pictures, options.cells, argv)
        data = grid_bytes(prepared, sheet.draw([pictures[i] for i in range(len(grid))]))
        _write(path, data)
    print(path)
    return 0


def _grid(options: GridOptions) -> Grid:
    """Returns the grid that the options describe."""
    from pinxit.comparison_grid.axes import Axis, width_and_height
    from pinxit.comparison_grid.grid import PLACES, SETTINGS, Grid

    texts = [getattr(options, place) for place in PLACES]
    if texts[0] is None:
        problem, valid = "missing", "a setting and its values, such as steps=4,8,16"
        raise UsageError("x", None, problem=problem, valid=valid)
    if texts[1] is None and texts[2] is not None:
        problem = "without --y"
        raise UsageError("z", texts[2], problem=problem, valid="--x, then --y, then --z")
    axes = tuple(Axis.parse(text) for text in texts if text is not None)
    if len(options.prompt) > 1:
        first, *others = options.prompt
        problem = f"followed by another prompt ({others[0]!r})"
        valid = "one prompt, in quotes; an axis compares several: --x 'prompt=a red house|a tent'"
        raise UsageError("prompt", first, problem=problem, valid=valid)
    settings: dict[str, Any] = {
        field.name: getattr(options, field.name)
        for field in fields(options)
        if field.name in SETTINGS and getattr(options, field.name) is not None
    }
    settings.pop("prompt")
    if options.prompt:
        settings["prompt"] = options.prompt[0]
    if options.size is not None:
        settings["size"] = width_and_height(options.size)
    if options.encoder_dtype == "float32":
        settings.pop("encoder_dtype")
    return Grid(axes, settings)


def _out(text: str) -> Path:
    """Returns the path of the sheet. Raises unless it can be a PNG file."""
    path = Path(text)
    if path.suffix.lower() != ".png" or path.is_dir():
        problem = "a folder" if path.is_dir() else "not the name of a PNG file"
        raise UsageError("out", text, problem=problem, valid="a file name that ends in .png")
    return path


def _taken(path: Path) -> UsageError:
    """Returns the error for a file that exists and is not this grid's sheet."""
    problem = "an existing file that this command would not draw"
    return UsageError("out", str(path), problem=problem, valid="the name of a new file")


def _stored_cells(prepared: PreparedGrid, folder: str | None) -> dict[int, Image.Image]:
    """Returns the pictures of the cells that are in the folder, by number."""
    from PIL import Image

    from pinxit.picture_files import stored_pictures

    if folder is None:
        return {}
    pictures = {}
    for i, path in stored_pictures(folder, prepared.recipes).items():
        with Image.open(path) as image:
            pictures[i] = image.convert("RGB")
    return pictures


def _draw(
    prepared: PreparedGrid,
    pictures: dict[int, Image.Image],
    folder: str | None,
    argv: Sequence[str],
) -> None:
    """Adds the cells that are not in `pictures`, and writes each to the folder once it is drawn."""
    from rich.console import Console

    from pinxit.picture_files import save_picture

    total = counted(len(prepared.grid), "cell")
    if pictures:
        print(f"pinxit: already in {folder}: {len(pictures):,} of {total}", file=sys.stderr)
    missing = len(prepared.grid) - len(pictures)
    text = f"drawing {counted(missing, 'cell')}"
    try:
        with showing(Console(stderr=True), text, unit="cell") as report:
            report(0, missing)
            drawn = prepared.pictures(skip=frozenset(pictures))
            for done, (i, picture) in enumerate(drawn, start=1):
                if folder is not None:
                    save_picture(folder, picture, prepared.recipes[i])
                pictures[i] = picture
                report(done, missing)
    except KeyboardInterrupt:
        if folder is None:
            note = "no file was written; with --cells FOLDER the finished cells are kept"
            print(f"pinxit: {note}", file=sys.stderr)
        else:
            again = shlex.join(["pinxit", "grid", *argv])
            rest = f"the same command draws the others and the sheet: {again}"
            print(f"pinxit: in {folder}: {len(pictures):,} of {total}; {rest}", file=sys.stderr)
        raise


def _write(path: Path, data: bytes) -> None:
    """Writes the sheet unless it exists. Raises if another file of this name appeared meanwhile."""
    from pinxit.files import whole

    if path.exists() and path.read_bytes() == data:
        return
    try:
        with whole(path, replace=False) as temporary:
            temporary.write_bytes(data)
    except FileExistsError:
        if path.read_bytes() != data:
            raise _taken(path) from None
