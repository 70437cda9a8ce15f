"""Checks of what a run reads: the weights of its encoders, and its dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pinxit.data.image_column import image_column
from pinxit.data.packed.packed_manifest import PackedManifest
from pinxit.data.prepared.dataset import dataset_root, read_manifest
from pinxit.doctor.child_process import ChildFailed, ask
from pinxit.doctor.network import bytes_of, cached
from pinxit.doctor.packs import check_packs
from pinxit.doctor.report_line import Line, ok, problem, size, warning
from pinxit.doctor.run_facts import RunFacts
from pinxit.encoders.fingerprint import SCALING
from pinxit.train.datasets import DATASETS, PREPARED
from pinxit.train.settings import TrainConfig

ENCODERS = 1e9
"""Bytes of encoders that are read without ``--full``."""
ENCODER_SECONDS = 120.0
"""Seconds after which reading the encoders is given up."""


def check_run_encoders(facts: RunFacts, config: TrainConfig) -> Iterator[Line]:
    """Checks whether the encoders still have the weights that the run was trained with."""
    expected: dict[str, str] = facts.record().get("encoders", {})
    if not expected or facts.blocked == str(facts.folder.config):  # the settings name the encoders
        return
    from pinxit.encoders.text_encoder_catalogue import origins_of

    sources = origins_of(config.text_encoder)
    names = [name for name, source in sources.items() if source is not None]
    names += [config.vae] if config.model.use_stable_vae else []
    folders = {name: cached(name) for name in dict.fromkeys(names)}
    absent = [name for name, folder in folders.items() if folder is None]
    if absent:
        message = f"{', '.join(absent)}: not on this machine"
        yield warning("encoders", message, "resuming downloads them if the Hub can be reached")
        return
    # `sources` also has encoders that are made by code
    names = list(dict.fromkeys([*sources, *folders]))
    total = sum(bytes_of(folder) for folder in folders.values() if folder is not None)
    if total > ENCODERS and not facts.full:
        message = f"{', '.join(names)} ({size(total)}): not checked; --full checks them"
        yield ok("encoders", message)
        return
    try:
        current = ask(
            "pinxit.doctor.encoder_fingerprints",
            [str(facts.folder.config)],
            timeout=ENCODER_SECONDS,
            environment={"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"},
        )
    except ChildFailed as error:
        advice = f"restore the files of {', '.join(names)}: a model only works with the encoders "
        advice += "it was trained with"
        yield problem("encoders", f"the encoders cannot be read: {error}", advice)
        return
    yield _compared(expected, current, names)


def _compared(expected: dict[str, str], current: dict[str, str], names: list[str]) -> Line:
    changed = [name for name, value in expected.items() if value and current.get(name) != value]
    if changed == [SCALING]:
        message = f"the autoencoder has {current.get(SCALING)}, but the run was trained with "
        message += expected[SCALING]
        advice = "restore scaling_factor and shift_factor in the autoencoder's config.json"
        return problem("encoders", message, advice)
    if changed:
        message = f"{changed[0]} does not have the weights that the run was trained with"
        advice = "a model only works with the encoders it was trained with: restore the "
        advice += "original weights"
        return problem("encoders", message, advice)
    return ok("encoders", f"{', '.join(names)}: the weights that the run was trained with")


def check_dataset(facts: RunFacts, config: TrainConfig) -> Iterator[Line]:
    """Checks that the dataset is there, and that a prepared one is complete and the same."""
    if config.dataset_path is None or config.dataset_name in DATASETS:
        return
    if config.dataset_name == PREPARED:
        yield from _prepared(facts, config, dataset_root(config.dataset_path))
        return
    root = Path(config.dataset_path).expanduser()
    if _is_local(config.dataset_path) and not root.exists():
        message = f"{root} is missing: the run reads its {config.dataset_name} data from it"
        yield problem("dataset", message, "restore it, mount its disk, or correct --dataset_path")


def _is_local(path: str) -> bool:
    """Returns whether a path certainly names one local file or folder, not a glob, URL or repo."""
    return path.startswith(("/", "./", "../", "~")) and not any(sign in path for sign in "*?[")


def _prepared(facts: RunFacts, config: TrainConfig, root: str | Path) -> Iterator[Line]:
    try:
        manifest = read_manifest(root)
    except (OSError, ValueError) as error:
        advice = f"run the same `pinxit prepare --out {root}` again, or correct --dataset_path"
        yield problem("dataset", str(error), advice)
        return
    position = facts.record().get("loader_position")
    before = position.get("dataset") if isinstance(position, dict) else None
    if before not in (None, manifest.fingerprint()):
        message = f"the run was started on dataset {before}, but {root} is {manifest.fingerprint()}"
        advice = "restore the original dataset, or start a new run with --name"
        yield problem("dataset", message, advice)
        return
    kinds: list[str] = [image_column(config.encodes_ahead)]
    kinds += ["text"] if manifest.text else []
    if isinstance(manifest, PackedManifest):
        yield check_packs(root, manifest, kinds, full=facts.full)
        return
    root = Path(root)
    shards = [(kind, info) for kind in kinds for info in manifest.files.get(kind, ()) if info]
    wrong = [text for kind, info in shards if (text := _shard(root, kind, info, full=facts.full))]
    if wrong:
        message = f"{len(wrong)} of {len(shards)} shards: {'; '.join(wrong[:3])}"
        advice = f"run the same `pinxit prepare --out {root}` command again, with --verify 1"
        yield problem("dataset", message, advice)
    elif not shards:
        message = f"{root} lists no shards of {kinds[0]}, which this run reads"
        advice = f"run `pinxit prepare --out {root}` for that stage, or correct --dataset_path"
        yield problem("dataset", message, advice)
    else:
        hashed = sum(info.bytes for _, info in shards)
        how = "the right hashes" if facts.full else "the right size (--full hashes them)"
        yield ok("dataset", f"{root}: {len(shards)} shards, {size(hashed)}, all present with {how}")


def _shard(root: Path, kind: str, info: Any, *, full: bool) -> str:
    """Returns what is wrong with a shard, or ""."""
    from pinxit.data.prepared.shards import DamagedShard, verify_shard

    path = root / kind / info.name
    if not path.is_file() or path.stat().st_size != info.bytes:
        return f"{kind}/{info.name} is missing or has the wrong size"
    try:
        if full:
            verify_shard(path, info)
    except (DamagedShard, OSError) as error:
        return str(error)
    return ""
