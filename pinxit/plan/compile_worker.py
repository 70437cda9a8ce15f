"""The process that compiles: a training step for a machine that need not be there.

``python -m pinxit.plan.compile_worker JOB RESULT`` reads a job (JSON: ``config``, ``target``,
``programs``, a folder) and writes the result as JSON. It is a process of its own because vendor
compilers print, slow down their process, and take gigabytes that only an end gives back. A program
that does not fit is a result, too: what it needs and what there is.

Whatever is edited, the same program is compiled once: `programs` keeps what the compiler made of
it, by the hash of the program as it is handed over.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pinxit import extensions
from pinxit.config import UsageError, from_json
from pinxit.files import whole
from pinxit.plan.targets import CARDS, HERE, Target, get_target
from pinxit.train.settings import TrainConfig

MISTAKE = "mistake: "
"""Begins the last line of the log where the settings are wrong, not the compiler."""
EXHAUSTED = "RESOURCE_EXHAUSTED"
FLAGS = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
"""Environment of a worker that compiles for hardware that is not there."""
XLA_FLAGS = {"cuda": "--xla_gpu_enable_triton_gemm=false"}
"""Without a card nothing can be tried, and XLA's own kernels for products are chosen by trying:
what is planned calls cuBLAS for all of them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Reads a job, compiles, writes the result."""
    extensions.load()
    job_path, result_path = list(sys.argv[1:] if argv is None else argv)
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    config = from_json(TrainConfig, job["config"])
    try:
        result = work(config, job["target"], programs=Path(job["programs"]))
    except UsageError as error:
        print(MISTAKE + " ".join(str(error).split()), file=sys.stderr)
        return 2
    with whole(Path(result_path)) as temporary:
        temporary.write_text(json.dumps(result), encoding="utf-8")
    return 0


def described(target: Target) -> list[Any]:
    """The devices of a machine that is not there."""
    from jax.experimental.topologies import get_topology_desc

    if target.platform == "tpu":
        # both cores of a v4 chip work as one device
        merged = {"chip_config_name": "megacore"} if target.topology.startswith("v4") else {}
        found = get_topology_desc(platform="tpu", topology_name=target.topology, **merged)
    else:
        found = get_topology_desc(
            platform="cuda",
            topology_name="",
            target_config=CARDS[target.topology].proto(),
            topology=f"1x1x{target.devices}",
        )
    return list(found.devices)


def work(config: TrainConfig, name: str, *, programs: Path) -> dict[str, Any]:
    """What the compiler says of a step: memory, cycles, operations; or that it does not fit."""
    import jax

    from pinxit.plan import flops
    from pinxit.train.abstract_program import abstract_program

    target = None if name == HERE else get_target(name)
    devices = jax.devices() if target is None else described(target)
    if target is not None and len(devices) != target.devices:
        raise ValueError(
            f"target: {name} has {target.devices} devices, the compiler {len(devices)}"
        )
    memory = target.chip.memory if target else None
    program = abstract_program(config, devices, memory_bytes=memory)
    begun = time.perf_counter()
    traced = program.trace()
    lowered = traced.lower()

    def operations(remat: Any) -> float:
        """Of the step with XLA's attention: in another's, nothing can be counted."""
        model = dataclasses.replace(config.model, attention="xla", remat=remat)
        seen = dataclasses.replace(config, model=model)
        return flops.count(abstract_program(seen, devices, memory_bytes=memory).trace().jaxpr)

    in_sight = program.parts.model.attention == "xla"
    result = {
        "devices": len(devices),
        "device": f"{devices[0].platform} {devices[0].device_kind}",
        "mesh": dict(program.parts.mesh.shape),
        "dtype": program.parts.model.dtype,
        "bytes_by_part": program.bytes_by_part(),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(program.state.params)),
        "flops": operations("none"),
        "flops_run": flops.count(traced.jaxpr) if in_sight else operations(config.model.remat),
        "stored_width": program.parts.text.stored_width,
        "jax": jax.__version__,
        "lower_seconds": time.perf_counter() - begun,
    }
    if target is None and (stats := devices[0].memory_stats()):
        result["device_memory"] = stats.get("bytes_limit")
    about = f"{name} {devices[0].device_kind} {compiler_version(target)}"
    made, text = compiled(lowered, programs, about=about, platform=devices[0].platform)
    return result | made | analysed(text, target)


def compiler_version(target: Target | None) -> str:
    """Of what compiles for the target, as its plugin tells."""
    import importlib.metadata

    name = {"tpu": "libtpu", "cuda": "jax-cuda12-plugin"}.get(target.platform if target else "")
    return importlib.metadata.version(name or "jaxlib")


def compiled(
    lowered: Any, programs: Path, *, about: str, platform: str
) -> tuple[dict[str, Any], str]:
    """What the compiler makes of a program, and the result's text; from `programs` if it is there.

    The text is empty where the program does not fit.
    """
    import jax

    digest = hashlib.sha256((about + lowered.as_text()).encode()).hexdigest()[:24]
    facts, text = programs / f"{digest}.json", programs / f"{digest}.hlo.gz"
    if facts.is_file():
        found = json.loads(facts.read_text("utf-8"))
        return found, gzip.decompress(text.read_bytes()).decode() if found["fits"] else ""
    begun = time.perf_counter()
    program = ""
    try:
        made = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        found = {"fits": False, **overfull(str(error))}
    else:
        program = made.as_text()
        memory = _memory(made.memory_analysis())
        if platform == "cpu":  # whose peak leaves out the temporaries
            total = memory["arguments"] + memory["outputs"] - memory["aliased"]
            memory["peak"] = total + memory["temporaries"]
        found = {"fits": True, "memory": memory}
        with whole(text) as temporary:
            temporary.write_bytes(gzip.compress(program.encode()))
    found |= {"compile_seconds": time.perf_counter() - begun, "program": str(text)}
    with whole(facts) as temporary:
        temporary.write_text(json.dumps(found), encoding="utf-8")
    return found, program


def _memory(analysis: Any) -> dict[str, int]:
    """Bytes of one device."""
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
    """What the text of a compiled program says of its time."""
    from pinxit.plan.gpu_roofline import roofline
    from pinxit.plan.tpu_cycles import estimate

    if not text or target is None:
        return {}
    if target.platform == "tpu":
        return {"cycles": dataclasses.asdict(estimate(text))}
    return {"traffic": dataclasses.asdict(roofline(text))}


def overfull(message: str) -> dict[str, int]:
    """Bytes needed and available, from what the compiler says; other errors are raised."""
    if EXHAUSTED not in message:
        raise ValueError(f"the compiler failed: {' '.join(message.split())[:600]}")
    from pinxit.train.watch.out_of_memory import shortage

    said = shortage(message)
    if said.needed is not None and said.available is not None:
        return {"needed": said.needed, "available": said.available}
    raise ValueError(f"the compiler ran out of memory, and how is not understood: {message[:600]}")


if __name__ == "__main__":
    sys.exit(main())
