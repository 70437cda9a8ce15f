"""Compiles training steps in a worker process and caches the results.

The cache key is a hash of everything that the result depends on: the settings that shape the step,
the target, the versions of jax and of the vendor's compiler, and the package's source.
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
from pinxit.plan.compile_worker import FLAGS, MISTAKE, XLA_FLAGS, gpu_share
from pinxit.plan.targets import HERE, get_target
from pinxit.plan.vendor_compilers import OF_PLATFORM, find_compiler, package_version
from pinxit.train.settings import TrainConfig
from pinxit.user_cache import user_cache

SHAPING = ("arrays.py", "devices", "encoders", "flow", "models", "plan", "train")
"""Files and folders of the package that determine the step or the analysis of it."""
IRRELEVANT = (
    "name", "dataset_path", "dataset_revision", "columns", "text_encoding", "dataset_size",
    "max_steps", "seed",
    "log_interval", "save_interval", "sample_interval", "eval_interval", "keep_checkpoints",
    "keep_every", "max_skipped", "output_dir", "resume", "resume_step", "change", "init_from",
    "decay_from", "log", "wandb",
    "filters", "fetch", "images", "sampling", "samples", "evaluation", "distributed",
)  # fmt: skip
"""Settings that do not change the program (a seed and a schedule's length are numbers in it)."""
POLL = 0.2
"""Seconds between two checks whether a worker has ended."""


class CompilerFailed(RuntimeError):
    """The compiler crashed: a bug in the program or the compiler, not a mistake in the settings."""


class NotCached(LookupError):
    """The result of a compilation is not in the cache, and it was not to be compiled."""


OnProgress = Callable[[str, float], None]
"""Receives a description of the current compilation and the seconds it has run."""


def _quiet(what: str, seconds: float) -> None:
    """Ignores progress."""


@dataclass(frozen=True)
class Compiled:
    """The result of compiling one training step."""

    config: TrainConfig
    target: str
    result: dict[str, Any] = field(repr=False)
    """The JSON that the worker wrote."""
    cached: bool
    """Whether the result came from the cache."""

    @property
    def program(self) -> Path:
        """The path of the compiled program's text, gzipped."""
        return Path(self.result["program"])

    @property
    def compiles(self) -> bool:
        """Whether the compiler accepted the program. GPU compilers do not check the memory."""
        return bool(self.result["fits"])

    @property
    def peak(self) -> int | None:
        """The peak memory of one device in bytes, or None if the step did not compile."""
        return self.result["memory"]["peak"] if self.compiles else None


def cache_folder() -> Path:
    """Returns the cache folder: ``PINXIT_PLANS``, or `user_cache`'s ``plans`` by default."""
    root = os.environ.get("PINXIT_PLANS")
    return Path(root).expanduser() if root else user_cache("plans")


def source_hash() -> str:
    """Returns the hash of the source files in `SHAPING`."""
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
"""Environment variables that select the devices and limit their memory."""


def key_of(config: TrainConfig, target: str, compiler: str) -> str:
    """Returns the cache key of a compilation."""
    shaping = {k: v for k, v in settings.to_json(config).items() if k not in IRRELEVANT}
    about: dict[str, Any] = {
        "config": shaping,
        "encoders": described_encoders(config),
        "target": target,
        "jax": importlib.metadata.version("jax"),
        "compiler": compiler,
        "source": source_hash(),
        "extensions": extensions.loaded(),
    }
    if target == HERE:  # the devices may change, or machines share this cache
        about["machine"] = [node(), *(os.environ.get(name, "") for name in DEVICES)]
    elif get_target(target).platform == "cuda":  # automatic choices depend on it
        about["gpu_share"] = gpu_share()
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]


def described_encoders(config: TrainConfig) -> list[Any]:
    """Returns the configs of a run's encoders: the contents of a directory may change, and a
    relative path means another directory elsewhere."""
    from pinxit.encoders.abstract_autoencoder import described_autoencoder
    from pinxit.encoders.text_encoder_catalogue import described_text_encoder

    text = described_text_encoder(config.text_encoder)
    return [*text, described_autoencoder(config.autoencoder)]


