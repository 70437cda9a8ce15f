"""`pinxit export`: writes a model for other programs, and uploads it to the Hub."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pinxit.cli.arguments import parse
from pinxit.cli.habits import EXPORT_HABITS
from pinxit.config import UsageError, positive
from pinxit.output_paths import check_writable

LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
SHIPPED_LICENCE = "apache-2.0"
"""The licence of the model that ships with Pinxit, which is the package's."""
MEGABYTE = 10**6


@dataclass(frozen=True)
class ExportOptions:
    """Options of `pinxit export`."""

    run: tuple[str, ...] = ()
    """A run, one of its checkpoints, or a release, with or without --run: pinxit export
    runs/scenes. None means the model shipped with Pinxit."""
    checkpoint: str | None = None
    """The same as --run, by the name that the other commands have for it."""
    format: Literal["diffusers", "safetensors"] = "diffusers"
    """diffusers writes a folder that a stock pipeline loads. safetensors writes one file with the
    network alone, which works for every model."""
    out: str | None = None
    """The folder to write, which must be new or empty; a new file ending in .safetensors for
    --format safetensors."""
    ema: str | None = None
    """The run's average to export, or raw; none means the run's best."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Dtype of the files. Only a float32 export can be read back exactly."""
    license: str | None = None
    """Licence of the weights, as an id of the Hub such as apache-2.0 or cc-by-4.0; none means that
    the card says it is not stated."""
    samples: int = 4
    """Number of the run's fixed prompts to draw for sample_grid.png; 0 leaves the picture out, and
    the text encoder is then never loaded as a whole."""
    encoder_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the encoders while the samples are drawn. bfloat16 takes half the memory."""
    push_to_hub: str | None = None
    """Repository on the Hugging Face Hub to upload the folder to, OWNER/NAME. Needs HF_TOKEN."""
    private: bool = False
    """Make the repository on the Hub private."""


def export_command(argv: Sequence[str]) -> int:
    """Writes the model, uploads it if asked to, and prints where it is."""
    options = parse(
        ExportOptions,
        argv,
        prog="pinxit export",
        description="Writes a model for other programs: pinxit export runs/scenes --out DIR",
        positional="run",
        habits=EXPORT_HABITS,
    )
    out = _checked(options)
    from pinxit.export.hub_upload import check_repository, upload_folder
    from pinxit.stored_model import read_model

    if options.push_to_hub is not None:
        check_repository(options.push_to_hub, private=options.private)
    checkpoint = _checkpoint(options)
    stored = read_model(checkpoint, ema=options.ema)
    licence = options.license or (SHIPPED_LICENCE if checkpoint is None else None)
    if options.format == "safetensors":
        _write_file(out, stored, options, licence)
    else:
        _write_folder(out, stored, options, licence)
    print(out)
    if options.push_to_hub is not None:
        print(f"pinxit: uploading {out} to {options.push_to_hub}", file=sys.stderr)
        print(upload_folder(out, options.push_to_hub, private=options.private))
    return 0


def _checkpoint(options: ExportOptions) -> str | None:
    """Returns the model to export, or None for the shipped one."""
    names = [*options.run, *([options.checkpoint] if options.checkpoint is not None else [])]
    if len(names) > 1:
        raise UsageError("run", " ".join(names), problem="more than one model", valid="one")
    return names[0] if names else None


def _checked(options: ExportOptions) -> Path:
    """Returns the path to write to. Raises for wrong options, before anything is read."""
    from pinxit.export.diffusers_folder import check_free
    from pinxit.export.single_file import check_file

    _checkpoint(options)
    positive("samples", options.samples, minimum=0)
    if options.license is not None and LICENCE.fullmatch(options.license) is None:
        valid = "an id of the Hub in lower case, such as apache-2.0, mit, cc-by-4.0 or other"
        raise UsageError("license", options.license, problem="not an id of a licence", valid=valid)
    if options.out is None:
        valid = "a file that ends in .safetensors" if _alone(options) else "a new or empty folder"
        raise UsageError("out", "", problem="missing", valid=valid)
    if options.private and options.push_to_hub is None:
        raise UsageError("private", True, problem="without effect, since nothing is uploaded")
    if options.push_to_hub is not None and _alone(options):
        problem = "not possible for one file, which has no card"
        raise UsageError("push_to_hub", options.push_to_hub, problem=problem, valid="a folder")
    out = Path(options.out)
    (check_file if _alone(options) else check_free)(out)
    check_writable("out", options.out, out.absolute().parent)
    return out


def _alone(options: ExportOptions) -> bool:
    """Returns whether the network alone is written."""
    return options.format == "safetensors"


def _write_file(out: Path, stored: Any, options: ExportOptions, licence: str | None) -> None:
    from rich.console import Console

    from pinxit.export.single_file import network_of, write_single_file
    from pinxit.progress import showing

    where = _checkpoint(options) or stored.name
    config = network_of(stored, where=where)
    with showing(Console(stderr=True), f"writing {out.name}", unit="MB") as report:
        write_single_file(
            out, stored, config, dtype=options.dtype, licence=licence, progress=_megabytes(report)
        )


def _write_folder(out: Path, stored: Any, options: ExportOptions, licence: str | None) -> None:
    from rich.console import Console

    from pinxit.cli.evaluation_subject import run_of
    from pinxit.cli.export_provenance import provenance_of
    from pinxit.export.diffusers_folder import write_diffusers_folder
    from pinxit.export.stock_pipeline import check_trained_encoders, stock_pipeline
    from pinxit.progress import showing

    checkpoint = _checkpoint(options)
    where = checkpoint or stored.name
    pipeline = stock_pipeline(stored, where=where)
    run = run_of(checkpoint)
    provenance = provenance_of(stored, None if checkpoint is None else Path(checkpoint), run)
    with showing(Console(stderr=True), "comparing the encoders with those of training"):
        check_trained_encoders(pipeline, where=where)
    grid = _grid(options, stored, where, run)
    with showing(Console(stderr=True), f"writing {out}", unit="MB") as report:
        write_diffusers_folder(
            out,
            pipeline,
            provenance,
            dtype=options.dtype,
            licence=licence,
            repository=options.push_to_hub,
            grid=grid,
            progress=_megabytes(report),
        )


def _grid(options: ExportOptions, stored: Any, where: str, run: Any) -> Any:
    """Returns the sample grid of the run's fixed prompts, or None if it is left out."""
    if options.samples == 0:
        return None
    from rich.console import Console

    from pinxit.export.sample_grid import sample_grid
    from pinxit.model_loading import load_stored
    from pinxit.progress import counted, showing
    from pinxit.train.run_folder import saved_config
    from pinxit.train.settings import SampleGridConfig

    samples = SampleGridConfig() if run is None else saved_config(run).samples
    prompts = samples.prompts[: options.samples]
    model = load_stored(stored, where=where, encoder_dtype=options.encoder_dtype)
    text = f"drawing {counted(len(prompts) * len(samples.seeds), 'sample')}"
    with showing(Console(stderr=True), text, unit="picture") as report:
        return sample_grid(
            model,
            prompts,
            samples.seeds,
            negative_prompt=samples.negative_prompt,
            progress=report,
        )


def _megabytes(report: Any) -> Any:
    """Returns a callback for bytes that reports megabytes."""
    return lambda done, total: report(done // MEGABYTE, max(1, total // MEGABYTE))
