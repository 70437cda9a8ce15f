"""Checks of Python and the packages: matching versions, and which extras are installed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from pinxit.doctor.report_line import Line, ok, problem, warning
from pinxit.extras import extra_command

PYTHONS = ((3, 11), (3, 13))
"""The oldest and the newest Python that Pinxit is tested with."""
EXTRAS = {
    "data": "streaming, `pinxit prepare` and training on prepared data",
    "ray": "`pinxit prepare --engine ray`",
    "wandb": "--log wandb",
    "trackio": "--log trackio",
    "cuda": "NVIDIA GPUs, the same as cuda12",
    "cuda12": "NVIDIA GPUs, driver 525 or newer",
    "cuda13": "NVIDIA GPUs newer than the V100, driver 580 or newer",
    "tpu": "TPUs",
}
"""The use of each extra. Other extras are listed by name only."""
PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin", "jax-cuda12-pjrt", "jax-cuda13-pjrt")
DEVICES = Path("/dev")
"""The folder of device files."""
DEVELOPERS = ("dev", "parity")
"""Extras for developers, which are not listed."""


def accelerators() -> dict[str, str]:
    """Returns the extras that this machine's accelerators need, with the devices' paths."""
    paths = [*sorted(DEVICES.glob("accel*")), *sorted((DEVICES / "vfio").glob("[0-9]*"))]
    gpu = DEVICES / "nvidia0"
    return ({"cuda": str(gpu)} if gpu.exists() else {}) | ({"tpu": str(paths[0])} if paths else {})


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Iterator[Line]:
    """Checks whether Pinxit is tested with this version of Python."""
    message = ".".join(map(str, version))
    low, high = PYTHONS
    if low <= version[:2] <= high:
        yield ok("python", f"{message} ({sys.executable})")
    else:
        known = f"{'.'.join(map(str, low))} to {'.'.join(map(str, high))}"
        yield problem("python", f"{message}, but Pinxit needs {known}", f"install Python {known}")


def installed_version(name: str) -> str | None:
    """Returns the version of an installed distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def jax_versions() -> Iterator[Line]:
    """Checks whether jax, jaxlib and the plugins are of one release."""
    jax, jaxlib = installed_version("jax"), installed_version("jaxlib")
    if jax is None or jaxlib is None:
        missing = "jax" if jax is None else "jaxlib"
        yield problem("jax", f"{missing} is not installed", "pip install pinxit")
        return
    plugins = {name: version for name in PLUGINS if (version := installed_version(name))}
    message = ", ".join(
        [f"jax {jax}", f"jaxlib {jaxlib}", *(f"{k} {v}" for k, v in plugins.items())]
    )
    if libtpu := installed_version("libtpu"):
        message += f", libtpu {libtpu}"
    wrong = [name for name, version in plugins.items() if version != jaxlib]
    required = [Requirement(text) for text in metadata.requires("jax") or ()]
    wrong += _unmet([r for r in required if r.name == "jaxlib" and r.marker is None])
    if wrong:
        extra = "cuda13" if any("cuda13" in name for name in plugins) else "cuda12"
        named = f"jax[{extra}]" if plugins else "jax"
        fix = f'pip install -U "{named}=={jax}"'
        yield problem("jax", f"versions that do not match: {message}", fix)
    else:
        yield ok("jax", message)
    yield from _hardware_without_plugin(bool(plugins), libtpu is not None)


def _hardware_without_plugin(gpu: bool, tpu: bool) -> Iterator[Line]:
    """Warns of an accelerator that JAX cannot use because a package is missing."""
    present = accelerators()
    if "cuda" in present and not gpu:
        message = "this machine has an NVIDIA GPU, but JAX has no plugin for it"
        yield warning("gpu", message, extra_command("cuda"))
    if "tpu" in present and not tpu and not gpu:
        message = f"this machine has {present['tpu']}, but libtpu is not installed"
        yield warning("tpu", message, f"on a TPU machine: {extra_command('tpu')}")


def requirements() -> Iterator[Line]:
    """Checks whether Pinxit's requirements are installed in fitting versions, and which extras."""
    try:
        own = metadata.distribution("pinxit")
    except metadata.PackageNotFoundError:
        yield warning(
            "packages", "pinxit runs from its source and is not installed", "pip install -e ."
        )
        return
    needed = [Requirement(text) for text in own.requires or ()]
    wrong = _unmet([r for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})])
    if wrong:
        yield problem("packages", "; ".join(wrong), "pip install -U pinxit")
    else:
        yield ok("packages", f"pinxit {own.version} with all its requirements")
    for extra in own.metadata.get_all("Provides-Extra") or ():
        if extra in DEVELOPERS:
            continue
        mine = [r for r in needed if r.marker and r.marker.evaluate({"extra": extra})]
        mine = [r for r in mine if not r.marker.evaluate({"extra": ""})]  # type: ignore[union-attr]
        use = EXTRAS.get(extra, "")
        unmet = _unmet([r for r in mine if _normal(r.name) != "pinxit"], extras=True)
        named = f" ({use})" if use else ""
        if unmet:
            yield ok("extra", f"{extra}{named}: not installed; {extra_command(extra)}")
        else:
            yield ok("extra", f"{extra}{named}: installed")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _unmet(needed: list[Requirement], *, extras: bool = False) -> list[str]:
    """Returns the requirements that are missing or of a wrong version, as messages.

    With `extras`, ``jax[cuda12]`` also requires its plugin.
    """
    messages = []
    for requirement in needed:
        version = installed_version(requirement.name)
        if version is None:
            messages.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(version, prereleases=True):
            messages.append(f"{requirement.name} {version} is not {requirement.specifier}")
        elif extras and _normal(requirement.name) == "jax":
            messages += [
                f"{plugin} is missing"
                for extra in requirement.extras
                for plugin in (("libtpu",) if extra == "tpu" else (f"jax-{extra}-plugin",))
                if installed_version(plugin) is None
            ]
    return messages