def compile_step(
    config: TrainConfig,
    target: str,
    *,
    what: str = "",
    on_progress: OnProgress = _quiet,
    only_cached: bool = False,
) -> Compiled:
    """Compiles the step of `config` (resolved) for the target and returns the result.

    `what` describes the compilation for `on_progress`, which may raise an exception to stop it.
    With `only_cached`, raises `NotCached` instead of compiling. Raises `UsageError` if the settings
    do not fit together or the compiler is not installed, and `CompilerFailed` with the last line of
    the worker's log if the compiler crashed.
    """
    platform = HERE if target == HERE else get_target(target).platform
    path = find_compiler(platform, target=target)
    folder = cache_folder()
    cached_result = (
        folder / f"{key_of(config, target, package_version(OF_PLATFORM.get(platform), path))}.json"
    )
    if (result := read_cached(cached_result)) is not None:
        return Compiled(config, target, result, cached=True)
    if only_cached:
        raise NotCached(what or target)
    folder.mkdir(parents=True, exist_ok=True)
    own = secrets.token_hex(6)  # not the process id: containers that share the cache may reuse it
    job = cached_result.with_suffix(f".{own}.job")
    about = {"config": settings.to_json(config), "target": target}
    about["programs"] = str(folder / "programs")
    job.write_text(json.dumps(about), encoding="utf-8")
    log = cached_result.with_suffix(f".{own}.log")
    try:
        _run(
            job,
            cached_result,
            log,
            worker_environment(platform, path),
            what=what or target,
            on_progress=on_progress,
        )
    finally:
        job.unlink(missing_ok=True)
    log.unlink(missing_ok=True)
    return Compiled(config, target, json.loads(cached_result.read_text("utf-8")), cached=False)


def read_cached(path: Path) -> dict[str, Any] | None:
    """Reads a stored result, or returns None if there is none or it is damaged."""
    try:
        result = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return result if isinstance(result, dict) and "fits" in result else None


def worker_environment(platform: str, path: list[str]) -> dict[str, str]:
    """Returns the worker's environment: the compiler is importable, other devices are hidden."""
    package = str(Path(pinxit.__file__).parents[1])
    before = os.environ.get("PYTHONPATH", "")
    paths = [package, *path, *([before] if before else [])]
    flags = {} if platform == HERE else dict(FLAGS)
    if platform in XLA_FLAGS:
        flags["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {XLA_FLAGS[platform]}".strip()
    return {**os.environ, **flags, "PYTHONPATH": os.pathsep.join(paths)}


def _run(
    job: Path, result: Path, log: Path, env: dict[str, str], *, what: str, on_progress: OnProgress
) -> None:
    """Runs the worker until it ends, and kills it if this process is interrupted."""
    command = [sys.executable, "-P", "-m", "pinxit.plan.compile_worker", str(job), str(result)]
    start = time.perf_counter()
    with log.open("w") as stream:
        worker = subprocess.Popen(command, env=env, stdout=stream, stderr=stream)
        try:
            while worker.poll() is None:
                on_progress(what, time.perf_counter() - start)
                time.sleep(POLL)
        finally:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
                log.unlink(missing_ok=True)
    if worker.returncode or not result.is_file():
        raise _last_words(log, worker.returncode)


def _last_words(log: Path, code: int) -> UsageError | CompilerFailed:
    """Reads a failed worker's log and returns the exception to raise."""
    lines = [line for line in log.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if last.startswith(MISTAKE):
        return UsageError(last.removeprefix(MISTAKE))
    if code == -9:
        return UsageError(
            f"the compiler was killed, probably because memory ran out. Its log: {log}"
        )
    return CompilerFailed(f"the compiler failed with {last or f'exit code {code}'}. Its log: {log}")
