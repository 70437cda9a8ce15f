"""Checks of a run's folder: its files, its metrics, and the effect of running the command again.

The checks only read. Hashing stops after `HASHED` bytes unless the report is full.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image

from pinxit.data.image_column import image_column
from pinxit.doctor.child_process import ChildFailed, ask
from pinxit.doctor.network import bytes_of, cached
from pinxit.doctor.report_line import Line, ok, problem, size, warning
from pinxit.train.checkpoint import MANIFEST, PREFIX, CheckpointError, verify_checkpoint
from pinxit.train.run_folder import RunFolder, saved_config
from pinxit.train.settings import TrainConfig
from pinxit.train.watch.run_health import Finding, RunWatch

HASHED = 2e9
"""Bytes of checkpoints that are hashed without ``--full``."""
ENCODERS = 1e9
"""Bytes of encoders that are read without ``--full``."""
ENCODER_SECONDS = 120.0
"""Seconds after which reading the encoders is given up."""
RECENT = 120.0
"""Seconds since the last row within which a run counts as running."""


class RunReport:
    """The report on one run. Later checks use the results of earlier ones."""

    def __init__(self, root: Path, *, full: bool = False) -> None:
        self.folder = RunFolder(root)
        self.full = full
        self.valid: Path | None = None
        """The newest valid checkpoint."""
        self.damaged: list[str] = []
        self.rows: list[dict[str, Any]] = []

    def lines(self) -> Iterator[Line]:
        """Runs all checks and yields their lines in order."""
        if not self.folder.config.is_file():
            message = f"{self.folder.root} has no config.json"
            yield problem("run", message, "name a run or its folder, such as runs/scenes")
            return
        try:
            config = saved_config(self.folder)
        except ValueError as error:
            yield problem(
                "config", str(error), "restore config.json, or start a new run with --name"
            )
            return
        yield ok("config", f"{config.name}: {config.model.preset} on {config.dataset_name}, "
                 f"{config.max_steps} steps of {config.batch_size}")  # fmt: skip
        yield from self.checkpoints()
        yield from self.metrics()
        yield from self.signs(config)
        yield from self.samples(config)
        yield from self.encoders(config)
        yield from self.dataset(config)
        yield from self.following(config)

    # --- checkpoints ---

    def checkpoints(self) -> Iterator[Line]:
        """Checks every checkpoint against its manifest."""
        root, hashed, valid = self.folder.checkpoints, 0.0, []
        folders = sorted(root.glob(f"{PREFIX}*"), reverse=True)
        for path in folders:
            hashed += bytes_of(path)
            whole = self.full or hashed <= HASHED
            try:
                if whole:
                    verify_checkpoint(path)
                else:
                    listed(path)
            except CheckpointError as error:
                self.damaged.append(path.name)
                advice = "resuming renames it to damaged_* and uses the checkpoint before it"
                yield problem("checkpoint", f"{path.name}: {error}", advice)
                continue
            self.valid = self.valid or path
            valid.append(path.name if whole else f"{path.name} (not hashed: --full)")
        if valid:
            yield ok("checkpoints", f"valid: {', '.join(valid)}")
        elif not folders:
            yield ok("checkpoints", "none yet")
        for path in sorted(root.glob("damaged_*")):
            advice = f"check the disk, then remove the checkpoint: rm -r {path}"
            yield warning(
                "checkpoint", f"{path.name} is a damaged checkpoint that a run renamed", advice
            )
        if unfinished := sorted(root.glob(f".{PREFIX}*")):
            message = f"{unfinished[0].name} is incomplete: a process was killed while writing it"
            yield warning("checkpoint", message, "nothing to do: the next start removes it")

    # --- metrics ---

    def metrics(self) -> Iterator[Line]:
        """Checks that the rows are readable, in order and finite."""
        path, wrong = self.folder.metrics, []
        if not path.is_file():
            yield ok("metrics", "no rows yet")
            return
        lines = path.read_text(errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            try:
                self.rows.append(json.loads(line))
            except ValueError:
                if number < len(lines):
                    wrong.append(f"line {number} is not JSON")
        steps = [row.get("step", -1) for row in self.rows]
        back = [i for i, (a, b) in enumerate(pairwise(steps)) if b < a]
        if back:
            wrong.append(f"step {steps[back[0] + 1]} comes after step {steps[back[0]]}")
        bad = sorted({f"{name} at step {row['step']}" for row in self.rows
                      for name, value in row.items()
                      if isinstance(value, float) and not math.isfinite(value)})  # fmt: skip
        if bad:
            wrong.append(f"not finite: {', '.join(bad[:3])}")
        if wrong:
            advice = "check that only one process writes into this run. Resuming rewrites the rows "
            advice += "that it repeats"
            yield problem("metrics", "; ".join(wrong[:4]), advice)
            return
        losses = [row for row in self.rows if "loss" in row]
        empty = [row["step"] for row in losses if row["loss"] is None]
        last = next((row for row in reversed(losses) if row["loss"] is not None), None)
        message = f"{len(losses)} rows" + (
            f", the last at step {last['step']} with a loss of {last['loss']:.4f}" if last else ""
        )
        if empty:
            message += f"; no finite loss in the rows at step {', '.join(map(str, empty[:3]))}"
            yield warning("metrics", message, "see docs/trouble.md on losses that are not finite")
        else:
            yield ok("metrics", message)

    def signs(self, config: TrainConfig) -> Iterator[Line]:
        """Reports the warnings stored in the rows, and those that the rows give rise to now."""
        watch = RunWatch(config, dtype=config.model.dtype or "float32")
        findings: list[Finding] = []
        for row in self.rows:
            findings += [Finding(**one) for one in row.get("warnings", ())]
            findings += watch.observe(row["step"], row)
        newest = {finding.kind: finding for finding in findings}
        for finding in newest.values():
            times = len({one.step for one in findings if one.kind == finding.kind})
            more = f" (reported {times} times)" if times > 1 else ""
            yield warning(finding.kind.replace("_", " "), finding.text + more, finding.advice)
        if self.rows and not findings:
            message = "no diverging loss, no waiting for data, no unused captions, no overflow"
            yield ok("signs", message)

    # --- pictures ---

    def samples(self, config: TrainConfig) -> Iterator[Line]:
        """Checks that the sample grids exist and can be opened."""
        step = max((row["step"] for row in self.rows), default=0)
        every = config.sample_interval
        expected = [f"step_{n:08d}.png" for n in range(every, step + 1, every)] if every else []
        if self.folder.finished():
            expected.append("final.png")
        missing = [name for name in expected if not (self.folder.samples / name).is_file()]
        broken = []
        for path in sorted(self.folder.samples.glob("*.png")):
            try:
                with Image.open(path) as picture:
                    picture.verify()
            except (OSError, SyntaxError):
                broken.append(path.name)
        if broken:
            yield warning("samples", f"cannot be opened: {', '.join(broken[:4])}")
        # the newest grid may still be being drawn
        elif [name for name in missing if name != expected[-1]]:
            yield warning("samples", f"missing: {', '.join(missing[:4])}")
        elif expected:
            yield ok("samples", f"{len(expected) - len(missing)} grids in {self.folder.samples}")

    # --- encoders and data ---

    def record(self) -> dict[str, Any]:
        """Returns everything that the newest valid checkpoint stores besides arrays."""
        if self.valid is None:
            return {}
        return json.loads((self.valid / "run.json").read_text())

    def encoders(self, config: TrainConfig) -> Iterator[Line]:
        """Checks whether the encoders still have the weights that the run was trained with."""
        expected: dict[str, str] = self.record().get("encoders", {})
        if not expected:
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
        if total > ENCODERS and not self.full:
            message = f"{', '.join(names)} ({size(total)}): not checked; --full checks them"
            yield ok("encoders", message)
            return
        try:
            current = ask(
                "pinxit.doctor.encoder_fingerprints",
                [str(self.folder.config)],
                timeout=ENCODER_SECONDS,
                environment={"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"},
            )
        except ChildFailed as error:
            yield problem("encoders", f"the encoders cannot be read: {error}")
            return
        changed = [name for name, value in expected.items() if value and current.get(name) != value]
        if changed:
            message = f"{changed[0]} does not have the weights that the run was trained with"
            advice = "a model only works with the encoders it was trained with: restore the "
            advice += "original weights"
            yield problem("encoders", message, advice)
        else:
            yield ok("encoders", f"{', '.join(names)}: the weights that the run was trained with")

    def dataset(self, config: TrainConfig) -> Iterator[Line]:
        """Checks that a prepared dataset is complete and still the one the run was started on."""
        from pinxit.data.prepared.manifest import Manifest
        from pinxit.data.prepared.shards import DamagedShard, verify_shard
        from pinxit.train.datasets import PREPARED

        if config.dataset_name != PREPARED or config.dataset_path is None:
            return
        root = Path(config.dataset_path).expanduser()
        try:
            manifest = Manifest.read(root)
        except (OSError, ValueError) as error:
            advice = f"run the same `pinxit prepare --out {root}` again, or correct --dataset_path"
            yield problem("dataset", str(error), advice)
            return
        position = self.record().get("loader_position")
        before = position.get("dataset") if isinstance(position, dict) else None
        if before not in (None, manifest.fingerprint()):
            message = (
                f"the run was started on dataset {before}, but {root} is {manifest.fingerprint()}"
            )
            advice = "restore the original dataset, or start a new run with --name"
            yield problem("dataset", message, advice)
            return
        kinds: list[str] = [image_column(config.encodes_ahead)]
        kinds += ["text"] if manifest.text else []
        wrong, hashed, count = [], 0.0, 0
        shards = [(kind, info) for kind in kinds for info in manifest.files.get(kind, ()) if info]
        for kind, info in shards:
            path, count = root / kind / info.name, count + 1
            hashed += info.bytes
            if not path.is_file() or path.stat().st_size != info.bytes:
                wrong.append(f"{kind}/{info.name} is missing or has the wrong size")
            elif self.full:
                try:
                    verify_shard(path, info)
                except DamagedShard as error:
                    wrong.append(str(error))
        if wrong:
            message = f"{len(wrong)} of {count} shards: {'; '.join(wrong[:3])}"
            advice = f"run the same `pinxit prepare --out {root}` again: it rewrites these shards"
            yield problem("dataset", message, advice)
        else:
            how = "the right hashes" if self.full else "the right size (--full hashes them)"
            yield ok("dataset", f"{root}: {count} shards, {size(hashed)}, all present with {how}")

    # --- what comes next ---

    def following(self, config: TrainConfig) -> Iterator[Line]:
        """Reports what running the same command again would do."""
        path = self.folder.metrics
        age = time.time() - path.stat().st_mtime if path.is_file() else math.inf
        done = self.folder.finished()
        if done is not None and done["step"] >= config.max_steps:
            message = f"finished after {done['step']} steps: the same command does nothing, and a "
            message += f"larger --max_steps continues. Report: {self.folder.report}"
            yield ok("next", message)
            return
        if age < RECENT:
            yield ok("next", f"the run seems to be running: its last row is {age:.0f} s old")
        if self.valid is not None:
            step = int(self.valid.name.removeprefix(PREFIX))
            yield ok("next", f"the same command resumes after step {step} of {config.max_steps}")
        elif self.damaged:
            message = "no checkpoint is valid, so the same command stops with an error"
            yield problem(
                "next", message, "restore a copy of a checkpoint, or start a new run with --name"
            )
        else:
            yield ok("next", "no checkpoint yet: the same command starts at step 0")


def listed(folder: Path) -> None:
    """Raises `CheckpointError` unless every file in the manifest exists. Nothing is hashed."""
    try:
        names = json.loads((folder / MANIFEST).read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"its {MANIFEST} cannot be read ({error})") from error
    for name in names:
        if not (folder / name).is_file():
            raise CheckpointError(f"{name} is missing")
