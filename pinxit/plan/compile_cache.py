"""Compiles of training steps by a worker process, each done once and kept.

A compile's name in the cache is the hash of all it depends on: the settings that shape the step,
the target, the versions of jax and of the vendor's compiler, and the source of the package.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from platform import node
from typing import Any

import pinxit
from pinxit import config as settings
from pinxit import extensions
from pinxit.config import UsageError
from pinxit.plan.compile_worker import FLAGS, MISTAKE, XLA_FLAGS
from pinxit.plan.targets import HERE, get_target
from pinxit.plan.vendor_compilers import OF_PLATFORM, find_compiler, version_of
from pinxit.train.settings import TrainConfig

SHAPING = ("arrays.py", "devices", "encoders", "flow", "models", "plan", "train")
"""The parts of the package that a step, or what is said of it, depends on."""
IRRELEVANT = (
    "name", "dataset_path", "dataset_revision", "columns", "dataset_size", "max_steps", "seed",
    "log_interval", "save_interval", "sample_interval", "eval_interval", "keep_checkpoints",
    "max_skipped", "output_dir", "resume", "init_from", "wandb",
    "filters", "fetch", "images", "sampling", "evaluation", "distributed",
)  # fmt: skip
"""Settings that do not change the program's shape (a seed or a schedule's length are numbers in
it)."""
POLL = 0.2
"""Seconds between looks at a worker."""


class CompilerFailed(RuntimeError):
    """The compiler ended in an error of its own: a bug, of the program or of the compiler."""


Said = Callable[[str, float], None]
"""Is told what is being compiled, and for how many seconds."""


def _quiet(what: str, seconds: float) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class Compiled:
    """What the compiler said of one step."""

    config: TrainConfig
    target: str
    result: dict[str, Any] = field(repr=False)
    """As the worker wrote it."""
    cached: bool
    """Whether it was known before."""

    @property
    def program(self) -> Path:
        """The compiled program's text, gzipped."""
        return Path(self.result["program"])

    @property
    def compiles(self) -> bool:
        """Whether the compiler found room; GPU compilers do not look."""
        return bool(self.result["fits"])

    @property
    def peak(self) -> int | None:
        """Bytes of one device at the busiest moment; None where it did not compile."""
        return self.result["memory"]["peak"] if self.compiles else None


def cache_folder() -> Path:
    """Where results are kept: ``~/.cache/pinxit/plans``, or ``PINXIT_PLANS``."""
    root = os.environ.get("PINXIT_PLANS")
    return Path(root).expanduser() if root else Path.home() / ".cache" / "pinxit" / "plans"


def source_hash() -> str:
    """Of the source that the step comes from."""
    root = Path(pinxit.__file__).parent
    digest = hashlib.sha256()
    for name in SHAPING:
        path = root / name
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return digest.hexdigest()


DEVICES = (
    *("JAX_PLATFORMS", "XLA_FLAGS", "CUDA_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS"),
    *("XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_PREALLOCATE"),
)
"""Variables of the environment that say which devices there are, and how much of their memory."""


def key_of(config: TrainConfig, target: str, compiler: str) -> str:
    """The name of a compile in the cache."""
    shaping = {k: v for k, v in settings.to_json(config).items() if k not in IRRELEVANT}
    about: dict[str, Any] = {
        "config": shaping,
        "target": target,
        "jax": importlib.metadata.version("jax"),
        "compiler": compiler,
        "source": source_hash(),
        "extensions": extensions.loaded(),
    }
    if target == HERE:  # other devices may be here the next time, or elsewhere with this cache
        about["machine"] = [node(), *(os.environ.get(name, "") for name in DEVICES)]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]


def compile_step(
    config: TrainConfig,
    target: str,
    *,
    what: str = "",
    said: Said = _quiet,
) -> Compiled:
    """What the target's compiler says of the step of `config` (resolved).

    Raises `UsageError` for settings that do not fit together and for a compiler that is not there,
    and `CompilerFailed` with the worker's last words where it failed.
    """
    platform = HERE if target == HERE else get_target(target).platform
    path = find_compiler(platform, target=target)
    folder = cache_folder()
    kept = folder / f"{key_of(config, target, version_of(OF_PLATFORM.get(platform), path))}.json"
    if kept.is_file():
        return Compiled(config, target, json.loads(kept.read_text("utf-8")), cached=True)
    folder.mkdir(parents=True, exist_ok=True)
    own = secrets.token_hex(6)  # containers that share the cache may share process numbers
    job = kept.with_suffix(f".{own}.job")
    about = {"config": settings.to_json(config), "target": target}
    about["programs"] = str(folder / "programs")
    job.write_text(json.dumps(about), encoding="utf-8")
    log = kept.with_suffix(f".{own}.log")
    try:
        _run(job, kept, log, environment(platform, path), what=what or target, said=said)
    finally:
        job.unlink(missing_ok=True)
    log.unlink(missing_ok=True)
    return Compiled(config, target, json.loads(kept.read_text("utf-8")), cached=False)


def environment(platform: str, path: list[str]) -> dict[str, str]:
    """The worker's environment: the compiler on its path, and no device but those asked for."""
    package = str(Path(pinxit.__file__).parents[1])
    before = os.environ.get("PYTHONPATH", "")
    paths = [package, *path, *([before] if before else [])]
    flags = {} if platform == HERE else dict(FLAGS)
    if platform in XLA_FLAGS:
        flags["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {XLA_FLAGS[platform]}".strip()
    return {**os.environ, **flags, "PYTHONPATH": os.pathsep.join(paths)}


def _run(job: Path, result: Path, log: Path, env: dict[str, str], *, what: str, said: Said) -> None:
    """Runs the worker to its end; kills it when interrupted."""
    command = [sys.executable, "-P", "-m", "pinxit.plan.compile_worker", str(job), str(result)]
    begun = time.perf_counter()
    with log.open("w") as stream:
        worker = subprocess.Popen(command, env=env, stdout=stream, stderr=stream)
        try:
            while worker.poll() is None:
                said(what, time.perf_counter() - begun)
                time.sleep(POLL)
        finally:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
    if worker.returncode or not result.is_file():
        raise _last_words(log, worker.returncode)


def _last_words(log: Path, code: int) -> UsageError | CompilerFailed:
    """Why a worker failed, from its log."""
    lines = [line for line in log.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if last.startswith(MISTAKE):
        return UsageError(last.removeprefix(MISTAKE))
    if code == -9:
        return UsageError(
            f"the compiler was killed, most likely for want of memory; its log: {log}"
        )
    return CompilerFailed(f"the compiler failed with {last or f'exit code {code}'}; its log: {log}")
