"""The process that compiles a training step for a machine, present or not.

``python -m pinxit.plan.compile_worker JOB RESULT`` reads a job (JSON: ``config``, ``target``,
``programs``, a folder) and writes the result as JSON. It is a process of its own because vendor
compilers print, slow down the process that loads them, and take gigabytes that are freed only when
the process ends. If a program does not fit, the result holds the memory that it needs and the
memory that is available.

The same program is compiled once, whatever source files change: `programs` caches compiled programs
under a hash of the program as it is passed to the compiler.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pinxit import extensions
from pinxit.config import UsageError
from pinxit.data.image_column import LATENTS
from pinxit.files import whole
from pinxit.plan.targets import CARDS, GPU_RESERVE, HERE, Target, get_target
from pinxit.train.settings import TrainConfig, config_from_json

MISTAKE = "mistake: "
"""Begins the last line of the log if the settings are wrong rather than the compiler."""
EXHAUSTED = "RESOURCE_EXHAUSTED"
FLAGS = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
"""Environment of a worker that compiles for hardware that is not present."""
GPU_SHARE = 0.92
"""Share of a GPU's memory that a run uses by default (`pinxit.cli.xla_environment.GPU_MEMORY`)."""
XLA_FLAGS = {"cuda": "--xla_gpu_enable_triton_gemm=false"}
"""XLA selects its own kernels for matrix products by timing them, which needs a GPU. A plan is made
without one, so its program calls cuBLAS for all matrix products."""


def main(argv: Sequence[str] | None = None) -> int:
    """Reads a job, compiles it and writes the result. Returns 2 for wrong settings, else 0."""
    extensions.load()
    job_path, result_path = list(sys.argv[1:] if argv is None else argv)
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    config = config_from_json(job["config"])
    try:
        result = work(config, job["target"], programs=Path(job["programs"]))
    except UsageError as error:
        print(MISTAKE + " ".join(str(error).split()), file=sys.stderr)
        return 2
    with whole(Path(result_path)) as temporary:
        temporary.write_text(json.dumps(result), encoding="utf-8")
    return 0


def described(target: Target) -> list[Any]:
    """Returns the target's devices, as JAX describes them when they are not present."""
    from jax.experimental.topologies import get_topology_desc

    if target.platform == "tpu":
        # the two cores of a v4 chip act as one device
        merged = {"chip_config_name": "megacore"} if target.topology.startswith("v4") else {}
        topology = get_topology_desc(platform="tpu", topology_name=target.topology, **merged)
    else:
        topology = get_topology_desc(
            platform="cuda",
            topology_name="",
            target_config=CARDS[target.topology].proto(),
            topology=f"1x1x{target.devices}",
        )
    return list(topology.devices)


def work(config: TrainConfig, name: str, *, programs: Path) -> dict[str, Any]:
    """Compiles a step and returns its memory, cycles and operations, or that it does not fit."""
    import jax

    from pinxit.devices import flops
    from pinxit.plan.stream_cost import stream_encoding
    from pinxit.train.abstract_program import abstract_program
    from pinxit.train.auto_settings import abstract_parts, settled

    target = None if name == HERE else get_target(name)
    devices = jax.devices() if target is None else described(target)
    if target is not None and len(devices) != target.devices:
        raise ValueError(
            f"target: {name} has {target.devices} devices, but its compiler has {len(devices)}"
        )
    memory = target.chip.memory if target else None
    parts = abstract_parts(config, devices, memory_bytes=memory)
    config, _, choice = settled(config, parts, memory=usable(target))
    program = abstract_program(config, devices, memory_bytes=memory)
    start = time.perf_counter()
    traced = program.trace()
    lowered = traced.lower()

    def operations(remat: Any) -> dict[str, float]:
        """Counts the step's operations with XLA's attention, as other kernels cannot be counted."""
        model = dataclasses.replace(config.model, attention="xla", remat=remat)
        counted = dataclasses.replace(config, model=model)
        program = abstract_program(counted, devices, memory_bytes=memory)
        return flops.count_by_dtype(program.trace().jaxpr)

    countable = program.parts.model.attention == "xla"
    result = {
        "devices": len(devices),
        "device": f"{devices[0].platform} {devices[0].device_kind}",
        "mesh": dict(program.parts.mesh.shape),
        "dtype": program.parts.model.dtype,
        "bytes_by_part": program.bytes_by_part(),
        "unread_bytes": program.unread_bytes(traced),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(program.state.params)),
        "flops": sum(operations("none").values()),
        "flops_run": flops.count_by_dtype(traced.jaxpr)
        if countable
        else operations(config.model.remat),
        "stored_width": program.text.stored_width,
        "latent": program.columns[LATENTS].shape[1:] if LATENTS in program.columns else None,
        "chosen": choice.to_json(),
        "jax": jax.__version__,
        "lower_seconds": time.perf_counter() - start,
    }
    if target is None and (stats := devices[0].memory_stats()):
        result["device_memory"] = stats.get("bytes_limit")
    about = f"{name} {devices[0].device_kind} {compiler_version(target)}"
    platform = devices[0].platform
    facts, text = compiled(lowered, programs, about=about, platform=platform)
    result |= facts | analysed(text, target)
    if config.streamed and config.encodes_ahead:
        encoding = stream_encoding(program)
        facts, text = compiled(encoding.lowered, programs, about=about, platform=platform)
        result["stream"] = encoding.to_json(config.batch_size) | facts | analysed(text, target)
    return result


