"""Finds and installs the vendors' compilers, which run without the vendor's hardware.

They are large and slow down every process that loads them, so each has a folder of its own
(``~/.cache/pinxit/compilers/tpu``, or below ``PINXIT_COMPILERS``), which only the planner's worker
has on its path. The installed jax requires certain versions in its extras, and these are used, so
the compiler is the one that a run would use.
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
from pinxit.user_cache import user_cache

MODULES = {"tpu": "libtpu", "cuda12": "jax_cuda12_plugin"}
"""The module that each compiler is imported as."""
EXTRAS = {"tpu": ("tpu", r"libtpu"), "cuda12": ("cuda12", r"jax-cuda12-plugin")}
"""The extra of jax that requires each compiler, and a pattern for the requirement's beginning."""
OF_PLATFORM = {"tpu": "tpu", "cuda": "cuda12"}


class CompilerMissing(UsageError):
    """The vendor's compiler is not installed. The message names the command that installs it."""

    def __init__(self, target: str, compiler: str) -> None:
        self.command = f"pinxit plan --install-compiler {compiler}"
        """The command that installs the compiler."""
        super().__init__(
            "target",
            target,
            problem=f"not available: its compiler ({MODULES[compiler]}) is not installed; "
            f"run: {self.command}",
        )


def compiler_folder(compiler: str) -> Path:
    """Returns the folder that a compiler is installed into."""
    root = os.environ.get("PINXIT_COMPILERS")
    base = Path(root).expanduser() if root else user_cache("compilers")
    return base / compiler


def find_compiler(platform: str, *, target: str) -> list[str]:
    """Returns the folders to add to the worker's path for `platform`.

    Raises `CompilerMissing` if the compiler is not installed.
    """
    compiler = OF_PLATFORM.get(platform)
    if compiler is None:
        return []
    folder = compiler_folder(compiler)
    if (folder / MODULES[compiler]).is_dir():
        return [str(folder)]
    if importlib.util.find_spec(MODULES[compiler]) is not None:
        return []
    raise CompilerMissing(target, compiler)


def requirement(compiler: str) -> str:
    """Returns the requirement of the installed jax, such as ``libtpu==0.0.42.*``."""
    extra, name = EXTRAS[compiler]
    for line in importlib.metadata.requires("jax") or []:
        required, _, marker = line.partition(";")
        if re.search(rf"extra\s*==\s*['\"]{extra}['\"]", marker) and re.match(name, required):
            return required.strip()
    version = importlib.metadata.version("jax")
    raise UsageError(f"install_compiler: jax {version} does not list {name} in its extra {extra!r}")


def install_command(compiler: str) -> list[str]:
    """Returns the command that installs a compiler into its folder."""
    into = ["--target", str(compiler_folder(compiler)), "--upgrade", requirement(compiler)]
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "install", "--quiet", *into]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", "--python", sys.executable, *into]
    raise UsageError("install_compiler: neither pip nor uv is installed")


def install(compiler: str) -> Path:
    """Installs a compiler and returns its folder."""
    if compiler not in MODULES:
        raise UsageError("install_compiler", compiler, valid=list(MODULES))
    command = install_command(compiler)
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise UsageError(
            f"install_compiler: {compiler} could not be installed. The command was: "
            f"{' '.join(command)}"
        )
    return compiler_folder(compiler)


def package_version(compiler: str | None, path: list[str]) -> str:
    """Returns the compiler's version for the cache key."""
    if compiler is None:
        return importlib.metadata.version("jaxlib")
    name = MODULES[compiler].replace("_", "-")
    installed = importlib.metadata.distributions(name=name, path=[*path, *sys.path])
    for distribution in installed:
        return f"{name} {distribution.version}"
    return name
