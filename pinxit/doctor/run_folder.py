"""A run's folder: whether it is whole, what its metrics tell, and what comes next.

Everything is read and nothing written. Hashing stops after `HASHED` bytes unless all is asked for.
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
"""Bytes of checkpoints (and of shards) that are hashed without being asked to."""
ENCODERS = 1e9
"""Bytes of encoders that are read without being asked to."""
ENCODER_SECONDS = 120.0
RECENT = 120.0
"""Seconds since the last row within which a run is taken to be under way."""


class RunReport:
    """The lines on one run, in order; each part knows what the ones before it found."""

    def __init__(self, root: Path, *, full: bool = False) -> None:
        self.folder = RunFolder(root)
        self.full = full
        self.valid: Path | None = None
        """The newest checkpoint that is whole."""
        self.damaged: list[str] = []
        self.rows: list[dict[str, Any]] = []

    def lines(self) -> Iterator[Line]:
        """All that is to be said."""
        if not self.folder.config.is_file():
            said = f"{self.folder.root} has no config.json"
            yield problem("run", said, "a run's folder, such as runs/scenes, or its name")
            return
        try:
            config = saved_config(self.folder)
        except ValueError as error:
            yield problem("config", str(error), "restore config.json, or start under another name")
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
        """Whether each is what its manifest says."""
        root, hashed, said = self.folder.checkpoints, 0.0, []
        found = sorted(root.glob(f"{PREFIX}*"), reverse=True)
        for path in found:
            hashed += bytes_of(path)
            whole = self.full or hashed <= HASHED
            try:
                if whole:
                    verify_checkpoint(path)
                else:
                    listed(path)
            except CheckpointError as error:
                self.damaged.append(path.name)
                advice = "resuming sets it aside and takes the one before"
                yield problem("checkpoint", f"{path.name}: {error}", advice)
                continue
            self.valid = self.valid or path
            said.append(path.name if whole else f"{path.name} (not hashed: --full)")
        if said:
            yield ok("checkpoints", f"whole: {', '.join(said)}")
        elif not found:
            yield ok("checkpoints", "none yet")
        for path in sorted(root.glob("damaged_*")):
            advice = f"look at the disk; rm -r {path} when done"
            yield warning("checkpoint", f"{path.name} was set aside as damaged", advice)
        if left := sorted(root.glob(f".{PREFIX}*")):
            said = f"{left[0].name} was left half-written"
            yield warning("checkpoint", said, "a killed process; the next start sees to it")

    # --- metrics ---

    def metrics(self) -> Iterator[Line]:
        """Whether the rows are readable, in order, and numbers."""
        path, wrong = self.folder.metrics, []
        if not path.is_file():
            yield ok("metrics", "no row yet")
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
            advice = "do two processes write into this run? Resuming rewrites the rows it repeats"
            yield problem("metrics", "; ".join(wrong[:4]), advice)
            return
        losses = [row for row in self.rows if "loss" in row]
        empty = [row["step"] for row in losses if row["loss"] is None]
        last = next((row for row in reversed(losses) if row["loss"] is not None), None)
        said = f"{len(losses)} rows" + (
            f", the last at step {last['step']} with a loss of {last['loss']:.4f}" if last else ""
        )
        if empty:
            said += f"; no finite step in the rows to {', '.join(map(str, empty[:3]))}"
            yield warning("metrics", said, "see docs/trouble.md on losses that are not finite")
        else:
            yield ok("metrics", said)

    def signs(self, config: TrainConfig) -> Iterator[Line]:
        """What the watch said while training, and says of the rows now."""
        watch = RunWatch(config, dtype=config.model.dtype or "float32")
        found: list[Finding] = []
        for row in self.rows:
            found += [Finding(**one) for one in row.get("warnings", ())]
            found += watch.observe(row["step"], row)
        newest = {finding.kind: finding for finding in found}
        for finding in newest.values():
            times = len({one.step for one in found if one.kind == finding.kind})
            more = f" (said {times} times)" if times > 1 else ""
            said, _, advice = finding.text.partition("; ")
            yield warning(finding.kind.replace("_", " "), said + more, advice)
        if self.rows and not found:
            yield ok("signs", "of a diverging loss, starving, unused text or overflow: none")

    # --- pictures ---

    def samples(self, config: TrainConfig) -> Iterator[Line]:
        """Whether the sample grids that should be there are, and open."""
        step = max((row["step"] for row in self.rows), default=0)
        every = config.sample_interval
        wanted = [f"step_{n:08d}.png" for n in range(every, step + 1, every)] if every else []
        if self.folder.finished():
            wanted.append("final.png")
        missing = [name for name in wanted if not (self.folder.samples / name).is_file()]
        broken = []
        for path in sorted(self.folder.samples.glob("*.png")):
            try:
                with Image.open(path) as picture:
                    picture.verify()
            except (OSError, SyntaxError):
                broken.append(path.name)
        if broken:
            yield warning("samples", f"cannot be opened: {', '.join(broken[:4])}")
        # the grid of the newest step may be under way
        elif [name for name in missing if name != wanted[-1]]:
            yield warning("samples", f"missing: {', '.join(missing[:4])}")
        elif wanted:
            yield ok("samples", f"{len(wanted) - len(missing)} grids in {self.folder.samples}")

    # --- encoders and data ---

    def kept(self) -> dict[str, Any]:
        """What the newest whole checkpoint knows besides arrays."""
        if self.valid is None:
            return {}
        return json.loads((self.valid / "run.json").read_text())

    def encoders(self, config: TrainConfig) -> Iterator[Line]:
        """Whether the encoders still have the weights that the run was trained with."""
        wanted: dict[str, str] = self.kept().get("encoders", {})
        if not wanted:
            return
        from pinxit.encoders.text_encoder_catalogue import places_of

        sources = places_of(config.text_encoder)
        names = [name for name, source in sources.items() if source is not None]
        names += [config.vae] if config.model.use_stable_vae else []
        places = {name: cached(name) for name in dict.fromkeys(names)}
        absent = [name for name, place in places.items() if place is None]
        if absent:
            said = f"{', '.join(absent)}: not on this machine"
            yield warning("encoders", said, "resuming fetches them, where the hub is reachable")
            return
        names = list(dict.fromkeys([*sources, *places]))  # with those that code makes
        total = sum(bytes_of(place) for place in places.values() if place is not None)
        if total > ENCODERS and not self.full:
            said = f"{', '.join(names)} ({size(total)}): not read; --full reads them"
            yield ok("encoders", said)
            return
        try:
            found = ask(
                "pinxit.doctor.encoder_fingerprints",
                [str(self.folder.config)],
                timeout=ENCODER_SECONDS,
                environment={"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"},
            )
        except ChildFailed as error:
            yield problem("encoders", f"cannot be read: {error}")
            return
        other = [name for name, value in wanted.items() if value and found.get(name) != value]
        if other:
            advice = "a model is of use with its own encoders only: bring the former weights back"
            yield problem("encoders", f"not the weights it was trained with: {other[0]}", advice)
        else:
            yield ok("encoders", f"{', '.join(names)}: the weights it was trained with")

    def dataset(self, config: TrainConfig) -> Iterator[Line]:
        """Whether a prepared dataset is whole and still the one the run was begun with."""
        from pinxit.data.prepared.manifest import Manifest
        from pinxit.data.prepared.shards import DamagedShard, verify_shard
        from pinxit.train.datasets import PREPARED

        if config.dataset_name != PREPARED or config.dataset_path is None:
            return
        root = Path(config.dataset_path).expanduser()
        try:
            manifest = Manifest.read(root)
        except (OSError, ValueError) as error:
            advice = f"give the same `pinxit prepare --out {root}` again, or --dataset_path"
            yield problem("dataset", str(error), advice)
            return
        position = self.kept().get("loader_position")
        before = position.get("dataset") if isinstance(position, dict) else None
        if before not in (None, manifest.fingerprint()):
            said = f"{root} is {manifest.fingerprint()}, and the run was begun with {before}"
            yield problem("dataset", said, "give back the former, or another --name")
            return
        kinds: list[str] = [image_column(config.encodes_ahead)]
        kinds += ["text"] if manifest.text else []
        wrong, hashed, count = [], 0.0, 0
        listed = [(kind, info) for kind in kinds for info in manifest.files.get(kind, ()) if info]
        for kind, info in listed:
            path, count = root / kind / info.name, count + 1
            hashed += info.bytes
            if not path.is_file() or path.stat().st_size != info.bytes:
                wrong.append(f"{kind}/{info.name} is missing or not whole")
            elif self.full:
                try:
                    verify_shard(path, info)
                except DamagedShard as error:
                    wrong.append(str(error))
        if wrong:
            said = f"{len(wrong)} of {count} shards: {'; '.join(wrong[:3])}"
            advice = f"give the same `pinxit prepare --out {root}` again: it makes these anew"
            yield problem("dataset", said, advice)
        else:
            how = "with the right hashes" if self.full else "of the right size (--full hashes them)"
            yield ok("dataset", f"{root}: {count} shards, {size(hashed)}, all there {how}")

    # --- what comes next ---

    def following(self, config: TrainConfig) -> Iterator[Line]:
        """What the same command would do."""
        path = self.folder.metrics
        age = time.time() - path.stat().st_mtime if path.is_file() else math.inf
        done = self.folder.finished()
        if done is not None and done["step"] >= config.max_steps:
            yield ok("next", f"finished after {done['step']} steps: the same command does nothing; "
                     f"a larger --max_steps goes on. Report: {self.folder.report}")  # fmt: skip
            return
        if age < RECENT:
            yield ok("next", f"it seems to be running: the last row is {age:.0f} s old")
        if self.valid is not None:
            step = int(self.valid.name.removeprefix(PREFIX))
            yield ok("next", f"the same command resumes after step {step} of {config.max_steps}")
        elif self.damaged:
            said = "no checkpoint is whole: the same command stops and says so"
            yield problem("next", said, "start under another --name; from a copy, if there is one")
        else:
            yield ok("next", "no checkpoint yet: the same command begins at step 0")


def listed(folder: Path) -> None:
    """Raises `CheckpointError` unless all that the manifest lists is there; nothing is hashed."""
    try:
        names = json.loads((folder / MANIFEST).read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"its {MANIFEST} cannot be read ({error})") from error
    for name in names:
        if not (folder / name).is_file():
            raise CheckpointError(f"{name} is missing")
