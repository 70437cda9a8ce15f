"""The model card: README.md with YAML front matter, as the Hub shows it.

Every sentence states a fact from the model or its run. Facts that are not recorded are named as
such. The card depends on nothing else, so that two exports of a model have the same card.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from pinxit.checkpoint_files import sha256_of
from pinxit.data.outcome import meaning
from pinxit.encoders.autoencoder import HOMES
from pinxit.encoders.text_encoder_catalogue import origins_of
from pinxit.encoders.weights import ASSETS
from pinxit.evaluate.tables import tables
from pinxit.export.model_spec import description
from pinxit.export.provenance import Provenance
from pinxit.export.stock_pipeline import StockPipeline
from pinxit.export.stock_usage import usage
from pinxit.version import __version__

UNKNOWN_LICENCE = "The licence of these weights is not stated. Ask the author before you use them."
UNKNOWN_NAME = "not-stated"
"""The value of ``license_name`` for weights without a stated licence."""


def model_card(
    folder: Path,
    pipeline: StockPipeline,
    provenance: Provenance,
    *,
    dtype: str,
    licence: str | None,
    repository: str | None,
) -> str:
    """Returns the text of the card for the files in `folder`, all of which must be written."""
    stored = pipeline.stored
    parts = [
        front_matter(provenance, licence),
        f"# {stored.name}\n\n{description(stored)} {_origin(pipeline)}",
    ]
    if (folder / "sample_grid.png").is_file():
        parts.append(
            f"![Pictures of fixed prompts](sample_grid.png)\n\n{_settings_of_grid(pipeline)}"
        )
    parts += [
        f"## Use\n\n{usage(pipeline, dtype=dtype, repository=repository)}",
        f"## Training data\n\n{_data(provenance)}",
        f"## Training\n\n{_training(provenance)}",
        f"## Figures\n\n{_figures(provenance)}",
        f"## Licence\n\n{_licence(pipeline, licence)}",
        f"## Files\n\n{_files(folder)}",
    ]
    return "\n\n".join(parts) + "\n"


def front_matter(provenance: Provenance, licence: str | None) -> str:
    """Returns the YAML block that the Hub reads."""
    lines = ["library_name: diffusers", "pipeline_tag: text-to-image"]
    if licence is None:
        lines += ["license: other", f"license_name: {UNKNOWN_NAME}"]
    else:
        lines.append(f"license: {json.dumps(licence)}")
    lines += ["tags:", *(f"- {tag}" for tag in ("text-to-image", "flow-matching", "prx", "pinxit"))]
    if provenance.hub_dataset:
        lines += ["datasets:", f"- {json.dumps(provenance.hub_dataset)}"]
    return "\n".join(["---", *lines, "---"])


def _origin(pipeline: StockPipeline) -> str:
    details = pipeline.stored.details
    known = [f"{details['step']:,} steps"] if "step" in details else []
    known += [f"{details['images']:,} images"] if "images" in details else []
    sentence = f"It was trained for {' and '.join(known)}. " if known else ""
    average = details.get("ema")
    if average:
        which = "the parameters themselves" if average == "raw" else f"their average {average}"
        sentence += f"The weights are {which} at that step. "
    return f"{sentence}Exported by Pinxit {__version__}."


def _settings_of_grid(pipeline: StockPipeline) -> str:
    sampling = pipeline.sampling
    return (
        f"Pinxit drew these pictures with {sampling.solver}, {sampling.steps} steps and guidance "
        f"scale {sampling.guidance_scale:g}. A stock pipeline draws other pictures, because its "
        "noise and its steps differ."
    )


def _data(provenance: Provenance) -> str:
    """Returns the data statement."""
    if provenance.dataset is None:
        return "The training data is not recorded with this model."
    path = f" (`{provenance.dataset_path}`)" if provenance.dataset_path else ""
    lines = [f"The model was trained on the dataset `{provenance.dataset}`{path}."]
    if provenance.generated:
        lines.append("Code makes its pictures and captions, so it holds no works of other people.")
    elif provenance.hub_dataset:
        home = f"https://huggingface.co/datasets/{provenance.hub_dataset}"
        lines.append(f"The terms of the dataset are at {home}.")
    else:
        lines.append("Its terms are not recorded with this model.")
    if provenance.images is not None:
        batch = f", {provenance.batch_size:,} at a time" if provenance.batch_size else ""
        lines.append(f"Training saw {provenance.images:,} images{batch}, repetitions included.")
    if not provenance.rows:
        return " ".join(lines)
    counts = sorted(provenance.rows.items(), key=lambda item: (-item[1], item[0]))
    total = sum(provenance.rows.values())
    lines.append(f"Of {total:,} rows of the source, {provenance.rows.get('ok', 0):,} were kept:")
    rows = [(f"`{name}`", f"{count:,}", meaning(name)) for name, count in counts]
    return " ".join(lines) + "\n\n" + _table(("outcome", "rows", "meaning"), rows)


def _training(provenance: Provenance) -> str:
    if not provenance.command:
        return "The training command is not recorded with this model."
    parts = [f"```sh\n{shlex.join(provenance.command)}\n```"]
    if provenance.machine:
        parts.append(f"It ran on {provenance.machine}.")
    if provenance.started_from:
        parts.append(f"Training started from `{provenance.started_from}`.")
    return "\n\n".join(parts)


def _figures(provenance: Provenance) -> str:
    parts = []
    for measurement in provenance.measurements:
        on = f" on {measurement.rows}" if measurement.rows else ""
        if measurement.command:
            command = shlex.join(measurement.command)
            parts.append(f"This command measured the figures below{on}:\n\n```sh\n{command}\n```")
        else:
            parts.append(f"The command that measured these figures{on} is not recorded.")
        for group in tables(measurement.values):
            title = f"**{group.title[:1].upper()}{group.title[1:]}**"
            parts.append(f"{title}\n\n{_table(group.head, group.texts)}")
    parts += provenance.left_out
    return "\n\n".join(parts) or "No figures are recorded for these parameters."


def _licence(pipeline: StockPipeline, licence: str | None) -> str:
    weights = UNKNOWN_LICENCE if licence is None else f"The weights have the licence `{licence}`."
    (source,) = origins_of(pipeline.stored.text_encoder).values()
    lines = [f"- The text encoder {_source(source)}"]
    if not pipeline.pixels:
        source = HOMES.get(pipeline.stored.vae, pipeline.stored.vae)
        lines.append(f"- The autoencoder {_source(source)}")
    copies = "The folder also holds copies of networks that training did not change:"
    return f"{weights}\n\n{copies}\n\n" + "\n".join(lines)


def _source(source: str | Path | None) -> str:
    """Completes a sentence about the origin and the licence of a network."""
    if str(source) in ("tiny", str(ASSETS / "tiny")):
        return "comes with Pinxit and has its licence, `apache-2.0`."
    if Path(str(source)).exists() or Path(str(source)).is_absolute():
        return "was read from a local folder. Its licence is that of its source."
    return f"is from `{source}`. Its licence is that of its source."


def _files(folder: Path) -> str:
    """Returns a table of all files of the folder except the card."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    rows = [
        (f"`{path.relative_to(folder).as_posix()}`", f"{path.stat().st_size:,}", sha256_of(path))
        for path in paths
        if path.name != "README.md"
    ]
    return _table(("file", "bytes", "SHA-256"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