def usable(target: Target | None) -> int | None:
    """Returns the bytes of each device that a run may use, which its choices depend on."""
    if target is None or target.platform != "cuda":
        return target.chip.memory if target else None
    return min(target.chip.memory, int((target.chip.memory + GPU_RESERVE) * gpu_share()))


def gpu_share() -> float:
    """Returns the share of a GPU's memory that a run started now would use."""
    return float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION") or GPU_SHARE)


def compiler_version(target: Target | None) -> str:
    """Returns the version of the target's compiler plugin, or of jaxlib."""
    import importlib.metadata

    name = {"tpu": "libtpu", "cuda": "jax-cuda12-plugin"}.get(target.platform if target else "")
    return importlib.metadata.version(name or "jaxlib")


def compiled(
    lowered: Any, programs: Path, *, about: str, platform: str
) -> tuple[dict[str, Any], str]:
    """Compiles a program, or reads it from `programs`; returns its facts and its text.

    The text is empty if the program does not fit.
    """
    import jax

    digest = hashlib.sha256((about + lowered.as_text()).encode()).hexdigest()[:24]
    facts_file, text_file = programs / f"{digest}.json", programs / f"{digest}.hlo.gz"
    if (stored := _stored(facts_file, text_file)) is not None:
        return stored
    start = time.perf_counter()
    program = ""
    try:
        executable = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        facts = {"fits": False, **overfull(str(error))}
    else:
        program = executable.as_text()
        memory = _memory(executable.memory_analysis())
        if platform == "cpu":  # the reported peak leaves out the temporaries
            total = memory["arguments"] + memory["outputs"] - memory["aliased"]
            memory["peak"] = total + memory["temporaries"]
        facts = {"fits": True, "memory": memory}
        with whole(text_file) as temporary:
            temporary.write_bytes(gzip.compress(program.encode()))
    facts |= {"compile_seconds": time.perf_counter() - start, "program": str(text_file)}
    with whole(facts_file) as temporary:
        temporary.write_text(json.dumps(facts), encoding="utf-8")
    return facts, program


def _stored(facts_file: Path, text_file: Path) -> tuple[dict[str, Any], str] | None:
    """Reads a compiled program's facts and text, or returns None if one is missing or damaged."""
    try:
        facts = json.loads(facts_file.read_text("utf-8"))
        text = gzip.decompress(text_file.read_bytes()).decode() if facts["fits"] else ""
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error):
        return None
    return (facts, text) if text or not facts["fits"] else None


def _memory(analysis: Any) -> dict[str, int]:
    """Returns the memory of one device by kind, in bytes."""
    return {
        "peak": analysis.peak_memory_in_bytes,
        "arguments": analysis.argument_size_in_bytes,
        "outputs": analysis.output_size_in_bytes,
        "aliased": analysis.alias_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
        "host": analysis.host_temp_size_in_bytes,
        "code": analysis.generated_code_size_in_bytes,
    }


def analysed(text: str, target: Target | None) -> dict[str, Any]:
    """Returns the time estimates that a compiled program's text allows: cycles or traffic."""
    from pinxit.plan.gpu_roofline import roofline
    from pinxit.plan.tpu_cycles import estimate

    if not text or target is None:
        return {}
    if target.platform == "tpu":
        return {"cycles": dataclasses.asdict(estimate(text))}
    return {"traffic": dataclasses.asdict(roofline(text))}


def overfull(message: str) -> dict[str, int]:
    """Reads the bytes needed and available from the compiler's message.

    Raises `ValueError` for every other message.
    """
    if EXHAUSTED not in message:
        raise ValueError(f"the compiler failed: {' '.join(message.split())[:600]}")
    from pinxit.train.watch.out_of_memory import shortage

    memory = shortage(message)
    if memory.needed is not None and memory.available is not None:
        return {"needed": memory.needed, "available": memory.available}
    raise ValueError(
        f"the compiler ran out of memory with a message that is not understood: {message[:600]}"
    )


if __name__ == "__main__":
    sys.exit(main())
