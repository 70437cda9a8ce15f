"""Collects what a run's folder says about a model, for the card of an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pinxit.cli.evaluate import NAME as EVALUATION
from pinxit.config import read_json
from pinxit.data.packed.packed_manifest import is_packed, read_packed
from pinxit.data.prepared.manifest import MANIFEST, is_prepared
from pinxit.data.sources import catalogue
from pinxit.data.sources.hub import is_hub_name, parse_hub_path
from pinxit.export.provenance import Measurement, Provenance
from pinxit.model_hash import hash_of_params
from pinxit.stored_model import Stored
from pinxit.train.datasets import DATASETS
from pinxit.train.run_folder import RunFolder, saved_config
from pinxit.train.settings import TrainConfig

HUB_DATASETS = {
    "coyo": catalogue.COYO_REPO,
    "laion2b": catalogue.LAION_REPO,
    "laion-art": catalogue.LAION_ART_REPO,
    "cc12m": catalogue.CC12M_REPO,
    "monet": catalogue.MONET_REPO,
}
"""The Hub's ids of the datasets that have a name of their own."""
SHIPPED_COMMAND = ("pinxit", "train", "--recipe", "scenes_long")
"""The command that trained the model that ships with Pinxit."""
OTHER_PARAMETERS = "{} holds figures of other parameters than these, so they are left out."


def provenance_of(stored: Stored, checkpoint: Path | None, run: RunFolder | None) -> Provenance:
    """Returns the origin of a model: of the shipped one (`checkpoint` is None), of one in a run, or
    of a release alone, which knows little."""
    details = stored.details
    if checkpoint is None:
        about = Provenance(dataset="scenes", command=SHIPPED_COMMAND)
    elif run is None:
        about = Provenance(dataset=details.get("dataset"))
    else:
        about = _of_run(run, saved_config(run), details)
    about = replace(
        about,
        steps=details.get("step"),
        images=details.get("images", about.images),
        generated=about.dataset in DATASETS,
    )
    folders = [checkpoint, *([run.root] if run is not None else [])]
    evaluations = [folder / EVALUATION for folder in dict.fromkeys(folders) if folder is not None]
    return _with_measurements(about, stored, run, evaluations)


def _of_run(run: RunFolder, config: TrainConfig, details: Mapping[str, Any]) -> Provenance:
    name, path, rows = config.dataset_name, config.dataset_path, {}
    source = None
    if path is not None and is_packed(path):
        manifest = read_packed(path)
        rows, source = dict(manifest.counts), manifest.identity.get("source") or {}
    elif path is not None and is_prepared(path) and (Path(path) / MANIFEST).is_file():
        stored_manifest = read_json(Path(path) / MANIFEST)
        rows = stored_manifest.get("counts", {})
        source = stored_manifest.get("identity", {}).get("source") or {}
    if isinstance(source, Mapping):
        name, path = source.get("name", name), source.get("path", path)
    results = run.finished() or {}
    rows = (results.get("data") or {}).get("rows") or rows
    step = details.get("step")
    environment = run.root / "environment.json"
    machine = read_json(environment) if environment.is_file() else {}
    return Provenance(
        command=_command(machine.get("command", ())),
        machine=_machine(machine),
        dataset=name,
        dataset_path=path,
        hub_dataset=_hub_dataset(name, path),
        rows={str(status): int(count) for status, count in rows.items()},
        images=None if step is None else step * config.batch_size,
        batch_size=config.batch_size,
        started_from=config.init_from or config.decay_from,
    )


def _command(words: Any) -> tuple[str, ...]:
    """Returns the command, in which the program's path is only its name."""
    words = [str(word) for word in words]
    return (Path(words[0]).name, *words[1:]) if words else ()


def _machine(environment: Mapping[str, Any]) -> str:
    """Describes the machine that environment.json records."""
    if "devices" not in environment:
        return ""
    devices = environment["devices"]
    kinds = ", ".join(f"{devices.count(kind)} x {kind}" for kind in dict.fromkeys(devices))
    versions = f"JAX {environment.get('jax')} and Pinxit {environment.get('pinxit')}"
    count = environment.get("processes", 1)
    processes = f" in {count} processes" if count > 1 else ""
    return f"{kinds}{processes}, with {versions}"


def _hub_dataset(name: str, path: str | None) -> str | None:
    """Returns the Hub's id of the dataset, if it was read from there."""
    if path is None:
        return HUB_DATASETS.get(name)
    if is_hub_name(path) and name in {"hf", *HUB_DATASETS} and not Path(path).exists():
        path = f"hf://datasets/{path}"
    if not path.startswith("hf://"):
        return None
    parsed = parse_hub_path(path)
    return parsed.repo if parsed else None


def _with_measurements(
    about: Provenance, stored: Stored, run: RunFolder | None, evaluations: Sequence[Path]
) -> Provenance:
    """Adds the figures of the first evaluation.json, or else those of the end of training, that are
    of these parameters."""
    left_out = []
    for path in evaluations:
        if path.is_file():
            record = read_json(path)
            if record.get("model_hash") == hash_of_params(stored.params):
                return replace(about, measurements=(_measurement(record),))
            left_out.append(OTHER_PARAMETERS.format(EVALUATION))
    results = (run.finished() if run is not None else None) or {}
    values, rows = results.get("evaluation") or {}, "rows held out from training"
    if not values:
        values = {**stored.details.get("accuracy", {}), **stored.details.get("probe", {})}
    elif any(results.get(name) != stored.details.get(name) for name in ("step", "ema")):
        left_out.append(OTHER_PARAMETERS.format("results.json"))
        values = {}
    end = Measurement(command=about.command, rows=rows, values=values)
    return replace(about, measurements=(end,) if values else (), left_out=tuple(left_out))


def _measurement(record: Mapping[str, Any]) -> Measurement:
    """Returns the figures of an evaluation.json."""
    rows = record.get("rows") or {}
    where = f"{rows.get('count', 0):,} rows of {rows.get('dataset')}" if rows else ""
    if rows.get("origin"):
        where = f"{where} ({rows['origin']})"
    return Measurement(
        command=_command(record.get("command", ())), rows=where, values=record.get("values", {})
    )
