"""Vendor compilers that run with no vendor's hardware in reach: where they are, how they come.

They are large and slow down whatever else runs in their environment, so they live in a folder of
their own (``~/.cache/pinxit/compilers/tpu``, or below ``PINXIT_COMPILERS``), which only the
planner's worker has on its path. Versions are those that the installed jax asks for in its own
extras, so that the compiler is the one a run would use.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from pinxit.config import UsageError

MODULES = {"tpu": "libtpu", "cuda12": "jax_cuda12_plugin"}
"""What each compiler is imported as."""
EXTRAS = {"tpu": ("tpu", r"libtpu"), "cuda12": ("cuda12", r"jax-cuda12-plugin")}
"""The extra of jax that asks for it, and the beginning of the requirement."""
OF_PLATFORM = {"tpu": "tpu", "cuda": "cuda12"}


class CompilerMissing(UsageError):
    """The vendor's compiler is not installed; the message has the command that installs it."""

    def __init__(self, target: str, compiler: str) -> None:
        super().__init__(
            "target",
            target,
            problem=f"planned with a compiler that is not installed ({MODULES[compiler]})",
            valid=f"after: pinxit plan --install-compiler {compiler}",
        )


def folder_of(compiler: str) -> Path:
    """Where the planner keeps a compiler."""
    root = os.environ.get("PINXIT_COMPILERS")
    base = Path(root).expanduser() if root else Path.home() / ".cache" / "pinxit" / "compilers"
    return base / compiler


def find_compiler(platform: str, *, target: str) -> list[str]:
    """What the worker needs on its path for `platform`; raises `CompilerMissing`."""
    compiler = OF_PLATFORM.get(platform)
    if compiler is None:
        return []
    folder = folder_of(compiler)
    if (folder / MODULES[compiler]).is_dir():
        return [str(folder)]
    if importlib.util.find_spec(MODULES[compiler]) is not None:
        return []
    raise CompilerMissing(target, compiler)


def requirement(compiler: str) -> str:
    """What the installed jax asks for, such as ``libtpu==0.0.42.*``."""
    extra, name = EXTRAS[compiler]
    for line in importlib.metadata.requires("jax") or []:
        wanted, _, marker = line.partition(";")
        if re.search(rf"extra\s*==\s*['\"]{extra}['\"]", marker) and re.match(name, wanted):
            return wanted.strip()
    version = importlib.metadata.version("jax")
    raise UsageError(f"install_compiler: jax {version} names no {name} in its extra {extra!r}")


def install_command(compiler: str) -> list[str]:
    """The command that installs a compiler into its folder."""
    into = ["--target", str(folder_of(compiler)), "--upgrade", requirement(compiler)]
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "install", "--quiet", *into]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", "--python", sys.executable, *into]
    raise UsageError("install_compiler: neither pip nor uv is there to install with")


def install(compiler: str) -> Path:
    """Installs a compiler and returns its folder."""
    if compiler not in MODULES:
        raise UsageError("install_compiler", compiler, valid=list(MODULES))
    command = install_command(compiler)
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise UsageError(
            f"install_compiler: {compiler} could not be installed; the command was: "
            f"{' '.join(command)}"
        )
    return folder_of(compiler)


def version_of(compiler: str | None, path: list[str]) -> str:
    """The compiler's version, for the cache's key."""
    if compiler is None:
        return importlib.metadata.version("jaxlib")
    name = MODULES[compiler].replace("_", "-")
    found = importlib.metadata.distributions(name=name, path=[*path, *sys.path])
    for distribution in found:
        return f"{name} {distribution.version}"
    return name
